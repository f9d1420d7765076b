"""Read and complete the records of a run's jobs: attempts/NNN/job.json, one for each stay on nodes,
and the logs beside it. Imports no torch.
"""

import contextlib
import json
import time
from pathlib import Path
from typing import Any

from distgan.core.files import write_atomic
from distgan.core.reading import parse_json, read_lines, read_tail
from distgan.monitor.journal import finite_number
from distgan.runs.records import read, read_if_good


def records(folder: Path) -> list[dict[str, Any]]:
    """Return the records of a run's jobs, oldest first."""
    rows = []
    for path in sorted((folder / "attempts").glob("*/job.json")):
        if record := read_if_good(path):
            rows.append({**record, "attempt": path.parent.name})
    return rows


def newest_step(folder: Path) -> int:
    """Return the step of the newest whole checkpoint; 0 without one."""
    return max(
        (int(path.name) for path in (folder / "checkpoints").glob("*") if path.name.isdecimal()),
        default=0,
    )


def trained(folder: Path, since: int, checkpoint: int) -> tuple[float, float]:
    """Return (seconds trained since step `since`, those of them up to `checkpoint`).

    Read from the journal, before it is cut back to the checkpoint.
    """
    total = kept = 0.0
    try:
        lines = read_lines(folder / "journal.jsonl")
    except OSError:
        return total, kept
    for line in lines:
        with contextlib.suppress(ValueError, KeyError, TypeError, OverflowError):
            row = parse_json(line)
            step, seconds = int(row["step"]), finite_number(row["seconds"])
            if seconds is not None and step > since:
                total = seconds
                if step <= checkpoint:
                    kept = seconds
    return total, kept


def complete(folder: Path, earlier: list[dict[str, Any]], step: int) -> None:
    """Complete the record of an attempt that was killed before it could write its end."""
    if earlier and "ended" not in earlier[-1]:
        last = earlier[-1]
        attempt = folder / "attempts" / last["attempt"]
        seconds, kept = trained(folder, last.get("step", 0), step)
        heard = max((path.stat().st_mtime for path in attempt.glob("*")), default=last["started"])
        last |= {
            "heard": heard,
            "trained_s": seconds,
            "kept_s": kept,
            "last_step": step,
            "completed": time.time(),
        }
        write_atomic(
            attempt / "job.json",
            json.dumps({key: value for key, value in last.items() if key != "attempt"}, indent=1),
        )


def state_of(folder: Path, attempt: Path) -> str | None:
    """Return the state that the training recorded; None if it never began."""
    try:
        record = read(attempt / "attempt.json")
        state = read(folder / "status.json")["state"] if record.get("ended") else "running"
    except (OSError, ValueError, KeyError):
        return None
    return state


def launch_log(folder: Path, submission: str, key: str) -> str | None:
    """Return what a job of a run printed itself, before the run had a log; None if it never began.

    Sets up, starts and ends the training: the output of the job's script and of srun.
    """
    home = folder.parents[1] / "_slurm" / submission
    texts = []
    for path in sorted(home.glob(f"{key}_*_log.*")):
        with contextlib.suppress(OSError):
            texts.append(read_tail(path, 20_000).decode(errors="replace"))
    return "\n".join(texts) if texts else None


def tail(attempt: Path, size: int = 20_000) -> str:
    """Return the last `size` bytes of each log of an attempt."""
    texts = []
    for path in [
        *sorted(attempt.glob("launcher*.log")),
        *sorted(attempt.glob("rank*.log")),
        *sorted(attempt.glob("stacks-*.txt")),
    ]:
        with contextlib.suppress(OSError):
            texts.append(f"{path.name}\n{read_tail(path, size).decode(errors='replace')}")
    return "\n".join(texts)
