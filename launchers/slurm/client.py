"""Run Slurm's commands and parse their output. One call serves all jobs; nothing here knows of
runs.
"""

import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from distgan.core.errors import LaunchError
from distgan.core.files import user_name

# Any other is that of a job that is still to come, runs or leaves: newer Slurms know more of those.
ENDED = (
    "COMPLETED",
    "CANCELLED",
    "FAILED",
    "TIMEOUT",
    "NODE_FAIL",
    "PREEMPTED",
    "BOOT_FAIL",
    "DEADLINE",
    "OUT_OF_MEMORY",
    "REVOKED",
    # No states of Slurm's: a job of this machine that ended and recorded nothing; one of another
    # machine or user whose scheduler is silent; a job of Slurm on a machine without Slurm.
    "LOST",
    "SILENT",
    "NOT_ASKED",
)
# What a surrounding job or launcher left would be taken for the new job's; how the cluster is found
# must stay.
_INHERITED = re.compile(
    r"(SLURM|SRUN|SALLOC|PMI|PMIX|OMPI|TORCHELASTIC|ACCELERATE)_|((LOCAL|GROUP|ROLE)_(RANK|WORLD_SIZE|NAME)|MASTER_ADDR|MASTER_PORT|RANK|WORLD_SIZE)$"
)
_KEPT = ("SLURM_CONF", "SLURM_CONF_SERVER", "SLURM_CLUSTERS", "SLURM_JWT")
# A user's own would hide jobs from us, or change how times are printed.
_FILTERS = re.compile(r"(SQUEUE|SACCT|SCONTROL|SCANCEL|SINFO)_|SLURM_TIME_FORMAT$")
# A controller that is busy or restarts; asked again a moment later, it answers. Only questions are
# repeated, never what changes something.
_BUSY = re.compile(
    r"timed out|unable to contact|connection (refused|reset)|zero bytes were transmitted|transport"
    r" endpoint|temporarily unavailable",
    re.IGNORECASE,
)
_AGAIN_S = (2.0, 5.0)
_HELD = re.compile(r"JobHeld(User|Admin)|requeued[ _](in[ _])?held", re.IGNORECASE)
_REFUSED = re.compile(r"job id (\S+?): (.+)")  # how scancel names a job that it left alone
MAX_ELEMENTS = 4_000_001  # Slurm's own limit of an array


@dataclass(frozen=True)
class QueueEntry:
    """One line of squeue: a job, or one element of an array.

    `key` is `12_3` or `12`; `start` is the (expected) start as Slurm prints it.
    """

    key: str
    state: str
    reason: str
    name: str
    nodes: str
    time_left: str
    start: str
    user: str = ""

    @property
    def active(self) -> bool:
        return self.state not in ENDED

    @property
    def refused(self) -> bool:
        """True if sbatch refused the job: Slurm leaves a record of a job that never had a node."""
        return self.state == "FAILED" and (self.reason == "BadConstraints" or not self.nodes)

    @property
    def held(self) -> bool:
        """True if the job waits until somebody releases it: `scontrol release`."""
        return self.state == "REQUEUE_HOLD" or (
            self.state == "PENDING" and bool(_HELD.search(self.reason))
        )


@dataclass(frozen=True, kw_only=True)
class JobSpan:
    """One stay of a job on its nodes, from sacct. A job that was requeued has several."""

    key: str
    state: str
    seconds: int
    gpus: int
    nodes: int
    cpus: int
    exit_code: str
    start: str


class NoClusterError(LaunchError):
    """Slurm's commands are not on this machine, or know no cluster."""


def is_available() -> bool:
    """Return whether Slurm's commands are on the path."""
    return shutil.which("squeue") is not None


def run_command(*words: str, timeout: float = 60, check: bool = True) -> str:
    """Return what a command prints. Raise LaunchError with Slurm's own words if it fails.

    Queries are repeated while Slurm is busy; commands that change something never are.
    """
    result = _call(words, timeout)
    if result.returncode and check:
        raise LaunchError(
            f"{' '.join(words)[:200]}:"
            f" {(result.stderr or result.stdout).strip()[:600] or f'exit code {result.returncode}'}"
        )
    return result.stdout


