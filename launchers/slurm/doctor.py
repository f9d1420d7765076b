"""`distgan doctor --slurm`: print the limits of the cluster, how long a run may save when it must
leave, and whether jobs see the same files.
"""

import contextlib
import importlib.metadata
import shutil
import sys
import time
import uuid
from pathlib import Path

from distgan.core import console
from distgan.core.errors import LaunchError, RunError
from distgan.core.files import make_folder, remove, touch
from distgan.core.reading import read_tail
from distgan.launchers.slurm import client, profiles, snapshot, submission
from distgan.launchers.slurm.limits import ClusterLimits, read_limits, remedy, submit_limit
from distgan.launchers.slurm.restart_policy import last_line
from distgan.runs.records import read_if_good

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
    if works:
        works = _shared(Path(runs).absolute(), resources)
    else:
        console.say("\nshared      not tested: Slurm refuses the job that would")
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


# Run by a job of the kind that trains: imports what it would import, and writes what it sees.
_PROBE = """
import json, os, socket, sys
answer, mark = sys.argv[1:]
import torch, distgan
record = {"node": socket.gethostname(), "seen": os.path.exists(mark)}
record |= {"gpus": torch.cuda.device_count(), "package": distgan.__file__}
with open(answer + ".new", "w") as file:
    json.dump(record, file)
os.replace(answer + ".new", answer)
"""


def _shared(runs: Path, resources: profiles.Resources) -> bool:
    """Return whether a job as `submit` makes them begins, imports the package and finds a file that
    was written here. Submitted by sbatch, with the same options, setup and environment.
    """
    folder = runs / "_slurm" / f"doctor-{uuid.uuid4().hex[:8]}"
    make_folder(folder)
    mark, answer = folder / "mark", folder / "answer.json"
    touch(mark)
    job = None
    try:
        code = snapshot.take(runs / "_code")
        short = resources.model_copy(update={"time": "10m", "signal_lead_s": 30, "pack": 1})
        words = [sys.executable, "-c", _PROBE, str(answer), str(mark)]
        job = submission.submit_probe(folder, short, code, words)
        fault = _outcome(job, folder, answer, resources)
    except (LaunchError, RunError) as error:
        fault = str(error)
    finally:
        if job:
            with contextlib.suppress(LaunchError):
                client.cancel([job])
        remove(folder)
    if fault is None:
        console.say(f"\nshared      a node sees {runs} and {sys.executable}")
        return True
    console.say(f"\nshared      {fault}")
    return False


def _outcome(
    job: str, folder: Path, answer: Path, resources: profiles.Resources, seconds: float = 120
) -> str | None:
    """Wait for the job; return what is wrong, None if nothing is."""
    ends, entry = time.monotonic() + seconds, None
    while time.monotonic() < ends:
        if answer.exists():
            record = read_if_good(answer)
            if not record.get("seen"):
                return f"node {record.get('node')} does not see the files of {folder.parents[1]}"
            if record.get("gpus", 0) < resources.gpus:
                return (
                    f"{resources.gpus} GPUs were requested, and torch sees {record.get('gpus')} on"
                    f" {record.get('node')}; what `nvidia-smi` prints there says why"
                )
            return None
        entry = client.queue().get(job, entry)
        if entry is None or not entry.active or entry.held:
            time.sleep(5)  # a network file system shows a file late
            if not answer.exists():
                break
        time.sleep(1)
    if entry and entry.active:
        why = remedy(entry.reason) or "try again when a node is free"
        return f"job {job} is {entry.state} ({entry.reason}) after {seconds:.0f} s: {why}"
    logs = [read_tail(path, 4000).decode(errors="replace") for path in folder.glob("*_log.*")]
    return (
        f"the job ended as {entry.state if entry else 'unknown'} before it could import the"
        f" package with {sys.executable}: "
        + (last_line("\n".join(logs)) or f"no log in {folder.parent}: does a node see that folder?")
    )
