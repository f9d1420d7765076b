"""The verdict on a run: one sentence, which report, tables, status, terminal and sweep show as it
is. Imports no torch.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

from distgan.monitor.decisions import evaluate_rules
from distgan.monitor.journal import (
    at_last_check,
    current_settings,
    finite,
    finite_number,
    score_key,
)
from distgan.monitor.rules_outcome import score_improves
from distgan.monitor.settings import Watch
from distgan.monitor.success.criteria import criteria
from distgan.monitor.success.criterion import Criterion, count

Level = Literal[
    "success", "reservations", "undecided", "early", "improving", "short", "failed", "unjudged"
]
LEADS: dict[Level, str] = {
    "success": "success",
    "reservations": "good, with reservations",
    "undecided": "undecided",
    "early": "too early to judge",
    "improving": "not good yet, but improving",
    "short": "not good enough",
    "failed": "failed",
    "unjudged": "not judged",
}
LOOKS = 3  # evaluations after the start, below which a run that is no success has not failed


@dataclass(frozen=True)
class Verdict:
    """`raised`: the rules of all warnings that were raised, in order; `holding`: of those that hold
    at the last check.
    """

    level: Level
    sentence: str
    criteria: tuple[Criterion, ...]
    raised: tuple[str, ...]
    holding: tuple[str, ...]

    def of_state(self, state: str) -> list[str]:
        """Return the names of the criteria in a state: `met`, `not met` …"""
        return [one.name for one in self.criteria if one.state == state]


def judge(
    rows: list[dict], values: dict[str, Any], watch: Watch, warnings: Iterable[dict]
) -> Verdict:
    """Judge a run by its journal as it stands at the last validation or evaluation, so that the
    sentence is the same until the next one.

    values: the settings, flat; warnings: the events `warning` of the run.
    """
    rows = at_last_check(rows)
    if not rows:
        return Verdict("unjudged", "not judged: the journal holds no validation yet", (), (), ())
    last = rows[-1]["step"]
    # A run that was made longer has checks at its former ends; one trained at once has not.
    rows = [row for row in rows if not row.get("unscheduled") or row["step"] == last]
    values, once = current_settings(values, rows), _once(warnings)
    found = tuple(criteria(rows, values, watch, once))
    findings = evaluate_rules(rows, watch, values)
    holding = tuple(one.rule for one in findings if one.level == "warning")
    raised = tuple(str(event.get("rule")) for event in once)
    if any(row.get("unscheduled") for row in rows):
        # The monitor does not judge what is run only because a run ends here.
        holding = tuple(rule for rule in holding if rule in raised)
    raised += tuple(rule for rule in holding if rule not in raised)
    level, why = _level(rows, values, watch, found, raised, holding)
    parts = [f"{LEADS[level]}{': ' if why else ''}{', '.join(why)}", _counts(found)]
    enough = sum("seconds" in row for row in rows) >= watch.window
    parts.append(_warnings(raised, holding, enough))
    return Verdict(level, "; ".join(part for part in parts if part), found, raised, holding)


def _once(warnings: Iterable[dict]) -> list[dict]:
    """Return the warnings without notes, and without those that a continued run raised again."""
    found = {
        tuple(str(event.get(key)) for key in ("step", "epoch", "rule")): event
        for event in warnings
        if event.get("level", "warning") == "warning"
    }
    return list(found.values())


def _level(
    rows: list[dict],
    values: dict[str, Any],
    watch: Watch,
    found: tuple[Criterion, ...],
    raised: tuple[str, ...],
    holding: tuple[str, ...],
) -> tuple[Level, list[str]]:
    """Return the level and the reasons for it."""
    if not found:
        return "unjudged", ["no success criterion applies to the numbers of this run"]
    failed = [one for one in found if one.outcome and one.met is False]
    faults = [one.fault for one in failed] + ["numbers are not finite"] * ("nonfinite" in holding)
    missing = [one.name for one in found if one.outcome and one.state == "not measured"]
    looks = _looks(rows)
    if (faults or missing) and looks < LOOKS:
        return "early", [f"{count(looks, 'evaluation')} after the start, {LOOKS} are needed"]
    if faults:
        improves = all(one.early for one in failed) and score_improves(rows, watch)
        lost = "nonfinite" in holding or _collapsed(rows, values, watch, raised)
        if lost:
            return "failed", faults
        if improves:
            return "improving", faults
        return ("failed" if missing or not all(one.near for one in failed) else "short"), faults
    early = [one.name for one in found if one.state == "not measured" and one.early]
    if early and not _ended(rows, values):
        return "early", [f"too few lines or epochs for {', '.join(early)}"]
    if missing:
        return "undecided", [f"not measured: {', '.join(missing)}"]
    reservations = [
        f"{one.name} {one.state}"
        for one in found
        if one.state in ("not met", "not measured") and one.name != "warnings"
    ]
    return ("reservations" if reservations or raised else "success"), reservations


def _looks(rows: list[dict]) -> int:
    """Return how many evaluations, or validations where nothing is evaluated, were made after the
    start.
    """
    begins = "eval/" if score_key(rows) else "valid/"
    steps = {
        row["step"]
        for row in rows
        if row["epoch"] > 0 and any(key.startswith(begins) for key in row)
    }
    return len(steps)


def _collapsed(
    rows: list[dict], values: dict[str, Any], watch: Watch, raised: tuple[str, ...]
) -> bool:
    """Return True if a run has ended with samples that are alike. Before its end they may be the
    mean image that a young G draws while its score improves.
    """
    diversity = finite(rows, "valid/diversity")[-watch.valid_window :, 1]
    alike = len(diversity) > 0 and sorted(diversity)[len(diversity) // 2] < (
        watch.diversity_low or 0
    )
    return "mode_collapse" in raised or alike and _ended(rows, values)


def _ended(rows: list[dict], values: dict[str, Any]) -> bool:
    epochs = finite_number(values.get("epochs"))
    return epochs is not None and rows[-1]["epoch"] >= epochs


def _counts(found: tuple[Criterion, ...]) -> str:
    if not found:
        return ""
    states = [one.state for one in found]
    parts = [f"{states.count('met')} of {len(found)} success criteria met"]
    parts += [
        f"{states.count(state)} {state}"
        for state in ("not measured", "unreachable")
        if state in states
    ]
    return ", ".join(parts)


def _warnings(raised: tuple[str, ...], holding: tuple[str, ...], enough: bool) -> str:
    if not raised:
        return "no warning raised" if enough else "too few journal lines for warnings"
    names = ", ".join(dict.fromkeys(raised))
    if not holding:
        return f"{count(len(raised), 'warning')} raised ({names}), none holds"
    if len(holding) == len(raised) == len(set(raised)):
        return f"{count(len(raised), 'warning')} raised and {_holds(len(holding))} ({names})"
    still = ", ".join(holding)
    return (
        f"{count(len(raised), 'warning')} raised ({names}), {len(holding)}"
        f" {_holds(len(holding))} ({still})"
    )


def _holds(n: int) -> str:
    return "holds" if n == 1 else "hold"
