"""What a wheel holds, and what jobs queued by the version before need."""

import os
import pickle
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[3]


def test_every_file_of_the_package_is_in_a_wheel():
    """Every tracked file below distgan/, links followed, is a module of a package or named in
    package-data.
    """
    data = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"][
        "package-data"
    ]
    named = {
        path.resolve()
        for package, patterns in data.items()
        for pattern in patterns
        for path in (ROOT / package.replace(".", "/")).glob(pattern)
    }
    tops = ("distgan", "launchers", "shards", "slurm", "configs")
    listing = subprocess.run(
        ["git", "ls-files", *tops], cwd=ROOT, capture_output=True, text=True, check=True
    )
    paths = [ROOT / line for line in listing.stdout.splitlines()]
    modules = {p for p in paths if p.suffix == ".py" and (p.parent / "__init__.py").is_file()}
    assert [p for p in paths if p.is_file() and p.resolve() not in modules | named] == []
    assert {ROOT / "slurm/dev-cluster", ROOT / "configs/accelerate.yaml"} <= named


def test_jobs_queued_by_the_version_before_still_load():
    """Their pickles name `launchers.job.Job`, in the checkout that submitted them."""
    queued = (
        b"\x80\x04\x8c\rlaunchers.job\x94\x8c\x03Job\x94\x93\x94)\x81\x94}\x94"
        b"\x8c\x06folder\x94\x8c\x04/one\x94sb."
    )
    program = f"import pickle; print(pickle.loads({queued!r}))"
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.stdout == "Job(folder='/one')\n", done.stderr


def test_a_job_is_pickled_as_its_folder_alone():
    from distgan.launchers.slurm.job import Job

    text = pickle.dumps(Job("/one"))
    assert b"/one" in text and len(text) < 120


def test_the_development_cluster_is_a_verb(tmp_path, capsys):
    from distgan.launchers.slurm import dev_cluster

    assert dev_cluster.main(["status", "--folder", str(tmp_path)]) == 0
    assert "next: distgan dev-cluster up" in capsys.readouterr().out


def test_looking_at_runs_and_their_jobs_needs_no_torch():
    """`distgan status` answers at once on a login node, and a job's own process stays small."""
    import subprocess
    import sys

    names = [
        "job",
        "slurm.submission",
        "slurm.doctor",
        "commands.status",
        "commands.why",
        "commands.logs",
        "commands.cost",
        "commands.control",
        "commands.show",
        "commands.gc",
        "commands.submit",
        "sweeps.command",
        "sweeps.comparison",
    ]
    lines = [f"import distgan.launchers.{name}" for name in names]
    lines += ["import sys", "assert not {'torch', 'accelerate', 'submitit'} & set(sys.modules)"]
    subprocess.run([sys.executable, "-c", "\n".join(lines)], check=True)
