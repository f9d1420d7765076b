"""Tasks that examine a source together."""

from dataclasses import dataclass

import pytest

from distgan.shards.sources._base import Shared


@dataclass(frozen=True)
class Square:
    value: int


def test_the_lock_of_a_part_is_not_opened_through_a_link(tmp_path):
    """Where others may write the folder, it would empty a file of this user's."""
    shared = Shared(tmp_path / "parts", {"size": 8}, (0, 1))
    shared.folder.mkdir()
    mine = tmp_path / "thesis.tex"
    mine.write_text("all of it")
    (shared.folder / f"{shared._name}-000.lock").symlink_to(mine)
    with pytest.raises(OSError, match="it is a link; delete it"):
        shared.map(lambda n: Square(n * n), [1, 2], 1, "numbers", lambda row: Square(**row))
    assert mine.read_text() == "all of it"
