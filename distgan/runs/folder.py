"""A run folder on disk, written by rank 0. Imports no torch.

config.yaml overrides.yaml identity.json   the settings, those of the command line, those hashed
recipe/                                    copies of the code of a recipe that is not distgan's
status.json                                state, cause, attempt, step, samples seen, best,
                                           heartbeat
events.jsonl journal.jsonl                 append-only: what happened; the numbers (keys `who/what`)
attempts/000/attempt.json                  one per start
checkpoints/ archive/ best.json samples/ real.png eval/ report.html
DONE                                       the only proof of success
"""

import datetime
import json
import os
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from distgan.config.identity import differences
from distgan.config.settings import Run
from distgan.core import console
from distgan.core.errors import DiskError, RunError
from distgan.core.files import append, disk_errors, lock, make_folder, opener, sync, write_atomic
from distgan.core.reading import read_lines
from distgan.monitor.journal import parse_row
from distgan.runs import records
from distgan.runs.recipe_code import COPIES, RecipeCode
from distgan.runs.resolve import folder_of, has_copy, require_code

GO_ON = "Going on without it, because of machine.on_full_disk=warn"
REALS = "real.png"  # training images, beside which samples are judged by eye
STOP, SAVE = "STOP", "SAVE"  # files in a run folder with which a person asks a run to save
# What a start that was killed before it wrote identity.json leaves, beside empty folders; and what
# a submitted job has before it trains: a link to its code, records and logs of its attempts.
_BEFORE_IDENTITY = (".lock", "overrides.yaml", "code", STOP, SAVE, "NO_RESTART")


def timestamp(moment: datetime.datetime | None = None) -> str:
    """Return a time, or now, in UTC as ISO 8601, to the second."""
    return (moment or datetime.datetime.now(datetime.UTC)).isoformat(timespec="seconds")


def next_attempt(path: Path) -> int:
    """Return one more than the last attempt's number; earlier ones may have been removed."""
    numbers = [int(p.name) for p in (path / "attempts").glob("*") if p.name.isdecimal()]
    return max(numbers, default=-1) + 1


