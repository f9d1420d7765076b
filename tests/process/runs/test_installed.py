"""An installed copy: no checkout, and files of the user beside it whose names are those of ours."""

import subprocess
import sys

import pytest
from processes import TINY, environment

from distgan.launchers.slurm import snapshot

HOSTILE = ("launchers", "shards", "config", "core", "runs", "data/__init__", "train", "job")


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """(a folder like site-packages that holds the package, a working directory of the user with a
    data set `d`).
    """
    site = snapshot.take(tmp_path_factory.mktemp("site"))
    work = tmp_path_factory.mktemp("work")
    (work / "data").mkdir()
    for name in HOSTILE:
        (work / f"{name}.py").write_text(f"raise SystemExit('{name}.py of the user was imported')")
    made = run((site, work), "distgan", "shard", "particles", "d", "--n", "60")
    assert "distgan run" in made
    return site, work


def run(installed, *words: str) -> str:
    site, work = installed
    done = subprocess.run(
        [sys.executable, "-m", *words],
        cwd=work,
        env=environment(PYTHONPATH=str(site)),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_shard_train_evaluate_and_report_beside_hostile_files(installed):
    site, work = installed
    line = run(installed, "distgan", "run", "--processes", "2", "--show", "sagan", "data=d")
    assert f"{site}/distgan/train.py sagan" in line
    words = ["sagan", "data=d", "epochs=1", *TINY]
    run(installed, "distgan", "run", "--processes", "2", *words, "machine.folder=one")
    assert (work / "one/DONE").exists()
    run(installed, "distgan", "evaluate", "one", "--n", "24", "--processes", "2")
    run(installed, "distgan", "report", "one")
    assert (work / "one/report.html").exists()


def test_a_typed_launch_line_names_the_module(installed):
    site, work = installed
    config = site / "distgan/configs/accelerate.yaml"
    launch = ["accelerate.commands.accelerate_cli", "launch", "--config_file", str(config)]
    words = ["sagan", "data=d", "epochs=1", *TINY, "machine.folder=two", "--dry-run"]
    assert "2 ranks" in run(installed, *launch, "-m", "distgan.train", *words)


def test_profiles_and_the_development_cluster_are_there(installed):
    assert "dev, gpu, gpu-node, preemptible" in " ".join(
        run(installed, "distgan", "submit", "--help").split()
    )
    assert "distgan dev-cluster up" in run(installed, "distgan", "dev-cluster", "--help")
