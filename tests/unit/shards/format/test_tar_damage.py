"""No damaged byte passes silently.

Every kind of damage is found, by name, when a set is opened or at the latest when a sample is read.
"""

import errno
import json
import os
import re
import shutil
import tarfile
import tracemalloc
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import pytest
from tars import base256, block, long_name, padded, pax, write

from distgan.core.errors import DataError
from distgan.shards.format.index import index_path, index_tar, is_written, load_index, samples_of
from distgan.shards.format.manifest import fingerprint, write_manifest
from distgan.shards.format.reader import ShardSet
from distgan.shards.format.writer import write_shard


@pytest.fixture
def folder(tmp_path) -> Path:
    """20 samples in each of two shards, x-000000.tar and x-000001.tar."""
    for k in (0, 1):
        write_shard(
            tmp_path / f"x-{k:06d}.tar",
            ({"__key__": f"k{k}_{i:02d}", "bin": content(i, k)} for i in range(20)),
        )
    write_manifest(tmp_path, "x", 40)
    return tmp_path


def content(i: int, k: int) -> bytes:
    return bytes([100 * k + i]) * 700


def change(path: Path, edit: Callable[[bytes], bytes]) -> None:
    path.write_bytes(edit(path.read_bytes()))


def cut(at: int) -> Callable[[bytes], bytes]:
    return lambda data: data[:at]


def put(at: int, new: bytes) -> Callable[[bytes], bytes]:
    return lambda data: data[:at] + new + data[at + len(new) :]


def flip(at: int) -> Callable[[bytes], bytes]:
    return lambda data: put(at, bytes([data[at] ^ 1]))(data)


def exchange(folder: Path, *suffixes: str) -> None:
    for suffix in suffixes:
        one, other = folder / f"x-000000{suffix}", folder / f"x-000001{suffix}"
        one.rename(folder / "aside"), other.rename(one), (folder / "aside").rename(other)


def become_a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


# The 10th member of x-000001.tar has its header at byte 15360 and its data at 15872..16572.
HEADER, DATA = 10 * 1536, 10 * 1536 + 512
EDITS = {
    "truncated in a member": cut(DATA + 100),
    "cut between members": cut(HEADER),
    "empty": cut(0),
    "garbage appended": lambda data: data + b"garbage",
    "zeros appended": lambda data: data + bytes(10240),
    "bit flipped in data": flip(DATA + 5),
    "hole in data": put(DATA, bytes(512)),
    "bit flipped in a header": flip(HEADER + 3),
    "header zeroed": put(HEADER, bytes(512)),
    "end block overwritten": put(20 * 1536, b"x" * 512),
}


def edit(name: str) -> Callable[[Path], None]:
    return lambda folder: change(folder / "x-000001.tar", EDITS[name])


@dataclass(frozen=True)
class Row:
    """Where one kind of damage is refused: when the set is opened; when it is opened with
    verify="sha256"; when a sample is read.

    A pattern is part of the message; "" is not refused there. `samples`: those that a read refuses;
    all others are as they were written.
    """

    damage: Callable[[Path], None]
    opening: str = ""
    verifying: str = ""
    reading: str = ""
    samples: Iterable[int] = ()


