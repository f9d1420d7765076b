"""`distgan why`: print why a run ended, or does not begin: cause, evidence, next command."""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from distgan.core import console
from distgan.launchers.commands.causes import LINES, SLURM, Cause, match
from distgan.launchers.runs import selection
from distgan.launchers.runs.selection import SelectedRun
from distgan.launchers.runs.state import read
from distgan.launchers.slurm import client
from distgan.launchers.slurm.job_records import records, tail


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="distgan why",
        description="Why runs ended as they did, or do not begin: cause, evidence, next command.",
        allow_abbrev=False,
        epilog="example: distgan why ngf-study:3",
    )
    parser.add_argument(
        "targets", nargs="+", metavar="TARGET", help=selection.HELP.partition("; without")[0]
    )
    parser.add_argument(
        "--runs",
        type=Path,
        default=Path("runs"),
        metavar="FOLDER",
        help="the folder of runs (default runs)",
    )
    options = parser.parse_args(argv)
    for one in selection.select(options.runs.resolve(), options.targets):
        say(one)
    return 0


def say(one: SelectedRun) -> None:
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


def cause(one: SelectedRun) -> Cause:
    """Return the cause of a run's state."""
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
            f"it is on {one.queue_entry.nodes if one.queue_entry else last.get('host', 'this machine')}",
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


def _ended(one: SelectedRun, turns: Sequence[Mapping[str, Any]], last: Mapping[str, Any]) -> Cause:
    """Return why a run failed, was cancelled or is lost: Slurm's word if the job was ended from
    outside, else the run's own.
    """
    record = read(one.folder / "attempts" / last["attempt"] / "attempt.json") if last else {}
    own = next(
        (
            text
            for text in (
                record.get("cause"),
                one.files.status.get("cause"),
                one.files.refused,
                last.get("cause"),
            )
            if text and text not in ("done", "stopped")
        ),
        "",
    )
    slurm = one.queue_entry.state if one.queue_entry else _accounted(one)
    if one.state.name == "cancelled":
        return _with(SLURM["CANCELLED"], _history(turns))
    if "no progress: " in (one.files.refused or ""):
        own = one.files.refused or ""
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
        "neither Slurm, nor the run, nor its logs show it",
        "distgan logs TARGET; distgan retry TARGET",
        _history(turns),
    )


def _waits(one: SelectedRun, turns: Sequence[Mapping[str, Any]]) -> Cause:
    reason = one.queue_entry.reason if one.queue_entry else ""
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
        "see REASON CODES in the manual of squeue",
    )
    start = (
        one.queue_entry.start
        if one.queue_entry and one.queue_entry.start not in ("N/A", "")
        else "unknown"
    )
    return Cause(
        one.state.name,
        f"{reason or 'waiting'}: {why}",
        "distgan status --watch TARGET",
        (f"expected start: {start}", *_history(turns)),
    )


def _history(turns: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """Return a line for each of the last attempts."""
    return tuple(
        f"attempt {turn['attempt']}: job {turn['job']} on {turn.get('nodes')}, steps"
        f" {turn.get('step', 0)} to {turn.get('last_step', '?')},"
        f" {turn.get('cause') or 'ended without a record'}"
        for turn in turns[-4:]
    )


def _accounted(one: SelectedRun) -> str | None:
    spells = (
        client.job_spans([one.submitted.key])
        if one.submitted and one.submitted.key and client.is_available()
        else None
    )
    return spells[-1].state if spells else None


def _submitit(one: SelectedRun) -> str:
    """Return the output of the job before the run had a log."""
    if not one.submitted or not one.submitted.key:
        return ""
    texts = []
    for path in sorted(
        (one.folder.parents[1] / "_slurm" / one.submitted.submission.id).glob(
            f"{one.submitted.key}_*_log.*"
        )
    ):
        try:
            texts.append(path.read_text(errors="replace")[-8000:])
        except OSError:
            continue
    return "\n".join(texts)


def _launch_failure(one: SelectedRun) -> Cause | None:
    record = (
        client.show("job", one.submitted.key)
        if one.submitted and one.submitted.key and client.is_available()
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
