"""Run inside a job of Slurm, on each of its nodes: start the trainings, wait, record why they
ended, and requeue the job if needed.

The training saves and leaves by itself (training/stop_requests.py); nothing is saved here. The
state of a run is in its folder, so this process may be killed at any moment.
"""

import contextlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distgan.core import console
from distgan.core.errors import DiskError, LaunchError
from distgan.core.files import make_folder, opener, write_atomic
from distgan.distributed import launch_line
from distgan.launchers.slurm import client
from distgan.launchers.slurm.job_records import (
    complete,
    newest_step,
    records,
    state_of,
    tail,
    trained,
)
from distgan.launchers.slurm.profiles import Resources
from distgan.launchers.slurm.restart_policy import (
    EndOfAttempt,
    RestartDecision,
    decide,
    no_progress_reason,
)
from distgan.runs.folder import next_attempt
from distgan.runs.records import read, read_if_good, refusal

LEAVE = 75  # exit code of a job that is not finished: run it again
PORTS = (20000, 29000)  # below Linux' range for outgoing connections
WAIT_S = 120.0  # for what another node writes: network file systems show it late
SIGNALS = ("SIGTERM", "SIGUSR1", "SIGUSR2", "SIGCONT")


@dataclass
class Job:
    """The callable that submitit starts.

    `folder`: of the submission. Nothing else is pickled, so an old pickle starts whatever code is
    there.
    """

    folder: str

    def __call__(self) -> str:
        console.protect()
        console.ignore_closed_pipes()
        return JobAttempt(Path(self.folder), dict(os.environ)).take()

    def checkpoint(self, *args: Any, **kwargs: Any) -> Any:
        """Resubmit the same job, for submitit's handler of the time limit before ours is set."""
        import submitit

        return submitit.helpers.DelayedSubmission(Job(self.folder))