MEMBER = (
    rf"x-000001.tar is damaged: k1_10.bin at bytes {DATA}\.\.{DATA + 700} is not what was written"
)
SHA256 = "x-000001.tar is damaged: sha256"
STALE = "x-000001.json is stale or of another shard"
TABLE = {
    "truncated in a member": Row(
        edit("truncated in a member"), "x-000001.tar is truncated: 15972 bytes, expected 40960"
    ),
    "cut between members": Row(
        edit("cut between members"), "x-000001.tar is truncated: 15360 bytes, expected 40960"
    ),
    "empty": Row(edit("empty"), "x-000001.tar is truncated: 0 bytes, expected 40960"),
    "garbage appended": Row(
        edit("garbage appended"), "x-000001.tar is longer than it was written: 40967 bytes"
    ),
    "zeros appended": Row(
        edit("zeros appended"), "x-000001.tar is longer than it was written: 51200 bytes"
    ),
    "bit flipped in data": Row(edit("bit flipped in data"), "", SHA256, MEMBER, [30]),
    "hole in data": Row(edit("hole in data"), "", SHA256, MEMBER, [30]),
    # Offsets come from the index, so what is read is right whatever stands in the headers; other
    # programs stop there, so `verify` tells.
    "bit flipped in a header": Row(edit("bit flipped in a header"), "", SHA256),
    "header zeroed": Row(edit("header zeroed"), "", SHA256),
    "end block overwritten": Row(edit("end block overwritten"), "", SHA256),
    "missing shard": Row(
        lambda folder: (folder / "x-000001.tar").unlink(),
        "x-000001.tar is missing; manifest.json lists 2 shards",
    ),
    "shards exchanged": Row(
        lambda folder: exchange(folder, ".tar"),
        "",
        "x-000000.tar is damaged: sha256",
        r"x-00000[01].tar is damaged: k[01]_\d\d.bin at bytes \d+\.\.\d+",
        range(40),
    ),
    "shards exchanged with their indexes": Row(
        lambda folder: exchange(folder, ".tar", ".json"),
        "x-000000.json is stale or of another shard",
        "x-000000.tar is damaged: sha256",
    ),
    "stale index": Row(
        lambda folder: shutil.copy(folder / "x-000000.json", folder / "x-000001.json"), STALE
    ),
    "shard made anew": Row(
        lambda folder: write_shard(
            folder / "x-000001.tar",
            [{"__key__": f"k1_{i:02d}", "bin": bytes(700)} for i in range(20)],
        ),
        STALE,
        SHA256,
    ),
    "a folder in place of the file": Row(
        lambda folder: become_a_folder(folder / "x-000001.tar"), "x-000001.tar is not a file"
    ),
    "a folder in place of the index": Row(
        lambda folder: become_a_folder(folder / "x-000001.json"), "x-000001.json cannot be read"
    ),
}


