"""The code that a job of a real Slurm runs."""

import json
import os
import subprocess
import sys
from pathlib import Path

from processes import ROOT, journal
from slurm_cluster import QUIET, distgan, states, turns, until

from distgan.recipes import _catalog


def test_a_job_runs_the_copy_of_the_code_and_not_the_checkout(particles, tmp_path, place):
    """Submitted from a checkout whose code is changed before the job starts.

    A longer run is the same run, continued.
    """
    checkout = place / "checkout"
    subprocess.run(["git", "clone", "-q", str(ROOT), str(checkout)], check=True)
    verb = [
        sys.executable,
        "-m",
        "distgan",
        "submit",
        "sagan",
        f"data={particles}",
        *QUIET,
        "--profile",
        "dev",
    ]
    environment = {**os.environ, "PYTHONPATH": str(checkout)}
    said = subprocess.run(
        [*verb, "epochs=1", "--set", "sbatch={begin: now+6}"],
        cwd=checkout,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert said.returncode == 0, said.stderr
    (checkout / "distgan/train.py").write_text("raise SystemExit('the checkout was run')")
    os.chdir(checkout)
    until(lambda: states()[0]["state"] == "done", 90)
    (turn,) = turns(states()[0]["run"])
    assert "/_code/" in turn["command"][1]
    subprocess.run(["git", "checkout", "-q", "."], cwd=checkout, check=True)
    again = subprocess.run(
        [*verb, "epochs=2"], cwd=checkout, env=environment, capture_output=True, text=True
    )
    assert "submitted   job" in again.stdout, again.stdout + again.stderr
    until(lambda: len(turns(states()[0]["run"])) == 2 and states()[0]["state"] == "done", 90)
    assert len(journal(Path(states()[0]["run"]))) == 9


def test_a_job_of_an_installed_copy_runs_what_was_submitted(particles, place):
    """The package is upgraded before the job starts; files of the user have our modules' names."""
    from distgan.launchers.slurm import snapshot

    site = snapshot.take(place / "site")
    for name in ("launchers", "shards", "config", "train"):
        (place / f"{name}.py").write_text("raise SystemExit('a file of the user was imported')")
    said = subprocess.run(
        [sys.executable, "-m", "distgan", "submit", "sagan", f"data={particles}", "epochs=1"]
        + [*QUIET, "--profile", "dev", "--set", "sbatch={begin: now+6}"],
        env={**os.environ, "PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
    )
    assert said.returncode == 0, said.stderr
    (site / "distgan/train.py").write_text("raise SystemExit('the upgraded copy was run')")
    until(lambda: states()[0]["state"] == "done", 90)
    (turn,) = turns(states()[0]["run"])
    assert turn["command"][1].startswith(str(place / "runs/_code/"))


def test_a_sweep_of_ones_own_recipe_whose_file_is_edited_and_deleted(particles, place):
    """Also through a run file; `retry` submits the code that was submitted before."""
    template = (_catalog.FOLDER / "templates/image.py").read_text()
    (place / "layers.py").write_text("def half(width):\n    return width // 2\n")
    own = template.replace("from distgan import api\n", "import layers\nfrom distgan import api\n")
    own = own.replace("run.width *", "layers.half(run.width) *")
    assert "import layers" in own and "layers.half" in own
    words = [f"data={particles}", "epochs=1", "width=16", "latent=4", "batch=18", *QUIET[:4]]
    words += ["evaluate.samples=8"]
    Path("my_gan.py").write_text(own)
    Path("run.yaml").write_text("recipe: my_gan.py\nseed: 7\n")
    options = ["--profile", "dev", "--set", "sbatch={begin: now+8}"]
    distgan("sweep", "my_gan.py", *words, "seed=1,2", "--name", "own", *options)
    distgan("submit", "run.yaml", *words, *options)
    Path("my_gan.py").write_text("raise SystemExit('the edited file was run')")
    Path("layers.py").unlink(), Path("my_gan.py").unlink(), Path("run.yaml").unlink()
    until(lambda: [one["state"] for one in states()] == ["done"] * 3, 200)
    runs = [Path(one["run"]) for one in states()]
    digests = {json.loads((run / "identity.json").read_text())["code"]["digest"] for run in runs}
    assert len(digests) == 1
    assert all(len([*run.glob("recipe/my_gan-*.zip")]) == 1 for run in runs)
    distgan("report", *runs), distgan("evaluate", str(runs[0]))
    (runs[0] / "DONE").unlink()
    (runs[0] / "NO_RESTART").touch()
    assert "submitted" in distgan("retry", str(runs[0]))
    until(lambda: states(str(runs[0]))[0]["state"] == "done", 90)
