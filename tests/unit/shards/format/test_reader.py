"""What training reads: single fields, parts of long members, some of the shards; each checked, and
nothing more than asked for.
"""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import shard_sets
from hypothesis import given, settings
from hypothesis import strategies as st

from distgan.core.errors import DataError
from distgan.shards.format.index import BLOCK, describe_member, load_index
from distgan.shards.format.manifest import fingerprint, write_manifest
from distgan.shards.format.reader import ShardSet, open_parts
from distgan.shards.format.writer import write_shard

SOUND = 5 * BLOCK + 1000  # bytes of the long member


def sample(i: int) -> dict:
    rng = np.random.default_rng(i)
    return {
        "__key__": f"{i:03d}",
        "json": b"{}",
        "png": rng.bytes(700 + i),
        "wav": rng.bytes(SOUND + 100 * i),
    }


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """Ten samples of three fields in shards of 4, 4 and 2."""
    return made(tmp_path_factory.mktemp("reader"))


@pytest.fixture
def folder(tmp_path) -> Path:
    return made(tmp_path)


def made(folder: Path) -> Path:
    for k, start in enumerate((0, 4, 8)):
        write_shard(folder / f"r-{k:06d}.tar", map(sample, range(start, min(10, start + 4))))
        index = load_index(folder / f"r-{k:06d}.tar")
        with open(
            folder / f"r-{k:06d}.tar", "rb"
        ) as tar:  # with the checksums of blocks, whatever the writer does
            for name, entry in index["files"].items():
                tar.seek(entry["offset"])
                entry |= describe_member(entry["offset"], name, tar.read(entry["size"]))
        (folder / f"r-{k:06d}.json").write_text(json.dumps(index))
    write_manifest(folder, "r", 10)
    return folder


def flip(folder: Path, i: int, field: str, at: int) -> int:
    """Damage one byte of a member; returns the offset of the member in its shard."""
    shard = folder / f"r-{i // 4:06d}.tar"
    offset = load_index(shard)["files"][f"{i:03d}.{field}"]["offset"]
    with open(shard, "r+b") as file:
        file.seek(offset + at)
        byte = file.read(1)[0]
        file.seek(offset + at)
        file.write(bytes([byte ^ 1]))
    return offset


@pytest.fixture
def reads(monkeypatch) -> list[tuple[int, int]]:
    """Every (bytes, offset) that was read."""
    seen, pread = [], os.pread
    monkeypatch.setattr(
        "distgan.shards.format.reader.os.pread",
        lambda number, size, at: seen.append((size, at)) or pread(number, size, at),
    )
    return seen


@pytest.mark.parametrize(
    "fields", [("png",), ("wav",), ("wav", "json"), ("json", "png", "wav"), ()]
)
def test_fields_are_those_asked_for(whole, fields):
    shard_set = ShardSet(whole)
    for i in range(10):
        if fields:
            assert shard_set.fields_of(i, fields) == {field: sample(i)[field] for field in fields}
        assert [shard_set.size(i, field) for field in fields] == [
            len(sample(i)[field]) for field in fields
        ]


def test_a_field_is_read_alone_and_several_at_once(whole, reads):
    shard_set = ShardSet(whole)
    shard_set.fields_of(3, ("png",))
    assert [size for size, _ in reads] == [703]
    shard_set.fields_of(3, ("png", "json"))
    assert len(reads) == 2 and reads[1][0] < 3000
    shard_set.read_range(3, "wav", BLOCK + 5, BLOCK + 10)
    assert reads[2][0] == BLOCK and len(reads) == 3


def test_an_unknown_field_is_named(whole):
    for read in (
        lambda s: s.fields_of(0, ("jpg",)),
        lambda s: s.read_range(0, "jpg", 0, 1),
        lambda s: s.size(0, "jpg"),
    ):
        with pytest.raises(DataError, match="no field 'jpg'; there are: json, png, wav"):
            read(ShardSet(whole))


def test_damage_is_found_in_what_is_read_only(folder):
    offset = flip(folder, 5, "json", 1)
    shard_set = ShardSet(folder)
    assert shard_set.fields_of(5, ("png",))["png"] == sample(5)["png"]
    assert shard_set.fields_of(5, ("wav", "png")) == {
        field: sample(5)[field] for field in ("wav", "png")
    }
    for read in (
        lambda: shard_set[5],
        lambda: shard_set.fields_of(5, ("json",)),
        lambda: shard_set.fields_of(5, ("json", "wav")),
    ):
        with pytest.raises(
            DataError,
            match=rf"r-000001.tar is damaged: 005.json at bytes {offset}\.\.{offset + 2} ",
        ):
            read()


