"""Fixtures shared by all tests; nothing here imports torch, which most workers do not need."""

import fcntl
import os
import tempfile

import pytest

# As each process of a run has; more would wait for each other on a machine that does other things.
os.environ["OMP_NUM_THREADS"] = "1"
# Which code was checked is remembered from run to run; not from one session of tests to the next.
os.environ["DISTGAN_CACHE"] = tempfile.mkdtemp(prefix="distgan-cache-")


FOLDERS = {
    "process/faults": "gate",
    "process/library": "gate",
    "process/runs": "gate",
    "nightly": "nightly",
    "slurm": "slurm",
}


def pytest_collection_modifyitems(config, items):
    """Leave tests marked for a later tier out unless `-m` chooses; mark others by their folder."""
    root = config.rootpath / "tests"
    later = [i for i in items if any(i.get_closest_marker(m) for m in ("gate", "nightly"))]
    if later and not config.option.markexpr:
        config.hook.pytest_deselected(items=later)
        items[:] = [item for item in items if item not in later]
    for item in items:
        folder = "/".join(item.path.relative_to(root).parts[:-1])
        if item not in later and folder in FOLDERS:
            item.add_marker(FOLDERS[folder])


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
def shapes(shared):
    """Sixty labelled images of 32x32 in colour: 54 to train on, 6 held out."""
    from shard_sets import shard

    return shared("shapes", lambda to: shard("shapes", to, "--n", 60, "--workers", 1))


@pytest.fixture(scope="session")
def gaussians(shared):
    """Sixty labelled vectors of two numbers: 54 to train on, 6 held out."""
    from shard_sets import shard

    return shared("gaussians", lambda to: shard("gaussians", to, "--n", 60, "--workers", 1))


@pytest.fixture(scope="session")
def negatives(shared):
    """Sixty pairs of images of 16x16 in colour: 54 to train on, 6 held out."""
    from shard_sets import image_pairs

    return shared("negatives", lambda to: image_pairs(to, 54))


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


@pytest.fixture(scope="session")
def flowers(shared):
    """Sixty look-alikes of flowers: 54 to train on, 6 held out."""
    from flowers import look_alike
    from shard_sets import shard

    def make(to):
        source = look_alike(to.with_name("flowers-source"), each=5)
        options = ("--unofficial", "--validation", "0.1", "--workers", 1)
        return shard("flowers102", to, "--from", source, *options)

    return shared("flowers", make)


@pytest.fixture(scope="module")
def trained(shared, particles, tmp_path_factory):
    """(A folder with `run`, trained for one epoch, and `data`, statistics beside which are this
    module's own; what the training printed).
    """
    import contextlib
    import shutil

    from processes import TINY
    from shard_sets import copy_data

    from distgan import train

    def make(to):
        words = [f"data={particles}", f"machine.folder={to / 'run'}", "epochs=1"]
        with open(to.with_suffix(".txt"), "w") as printed, contextlib.redirect_stdout(printed):
            return train.main(["sagan", *words, "machine.device=cpu", *TINY])

    source, home = shared("trained", make), tmp_path_factory.mktemp("trained")
    shutil.copytree(source, home, dirs_exist_ok=True)
    copy_data(particles, home / "data")
    return home, source.with_suffix(".txt").read_text()
