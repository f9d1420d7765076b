"""A recipe of one's own, in an empty folder and with an installed copy: what `distgan new` writes
trains alike in any number of processes, goes on, is scored and reported; its code may not change
without a word.
"""

import json
import subprocess
import sys

import pytest
from processes import environment, journal

from distgan.launchers.slurm import snapshot

ACCELERATE = ["accelerate.commands.accelerate_cli", "launch", "--config_file"]
SMALL = ["data=d", "epochs=2", "width=8", "latent=8", "batch=18", "evaluate.samples=24"]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """(a folder like site-packages that holds the package, a folder with a data set)."""
    site, work = snapshot.take(tmp_path_factory.mktemp("site")), tmp_path_factory.mktemp("work")
    run((site, work), "distgan", "shard", "particles", "d", "--n", "60", "--size", "32")
    run((site, work), "distgan", "new", "my_gan.py")
    return site, work


def run(place, *words: str, code: int = 0) -> str:
    site, work = place
    done = subprocess.run(
        [sys.executable, "-m", *words],
        cwd=work,
        env=environment(PYTHONPATH=str(site), DISTGAN_CACHE=str(work / "cache")),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def losses(folder) -> dict[int, list[float]]:
    rows = journal(folder)
    return {step: [row["d/loss"], row["g/loss"]] for step, row in rows.items()}


def largest_difference(a, b) -> float:
    """Relative to the largest size of each loss: one that passes through 0 is as exact there."""
    assert a.keys() == b.keys() and len(a) >= 6
    sizes = [max(abs(row[k]) for row in a.values()) for k in (0, 1)]
    return max(abs(a[step][k] - b[step][k]) / sizes[k] for step in a for k in (0, 1))


def test_the_template_is_one_run_in_any_number_of_processes(place):
    site, work = place
    said = run(place, "distgan", "train", "my_gan.py", *SMALL, "machine.folder=f32")
    assert "checking" in said and "finished" in said
    double = [*SMALL, "precision=float64"]
    said = run(place, "distgan", "train", "my_gan.py", *double, "machine.folder=f64")
    assert "checking" not in said
    ddp = [*ACCELERATE, f"{site}/distgan/configs/accelerate.yaml", "--num_processes", "2"]
    said = run(place, *ddp, "-m", "distgan.train", "my_gan.py", *double, "machine.folder=ddp")
    assert "2 ranks" in said and "self-check: " in said
    zero = [*ACCELERATE, f"{site}/distgan/configs/deepspeed.yaml", "--num_processes", "2"]
    run(place, *zero, "-m", "distgan.train", "my_gan.py", *SMALL, "machine.folder=zero")
    alike = largest_difference(losses(work / "f64"), losses(work / "ddp"))
    shared = largest_difference(losses(work / "f32"), losses(work / "zero"))
    print(f"DDP {alike:.1e}, ZeRO 1 {shared:.1e}")
    assert alike <= 1e-12 and shared <= 2e-5


def test_it_goes_on_and_is_scored_and_its_code_is_asked_about(place):
    site, work = place
    words = ["distgan", "run", "--processes", "2", "my_gan.py", *SMALL]
    run(place, *words, "machine.folder=one")
    run(place, "distgan", "evaluate", "one", "--n", "24", "--processes", "2")
    source = (work / "my_gan.py").read_text()
    said = source.replace("# twice the size each", "# each doubles the size")
    assert said != source
    (work / "my_gan.py").write_text(said + "\n# a comment\n")
    assert "nothing to do" in run(place, "distgan", "train", *words[4:], "machine.folder=one")
    (work / "my_gan.py").write_text(source.replace("api.d_hinge(real, fake)", "-real.mean()"))
    before = snapshot_of(work / "one")
    for start in (words, ["distgan", "train", *words[4:]]):
        said = run(place, *start, "epochs=3", "machine.folder=one", code=2)
        assert "my_gan.py: Recipe.d_loss" in said and "add code=accept" in said
        assert said.count("has changed since the run") == 1 and "Traceback" not in said
        assert "checking" not in said
    assert snapshot_of(work / "one") == before
    said = run(place, *words, "epochs=3", "machine.folder=one", "code=accept")
    assert "continuing from step 6 of 9" in said
    (change,) = [
        event
        for event in map(json.loads, (work / "one/events.jsonl").read_text().splitlines())
        if event["event"] == "code"
    ]
    assert change["step"] == 6 and change["epoch"] == 2
    (work / "my_gan.py").unlink()
    run(place, "distgan", "report", "one")
    page = (work / "one/report.html").read_text()
    assert f"{change['before']} until epoch 2" in page and change["after"] in page
    run(place, "distgan", "generate", "one", "--n", "4")
    run(place, "distgan", "train", "one/config.yaml", "epochs=4", "machine.folder=one")


def snapshot_of(folder) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_recipe_that_cannot_train_is_refused_before_any_process_starts(place):
    _, work = place
    source = (site_template(place)).read_text()
    faults = {
        "returns nothing": ("return api.step_log", "api.step_log"),
        "the loss is": ("api.d_hinge(real, fake),", "real - fake,"),
        "ZeroDivisionError": ("self.run, self.dtype", "1 / 0\n        self.run, self.dtype"),
    }
    for words, (old, new) in faults.items():
        assert old in source
        (work / "bad.py").write_text(source.replace(old, new))
        said = run(place, "distgan", "run", "--processes", "2", "bad.py", *SMALL, code=2)
        assert words in said and "bad.py:" in said and "Traceback" not in said
        assert "torch.distributed" not in said and not (work / "runs/bad").exists()


def site_template(place):
    return place[0] / "distgan/recipes/templates/image.py"