@settings(max_examples=60, deadline=None)
@given(
    i=st.integers(0, 9),
    ends=st.tuples(st.integers(0, SOUND), st.integers(0, SOUND)),
    field=st.sampled_from(["wav", "png"]),
)
def test_a_part_is_a_slice(whole, i, ends, field):
    data = sample(i)[field]
    start, stop = sorted(min(end, len(data)) for end in ends)
    assert ShardSet(whole).read_range(i, field, start, stop) == data[start:stop]


@pytest.mark.parametrize(
    ("start", "stop"), [(-1, 5), (5, 4), (0, SOUND + 1), (SOUND + 1, SOUND + 1)]
)
def test_a_part_outside_is_refused(whole, start, stop):
    with pytest.raises(ValueError, match=rf"bytes {start}\.\.{stop} of 000.wav, which has {SOUND}"):
        ShardSet(whole).read_range(0, "wav", start, stop)


def test_only_long_wav_members_have_checksums_of_blocks(whole):
    files = load_index(whole / "r-000000.tar")["files"]
    assert [len(files[f"000.{field}"].get("blocks", ())) for field in ("json", "png", "wav")] == [
        0,
        0,
        6,
    ]
    assert "blocks" not in describe_member(
        0, "a.wav", bytes(BLOCK)
    ) and "blocks" not in describe_member(0, "a.flac", bytes(2 * BLOCK))
    assert len(describe_member(0, "a.input.wav", bytes(BLOCK + 1))["blocks"]) == 2


def test_damage_inside_a_part_is_found_by_its_block(folder):
    """A byte of block 2: parts that need it are refused, with the bytes of the block; the others
    are right without it.
    """
    offset = flip(folder, 6, "wav", 2 * BLOCK + 77)
    shard_set, data = ShardSet(folder), sample(6)["wav"]
    for start, stop in ((0, 2 * BLOCK), (3 * BLOCK, len(data)), (2 * BLOCK, 2 * BLOCK)):
        assert shard_set.read_range(6, "wav", start, stop) == data[start:stop]
    for start, stop in (
        (0, len(data)),
        (2 * BLOCK, 2 * BLOCK + 1),
        (3 * BLOCK - 1, 3 * BLOCK + 1),
        (2 * BLOCK - 1, 2 * BLOCK + 1),
    ):
        with pytest.raises(
            DataError,
            match=(
                r"r-000001.tar is damaged: 006.wav at bytes"
                rf" {offset + 2 * BLOCK}\.\.{offset + 3 * BLOCK} is not"
            ),
        ):
            shard_set.read_range(6, "wav", start, stop)


def test_without_blocks_damage_anywhere_in_the_member_is_found(folder):
    offset, size = flip(folder, 6, "png", 600), len(sample(6)["png"])
    with pytest.raises(DataError, match=rf"006.png at bytes {offset}\.\.{offset + size}"):
        ShardSet(folder).read_range(6, "png", 0, 5)


def test_a_part_beyond_the_end_of_a_file_that_shrank_is_refused(folder):
    shard_set = ShardSet(folder)
    os.truncate(folder / "r-000002.tar", 2048 + 3 * BLOCK)
    assert shard_set.read_range(8, "wav", 5, BLOCK) == sample(8)["wav"][5:BLOCK]
    with pytest.raises(
        DataError,
        match=(
            r"r-000002.tar was truncated after it was opened: 008.wav at bytes \d+\.\.\d+ of these"
            r" only \d+ are left"
        ),
    ):
        shard_set.read_range(8, "wav", 0, SOUND)


@pytest.mark.parametrize("blocks", [[1], [1] * 7, [-1] * 6, ["1"] * 6, [2**32] * 6, 7])
def test_damaged_blocks_are_named(folder, blocks):
    index = load_index(folder / "r-000000.tar")
    index["files"]["002.wav"]["blocks"] = blocks
    (folder / "r-000000.json").write_text(json.dumps(index))
    with pytest.raises(
        DataError, match="r-000000.json is damaged: the blocks of the member at byte [0-9]+ are not"
    ):
        ShardSet(folder)


def test_short_reads_are_continued(whole, monkeypatch):
    """Network file systems, and calls of more than 2 GiB, give less than was asked for."""
    pread = os.pread
    monkeypatch.setattr(
        "distgan.shards.format.reader.os.pread",
        lambda number, size, at: pread(number, min(size, 1000), at),
    )
    shard_set = ShardSet(whole)
    assert [shard_set[i] for i in range(10)] == [sample(i) for i in range(10)]
    assert shard_set.read_range(1, "wav", 100, 2 * BLOCK) == sample(1)["wav"][100 : 2 * BLOCK]


