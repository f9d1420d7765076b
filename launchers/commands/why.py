"""`distgan why`: why a run ended as it did, or does not begin: the cause, the lines that show it,
and the next command.
"""

import argparse
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from distgan.core import console
from distgan.launchers.runs import selection as targets
from distgan.launchers.runs.selection import Found
from distgan.launchers.runs.state import read
from distgan.launchers.slurm import client as cluster
from distgan.launchers.slurm.job_records import records, tail

LINES = 6  # of evidence


@dataclass(frozen=True)
class Cause:
    """`name` in a word or two, what it means, lines that show it, what to do."""

    name: str
    meaning: str
    then: str
    evidence: tuple[str, ...] = field(default=())


# What a log says -> (cause, meaning, what to do). The first that fits is it: the more telling stand
# above.
SIGNS: tuple[tuple[str, str, str, str], ...] = (
    (
        r"CUDA out of memory|torch\.OutOfMemoryError|OutOfMemoryError",
        "out of GPU memory",
        "the per-rank batch does not fit",
        (
            "machine.accumulation=2 halves what a step needs and changes no result; `distgan train"
            " … --find-batch` finds the largest"
        ),
    ),
    (
        (
            r"out of memory|MemoryError|can't allocate memory|Cannot allocate"
            r" memory|DefaultCPUAllocator|oom[-_ ]kill|Exceeded job memory limit|exceeded memory"
            r" limit|std::bad_alloc"
        ),
        "out of memory",
        "the node's memory, or the job's share of it, is used up",
        (
            "more memory (distgan retry TARGET --set mem_gb=…), or machine.accumulation=2,"
            " machine.workers=1, a smaller machine.resident_mb"
        ),
    ),
    (
        r"bad numbers: |not finite|is NaN",
        "bad numbers",
        "losses or gradients were not finite, again and again",
        "look at RUN/mishaps and `distgan report RUN`; lower rates (g_lr, d_lr), or clipping",
    ),
    (
        (
            r"No space left on device|cannot write .*: (No space|Disk quota|File too large)|Disk"
            r" quota exceeded"
        ),
        "disk full",
        "a file of the run could not be written",
        "make room, then: distgan retry TARGET",
    ),
    (
        r"ModuleNotFoundError|ImportError|No module named",
        "import error",
        "the job's Python lacks a module, or the code that was submitted is not whole",
        (
            "install it in that environment, or load it in the profile's setup; then: distgan retry"
            " TARGET"
        ),
    ),
    (
        r"holds other values than rank 0",
        "ranks drifted apart",
        (
            "two ranks hold other weights: a machine that computes wrongly, or two versions of the"
            " program"
        ),
        (
            "leave that node out (distgan retry TARGET --set exclude=NODE), or distgan doctor"
            " --processes 2"
        ),
    ),
    (
        (
            r"(?i:(NCCL|gloo).{0,200}(timed? ?out|timeout))|Watchdog caught collective|another"
            r" process of this run has gone, or does not answer|Connection closed by peer"
        ),
        "lost another process",
        "a process waited for another that had gone or hung",
        (
            "the other ranks' logs say why: distgan logs TARGET --rank 1; it goes on from the last"
            " checkpoint: distgan retry TARGET"
        ),
    ),
    (
        r"EADDRINUSE|Address already in use",
        "port in use",
        "another program has taken the port",
        "distgan retry TARGET",
    ),
    (
        r"Timeout \(\d+:\d\d:\d\d\)!",
        "hung",
        "no progress for machine.stall_s seconds; stacks-rank*.txt say where each process stood",
        "distgan retry TARGET, which goes on from the last checkpoint",
    ),
    (
        r"no progress: ",
        "no progress",
        "job after job ended before a checkpoint was written",
        "machine.checkpoint_every smaller, or more time: distgan retry TARGET --set time=24h",
    ),
    (
        r"^error: ",
        "refused",
        "the run told what is wrong",
        "mend what it says, then: distgan retry TARGET, or submit a run with other settings",
    ),
    (
        r"Traceback \(most recent call last\)|^\w*(Error|Exception)\b",
        "an exception",
        "the program raised an error",
        "distgan logs TARGET shows all of it",
    ),
)
SLURM = {
    "NODE_FAIL": Cause(
        "node failure",
        "the node stopped answering",
        "it goes on by itself where Slurm queues it again, else: distgan retry TARGET",
    ),
    "OUT_OF_MEMORY": Cause(
        "out of memory",
        "Slurm ended the job since it used more memory than it had asked for",
        "distgan retry TARGET --set mem_gb=…",
    ),
    "TIMEOUT": Cause(
        "time limit",
        "the job's time ended before it had saved and asked for another turn",
        "distgan retry TARGET --set time=…, or a larger signal_lead_s",
    ),
    "CANCELLED": Cause("cancelled", "it was cancelled", "distgan retry TARGET"),
    "BOOT_FAIL": Cause("node failure", "the node did not start", "distgan retry TARGET"),
    "DEADLINE": Cause(
        "deadline", "its deadline passed before it could end", "distgan retry TARGET --set time=…"
    ),
}


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="distgan why",
        description="Why runs ended as they did, or do not begin: cause, evidence, next command.",
        allow_abbrev=False,
        epilog="example: distgan why ngf-study:3",
    )
    parser.add_argument(
        "targets", nargs="+", metavar="TARGET", help=targets.HELP.partition("; without")[0]
    )
    parser.add_argument(
        "--runs",
        type=Path,
        default=Path("runs"),
        metavar="FOLDER",
        help="the folder of runs (default runs)",
    )
    options = parser.parse_args(argv)
    for one in targets.find(options.runs.resolve(), options.targets):
        say(one)
    return 0


