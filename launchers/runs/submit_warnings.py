"""Warn of settings of the cluster that would hurt runs, before they are submitted."""

from collections.abc import Sequence
from pathlib import Path

from distgan.core.reading import parse_json, read_lines
from distgan.launchers.runs.plan import PlannedRun
from distgan.launchers.slurm.limits import read_limits
from distgan.launchers.slurm.profiles import Resources
from distgan.launchers.slurm.submission import passed_on
from distgan.monitor.journal import finite_number


def collect(resources: Resources, planned: Sequence[PlannedRun]) -> list[str]:
    """Return warnings as sentences; [] if there are none."""
    facts, warnings = read_limits(resources.partition), []
    if facts.preempt_mode in ("CANCEL", "SUSPEND", "SUSPEND,GANG", "GANG,SUSPEND"):
        warnings.append(
            f"a job that is preempted here is not queued again (PreemptMode={facts.preempt_mode}):"
            " `distgan retry` does that"
        )
    slowest = max(
        (seconds for run in planned if (seconds := save_seconds(run.folder))), default=None
    )
    if slowest and facts.preempt_mode != "OFF" and slowest + 1 > facts.seconds_to_save:
        warnings.append(
            f"a preempted job has {facts.seconds_to_save} s (GraceTime {facts.grace} + KillWait"
            f" {facts.kill_wait}), and saving took up to {slowest:.1f} s before: what was trained"
            " since the last checkpoint would be lost; checkpoint more often"
            " (machine.checkpoint_every=…)"
        )
    if passed := passed_on(resources):
        given = " ".join(f"{name}={value}" for name, value in sorted(passed.items()))
        warnings.append(f"sbatch adds what this shell has set: {given}")
    if slowest and slowest * 2 + 10 > resources.signal_lead_s:
        warnings.append(
            f"signal_lead_s={resources.signal_lead_s}, and saving took up to {slowest:.1f} s"
            f" before; ask for --set signal_lead_s={int(slowest * 3 + 30)}"
        )
    if not facts.requeues:
        warnings.append(
            "this cluster does not queue jobs again (JobRequeue=0): a preempted or timed-out run"
            " waits for `distgan retry`"
        )
    return warnings


def save_seconds(folder: Path) -> float | None:
    """Return the longest time that a checkpoint of this run has taken, or of a run beside it if it
    has none yet; None if unknown.
    """
    beside = [folder / "events.jsonl", *sorted(folder.parent.glob("*/events.jsonl"))[:20]]
    for path in beside:
        try:
            lines = read_lines(path)
        except OSError:
            continue
        times = []
        for line in lines:
            try:
                event = parse_json(line)
                if event["event"] == "checkpoint":
                    times.append(finite_number(event["seconds"]) or 0.0)
            except (ValueError, KeyError, TypeError):
                continue
        if any(times):
            return max(times)
    return None
