"""`distgan cost`: GPU-hours of runs by what became of them, and a forecast."""

import json
import statistics
from collections.abc import Sequence
from typing import Any

from distgan.core import console
from distgan.core.arguments import MANY, Command, switch
from distgan.launchers.commands.status import progress
from distgan.launchers.runs.accounting import KINDS, RunCost, run_costs
from distgan.launchers.runs.selection import HELP, RUNS, SelectedRun, select

MEANS = """useful: steps that were kept; lost: steps that had to be trained again, since no
checkpoint held them; failed: attempts that ended in an error; overhead: starting, evaluating before
the first step, leaving. The four add up to the time on nodes, Slurm's own figure if it has one."""

COMMAND = Command(
    "cost",
    f"The cost of runs on the cluster, in GPU-hours.\n\n{MEANS}",
    (RUNS, switch("json", "one JSON object for each run, a line each, in seconds")),
    ("[TARGET …]", HELP),
    most=MANY,
    epilog="example: distgan cost ngf-study",
)


def main(argv: list[str]) -> int:
    options = COMMAND.parse(argv)
    selected = select(options.runs.resolve(), options.words)
    costs = run_costs(selected)
    if options.json:
        for run, cost in zip(selected, costs, strict=True):
            console.say(json.dumps(_as_dict(run, cost)))
    elif selected:
        show(selected, costs)
    else:
        console.say("nothing was submitted yet")
    return 0


def _as_dict(run: SelectedRun, cost: RunCost) -> dict[str, Any]:
    return {
        "run": str(run.folder),
        "state": run.state.name,
        "elapsed_s": cost.elapsed,
        "queued_s": cost.queued,
        "turns": cost.turns,
        "units": cost.units,
        "unit": "gpu" if cost.gpus else "core",
        "told_by": cost.source,
        **cost.seconds,
    }


def show(selected: Sequence[SelectedRun], costs: Sequence[RunCost]) -> None:
    """Print a row for each run, their sum, and the forecast."""
    unit = "GPU-h" if any(cost.gpus for cost in costs) else "core-h"
    rows = [
        (
            f"{run.sweep}:{run.index}" if run.sweep else run.folder.name[:46],
            run.state.name,
            str(cost.turns),
            _hours(cost.hours()),
            *(_hours(cost.hours(kind)) for kind in KINDS),
            console.clock(cost.queued),
        )
        for run, cost in zip(selected, costs, strict=True)
    ]
    total = (
        "all",
        "",
        str(sum(cost.turns for cost in costs)),
        _hours(sum(cost.hours() for cost in costs)),
        *(_hours(sum(cost.hours(kind) for cost in costs)) for kind in KINDS),
        console.clock(sum(cost.queued for cost in costs)),
    )
    console.table(("run", "state", "attempts", unit, *KINDS, "in the queue"), [*rows[:200], total])
    sources = sorted({cost.source for cost in costs if cost.turns})
    console.say(f"\nsource: {', '.join(sources) or 'none yet'}. {MEANS}")
    console.say(forecast(selected, costs, unit))
    for run in selected:
        for fault in run.files.faults:
            console.say(f"warning: {run.name}: {fault}")


def forecast(selected: Sequence[SelectedRun], costs: Sequence[RunCost], unit: str) -> str:
    """Estimate what is still to come: running runs by their speed, others by the median of finished
    ones.
    """
    done = [
        cost.hours()
        for run, cost in zip(selected, costs, strict=True)
        if run.state.name == "done" and cost.turns
    ]
    hours_left, unknown = 0.0, 0
    for run, cost in zip(selected, costs, strict=True):
        if run.state.name in ("done", "failed", "cancelled", "stopped"):
            continue
        run_progress = progress(run)
        if run_progress.left_s is not None:
            hours_left += run_progress.left_s / 3600 * cost.units
        elif done:
            hours_left += statistics.median(done)
        else:
            unknown += 1
    return f"forecast: about {_hours(hours_left)} {unit}" + (
        f", and {unknown} runs of unknown cost" if unknown else ""
    )


def _hours(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.2f}" if value >= 1 else f"{value:.4f}"
