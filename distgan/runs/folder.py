"""A run folder: what was asked, what happened, and the numbers. Imports no torch.

config.yaml overrides.yaml identity.json   what was resolved, what was asked, what was hashed
status.json                                state, cause, attempt, step, samples seen, best,
                                           heartbeat
events.jsonl journal.jsonl                 append-only: what happened; the numbers (keys `who/what`)
attempts/000/attempt.json                  one per start
checkpoints/ samples/ eval/ report.html
DONE                                       the only proof of success
"""

import datetime
import json
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from distgan.config.introspection import flatten
from distgan.config.settings import Run
from distgan.core import console
from distgan.core.errors import DiskError, RunError
from distgan.core.files import append, disk_errors, lock, sync, write_atomic
from distgan.runs.resolve import folder_of

STOP, SAVE = "STOP", "SAVE"  # files in a run folder by which a person asks a run to save


def now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def next_attempt(path: Path) -> int:
    """One more than the last, not their number: someone may have removed old ones."""
    return (
        max(
            (int(found.name) for found in (path / "attempts").glob("*") if found.name.isdecimal()),
            default=-1,
        )
        + 1
    )


class RunFolder:
    """Opened by rank 0 only; the other ranks never write."""

    def __init__(self, run: Run, fingerprint: str, asked: dict[str, Any], start: str | None = None):
        """Make the folder, or enter the one this run already has.

        RunError, before anything is written, if it belongs to another run.
        """
        identity = run.identity(fingerprint, start)
        self.path = folder_of(run, identity)
        try:
            self._check(identity)
            for name in ("attempts", "checkpoints", "samples", "eval"):
                (self.path / name).mkdir(parents=True, exist_ok=True)
            self._lock = open(self.path / ".lock", "a")
        except OSError as error:
            raise RunError(f"cannot write the run folder {self.path}: {error.strerror}") from error
        self._take_lock()
        self._check(
            identity
        )  # again: between the first look and the lock another run may have come and gone
        if not (self.path / "identity.json").exists():
            write_atomic(self.path / "overrides.yaml", yaml.safe_dump(asked, sort_keys=False))
            write_atomic(self.path / "identity.json", json.dumps(identity, indent=1))
        self._run = run
        # A job has made the folder of this attempt, for its logs.
        given = os.environ.get("DISTGAN_ATTEMPT", "")
        self.attempt = (
            int(given)
            if given.isdecimal() and (self.path / "attempts" / given).is_dir()
            else next_attempt(self.path)
        )
        self._waiting: dict[str, list[dict[str, Any]]] = {
            "journal.jsonl": [],
            "events.jsonl": [],
        }  # on a full disk, with on_full_disk=warn
        self._status: dict[str, Any] = {
            "attempt": self.attempt,
            "pid": os.getpid(),
            "host": socket.gethostname(),
        }

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

    def _check(self, identity: dict[str, Any]) -> None:
        # A start that was killed before it had written its identity leaves empty folders and these:
        # the same line may begin again. So does a job that was submitted and has not trained: a
        # link to its code, and records and logs of its attempts.
        unborn = (
            ".lock",
            "overrides.yaml",
            "code",
            "STOP",
            "SAVE",
            "NO_RESTART",
        )
        if (
            not self.path.exists()
            or self.path.is_dir()
            and all(
                path.is_dir()
                and not path.is_symlink()
                or path.name in unborn
                or path.name.startswith(("overrides.yaml.tmp-", "identity.json.tmp-"))
                or path.parent.parent.name == "attempts"
                for path in self.path.rglob("*")
            )
        ):
            return
        try:
            found = json.loads((self.path / "identity.json").read_text())
            theirs = {**dict(flatten(found["settings"])), "data": found["data"]}
        except (FileNotFoundError, NotADirectoryError):
            raise RunError(
                f"{self.path} is not empty and no run folder (it has no identity.json); choose"
                " another machine.folder"
            ) from None
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise RunError(
                f"{self.path / 'identity.json'} is damaged: {error}. Put back what it was, or"
                " choose another machine.folder"
            ) from error
        mine = {**dict(flatten(identity["settings"])), "data": identity["data"]}
        differ = [
            f"  {key}: the folder has {theirs.get(key, 'no such setting')}, asked is"
            f" {mine.get(key, 'no such setting')}"
            for key in sorted(mine.keys() | theirs.keys())
            if mine.get(key) != theirs.get(key)
        ]
        if differ:
            raise RunError(
                "\n".join(
                    [
                        f"the run folder {self.path} belongs to another run; nothing was changed:",
                        *differ,
                        (
                            "Leave out machine.folder to give this run a folder of its own, or ask"
                            " for the settings above"
                        ),
                    ]
                )
            )

    def close(self) -> None:
        """Let another process train here; the end of this process does so too."""
        self._lock.close()

    # ---- what happened
    def begin(self, facts: dict[str, Any]) -> None:
        """Record a start of this run: launcher, versions, processes."""
        folder = self.path / "attempts" / f"{self.attempt:03d}"
        folder.mkdir(exist_ok="DISTGAN_ATTEMPT" in os.environ)
        write_atomic(
            self.path / "config.yaml",
            yaml.safe_dump(self._run.model_dump(mode="json"), sort_keys=False),
        )
        self._facts = {
            "started": now(),
            "ended": None,
            "cause": None,
            "host": socket.gethostname(),
            **facts,
        }
        write_atomic(folder / "attempt.json", json.dumps(self._facts, indent=1))

    def end(self, state: str, cause: str | None, **facts: Any) -> None:
        """Record how this attempt ended."""
        self._facts |= {"ended": now(), "cause": cause or state, **facts}
        write_atomic(
            self.path / "attempts" / f"{self.attempt:03d}" / "attempt.json",
            json.dumps(self._facts, indent=1),
        )
        self.status(state=state, cause=cause)

    def event(self, name: str, **details: Any) -> None:
        self._append("events.jsonl", [{"time": now(), "event": name, **details}])

    def write_or_warn(self, work: Callable[[], Any]) -> bool:
        """Call `work`, which writes a file, and return True if it could be written.

        If not: DiskError, or a warning with machine.on_full_disk=warn.
        """
        try:
            work()
        except DiskError as error:
            if self._run.machine.on_full_disk == "stop":
                raise
            console.say(
                f"warning: {error}. Going on without it, because of machine.on_full_disk=warn"
            )
            return False
        return True

    def status(self, **changes: Any) -> None:
        self._status |= changes | {"heartbeat": now()}
        self.write_or_warn(
            lambda: write_atomic(self.path / "status.json", json.dumps(self._status, indent=1))
        )

    def has_request(self, name: str) -> bool:
        """Return True if a person has asked for STOP or SAVE."""
        return (self.path / name).exists()

    def clear_request(self, name: str) -> None:
        (self.path / name).unlink(missing_ok=True)

    # ---- the numbers
    def journal(self, rows: list[dict[str, Any]]) -> None:
        self._append("journal.jsonl", rows)

    def sync(self) -> None:
        """On return the journal is on the disk.

        Before a checkpoint is, or a power cut would leave steps that no journal knows. Else
        DiskError.
        """
        path = self.path / "journal.jsonl"
        self._write_waiting("journal.jsonl")
        if path.exists():
            with disk_errors(path):
                sync(path)

    def last_heartbeat(self) -> float | None:
        """When the attempt before was last heard of, in seconds since 1970.

        None where status.json does not tell.
        """
        try:
            return datetime.datetime.fromisoformat(
                json.loads((self.path / "status.json").read_text())["heartbeat"]
            ).timestamp()
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return None

    def rewind(self, step: int) -> int:
        """Forget journal rows after `step`.

        They are about to be trained again, or were torn by a crash. Returns how many steps that
        takes back.
        """
        path = self.path / "journal.jsonl"
        if not path.exists():
            return 0
        kept, broken, last, lines = [], [], step, path.read_text(errors="replace").splitlines()
        for n, line in enumerate(lines):
            try:
                last = max(last, at := json.loads(line)["step"])
                if at <= step:
                    kept.append(line + "\n")
            except (ValueError, KeyError, TypeError, RecursionError):
                broken += [n + 1] * (
                    n + 1 < len(lines) and bool(line.strip())
                )  # the last line may be torn
        if broken:
            console.say(
                f"warning: {path}, line {', '.join(map(str, broken[:5]))}: damaged, and left out;"
                " the numbers of these steps are lost, the run is not"
            )
        write_atomic(path, "".join(kept))
        return last - step

    def _append(self, name: str, rows: list[dict[str, Any]]) -> None:
        self._waiting[name] += rows
        self.write_or_warn(lambda: self._write_waiting(name))

    def _write_waiting(self, name: str) -> None:
        """The lines that are still to be written, all of them or none."""
        if rows := self._waiting[name]:
            append(self.path / name, "".join(json.dumps(row) + "\n" for row in rows))
            rows.clear()

    # ---- success
    def done(self, last: int) -> str | None:
        """How the run was finished, if it was, at step `last` or early.

        None where training is to begin or go on.
        """
        try:
            found = json.loads((self.path / "DONE").read_text())
            step, early = int(found["step"]), bool(found["early"])
        except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError):
            return None
        return f"early, at step {step}" if early else f"at step {step}" if step >= last else None

    def reopen(self) -> None:
        """A longer run was asked for: until it is reached, this one is not done."""
        (self.path / "DONE").unlink(missing_ok=True)

    def finish(self, step: int, epoch: float, early: bool) -> None:
        for name in self._waiting:
            self._write_waiting(name)
        write_atomic(
            self.path / "DONE",
            json.dumps({"step": step, "epoch": epoch, "early": early, "time": now()}),
        )


class NoRunFolder(RunFolder):
    """The run folder of ranks other than 0: methods that write do nothing."""

    def __init__(self) -> None:
        pass

    def has_request(self, name: str) -> bool:
        return False

    def _ignore(self, *args: Any, **kwargs: Any) -> Any:
        """Do nothing."""

    begin = end = event = status = journal = write_or_warn = _ignore
    reopen = finish = close = clear_request = _ignore
