"""`distgan shard --task K/N` and `--finish`.

The tasks of a job array write what one program would have written.
"""

import fcntl
import json
import re
import shlex
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from shard_sets import SMALL, contents, shard

from distgan.core.errors import ConfigError, DataError
from distgan.shards.build import plan
from distgan.shards.build.command import parse_task
from distgan.shards.sources import _base, images


@pytest.fixture
def lost(tmp_path) -> Path:
    """Three of four tasks are done.

    Shards 1 and 5 are missing. Number 6 is the shard of the validation split.
    """
    for k in (0, 2, 3):
        assert shard("particles", tmp_path / "p", *SMALL, "--workers", 1, "--task", f"{k}/4") == 0
    return tmp_path / "p"


def test_a_task_writes_every_nth_shard(tmp_path):
    shard("particles", tmp_path, *SMALL, "--workers", 1, "--task", "2/3")
    assert sorted(path.name for path in tmp_path.rglob("*.tar")) == [
        "train-000002.tar",
        "train-000005.tar",
    ]
    shard("particles", tmp_path, *SMALL, "--workers", 1, "--task", "6/7")
    assert [path.name for path in tmp_path.rglob("validation/*.tar")] == ["validation-000000.tar"]
    assert shard("particles", tmp_path, *SMALL, "--workers", 1, "--task", "9/10") == 0, (
        "more tasks than shards"
    )


def test_finish_names_what_a_lost_task_left_out_and_its_lines_mend_it(lost, reference, capsys):
    damaged = lost / "train" / "train-000002.tar"
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"x")
    before = contents(lost)
    with pytest.raises(
        DataError, match=r"3 of 7 shards are missing or damaged: 1, 2, 5\n"
    ) as raised:
        shard("particles", lost, *SMALL, "--finish")
    assert contents(lost) == before
    lines = [line.strip() for line in str(raised.value).splitlines() if "--task" in line]
    assert [line.rpartition(" ")[2] for line in lines] == ["1/7", "2/7", "5/7"]
    small = re.sub(r"(--[a-z-]+) ", r"\1=", " ".join(map(str, SMALL)))
    assert str(raised.value).endswith(f"with: distgan shard particles {lost} {small}")
    for line in lines:
        assert line.startswith("distgan shard ") and shard(*shlex.split(line)[2:]) == 0
    shard("particles", lost, *SMALL, "--finish")
    assert contents(lost) == contents(reference)
    assert shard("particles", lost, *SMALL, "--finish") == 0
    assert "is complete: 108 train, 12 validation" in capsys.readouterr().out


def test_finish_names_one_lost_task_by_one_line(lost):
    with pytest.raises(DataError, match=r"2 of 7 shards are missing or damaged: 1, 5\n") as raised:
        shard("particles", lost, *SMALL, "--finish")
    assert [
        line.rpartition(" ")[2] for line in str(raised.value).splitlines() if "--task" in line
    ] == ["1/4"]
    for count in (1, 2, 7, 30):
        for n in range(1, count + 1):
            for task in range(min(n, count)):
                numbers = list(range(task, count, n))
                (line,) = plan._tasks(numbers, count)
                k, m = map(int, line.split("/"))
                assert k < m and list(range(k, count, m)) == numbers


def test_the_plain_line_finishes_what_tasks_began(lost, reference, capsys):
    kept = (lost / "train" / "train-000000.tar").stat().st_mtime_ns
    shard("particles", lost, *SMALL, "--workers", 1)
    assert "5 of 7 shards are already whole, kept" in capsys.readouterr().out
    assert contents(lost) == contents(reference)
    assert (lost / "train" / "train-000000.tar").stat().st_mtime_ns == kept


