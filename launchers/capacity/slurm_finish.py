"""The job after a capacity study's array.

Evaluate the best checkpoint of each width, then measure and report: capacity_end.py N key=value …
machine.folder=FOLDER
"""

import json
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).absolute().parent
if Path(sys.path[0] or ".").resolve() == HERE.resolve():  # run as a file
    sys.path[0] = str(HERE.parents[2])

from distgan.launchers.capacity import command as capacity  # noqa: E402
from distgan.runs import folder as runs  # noqa: E402


def main(argv: list[str]) -> int:
    """0 where every width that has trained was evaluated and the report is written, else 1."""
    number, *words, folder = argv
    folder = Path(json.loads(folder.partition("=")[2]))
    study, failed = capacity.plan(words), 0
    for width, run in study.folders.items():
        if (run / "journal.jsonl").exists():
            print(f"width {width}: evaluating {run}", flush=True)
            failed += (
                subprocess.run(
                    [sys.executable, "-m", "distgan", "evaluate", str(run), f"n={number}"]
                ).returncode
                != 0
            )
    capacity.report(study)
    if not failed:
        runs.write(
            folder / "DONE", json.dumps({"step": 0, "epoch": 0, "early": None, "time": runs.now()})
        )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