def test_some_of_the_shards(whole):
    some = ShardSet(whole, shards=["r-000002.tar", "r-000000.tar"])
    assert [some[i]["__key__"] for i in range(len(some))] == [
        f"{i:03d}" for i in (0, 1, 2, 3, 8, 9)
    ]
    assert some.bounds == [0, 4, 6] and ShardSet(whole).bounds == [0, 4, 8, 10]
    hashes = [shard["sha256"] for shard in ShardSet(whole).manifest["shards"]]
    assert some.fingerprint == fingerprint([hashes[0], hashes[2]]) and ShardSet(
        whole
    ).fingerprint == fingerprint(hashes)
    with pytest.raises(DataError, match=r"does not list r-000003.tar"):
        ShardSet(whole, shards=["r-000000.tar", "r-000003.tar"])
    with pytest.raises(DataError, match="does not list any shard to take"):
        ShardSet(whole, shards=[])


def test_only_the_chosen_shards_must_be_there(folder):
    (folder / "r-000001.tar").unlink()
    assert len(ShardSet(folder, "sha256", ["r-000000.tar", "r-000002.tar"])) == 6


def test_a_folder_is_read_ahead_once_for_each_shard(whole, monkeypatch):
    advised = []
    monkeypatch.setattr("distgan.shards.format.reader._OPEN_SHARDS", 1)
    monkeypatch.setattr(
        "distgan.shards.format.reader.os.posix_fadvise", lambda *how: advised.append(how)
    )
    shard_set = ShardSet(whole)
    for i in (0, 4, 8, 0, 4, 8):
        shard_set.key(i), shard_set.fields_of(i, ("png",))
    assert len(advised) == 3


PARTS = {
    "train": {"folder": ".", "shards": ["r-000000.tar", "r-000002.tar"]},
    "validation": {"folder": ".", "shards": ["r-000001.tar"]},
}


def test_the_parts_of_a_data_set_may_share_a_folder_not_a_shard(folder):
    (folder / "dataset.json").write_text(json.dumps({"parts": PARTS}))
    assert {part: len(shard_set) for part, shard_set in open_parts(folder).items()} == {
        "train": 6,
        "validation": 4,
    }


@pytest.mark.parametrize(
    ("part", "entry", "message"),
    [
        ("train", {"folder": ".."}, r"names the folder '\.\.'"),
        ("train", {"folder": "a/b"}, "names the folder 'a/b'"),
        ("train", {"folder": "/etc"}, "names the folder '/etc'"),
        ("train", {"folder": ""}, "names the folder ''"),
        ("train", {"folder": "a\0b"}, "names the folder"),
        ("train", {"folder": 7}, "parts: TypeError"),
        ("train", {}, "parts: KeyError 'folder'"),
        ("train", {"folder": ".", "shards": "r"}, "shards is not a list"),
        ("train", {"folder": ".", "shards": [1]}, "shards is not a list"),
        ("train", {"folder": "."}, "share shards of '.'"),
        ("validation", PARTS["train"], "share shards of '.'"),
        (
            "train",
            {"folder": ".", "shards": ["../r-000000.tar"]},
            r"does not list \.\./r-000000.tar",
        ),
        ("train", None, "parts: TypeError"),
    ],
)
def test_parts_that_leave_the_folder_or_overlap_are_refused(folder, part, entry, message):
    (folder / "dataset.json").write_text(json.dumps({"parts": {**PARTS, part: entry}}))
    with pytest.raises(DataError, match=message):
        open_parts(folder)


def test_a_data_set_without_parts_is_two_folders(particles):
    sets = open_parts(particles, "sha256")
    assert {part: len(shard_set) for part, shard_set in sets.items()} == {
        "train": 54,
        "validation": 6,
    }
    with pytest.raises(DataError, match=r"dataset.json is missing"):
        open_parts(particles / "train")


def test_no_more_shards_are_open_than_allowed(tmp_path, monkeypatch):
    monkeypatch.setattr("distgan.shards.format.reader._OPEN_SHARDS", 2)
    shard_set = ShardSet(shard_sets.images(tmp_path / "d", 50) / "train")
    for i in (0, 10, 20, 30, 40, 0, 49):
        assert shard_set.fields_of(i, ("json",)) == {"json": b"{}"}
        assert len(shard_set._descriptors) <= 2
