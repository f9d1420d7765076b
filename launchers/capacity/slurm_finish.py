"""Evaluate the best checkpoint of each width, measure all, report: the job after a study's array.

python -m distgan.launchers.capacity.slurm_finish N key=value … machine.folder=FOLDER
"""

import json
import subprocess
import sys
from pathlib import Path

from distgan.core.files import write_atomic
from distgan.launchers.capacity import command as capacity
from distgan.runs.folder import timestamp


def main(argv: list[str]) -> int:
    """Return 0 if every trained width was evaluated and the report is written, else 1."""
    number, *words, last = argv
    folder = Path(json.loads(last.partition("=")[2]))
    study, failed = capacity.plan_study(words), False
    for width, run in study.folders.items():
        if (run / "journal.jsonl").exists():
            print(f"width {width}: evaluating {run}", flush=True)
            line = [sys.executable, "-m", "distgan", "evaluate", str(run), f"n={number}"]
            failed |= subprocess.run(line).returncode != 0
    capacity.report(study)
    if not failed:
        write_atomic(
            folder / "DONE", json.dumps({"step": 0, "epoch": 0, "early": None, "time": timestamp()})
        )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
