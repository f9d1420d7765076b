"""The executor of this machine: each submission is a detached scheduler, each job a process.

A job's key is `local:SUBMISSION_ELEMENT`. The ledger's line `submitted` names the scheduler by
number, start time and machine (`processes.py`); RUNS/_slurm/SUBMISSION holds

    submission.json    as for Slurm, and `places`: what one job each may use, as GPUs by name
    job-N.json         the process of element N, its place, and how it ended
    local:…_log.out    what a job printed before its run had a log
    scheduler.log, alive    touched by the scheduler every few seconds

On the machine of a submission its own user asks /proc; after a restart of the machine (another boot
id), elsewhere, and for other users the scheduler counts as running while `alive` is fresh. What had
neither ended nor runs is `lost`, and the same line submits it again.
"""

import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from signal import SIGTERM
from typing import Any

from distgan.core.errors import ConfigError, LaunchError
from distgan.core.files import disk_errors, make_folder, only_owner_writes, write_atomic
from distgan.core.reading import read_json
from distgan.launchers.executors import processes
from distgan.launchers.slurm import client, snapshot
from distgan.launchers.slurm.client import QueueEntry
from distgan.launchers.slurm.ledger import LastSubmission, Ledger, Submission
from distgan.launchers.slurm.profiles import Resources
from distgan.launchers.slurm.submission import RunSpec, prepare
from distgan.runs import records

SCHEDULER = "distgan.launchers.executors.scheduler"
MEMBER = "distgan.launchers.executors.member"
KEYS = ("processes", "cpus", "gpus", "crashes", "program")  # of a profile, that are not Slurm's
FRESH_S = 60.0  # the scheduler touches `alive` every few seconds
AGAIN = 75  # a job's exit code: not finished
PLACES = "LocalPlaces"  # why a job waits, in the style of squeue's reasons


@dataclass(frozen=True)
class LocalExecutor:
    """Train on this machine. `places`: names of what each job at a time may use, GPUs or `cpu0`."""

    places: tuple[tuple[str, ...], ...]
    is_local = True

    def describe(self, resources: Resources) -> str:
        count = len(self.places)
        gpus = [name for place in self.places for name in place if resources.gpus]
        return (
            f"on {socket.gethostname()}, {count} at a time, "
            + (f"GPUs {','.join(gpus)}" if gpus else "no GPU")
            + f", {resources.per_node} process{'es' * (resources.per_node > 1)} each"
        )

    def test(self, resources: Resources, count: int) -> str:
        return f"this machine  {min(count, len(self.places))} of {count} would start at once"

    def limits(self, resources: Resources) -> tuple[int, int | None]:
        return 100_000, None

    def submit(
        self,
        home: Path,
        elements: list[list[RunSpec]],
        resources: Resources,
        dependency: str | None = None,
        cwd: str | None = None,
        **details: Any,
    ) -> Submission:
        ledger, cwd = Ledger(home), cwd or os.getcwd()
        code, rows = prepare(home, elements)
        settings = resources.model_dump(mode="json")
        submission = ledger.begin(rows, resources=settings, executor="local", **details)
        folder = ledger.home / submission.id
        record = {
            "id": submission.id,
            "elements": [[asdict(spec) for spec in element] for element in elements],
            "resources": settings,
            "signals_all": False,  # the program of a job passes them on
            "cwd": cwd,
            "executor": "local",
            "places": self.places,
            "code": str(code),
            "after": (dependency or "").removeprefix("afterok:"),
        }
        try:
            with disk_errors(folder), only_owner_writes():
                make_folder(folder)
                write_atomic(folder / "submission.json", json.dumps(record))
            scheduler = _start(folder, code, cwd)
        except Exception as error:
            ledger.void(submission, str(error)[:300])
            raise
        job = f"local:{submission.id}"
        ledger.submitted(submission, job, True, process=scheduler.as_dict())
        return submission