def say(one: Found) -> None:
    found, name = cause(one), f"{one.sweep}:{one.index}" if one.sweep else one.folder.name
    console.say(
        f"{name}  {one.folder}\n  state    "
        f" {one.state.name}{f': {one.state.why}' if one.state.why else ''}\n  cause    "
        f" {found.name}: {found.meaning}"
    )
    for line in found.evidence:
        console.say(f"  evidence  {line[:200]}")
    console.say(
        f"  next      {found.then.replace('TARGET', name).replace('RUN', str(one.folder))}\n"
    )


def cause(one: Found) -> Cause:
    """Of a run in whatever state."""
    turns = records(one.folder)
    last = turns[-1] if turns else {}
    name = one.state.name
    if name == "done":
        return Cause("done", "it has trained to its end", "distgan report RUN", _history(turns))
    if name in ("queued", "requeued"):
        return _waits(one, turns)
    if name in ("running", "stopping"):
        return Cause(
            name,
            f"it is on {one.row.nodes if one.row else last.get('host', 'this machine')}",
            "distgan logs -f TARGET",
            _history(turns),
        )
    if name in ("new", "uncertain"):
        return Cause(
            name, one.state.why or "it was not submitted yet", "the line that submits it, again"
        )
    if name == "stopped":
        return Cause(
            "stopped",
            f"it was asked to save and leave ({one.state.why or 'STOP'})",
            "distgan retry TARGET",
            _history(turns),
        )
    return _ended(one, turns, last)


def _ended(one: Found, turns: Sequence[Mapping[str, Any]], last: Mapping[str, Any]) -> Cause:
    """Failed, cancelled or lost.

    Slurm's word for what ended the job from outside, the run's own for the rest.
    """
    record = read(one.folder / "attempts" / last["attempt"] / "attempt.json") if last else {}
    own = next(
        (
            text
            for text in (
                record.get("cause"),
                one.look.status.get("cause"),
                one.look.refused,
                last.get("cause"),
            )
            if text and text not in ("done", "stopped")
        ),
        "",
    )
    slurm = one.row.state if one.row else _accounted(one)
    if one.state.name == "cancelled":
        return _with(SLURM["CANCELLED"], _history(turns))
    if "no progress: " in (one.look.refused or ""):
        own = one.look.refused or ""
    if own:
        found = match(own, own)
        if found and found.name not in ("refused", "an exception"):
            return _with(found, (own.splitlines()[0], *_history(turns)[-2:]))
    text = tail(one.folder / "attempts" / last["attempt"]) if last else ""
    if (found := match(own + "\n" + text + "\n" + _submitit(one), own)) and not (
        slurm in SLURM and found.name == "an exception"
    ):
        return found
    if slurm in SLURM:
        return _with(SLURM[slurm], _history(turns))
    launch = _launch_failure(one)
    return launch or Cause(
        "unknown",
        "neither Slurm, nor the run, nor its logs tell",
        "distgan logs TARGET; distgan retry TARGET",
        _history(turns),
    )


def match(text: str, first: str = "") -> Cause | None:
    """The most telling sign in a log, with the lines around it.

    In what was recorded, then in the errors, then anywhere.
    """
    errors = "\n".join(
        line
        for line in text.splitlines()
        if re.match(r"\s*(\[rank\d+\]:\s*)?(error: |[\w.]*(Error|Exception)\b.*:)", line)
    )
    own = [line for line in errors.splitlines() if not re.search(_ECHO, line)]
    for where in (first, "\n".join(own), *([] if own else [errors])):
        found = _match(where, text, first)
        if found and found.name not in ("refused", "an exception"):
            return found
    return _match("\n".join(own), text, first) or _match(text, text, first)


