"""Runs, data, caches, sweeps and queued jobs of version 0.1.0 (commit b0128e9) go on under this
one.

tests/fixtures/earlier/README.md says how they were made and what `expected/` holds: what b0128e9
itself made of them afterwards.
"""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from processes import environment, line, run
from relocated_sweep import relocate
from safetensors.torch import load_file

FIXTURES = Path(__file__).parents[2] / "fixtures" / "earlier"
EXPECTED = FIXTURES / "expected"
USUAL = "machine.checkpoint_every=2 machine.keep=1 machine.flush_steps=1"
IMAGES = (
    "data=data/particles latent=8 batch=12 evaluate.samples=24 evaluate.schedule=[[null,4]]"
    f" validate_every=2 sample_every=6 {USUAL} ngf=2 ndf=2"
)
LINES = {
    "sagan": f"{IMAGES} bn_group=3 seed=3 epochs=12",
    "wgan_flowers": f"{IMAGES} bn_group=3 n_critic=2 ema=0.99 penalty=10 seed=5 epochs=36",
    "r3gan": f"{IMAGES} blocks=1 penalty_every=2 ema=0.99 seed=0 epochs=12",
    "waveform": (
        "data=data/pulses base_filters=2 num_layers=2 base_filters_d=2 num_layers_d=2 ema=0.99"
        f" batch=12 seed=6 sample_every=2 {USUAL} epochs=6"
    ),
    "timbre": (
        "data=data/recordings g_width=4 g_fft=64 g_hop=16 d_width=2"
        " stft_resolutions=[[64,16,64],[32,8,24]] segment_length=256 gan_start_epoch=2 batch=6"
        f" seed=1 sample_every=2 {USUAL} epochs=8"
    ),
}
BEGAN = {"sagan": 12, "wgan_flowers": 23, "r3gan": 6, "waveform": 9, "timbre": 12}  # continued at
# On another CPU other roundings grow from 2e-5 of 5 steps to 0.7 of 25 (wgan_flowers, measured).
COMPARED, ROUNDING = 5, 1e-4
TIMES = {"seconds", "samples_per_second"}
LATER = {  # numbers that it did not have, of all systems or of this one
    *("valid/g_loss", "valid/beats_trivial", "valid/beats_input", "valid/zeros_l1"),
    *("valid/input_l1", "floor/samples", "floor/real", "floor/generated"),
    *("floor/real_coverage", "floor/coverage"),
}


@pytest.fixture
def earlier(tmp_path):
    return Path(shutil.copytree(FIXTURES, tmp_path / "earlier"))


def same_machine() -> bool:
    """Return whether bits can be compared: torch and the CPU are those of the fixtures.

    With AVX2 in place of AVX512, b0128e9 itself ends with other bits in most tensors.
    """
    recorded, info = (
        json.loads((EXPECTED / "machine.json").read_text()),
        Path("/proc/cpuinfo").read_text(),
    )
    match = {
        key: re.search(rf"^{key}\s*: (.*)$", info, re.M) for key in ("cpu family", "model", "flags")
    }
    if not all(match.values()):
        return False
    flags = hashlib.sha256(" ".join(sorted(match["flags"][1].split())).encode()).hexdigest()[:16]
    present = (
        torch.__version__.partition("+")[0],
        match["cpu family"][1],
        match["model"][1],
        flags,
    )
    return present == tuple(recorded[key] for key in ("torch", "cpu_family", "model", "flags"))


