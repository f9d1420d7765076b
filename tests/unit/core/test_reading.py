"""Files that others may have written: none hangs, none fills the memory, each has one error."""

import os

import pytest

from distgan.core import files, reading


@pytest.mark.parametrize("kind", ["pipe", "device", "link", "folder"])
def test_only_regular_files_are_read(tmp_path, kind):
    path = tmp_path / "status.json"
    (tmp_path / "secret").write_text("{}")
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to("/dev/zero" if kind == "device" else tmp_path / "secret")
    for read in (reading.read_json, reading.read_lines, lambda path: reading.read_tail(path, 9)):
        with pytest.raises(OSError):
            read(path)
    if kind == "link":
        assert reading.read_json(path, links=True) == {}
    else:
        with pytest.raises(OSError):
            reading.read_bytes(path, links=True)
        with pytest.raises(OSError):
            files.sha256_of(path)


def test_a_sparse_file_does_not_fill_the_memory(tmp_path):
    with open(tmp_path / "a", "wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(OSError, match="it has more than 16,777,216 bytes"):
        reading.read_bytes(tmp_path / "a")
    assert reading.read_tail(tmp_path / "a", 3) == bytes(3)


@pytest.mark.parametrize("depth", [reading.DEPTH + 1, 900, 200_000])
def test_deep_json_is_an_error_of_one_kind(depth):
    for text in ("[" * depth + "]" * depth, '{"a":' * depth + "1" + "}" * depth):
        with pytest.raises(ValueError, match="nested too deeply"):
            reading.parse_json(text)
    assert reading.parse_json("[" * 9 + "]" * 9)