def _call(words: Sequence[str], timeout: float = 60) -> subprocess.CompletedProcess[str]:
    """Run a command; raise LaunchError if there is none, no answer or no cluster."""
    if shutil.which(words[0]) is None:
        raise NoClusterError(
            f"{words[0]} is not on this machine: run this on a login node, or start a"
            " cluster on this machine: distgan dev-cluster up"
        )
    env = {name: value for name, value in os.environ.items() if not _FILTERS.match(name)}
    env["SLURM_BITSTR_LEN"] = "0"  # or a long list of an array's elements ends in "..."
    asks = words[0] in ("squeue", "sacct", "sacctmgr", "sinfo") or words[:2] == ("scontrol", "show")
    for wait in (*(_AGAIN_S if asks else ()), None):
        try:
            result = subprocess.run(
                words,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=timeout,
                stdin=subprocess.DEVNULL,
                env=env,
            )
        except subprocess.TimeoutExpired:
            raise LaunchError(
                f"{words[0]} did not answer within {timeout:.0f} s; the controller may be"
                " restarting: try again in a minute"
            ) from None
        if wait is None or not result.returncode or not _BUSY.search(result.stderr):
            break
        time.sleep(wait)
    if result.returncode and "could not establish a configuration source" in result.stderr.lower():
        raise NoClusterError(
            f"{words[0]} finds no cluster: set SLURM_CONF, or run this on a login node. `distgan"
            " dev-cluster up` starts a cluster on this machine and prints the line that sets it"
        )
    return result


def expand(key: str) -> list[str]:
    """Expand the elements of an array that Slurm prints as one: `12_[1-3,7%2]` -> `12_1`, …"""
    job, bracket, elements = key.partition("_[")
    if not bracket:
        return [key]
    numbers: list[int] = []
    for part in elements.rstrip("]").partition("%")[0].split(","):
        if span := re.fullmatch(r"(\d{1,7})(?:-(\d{1,7})(?::(\d{1,7}))?)?", part):
            last, step = int(span[2] or span[1]), max(1, int(span[3] or 1))
            numbers += range(int(span[1]), min(last + 1, MAX_ELEMENTS), step)
    return [f"{job}_{number}" for number in numbers]


def queue(others: Iterable[str] = ()) -> dict[str, QueueEntry]:
    """Return all jobs of this user and of `others`, by key, in one call of squeue.

    Elements of arrays are listed one by one, with those that ended within Slurm's MinJobAge.
    """
    text = run_command(
        "squeue",
        "--noheader",
        "--array",
        "--states=all",
        f"--users={','.join(sorted({user(), *others}))}",
        "--format=%i|%T|%r|%j|%N|%L|%S|%u",
    )
    return {
        key: QueueEntry(key, *row[1:8])
        for row in (line.split("|") for line in text.splitlines())
        if len(row) >= 8
        for key in expand(row[0])
    }


def job_spans(jobs: Iterable[str]) -> list[JobSpan] | None:
    """Return every stay of these jobs on nodes, in order; None on a cluster without accounting."""
    jobs = sorted(set(jobs))
    if not jobs or shutil.which("sacct") is None:
        return None
    try:
        text = run_command(
            "sacct",
            "--noheader",
            "--parsable2",
            "--allocations",
            "--duplicates",
            "--starttime=now-180days",
            f"--jobs={','.join(jobs)}",
            "--format=JobID,State,ElapsedRaw,AllocTRES,NNodes,NCPUS,ExitCode,Start",
        )
    except LaunchError:
        return None
    spans = []
    for line in text.splitlines():
        elements, state, elapsed, tres, nodes, cpus, exit_code, start = line.split("|")
        gpus = re.search(r"gres/gpu=(\d+)", tres)
        spans += [
            JobSpan(
                key=key,
                state=state.split()[0],
                seconds=int(elapsed or 0),
                gpus=int(gpus[1]) if gpus else 0,
                nodes=int(nodes or 0),
                cpus=int(cpus or 0),
                exit_code=exit_code,
                start=start,
            )
            for key in expand(elements)
        ]
    return spans