class JobAttempt:
    """One stay of a job on its nodes, seen from one of them."""

    def __init__(self, folder: Path, environment: dict[str, str]):
        submission = read(folder / "submission.json")
        self.id, self.environment = submission["id"], environment
        self.resources = Resources.model_validate(submission["resources"])
        self.members = submission["elements"][int(environment.get("SLURM_ARRAY_TASK_ID", 0))]
        self.pass_on = not submission["signals_all"]
        self.node, self.nodes = (
            int(environment.get("SLURM_NODEID", 0)),
            int(environment.get("SLURM_NNODES", 1)),
        )
        self.key, self.restart = (
            client.job_key(environment),
            int(environment.get("SLURM_RESTART_COUNT") or 0),
        )
        self.signals: list[str] = []
        self.processes: list[subprocess.Popen] = []

    def take(self) -> str:
        """Train all members. Returns where all are done or stopped; else SystemExit, so that no
        result is pickled and Slurm sees a failure.
        """
        self._listen()
        verdicts: dict[int, RestartDecision] = {}
        threads = [
            threading.Thread(
                target=lambda i=i, member=member: verdicts.update({i: self._member(member)})
            )
            for i, member in enumerate(self.members)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            while thread.is_alive():  # join() without an end would not let handlers run
                thread.join(0.2)
        actions = [decision.action for decision in verdicts.values()]
        if len(actions) < len(self.members):
            raise SystemExit(1)  # a thread died; its traceback is in the log
        if self.node == 0 and "requeue" in actions and not {"SIGTERM"} & set(self.signals):
            console.say(f"requeuing {self.key}")
            self._requeue()
            raise SystemExit(LEAVE)
        if "leave" in actions or "requeue" in actions:
            raise SystemExit(LEAVE)
        if "fail" in actions:
            raise SystemExit(1)
        return ", ".join(actions)

    def _requeue(self) -> None:
        """Requeue the job; repeat until Slurm answers, as its controller may be restarting."""
        for wait in (1, 2, 5, 10, 20, 30, None):
            try:
                return client.requeue(self.key)
            except LaunchError as error:
                console.say(f"warning: {error}")
                if wait is None or "SIGTERM" in self.signals:
                    raise SystemExit(1) from error
                time.sleep(wait)

    def _listen(self) -> None:
        """Record signals, and forward them where Slurm sends them to the task alone.

        Replaces submitit's handlers.
        """

        def note(number: int, frame) -> None:
            name = signal.Signals(number).name
            if name not in self.signals and name != "SIGCONT":
                self.signals.append(name)
                if self.pass_on:
                    for process in self.processes:
                        with contextlib.suppress(OSError):
                            process.send_signal(number)

        for name in SIGNALS:
            signal.signal(getattr(signal, name), note)

    # ---- one run
    def _member(self, member: Mapping[str, Any]) -> RestartDecision:
        folder = Path(member["folder"])
        if (folder / "DONE").exists():
            return RestartDecision("done", "done", "was done")
        if why := refusal(folder):
            return RestartDecision("fail", "error", why)
        return self._lead(folder, member) if self.node == 0 else self._follow(folder, member)

    def _lead(self, folder: Path, member: Mapping[str, Any]) -> RestartDecision:
        """Train a run on the first node, which writes the record of the attempt."""
        earlier, step = records(folder), newest_step(folder)
        complete(folder, earlier, step)
        # `distgan retry` begins with new budgets.
        earlier = [record for record in earlier if record.get("submission") == self.id]
        # Stopped, while the job was requeued for another of its runs.
        if earlier and earlier[-1].get("then") == "stopped":
            return RestartDecision("stopped", "stop", "was stopped")
        why = no_progress_reason(earlier, step)
        if why:
            write_atomic(folder / "NO_RESTART", why + "\n")
            console.say(f"error: {folder}: {why}")
            return RestartDecision("fail", "error", why)
        attempt = folder / "attempts" / f"{next_attempt(folder):03d}"
        make_folder(attempt)
        record, began = self._about(step), time.monotonic()
        nodes = None
        if self.nodes > 1:
            first = client.first_node(self.environment["SLURM_JOB_NODELIST"])
            record |= {"address": client.address(first), "port": free_port(self.key)}
            nodes = launch_line.Nodes(self.nodes, 0, record["address"], record["port"])
        record["command"] = self.resources.command(member["words"], folder, nodes)
        write_atomic(attempt / "job.json", json.dumps(record, indent=1))
        code = self._run(folder, attempt, record["command"])
        record |= {
            key: value
            for key, value in read_if_good(attempt / "attempt.json").items()
            if key in ("cause", "peak_memory_mb")
        }
        end = EndOfAttempt(
            (folder / "DONE").exists(),
            state_of(folder, attempt),
            record.get("cause"),
            code,
            tuple(self.signals),
            tail(attempt),
        )
        decision = decide(end, earlier, self.resources)
        record |= {
            "ended": record["started"] + time.monotonic() - began,
            "then": decision.action,
            "kind": decision.kind,
            "cause": decision.cause,
            "signals": self.signals,
            "code": code,
            "last_step": newest_step(folder),
        }
        record["trained_s"], record["kept_s"] = trained(folder, step, record["last_step"])
        try:
            write_atomic(attempt / "job.json", json.dumps(record, indent=1))
            if decision.action == "fail":
                write_atomic(folder / "NO_RESTART", decision.cause + "\n")
        except DiskError as error:  # what was decided is done
            console.say(f"warning: {error}")
        console.say(f"{folder}: {decision.cause} -> {decision.action}")
        return decision

    def _follow(self, folder: Path, member: Mapping[str, Any]) -> RestartDecision:
        """Train a run on another node: wait for the first node's record, and for its decision at
        the end, since srun ends all tasks when one fails.
        """
        attempt, record = self._record(folder, "command")
        nodes = launch_line.Nodes(self.nodes, self.node, record["address"], record["port"])
        self._run(folder, attempt, self.resources.command(member["words"], folder, nodes))
        _, record = self._record(folder, "then")
        time.sleep(2.0)
        return RestartDecision(record["then"], record["kind"], record["cause"])

    def _record(self, folder: Path, until: str) -> tuple[Path, dict[str, Any]]:
        """Return this attempt's folder and job.json as soon as it holds `until`."""
        ends = time.monotonic() + WAIT_S
        while time.monotonic() < ends:
            for path in sorted((folder / "attempts").glob("*/job.json"), reverse=True)[:1]:
                record = read_if_good(path)
                about = tuple(record.get(key) for key in ("job", "restart", "submission"))
                if about == (self.key, self.restart, self.id) and until in record:
                    return path.parent, record
            time.sleep(0.2)
        raise RuntimeError(
            f"{folder}/attempts: the first node has not written job.json with {until!r} within"
            f" {WAIT_S:.0f} s; is the folder shared among the nodes?"
        )

    def _about(self, step: int) -> dict[str, Any]:
        job = client.show("job", self.key)
        return {
            **self._facts(step),
            "nodes": self.environment.get("SLURM_JOB_NODELIST"),
            "cpus": int(job.get("NumCPUs") or 0),
            "queued": client.parse_time(job.get("SubmitTime", "")),
            "slurm_start": client.parse_time(job.get("StartTime", "")),
            "slurm_end": client.parse_time(job.get("EndTime", "")),
        }

    def _facts(self, step: int) -> dict[str, Any]:
        """Return what the record of an attempt has of any executor."""
        env = self.environment
        return {
            "submission": self.id,
            "job": self.key,
            "raw": env.get("SLURM_JOB_ID"),
            "restart": self.restart,
            "gpus": self.resources.gpus * self.nodes,
            "partition": env.get("SLURM_JOB_PARTITION"),
            "host": socket.gethostname(),
            "shared_by": len(self.members),
            "started": time.time(),
            "step": step,
            "python": sys.executable,
        }

    def _run(self, folder: Path, attempt: Path, command: list[str]) -> int:
        """Run the training on this node; return its exit code."""
        env = {
            **client.clean_environment(self.environment),
            **launch_line.environment(client.clean_environment(self.environment)),
            "DISTGAN_ATTEMPT": attempt.name,
            "DISTGAN_LOGS": str(attempt),
        }
        # Slurm 22.05 has no variable for the end of the job.
        ends = client.parse_time(client.show("job", self.key).get("EndTime", ""))
        if ends or "SLURM_JOB_END_TIME" in self.environment:
            env["SLURM_JOB_END_TIME"] = (
                str(int(ends)) if ends else self.environment["SLURM_JOB_END_TIME"]
            )
        # With which the training asks again, as the time limit may be changed.
        env["DISTGAN_JOB"] = self.environment.get("SLURM_JOB_ID", "")
        # Without one of them the training would go on on the processors, and say nothing.
        env["DISTGAN_GPUS"] = str(self.resources.gpus)
        if self.resources.gpus == 0:
            env |= {
                "CUDA_VISIBLE_DEVICES": "",
                "OMP_NUM_THREADS": self.environment.get(
                    "OMP_NUM_THREADS", str(self.resources.cpus)
                ),
            }
        name = f"launcher-node{self.node}.log" if self.node else "launcher.log"
        with open(attempt / name, "ab", opener=opener) as log:
            process = subprocess.Popen(
                command, stdout=log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, env=env
            )
        self.processes.append(process)
        if self.signals:  # that came before there was anybody to pass them on to
            process.send_signal(getattr(signal, self.signals[-1]))
        return process.wait()


def free_port(key: str) -> int:
    """Return a port of this node that can be bound now.

    The first one tried depends on the job, so two jobs seldom try the same.
    """
    first = random.Random(key).randrange(*PORTS)
    for offset in range(PORTS[1] - PORTS[0]):
        port = PORTS[0] + (first - PORTS[0] + 7 * offset) % (PORTS[1] - PORTS[0])
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("", port))
            return port
    raise RuntimeError(f"no free port from {PORTS[0]} to {PORTS[1]} on {socket.gethostname()}")