def read_all(shard_set: ShardSet) -> dict[int, str]:
    """The message of each sample that is refused; every other one must be as it was written."""
    refused = {}
    for i in range(40):
        for read in (shard_set.__getitem__, lambda i: shard_set.fields_of(i, ("bin",))):
            try:
                assert read(i)["bin"] == content(i % 20, i // 20), "wrong data without an error"
                assert i not in refused, "one way of reading must not pass what another refuses"
            except DataError as error:
                refused[i] = str(error)
    return refused


@pytest.mark.parametrize("name", TABLE)
def test_no_damage_passes_silently(folder, name):
    row = TABLE[name]
    row.damage(folder)
    assert row.opening or row.verifying
    with pytest.raises(DataError, match=row.verifying or row.opening):
        ShardSet(folder, verify="sha256")
    if row.opening:
        with pytest.raises(DataError, match=row.opening):
            ShardSet(folder)
        return
    refused = read_all(ShardSet(folder))
    assert list(refused) == list(row.samples)
    assert all(re.search(row.reading, message) for message in refused.values()), refused


@pytest.mark.parametrize("name", EDITS)
def test_a_damaged_shard_does_not_count_as_written(folder, name):
    assert is_written(folder / "x-000001.tar")
    edit(name)(folder)
    assert not is_written(folder / "x-000001.tar") and is_written(folder / "x-000000.tar")


def unreadable(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def fail(*_: int) -> bytes:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("distgan.shards.format.reader.os.pread", fail)


def another_in_its_place(path: Path) -> None:
    """A new file of the same name and size.

    What is open still reads the old one, what opens it now reads the new one.
    """
    data = path.read_bytes()
    path.unlink()
    path.write_bytes(bytes(len(data)))


GONE = (
    r"x-000001.tar was truncated after it was opened: k1_\d\d.bin at bytes \d+\.\.\d+ of these only"
    r" \d+ are left"
)
# What happens to x-000001.tar while a set is open, before or after the first read of it: (how,
# message, refused if it was read before, else)
WHILE_OPEN = {
    "cut inside a member": (
        lambda path, _: os.truncate(path, DATA + 100),
        GONE,
        range(30, 40),
        range(30, 40),
    ),
    "emptied": (lambda path, _: os.truncate(path, 0), GONE, range(20, 40), range(20, 40)),
    "overwritten": (
        lambda path, _: change(path, lambda data: bytes(len(data))),
        "is damaged: k1_",
        range(20, 40),
        range(20, 40),
    ),
    "replaced": (lambda path, _: another_in_its_place(path), "is damaged: k1_", [], range(20, 40)),
    "removed": (
        lambda path, _: path.unlink(),
        r"x-000001.tar cannot be read: k1_\d\d.bin at bytes \d+\.\.\d+ \(No such file",
        [],
        range(20, 40),
    ),
    "a folder in its place": (
        lambda path, _: become_a_folder(path),
        r"cannot be read: k1_\d\d.bin at bytes \d+\.\.\d+ \(Is a directory",
        [],
        range(20, 40),
    ),
    "an error of the disk": (
        lambda _, patch: unreadable(patch, errno.EIO),
        r"cannot be read: .* at bytes \d+\.\.\d+ \(Input/output error",
        range(40),
        range(40),
    ),
    "a stale handle": (
        lambda _, patch: unreadable(patch, errno.ESTALE),
        r"cannot be read: .* at bytes \d+\.\.\d+ \(Stale file handle",
        range(40),
        range(40),
    ),
}


@pytest.mark.parametrize("read_before", [True, False])
@pytest.mark.parametrize("name", WHILE_OPEN)
def test_no_damage_while_a_set_is_open_passes_silently(folder, monkeypatch, name, read_before):
    damage, message, *refused = WHILE_OPEN[name]
    shard_set = ShardSet(folder)
    if read_before:
        assert shard_set[39]["bin"] == content(19, 1)
    damage(folder / "x-000001.tar", monkeypatch)
    found = read_all(shard_set)
    assert list(found) == list(refused[0 if read_before else 1])
    assert all(re.search(message, text) for text in found.values()), found


def test_the_layout_is_as_the_offsets_above_assume(folder):
    assert load_index(folder / "x-000001.tar")["files"]["k1_10.bin"]["offset"] == DATA


@pytest.mark.parametrize(
    "name", [name for name, row in TABLE.items() if name in EDITS and row.opening]
)
def test_a_shard_of_a_wrong_size_gets_no_manifest(folder, name):
    edit(name)(folder)
    with pytest.raises(
        DataError, match=f"{(folder / 'x-000001.tar').stat().st_size} bytes, its index says 40960"
    ):
        write_manifest(folder, "x")


def test_a_missing_index_is_named(folder):
    index_path(folder / "x-000001.tar").unlink()
    with pytest.raises(DataError, match="x-000001.json is missing"):
        ShardSet(folder)
    with pytest.raises(DataError, match="x-000001.json is missing"):
        write_manifest(folder, "x")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        '{"filesize": 1}',
        '{"filesize": 40960, "hash_lfs": "", "files": {"a.b": {"offset": 0}}}',
        '{"filesize": 9, "hash_lfs": "", "files": {"a.b": {"offset": 8, "size": 2, "crc32": 0}}}',
        '{"filesize": 9, "hash_lfs": "", "files": {"a.b": {"offset": -1, "size": 2, "crc32": 0}}}',
        '{"filesize": 9, "hash_lfs": "", "files": {"a.b": {"offset": 1, "size": -1, "crc32": 0}}}',
        (
            '{"filesize": 9, "hash_lfs": "", "files": {"a.b": {"offset": 1, "size": 1, "crc32":'
            " 4294967296}}}"
        ),
        '{"filesize": 9, "hash_lfs": "", "files": {"a.b": {"offset": 1.5, "size": 1, "crc32": 0}}}',
        '{"filesize": 9, "hash_lfs": "", "files": {"a.b": {"offset": "1", "size": 1, "crc32": 0}}}',
        (
            '{"filesize": 9, "hash_lfs": "", "files": {"a.b": {"offset": [1, 2], "size": [1, 2],'
            ' "crc32": [0, 0]}}}'
        ),
        (
            '{"filesize": 9, "hash_lfs": "", "files": {"a.b": {"offset": 1, "size":'
            ' 9223372036854775807, "crc32": 0}}}'
        ),
        '{"filesize": 9, "hash_lfs": "", "files": {"a.b": {"offset": 1, "size": 1'
        + 30 * "0"
        + ', "crc32": 0}}}',
        '{"filesize": 9, "hash_lfs": "", "files": {"a.b": 7}}',
        '{"filesize": 9, "hash_lfs": "", "files": 7}',
        '{"filesize": 9, "hash_lfs": "", "files": {}}',
        "[" * 100000,
    ],
)
def test_a_damaged_index_is_named(folder, text):
    shard = folder / "x-000001.tar"
    index_path(shard).write_text(text)
    with pytest.raises(DataError, match="x-000001"):
        samples_of(shard, load_index(shard))
    with pytest.raises(DataError, match="x-000001"):
        ShardSet(folder)


