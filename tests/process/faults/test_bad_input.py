"""Wrong input gives one message that names it, before any training, exit code 2, and nothing is
written or changed.

Most cases call the command in this process; those in which the launcher, the shell or the exit code
matter start it as users do.
"""

import json
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from input_cases import begun, damage, listing, only_one
from PIL import Image
from processes import BIN, TINY, environment, line, run


@pytest.fixture
def data(particles, tmp_path, monkeypatch):
    """A copy of a good data set, as `data` in the current folder."""
    monkeypatch.chdir(tmp_path)
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    shutil.copytree(particles, "data")
    return Path("data")


def started(words: list[str], *arguments: str, where: Path, **env: str) -> tuple[int, str, str]:
    """Exit code, output and errors of a command, and proof that it left `where` as it was."""
    before = listing(where)
    done = subprocess.run(
        [*words, *arguments],
        cwd=where,
        env=environment(**env),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert listing(where) == before
    return done.returncode, done.stdout, done.stderr


# ---- the command line
def test_an_unknown_recipe(data, tmp_path):
    code, out, err = started(line("distgan"), "sagann", "data=data", where=tmp_path)
    assert (code, out) == (2, "")
    only_one(err)
    assert "no recipe 'sagann' (did you mean sagan?); there are: capacity, r3gan, sagan" in err


def test_a_misspelt_key(data, tmp_path):
    code, _, err = started(line("python"), "sagan", "data=data", "bacth=3", where=tmp_path)
    assert code == 2
    only_one(err)
    assert "bacth: unknown key (did you mean batch?)" in err


def test_three_wrong_values_at_once(data, tmp_path):
    code, _, err = started(
        line("python"),
        "sagan",
        "data=data",
        "epochs=soon",
        "betas=[0, 1]",
        "machine.keep=0",
        where=tmp_path,
    )
    assert code == 2
    only_one(err)
    assert "3 errors in the settings of sagan" in err and all(
        f"\n  {key}: found " in err for key in ("epochs", "betas", "machine.keep")
    )


def test_bytes_that_are_no_text(data, tmp_path):
    code, _, err = started(
        [*line("python"), "sagan", b"data=\xff\xfe"], where=tmp_path, PYTHONIOENCODING="ascii"
    )
    assert code == 2
    only_one(err)


# ---- the data


def test_a_truncated_shard(data, tmp_path):
    shard = data / "train" / "train-000000.tar"
    os.truncate(shard, shard.stat().st_size - 10_000)
    code, out, err = started(line("python"), "sagan", "data=data", where=tmp_path)
    assert (code, out) == (2, "")
    only_one(err)
    assert (
        f"data/train/train-000000.tar is truncated: {shard.stat().st_size} bytes, expected"
        f" {shard.stat().st_size + 10_000}" in err
    )


def test_a_damaged_sample_is_found_by_all_before_the_first_step(data, tmp_path):
    """One rank alone meets it; the other must neither hang nor show its own end as the cause."""
    name = damage(data)
    output = run(
        line("torchrun", 2),
        "sagan",
        "data=data",
        "machine.folder=run",
        "machine.resident_mb=0",
        *TINY,
        cwd=tmp_path,
        code=1,
    )
    assert output.count("error: ") == 1 and f"{name} at bytes" in output and "[rank" not in output
    journal = (
        tmp_path / "run" / "journal.jsonl"
    )  # of the checks before the first step, where they came as far
    assert not journal.exists() or "d/loss" not in journal.read_text()
    assert json.loads((tmp_path / "run" / "status.json").read_text())["state"] == "failed"


def test_a_folder_with_a_broken_picture(data, tmp_path):
    (tmp_path / "photos").mkdir()
    for i in range(4):
        Image.fromarray(np.random.default_rng(i).integers(0, 256, (64, 64), np.uint8)).save(
            tmp_path / "photos" / f"{i}.png"
        )
    whole = (tmp_path / "photos" / "2.png").read_bytes()
    (tmp_path / "photos" / "2.png").write_bytes(whole[: len(whole) // 2])
    code, _, err = started(
        [str(BIN / "distgan"), "shard", "images", "out", "--from", "photos", "--workers", "1"],
        where=tmp_path,
    )
    assert code == 2
    only_one(err)
    assert (
        "1 of 4 samples cannot be read; nothing was written" in err
        and "2.png" in err
        and "--drop-low-quality" in err
    )


@pytest.fixture
def folder(data, tmp_path):
    """The folder of a run that was begun, as a start leaves it."""
    from distgan.runs.folder import RunFolder

    opened = RunFolder(*begun())
    yield opened
    opened.close()


# ---- two processes


def test_a_local_launch_tells_it_without_the_launcher(data, tmp_path):
    """`distgan run` looks before it launches, so here the exit code is 2 and no traceback is shown
    at all.
    """
    code, out, err = started(
        [str(BIN / "distgan"), "run", "--processes", "2", "sagan", "data=data", "batch=15"],
        where=tmp_path,
    )
    assert (code, out) == (2, "")
    only_one(err)
    assert "2 does not divide 15" in err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ["batch=15"],
            (
                "a global batch of 15 cannot be shared by 2 ranks x 1 micro-batches: 2 does not"
                " divide 15. Fit, one instead of what was asked: batch 14, 16"
            ),
        ),
        (["machine.folder=begun", "ngf=4"], "the run folder begun belongs to another run"),
    ],
)
def test_two_processes_tell_it_once(folder, tmp_path, words, said):
    """torchrun turns the 2 of its processes into 1, and shows a traceback of itself.

    None is ours.
    """
    folder.close()
    code, out, err = started(line("torchrun", 2), "sagan", "data=data", *words, where=tmp_path)
    assert code == 1 and out == ""
    assert (
        [text for text in err.splitlines() if "error:" in text]
        == [text for text in err.splitlines() if said in text]
        != []
    )
    assert (
        err.count("error:") == 1
        and "exitcode  : 2 " in err
        and "[rank" not in err
        and "in main\n    raise" not in err
    )
