"""Print the plan of a sweep before anything is submitted."""

from collections import Counter

from distgan.core import console
from distgan.launchers.runs.accounting import estimate
from distgan.launchers.runs.selection import SelectedRun
from distgan.launchers.sweeps.members import Sweep

SHOWN = 24  # members that are listed run by run


# ---- showing
def show(sweep: Sweep, selected: list[SelectedRun], wanted: set[int]) -> None:
    """Print members and states, what will be submitted, and what that may cost."""
    console.say(
        f"sweep {sweep.name}: {len(selected)} runs of {sweep.definition.recipe}\njob        "
        f" {sweep.resources.describe()}\n"
    )
    keys = [*dict.fromkeys(key for member in sweep.members for key in member.values)]
    rows = [
        (
            str(index),
            *(str(sweep.members[index].values.get(key, "–")) for key in keys),
            run.state.name,
            (
                "submit"
                if index in wanted
                else {
                    "done": "–",
                    "failed": "leave (--retry failed)",
                    "cancelled": "leave (--retry cancelled)",
                    "stopped": "leave (--retry stopped)",
                }.get(run.state.name, "leave")
            ),
        )
        for index, run in enumerate(selected[:SHOWN])
    ]
    console.table(("", *keys, "state", "to do"), rows)
    if len(selected) > SHOWN:
        console.say(f"… and {len(selected) - SHOWN} more")
    states = Counter(run.state.name for run in selected)
    console.say(
        f"\n{', '.join(f'{count} {state}' for state, count in states.items())}; to submit:"
        f" {len(wanted)}"
    )
    finished = [run.folder for run in selected if run.state.name == "done"]
    if wanted:
        console.say(f"cost        {estimate(sweep.resources, finished, len(wanted))}")
