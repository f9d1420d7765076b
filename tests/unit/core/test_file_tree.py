"""Folders of users' files: nothing in them makes a program wait, fail with a traceback, or take
fewer files than there are.
"""

import os
import re
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from distgan.core.errors import DataError
from distgan.core.file_tree import Contents, find_files
from distgan.shards.audio.pairs import ArrayPairs, FilePairs
from distgan.shards.codecs import image_files


@pytest.mark.parametrize(
    "make",
    [
        lambda path: path.symlink_to("gone.png"),
        lambda path: path.symlink_to(path),
        os.mkfifo,
        lambda path: path.symlink_to("/dev/zero"),
    ],
    ids=["broken", "circle", "pipe", "device"],
)
def test_what_is_no_file_is_named(tmp_path, make):
    (tmp_path / "a.png").touch()
    make(tmp_path / "b.png")
    with pytest.raises(DataError, match="b.png is a broken link, a pipe or a device"):
        find_files(tmp_path, (".png",))
    assert find_files(tmp_path, (".wav",)) == ([], {".png": 2})


def test_a_folder_that_cannot_be_read_is_named(tmp_path, monkeypatch):
    """Its files would be missing without a word. Root may read everything, hence the substitute."""
    (tmp_path / "inner").mkdir()
    (tmp_path / "a.png").touch()
    real = os.scandir

    def scandir(path):
        if Path(path).name == "inner":
            raise PermissionError(13, "Permission denied", os.fspath(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(DataError, match="inner cannot be read: Permission denied"):
        find_files(tmp_path, (".png",))


def test_a_file_that_goes_away_is_named(tmp_path):
    with pytest.raises(DataError, match="gone.png cannot be read: No such file"):
        Contents(tmp_path, ["gone.png"])


def header(shape: str) -> bytes:
    text = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text


ARRAYS = {
    "more than there is": header("(1000000000000,)"),
    "more than can be": header(f"({2**62},)"),
    "no header": header("(("),
    "less than nothing": header("(-5,)"),
    "empty": b"",
    "pickled": b"cos\nsystem\n(S'false'\ntR.",
    "other": b"hello",
}


@pytest.mark.parametrize("name", ARRAYS)
def test_damaged_arrays(tmp_path, name):
    with zipfile.ZipFile(tmp_path / "pairs.npz", "w") as file:
        for side in ("input", "target"):
            (tmp_path / side).mkdir()
            (tmp_path / side / "a.npy").write_bytes(ARRAYS[name])
            file.writestr(f"{side}.npy", ARRAYS[name])
    with pytest.raises(DataError, match="pairs.npz cannot be read as .npz"):
        ArrayPairs(tmp_path / "pairs.npz")
    with pytest.raises(DataError, match="a.npy cannot be read as .npy"):
        FilePairs.in_one_folder(tmp_path, (".npy",)).load(0)


def test_damaged_archives(tmp_path):
    path, values = tmp_path / "pairs.npz", np.random.default_rng(0).standard_normal((6, 200))
    np.savez_compressed(path, input=values, target=values)
    whole = path.read_bytes()
    entry = whole.index(b"PK\x01\x02")
    for at, byte in (
        (60, 0xFF),
        (entry + 8, 1),
        (entry + 10, 99),
    ):  # the data; encrypted; by an unknown method
        path.write_bytes(
            whole[:at] + bytes([byte]) * (1 + 40 * (at == 60)) + whole[at + 1 + 40 * (at == 60) :]
        )
        with pytest.raises(DataError, match="pairs.npz cannot be read as .npz"):
            ArrayPairs(path)
    path.write_bytes(header("(0,)"))
    with pytest.raises(ValueError, match="is a single array"):
        ArrayPairs(path)


def test_postscript_is_no_image(tmp_path, monkeypatch):
    """Pillow would hand it to another program."""
    (tmp_path / "a.png").write_bytes(
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n%%EOF\n"
    )
    with pytest.raises(Image.UnidentifiedImageError):
        image_files.picture(tmp_path / "a.png")


def test_contents_name_files_by_their_bytes(tmp_path):
    for name, data in (("a", b"1"), ("b", b"2"), ("c", b"1")):
        (tmp_path / name).write_bytes(data)
    there = Contents(tmp_path, ["a", "b", "c"], "things")
    assert [there.first(name) for name in "abc"] == ["a", "b", "a"]
    assert re.fullmatch("3 things with sha256 [0-9a-f]{16}", str(there)) and str(there) == str(
        Contents(tmp_path, ["a", "b", "c"], "things")
    )
    (tmp_path / "c").write_bytes(b"3")
    assert str(Contents(tmp_path, ["a", "b", "c"], "things")) != str(there)
