"""Capacity studies that train."""

import csv
import io
import json
import os
import signal
import subprocess
import time

import yaml
from processes import BIN, environment, run

from distgan.launchers.capacity import command as capacity

TINY = ["batch=8", "latent=4", "evaluate.samples=8", "epochs=0.2", "machine.workers=0"]


def test_the_whole_way(particles, tmp_path):
    """Two widths, one of which cannot be trained; then it can, and the other is left as it is."""
    line = [str(BIN / "distgan"), "capacity"]
    words = [f"data={particles}", "widths=2,3", *TINY]
    folders = capacity.plan_study([*words, f"machine.runs={tmp_path / 'runs'}"]).folders
    folders[2].mkdir(parents=True)
    (folders[2] / "notes.txt").write_text("mine")
    said = run(line, *words, cwd=tmp_path, code=1)
    assert (
        "is not empty and no run folder" in said
        and "width 2 failed (exit code 2)" in said
        and (folders[3] / "DONE").exists()
    )
    (folders[2] / "notes.txt").unlink()
    said = run(line, *words, cwd=tmp_path)
    assert (
        "is finished" in said
        and "nothing to do" in said
        and len(list((folders[3] / "attempts").iterdir())) == 1
    )
    found = list(
        csv.DictReader(io.StringIO((tmp_path / "runs" / "capacity" / "capacity.csv").read_text()))
    )
    assert [row["width"] for row in found] == ["2", "3"] and all(
        row["state"] == "done" for row in found
    )
    for row in found:
        attempt = json.loads(
            (folders[int(row["width"])] / "attempts" / "000" / "attempt.json").read_text()
        )
        assert {"G": int(row["parameters_g"]), "D": int(row["parameters_d"])} == attempt[
            "parameters"
        ]
        assert (
            float(row["peak_memory_mb"]) > 50
            and float(row["epoch_s"]) > 0
            and float(row["checkpoint_mb"]) > 0.01
            and float(row["score"]) > 0
        )
    assert yaml.safe_load((folders[3] / "config.yaml").read_text())["ndf"] == 3


def test_a_training_study_stops_and_goes_on(particles, tmp_path):
    words = [f"data={particles}", "widths=2", *TINY, "epochs=400"]
    study = subprocess.Popen(
        [str(BIN / "distgan"), "capacity", *words],
        cwd=tmp_path,
        env=environment(),
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    deadline = time.monotonic() + 200
    while not list(tmp_path.glob("runs/capacity/*/journal.jsonl")) and time.monotonic() < deadline:
        time.sleep(0.1)
    os.kill(study.pid, signal.SIGINT)
    try:
        out, _ = study.communicate(timeout=100)
    finally:
        study.kill()
    assert study.returncode == 75, out
    (status,) = tmp_path.glob("runs/capacity/*/status.json")
    assert json.loads(status.read_text())["state"] == "stopped" and "saved and stopped" in out
