"""Shards as other programs and the reader see them.

Plain tar, stock webdataset, sha256sum, pickling and forking.
"""

import gc
import hashlib
import json
import os
import pickle
import subprocess
import tarfile
from concurrent.futures import ProcessPoolExecutor
from io import BytesIO
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
import webdataset
from hypothesis import given, settings
from hypothesis import strategies as st
from tars import block, write

from distgan.core.errors import ConfigError, DataError
from distgan.core.files import sha256_of
from distgan.shards.format.index import index_tar, load_index, split_member
from distgan.shards.format.manifest import write_manifest
from distgan.shards.format.reader import ShardSet
from distgan.shards.format.tar_members import iter_members
from distgan.shards.format.writer import write_shard


def sample(i: int) -> dict:
    return {
        "__key__": f"{i:06d}",
        "a.bin": np.random.default_rng(i).bytes(300 + i % 400),
        "b.txt": str(i).encode(),
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """103 samples of two fields in three shards."""
    folder = tmp_path_factory.mktemp("shards") / "train"
    folder.mkdir()
    for k, start in enumerate(range(0, 103, 40)):
        write_shard(folder / f"train-{k:06d}.tar", map(sample, range(start, min(103, start + 40))))
    write_manifest(folder, "train", 103)
    return folder


def test_the_reader_gives_back_what_was_written(folder):
    shard_set = ShardSet(folder, verify="sha256")
    assert len(shard_set) == 103 and shard_set.fields == ["a.bin", "b.txt"]
    assert [shard_set[i] for i in range(103)] == [sample(i) for i in range(103)]
    assert shard_set.key(41) == shard_set[np.int64(41)]["__key__"] == "000041"
    assert len(shard_set.fingerprint) == 16 and int(shard_set.fingerprint, 16) >= 0
    assert [i for i, _ in enumerate(shard_set)][-1] == 102, "iteration must end"
    with pytest.raises(IndexError):
        shard_set[-1]


def test_plain_tar_and_sha256sum_read_them(folder):
    listed = subprocess.run(
        ["tar", "tf", "train-000001.tar"], cwd=folder, capture_output=True, text=True, check=True
    )
    assert (
        listed.stdout.split()[:3] == ["000040.a.bin", "000040.b.txt", "000041.a.bin"]
        and len(listed.stdout.split()) == 80
    )
    assert not listed.stderr
    subprocess.run(
        ["sha256sum", "--check", "--strict", "--quiet", "SHA256SUMS"], cwd=folder, check=True
    )


def test_members_are_ustar_without_owner_or_time(folder):
    with tarfile.open(folder / "train-000000.tar") as tar:
        for member in tar:
            assert (member.mtime, member.uid, member.gid, member.uname, member.pax_headers) == (
                0,
                0,
                0,
                "",
                {},
            )
    assert (folder / "train-000000.tar").read_bytes()[257:265] == b"ustar\x0000"
    assert (folder / "train-000000.tar").stat().st_size % tarfile.RECORDSIZE == 0


@pytest.mark.filterwarnings(
    "ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"
)
def test_stock_webdataset_reads_the_same_samples(folder):
    shard_set = ShardSet(folder)
    assert stock_samples(sorted(folder.glob("*.tar"))) == [shard_set[i] for i in range(103)]


def test_pickled_and_forked_copies_read(folder):
    shard_set = ShardSet(folder)
    shard_set[5]
    assert pickle.loads(pickle.dumps(shard_set))[100] == sample(100)  # noqa: S301 - our own bytes, as a DataLoader worker gets them
    with ProcessPoolExecutor(2, get_context("spawn")) as pool:
        assert list(pool.map(shard_set.__getitem__, [0, 50, 102])) == [
            sample(0),
            sample(50),
            sample(102),
        ]
    reader = os.fork()
    if reader == 0:
        os._exit(0 if all(shard_set[i] == sample(i) for i in range(103)) else 1)
    assert os.waitpid(reader, 0)[1] == 0 and shard_set[6] == sample(6)


def test_open_files_are_limited_and_closed(folder, monkeypatch):
    monkeypatch.setattr("distgan.shards.format.reader._OPEN_SHARDS", 2)
    before = len(os.listdir("/proc/self/fd"))
    shard_set = ShardSet(folder)
    for i in (0, 45, 90, 0, 45, 90):
        assert shard_set[i] == sample(i)
        assert len(os.listdir("/proc/self/fd")) <= before + 2
    del shard_set
    assert len(os.listdir("/proc/self/fd")) == before


def stock_samples(paths: list[Path]) -> list[dict]:
    """What stock webdataset reads; it leaves its tars to be closed by the garbage collector."""
    read = [
        {name: value for name, value in sample.items() if name not in ("__url__", "__local_path__")}
        for sample in webdataset.WebDataset([str(path) for path in paths], shardshuffle=False)
    ]
    gc.collect()
    return read


def adopted(folder: Path) -> ShardSet:
    for shard in folder.glob("*.tar"):
        index_tar(shard)
    write_manifest(folder, "w", pattern="*.tar")
    return ShardSet(folder, "sha256")


@pytest.mark.filterwarnings(
    "ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"
)
def test_shards_of_the_stock_writer_are_read_as_stock_reads_them(tmp_path):
    """PAX headers with the time of writing; shards of different sizes; keys with folders."""
    with webdataset.ShardWriter(
        f"{tmp_path}/w-%06d.tar", maxcount=30, maxsize=20000, verbose=0, encoder=False
    ) as writer:
        for i in range(70):
            writer.write({**sample(i), "__key__": f"d.{i % 3}/{i:03d}"})
    shards = sorted(tmp_path.glob("*.tar"))
    shard_set = adopted(tmp_path)
    assert len(shard_set) == 70 and len({*np.diff(shard_set.bounds)}) > 1
    assert [shard_set[i] for i in range(70)] == stock_samples(shards)
    assert index_tar(shards[0]) == load_index(shards[0]), "indexing twice is allowed"


@pytest.mark.filterwarnings(
    "ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"
)
@pytest.mark.parametrize("form", ["gnu", "oldgnu", "posix", "ustar", "v7"])
def test_tars_of_tar_are_read_as_stock_and_tarfile_read_them(tmp_path, form):
    """`tar cf`: folders, names beyond ASCII, and long ones in each way there is."""
    rng = np.random.default_rng(0)
    (tmp_path / "files" / "d.x").mkdir(parents=True)
    long = {"gnu": 180, "oldgnu": 180, "posix": 180, "ustar": 80, "v7": 60}[form]
    names = [
        name
        for key in ("0", "d.x/1", "d.x/é", "d.x/" + "n" * long)
        for name in (f"{key}.bin", f"{key}.seg.png")
    ]
    for k, name in enumerate(names):
        (tmp_path / "files" / name).write_bytes(rng.bytes(300 * k))
    subprocess.run(
        ["tar", "cf", "../f.tar", f"--format={form}", "--sort=name", "."],
        cwd=tmp_path / "files",
        check=True,
    )
    read = list(iter_members(tmp_path / "f.tar"))
    with tarfile.open(tmp_path / "f.tar") as tar:
        assert read == [
            (member.name, member.offset_data, tar.extractfile(member).read())
            for member in tar
            if member.isfile()
        ]
    shard_set = adopted(tmp_path)
    assert [shard_set[i] for i in range(4)] == stock_samples([tmp_path / "f.tar"])


def test_times_in_old_gnu_headers_are_no_prefix(tmp_path):
    """Old GNU archives have times of access where USTAR has what stands before the name."""
    tar = write(tmp_path / "f.tar", block(b"b.bin", prefix=b"14500000000\0", magic=b"ustar  \0"))
    assert [name for name, _, _ in iter_members(tar)] == ["a.bin", "b.bin"]


@settings(max_examples=40, deadline=None)
@given(
    names=st.lists(
        st.from_regex(r"([a-zé]{1,60}/){0,4}[a-z0-9]{1,120}\.[a-z]{1,3}", fullmatch=True),
        max_size=5,
        unique=True,
    ),
    form=st.sampled_from([tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]),
    mtime=st.sampled_from([0, 1.5, -3, 1e11]),
)
def test_members_are_those_of_tarfile(tmp_path_factory, names, form, mtime):
    path = tmp_path_factory.getbasetemp() / "any.tar"
    with tarfile.open(path, "w", format=form) as tar:
        for name in names:
            header = tarfile.TarInfo(name)
            header.size, header.mtime = len(name), mtime if form == tarfile.PAX_FORMAT else 0
            try:
                tar.addfile(header, BytesIO(name.encode()))
            except ValueError:  # too long for USTAR
                assert form == tarfile.USTAR_FORMAT
    with tarfile.open(path) as tar:
        expected = [
            (member.name, member.offset_data, tar.extractfile(member).read()) for member in tar
        ]
    sha256 = hashlib.sha256()
    assert list(iter_members(path, sha256)) == expected
    assert sha256.hexdigest() == sha256_of(path)


def test_an_adopted_tar_may_hold_folders_and_fields_in_any_order(tmp_path):
    with tarfile.open(tmp_path / "y-0.tar", "w") as tar:
        folder = tarfile.TarInfo("d.x")
        folder.type = tarfile.DIRTYPE
        tar.addfile(folder)
        for name in ("d.x/0.z", "d.x/0.A", "d.x/1.A", "d.x/1.z", "__meta__/x.y", "README"):
            header = tarfile.TarInfo(name)
            header.size = len(name)
            tar.addfile(header, BytesIO(name.encode()))
    index_tar(tmp_path / "y-0.tar")
    write_manifest(tmp_path, "y", 2)
    assert ShardSet(tmp_path)[0] == {"__key__": "d.x/0", "a": b"d.x/0.A", "z": b"d.x/0.z"}


@pytest.mark.parametrize(
    "member",
    ["a.png", "a.x.png", "d.e/a.png", "a", ".png", "__meta__/a.png", "__key__", "a.", "d/a.B"],
)
def test_members_are_split_as_webdataset_does(member):
    skipped = (
        member.startswith(webdataset.tariterators.meta_prefix)
        and webdataset.tariterators.meta_suffix in member[2:]
    )
    key, field = (None, None) if skipped else webdataset.tariterators.base_plus_ext(member)
    assert split_member(member) == ((key, field.lower()) if key and field else None)


def test_hidden_files_are_not_samples():
    assert split_member("d/._key.png") is None


@pytest.mark.parametrize(
    "key", ["a.b", "__x__", "", "a/b.c", "/a", "a/", "../a", "./a", "a\0b", "x" * 300]
)
def test_bad_keys_are_refused(tmp_path, key):
    with pytest.raises(DataError):
        write_shard(tmp_path / "z-000000.tar", [{"__key__": key, "e": b""}])
    assert not list(tmp_path.glob("*.tar")) and not list(tmp_path.glob("*.json"))


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        ([sample(1), sample(1)], "000001.* repeated"),
        (
            [sample(1), {"__key__": "2", "a.bin": b""}],
            r"sample 2 has the fields \['a.bin'\], expected \['a.bin', 'b.txt'\]",
        ),
        ([{"__key__": "2", "A": b""}], "lower case"),
        ([{"__key__": "2"}], "sample|no samples"),
        ([], "no samples"),
    ],
)
def test_bad_samples_are_refused_by_name(tmp_path, samples, message):
    with pytest.raises(DataError, match=message):
        write_shard(tmp_path / "z-000000.tar", samples)
    assert not list(tmp_path.glob("*.tar"))