def test_a_task_mends_its_shards_of_a_complete_set_and_leaves_the_others(
    reference, tmp_path, capsys
):
    out = tmp_path / "p"
    shutil.copytree(reference, out)
    assert shard("particles", out, *SMALL, "--task", "1/4") == 0
    assert "every shard of this task was read" in capsys.readouterr().out and contents(
        out
    ) == contents(reference)
    (out / "train" / "train-000001.json").unlink()
    shard("particles", out, *SMALL, "--task", "0/4")
    assert contents(out).keys() == contents(reference).keys() - {"train/train-000001.json"}, (
        "not its own"
    )
    shard("particles", out, *SMALL, "--task", "1/4", "--workers", 1)
    assert not json.loads((out / "dataset.json").read_text())["complete"]
    shard("particles", out, *SMALL, "--finish")
    assert contents(out) == contents(reference)


def test_a_task_removes_what_killed_tasks_left_of_its_own_shards_only(tmp_path):
    train = tmp_path / "p" / "train"
    train.mkdir(parents=True)
    own, written, other = (
        train / name
        for name in (
            "train-000000.tar.tmp-node7-9",
            "train-000003.tar.tmp-node7-9",
            "train-000001.tar.tmp-node7-9",
        )
    )
    for path in (own, written, other):
        path.write_bytes(b"begun")
    shutil.copyfile(dataset_of(tmp_path), tmp_path / "p" / "dataset.json")
    with open(written, "r+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        shard("particles", tmp_path / "p", *SMALL, "--workers", 1, "--task", "0/3")
    assert not own.exists() and written.exists() and other.exists()
    shard("particles", tmp_path / "p", *SMALL, "--workers", 1)
    assert not written.exists() and not other.exists()


def dataset_of(folder: Path) -> Path:
    """dataset.json as a task that has nothing to write leaves it."""
    shard("particles", folder / "begun", *SMALL, "--workers", 1, "--task", "9/10")
    return folder / "begun" / "dataset.json"


def test_tasks_share_the_folder_and_a_whole_run_has_it_alone(tmp_path):
    words = ("particles", tmp_path, *SMALL, "--workers", 1)
    shard(*words, "--task", "0/7")
    for mode, refused in (
        (fcntl.LOCK_SH, [(), ("--finish",)]),
        (fcntl.LOCK_EX, [(), ("--finish",), ("--task", "1/7")]),
    ):
        with (
            open(tmp_path / "dataset.json"),
            subprocess.Popen(
                [sys.executable, "-c", HOLD, tmp_path, str(int(mode))],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
            ) as holder,
        ):
            assert holder.stdout.readline() == b"locked\n"
            for more in refused:
                with pytest.raises(DataError, match="another process is writing into"):
                    shard(*words, *more)
            if mode == fcntl.LOCK_SH:
                assert shard(*words, "--task", "1/7") == 0


HOLD = (
    "import fcntl, os, sys; fcntl.flock(os.open(sys.argv[1], os.O_RDONLY), int(sys.argv[2]));"
    " print('locked', flush=True); sys.stdin.read()"
)


def test_tasks_with_other_options_are_refused(lost):
    before = contents(lost)
    with pytest.raises(ConfigError, match=r"(?s)nothing was overwritten.*--seed: 0 there, 1 now"):
        shard("particles", lost, *SMALL, "--seed", 1, "--task", "1/4")
    with pytest.raises(ConfigError, match="--per-shard: 18 there, 1000 now"):
        shard("particles", lost, "--n", 120, "--size", 32, "--finish")
    assert contents(lost) == before


def test_tasks_that_find_other_samples_are_refused(lost):
    """As with another version of a library, which reads an image that this one cannot."""
    dataset = json.loads((lost / "dataset.json").read_text())
    (lost / "dataset.json").write_text(
        json.dumps(dataset | {"left_out": [{"name": "x", "reason": "unreadable"}]})
    )
    before = contents(lost)
    with pytest.raises(DataError, match="was written for other samples: left_out differ"):
        shard("particles", lost, *SMALL, "--workers", 1, "--task", "1/4")
    assert contents(lost) == before


def test_finish_without_any_task_says_how_to_start_them(tmp_path):
    with pytest.raises(
        DataError,
        match=(
            rf"no task has started. Run: distgan shard particles {tmp_path}/p --n=120 .*"
            r" --task K/N"
        ),
    ):
        shard("particles", tmp_path / "p", *SMALL, "--finish")


@pytest.mark.parametrize("text", ["4/4", "-1/4", "1", "1/0", "a/b", "1/4/2", ""])
def test_wrong_tasks_are_refused(tmp_path, text):
    with pytest.raises(ConfigError, match=r"(?s)--per-shard: found '0', allowed: 1 or.*--task"):
        shard("particles", tmp_path / "p", f"--task={text}", "--per-shard", 0)
    with pytest.raises(ConfigError, match="--task, --finish: give one of them"):
        shard("particles", tmp_path / "p", "--task", "0/2", "--finish")


def test_a_task_finds_its_place_in_a_slurm_array_only_when_asked(tmp_path, monkeypatch):
    array = {"SLURM_ARRAY_TASK_MIN": "5", "SLURM_ARRAY_TASK_COUNT": "7", "SLURM_ARRAY_TASK_ID": "8"}
    assert parse_task("slurm", array) == (3, 7) and parse_task("0/2", array) == (0, 2)
    with pytest.raises(ConfigError, match="not a task of a job array"):
        parse_task("slurm", {})
    with pytest.raises(ConfigError, match="task 7 of 7; .*from 0 to 6, without gaps"):
        parse_task("slurm", array | {"SLURM_ARRAY_TASK_ID": "12"})
    for name, value in array.items():
        monkeypatch.setenv(name, value)
    shard("particles", tmp_path / "one", *SMALL, "--workers", 1, "--task", "slurm")
    assert [path.name for path in tmp_path.rglob("*.tar")] == ["train-000003.tar"]
    shard("particles", tmp_path / "whole", *SMALL, "--workers", 1)
    assert len(list((tmp_path / "whole").rglob("*.tar"))) == 7


def photographs(folder: Path, n: int = 40) -> Path:
    folder.mkdir()
    for i in range(n):
        pixels = np.random.default_rng(i % 37).integers(0, 256, (24, 20, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{i}.png")
    return folder


def test_tasks_examine_each_sample_once_in_all(tmp_path, monkeypatch):
    """One after the other: the first examines all, the others nothing; the bytes are those of one
    run, copies on one side of the split included.
    """
    line = ["--from", photographs(tmp_path / "photos"), "--size", 16, "--per-shard", 5]
    line += ["--workers", 1]
    shard("images", tmp_path / "whole", *line)
    examined = []

    def counted(path: Path, **how):
        examined.append(path)
        return inspect(path, **how)

    inspect = images.inspect_image
    monkeypatch.setattr(images, "inspect_image", counted)
    for task in range(3):
        shard("images", tmp_path / "tasks", *line, "--task", f"{task}/3")
        assert len(examined) == 40
    shard("images", tmp_path / "tasks", *line, "--finish")
    assert contents(tmp_path / "tasks") == contents(tmp_path / "whole")
    assert not list((tmp_path / "tasks").glob("*.tmp*"))


def test_a_part_that_another_task_holds_is_waited_for_and_a_lost_one_taken(tmp_path):
    folder = tmp_path / "parts"
    first = _base.Shared(folder, {"a": 1}, (0, 2))
    folder.mkdir()
    held = open(folder / f"{first._name}-001.lock", "w")
    fcntl.flock(held, fcntl.LOCK_EX)
    issue = _base.SampleIssue

    def work() -> list:
        return first.map(lambda i: issue(i, "", "", True), range(5), 1, "x", lambda d: issue(**d))

    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(work)
        while len(list(folder.glob("*.json"))) < 4:
            assert not waiting.done()
        held.close()  # as when the task that held it was killed
        assert [one.sample for one in waiting.result(60)] == list(range(5))
    (folder / f"{first._name}-003.json").write_text("[")
    with pytest.raises(DataError, match="-003.json is damaged"):
        work()