def test_a_manifest_that_lists_a_shard_twice_is_refused(folder):
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["shards"] = manifest["shards"][:1] * 2
    manifest["fingerprint"] = fingerprint([shard["sha256"] for shard in manifest["shards"]])
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(DataError, match="manifest.json is damaged"):
        ShardSet(folder)


@pytest.mark.parametrize(
    ("entry", "value"),
    [
        ("version", 2),
        ("samples", 39),
        ("fingerprint", "0" * 16),
        ("fields", []),
        ("fields", [1]),
        ("shards", None),
        ("shards", [{"file": "x-000000.tar", "samples": 20, "sha256": ""}]),
    ],
)
def test_a_damaged_manifest_is_named(folder, entry, value):
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps({**manifest, entry: value}))
    with pytest.raises(DataError, match="manifest.json"):
        ShardSet(folder)


def test_a_manifest_cannot_name_files_elsewhere(folder):
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["shards"][0]["file"] = "../x-000000.tar"
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(
        DataError, match="'../x-000000.tar'; a shard is a .tar file of the same folder"
    ):
        ShardSet(folder)


@pytest.mark.parametrize(
    "damage",
    [
        "truncated in a member",
        "cut between members",
        "empty",
        "garbage appended",
        "bit flipped in a header",
        "header zeroed",
        "end block overwritten",
    ],
)
def test_a_damaged_foreign_tar_is_refused(folder, damage):
    """Without an index there is no hash to compare with.

    Stock webdataset and GNU tar read most of these without an error.
    """
    shard = folder / "x-000001.tar"
    index_path(shard).unlink()
    change(shard, EDITS[damage])
    with pytest.raises(DataError, match="x-000001.tar"):
        index_tar(shard)
    assert not index_path(shard).exists()


def test_a_foreign_tar_that_changed_since_it_was_indexed_is_refused(folder):
    change(folder / "x-000001.tar", EDITS["bit flipped in data"])
    with pytest.raises(DataError, match="x-000001.json is the index of another tar"):
        index_tar(folder / "x-000001.tar")


