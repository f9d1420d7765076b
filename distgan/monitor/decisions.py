"""What the numbers of a run mean, and what to do: pure functions of its journal and its settings.
Imports no torch.

The rules are in rules.py and progress.py, their thresholds and the tuning guides in thresholds.py;
here is what the loop and the report ask.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import numpy as np

from distgan.monitor import rules_game as rules
from distgan.monitor import rules_outcome as progress
from distgan.monitor.journal import finite, gaps, medians, read_journal, recent, score_key, series
from distgan.monitor.settings import WAVEFORM, Finding, Move, Rule, Signal, Watch

__all__ = [
    "WAVEFORM",
    "Decision",
    "Finding",
    "Move",
    "Signal",
    "Watch",
    "adapt",
    "check",
    "decide",
    "healthy",
    "present",
    "read_journal",
    "score_key",
    "series",
    "shown",
]

RATES = ("g_lr", "d_lr")


def check(rows: list[dict], settings: Watch, values: dict[str, Any] | None = None) -> list[Finding]:
    """What is wrong at the end of the journal: at most one finding per rule, warnings first, then
    in the order of `thresholds.Rule`.

    values: the run's present settings, from which the advice names its moves. Of a long journal it
    judges `journal.recent`, so a run that keeps no more and one that was continued get the same
    answer.
    """
    rows, values = recent(rows), values or {}
    found = {
        finding.rule: finding
        for rule in (*rules.ALWAYS, *(() if settings.unbounded else rules.BOUNDED))
        if (finding := rule(rows, settings, values))
    }
    told = [
        dataclasses.replace(found[rule], advice=advice(found[rule], settings, values))
        for rule in get_args(Rule)
        if rule in found
    ]
    return sorted(told, key=lambda finding: finding.level != "warning")


# ---- moves
def moves(rule: str, settings: Watch, values: dict[str, Any], in_flight: bool) -> dict[str, Any]:
    """{setting: its value after the guide's next move}.

    Of two moves of one setting, the first that has anything left.
    """
    changes: dict[str, Any] = {}
    for move in settings.moves.get(rule, ()):
        if move.in_flight == in_flight and move.setting in values and move.setting not in changes:
            new = move.next(values[move.setting])
            if new is not None:
                changes[move.setting] = new
    return changes


def advice(finding: Finding, settings: Watch, values: dict[str, Any]) -> str:
    """`d_lr 1e-4→5e-5, lambda_l1 10→5.

    Not in flight: base_filters_d 32→24; …`. A note names no moves.
    """
    parts = [finding.advice]
    if finding.level == "warning":
        now, later = (
            ", ".join(
                f"{name} {shown(values[name])}→{shown(new)}"
                for name, new in moves(finding.rule, settings, values, flight).items()
            )
            for flight in (True, False)
        )
        parts = [now, later and f"not in flight: {later}", *parts]
    return "; ".join(part for part in parts if part)


def shown(value: Any) -> str:
    """A setting as one would write it: 5e-5, 24, [0.9, 1.1]."""
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(shown, value))}]"
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    if not isinstance(value, float):
        return str(value)
    text = f"{value:.4g}" if abs(value) >= 1e-3 or value == 0 else f"{value:.3e}"
    digits, _, power = text.partition("e")
    return f"{digits.rstrip('0').rstrip('.')}e{int(power)}" if power else text


def present(values: dict[str, Any], rows: list[dict]) -> dict[str, Any]:
    """The settings of a run with what was changed in flight, as its journal tells (`adapt/g_lr`)."""
    return values | {
        key.removeprefix("adapt/"): value
        for row in rows
        for key, value in row.items()
        if key.startswith("adapt/")
    }


# ---- what to do
def adapt(findings: Sequence[Finding], settings: Watch, values: dict[str, Any]) -> dict[str, Any]:
    """New values of settings: the moves, of those that can be made in flight, of the first warning
    that has any left; {} if none has.
    """
    return _answer(findings, settings, values)[1]


def _answer(
    findings: Sequence[Finding], settings: Watch, values: dict[str, Any]
) -> tuple[str | None, dict[str, Any]]:
    answers = (
        (finding.rule, moves(finding.rule, settings, values, True))
        for finding in findings
        if finding.level == "warning"
    )
    return next(((rule, changes) for rule, changes in answers if changes), (None, {}))


@dataclass(frozen=True)
class Decision:
    """What to do now about which rule.

    `memory` is plain data, to be kept in checkpoints and given to the next `decide`.
    """

    action: Literal["nothing", "adapt", "rollback", "stop"] = "nothing"
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
    """The answer of `on_trouble` to these findings at this epoch; notes are never answered.

    A function of its arguments alone, so a run that was continued from a checkpoint decides as one
    that never stopped. After a rollback the clock has gone back: the epochs to settle count from
    the first call with the earlier epoch.
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
        return _act("stop", warnings[0].rule, {}, memory, epoch)
    if settings.on_trouble == "adapt":
        rule, changes = _answer(warnings, settings, values)
        return _act("adapt", rule, changes, memory, epoch) if rule else Decision(memory=memory)
    rule = next(
        (finding.rule for finding in warnings if finding.rule in settings.rollback_on), None
    )
    return step_back(rule, settings, values, memory, epoch) if rule else Decision(memory=memory)


def step_back(
    rule: str, settings: Watch, values: dict[str, Any], memory: dict[str, Any], epoch: float
) -> Decision:
    """Back to the last healthy checkpoint with half the rates.

    Stop, where that was done `max_rollbacks` times.
    """
    if memory.get("rollbacks", 0) >= settings.max_rollbacks:
        return _act("stop", rule, {}, memory, epoch)
    return _act(
        "rollback",
        rule,
        {name: float(f"{values[name] / 2:.12g}") for name in RATES if values.get(name)},
        memory,
        epoch,
    )


def _act(
    action: str, rule: str, changes: dict[str, Any], memory: dict[str, Any], epoch: float
) -> Decision:
    answered = memory.get("answered", {})
    return Decision(
        action,
        rule,
        changes,
        {
            "epoch": epoch,
            "rollbacks": memory.get("rollbacks", 0) + (action == "rollback"),
            "answered": answered | {rule: answered.get(rule, 0) + 1},
        },
    )


# ---- signals
def healthy(rows: list[dict], s: Watch) -> list[Signal]:
    """The signals of a healthy run, each with its recent value and range.

    The last two need no full window.
    """
    rows = recent(rows)

    def signal(
        name: str,
        value: float | None,
        enough: bool,
        low: float | None,
        high: float | None,
        meaning: str,
    ) -> Signal:
        fits = (
            value is not None and (low is None or value >= low) and (high is None or value <= high)
        )
        return Signal(
            name, value, low, high, fits if enough and value is not None else None, meaning
        )

    def median(table: np.ndarray, window: int) -> tuple[float | None, bool]:
        values = table[-window:, -1]
        return (float(np.median(values)) if len(values) else None), len(values) >= window

    def inside(key: str) -> tuple[float | None, float | None]:
        return s.healthy.get(key, (None, None))

    def ranged(name: str, key: str, meaning: str) -> list[Signal]:
        table = finite(rows, key)
        return (
            [signal(name, *median(table, s.window), *inside(key), meaning)]
            if inside(key) != (None, None) and (len(table) or not rows)
            else []
        )

    d_loss, g_loss = (
        median(finite(rows, "d/loss"), s.window),
        median(finite(rows, "g/loss"), s.window),
    )
    ratio = g_loss[0] / d_loss[0] if d_loss[0] and g_loss[0] is not None else None
    limit = rules.g_loss_limit(medians(finite(rows, "g/loss"), s.window)[:, 1], s)
    found = gaps(rows)
    gap, rising = np.column_stack([found, found[:, 2] - found[:, 1]]), finite(rows, "valid/l1")
    mark, last, _ = progress.score_mark(rows, s)
    bad = rules.nonfinite_lines(rows[-s.window :])
    d_range = (
        inside("d/loss")
        if "d/loss" in s.healthy
        else (s.d_loss_floor + (s.d_loss_strong or 0.0), s.d_loss_weak)
    )
    g_range = (
        inside("g/loss")
        if "g/loss" in s.healthy
        else (None, float(limit[-1]) if len(limit) and s.g_loss_growth else s.g_loss_high)
    )
    named = {
        "d/real_prob": ("D(x)", "real samples, as D sees them"),
        "d/fake_prob": ("D(G(z))", "generated samples, as D sees them; should drift towards 0.5"),
    }
    bounded = [
        *(
            one
            for key in ("d/real_prob", "d/fake_prob")
            for one in ranged(named[key][0], key, named[key][1])
        ),
        signal(
            "D loss",
            *d_loss,
            *d_range,
            "near its floor D has nothing left to learn and G no gradient",
        ),
        signal(
            "G loss",
            *g_loss,
            *g_range,
            "healthy range" if "g/loss" in s.healthy else "against its own lowest median",
        ),
        *(
            []
            if len(gap)
            else [
                signal(
                    "G loss / D loss",
                    ratio,
                    d_loss[1] and g_loss[1],
                    1 / s.loss_ratio,
                    s.loss_ratio,
                    "of comparable size",
                )
            ]
        ),
    ]
    others = [
        one
        for key in s.healthy
        if key not in ("d/loss", "g/loss", *named)
        for one in ranged(key, key, "healthy range")
    ]
    diversity, overfit = finite(rows, "valid/diversity"), finite(rows, "valid/overfit")
    return [
        *(() if s.unbounded else bounded),
        *others,
        *(
            [
                signal(
                    "validation L1 − training L1",
                    *median(gap, s.valid_window),
                    None,
                    s.gap_healthy,
                    "a gap means overfitting",
                )
            ]
            if len(gap)
            else []
        ),
        *(
            [
                signal(
                    "validation L1",
                    *median(rising, s.valid_window),
                    None,
                    _risen(rising, s),
                    f"may be {s.valid_rise:.0%} above its lowest median",
                )
            ]
            if len(rising) >= s.valid_window and s.valid_rise is not None
            else []
        ),
        *(
            [
                signal(
                    "diversity of samples",
                    *median(diversity, s.valid_window),
                    s.diversity_low,
                    None,
                    "against real samples: 1 is healthy, 0 mode collapse",
                )
            ]
            if len(diversity) and s.diversity_low is not None
            else []
        ),
        *(
            [
                signal(
                    "overfit of D",
                    *median(overfit, s.valid_window),
                    None,
                    s.overfit_high,
                    "(train − held-out) / (train − fake): 0 none, 1 held-out samples look"
                    " generated",
                )
            ]
            if s.overfit_high and (len(overfit) or not len(gap))
            else []
        ),
        Signal(
            "epochs without a better score",
            float(last[0] - mark[0]) if mark is not None else None,
            None,
            s.score_flat_epochs or float("inf"),
            progress.score_flat(rows, s, {}) is None if mark is not None else None,
            f"a better score is lower by {s.score_flat_change:.0%} at the least",
        ),
        signal(
            "lines with NaN or infinity",
            float(len(bad)) if rows else None,
            True,
            None,
            0.0,
            f"of the last {s.window}",
        ),
    ]


def _risen(valid: np.ndarray, s: Watch) -> float:
    return float(medians(valid, s.valid_window)[:, 1].min() * (1 + s.valid_rise))
