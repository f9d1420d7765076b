"""Record every submission in RUNS/_slurm/ledger.jsonl before sbatch is called; append-only.

With one call of squeue, every state can be rebuilt from it. Its lines:

    {"id", "state": "submitting", "name", "members": [[run folder, …] of each element, …], …}
    {"id", "state": "submitted", "job", "array"}     after sbatch
    {"id", "state": "void", "why"}                   Slurm does not have it
    {"id", "state": "cancelled", "runs": […]}        by `distgan cancel` or scancel

A process that is killed between sbatch and the second line leaves a submission that Slurm may or
may not have. Its job carries the submission's name, so `resolve_pending` finds it in the queue; if
it is not there, it counts as never submitted after UNCERTAIN_S.
"""

import contextlib
import json
import os
import re
import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from distgan.core.errors import LaunchError
from distgan.core.files import append, disk_errors, lock, make_folder, opener
from distgan.core.reading import parse_json, read_lines
from distgan.launchers.slurm import client
from distgan.runs import records

_ID = re.compile(r"(?!files$)[a-z0-9]{1,32}")
_NAME = re.compile(r"[A-Za-z0-9_][\w.@-]*")
# an sbatch that was under way when its parent died has ended by then: it repeats itself for minutes
UNCERTAIN_S = 180.0


@dataclass
class Submission:
    """One call of sbatch. `members`: the run folders of each element of the array or job."""

    id: str
    name: str
    time: float
    members: list[list[str]]
    details: dict[str, Any] = field(default_factory=dict)
    job: str | None = None
    array: bool = False
    void: str | None = None  # why Slurm does not have it
    process: Any = None  # of a job of this machine: its scheduler, as it was recorded

    @property
    def is_local(self) -> bool:
        """True if it was submitted to a machine without Slurm (`launchers/executors/local.py`)."""
        return self.details.get("executor") == "local"

    @property
    def user(self) -> str:
        """The user who submitted it."""
        name = self.details.get("user")
        return name if isinstance(name, str) and _NAME.fullmatch(name) else client.user()

    def key(self, element: int) -> str | None:
        """Return Slurm's name of an element, `12_3`, or `12` without an array; None if unknown."""
        return None if self.job is None else f"{self.job}_{element}" if self.array else self.job


@dataclass(frozen=True)
class LastSubmission:
    """The last submission of a run, and which of its elements the run is."""

    submission: Submission
    element: int
    cancelled: bool = False
    earlier: tuple[str, ...] = ()  # ids of the submissions before it, newest first

    @property
    def key(self) -> str | None:
        return self.submission.key(self.element)


def anchor(home: Path, run: str) -> str:
    """Return the path of a recorded run in `home`, the folder of runs: HOME/EXPERIMENT/RUN.

    A run is EXPERIMENT/RUN, wherever the folder of runs was when it was recorded.
    """
    path = Path(run)
    if not path.is_absolute() or len(path.parts) < 4 or path.parents[1] == home:
        return run
    here = home / path.parent.name / path.name
    return str(here) if here.is_dir() else run


