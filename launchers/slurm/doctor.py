"""`distgan doctor --slurm`: print the limits of the cluster, how long a run may save when it must
leave, and whether jobs see the same files.
"""

import importlib.metadata
import shutil
import sys
import uuid
from pathlib import Path

from distgan.core import console
from distgan.core.errors import LaunchError
from distgan.core.files import make_folder, touch
from distgan.launchers.slurm import client, profiles, submission
from distgan.launchers.slurm.limits import ClusterLimits, read_limits, submit_limit

Row = tuple[str, str, str]


def survey(profile: str | None, runs: str) -> int:
    """Print the survey. Return 0, or 1 if something would keep jobs from working."""
    resources = profiles.read(profile, {})
    facts, config = read_limits(resources.partition), client.read_config()
    console.say(
        f"cluster     {config.get('ClusterName', '?')}, Slurm {config.get('SLURM_VERSION', '?')};"
        f" submitit {importlib.metadata.version('submitit')}, python {sys.executable}"
    )
    console.say(f"partitions  {', '.join(_partitions())}\n")
    rows = _limits(facts, submit_limit(resources.account, resources.qos, resources.partition))
    rows.append(
        ("profile", profile or "none", "--profile NAME; there are " + ", ".join(profiles.names()))
    )
    try:
        rows.append(("such a job", "would start", submission.test_only(resources)))
        works = True
    except LaunchError as error:
        rows.append(("such a job", "is refused", str(error)))
        works = False
    console.table(("", "", ""), rows, right=False)
    works = works and _shared(Path(runs).absolute(), resources)
    console.say(
        "\nnext: "
        + (
            f"distgan submit sagan data=data/particles{f' --profile {profile}' if profile else ''}"
            if works
            else "fix the problems above"
        )
    )
    return 0 if works else 1


def _limits(facts: ClusterLimits, limit: int | None) -> list[Row]:
    """The cluster's limits as rows of the table: name, value, what follows from it."""
    comes_back = "REQUEUE" in facts.preempt_mode and facts.requeues
    return [
        (
            "time to save when preempted",
            f"{facts.seconds_to_save} s",
            f"GraceTime {facts.grace} + KillWait {facts.kill_wait}, mode {facts.preempt_mode}",
        ),
        (
            "a preempted job",
            "comes back" if comes_back else "ends",
            "" if comes_back else "`distgan retry` submits it again",
        ),
        (
            "signals reach",
            "every process" if facts.signals_all else "the task alone",
            "" if facts.signals_all else "the job forwards them",
        ),
        ("elements of an array", f"{facts.max_array:,}", "larger sweeps are split"),
        (
            "jobs in the queue",
            "no limit known" if limit is None else f"{limit:,}",
            "a larger sweep is submitted in parts: run the same line again",
        ),
        (
            "accounting (sacct)",
            "yes" if facts.accounting and shutil.which("sacct") else "no",
            "" if facts.accounting else "states and costs come from the runs' own records",
        ),
        ("a job is forgotten after", f"{facts.min_age} s", "its state is in the run folder"),
        ("node names", *_names()),
    ]


def _partitions() -> list[str]:
    text = client.run_command("sinfo", "--noheader", "--format=%P|%l|%D|%c|%G")
    return [
        f"{name} (up to {limit}, {nodes} nodes of {cpus}"
        f" processors{f', {gres}' if gres != '(null)' else ''})"
        for name, limit, nodes, cpus, gres in (line.split("|") for line in text.splitlines())
    ]


def _names() -> tuple[str, str]:
    import socket

    nodes = client.run_command("sinfo", "--noheader", "--Node", "--format=%N").split()[:1]
    try:
        socket.getaddrinfo(nodes[0], None)
        return "resolve", nodes[0]
    except (OSError, IndexError):
        return "do not resolve", "not needed: ranks connect to the NodeAddr that Slurm has"


def _shared(runs: Path, resources: profiles.Resources) -> bool:
    """Return whether a job finds a file that was written here, and the same Python."""
    make_folder(runs)
    mark = runs / f".doctor-{uuid.uuid4().hex[:8]}"
    touch(mark)
    where = [f"--partition={resources.partition}"] if resources.partition else []
    try:
        client.run_command(
            "srun",
            "--nodes=1",
            "--ntasks=1",
            "--time=2",
            "--immediate=60",
            "--quiet",
            *where,
            *([f"--account={resources.account}"] if resources.account else []),
            "test",
            "-e",
            str(mark),
            "-a",
            "-x",
            sys.executable,
            timeout=120,
        )
        console.say(f"\nshared      a node sees {runs} and {sys.executable}")
        return True
    except LaunchError as error:
        console.say(
            f"\nshared      no node was free within a minute, or it does not see {runs} or"
            f" {sys.executable}: {error}"
        )
        return False
    finally:
        mark.unlink(missing_ok=True)