def _start(folder: Path, code: Path, cwd: str) -> processes.ProcessId:
    """Start the scheduler of a submission in a session of its own; return its process."""
    try:
        result = subprocess.run(
            [sys.executable, "-m", SCHEDULER, str(folder)],
            capture_output=True,
            stdin=subprocess.DEVNULL,
            cwd=cwd,
            env=_environment(code),
            text=True,
            errors="replace",
            timeout=120,
        )
        started = processes.parse(json.loads(result.stdout or "null"))
    except (OSError, ValueError, subprocess.TimeoutExpired) as error:
        raise LaunchError(f"the scheduler of this machine's jobs did not start: {error}") from error
    if started is None:
        raise LaunchError(
            f"the scheduler of this machine's jobs did not start: {result.stderr.strip()[-600:]}"
        )
    return started


def _environment(code: Path) -> dict[str, str]:
    """Return the environment of a job that imports the copy `code`, and nothing of its folder."""
    environment = client.clean_environment(dict(os.environ))
    paths = [str(code.resolve()), *filter(None, [environment.get("PYTHONPATH")])]
    return environment | {
        "PYTHONSAFEPATH": "1",
        "PYTHONDONTWRITEBYTECODE": "1",  # the copy stays what it is
        "PYTHONPATH": os.pathsep.join(paths),
    }