HUGE = 10**18
# (blocks after a member a.bin, what the message says)
UNSAFE = {
    "symbolic link": (block(b"b.link", kind=b"2"), "member b.link is a link"),
    "hard link": (block(b"b.hard", kind=b"1"), "member b.hard is a link"),
    "character device": (block(b"b.dev", kind=b"3"), "member b.dev is a device"),
    "block device": (block(b"b.dev", kind=b"4"), "member b.dev is a device"),
    "pipe": (block(b"b.fifo", kind=b"6"), "member b.fifo is a device, pipe"),
    "sparse, GNU": (
        block(b"b.bin", 3, kind=b"S") + padded(b"abc"),
        "member b.bin is a sparse file",
    ),
    "sparse, PAX": (
        pax(**{"GNU.sparse.name": "b.bin", "GNU.sparse.size": "5"}) + block(b"x"),
        "member b.bin at byte 1024 is a sparse file",
    ),
    "part of a file": (block(b"b.bin", kind=b"M"), "member b.bin is a part of a file"),
    "label": (block(b"label", kind=b"V"), "member label is the label of an archive"),
    "unknown kind": (block(b"b.bin", kind=b"Q"), "member b.bin is of unknown kind b'Q'"),
    "folder with data": (
        block(b"b.d/", 512, kind=b"5") + bytes(512),
        "member b.d/ is a folder of 512 bytes",
    ),
    "absolute": (block(b"/abs/b.bin"), "member /abs/b.bin leaves the folder"),
    "absolute, PAX": (
        pax(path="/abs/b.bin") + block(b"b.bin"),
        "member /abs/b.bin leaves the folder",
    ),
    "out of the folder": (block(b"d/../../b.bin"), "member d/../../b.bin leaves the folder"),
    "out of the folder by its prefix": (
        block(b"b.bin", prefix=b".."),
        "member ../b.bin leaves the folder",
    ),
    "out of the folder, GNU": (
        long_name(b"d/" * 60 + b"../b.bin") + block(b"b.bin"),
        r"d/\.\./b.bin leaves the folder",
    ),
    "folder out of the folder": (block(b"../d/", kind=b"5"), "member ../d/ leaves the folder"),
    "twice": (block(b"a.bin", 3) + padded(b"abc"), "member a.bin occurs twice"),
    "a field twice": (
        block(b"b.BIN") + block(b"b.bin"),
        r"sample b has the fields \['bin', 'bin'\]",
    ),
    "another field": (block(b"b.txt"), r"sample b has the fields \['txt'\], expected \['bin'\]"),
    "beyond the end": (
        block(b"b.bin", 5000) + bytes(512),
        "inside b.bin: its header at byte 1024 declares 5000 bytes, 1536 are left",
    ),
    "8 GiB": (
        block(b"b.bin", b"77777777777\0"),
        "inside b.bin: its header at byte 1024 declares 8589934591 bytes",
    ),
    "huge, base 256": (
        block(b"b.bin", base256(HUGE)),
        f"inside b.bin: its header at byte 1024 declares {HUGE} bytes",
    ),
    "huge, PAX": (
        pax(size=str(HUGE)) + block(b"b.bin"),
        f"inside b.bin: its header at byte 2048 declares {HUGE} bytes",
    ),
    "huge PAX header": (
        block(b"b/PaxHeader", base256(HUGE), b"x"),
        f"inside .*b/PaxHeader.* declares {HUGE} bytes",
    ),
    "huge GNU name": (
        block(b"././@LongLink", base256(HUGE), b"L"),
        f"inside .*@LongLink.* declares {HUGE} bytes",
    ),
    "long PAX header": (
        block(b"b/PaxHeader", 1 << 21, b"x") + bytes(1 << 21),
        "b/PaxHeader.* has 2097152 bytes; at most 1048576",
    ),
    "negative": (
        block(b"b.bin", base256(-512)),
        "member b.bin at byte 1024 declares a size of -512 bytes",
    ),
    "negative, PAX": (
        pax(size="-1536") + block(b"b.bin"),
        "member b.bin at byte 2048 declares a size of -1536 bytes",
    ),
    "no number": (block(b"b.bin", b"00000000x00\0"), "member b.bin at byte 1024 declares no size"),
    "no number, PAX": (
        pax(size="1_0") + block(b"b.bin"),
        "member b.bin at byte 2048 declares no size",
    ),
    "not UTF-8": (
        block(b"\xff\xfe.bin"),
        r"the name b'\\xff\\xfe.bin' of the member at byte 1024 is not UTF-8",
    ),
    "line break": (block(b"b\nc.bin"), r"the name 'b\\nc.bin' of the member at byte 1024"),
    "ESC": (block(b"b\x1bc.bin"), r"the name 'b\\x1bc.bin' of the member at byte 1024"),
    "CSI of 8 bits": (
        block("b\x9bc.bin".encode()),
        r"the name 'b\\x9bc.bin' of the member at byte 1024",
    ),
    "text turned round": (
        pax(path="b\u202ec.bin") + block(b"b.bin"),
        r"the name 'b\\u202ec.bin' of the member at byte 1024",
    ),
    "NUL, PAX": (
        pax(path=b"b\0c.bin") + block(b"b.bin"),
        r"the name 'b\\x00c.bin' of the member at byte 1024",
    ),
    "no name": (block(b""), "the name '' of the member at byte 1024 is empty"),
    "extended header without a member": (
        pax(path="c.bin"),
        "an extended header without its member",
    ),
    "damaged records": (
        block(b"b/PaxHeader", 9, b"x") + padded(b"99 path=b") + block(b"b.bin"),
        "at byte 1024: an extended header that cannot",
    ),
    "a record of no length": (
        block(b"b/PaxHeader", 9, b"x") + padded(b"0 path=b\n") + block(b"b.bin"),
        "an extended header that cannot",
    ),
    "two names": (
        pax(path="c.bin") + pax(path="d.bin") + block(b"b.bin"),
        "at byte 2048: a second extended header before one member",
    ),
    "two names, GNU and PAX": (
        long_name(b"c.bin") + pax(path="d.bin") + block(b"b.bin"),
        "at byte 2048: a second extended header",
    ),
    "long name without an end": (
        block(b"././@LongLink", 3, b"L") + padded(b"c.bin\0") + block(b"b.bin"),
        "at byte 1024: a long name without an end",
    ),
    "one name for all": (
        pax(path="c.bin").replace(pax(path="c.bin")[:512], block(b"g", 14, b"g")) + block(b"b.bin"),
        "one path",
    ),
}


