"""Fixtures shared by all tests."""

import pytest
import torch
from shard_runs import SMALL, shard
from shard_sets import damaged

from distgan.shards.build import command as build_command

torch.set_num_threads(
    1
    # as each process of a run has; more would wait for each other on a machine that does other things
)


@pytest.fixture(scope="session")
def particles(tmp_path_factory):
    """Sixty particle images: 54 to train on, 6 held out."""
    folder = tmp_path_factory.mktemp("shards") / "particles"
    assert build_command.main(["particles", str(folder), "--n", "60", "--workers", "1"]) == 0
    return folder


@pytest.fixture(scope="session")
def pulses(tmp_path_factory):
    """Sixty pairs of detector pulses of 128 samples: 54 to train on, 6 held out."""
    folder = tmp_path_factory.mktemp("shards") / "pulses"
    assert (
        build_command.main(
            ["waveform", str(folder), "--n", "60", "--length", "128", "--workers", "1"]
        )
        == 0
    )
    return folder


@pytest.fixture(scope="session")
def recordings(tmp_path_factory):
    """Sixty pairs of 400 frames, the input noisier than the target: 54 to train on, 6 held out."""
    return damaged(tmp_path_factory.mktemp("shards") / "recordings", 54, held_out=6)


@pytest.fixture(scope="session")
def sets(request):
    """A function: the name of one of these fixtures -> its folder, made when first asked for."""
    return request.getfixturevalue


@pytest.fixture(scope="session")
def reference(tmp_path_factory):
    """120 images in 6 + 1 shards, written by one undisturbed process.

    What other ways of writing them must end with.
    """
    folder = tmp_path_factory.mktemp("reference") / "p"
    assert shard("particles", folder, *SMALL, "--workers", 1) == 0
    return folder
