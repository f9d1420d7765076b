"""`distgan why`: print why a run ended, or does not begin: cause, evidence, next command."""

import re
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from distgan.core import console
from distgan.core.arguments import MANY, Command
from distgan.launchers.commands.causes import LINES, SLURM, Cause, match
from distgan.launchers.commands.launch_causes import match_launch, waiting
from distgan.launchers.runs.selection import RUNS, TARGET, SelectedRun, select
from distgan.launchers.slurm import client
from distgan.launchers.slurm.job_records import launch_log, records, tail
from distgan.launchers.slurm.ledger import Ledger
from distgan.launchers.slurm.limits import remedy
from distgan.runs.records import read_if_good

# Causes that say less than what a job prints before its first step.
VAGUE = (
    *("refused", "an exception", "import error", "disk full", "port in use"),
    "lost another process",
)
COMMAND = Command(
    "why",
    "Why runs ended as they did, or do not begin: cause, evidence, next command.",
    (RUNS,),
    ("TARGET …", TARGET),
    least=1,
    most=MANY,
    epilog="example: distgan why ngf-study:3",
)


def main(argv: list[str]) -> int:
    options = COMMAND.parse(argv)
    for run in select(options.runs.resolve(), options.words):
        say(run)
    return 0


def say(run: SelectedRun) -> None:
    matched, name = cause(run), f"{run.sweep}:{run.index}" if run.sweep else run.folder.name
    nodes = run.files.job.get("nodes") or (run.queue_entry.nodes if run.queue_entry else "")
    words = {"TARGET": name, "RUN": str(run.folder), "NODE": matched.node or nodes}
    if not words["NODE"] or set("[,") & set(words["NODE"]):  # one of several: no one knows which
        words["NODE"] = "NODE"
    console.say(
        f"{name}  {run.folder}\n  state    "
        f" {run.state.name}{f': {run.state.why}' if run.state.why else ''}\n  cause    "
        f" {matched.name}: {matched.meaning}"
    )
    for line in (*run.files.faults, *matched.evidence):
        console.say(f"  evidence  {line[:200]}")
    then = re.sub(r"TARGET|RUN|\bNODE\b", lambda word: shlex.quote(words[word[0]]), matched.then)
    console.say(f"  next      {then}\n")


def cause(run: SelectedRun) -> Cause:
    """Return the cause of a run's state."""
    turns = records(run.folder)
    last = turns[-1] if turns else {}
    name = run.state.name
    if name == "done":
        return Cause("done", "it has trained to its end", "distgan report RUN", _history(turns))
    if name in ("queued", "requeued", "held"):
        return _waits(run, turns)
    if name in ("running", "stopping"):
        nodes = run.queue_entry.nodes if run.queue_entry else last.get("host", "this machine")
        return Cause(
            name,
            f"it is on {nodes}",
            "distgan logs -f TARGET",
            _history(turns, running=True),
        )
    if name == "new" and (words := Ledger(run.folder.parents[1]).refusal(run.folder)):
        said, _, advice = words.partition("\n")
        return Cause(
            "refused by Slurm" if "refused" in said else "not submitted",
            "Slurm has no job of it",
            f"{remedy(said) or advice or 'mend that'}; then the line that submits it, again",
            (said,),
        )
    if name in ("new", "uncertain"):
        return Cause(
            name, run.state.why or "it was not submitted yet", "the line that submits it, again"
        )
    if name == "stopped":
        return Cause(
            "stopped",
            f"it was asked to save and leave ({run.state.why or 'STOP'})",
            "distgan retry TARGET",
            _history(turns),
        )
    return _ended(run, turns, last)