def read_config() -> dict[str, str]:
    """Return `scontrol show config` as a mapping."""
    return dict(
        part
        for line in run_command("scontrol", "show", "config").splitlines()
        if len(part := [p.strip() for p in line.split("=", 1)]) == 2
    )


def show(kind: str, name: str) -> dict[str, str]:
    """Return the first record of `scontrol show KIND NAME`; {} if there is none."""
    try:
        text = run_command("scontrol", "--oneliner", "show", kind, name, check=False)
    except LaunchError:
        return {}
    return (
        dict(re.findall(r"(\S+?)=(.*?)(?=\s+\S+?=|\s*$)", text.splitlines()[0]))
        if text.strip()
        else {}
    )


def first_node(nodes: str) -> str:
    """Return the first name of a node list: `n[1-4]` -> `n1`."""
    return run_command("scontrol", "show", "hostnames", nodes).split()[0]


def address(node: str) -> str:
    """Return the NodeAddr of a node, since its name may be unknown to the resolver."""
    return show("node", node).get("NodeAddr") or node


def requeue(key: str) -> None:
    """Put a job back into the queue, by `12_3`.

    The raw number of an array's last element is the number of the array: it would restart all
    elements.
    """
    run_command("scontrol", "requeue", key)


def user() -> str:
    """Return the name of the user who runs this process."""
    return user_name(os.getuid())


def cancel(keys: Iterable[str]) -> dict[str, str]:
    """Cancel jobs; return Slurm's words on each that it left alone.

    A job that has ended meanwhile is none of these. LaunchError if Slurm does not say which.
    """
    keys, refused = list(keys), dict[str, str]()
    for start in range(0, len(keys), 500):
        words = ("scancel", *keys[start : start + 500])
        result = _call(words)
        errors = dict(_REFUSED.findall(result.stderr))
        if result.returncode and not errors:
            raise LaunchError(f"scancel: {result.stderr.strip()[:600] or 'no reason given'}")
        refused |= {
            key: error
            for key, error in errors.items()
            if not re.search(r"invalid job id|already complet", error, re.IGNORECASE)
        }
    return refused


def job_key(environment: dict[str, str]) -> str:
    """Return the key of the job that this process belongs to: `12_3`, or `12` outside an array."""
    array = environment.get("SLURM_ARRAY_JOB_ID")
    return f"{array}_{environment['SLURM_ARRAY_TASK_ID']}" if array else environment["SLURM_JOB_ID"]


def clean_environment(environment: dict[str, str]) -> dict[str, str]:
    """Return an environment to submit from: nothing of a surrounding job or launcher, but the way
    to the cluster.
    """
    # Outside a job, SBATCH_ACCOUNT and the like are settings of the user.
    inside = "SLURM_JOB_ID" in environment
    return {
        name: value
        for name, value in environment.items()
        if name in _KEPT or not (_INHERITED.match(name) or inside and name.startswith("SBATCH_"))
    }


def parse_duration(text: str) -> int | None:
    """Convert a duration as Slurm prints it to seconds: `1-02:03:04`, `30:00`, `00:00:30`.

    Return None for UNLIMITED and the like.
    """
    days, _, clock = text.strip().rpartition("-")
    parts = clock.split(":")
    if not all(part.isdecimal() for part in parts) or days and not days.isdecimal():
        return None
    total = 0
    for part in parts:
        total = total * 60 + int(part)
    return total + 86400 * int(days or 0)


def parse_time(text: str) -> float | None:
    """Convert a local time as Slurm prints it to seconds since 1970; None for N/A and Unknown."""
    try:
        return time.mktime(time.strptime(text.strip(), "%Y-%m-%dT%H:%M:%S"))
    except ValueError:
        return None
