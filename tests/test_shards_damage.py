"""No damaged byte passes silently: every kind of damage is found, by name, when a set is opened or at the latest when a sample is read."""

import json
import shutil
import tarfile
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import pytest

from distgan.errors import DataError
from shards.index import index_path, index_tar, is_written, load_index, write_manifest
from shards.reader import ShardSet
from shards.writer import write_shard


@pytest.fixture
def folder(tmp_path) -> Path:
    """20 samples in each of two shards, x-000000.tar and x-000001.tar."""
    for k in (0, 1):
        write_shard(tmp_path / f"x-{k:06d}.tar", ({"__key__": f"k{k}_{i:02d}", "bin": bytes([i]) * 700} for i in range(20)))
    write_manifest(tmp_path, "x", 40)
    return tmp_path


def change(path: Path, edit: Callable[[bytes], bytes]) -> None:
    path.write_bytes(edit(path.read_bytes()))


def cut(at: int) -> Callable[[bytes], bytes]:
    return lambda data: data[:at]


def put(at: int, new: bytes) -> Callable[[bytes], bytes]:
    return lambda data: data[:at] + new + data[at + len(new):]


# The 10th member of x-000001.tar has its header at byte 15360 and its data at 15872..16572.
HEADER, DATA = 10 * 1536, 10 * 1536 + 512
CHANGES_SIZE = {
    "cut inside a member": cut(DATA + 100),
    "cut between members": cut(HEADER),
    "empty": cut(0),
    "garbage appended": lambda data: data + b"garbage",
    "zeros appended": lambda data: data + bytes(10240),
}
KEEPS_SIZE = {
    "bit flipped in data": put(DATA + 5, bytes([10 ^ 1])),
    "hole in data": put(DATA, bytes(512)),
    "header zeroed": put(HEADER, bytes(512)),
    "end block overwritten": put(20 * 1536, b"x" * 512),
}


def test_the_layout_is_as_the_offsets_below_assume(folder):
    assert load_index(folder / "x-000001.tar")["files"]["k1_10.bin"]["offset"] == DATA


@pytest.mark.parametrize("damage", CHANGES_SIZE)
def test_a_wrong_size_is_found_when_the_set_is_opened(folder, damage):
    shard = folder / "x-000001.tar"
    size = shard.stat().st_size
    change(shard, CHANGES_SIZE[damage])
    with pytest.raises(DataError, match=f"x-000001.tar is .*: {shard.stat().st_size} bytes, expected {size}"):
        ShardSet(folder)
    assert not is_written(shard)
    with pytest.raises(DataError, match=f"{shard.stat().st_size} bytes, its index says {size}"):
        write_manifest(folder, "x")


@pytest.mark.parametrize("damage", KEEPS_SIZE)
def test_other_damage_is_found_by_sha256_when_the_set_is_opened(folder, damage):
    change(folder / "x-000001.tar", KEEPS_SIZE[damage])
    with pytest.raises(DataError, match="x-000001.tar is damaged: sha256"):
        ShardSet(folder, verify="sha256")
    assert not is_written(folder / "x-000001.tar")


@pytest.mark.parametrize("damage", ["bit flipped in data", "hole in data"])
def test_damaged_data_is_found_when_it_is_read(folder, damage):
    change(folder / "x-000001.tar", KEEPS_SIZE[damage])
    shard_set = ShardSet(folder)
    for i in range(40):
        if i == 30:
            with pytest.raises(DataError, match=rf"x-000001.tar is damaged: k1_10.bin at bytes {DATA}\.\.{DATA + 700}"):
                shard_set[i]
        else:
            assert shard_set[i]["bin"] == bytes([i % 20]) * 700


def test_a_shard_cut_after_opening_is_found_when_it_is_read(folder):
    shard_set = ShardSet(folder)
    change(folder / "x-000001.tar", cut(DATA + 100))
    with pytest.raises(DataError, match="k1_10.bin"):
        shard_set[30]


def test_a_missing_shard_is_named(folder):
    (folder / "x-000001.tar").unlink()
    with pytest.raises(DataError, match="x-000001.tar is missing; manifest.json lists 2 shards"):
        ShardSet(folder)


def test_a_missing_index_is_named(folder):
    index_path(folder / "x-000001.tar").unlink()
    with pytest.raises(DataError, match="x-000001.json is missing"):
        ShardSet(folder)
    with pytest.raises(DataError, match="x-000001.json is missing"):
        write_manifest(folder, "x")


def test_the_index_of_another_shard_is_refused(folder):
    shutil.copy(folder / "x-000000.json", folder / "x-000001.json")
    with pytest.raises(DataError, match="x-000001.json is stale or of another shard"):
        ShardSet(folder)


