"""Fixtures shared by all tests; nothing here imports torch, which most workers do not need."""

import fcntl
import os

import pytest

# As each process of a run has; more would wait for each other on a machine that does other things.
os.environ["OMP_NUM_THREADS"] = "1"


@pytest.fixture(scope="session")
def shared(tmp_path_factory):
    """Return a function (name, make): the folder that `make(folder)` fills once for all workers."""
    base = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        base = base.parent

    def folder(name, make):
        path = base / name
        with open(base / f"{name}.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not (done := base / f"{name}.done").exists():
                assert make(path) in (0, path)
                done.touch()
        return path

    return folder


@pytest.fixture(scope="session")
def particles(shared):
    """Sixty particle images: 54 to train on, 6 held out."""
    from shard_sets import shard

    return shared("particles", lambda to: shard("particles", to, "--n", 60, "--workers", 1))


@pytest.fixture(scope="session")
def pulses(shared):
    """Sixty pairs of detector pulses of 128 samples: 54 to train on, 6 held out."""
    from shard_sets import shard

    options = ("--n", 60, "--length", 128, "--workers", 1)
    return shared("pulses", lambda to: shard("waveform", to, *options))


@pytest.fixture(scope="session")
def recordings(shared):
    """Sixty pairs of 400 frames, the input noisier than the target: 54 to train on, 6 held out."""
    from shard_sets import damaged

    return shared("recordings", lambda to: damaged(to, 54, held_out=6))


@pytest.fixture(scope="session")
def sets(request):
    """Return a function: the name of one of these fixtures -> its folder, made when needed."""
    return request.getfixturevalue


@pytest.fixture(scope="session")
def reference(shared):
    """120 images in 6 + 1 shards, written by one undisturbed process.

    What other ways of writing them must end with.
    """
    from shard_sets import SMALL, shard

    return shared("reference", lambda to: shard("particles", to, *SMALL, "--workers", 1))
