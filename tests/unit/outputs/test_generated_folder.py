"""The folder of `distgan generate`, which one process fills."""

import hashlib

import pytest

from distgan.core.errors import ConfigError, DiskError
from distgan.outputs.folder import OutputFolder

COLUMNS = ("id", "file_name", "sha256")


def row(i: int, name: str = "") -> tuple[tuple, dict[str, bytes]]:
    data = f"{i}".encode()
    name = name or f"images/{i}.png"
    return (i, name, hashlib.sha256(data).hexdigest()), {"png": data}


def test_two_that_fill_one_folder_are_one_too_many(tmp_path):
    first, second = (OutputFolder(tmp_path / "out", {"of": "noise"}, False) for _ in range(2))
    assert first.begin(COLUMNS, 1, 1, 2) == 0
    with pytest.raises(ConfigError, match="another process is writing into it; wait for it, or"):
        second.begin(COLUMNS, 1, 1, 2)
    first.add([row(0), row(1)])
    first.finish([])
    assert second.begin(COLUMNS, 1, 1, 2) == 2
    assert len((tmp_path / "out" / "result.csv").read_text().splitlines()) == 3


def test_a_link_in_the_place_of_an_image_is_not_followed(tmp_path):
    (tmp_path / "precious").write_text("precious")
    folder = OutputFolder(tmp_path / "out", {"of": "noise"}, False)
    folder.begin(COLUMNS, 1, 1, 1)
    (tmp_path / "out" / "images").mkdir()
    (tmp_path / "out" / "images" / "0.png").symlink_to(tmp_path / "precious")
    with pytest.raises(DiskError, match="cannot write .*0.png: it is a link"):
        folder.add([row(0)])
    assert (tmp_path / "precious").read_text() == "precious"
