"""Print the plan of a sweep before anything is submitted."""

from collections import Counter

from distgan.core import console
from distgan.launchers.runs.accounting import estimate
from distgan.launchers.runs.selection import SelectedRun
from distgan.launchers.sweeps.members import Sweep

SHOWN = 24  # members that are listed one by one


# ---- showing
def show(sweep: Sweep, found: list[SelectedRun], wanted: set[int]) -> None:
    """The plan, before anything is done."""
    console.say(
        f"sweep {sweep.name}: {len(found)} runs of {sweep.definition.recipe}\njob        "
        f" {sweep.resources.describe()}\n"
    )
    keys = [*dict.fromkeys(key for one in sweep.members for key in one.values)]
    rows = [
        (
            str(index),
            *(str(sweep.members[index].values.get(key, "–")) for key in keys),
            one.state.name,
            (
                "submit"
                if index in wanted
                else {
                    "done": "–",
                    "failed": "leave (--retry failed)",
                    "cancelled": "leave (--retry cancelled)",
                    "stopped": "leave (--retry stopped)",
                }.get(one.state.name, "leave")
            ),
        )
        for index, one in enumerate(found[:SHOWN])
    ]
    console.table(("", *keys, "state", "to do"), rows)
    if len(found) > SHOWN:
        console.say(f"… and {len(found) - SHOWN} more")
    states = Counter(one.state.name for one in found)
    console.say(
        f"\n{', '.join(f'{count} {state}' for state, count in states.items())}; to submit:"
        f" {len(wanted)}"
    )
    finished = [one.folder for one in found if one.state.name == "done"]
    if wanted:
        console.say(f"cost        {estimate(sweep.resources, finished, len(wanted))}")
