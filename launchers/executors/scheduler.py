"""The detached process that starts the jobs of one local submission and waits for them.

    python -m distgan.launchers.executors.scheduler FOLDER

It prints which process it is and leaves the terminal: it leads a session, so no SIGHUP comes.
Its jobs lead sessions of their own, too, and outlive it; the same line of `distgan sweep` then
starts another one for what was not started. Places (GPUs) that any live job of this folder of runs
occupies stay free of others, whichever scheduler started it.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distgan.core import console
from distgan.core.errors import DistganError
from distgan.core.files import lock, only_owner_writes, opener, touch
from distgan.launchers.executors import interface, local, member, processes
from distgan.launchers.slurm.ledger import Ledger, Submission
from distgan.launchers.slurm.profiles import Resources
from distgan.runs import records

POLL_S = 0.3
ALIVE_S = 10.0  # between two touches of `alive`
KILL_S = 60.0  # a cancelled job that has not left by then is killed
SUBMITTED_S = 60.0  # for the ledger's line that makes the submission one


@dataclass
class _Job:
    process: subprocess.Popen
    kill_at: float | None = None


class Scheduler:
    """The jobs of one submission."""

    def __init__(self, folder: Path):
        self.folder, self.ledger = folder, Ledger(folder.parents[1])
        recorded = records.read(folder / "submission.json")
        self.code, self.cwd = Path(recorded["code"]), recorded["cwd"]
        self.places = [list(place) for place in recorded["places"]]
        self.after = recorded.get("after") or ""
        self.resources = Resources.model_validate(recorded["resources"])
        self.folders = [[run["folder"] for run in runs] for runs in recorded["elements"]]
        self.pending = list(range(len(recorded["elements"])))
        self.restarts = dict.fromkeys(self.pending, 0)
        self.kills = dict.fromkeys(self.pending, 0)
        self.jobs: dict[int, _Job] = {}
        self.stopping = False
        self._alive = self._asked = 0.0

    def run(self) -> None:
        """Start all jobs, and those again that are not finished; return when all have ended."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        self._touch()
        if self._submission(wait=True) is None:
            console.say("the submission was given up; nothing is started")
            return
        while self.pending or self.jobs:
            self._touch()
            self._collect()
            self._drop_cancelled()
            if self.after and not self._source_done():
                time.sleep(POLL_S)
                continue
            while self.pending and self._start_next():
                pass
            time.sleep(POLL_S)
        console.say("all jobs of this submission have ended")

    def _stop(self, number: int, frame: Any) -> None:
        """Start nothing more, and pass the signal on: what is not finished is continued by the
        same line.
        """
        self.stopping, self.pending = True, []
        for job in self.jobs.values():
            with contextlib.suppress(OSError):
                job.process.send_signal(signal.SIGTERM)

    def _touch(self) -> None:
        if time.monotonic() - self._alive > ALIVE_S:
            self._alive = time.monotonic()
            path = self.folder / "alive"
            with contextlib.suppress(OSError):
                touch(path)
                os.utime(path, follow_symlinks=False)

    def _submission(self, wait: bool = False) -> Submission | None:
        """Return this submission as the ledger has it; None if it is void or not recorded."""
        ends = time.monotonic() + (SUBMITTED_S if wait else 0.0)
        while True:
            found = [one for one in self.ledger.read()[0] if one.id == self.folder.name]
            if found and found[0].void:
                return None
            if found and processes.parse(found[0].process) == processes.this_process():
                return found[0]
            if time.monotonic() > ends:
                return None
            time.sleep(POLL_S)

    def _collect(self) -> None:
        """Take note of jobs that have ended; put those back that are not finished."""
        for element, job in list(self.jobs.items()):
            code = job.process.poll()
            if code is None:
                if job.kill_at and time.monotonic() > job.kill_at:
                    with contextlib.suppress(OSError):
                        os.killpg(job.process.pid, signal.SIGKILL)  # not waited for: it is ours
                continue
            record = local.job_record(self.folder, element)
            process = processes.parse(record.get("process"))
            left = processes.session(process, *self.folders[element])
            if "ended" not in record and left:
                continue  # it was killed, and its training goes on
            del self.jobs[element]
            if "ended" not in record:
                self.kills[element] += 1
                again = self.kills[element] <= self.resources.crashes
                record |= {"ended": time.time(), "code": code, "again": again}
                member.write_record(self.folder, element, record)
            console.say(f"job {element} ended with code {code}")
            if record.get("again") and not self.stopping:
                self.restarts[element] += 1
                self.pending.append(element)

    def _drop_cancelled(self, now: bool = False) -> None:
        """Start no cancelled job, and end those that run; ask the ledger every two seconds, or
        `now`.
        """
        if not now and time.monotonic() - self._asked < 2.0:
            return
        self._asked = time.monotonic()
        submissions, cancelled = self.ledger.read()
        mine = next((one for one in submissions if one.id == self.folder.name), None)
        if mine is None or mine.void:
            self.pending = []
            return
        gone = {
            element
            for element, runs in enumerate(mine.members)
            if all((mine.id, run) in cancelled for run in runs)
        }
        self.pending = [element for element in self.pending if element not in gone]
        for element in gone & self.jobs.keys():
            job = self.jobs[element]
            if job.kill_at is None:  # `cancel` may have come before there was a process to signal
                job.kill_at = time.monotonic() + KILL_S
                job.process.send_signal(signal.SIGTERM)

    def _source_done(self) -> bool:
        """Return whether what this submission waits for is done; give up where it will not be."""
        rows, last = interface.query(self.ledger)
        sources = [run for run, submitted in last.items() if submitted.key == self.after]
        if sources and all((Path(run) / "DONE").exists() for run in sources):
            self.after = ""
            return True
        if self.after not in rows or not rows[self.after].active:
            console.say(f"job {self.after}, which this one waits for, has ended without success")
            self.pending, self.after = [], ""
        time.sleep(2.0)
        return False

    def _start_next(self) -> bool:
        """Start the next job on a free place; return whether there was one."""
        with open(self.ledger.home / ".places", "a", opener=opener) as file:
            lock(file)  # of two schedulers, one looks for a place at a time
            taken = self._taken()
            free = [place for place in self.places if taken.isdisjoint(place)]
            if not free:
                return False
            self._drop_cancelled(now=True)
            if not self.pending:
                return False
            self._start(self.pending.pop(0), free[0])
        return True

    def _taken(self) -> set[str]:
        """Return the names of all places that jobs of this user occupy on this machine."""
        here, taken = processes.machine(), set()
        for submission in self.ledger.read()[0]:
            process = processes.parse(submission.process)
            if not submission.is_local or not process or process.machine != here:
                continue
            folder = self.ledger.home / submission.id
            for element, runs in enumerate(submission.members):
                record = local.job_record(folder, element)
                if not record or "ended" in record:
                    continue
                if local.is_running(folder, element, record, runs):
                    taken |= {str(name) for name in record.get("place") or ()}
        return taken

    def _start(self, element: int, place: list[str]) -> None:
        """Start a job; return when it has recorded which process it is."""
        if why := local.fault(self.code, self.folder):
            console.say(f"error: job {element} is not started: {why}")
            return
        before = local.job_record(self.folder, element)
        log = self.folder / f"local:{self.folder.name}_{element}_0_log.out"
        words = [str(self.folder), str(element), str(self.restarts[element]), ",".join(place)]
        with open(log, "ab", opener=opener) as file:
            process = subprocess.Popen(
                [sys.executable, "-u", "-m", local.MEMBER, *words],
                stdout=file,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                cwd=self.cwd,
                start_new_session=True,
            )
        self.jobs[element] = _Job(process)
        console.say(f"job {element} started as process {process.pid} on {','.join(place)}")
        while process.poll() is None and local.job_record(self.folder, element) == before:
            time.sleep(0.05)


def main(argv: list[str]) -> int:
    folder = Path(argv[0])
    with only_owner_writes():
        log = open(folder / "scheduler.log", "ab", opener=opener)
    reading, writing = os.pipe()
    if os.fork():  # this one is waited for; the other belongs to nobody
        os.close(writing)
        sys.stdout.write(os.read(reading, 4096).decode())
        sys.stdout.flush()
        os._exit(0)
    os.close(reading)
    os.setsid()
    for number in (1, 2):
        os.dup2(log.fileno(), number)
    with os.fdopen(writing, "w") as answer:
        answer.write(json.dumps(processes.this_process().as_dict()))
    console.protect()
    console.ignore_closed_pipes()
    try:
        Scheduler(folder).run()
    except (DistganError, OSError, ValueError, KeyError) as error:
        console.complain(f"error: {error}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
