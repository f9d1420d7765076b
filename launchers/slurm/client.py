"""Run Slurm's commands and parse their output. One call serves all jobs; nothing here knows of
runs.
"""

import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterable
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
)
# What a surrounding job or launcher left would be taken for the new job's; how the cluster is found
# must stay.
_INHERITED = re.compile(
    r"(SLURM|SRUN|SALLOC|PMI|PMIX|OMPI|TORCHELASTIC|ACCELERATE)_|((LOCAL|GROUP|ROLE)_(RANK|WORLD_SIZE|NAME)|MASTER_ADDR|MASTER_PORT|RANK|WORLD_SIZE)$"
)
_KEPT = ("SLURM_CONF", "SLURM_CONF_SERVER", "SLURM_CLUSTERS", "SLURM_JWT")
# A user's own would hide jobs from us, or change how times are printed.
_FILTERS = re.compile(r"(SQUEUE|SACCT|SCONTROL|SCANCEL|SINFO)_|SLURM_TIME_FORMAT$")
_NUMBER = re.compile(r"\d+")
# A controller that is busy or restarts; asked again a moment later, it answers. Only questions are
# repeated, never what changes something.
_BUSY = re.compile(
    r"timed out|unable to contact|connection (refused|reset)|zero bytes were transmitted|transport"
    r" endpoint|temporarily unavailable",
    re.IGNORECASE,
)
_AGAIN_S = (2.0, 5.0)


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


def is_available() -> bool:
    """Return whether Slurm's commands are on the path."""
    return shutil.which("squeue") is not None


def run_command(*words: str, timeout: float = 60, check: bool = True) -> str:
    """Return what a command prints. Raise LaunchError with Slurm's own words if it fails.

    Queries are repeated while Slurm is busy; commands that change something never are.
    """
    if shutil.which(words[0]) is None:
        raise LaunchError(
            f"{words[0]} is not on this machine: run this on a login node, or start a"
            " cluster on this machine: distgan dev-cluster up"
        )
    env = {name: value for name, value in os.environ.items() if not _FILTERS.match(name)}
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
        raise LaunchError(
            f"{words[0]} finds no cluster: set SLURM_CONF, or run this on a login node. `distgan"
            " dev-cluster up` starts a cluster on this machine and prints the line that sets it"
        )
    if result.returncode and check:
        raise LaunchError(
            f"{' '.join(words)[:200]}:"
            f" {(result.stderr or result.stdout).strip()[:600] or f'exit code {result.returncode}'}"
        )
    return result.stdout


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
        row[0]: QueueEntry(*row[:8])
        for row in (line.split("|") for line in text.splitlines())
        if len(row) >= 8
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
        key, state, elapsed, tres, nodes, cpus, exit_code, start = line.split("|")
        gpus = re.search(r"gres/gpu=(\d+)", tres)
        if "[" not in key:
            spans.append(
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
            )
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


def cancel(keys: Iterable[str]) -> None:
    keys = list(keys)
    for start in range(0, len(keys), 500):
        run_command("scancel", *keys[start : start + 500])


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


@dataclass(frozen=True)
class ClusterLimits:
    """The settings of a cluster that decide how a run may be submitted and how long it may save.

    Times in seconds.
    """

    max_array: int
    kill_wait: int
    grace: int
    preempt_mode: str  # what becomes of a preempted job: REQUEUE, CANCEL, OFF …
    signals_all: bool  # every process of a job gets its signals, not only the task
    max_submit: int | None
    accounting: bool
    min_age: int
    requeues: bool

    @property
    def seconds_to_save(self) -> int:
        """Seconds from the first signal of a preemption to SIGKILL."""
        return self.grace + self.kill_wait


def read_limits(partition: str | None = None, account: str | None = None) -> ClusterLimits:
    """Read the limits of the cluster, and of the partition and account that jobs would use."""
    config = read_config()
    partition_record = show("partition", partition) if partition else {}

    def number(text: str, usual: int) -> int:
        match = _NUMBER.search(text)
        return int(match[0]) if match else usual

    mode = partition_record.get("PreemptMode") or config.get("PreemptMode", "OFF")
    return ClusterLimits(
        max_array=number(config.get("MaxArraySize", ""), 1001),
        kill_wait=number(config.get("KillWait", ""), 30),
        grace=parse_duration(partition_record.get("GraceTime", ""))
        or number(partition_record.get("GraceTime", ""), 0),
        preempt_mode=(
            mode
            if config.get("PreemptType", "").strip("()") not in ("null", "preempt/none")
            else "OFF"
        ),
        signals_all="cgroup" not in config.get("ProctrackType", ""),
        max_submit=_max_submit(account, config.get("ClusterName", "")),
        accounting="slurmdbd" in config.get("AccountingStorageType", ""),
        min_age=number(config.get("MinJobAge", ""), 300),
        requeues=config.get("JobRequeue", "1") == "1",
    )


def _max_submit(account: str | None, cluster: str) -> int | None:
    """Return how many jobs the user may have at a time; None if unlimited or unknown."""
    if shutil.which("sacctmgr") is None:
        return None
    where = [
        f"user={user()}",
        *([f"cluster={cluster}"] if cluster else []),
        *([f"account={account}"] if account else []),
    ]
    try:
        text = run_command(
            "sacctmgr",
            "--noheader",
            "--parsable2",
            "show",
            "assoc",
            *where,
            "format=MaxSubmit,GrpSubmit",
            check=False,
            timeout=20,
        )
    except LaunchError:
        return None
    limits = [
        int(word) for line in text.splitlines() for word in line.split("|") if word.isdecimal()
    ]
    return min(limits, default=None)