def test_a_shard_that_was_made_anew_does_not_fit_the_old_manifest(folder):
    write_shard(folder / "x-000001.tar", ({"__key__": f"k1_{i:02d}", "bin": bytes([99]) * 700} for i in range(20)))
    with pytest.raises(DataError, match="x-000001.json is stale or of another shard"):
        ShardSet(folder)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"filesize": 1}', '{"filesize": 40960, "hash_lfs": "", "files": {"a.b": {"offset": 0}}}',
                                  '{"filesize": 9, "hash_lfs": "", "files": {"a.b": {"offset": 8, "size": 2, "crc32": 0}}}',
                                  '{"filesize": 9, "hash_lfs": "", "files": {"a.b": {"offset": -1, "size": 2, "crc32": 0}}}'])
def test_a_damaged_index_is_named(folder, text):
    (folder / "x-000001.json").write_text(text)
    with pytest.raises(DataError, match="x-000001.json"):
        ShardSet(folder)


@pytest.mark.parametrize(("entry", "value"), [("version", 2), ("samples", 39), ("fingerprint", "0" * 16), ("fields", []), ("shards", None)])
def test_a_damaged_manifest_is_named(folder, entry, value):
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps({**manifest, entry: value}))
    with pytest.raises(DataError, match="manifest.json"):
        ShardSet(folder)


def test_a_manifest_cannot_name_files_elsewhere(folder):
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["shards"][0]["file"] = "../x-000000.tar"
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(DataError, match="'../x-000000.tar'; a shard is a .tar file of the same folder"):
        ShardSet(folder)


@pytest.mark.parametrize("damage", ["cut inside a member", "cut between members", "empty", "garbage appended", "header zeroed",
                                    "end block overwritten"])
def test_a_damaged_foreign_tar_is_refused(folder, damage):
    """Without an index there is no hash to compare with; stock webdataset and GNU tar read all but the first and third without an error."""
    shard = folder / "x-000001.tar"
    index_path(shard).unlink()
    change(shard, {**CHANGES_SIZE, **KEEPS_SIZE}[damage])
    with pytest.raises(DataError, match="x-000001.tar"):
        index_tar(shard)
    assert not index_path(shard).exists()


def test_a_foreign_tar_that_changed_since_it_was_indexed_is_refused(folder):
    change(folder / "x-000001.tar", KEEPS_SIZE["bit flipped in data"])
    with pytest.raises(DataError, match="x-000001.json is the index of another tar"):
        index_tar(folder / "x-000001.tar")


def tar_of(path: Path, *members: tarfile.TarInfo) -> Path:
    with tarfile.open(path, "w") as tar:
        for member in members:
            tar.addfile(member, BytesIO(bytes(member.size)))
    return path


def member(name: str, kind: bytes = tarfile.REGTYPE, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size = kind, target, 3 if kind == tarfile.REGTYPE else 0
    return info


@pytest.mark.parametrize(("bad", "reason"), [
    (member("b.link", tarfile.SYMTYPE, "/etc/passwd"), "b.link is a link"),
    (member("b.hard", tarfile.LNKTYPE, "a.bin"), "b.hard is a link"),
    (member("b.dev", tarfile.CHRTYPE), "b.dev is a device"),
    (member("b.fifo", tarfile.FIFOTYPE), "b.fifo is a device, pipe"),
    (member("/abs/b.bin"), "/abs/b.bin leaves the folder"),
    (member("d/../../b.bin"), "d/../../b.bin leaves the folder"),
    (member("a.bin"), "a.bin occurs twice"),
    (member("b.txt"), r"sample b has the fields \['txt'\], expected \['bin'\]"),
])
def test_an_unsafe_or_irregular_foreign_tar_is_refused_by_member(tmp_path, bad, reason):
    with pytest.raises(DataError, match=reason):
        index_tar(tar_of(tmp_path / "f-0.tar", member("a.bin"), bad))
    assert [path.name for path in tmp_path.iterdir()] == ["f-0.tar"]


def test_members_of_a_sample_must_be_neighbours(tmp_path):
    path = tar_of(tmp_path / "f-0.tar", *(member(name) for name in ("0.a", "1.a", "0.b", "1.b")))
    with pytest.raises(DataError, match="f-0.tar: the members of sample 0 are not neighbours"):
        index_tar(path)


def test_a_compressed_or_missing_tar_is_refused(tmp_path):
    with tarfile.open(tmp_path / "f-0.tar", "w:gz") as tar:
        tar.addfile(member("a.bin"), BytesIO(b"abc"))
    with pytest.raises(DataError, match="f-0.tar is not an uncompressed tar"):
        index_tar(tmp_path / "f-0.tar")
    with pytest.raises(DataError, match="g-0.tar is missing"):
        index_tar(tmp_path / "g-0.tar")
