"""Account for the seconds that runs spent on nodes, by what became of them: from sacct if the
cluster has it, else from the records of the jobs.
"""

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from distgan.launchers.runs.selection import SelectedRun
from distgan.launchers.slurm import client
from distgan.launchers.slurm.job_records import newest_step, records, trained
from distgan.launchers.slurm.profiles import Resources

KINDS = ("useful", "lost", "failed", "overhead")


@dataclass
class RunCost:
    """The cost of a run. `seconds`: on nodes, by kind; they add up to `elapsed`, which is Slurm's
    own figure if `source` is sacct.
    """

    elapsed: float = 0.0
    queued: float = 0.0
    units: int = 1  # GPUs, or processors where there is none
    gpus: bool = False
    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(KINDS, 0.0))
    turns: int = 0
    source: str = "the jobs' own records"

    def hours(self, kind: str | None = None) -> float:
        """Return GPU-hours, or core-hours without GPUs."""
        return (self.elapsed if kind is None else self.seconds[kind]) * self.units / 3600


def run_costs(selected: Sequence[SelectedRun]) -> list[RunCost]:
    """Return the cost of each run, by one call of sacct."""
    jobs = {
        record["job"]
        for run in selected
        for record in records(run.folder)
        if record["job"][:1].isdecimal()  # else it was no job of Slurm
    }
    spells = (
        client.job_spans({job.partition("_")[0] for job in jobs})
        if jobs and client.is_available()
        else None
    )
    by_job: dict[str, list[client.JobSpan]] = {}
    for spell in spells or []:
        by_job.setdefault(spell.key, []).append(spell)
    return [run_cost(run.folder, by_job if spells is not None else None) for run in selected]


def run_cost(folder: Path, spells: dict[str, list[client.JobSpan]] | None) -> RunCost:
    """Return the cost of a run. `spells`: stays on nodes by job, from sacct; None without sacct.

    Useful: steps that were kept. Lost: steps that had to be trained again. Failed: attempts that
    ended in an error. Overhead: the rest, as starting, validation and evaluation before the first
    step, saving, waiting for the end.
    """
    cost, turns = RunCost(), records(folder)
    for number, turn in enumerate(turns):
        began = turn.get("slurm_start") or turn["started"]
        ended = (
            turn.get("ended")
            or turn.get("heard")
            or _last_sign(folder, turn, turns[number + 1] if number + 1 < len(turns) else None)
        )
        seconds = max(0.0, ended - began) / max(1, turn.get("shared_by", 1))
        spell = _spell(spells, turn)
        if spell is not None:
            seconds, cost.source = spell.seconds / max(1, turn.get("shared_by", 1)), "sacct"
        cost.elapsed += seconds
        cost.turns += 1
        cost.gpus, cost.units = bool(turn.get("gpus")), turn.get("gpus") or turn.get("cpus") or 1
        cost.queued += max(0.0, began - (turn.get("queued") or began))
        for kind, share in _split(
            folder, turn, seconds, running=number + 1 == len(turns) and "trained_s" not in turn
        ).items():
            cost.seconds[kind] += share
    return cost


def _spell(
    spells: dict[str, list[client.JobSpan]] | None, turn: dict[str, Any]
) -> client.JobSpan | None:
    """Return the stay on nodes that began when this attempt did."""
    if not spells:
        return None
    near = [
        span
        for span in spells.get(turn["job"], [])
        if (start := client.parse_time(span.start))
        and turn.get("slurm_start")
        and abs(start - turn["slurm_start"]) < 2
    ]
    return near[0] if near else None


def _split(folder: Path, turn: dict[str, Any], seconds: float, running: bool) -> dict[str, float]:
    """Divide the seconds of one attempt by kind."""
    if turn.get("kind") == "error":
        return {"failed": seconds}
    total, kept = (
        (turn["trained_s"], turn["kept_s"])
        if "trained_s" in turn
        else trained(folder, turn.get("step", 0), newest_step(folder))
    )
    if running:  # what comes after its last checkpoint may still be saved
        kept = total
    useful, total = min(seconds, kept), min(seconds, total)
    return {"useful": useful, "lost": total - useful, "overhead": seconds - total}


def _last_sign(folder: Path, turn: dict[str, Any], after: dict[str, Any] | None) -> float:
    """Return the time of the last sign of an attempt without an end: a node that failed writes no
    record.
    """
    newest = max(
        (path.stat().st_mtime for path in (folder / "attempts" / turn["attempt"]).glob("*")),
        default=turn["started"],
    )
    return min(newest, after["started"]) if after else min(newest, time.time())


def estimate(resources: Resources, finished: Sequence[Path], count: int) -> str:
    """Estimate the cost of `count` more runs: from the median of finished ones, else at most the
    time limit.
    """
    gpus = resources.gpus * resources.nodes
    unit, each = (
        ("GPU-hours", gpus)
        if gpus
        else ("core-hours", resources.cpus * resources.per_node * resources.nodes)
    )
    finished_s = [seconds for folder in finished if (seconds := node_seconds(folder))]
    if finished_s:
        hours = statistics.median(finished_s) / 3600
        return (
            f"about {_number(hours * each * count)} {unit}: {count} runs,"
            f" each like the median of {len(finished_s)} finished ones"
        )
    return (
        f"at most {_number(resources.minutes / 60 * each * count / resources.pack)} {unit} until"
        " the first time limit; there is no finished run to estimate from"
    )


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def node_seconds(folder: Path) -> float:
    """Return the seconds that a run was on nodes by its own records; 0 if it was not."""
    return run_cost(folder, None).elapsed