class Ledger:
    """The ledger of a folder of runs, `home`."""

    def __init__(self, home: Path):
        self.home = home / "_slurm"
        self.path = self.home / "ledger.jsonl"

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the ledger's lock: two processes at once would submit the same runs."""
        with disk_errors(self.home):
            make_folder(self.home)
            file = open(self.home / ".lock", "a", opener=opener)
        with file:
            lock(
                file,
                LaunchError(
                    f"another distgan is submitting into {self.home.parent}; try again when it has"
                    " ended"
                ),
            )
            yield

    def append(self, entry: dict[str, Any]) -> None:
        """Add a line; on return it is on the disk."""
        with disk_errors(self.home):
            make_folder(self.home)
        line = json.dumps({"time": round(time.time(), 3), **entry})
        append(self.path, line + "\n", durable=True)

    def begin(self, members: list[list[str]], **details: Any) -> Submission:
        """Write the line that precedes sbatch."""
        number = uuid.uuid4().hex[:8]
        members, details = (
            [[os.path.realpath(run) for run in run_folders] for run_folders in members],
            {
                "user": client.user(),
                **details,
            },
        )
        label = details.get("sweep") or Path(members[0][0]).name
        name = f"{re.sub('[^A-Za-z0-9_.,=-]', '_', str(label))[:40]}-{number}"
        submission = Submission(number, name, time.time(), members, details)
        self.append(
            {
                "id": number,
                "state": "submitting",
                "name": submission.name,
                "members": members,
                **details,
            }
        )
        return submission

    def submitted(self, submission: Submission, job: str, array: bool, **more: Any) -> None:
        submission.job, submission.array = job, array
        self.append({"id": submission.id, "state": "submitted", "job": job, "array": array, **more})

    def void(self, submission: Submission, why: str) -> None:
        submission.void = why
        self.append({"id": submission.id, "state": "void", "why": why})

    def read(self) -> tuple[list[Submission], set[tuple[str, str]]]:
        """Return (all submissions in order, the cancelled (submission, run) pairs).

        Torn and damaged lines are skipped.
        """
        submissions: dict[str, Submission] = {}
        cancelled: set[tuple[str, str]] = set()
        home = self.home.parent.resolve()
        try:
            lines = read_lines(self.path)
        except FileNotFoundError:
            lines = []
        except OSError as error:
            raise LaunchError(f"cannot read {self.path}: {error.strerror}") from error
        for line in lines:
            with contextlib.suppress(ValueError, KeyError):
                entry = records.checked(self.path.name, parse_json(line))
                if not _ID.fullmatch(entry["id"]):  # it names a folder
                    continue
                if entry["state"] == "submitting":
                    details = {
                        key: value
                        for key, value in entry.items()
                        if key not in ("id", "state", "name", "members", "time")
                    }
                    members = [[anchor(home, run) for run in runs] for runs in entry["members"]]
                    submissions[entry["id"]] = Submission(
                        entry["id"], entry["name"], entry["time"], members, details
                    )
                elif entry["state"] == "submitted":
                    submission = submissions[entry["id"]]
                    submission.job, submission.array = entry["job"], entry["array"]
                    submission.void = None
                    submission.process = entry.get("process")
                elif entry["state"] == "void":
                    submissions[entry["id"]].void = f"{entry.get('why') or 'no reason is recorded'}"
                elif entry["state"] == "cancelled":
                    cancelled |= {(entry["id"], anchor(home, run)) for run in entry["runs"]}
        return list(submissions.values()), cancelled

    def resolve_pending(
        self, rows: Mapping[str, client.QueueEntry], exclusive: bool = False, asked: bool = True
    ) -> list[Submission]:
        """Resolve interrupted submissions; return those that are still uncertain.

        `rows`: the queue, read a moment ago. `exclusive`: this process holds the lock, so nobody is
        submitting at this moment; only then is a submission given up. `asked`: Slurm is among
        `rows`; without its answer none of its jobs is given up. Jobs that scancel ended are
        recorded while Slurm remembers them.
        """
        names = {row.name: key for key, row in rows.items() if not row.refused}
        refused = {row.name: row.reason for row in rows.values() if row.refused}
        open_ones = []
        submissions, cancelled = self.read()
        self._note_cancelled(submissions, cancelled, rows)
        for submission in submissions:
            if (
                submission.job is None
                and submission.void is None
                and submission.user == client.user()
            ):
                key = names.get(submission.name)
                if key:
                    self.submitted(submission, key.partition("_")[0], "_" in key)
                elif submission.name in refused:
                    self.void(submission, f"sbatch refused the job: {refused[submission.name]}")
                elif not exclusive:
                    open_ones.append(submission)
                elif submission.is_local:  # its scheduler starts nothing before the ledger has it
                    self.void(submission, "interrupted before its scheduler was recorded")
                elif any(
                    (Path(run) / "attempts").is_dir() and _tried(Path(run), submission.id)
                    for members in submission.members
                    for run in members
                ):
                    self.void(
                        submission, "its jobs have ended, and their records are in the run folders"
                    )
                elif asked and time.time() - submission.time > UNCERTAIN_S:
                    self.void(submission, "interrupted before sbatch; no job has its name")
                else:
                    open_ones.append(submission)
        return open_ones

    def _note_cancelled(
        self,
        submissions: list[Submission],
        cancelled: set[tuple[str, str]],
        rows: Mapping[str, client.QueueEntry],
    ) -> None:
        gone = {key for key, row in rows.items() if row.state == "CANCELLED"}
        for submission in submissions if gone else []:
            runs_ = [
                run
                for element, members in enumerate(submission.members)
                if submission.key(element) in gone
                for run in members
                if (submission.id, run) not in cancelled
            ]
            if runs_ and submission.user == client.user():
                self.append(
                    {"state": "cancelled", "id": submission.id, "runs": runs_, "by": "scancel"}
                )

    def refusal(self, run: Path) -> str | None:
        """Return why Slurm refused the newest submission of a run that it refused; None if none."""
        submissions, _ = self.read()
        return next(
            (
                submission.void
                for submission in reversed(submissions)
                if submission.void and any(str(run) in members for members in submission.members)
            ),
            None,
        )

    def last_submissions(self) -> dict[str, LastSubmission]:
        """Return the last submission of each run, by run folder."""
        submissions, cancelled = self.read()
        last: dict[str, LastSubmission] = {}
        for submission in submissions:
            for element, members in enumerate(
                submission.members if submission.void is None else ()
            ):
                for run in members:
                    before = last.get(run)
                    last[run] = LastSubmission(
                        submission,
                        element,
                        (submission.id, run) in cancelled,
                        (before.submission.id, *before.earlier[:1]) if before else (),
                    )
        return last


def _tried(run: Path, submission: str) -> bool:
    return any(
        records.read_if_good(path).get("submission") == submission
        for path in (run / "attempts").glob("*/job.json")
    )
