"""Health rules of the game between D and G; rules_outcome has those of its results. Imports no
torch.

Each rule is a pure function (lines of the journal, thresholds, settings) -> Finding or None. It
evaluates the median of a window of lines, so a single noisy step raises nothing; a finding begins
when the median passes its threshold, and ends only when the median is back past it by the factor
`release`. With fewer lines than a window there is no finding, except of numbers that are not
finite. `Finding.advice` holds what helps beside the guide's moves, which
`decisions.evaluate_rules` puts before it.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from distgan.monitor.journal import epoch_means, finite, medians, since
from distgan.monitor.results import Finding
from distgan.monitor.rules_outcome import (
    d_overfitting,
    mode_collapse,
    overfitting,
    score_flat,
    score_mark,
    validation_rising,
)
from distgan.monitor.settings import Watch


def nonfinite_lines(rows: list[dict]) -> list[tuple[float, list[str]]]:
    """Return (epoch, keys) of each line that holds a NaN, an infinity or null."""
    bad = [
        (
            row["epoch"],
            [
                key
                for key, value in row.items()
                if "/" in key
                and (value is None or isinstance(value, float) and not math.isfinite(value))
            ],
        )
        for row in rows
    ]
    return [(epoch, keys) for epoch, keys in bad if keys]


def _never_finite(rows: list[dict], count: int) -> list[str]:
    """Return the keys of validations and scores whose last `count` values were not finite.

    These are too rare for a window of lines.
    """
    seen: dict[str, list[bool]] = {}
    for row in reversed([row for row in rows if "seconds" not in row]):
        for key, value in row.items():
            if (
                key.startswith(("valid/", "eval/"))
                and len(values := seen.setdefault(key, [])) < count
            ):
                values.append(
                    value is None or isinstance(value, float) and not math.isfinite(value)
                )
    return [key for key, values in seen.items() if len(values) == count and all(values)]


def nonfinite(rows: list[dict], s: Watch, values: dict[str, Any]) -> Finding | None:
    if s.nonfinite_lines is None:
        return None
    if blind := _never_finite(rows, s.nonfinite_lines):
        return Finding(
            "nonfinite",
            "warning",
            rows[-1]["epoch"],
            f"NaN or infinity in the last {s.nonfinite_lines} of {', '.join(blind)}",
            "look for held-out samples with bad values (distgan check DATA), or a network that"
            " overflows in eval mode; without a finite score no checkpoint is the best",
        )
    bad = nonfinite_lines(rows[-s.window :])
    if not bad:
        return None
    total = min(len(rows), s.window)
    lasting = len(bad) >= min(s.nonfinite_lines, total)
    names = ", ".join(sorted({key for _, keys in bad for key in keys}))
    return Finding(
        "nonfinite",
        "warning" if lasting else "note",
        bad[0][0],
        f"NaN or infinity in {len(bad)} of the last {total} lines: {names}",
        (
            "go back to an earlier checkpoint"
            if lasting
            else "no action needed for single steps: they are skipped"
        ),
    )


def d_loss_low(rows: list[dict], s: Watch, values: dict[str, Any]) -> Finding | None:
    if s.d_loss_strong is None:
        return None
    windows = medians(finite(rows, "d/loss"), s.window)
    above = windows[:, 1] - s.d_loss_floor
    at = since(above < s.d_loss_strong, above >= s.d_loss_strong * s.release)
    if at is None:
        return None
    collapsed = s.d_loss_collapsed is not None and above[-1] < s.d_loss_collapsed
    limit = s.d_loss_floor + (s.d_loss_collapsed if collapsed else s.d_loss_strong)
    means = (
        "the discriminator may have collapsed; it has nothing left to learn, and G gets no usable"
        " gradient"
        if collapsed
        else "D too strong"
    )
    return Finding(
        "d_loss_low",
        "warning",
        float(windows[at, 0]),
        f"D loss {windows[-1, 1]:.3g} (median of {s.window} lines), healthy above "
        f"{s.d_loss_floor + s.d_loss_strong:.3g}, limit {limit:.3g}: {means}",
        "train D less, or make it smaller",
    )


def d_loss_high(rows: list[dict], s: Watch, values: dict[str, Any]) -> Finding | None:
    if s.d_loss_weak is None:
        return None
    windows = medians(finite(rows, "d/loss"), s.window)
    at = since(windows[:, 1] > s.d_loss_weak, windows[:, 1] <= s.d_loss_weak / s.release)
    if at is None:
        return None
    return Finding(
        "d_loss_high",
        "warning",
        float(windows[at, 0]),
        f"D loss {windows[-1, 1]:.3g} (median of {s.window} lines), limit {s.d_loss_weak:.3g}: "
        "D too weak, its gradient is of little use to G",
        "make D larger, or let it learn faster",
    )


def d_too_strong(rows: list[dict], s: Watch, values: dict[str, Any]) -> Finding | None:
    if s.real_prob_high is None or s.fake_prob_low is None:
        return None
    windows = medians(finite(rows, "d/real_prob", "d/fake_prob"), s.window)
    real, fake = windows[:, 1], windows[:, 2]
    at = since(
        (real > s.real_prob_high) & (fake < s.fake_prob_low),
        (real < s.real_prob_high / s.release) | (fake > s.fake_prob_low * s.release),
    )
    if at is None:
        return None
    return Finding(
        "d_too_strong",
        "warning",
        float(windows[at, 0]),
        f"D(x) {real[-1]:.3g}, above {s.real_prob_high:g}, while D(G(z)) {fake[-1]:.2g}, below"
        f" {s.fake_prob_low:g} (medians of {s.window} lines): D too strong, it separates all"
        " samples",
        "first take one more G step for each D step, up to 1:3",
    )


def real_prob_low(rows: list[dict], s: Watch, values: dict[str, Any]) -> Finding | None:
    """Find D(x) below `real_prob_low`.

    A D that cannot separate real from generated samples outputs the mean of both labels (Goodfellow
    et al. 2014, proposition 1, with soft labels): 0.45 for 0.9 and 0. Near it, and while the score
    improves, the finding is a note.
    """
    if s.real_prob_low is None:
        return None
    windows = medians(finite(rows, "d/real_prob", "d/fake_prob"), s.window)
    at = since(windows[:, 1] < s.real_prob_low, windows[:, 1] >= s.real_prob_low * s.release)
    if at is None:
        return None
    real, fake = windows[-1, 1:]
    end = (_label(values, "real_label", 1.0) + _label(values, "fake_label", 0.0)) / 2
    mark, _, evaluations = score_mark(rows, s)
    level = (
        "note"
        if real >= end - s.real_prob_reach
        and mark is not None
        and evaluations < s.score_flat_evaluations
        else "warning"
    )
    means = (
        f"near {end:.3g}, the expected equilibrium for these labels, and the score still improves"
        if level == "note"
        else "D classifies real samples as generated"
    )
    return Finding(
        "real_prob_low",
        level,
        float(windows[at, 0]),
        f"D(x) {real:.3g} (median of {s.window} lines), healthy from {s.real_prob_low:g}; "
        f"D(G(z)) {fake:.3g}: {means}",
        "no action needed"
        if level == "note"
        else "let D catch up: d_lr not below g_lr, D:G steps 1:1",
    )


def fake_prob_high(rows: list[dict], s: Watch, values: dict[str, Any]) -> Finding | None:
    if s.fake_prob_high is None:
        return None
    windows = medians(finite(rows, "d/real_prob", "d/fake_prob"), s.window)
    at = since(windows[:, 2] > s.fake_prob_high, windows[:, 2] <= s.fake_prob_high / s.release)
    if at is None:
        return None
    real, fake = windows[-1, 1:]
    separates = real > fake * s.release
    return Finding(
        "fake_prob_high",
        "note" if separates else "warning",
        float(windows[at, 0]),
        f"D(G(z)) {fake:.3g} (median of {s.window} lines), limit "
        f"{s.fake_prob_high:g}; D(x) {real:.3g}: "
        + (
            "D still separates the two, but leans to real"
            if separates
            else "D too weak, it classifies generated samples as real"
        ),
        (
            "no action needed while D(x) stays above D(G(z))"
            if separates
            else "let D catch up: d_lr not below g_lr, D:G steps 1:1"
        ),
    )


def g_loss_limit(windows: np.ndarray, s: Watch) -> np.ndarray:
    """Return the upper limits of the G loss, one for each median.

    They follow from its lowest median so far, which an explosion cannot move.
    """
    lowest = np.minimum.accumulate(windows) if len(windows) else windows
    return np.maximum((s.g_loss_growth or math.inf) * lowest, s.g_loss_high)


def g_loss_exploding(rows: list[dict], s: Watch, values: dict[str, Any]) -> Finding | None:
    if s.g_loss_growth is None:
        return None
    windows = medians(finite(rows, "g/loss"), s.window)
    limit = g_loss_limit(windows[:, 1], s)
    at = since(windows[:, 1] > limit, windows[:, 1] < limit / s.release)
    if at is None:
        return None
    low = int(windows[:, 1].argmin())
    return Finding(
        "g_loss_exploding",
        "warning",
        float(windows[at, 0]),
        f"G loss {windows[-1, 1]:.3g} (median of {s.window} lines), limit {limit[-1]:.3g}; its"
        " lowest"
        f" was {windows[low, 1]:.3g} at epoch {windows[low, 0]:.4g}: exploding, the learning rate"
        " is"
        " too high",
        "with D(x) → 1 and D(G(z)) → 0, one more G step",
    )


def gan_loss_stagnant(rows: list[dict], s: Watch, values: dict[str, Any]) -> Finding | None:
    """Find a GAN loss of G that stays the same from epoch to epoch.

    A note if D's loss is in its healthy range: then neither side wins, and the game may have
    reached its equilibrium.
    """
    means, judged = gan_means(rows, s)
    if s.stagnant_change is None or len(judged) < s.stagnant_epochs:
        return None
    change = np.abs(np.diff(means[:, 1]))[judged]
    small = np.lib.stride_tricks.sliding_window_view(
        change < s.stagnant_change, s.stagnant_epochs
    ).all(axis=1)
    bad = np.concatenate([np.zeros(s.stagnant_epochs - 1, bool), small])
    at = since(bad, change >= s.stagnant_change * s.release)
    if at is None:
        return None
    first = judged[at] - s.stagnant_epochs + 1
    low, high = s.healthy.get("d/loss", (None, None))
    d_loss = finite(rows, "d/loss")[-s.window :, 1]
    balanced = (
        low is not None
        and high is not None
        and len(d_loss) > 0
        and low <= np.median(d_loss) <= high
    )
    means_that = (
        f"D loss {np.median(d_loss):.3g} is healthy, so the game may have reached its equilibrium"
        if balanced
        else "stagnant, G learns nothing from D"
    )
    return Finding(
        "gan_loss_stagnant",
        "note" if balanced else "warning",
        float(means[first, 0]),
        f"GAN loss of G from {means[first, 1]:.3g} in epoch {means[first, 0]:.0f} to"
        f" {means[-1, 1]:.3g} in epoch {means[-1, 0]:.0f}, changing by less than"
        f" {s.stagnant_change:g} between epochs (means over each): {means_that}",
        "no action needed while the score improves"
        if balanced
        else "train D less, or make it smaller",
    )


def gan_means(rows: list[dict], s: Watch) -> tuple[np.ndarray, np.ndarray]:
    """Return ([epochs, 2]: number and mean of G's GAN loss of each whole epoch; the indices i,
    after `stagnant_after`, whose change to i + 1 is evaluated).
    """
    table = finite(rows, "g/adversarial")
    table = table if len(table) else finite(rows, "g/loss")
    if not len(table):
        return table, np.empty(0, int)
    means = epoch_means(table, rows[-1]["epoch"])
    # Counted from where the GAN loss begins, which may be late (gan_start_epoch).
    return means, np.flatnonzero(means[1:, 0] > math.floor(table[0, 0]) + s.stagnant_after)


def _label(values: dict[str, Any], name: str, usual: float) -> float:
    value = values.get(name)
    return float(value) if isinstance(value, int | float) else usual


# For an unbounded critic, no range of losses and outputs is evaluated.
ALWAYS: tuple[Callable[[list[dict], Watch, dict[str, Any]], Finding | None], ...] = (
    nonfinite,
    mode_collapse,
    overfitting,
    validation_rising,
    d_overfitting,
    score_flat,
)
BOUNDED = (
    d_loss_low,
    d_too_strong,
    g_loss_exploding,
    gan_loss_stagnant,
    d_loss_high,
    real_prob_low,
    fake_prob_high,
)
