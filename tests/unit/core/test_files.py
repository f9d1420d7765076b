"""Files that are written whole: where nobody else can have a hand in it."""

import pytest

from distgan.core import files
from distgan.core.errors import DataError
from distgan.core.files import commit
from distgan.shards.format import writer


def test_two_processes_of_one_number_do_not_share_a_temporary_name(tmp_path):
    """Containers on one machine count their processes alike."""
    assert files.temporary_of(tmp_path / "a") != files.temporary_of(tmp_path / "a")


def test_a_link_under_the_temporary_name_is_not_followed(tmp_path, monkeypatch):
    (tmp_path / "precious").write_text("precious")
    (tmp_path / "planted").symlink_to(tmp_path / "precious")
    for module in (files, writer):
        monkeypatch.setattr(module, "temporary_of", lambda path: tmp_path / "planted")
    with pytest.raises(FileExistsError):
        commit(tmp_path / "a.json", b"{}")
    with pytest.raises(DataError, match="File exists"):
        writer.write_shard(tmp_path / "a.tar", [{"__key__": "a", "txt": b"1"}])
    assert (tmp_path / "precious").read_text() == "precious" and not (tmp_path / "a.tar").exists()


@pytest.mark.parametrize("key", ["a\udcff", "a\ud800", "a\nb", "a\x1fb/c", "a\x7f", ""])
def test_a_key_that_readers_refuse_is_not_written(tmp_path, key):
    with pytest.raises(DataError, match="malformed|cannot be the name"):
        writer.write_shard(tmp_path / "a.tar", [{"__key__": key, "txt": b"1"}])
    assert not list(tmp_path.iterdir())
