"""Determine the state of a run from its own files, the ledger, and one answer of squeue, trusted in
this order. Imports no torch.

    new, queued, held, running, stopping, requeued, done, failed, cancelled, stopped,
    uncertain      whether Slurm has it is not known yet; asked again later
    lost           it was ended without being queued again, by Slurm or here
    unknown        nothing shows how it ended: submitted again only when a person asks for it

A finished run has the file DONE: Slurm forgets jobs, and calls jobs completed whose training
failed.
"""

import contextlib
import os
import stat
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from distgan.launchers.slurm import client
from distgan.launchers.slurm.ledger import LastSubmission
from distgan.launchers.slurm.restart_policy import TIME
from distgan.runs import records

OLD_S = 300.0  # without a heartbeat for so long, a run that Slurm does not know is not running
FAILURES = {
    "NODE_FAIL": "its node failed",
    "TIMEOUT": "the time limit came before the job could requeue itself",
    "OUT_OF_MEMORY": "out of memory, according to Slurm",
}
UNDER_WAY = ("queued", "requeued", "held", "uncertain", "running", "stopping")


@dataclass(frozen=True)
class RunFiles:
    """The state that a run folder records."""

    done: bool = False
    shorter: bool = False  # DONE is that of a shorter run
    refused: str | None = None  # NO_RESTART: why it is not begun again
    status: dict[str, Any] = field(default_factory=dict)
    job: dict[str, Any] = field(default_factory=dict)  # the newest job.json
    attempts: int = 0
    faults: tuple[str, ...] = ()  # files that cannot be read, and why

    @property
    def silent_s(self) -> float:
        """Seconds since the last heartbeat of the training."""
        try:
            return time.time() - datetime.fromisoformat(self.status["heartbeat"]).timestamp()
        except (KeyError, ValueError, TypeError, OverflowError):
            return float("inf")


@dataclass(frozen=True)
class RunState:
    name: str
    why: str = ""

    @property
    def missing(self) -> bool:
        """True if nothing of the run is done or under way, so that a sweep submits it.

        Runs that a person stopped or cancelled are only offered.
        """
        return self.name in ("new", "lost") or self.name == "stopped" and self.why in TIME


def read_run_files(folder: Path, steps: int | None = None) -> RunFiles:
    """Read a run folder; DONE of a run shorter than `steps` does not count."""
    try:
        names = set(os.listdir(folder))
    except OSError:
        return RunFiles()
    faults: list[str] = []

    def read(name: str) -> dict[str, Any]:
        try:
            return records.read(folder / name)
        except FileNotFoundError:
            return {}
        except OSError as error:
            faults.append(f"{name} cannot be read: {error.strerror}")
        except ValueError as error:
            faults.append(f"{name} is damaged: {error}")
        return {}

    attempts: list[str] = []
    with contextlib.suppress(OSError):
        attempts = sorted(name for name in os.listdir(folder / "attempts") if name.isdecimal())
    job: dict[str, Any] = {}
    for name in reversed(attempts):
        if job := read(f"attempts/{name}/job.json"):
            break
    done = "DONE" in names and stat.S_ISREG(os.lstat(folder / "DONE").st_mode)
    end = read("DONE") if done and steps is not None or not done and "DONE" in names else {}
    shorter = (
        bool(end)
        and not end.get("early")
        and isinstance(end.get("step"), int)
        and end["step"] < (steps or 0)
    )
    return RunFiles(
        done and not shorter,
        shorter,
        records.refusal(folder) if "NO_RESTART" in names else None,
        read("status.json") if "status.json" in names else {},
        job,
        len(attempts),
        tuple(faults),
    )