@pytest.mark.parametrize("odd", ["\x1b", "\x9b", "\u202e", "\u2066"])
def test_a_key_with_a_control_character_in_an_index_is_refused(folder, odd):
    """In an index edited by hand: `train`, `check` and `index` read it."""
    shard = min(folder.glob("*.tar"))
    index = load_index(shard)
    member, entry = next(iter(index["files"].items()))
    index["files"] = {f"a{odd}{member}": entry} | index["files"]
    with pytest.raises(DataError, match="has a control character, or one that turns") as refused:
        samples_of(shard, index)
    assert str(refused.value).isprintable()
    with pytest.raises(DataError, match="malformed"):
        write_shard(folder / "new.tar", [{"__key__": f"a{odd}b", "txt": b"1"}])


@pytest.mark.parametrize("name", UNSAFE)
def test_an_unsafe_or_irregular_foreign_tar_is_refused_by_member(tmp_path, name):
    blocks, message = UNSAFE[name]
    tar = write(tmp_path / "f-0.tar", blocks)
    tracemalloc.start()
    with pytest.raises(DataError, match=message) as refused:
        index_tar(tar)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert str(tar) in str(refused.value)
    assert most < 4 << 20, "a declared size must not be allocated before it is known to be there"
    assert [path.name for path in tmp_path.iterdir()] == ["f-0.tar"]


def test_what_is_no_file_is_refused_at_once(folder, tmp_path):
    """A pipe would be waited for: in place of a tar, also while a set is open."""
    os.mkfifo(tmp_path / "f.tar")
    with pytest.raises(DataError, match="f.tar is not a file"):
        index_tar(tmp_path / "f.tar")
    shard_set = ShardSet(folder)
    shard = folder / shard_set.shards[0]["file"]
    shard.unlink()
    os.mkfifo(shard)
    with pytest.raises(DataError, match=f"{shard.name} cannot be read"):
        shard_set[0]


def test_an_index_with_half_an_escape_is_refused(tmp_path):
    index_tar(write(tmp_path / "t.tar", block("é.bin".encode())))
    index = tmp_path / "t.json"
    index.write_text(index.read_text().replace(r"\u00e9", r"\ud8e9"))
    with pytest.raises(DataError, match="t.json is damaged: the key .* is not Unicode"):
        samples_of(tmp_path / "t.tar", load_index(tmp_path / "t.tar"))


def tar_of(path: Path, *names: str) -> Path:
    with tarfile.open(path, "w") as tar:
        for name in names:
            tar.addfile(tarfile.TarInfo(name))
    return path


def test_members_of_a_sample_must_be_neighbours(tmp_path):
    path = tar_of(tmp_path / "f-0.tar", "0.a", "1.a", "0.b", "1.b")
    with pytest.raises(
        DataError, match="f-0.tar: the members of sample 0 are not neighbours.*tar --sort=name"
    ):
        index_tar(path)


def test_a_compressed_or_missing_tar_is_refused(tmp_path):
    with tarfile.open(tmp_path / "f-0.tar", "w:gz") as tar:
        tar.addfile(tarfile.TarInfo("a.bin"))
    with pytest.raises(DataError, match="f-0.tar is not an uncompressed tar"):
        index_tar(tmp_path / "f-0.tar")
    with pytest.raises(DataError, match="g-0.tar is missing"):
        index_tar(tmp_path / "g-0.tar")
