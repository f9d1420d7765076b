"""Fixtures shared by all tests."""

import pytest

from shards import build


@pytest.fixture(scope="session")
def particles(tmp_path_factory):
    """Sixty particle images: 54 to train on, 6 held out."""
    folder = tmp_path_factory.mktemp("shards") / "particles"
    assert build.main(["particles", str(folder), "--n", "60", "--workers", "1"]) == 0
    return folder