def run_state(
    files: RunFiles,
    submitted: LastSubmission | None,
    row: client.QueueEntry | None,
    spell: client.JobSpan | None = None,
) -> RunState:
    """Determine the state of a run.

    `row`: its line of squeue, None without one. `spell`: its last stay on nodes by sacct, if asked.
    """
    if row and row.state == "NOT_ASKED":
        return _not_asked(files, submitted, row.reason)
    if files.done:
        return RunState("done")
    if row and row.active:
        return _active(files, row)
    if files.refused:  # removed at each submission: it is of the last one
        return RunState("failed", files.refused)
    if submitted and submitted.cancelled or row and row.state == "CANCELLED":
        return RunState("cancelled")
    if submitted and submitted.submission.job is None:
        return RunState(
            "uncertain",
            "its submission was interrupted a moment ago; whether Slurm has it is known in a few"
            " minutes, by the same line",
        )
    if submitted and submitted.submission.user != client.user() and not row:
        return RunState(
            "uncertain",
            f"submitted by {submitted.submission.user}, and Slurm shows no such job now; `distgan"
            " cancel` gives it up",
        )
    recorded = files.status.get("state")
    if row and row.state == "SILENT" and recorded == "running" and files.silent_s < OLD_S:
        return RunState("running", row.reason)
    if row and row.state in ("LOST", "SILENT"):
        return RunState("lost", row.reason)
    ended = row.state if row else spell.state if spell else None
    if ended and ended not in client.ENDED:  # sacct knows a job that squeue did not show
        return RunState("queued" if ended in ("PENDING", "REQUEUED") else "running")
    if (
        recorded in ("failed", "stopped")
        and not files.shorter
        and ended in (None, "COMPLETED", "FAILED", "PREEMPTED")
    ):
        return RunState(recorded, files.status.get("cause") or "")
    if ended == "CANCELLED":
        return RunState("cancelled")
    if ended == "PREEMPTED":
        return RunState("lost", "preempted, and not queued again by Slurm")
    if ended and ended != "COMPLETED":
        return RunState("failed", FAILURES.get(ended, f"Slurm: {ended}{_code(spell)}"))
    if recorded == "running" and files.silent_s < OLD_S and not ended:
        return RunState("running", "not in Slurm's queue" if not submitted else "")
    if files.shorter:
        return RunState("new", "finished a shorter run; epochs was raised")
    return _silent(submitted is not None, recorded == "running")


def _not_asked(files: RunFiles, submitted: LastSubmission | None, why: str) -> RunState:
    """Return the state of a run whose job may still wait in a queue that nobody here can see: what
    a sweep would submit is unknown, unless this job has finished a shorter run.
    """
    state = run_state(files, submitted, None)
    ended = submitted and files.job.get("submission") == submitted.submission.id
    if not state.missing or files.shorter and ended:
        return state
    return RunState("unknown", f"by its files it is {state.name}; {why}")


def _silent(submitted: bool, was_running: bool) -> RunState:
    """Return the state of a run that neither Slurm nor its own files tell the end of."""
    if submitted:
        return RunState("unknown", "neither Slurm nor its files record how it ended")
    if was_running:
        return RunState("lost", "its process ended and recorded no reason")
    return RunState("new")


def _code(spell: client.JobSpan | None) -> str:
    return f" (exit code {spell.exit_code})" if spell else ""


def _active(files: RunFiles, row: client.QueueEntry) -> RunState:
    if row.reason == "DependencyNeverSatisfied":
        return RunState("failed", "the run that it grows from has failed")
    if row.held:
        return RunState("held", f"{row.reason}; it begins after: scontrol release {row.key}")
    if row.state == "COMPLETING":
        return RunState("stopping")
    if row.state in ("PENDING", "REQUEUED", "REQUEUE_HOLD"):
        again = files.job.get("job") == row.key
        why = row.reason if row.reason not in ("None", "") else ""
        return (
            RunState("requeued", f"{_short(files.job)}{', ' + why if why else ''}")
            if again
            else RunState("queued", why)
        )
    return RunState(
        (
            "running"
            if row.state == "RUNNING"
            else "stopping"
            if row.state in ("SIGNALING", "STAGE_OUT")
            else "queued"
        ),
        "",
    )


def _short(job: Mapping[str, Any]) -> str:
    kind = job.get("kind")
    return {
        "preempted": "preempted, or requeued by hand",
        "time": "time limit",
        "crash": "crashed",
        "hang": "hung",
    }.get(kind or "", "") or "node failed, or requeued by hand"
