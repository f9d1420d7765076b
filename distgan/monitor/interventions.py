"""Read the monitor's interventions from the events and the journal of a run. Imports no torch."""

from collections.abc import Sequence
from dataclasses import dataclass

from distgan.monitor.journal import finite_number

STOPPED = (  # how the reason of an early end begins if the monitor stopped the run
    "watch.on_trouble=stop"
)


@dataclass(frozen=True)
class Intervention:
    """An action of the monitor: `adapt`, `rollback` or `stop`."""

    action: str
    time: str | None
    epoch: float | None  # at which the run went on; after a rollback, that of the checkpoint
    rule: str
    changes: str


def interventions(events: Sequence[dict]) -> list[Intervention]:
    """Return the interventions in order, including those that a rollback has removed from the
    journal.
    """
    made = []
    for event in events:
        action, rule, changes = (
            event.get("event"),
            event.get("rule"),
            event.get("moves") or event.get("changes") or "–",
        )
        if action == "done" and str(event.get("early")).startswith(STOPPED):
            action, rule, changes = "stop", str(event["early"]).rpartition(" ")[2], "–"
        if action not in ("adapt", "rollback", "stop"):
            continue
        if isinstance(changes, dict):
            changes = ", ".join(f"{name}→{value}" for name, value in changes.items())
        if "from_step" in event:
            changes = f"from step {event['from_step']} back to {event.get('to_step')}; {changes}"
        made.append(
            Intervention(
                action,
                event.get("time"),
                finite_number(event.get("epoch")),
                str(rule or "–"),
                str(changes),
            )
        )
    return made


def marks(made: Sequence[Intervention], rows: Sequence[dict]) -> list[tuple[float, str]]:
    """Return (epoch, action) of what curves should mark, each once: of the interventions, and of
    journal lines with `adapt/…` that are in no event.
    """
    marks = {(round(each.epoch, 3), each.action) for each in made if each.epoch is not None}
    known = {epoch for epoch, _ in marks}
    marks |= {
        (epoch, "adapt")
        for row in rows
        if any(key.startswith("adapt/") for key in row)
        and (epoch := round(row["epoch"], 3)) not in known
    }
    return sorted(marks)
