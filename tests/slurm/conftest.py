"""The development cluster (slurm/dev-cluster up), and a folder to work in."""

import os
import subprocess

import pytest
from processes import BIN, ROOT
from slurm_cluster import FOLDER


@pytest.fixture(scope="session", autouse=True)
def client():
    """The development cluster, asked from the environment that a user has after `export
    SLURM_CONF=…`.
    """
    before = dict(os.environ)
    if "SLURM_CONF" not in before and (FOLDER / "slurm.conf").exists():
        os.environ["SLURM_CONF"] = str(FOLDER / "slurm.conf")
    try:
        answers = (
            subprocess.run(["scontrol", "ping"], capture_output=True, timeout=20).returncode == 0
        )
    except (OSError, subprocess.TimeoutExpired):
        answers = False
    if not answers:
        os.environ.clear()
        os.environ.update(before)
        pytest.skip("no Slurm answers; start one on this machine with: slurm/dev-cluster up")
    os.environ |= {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    yield
    subprocess.run(["scancel", "--me"], capture_output=True)
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", f"{BIN}:{os.environ['PATH']}")
    yield tmp_path
    subprocess.run(["scancel", "--me"], capture_output=True)
