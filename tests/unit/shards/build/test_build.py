"""`distgan shard`: the same bytes for any number of writers and kills, nothing overwritten, and
every refusal says what to do.
"""

import fcntl
import hashlib
import io
import json
import resource
import subprocess
import sys
from argparse import Namespace
from pathlib import Path
from tarfile import USTAR_FORMAT, TarInfo

import numpy as np
import pytest
import webdataset
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from shard_sets import ROOT, SMALL, contents, shard

from distgan.cli import guarded
from distgan.core.errors import ConfigError, DataError
from distgan.shards.build import command, plan
from distgan.shards.build.advice import advice
from distgan.shards.build.plan import locked
from distgan.shards.build.split import split
from distgan.shards.format.reader import ShardSet
from distgan.shards.format.writer import header, write_shard
from distgan.shards.sources import particles
from distgan.shards.sources._base import source_names
from distgan.shards.sources.particles import Source


@pytest.fixture
def photos(tmp_path) -> Path:
    """12 noise images, one blank, one broken."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for i in range(12):
        Image.fromarray(np.random.default_rng(i).integers(0, 256, (20, 20), dtype=np.uint8)).save(
            folder / f"{i:02d}.png"
        )
    Image.new("L", (20, 20)).save(folder / "blank.png")
    (folder / "broken.png").write_bytes((folder / "00.png").read_bytes()[:200])
    return folder


def test_what_is_on_disk(reference):
    assert set(contents(reference)) == {
        "dataset.json",
        *(
            f"{part}/{name}"
            for part in ("train", "validation")
            for name in ("manifest.json", "SHA256SUMS")
        ),
        *(f"train/train-{k:06d}.{kind}" for k in range(6) for kind in ("tar", "json")),
        "validation/validation-000000.tar",
        "validation/validation-000000.json",
    }
    dataset = json.loads((reference / "dataset.json").read_text())
    assert dataset == {
        "version": 1,
        "source": "particles",
        "options": {
            "n": 120,
            "size": 32,
            "seed": 0,
            "payload": "png",
            "validation": 0.1,
            "per-shard": 18,
            "drop-unreadable": False,
            "drop-low-quality": False,
        },
        "origin": {},
        "sample": {"kind": "image", "channels": 1, "size": 32, "field": "png"},
        "samples": {"train": 108, "validation": 12},
        "left_out": [],
        "low_quality_kept": [],
        "notes": [],
        "complete": True,
        "fingerprint": dataset["fingerprint"],
    }
    assert len(dataset["fingerprint"]) == 16


def test_samples_are_those_of_the_source_once_each(reference):
    source = Source(Namespace(n=120, size=32, seed=0, payload="png"))
    expected = {key: source.make(i) for i, key in enumerate(source.keys)}
    found = [
        sample
        for part in ("train", "validation")
        for sample in ShardSet(reference / part, verify="sha256")
    ]
    assert len(found) == 120 and {sample["__key__"]: sample for sample in found} == expected


@pytest.mark.filterwarnings(
    "ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"
)
def test_stock_webdataset_decodes_the_images(reference):
    urls = [str(path) for path in sorted((reference / "train").glob("*.tar"))]
    ours = ShardSet(reference / "train")
    for i, sample in enumerate(webdataset.WebDataset(urls, shardshuffle=False).decode("pil")):
        assert sample["png"].size == (32, 32) and sample["json"]["event"] in (
            "beam",
            "star",
            "v0",
            "gamma",
        )
        with Image.open(io.BytesIO(ours[i]["png"])) as image:
            np.testing.assert_array_equal(np.asarray(sample["png"])[..., 0], np.asarray(image))
    assert i + 1 == len(ours)


def test_three_writers_give_the_same_bytes_as_one(reference, tmp_path):
    shard("particles", tmp_path / "p", *SMALL, "--workers", 3)
    assert contents(tmp_path / "p") == contents(reference)


def test_finished_shards_are_kept_and_missing_or_damaged_ones_written_again(
    reference, tmp_path, capsys
):
    words = ("particles", tmp_path / "p", *SMALL, "--workers", 1)
    shard(*words)
    train = tmp_path / "p" / "train"
    (train / "train-000001.json").unlink()
    (train / "train-000002.tar").unlink()
    damaged = bytearray((train / "train-000003.tar").read_bytes())
    damaged[2000] ^= 1
    (train / "train-000003.tar").write_bytes(damaged)
    (train / "train-000004.tar.tmp123").write_bytes(b"left over by a kill")
    kept = (train / "train-000000.tar").stat().st_mtime_ns
    shard(*words)
    assert contents(tmp_path / "p") == contents(reference)
    assert (train / "train-000000.tar").stat().st_mtime_ns == kept
    said = capsys.readouterr().out
    assert (
        "verifying: 6/6 shards" in said
        and "4 of 7 shards are already whole, kept" in said
        and "sharding: 120/120 images" in said
    )


def test_a_complete_set_says_so_and_is_left_alone(reference, capsys):
    before = {path: path.stat().st_mtime_ns for path in reference.rglob("*")}
    assert shard("particles", reference, *SMALL, "--workers", 2) == 0
    assert "is complete: 108 train, 12 validation" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in reference.rglob("*")} == before


def test_other_options_are_refused_with_both_values(reference, photos):
    before = contents(reference)
    with pytest.raises(
        ConfigError,
        match=r"(?s)nothing was overwritten.*--n: 120 there, 121 now.*--seed: 0 there, 5 now.*"
        r"--per-shard: 18 there, 1000 now",
    ):
        shard("particles", reference, "--n", 121, "--size", 32, "--seed", 5)
    with pytest.raises(ConfigError, match="source: particles there, images now"):
        shard("images", reference, "--from", photos)
    assert contents(reference) == before


def test_a_set_of_another_version_is_refused(tmp_path):
    (tmp_path / "dataset.json").write_text('{"version": 2}')
    with pytest.raises(ConfigError, match="has version 2; this program continues version 1"):
        shard("particles", tmp_path)


def test_a_folder_with_other_things_in_it_is_refused(tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(ConfigError, match=r"is not empty \(thesis.txt\)"):
        shard("particles", tmp_path)
    with pytest.raises(ConfigError, match="thesis.txt is a file"):
        shard("particles", tmp_path / "thesis.txt")
    assert contents(tmp_path) == {"thesis.txt": hashlib.sha256(b"mine").hexdigest()}


def test_two_writers_at_once_are_refused(tmp_path):
    with (
        locked(tmp_path, alone=True),
        pytest.raises(DataError, match="another process is writing"),
        locked(tmp_path, alone=True),
    ):
        pass
    with locked(tmp_path, alone=True):
        pass


def test_unreadable_images_stop_it_before_anything_is_written(photos, tmp_path):
    with pytest.raises(
        DataError,
        match=r"(?s)1 of 14 samples cannot be read; nothing was written.*broken.png +unreadable: .*"
        r"--drop-low-quality",
    ):
        shard("images", tmp_path / "out", "--from", photos, "--workers", 1)
    assert not (tmp_path / "out").exists()


def test_the_command_exits_with_2_and_names_the_file(photos, tmp_path):
    done = subprocess.run(
        [
            sys.executable,
            "-W",
            "error",
            "-m",
            "distgan",
            "shard",
            "images",
            tmp_path / "out",
            "--from",
            photos,
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2 and "broken.png" in done.stderr and "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()


def test_low_quality_is_left_out_only_when_asked_and_always_reported(photos, tmp_path, capsys):
    words = ("--from", photos, "--size", 16, "--workers", 1)
    shard("images", tmp_path / "less", *words, "--drop-low-quality")
    assert (
        "2 left out" in (said := capsys.readouterr().out)
        and "blank.png" in said
        and "broken.png" in said
    )
    less = json.loads((tmp_path / "less" / "dataset.json").read_text())
    assert less["samples"] == {"train": 11, "validation": 1}
    assert [entry["name"] for entry in less["left_out"]] == ["blank.png", "broken.png"]
    (photos / "broken.png").unlink()
    shard("images", tmp_path / "all", *words)
    assert "1 of low quality, kept" in (said := capsys.readouterr().out) and "blank.png" in said
    everything = json.loads((tmp_path / "all" / "dataset.json").read_text())
    assert everything["samples"] == {"train": 12, "validation": 1} and everything["left_out"] == []
    assert [entry["name"] for entry in everything["low_quality_kept"]] == ["blank.png"]
    assert everything["origin"] == {"folder": str(photos)}


def test_unreadable_ones_can_be_left_out_alone(photos, tmp_path, capsys):
    shard(
        "images",
        tmp_path / "out",
        "--from",
        photos,
        "--size",
        16,
        "--workers",
        1,
        "--drop-unreadable",
    )
    assert "1 left out" in (said := capsys.readouterr().out) and "1 of low quality, kept" in said
    dataset = json.loads((tmp_path / "out" / "dataset.json").read_text())
    assert [entry["name"] for entry in dataset["left_out"]] == ["broken.png"] and dataset[
        "samples"
    ] == {"train": 12, "validation": 1}
    assert [entry["name"] for entry in dataset["low_quality_kept"]] == ["blank.png"]


def test_images_by_two_writers_moved_or_changed(photos, tmp_path):
    (photos / "broken.png").unlink()
    words = ("--size", 16, "--per-shard", 4)
    shard("images", tmp_path / "a", "--from", photos, *words, "--workers", 1)
    shard("images", tmp_path / "b", "--from", photos, *words, "--workers", 2)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    moved = photos.rename(tmp_path / "moved")
    assert shard("images", tmp_path / "a", "--from", moved, *words) == 0
    (moved / "03.png").unlink()
    with pytest.raises(
        ConfigError, match="--from: 13 images with sha256 .* there, 12 images with sha256 .* now"
    ):
        shard("images", tmp_path / "a", "--from", moved, *words)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


KEYS = st.lists(
    st.text("abcdef0123456789", min_size=1, max_size=8), min_size=2, max_size=60, unique=True
)


@given(keys=KEYS, share=st.floats(0.01, 0.5), shuffled=st.randoms())
def test_the_split_is_exact_disjoint_and_does_not_see_the_order(keys, share, shuffled):
    parts = split(keys, keys, share)
    assert sorted(parts["train"] + parts["validation"]) == list(range(len(keys)))
    assert len(parts["validation"]) == max(1, int(share * len(keys) + 0.5)) and parts["train"]
    other = list(keys)
    shuffled.shuffle(other)
    assert {
        part: [other[i] for i in numbers] for part, numbers in split(other, other, share).items()
    } == {part: [keys[i] for i in numbers] for part, numbers in parts.items()}


@given(sizes=st.lists(st.integers(1, 9), min_size=2, max_size=20), share=st.floats(0.01, 0.5))
def test_groups_are_never_divided(sizes, share):
    groups = [f"g{group}" for group, size in enumerate(sizes) for _ in range(size)]
    parts = split([f"k{i}" for i in range(len(groups))], groups, share)
    train, validation = ({groups[i] for i in parts[part]} for part in ("train", "validation"))
    assert train and validation and not train & validation
    assert len(parts["validation"]) <= max(share * len(groups) + 0.5, min(sizes))


def test_one_group_cannot_be_split():
    with pytest.raises(ConfigError, match="all 3 samples are of one group"):
        split(["a", "b", "c"], ["same"] * 3, 0.1)
    with pytest.raises(ConfigError, match="there are no samples"):
        split([], [], 0.1)


@pytest.mark.parametrize("validation", ["0", "-0.1", "0.51", "nan"])
def test_wrong_options_are_named_together(tmp_path, validation):
    with pytest.raises(
        ConfigError, match=r"(?s)--validation: .*at most 0.5.*--per-shard: .*--workers: "
    ):
        shard(
            "particles",
            tmp_path / "out",
            f"--validation={validation}",
            "--per-shard",
            0,
            "--workers",
            0,
        )


def test_an_unknown_source_is_answered_with_the_nearest():
    with pytest.raises(
        ConfigError,
        match=r"no source 'partcles' \(did you mean particles\?\); there are: .*images, ",
    ):
        shard("partcles", "out")


def test_help_teaches_each_source_and_the_next_command(capsys):
    assert shard() == shard("--help") == 0
    said = capsys.readouterr().out
    for name in source_names():
        assert f"distgan shard {name} OUT" in said
        with pytest.raises(SystemExit) as exited:
            shard(name, "--help")
        assert exited.value.code == 0
        one = capsys.readouterr().out
        assert (
            f"distgan shard {name} OUT" in one
            and "then: distgan check OUT\n" in one
            and "--task slurm" in one
        )
    assert "then: distgan run --processes 2 sagan data=OUT" in said


def test_a_source_without_a_recipe_names_the_check_alone(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(particles, "RECIPE", None)
    shard("particles", tmp_path / "a b", "--n", 4, "--size", 16, "--workers", 1)
    said = capsys.readouterr().out
    assert said.endswith(f"next: distgan check '{tmp_path}/a b'\n")


@given(
    name=st.one_of(
        st.text(
            st.characters(exclude_characters="\0", exclude_categories=["Cs"]),
            min_size=1,
            max_size=110,
        ),
        st.lists(st.text("ab\udc80", min_size=1, max_size=60), min_size=1, max_size=6).map(
            "/".join
        ),
    ),
    size=st.integers(0, 8**11 - 1),
)
def test_headers_are_those_of_tarfile(name, size):
    member = TarInfo(name)
    member.size, member.mode = size, 0o444
    try:
        expected = member.tobuf(USTAR_FORMAT, encoding="utf-8")
    except ValueError:
        with pytest.raises(DataError, match="cannot be the name of a tar member"):
            header(name, size)
    else:
        assert header(name, size) == expected


def test_what_has_no_room_in_a_header_is_refused():
    for name, size in (("x", 8**11), ("x" * 101, 1), ("\ud800", 1)):
        with pytest.raises(DataError, match="cannot be the name of a tar member"):
            header(name, size)


def test_a_key_repeated_far_apart_is_refused(tmp_path):
    with pytest.raises(DataError, match="x-000000.tar: key 'k3' is repeated"):
        write_shard(
            tmp_path / "x-000000.tar",
            [{"__key__": f"k{i % 40}", "txt": b""} for i in range(44)][3:],
        )
    assert not list(tmp_path.iterdir())


def test_a_file_removed_before_it_was_locked_is_made_again(tmp_path, monkeypatch):
    """As when a second process, with the same task, clears up at that moment."""
    removed, flock = [], fcntl.flock

    def clear_then_lock(file, how):
        if not removed:
            removed.append(next(tmp_path.iterdir()))
            removed[0].unlink()
        flock(file, how)

    monkeypatch.setattr(fcntl, "flock", clear_then_lock)
    assert write_shard(tmp_path / "x-000000.tar", [{"__key__": "k", "txt": b""}]) == 1
    assert removed and set(contents(tmp_path)) == {"x-000000.tar", "x-000000.json"}


def test_a_full_disk_is_one_sentence_and_what_is_written_stays(reference, tmp_path):
    """A limit on the size of files stands for the disk."""
    out = tmp_path / "p"
    shard("particles", out, *SMALL, "--workers", 1, "--task", "2/7")
    before = contents(out)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8192, limits[1]))
    try:
        with pytest.raises(
            DataError,
            match=r"cannot write .*train-000000.tar: File too large; finished shards are kept",
        ):
            shard("particles", out, *SMALL, "--workers", 1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert contents(out) == before
    shard("particles", out, *SMALL, "--workers", 1)
    assert contents(out) == contents(reference)


def test_a_folder_that_cannot_be_made_is_one_sentence():
    with pytest.raises(DataError, match="cannot write /proc/nowhere/p: "):
        shard("particles", "/proc/nowhere/p", "--n", 4, "--workers", 1)


def test_shards_can_be_read_without_torch():
    code = (
        "import sys, distgan.shards.format.reader, distgan.shards.build.command,"
        " distgan.shards.sources.images, distgan.shards.sources.particles; sys.exit('torch' in"
        " sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_pieces_of_one_recording_are_one_line_of_a_message():
    findings = [
        {"name": "a.wav", "reason": "late"},
        {"name": "a.wav", "reason": "late"},
        {"name": "a.wav", "reason": "silent"},
        {"name": "long.wav", "reason": "late"},
    ]
    assert (
        plan.table(findings) == "  a.wav     late (2 pieces)\n  a.wav     silent\n  long.wav  late"
    )
    assert plan.table([{"name": f"{i}", "reason": "late"} for i in range(32)]).endswith(
        "\n  … and 2 more"
    )


def test_an_interrupt_is_told_without_a_traceback(capsys):
    def interrupted(argv):
        raise KeyboardInterrupt

    assert (
        guarded(interrupted, []) == 130
        and capsys.readouterr().err == "interrupted; the same line again goes on\n"
    )


def test_an_address_is_no_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="s3://b/x is an address; shards are written to a folder"):
        command.main(["gaussians", "s3://b/x"])
    assert not list(tmp_path.iterdir())
    assert "s3://b/x is an address, and data sets are folders: copy it" in advice("s3://b/x")