def ends_as(folder: Path, name: str) -> None:
    """Assert that a run ended as b0128e9 ended it: all bits here, on another CPU the numbers of the
    first steps.
    """
    expected = json.loads((EXPECTED / f"{name}.json").read_text())
    rows = [json.loads(text) for text in (folder / "journal.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [row["step"] for row in expected["journal"]]
    checkpoint = folder / "checkpoints" / expected["last_checkpoint"]
    tensors = load_file(checkpoint / "networks.safetensors")
    assert tensors.keys() == expected["networks"].keys()
    exact = same_machine()
    for row, other in zip(rows, expected["journal"], strict=True):
        keys = {
            key
            for key in row | other
            if key not in TIMES and not key.startswith("time/")
            if key in other or key not in LATER
        }
        assert keys <= row.keys() and keys <= other.keys()
        for key in keys:
            # Distances of pairs come of products since, which round otherwise.
            rounding = 1e-12 if key.endswith(("nearest", "kernel_standin")) else 0
            tolerance = rounding if exact else ROUNDING
            if exact or row["step"] <= BEGAN.get(name, 0) + COMPARED:
                assert row[key] == pytest.approx(other[key], rel=tolerance, abs=tolerance), key
    if exact:
        for key, tensor in tensors.items():
            data = tensor.contiguous().view(-1).view(torch.uint8).numpy().tobytes()
            assert hashlib.sha256(data).hexdigest() == expected["networks"][key]["sha256"], key
    about = json.loads((checkpoint / "checkpoint.json").read_text())
    # `healthy` differs: a run goes back to checkpoints on a grid of its own, not to any.
    for key in ("step", "samples", "seed", "data", "changed", "ended", "mishaps"):
        assert about[key] == expected["checkpoint"][key], key


@pytest.mark.parametrize("name", LINES)
def test_training_continues_to_the_same_bits(name, earlier):
    (folder,) = (earlier / "runs" / name).iterdir()
    output = run(line("python"), name, *LINES[name].split(), cwd=earlier)
    # The monitor has new rules since, which these runs go on without, and jitter is of saturation
    # no more; nothing else has changed.
    (kept,) = re.findall(r"begun with earlier defaults and keeps them: (.*)", output)
    assert all(setting.startswith(("watch.", "saturation=")) for setting in kept.split(", "))
    assert list((earlier / "runs" / name).iterdir()) == [folder]
    ends_as(folder, name)


def test_reports_scores_and_statistics_are_read(earlier):
    output = run(line("distgan")[:1], "report", "runs", cwd=earlier)
    assert all(name in output for name in LINES)
    assert len(list(earlier.glob("runs/*/*/report.html"))) == len(LINES)
    (sagan,) = (earlier / "runs/sagan").iterdir()
    cache = {path.name: path.stat().st_mtime_ns for path in (earlier / "data").rglob("features-*")}
    run(line("distgan")[:1], "evaluate", f"{sagan}@last", "--n", "24", cwd=earlier)
    assert cache and cache == {
        path.name: path.stat().st_mtime_ns for path in (earlier / "data").rglob("features-*")
    }
    recorded = json.loads((EXPECTED / "evaluate-sagan-last.json").read_text())
    (result,) = (sagan / "eval" / "asked").glob("*.json")
    score = json.loads(result.read_text())["score"]
    assert score == pytest.approx(recorded["score"], rel=0 if same_machine() else 1e-3)


def test_a_sweep_is_read_and_continued(earlier):
    sweep = earlier / "sweep"
    relocate(sweep)
    # Without squeue on the PATH the ledger and the run folders are all there is.
    programs = earlier / "bin"
    programs.mkdir()
    (programs / "git").symlink_to(shutil.which("git"))
    output = run(line("distgan")[:1], "status", "--json", cwd=sweep, code=None, PATH=str(programs))
    states = {}
    for text in output.splitlines():
        if text.startswith("{"):
            row = json.loads(text)
            states[Path(row["run"]).name] = row["state"]
    expected = map(json.loads, (EXPECTED / "status-without-slurm.jsonl").read_text().splitlines())
    wanted = {Path(row["run"]).name: row["state"] for row in expected}
    # A job whose end nothing shows was `lost`, and the same line submitted it again.
    wanted = {name: "unknown" if state == "lost" else state for name, state in wanted.items()}
    assert states == wanted
    words = (
        "sagan data=../data/particles ndf=2 latent=8 batch=12 bn_group=3 evaluate.samples=24"
        " evaluate.schedule=[[null,2]] validate_every=2 sample_every=4 machine.checkpoint_every=2"
        " machine.keep=1 ngf=2 epochs=8"
    )
    run(line("python"), *words.split(), cwd=sweep)
    (folder,) = (sweep / "runs/sagan").glob("*-e6be51a1")
    ends_as(folder, "sweep-ngf2")


def test_a_queued_job_runs(earlier):
    """Its pickle names `launchers.job.Job`; it is started as its batch script's srun starts it."""
    sweep = earlier / "sweep"
    relocate(sweep)
    slurm = {
        "SUBMITIT_EXECUTOR": "slurm",
        "SLURM_JOB_ID": "3",
        "SLURM_NTASKS": "1",
        "SLURM_JOB_NUM_NODES": "1",
        "SLURM_NNODES": "1",
        "SLURM_NODEID": "0",
        "SLURM_JOB_NODELIST": "n1",
        "SLURM_LOCALID": "0",
        "SLURM_PROCID": "0",
        "PATH": f"{os.path.dirname(sys.executable)}:/usr/bin:/bin",
    }
    done = subprocess.run(
        [sys.executable, "-m", "submitit.core._submit", sweep / "runs/_slurm/cf5315d4"],
        cwd=sweep,
        env=environment(**slurm),
        capture_output=True,
        text=True,
    )
    (folder,) = (sweep / "runs/sagan").glob("*-04e2ed0f")
    assert (folder / "DONE").exists(), done.stdout[-2000:] + done.stderr[-2000:]
    ends_as(folder, "queued")