# Of a process that lost another: what that one says counts for more. And what torch's launcher and
# submitit say of any failure.
_ECHO = (
    r"another process of this run has gone|Connection closed by"
    r" peer|ChildFailedError|CalledProcessError|RendezvousConnectionError|FailedJobError|srun:"
    r" error"
)


def _match(where: str, text: str, first: str) -> Cause | None:
    for pattern, name, meaning, then in SIGNS:
        if re.search(pattern, where, re.MULTILINE):
            hits = [line.strip() for line in text.splitlines() if re.search(pattern, line)]
            told = [line.strip() for line in first.splitlines()[:1] if line.strip()]
            errors = [
                line.strip()
                for line in text.splitlines()
                if re.match(r"\s*(error: |\w*(Error|Exception)\b.*:)", line)
            ]
            mine = [
                line.strip()
                for line in where.splitlines()
                if re.search(pattern, line, re.MULTILINE)
            ]
            lines = list(dict.fromkeys([*told, *mine[-2:], *hits[-2:], *errors[-2:]]))[:LINES]
            return Cause(name, meaning, then, tuple(lines))
    return None


def _waits(one: Found, turns: Sequence[Mapping[str, Any]]) -> Cause:
    reason = one.row.reason if one.row else ""
    said = {
        "Priority": "other jobs come first",
        "Resources": "no node is free for it",
        "JobArrayTaskLimit": "as many of the sweep run as may at a time (--max-parallel)",
        "BeginTime": "Slurm lets a requeued job wait two minutes or so",
        "Dependency": "it waits for another job",
        "DependencyNeverSatisfied": "the run it grows from has failed",
        "QOSMaxSubmitJobPerUserLimit": "this user's limit of jobs",
        "AssocGrpGRES": "the account's GPUs are in use",
        "ReqNodeNotAvail": "nodes are reserved or down",
        "PartitionTimeLimit": (
            "it asks for more time than the partition allows: distgan cancel TARGET, then submit"
            " with a shorter --time"
        ),
    }
    why = next(
        (text for key, text in said.items() if reason.startswith(key)),
        "Slurm's word for it is in squeue's manual, under REASON CODES",
    )
    start = one.row.start if one.row and one.row.start not in ("N/A", "") else "unknown"
    return Cause(
        one.state.name,
        f"{reason or 'waiting'}: {why}",
        "distgan status --watch TARGET",
        (f"expected start: {start}", *_history(turns)),
    )


def _history(turns: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """A line for each of the last turns on nodes."""
    return tuple(
        f"turn {turn['attempt']}: job {turn['job']} on {turn.get('nodes')}, steps"
        f" {turn.get('step', 0)} to {turn.get('last_step', '?')},"
        f" {turn.get('cause') or 'ended without a record'}"
        for turn in turns[-4:]
    )


def _accounted(one: Found) -> str | None:
    spells = (
        cluster.spells([one.place.key]) if one.place and one.place.key and cluster.here() else None
    )
    return spells[-1].state if spells else None


def _submitit(one: Found) -> str:
    """What the job printed before the run had a log of its own."""
    if not one.place or not one.place.key:
        return ""
    texts = []
    for path in sorted(
        (one.folder.parents[1] / "_slurm" / one.place.submission.id).glob(
            f"{one.place.key}_*_log.*"
        )
    ):
        try:
            texts.append(path.read_text(errors="replace")[-8000:])
        except OSError:
            continue
    return "\n".join(texts)


def _launch_failure(one: Found) -> Cause | None:
    record = (
        cluster.record("job", one.place.key)
        if one.place and one.place.key and cluster.here()
        else {}
    )
    if record.get("Reason") == "JobLaunchFailure" or record.get("ExitCode") == "0:53":
        return Cause(
            "launch failure",
            "Slurm could not start the job's script: most often its output folder does not exist on"
            " the node, or the node's disk is full",
            f"is {one.folder.parents[1]} a folder that all nodes see? Then: distgan retry TARGET",
            (
                (
                    f"Reason={record.get('Reason')} ExitCode={record.get('ExitCode')}"
                    f" StdOut={record.get('StdOut')}"
                ),
            ),
        )
    return None


def _with(found: Cause, evidence: Sequence[str]) -> Cause:
    return Cause(found.name, found.meaning, found.then, tuple(evidence)[:LINES])
