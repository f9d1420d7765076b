"""Fixtures shared by all tests."""

import pytest
import torch

from shards import build

torch.set_num_threads(1)  # as each process of a run has; more would wait for each other on a machine that does other things


@pytest.fixture(scope="session")
def particles(tmp_path_factory):
    """Sixty particle images: 54 to train on, 6 held out."""
    folder = tmp_path_factory.mktemp("shards") / "particles"
    assert build.main(["particles", str(folder), "--n", "60", "--workers", "1"]) == 0
    return folder
