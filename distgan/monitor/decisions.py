"""Evaluate the rules, name the guide's next moves, decide what to do: pure functions of the journal
and the settings of a run. Imports no torch.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, cast, get_args

from distgan.monitor.journal import recent
from distgan.monitor.moves import Rule, format_setting, is_rate
from distgan.monitor.results import Finding
from distgan.monitor.rules_game import rules
from distgan.monitor.settings import Watch

Action = Literal["nothing", "adapt", "rollback", "stop"]


def evaluate_rules(
    rows: list[dict], settings: Watch, values: dict[str, Any] | None = None
) -> list[Finding]:
    """Return the findings at the end of the journal: at most one per rule, warnings first, then in
    the order of `moves.Rule`.

    values: the run's current settings, from which the advice computes the next moves. Only
    `journal.recent(rows)` is evaluated, so a run that keeps no more and one that was continued get
    the same findings.
    """
    rows, values = recent(rows), values or {}
    findings = {
        finding.rule: finding
        for rule in rules(settings)
        if (finding := rule(rows, settings, values))
    }
    ordered = [
        dataclasses.replace(findings[rule], advice=advice(findings[rule], settings, values))
        for rule in get_args(Rule)
        if rule in findings
    ]
    return sorted(ordered, key=lambda finding: finding.level != "warning")


# ---- moves
def next_moves(
    rule: str, settings: Watch, values: dict[str, Any], in_flight: bool
) -> dict[str, Any]:
    """Return {setting: its value after the guide's next move}; {} of a rule without moves.

    Of two moves of one setting, the first that is applicable counts.
    """
    changes: dict[str, Any] = {}
    for move in settings.moves.get(cast(Rule, rule), ()):
        if move.in_flight == in_flight and move.setting in values and move.setting not in changes:
            new = move.next(values[move.setting])
            if new is not None:
                changes[move.setting] = new
    return changes


def advice(finding: Finding, settings: Watch, values: dict[str, Any]) -> str:
    """Return the next moves and what else helps, as in `d_lr 1e-4→5e-5, lambda_l1 10→5; not in
    flight: base_filters_d 32→24; …`. A note names no moves.
    """
    parts = [finding.advice]
    if finding.level == "warning":
        now, later = (
            ", ".join(
                f"{name} {format_setting(values[name])}→{format_setting(new)}"
                for name, new in next_moves(finding.rule, settings, values, flight).items()
            )
            for flight in (True, False)
        )
        parts = [now, later and f"not in flight: {later}", *parts]
    return "; ".join(part for part in parts if part)


# ---- what to do
def adapt(findings: Sequence[Finding], settings: Watch, values: dict[str, Any]) -> dict[str, Any]:
    """Return new values of settings: the moves in flight for the first warning that has applicable
    ones; {} if none has.
    """
    return _first_applicable_move(findings, settings, values)[1]


def _first_applicable_move(
    findings: Sequence[Finding], settings: Watch, values: dict[str, Any]
) -> tuple[str | None, dict[str, Any]]:
    answers = (
        (finding.rule, next_moves(finding.rule, settings, values, True))
        for finding in findings
        if finding.level == "warning"
    )
    return next(((rule, changes) for rule, changes in answers if changes), (None, {}))


@dataclass(frozen=True)
class Decision:
    """An action of the monitor and the rule that caused it.

    `memory` is plain data: keep it in checkpoints and pass it to the next `decide`.
    """

    action: Action = "nothing"
    rule: str | None = None
    changes: dict[str, Any] = field(
        default_factory=dict
    )  # settings and their new values, with adapt and rollback
    memory: dict[str, Any] = field(
        default_factory=dict
    )  # {"epoch": of the last intervention, "rollbacks": n, "answered": {rule: times}}


def decide(
    findings: Sequence[Finding],
    settings: Watch,
    values: dict[str, Any],
    memory: dict[str, Any],
    epoch: float,
) -> Decision:
    """Return how `on_trouble` responds to the warnings at this epoch; notes have no response.

    A function of its arguments alone, so a run that was continued from a checkpoint decides as one
    that never stopped. After a rollback the clock has gone back: `settle_epochs` count from the
    first call with the earlier epoch.
    """
    warnings = [finding for finding in findings if finding.level == "warning"]
    if memory and epoch < memory["epoch"]:
        memory = memory | {"epoch": epoch}
    if (
        settings.on_trouble == "warn"
        or not warnings
        or memory
        and epoch - memory["epoch"] < settings.settle_epochs
    ):
        return Decision(memory=memory)

    if settings.on_trouble == "stop":
        return _decision("stop", warnings[0].rule, {}, memory, epoch)
    back = [finding.rule for finding in warnings if finding.rule in settings.rollback_on]
    if settings.goes_back and back:
        return rollback_decision(back[0], settings, values, memory, epoch)
    if settings.on_trouble != "rollback":
        rule, changes = _first_applicable_move(warnings, settings, values)
        if rule:
            return _decision("adapt", rule, changes, memory, epoch)
    return Decision(memory=memory)


def rollback_decision(
    rule: str, settings: Watch, values: dict[str, Any], memory: dict[str, Any], epoch: float
) -> Decision:
    """Decide to roll back to the last healthy checkpoint, or to stop after `max_rollbacks`
    rollbacks.

    With it go half the learning rates; with on_trouble=rollback_adapt the moves of the rule in
    flight, as long as any is left.
    """
    if memory.get("rollbacks", 0) >= settings.max_rollbacks:
        return _decision("stop", rule, {}, memory, epoch)
    moves: dict[str, Any] = {}
    if settings.on_trouble == "rollback_adapt":
        moves = next_moves(rule, settings, values, in_flight=True)
    halved = {
        name: float(f"{rate / 2:.12g}")
        for name, rate in values.items()
        if is_rate(name) and rate and type(rate) is float
    }
    return _decision("rollback", rule, moves or halved, memory, epoch)


def _decision(
    action: Action, rule: str, changes: dict[str, Any], memory: dict[str, Any], epoch: float
) -> Decision:
    responses = memory.get("answered", {})
    return Decision(
        action,
        rule,
        changes,
        {
            "epoch": epoch,
            "rollbacks": memory.get("rollbacks", 0) + (action == "rollback"),
            "answered": responses | {rule: responses.get(rule, 0) + 1},
        },
    )