def _ended(run: SelectedRun, turns: Sequence[Mapping[str, Any]], last: Mapping[str, Any]) -> Cause:
    """Return why a run failed, was cancelled or is lost: Slurm's word if the job was ended from
    outside, else the run's own.
    """
    record = (
        read_if_good(run.folder / "attempts" / last["attempt"] / "attempt.json") if last else {}
    )
    own_cause = next(
        (
            text
            for text in (
                record.get("cause"),
                run.files.status.get("cause"),
                run.files.refused,
                last.get("cause"),
            )
            if text and text not in ("done", "stopped")
        ),
        "",
    )
    slurm = run.queue_entry.state if run.queue_entry else _accounted(run)
    if run.state.name == "cancelled":
        return _with(SLURM["CANCELLED"], _history(turns))
    if "no progress: " in (run.files.refused or ""):
        own_cause = run.files.refused or ""
    text = tail(run.folder / "attempts" / last["attempt"]) if last else ""
    text = f"{own_cause}\n{text}\n{_launch_log(run)}"
    # Before the first step what a job prints says more than what the trainer makes of it.
    began = (run.folder / "journal.jsonl").exists()
    launch = None if began else match_launch(text)
    if own_cause:
        matched = match(own_cause, own_cause)
        vague = {*VAGUE} - {"disk full"} if launch else {"refused", "an exception"}
        if matched and matched.name not in vague:
            return _with(matched, (own_cause.splitlines()[0], *_history(turns)[-2:]))
    matched = match(text, own_cause)
    if launch and (matched is None or matched.name in VAGUE):
        return launch
    if matched and not (slurm in SLURM and matched.name == "an exception"):
        return matched
    if slurm in SLURM:
        return _with(SLURM[slurm], _history(turns))
    return _launch_failure(run) or Cause(
        "unknown",
        "neither Slurm, nor the run, nor its logs show it",
        "distgan logs TARGET; distgan retry TARGET",
        _history(turns),
    )


def _launch_log(run: SelectedRun) -> str:
    """Return the output of the job before the run had a log."""
    if not run.submitted or not run.submitted.key:
        return ""
    return launch_log(run.folder, run.submitted.submission.id, run.submitted.key) or ""


def _waits(run: SelectedRun, turns: Sequence[Mapping[str, Any]]) -> Cause:
    entry = run.queue_entry
    reason = entry.reason if entry else ""
    meaning, then = waiting(reason, run.key or "JOB")
    start = entry.start if entry and entry.start not in ("N/A", "") else "unknown"
    return Cause(
        run.state.name,
        f"{reason or 'waiting'}: {meaning}",
        then or "distgan status --watch TARGET",
        (f"expected start: {start}", *_history(turns)),
    )


def _history(turns: Sequence[Mapping[str, Any]], running: bool = False) -> tuple[str, ...]:
    """Return a line for each of the last attempts. `running`: the last one goes on."""
    lines = [
        f"attempt {turn['attempt']}: job {turn['job']} on {turn.get('nodes')}, steps"
        f" {turn.get('step', 0)} to {turn.get('last_step', '?')},"
        f" {turn.get('cause') or 'ended without a record'}"
        for turn in turns[-4:]
    ]
    if running and lines:
        last = turns[-1]
        lines[-1] = (
            f"attempt {last['attempt']}: job {last['job']} on {last.get('nodes')}, from step"
            f" {last.get('step', 0)}, goes on"
        )
    return tuple(lines)


def _accounted(run: SelectedRun) -> str | None:
    spells = (
        client.job_spans([run.submitted.key])
        if run.submitted and run.submitted.key and client.is_available()
        else None
    )
    return spells[-1].state if spells else None


def _launch_failure(run: SelectedRun) -> Cause | None:
    record = (
        client.show("job", run.submitted.key)
        if run.submitted and run.submitted.key and client.is_available()
        else {}
    )
    if record.get("Reason") == "JobLaunchFailure" or record.get("ExitCode") == "0:53":
        return Cause(
            "launch failure",
            "Slurm could not start the job's script: most often its output folder does not exist on"
            " the node, or the node's disk is full",
            f"is {run.folder.parents[1]} a folder that all nodes see? Then: distgan retry TARGET",
            (
                (
                    f"Reason={record.get('Reason')} ExitCode={record.get('ExitCode')}"
                    f" StdOut={record.get('StdOut')}"
                ),
            ),
        )
    return None


def _with(matched: Cause, evidence: Sequence[str]) -> Cause:
    return Cause(matched.name, matched.meaning, matched.then, tuple(evidence)[:LINES])