def choose(
    gpus: str | None, parallel: int | None, resources: Resources
) -> tuple[LocalExecutor, Resources]:
    """Return the executor with a place for each group of GPUs, or `parallel` places without any.

    Without either: all GPUs of the machine, each run on as many as `resources` says or one.
    """
    if gpus is not None and parallel is not None:
        raise ConfigError("give --gpus or --parallel: with GPUs, one run trains on each of them")
    names = [] if parallel is not None else _devices(gpus)
    each = max(1, resources.gpus)
    if (
        0 < len(names) < each
        or gpus is not None
        and (
            not names
            or len(set(names)) < len(names)
            or not all(re.fullmatch(r"[A-Za-z0-9][\w/-]{0,80}", name) for name in names)
        )
    ):
        raise ConfigError(
            f"--gpus {','.join(names) if gpus is None else gpus}: with --here, at least {each}"
            " different GPUs are needed for each run, as in 0,1,2,3"
        )
    places = [tuple(names[i : i + each]) for i in range(0, len(names) - each + 1, each)]
    if not places:
        places, each = [(f"cpu{i}",) for i in range(parallel or 1)], 0
    share = max(1, (os.cpu_count() or 1) // len(places) // (resources.processes or max(1, each)))
    changes: dict[str, Any] = {"nodes": 1, "pack": 1, "gpus": each, "max_parallel": None}
    if "cpus" not in resources.model_fields_set:
        changes["cpus"] = share
    return LocalExecutor(tuple(places)), resources.model_copy(update=changes)


def _devices(gpus: str | None) -> list[str]:
    if gpus is None and "CUDA_VISIBLE_DEVICES" in os.environ:
        gpus = os.environ["CUDA_VISIBLE_DEVICES"]
    if gpus is not None:
        return [name.strip() for name in gpus.split(",") if name.strip() not in ("", "-1")]
    paths = Path("/dev").glob("nvidia[0-9]*")
    return sorted((path.name.removeprefix("nvidia") for path in paths), key=int)


def read_slots(home: Path, submission: Submission) -> tuple[tuple[str, ...], ...]:
    """Return the places of an earlier submission."""
    recorded = records.read_if_good(home / "_slurm" / submission.id / "submission.json")
    places = recorded.get("places")
    good = isinstance(places, list) and all(
        isinstance(place, list) and place and all(isinstance(name, str) for name in place)
        for place in places
    )
    return tuple(map(tuple, places)) if good and places else (("cpu0",),)


# ---- the queue
def job_record(folder: Path, element: int) -> dict[str, Any]:
    """Return what element N of a submission has recorded of its process; {} before it started."""
    try:
        record = read_json(folder / f"job-{element}.json")
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


def is_running(folder: Path, element: int, record: dict[str, Any], runs: Sequence[str]) -> bool:
    """Return whether a job's process, or a training of `runs` that it left behind, runs on this
    machine.
    """
    process = processes.parse(record.get("process"))
    if processes.is_alive(process, MEMBER, str(folder), str(element)):
        return True
    return "ended" not in record and bool(processes.session(process, *runs))


def scheduler_is_alive(folder: Path, submission: Submission) -> bool:
    """Return whether the scheduler of a submission runs."""
    process = processes.parse(submission.process)
    if _is_ours(folder) and process and process.machine == processes.machine():
        return processes.is_alive(process, SCHEDULER, str(folder))
    try:
        return time.time() - os.lstat(folder / "alive").st_mtime < FRESH_S
    except OSError:
        return False


def _is_ours(folder: Path) -> bool:
    """Return whether only this user can have written a submission's folder."""
    try:
        about = os.lstat(folder)
    except OSError:
        return False
    return about.st_uid == os.getuid() and not about.st_mode & 0o022


def queue(
    ledger: Path, submissions: Sequence[Submission], cancelled: set[tuple[str, str]]
) -> dict[str, QueueEntry]:
    """Return the jobs of local submissions as lines of a queue, by key."""
    rows = {}
    for submission in submissions:
        if submission.void or not submission.is_local or submission.job is None:
            continue
        folder = ledger / submission.id
        alive = scheduler_is_alive(folder, submission)
        for element, runs in enumerate(submission.members):
            key = submission.key(element) or ""
            state, reason = _state(folder, element, runs, alive)
            gave_up = all((submission.id, run) in cancelled for run in runs)
            if gave_up and not (state == "RUNNING" and _is_ours(folder)):
                continue
            host = job_record(folder, element).get("host") if state == "RUNNING" else None
            rows[key] = QueueEntry(
                key, state, reason, submission.name, str(host or ""), "", "N/A", submission.user
            )
    return rows


def _state(folder: Path, element: int, runs: Sequence[str], alive: bool) -> tuple[str, str]:
    record = job_record(folder, element)
    process, code = processes.parse(record.get("process")), record.get("code")
    here = _is_ours(folder) and (process is None or process.machine == processes.machine())
    running = is_running(folder, element, record, runs) if here else alive
    if record and "ended" not in record and running:
        return "RUNNING", "None"
    if record.get("ended") and code in (0, 1):
        return ("COMPLETED", "FAILED")[code], "None"
    if alive and (not record or record.get("again") or "ended" not in record):
        return "PENDING", PLACES
    if not here:
        return "SILENT", "no sign of its scheduler, which ran elsewhere or as another user"
    return "LOST", "its process has ended, and no scheduler of this machine would start it again"


# ---- ending jobs
def cancel(ledger: Path, runs: Sequence[LastSubmission]) -> dict[str, str]:
    """Ask the processes of these jobs to save and leave.

    The scheduler starts none of them again, since the ledger says that they are cancelled, and
    kills what has not left in a minute. Return why jobs were not signalled, by key: those of other
    users and machines.
    """
    refused: dict[str, str] = {}
    for run in runs:
        folder = ledger / run.submission.id
        record = job_record(folder, run.element)
        process = processes.parse(record.get("process"))
        if process is None or "ended" in record:
            continue
        if not _is_ours(folder) or process.machine != processes.machine():
            host = str(record.get("host"))[:80]
            refused[run.key or ""] = f"it runs on {host!r}; cancel it there, as the same user"
            continue
        words = (MEMBER, str(folder), str(run.element))
        if not processes.send(process, SIGTERM, *words):
            for left in processes.session(process, *run.submission.members[run.element]):
                processes.send(left, SIGTERM)
    return refused


def fault(code: Path, folder: Path) -> str | None:
    """Return why a job may not be started from this copy of the code and this submission."""
    return snapshot.fault(str(code), str(folder))