def test_a_key_in_two_shards_is_refused(tmp_path):
    write_shard(tmp_path / "z-000000.tar", [sample(1), sample(2)])
    write_shard(tmp_path / "z-000001.tar", [sample(3), sample(2)])
    with pytest.raises(DataError, match="z-000001.tar: key 000002"):
        write_manifest(tmp_path, "z")


def test_an_unknown_kind_of_verification_is_refused(folder):
    with pytest.raises(ConfigError, match="sha512.*size, sha256"):
        ShardSet(folder, verify="sha512")


def test_a_missing_set_says_which_command_makes_it(folder, tmp_path):
    with pytest.raises(
        DataError, match=f"no folder {tmp_path}/data/train.*distgan shard particles {tmp_path}/data"
    ):
        ShardSet(tmp_path / "data" / "train")
    (tmp_path / "dataset.json").write_text(json.dumps({"source": "images"}))
    (tmp_path / "train").mkdir()
    with pytest.raises(
        DataError, match=f"unfinished.*run the `distgan shard` command of {tmp_path} again"
    ):
        ShardSet(tmp_path / "train")
    with pytest.raises(DataError, match=f"did you mean {folder}\\?"):
        ShardSet(folder.parent)


@settings(max_examples=10, deadline=None)
@given(
    data=st.dictionaries(
        st.from_regex(r"[a-zA-Z0-9_-]{1,20}", fullmatch=True).filter(
            lambda key: not key.startswith("__")
        ),
        st.binary(max_size=2000),
        min_size=1,
        max_size=12,
    )
)
def test_any_bytes_come_back(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("any")
    write_shard(
        folder / "h-000000.tar",
        ({"__key__": key, "x": value, "y.z": value[::-1]} for key, value in data.items()),
    )
    write_manifest(folder, "h", len(data))
    read = [ShardSet(folder)[i] for i in range(len(data))]
    assert read == [{"__key__": key, "x": value, "y.z": value[::-1]} for key, value in data.items()]


def test_checksums_of_signed_bytes_are_read(tmp_path):
    """As some old programs wrote them, which took bytes above 127 for negative."""
    head = block("é.bin".encode())
    rest = head[:148] + b" " * 8 + head[156:]
    head = head[:148] + b"%06o\0 " % sum(byte - 256 * (byte > 127) for byte in rest) + head[156:]
    assert [name for name, *_ in iter_members(write(tmp_path / "a.tar", head))] == [
        "a.bin",
        "é.bin",
    ]