class RunFolder:
    """The folder of a run that trains, locked. Opened by rank 0 only."""

    # With machine.on_full_disk=stop: lines wait, which asks the run to save and leave.
    must_stop = False

    def __init__(
        self,
        run: Run,
        fingerprint: str,
        overrides: dict[str, Any],
        start: str | None = None,
        code: RecipeCode | None = None,
    ):
        """Make the folder, or enter the one that this run already has.

        `code`: that of a recipe which is not distgan's. Raise RunError, before anything is written,
        if the folder belongs to another run, or this one was begun with other code.
        """
        self.identity = identity = run.identity(fingerprint, start)
        self.path = folder_of(run, identity)
        try:
            self._require_own(identity)
            require_code(run, code, self.path)
            for name in ("attempts", "checkpoints", "samples", "eval"):
                make_folder(self.path / name)
            if os.path.lexists(archive := self.path / "archive"):
                make_folder(archive)  # one that is there: OSError for a link or a file
            self._lock = open(self.path / ".lock", "a", opener=opener)
        except OSError as error:
            raise RunError(f"cannot write the run folder {self.path}: {error.strerror}") from error
        self._take_lock()
        # Between the first check and the lock another run may have come and gone.
        self._require_own(identity)
        self._run, self._code = run, code
        self._change = require_code(run, code, self.path)
        if not (self.path / "identity.json").exists():
            write_atomic(self.path / "overrides.yaml", yaml.safe_dump(overrides, sort_keys=False))
            self._record_identity()
        elif code and not self._change and not has_copy(self.path):
            self._record_identity()  # the copy of the code was lost
        # A job has made the folder of this attempt, for its logs.
        number = os.environ.get("DISTGAN_ATTEMPT", "")
        made = number.isdecimal() and (self.path / "attempts" / number).is_dir()
        self.attempt = int(number) if made else next_attempt(self.path)
        # Lines that could not be written to a full disk.
        self._waiting: dict[str, list[dict[str, Any]]] = {"journal.jsonl": [], "events.jsonl": []}
        self._failing: set[str] = set()  # what could not be written when it was last tried
        self._status: dict[str, Any] = {
            "attempt": self.attempt,
            "pid": os.getpid(),
            "host": socket.gethostname(),
        }

    def _record_identity(self) -> None:
        """Write identity.json, with the digest and a copy of the code of one's own recipe."""
        record: dict[str, Any] = dict(self.identity)
        if self._code:
            copy = self._code.copy_to(self.path / COPIES)
            record["code"] = {"digest": self._code.digest, "copy": copy.name}
        write_atomic(self.path / "identity.json", json.dumps(record, indent=1))

    def accept_code(self, step: int, epoch: float) -> None:
        """Record that the run continues with the code that `code=accept` has accepted, if any."""
        if self._change:
            self.event("code", step=step, epoch=epoch, **self._change)
            self._record_identity()
            self._change = None

    def _take_lock(self) -> None:
        busy = RunError(
            f"another process is training in {self.path} (see its status.json); two would"
            " overwrite each other"
        )
        try:
            # A forked decoding process would hold the lock for the seconds in which it notices
            # that this one was killed.
            no_locks = lock(self._lock, busy, forks=False)
        except RunError:
            self._lock.close()
            raise
        if no_locks:
            console.say(
                f"warning: {self.path} cannot be locked ({no_locks}); make sure that no other"
                " process trains there"
            )

    def _require_own(self, identity: dict[str, Any]) -> None:
        """Raise RunError unless the folder is new, empty, or this run's."""
        if not self.path.exists() or self._is_unborn():
            return
        try:
            recorded = records.read(self.path / "identity.json")
            lines = differences(recorded, identity, "folder")
        except (FileNotFoundError, NotADirectoryError):
            raise RunError(
                f"{self.path} is not empty and no run folder (it has no identity.json); choose"
                " another machine.folder"
            ) from None
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise RunError(
                f"{self.path / 'identity.json'} is damaged: {error}. Restore it, or choose another"
                " machine.folder"
            ) from error
        if lines:
            raise RunError(
                f"the run folder {self.path} belongs to another run; nothing was changed:\n"
                + "\n".join(f"  {line}" for line in lines)
                + "\nLeave out machine.folder to give this run a folder of its own, or use the"
                " settings in the folder"
            )

    def _is_unborn(self) -> bool:
        """Return True if no run has written its identity here, so that one may begin."""
        return self.path.is_dir() and all(
            (path.is_dir() and not path.is_symlink())
            or path.name in _BEFORE_IDENTITY
            or path.name.startswith(("overrides.yaml.tmp-", "identity.json.tmp-"))
            or path.parent.parent.name == "attempts"
            or path.parent == self.path / COPIES
            for path in self.path.rglob("*")
        )

    def close(self) -> None:
        """Release the lock, as the end of this process does."""
        self._lock.close()

    # ---- attempts, events, status
    def begin(self, facts: dict[str, Any]) -> None:
        """Record a start of this run: launcher, versions, processes."""
        folder = self.path / "attempts" / f"{self.attempt:03d}"
        with disk_errors(folder):
            folder.mkdir(exist_ok="DISTGAN_ATTEMPT" in os.environ)
        settings = yaml.safe_dump(self._run.model_dump(mode="json"), sort_keys=False)
        write_atomic(self.path / "config.yaml", settings)
        self._began = datetime.datetime.now(datetime.UTC), time.monotonic()
        self._facts = {
            "started": timestamp(self._began[0]),
            "ended": None,
            "cause": None,
            "host": socket.gethostname(),
            **facts,
        }
        write_atomic(folder / "attempt.json", json.dumps(self._facts, indent=1))

    def end(self, state: str, cause: str | None, **facts: Any) -> None:
        """Record how this attempt ended."""
        began, then = self._began
        ended = began + datetime.timedelta(seconds=time.monotonic() - then)
        self._facts |= {"ended": timestamp(ended), "cause": cause or state, **facts}
        path = self.path / "attempts" / f"{self.attempt:03d}" / "attempt.json"
        text = json.dumps(self._facts, indent=1)
        self.write_optional("the record of this attempt", lambda: write_atomic(path, text))
        self.status(state=state, cause=cause)

    def event(self, name: str, **details: Any) -> None:
        self._append("events.jsonl", [{"time": timestamp(), "event": name, **details}])

    def write_optional(self, what: str, write: Callable[[], Any]) -> bool:
        """Write an optional file; warn once for as long as that fails.

        Return True if it could be written.
        """
        try:
            write()
        except (DiskError, OSError) as error:
            if what not in self._failing:
                console.say(f"warning: {error}. The run goes on without {what}")
            self._failing.add(what)
            return False
        self._failing.discard(what)
        return True

    def write_or_warn(self, write: Callable[[], Any]) -> bool:
        """Call `write`, and return True if the file could be written.

        If not: DiskError, or a warning with machine.on_full_disk=warn.
        """
        try:
            write()
        except DiskError as error:
            if self._run.machine.on_full_disk == "stop":
                raise
            console.say(f"warning: {error}. {GO_ON}")
            return False
        return True

    def status(self, **changes: Any) -> None:
        self._status |= changes | {"heartbeat": timestamp()}
        text = json.dumps(self._status, indent=1)
        path = self.path / "status.json"
        self.write_optional("its status", lambda: write_atomic(path, text))

    def last_heartbeat(self) -> float | None:
        """Return the time of the last heartbeat in status.json, in seconds since 1970; None if
        there is none.
        """
        try:
            text = records.read(self.path / "status.json")["heartbeat"]
            return datetime.datetime.fromisoformat(text).timestamp()
        except (OSError, ValueError, KeyError, TypeError, OverflowError):
            return None

    def has_request(self, name: str) -> bool:
        """Return True if a person has asked for STOP or SAVE, with a file that can be removed."""
        return os.path.exists(self.path / name) and name not in self._failing

    def clear_request(self, name: str) -> None:
        self.write_optional(name, lambda: (self.path / name).unlink(missing_ok=True))

    # ---- the journal
    def journal(self, rows: list[dict[str, Any]]) -> None:
        self._append("journal.jsonl", rows)

    def sync(self) -> None:
        """Write the journal to the disk; DiskError if it cannot be.

        Call it before a checkpoint is written, or a power cut would leave steps that are in no
        journal.
        """
        path = self.path / "journal.jsonl"
        self._write_waiting("journal.jsonl")
        if path.exists():
            with disk_errors(path):
                sync(path)

    def rewind(self, step: int, rows: int | None = None) -> int:
        """Remove journal rows after `step`, those of `step` after the first `rows` (None: keep
        all), and rows torn by a crash. Return how many steps are lost.
        """
        path = self.path / "journal.jsonl"
        try:
            lines = read_lines(path)
        except FileNotFoundError:
            return 0
        except OSError as error:
            raise RunError(f"cannot read {path}: {error.strerror}") from error
        kept, damaged, last, here = [], [], step, 0
        for number, line in enumerate(lines, 1):
            try:
                row_step = parse_row(line)["step"]
                last, here = max(last, row_step), here + (row_step == step)
                if row_step < step or row_step == step and (rows is None or here <= rows):
                    kept.append(line + b"\n")
            except ValueError:
                if any(lines[number:]) and line.strip():  # the last line may be torn
                    damaged.append(str(number))
        if damaged:
            console.say(
                f"warning: {path}, line {', '.join(damaged[:5])}: damaged, and left out; the"
                " numbers of these steps are lost, the run is not"
            )
        write_atomic(path, b"".join(kept))
        return last - max(step, 0)

    def _append(self, name: str, rows: list[dict[str, Any]]) -> None:
        self._waiting[name] += rows
        try:
            self._write_waiting(name)
        except DiskError as error:
            self.must_stop = self._run.machine.on_full_disk == "stop"
            if name not in self._failing:
                then = "saving, if that is possible, and stopping" if self.must_stop else GO_ON
                console.say(f"warning: {error}. The lines wait in memory; {then}")
            self._failing.add(name)
        else:
            self._failing.discard(name)

    def _write_waiting(self, name: str) -> None:
        """Write the waiting lines, all or none."""
        if rows := self._waiting[name]:
            append(self.path / name, "".join(json.dumps(row) + "\n" for row in rows))
            rows.clear()

    # ---- success
    def done(self, last: int) -> str | None:
        """Return how the run finished, at step `last` or early; None if it has not."""
        try:
            record = records.read(self.path / "DONE")
            step, early = int(record["step"]), bool(record["early"])
        except (OSError, ValueError, KeyError, TypeError):
            return None
        if early:
            return f"early, at step {step}"
        return f"at step {step}" if step >= last else None

    def reopen(self) -> None:
        """Remove DONE: a longer run was requested, and is not finished until its last step."""
        with disk_errors(self.path / "DONE"):
            (self.path / "DONE").unlink(missing_ok=True)

    def finish(self, step: int, epoch: float, early: bool) -> None:
        """Write all that waits, then DONE."""
        for name in self._waiting:
            self._write_waiting(name)
        record = {"step": step, "epoch": epoch, "early": early, "time": timestamp()}
        write_atomic(self.path / "DONE", json.dumps(record))


class NoRunFolder(RunFolder):
    """The run folder of ranks other than 0: methods that write do nothing."""

    def __init__(self) -> None:
        pass

    def has_request(self, name: str) -> bool:
        return False

    def _ignore(self, *args: Any, **kwargs: Any) -> Any:
        """Do nothing."""

    begin = end = event = status = journal = write_optional = write_or_warn = _ignore
    reopen = finish = close = clear_request = _ignore
