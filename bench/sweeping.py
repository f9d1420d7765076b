"""A sweep of 1,000 runs on the development cluster: planning, validating and submitting it, and the
status of all of them, as commands a person types.

The jobs are held, so that nothing but the launcher is measured. Needs a running Slurm:
distgan dev-cluster up, export SLURM_CONF=…
"""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

from bench import peers, training

ASKED = {"submit": 30.0, "status": 2.0}  # seconds


def main(quick: bool = False, only: str = "") -> None:
    if (
        shutil.which("squeue") is None
        or subprocess.run(["scontrol", "ping"], capture_output=True).returncode
    ):
        print("skipped: no Slurm answers; distgan dev-cluster up starts one on this machine")
        return
    count = 20 if quick else 1000
    with peers.scratch() as folder:
        training.write_images(folder / "data", 64)
        calls = _counted(folder, "squeue")
        environment = {**os.environ, "PATH": f"{folder / 'bin'}:{os.environ['PATH']}"}
        verb = [sys.executable, "-m", "distgan"]
        line = [
            *verb,
            "sweep",
            "sagan",
            "data=data",
            f"seed=range({count})",
            "batch=16",
            "--name",
            "thousand",
            "--set",
            "sbatch={hold: true}",
        ]
        submit = _seconds(line, folder, environment)
        submitting = _number(calls)
        status = min(
            _seconds([*verb, "status", "thousand", "--json"], folder, environment) for _ in range(3)
        )
        asked = (_number(calls) - submitting) / 3
        again = _seconds(line, folder, environment)
        for entry in map(
            json.loads, (folder / "runs/_slurm/ledger.jsonl").read_text().splitlines()
        ):
            if entry["state"] == "submitted":
                subprocess.run(["scancel", entry["job"]], capture_output=True)
    print(
        f"\n{count} runs: planned, validated and submitted in {submit:.1f} s with {submitting}"
        f" calls of squeue; the same line again, of which nothing is missing, {again:.1f} s; status"
        f" {status:.2f} s with {asked:.0f} call of squeue"
    )
    if not quick:
        peers.asked("submitting 1,000 runs", submit, ASKED["submit"], "s")
        peers.asked("status of 1,000 runs", status, ASKED["status"], "s")


def _counted(folder: Path, program: str) -> Path:
    """A program of this name, first on the path, that counts its calls."""
    (folder / "bin").mkdir()
    log = folder / "calls"
    log.touch()
    path = folder / "bin" / program
    path.write_text(f'#!/bin/bash\necho >> "{log}"\nexec {shutil.which(program)} "$@"\n')
    path.chmod(0o755)
    return log


def _number(log: Path) -> int:
    return len(log.read_text().splitlines())


def _seconds(line: list[str], folder: Path, environment: dict[str, str]) -> float:
    began = time.perf_counter()
    found = subprocess.run(line, cwd=folder, env=environment, capture_output=True, text=True)
    seconds = time.perf_counter() - began
    if found.returncode not in (0, 3):
        raise RuntimeError(f"{' '.join(line)}: {found.stdout[-500:]}{found.stderr[-1500:]}")
    return seconds
