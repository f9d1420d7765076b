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
from dataclasses import replace
from typing import Any

import numpy as np

from distgan.monitor.journal import epoch_means, finite, medians, since
from distgan.monitor.results import Finding
from distgan.monitor.rules_outcome import (
    IMPROVES,
    LEAVE,
    copies,
    d_overfitting,
    mode_collapse,
    nonfinite,
    overfitting,
    score_flat,
    score_improves,
    scores_since_better,
    validation_rising,
)
from distgan.monitor.settings import Watch


def d_loss_low(rows: list[dict], s: Watch, values: dict[str, Any]) -> Finding | None:
    if s.d_loss_strong is None:
        return None
    table = finite(rows, "d/adversarial")  # without penalties
    windows = medians(table if len(table) else finite(rows, "d/loss"), s.window)
    above = windows[:, 1] - s.least_d_loss
    at = since(above < s.d_loss_strong, above >= s.d_loss_strong * s.release)
    if at is None:
        return None
    collapsed = s.d_loss_collapsed is not None and above[-1] < s.d_loss_collapsed
    means = (
        "the discriminator may have collapsed: it has nothing left to learn, and G gets no usable"
        " gradient"
        if collapsed
        else "D too strong"
    )
    return _of_strength(
        Finding(
            "d_loss_low",
            "warning",
            float(windows[at, 0]),
            f"D loss {windows[-1, 1]:.3g} (median of {s.window} lines), limit"
            f" {s.least_d_loss + s.d_loss_strong:.3g}: {means}",
            "train D less, or make it smaller",
        ),
        rows,
        s,
    )


def _of_strength(finding: Finding, rows: list[dict], s: Watch) -> Finding:
    """Return a finding about D's strength, as a note while the score improves; where D's gradient
    is gone, while the last score is the best.

    Not for pairs, whose score follows from their L1 loss, whatever D does.
    """
    norms = medians(finite(rows, "d/grad_norm"), s.window)[:, 1]
    gone = len(norms) > 0 and norms[-1] <= 1e-6 * norms.max()
    gradient = f"; D's gradient is {norms[-1]:.2g}" if gone else ""
    if any("g/l1" in row for row in rows) or not score_improves(rows, s, 1 if gone else None):
        return replace(finding, message=finding.message + gradient)
    measured = finding.message.partition(": ")[0]  # what it would mean is not so
    message = f"{measured}: D is strong{gradient}{IMPROVES}"
    return replace(finding, level="note", message=message, advice=LEAVE)


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
    return _of_strength(
        Finding(
            "d_too_strong",
            "warning",
            float(windows[at, 0]),
            f"D(x) {real[-1]:.3g}, above {s.real_prob_high:g}, while D(G(z)) {fake[-1]:.2g}, below"
            f" {s.fake_prob_low:g} (medians of {s.window} lines): D too strong, it separates all"
            " samples",
            "first take one more G step for each D step, up to 1:3",
        ),
        rows,
        s,
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
    _, _, after = scores_since_better(rows, s)
    level = (
        "note"
        if real >= end - s.real_prob_reach and 0 <= after < s.score_flat_evaluations
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


def _outgrown(windows: np.ndarray, size: int, growth: float) -> np.ndarray:
    """Return the limit of each median: `growth` times the highest one of the first quarter of the
    run until there; infinity until that quarter holds two windows.
    """
    epochs = windows[:, 0]
    quarter = np.searchsorted(epochs, epochs[:1] + (epochs - epochs[:1]) / 4, side="right") - 1
    highest = np.maximum.accumulate(windows[:, 1])[quarter]
    return np.where(quarter >= size, growth * highest, math.inf)


def gradients_exploding(rows: list[dict], s: Watch, values: dict[str, Any]) -> Finding | None:
    """Find a gradient norm, before clipping, that grows out of its own history.

    It may rise far in a young run: while the score improves it is a note, up to the third power of
    `grad_growth`.
    """
    if s.grad_growth is None:
        return None
    clip, found, far = values.get("clip"), [], False
    for player in ("g", "d"):
        windows = medians(finite(rows, f"{player}/grad_norm"), s.window)
        limit = _outgrown(windows, s.window, s.grad_growth)
        at = since(windows[:, 1] > limit, windows[:, 1] < limit / s.release)
        if at is None:
            continue
        far |= bool(windows[-1, 1] > limit[-1] * s.grad_growth**2)
        found.append(
            (
                float(windows[at, 0]),
                f"gradient norm of {player.upper()} {windows[-1, 1]:.3g} (median of {s.window}"
                f" lines), limit {limit[-1]:.3g}",
            )
        )
    if not found:
        return None
    note = not far and score_improves(rows, s)
    return Finding(
        "gradients_exploding",
        "note" if note else "warning",
        min(epoch for epoch, _ in found),
        "; ".join(text for _, text in found)
        + f", {s.grad_growth:g} times the highest in the first quarter of the run: exploding"
        + (f"; clip={clip:g} hides it from the losses" if clip else "")
        + (IMPROVES if note else ""),
        LEAVE
        if note
        else "go back to an earlier checkpoint; look for samples with extreme values (distgan check"
        " DATA)",
    )


def critic_drift(rows: list[dict], s: Watch, values: dict[str, Any]) -> Finding | None:
    """Find a Wasserstein estimate that grows and grows, while the score does not improve.

    It rises while the critic learns, and should fall as G follows.
    """
    if s.critic_growth is None or score_improves(rows, s):
        return None
    table = finite(rows, "d/wasserstein")
    windows = medians(table if len(table) else np.abs(finite(rows, "d/loss")), s.window)
    limit = _outgrown(windows, s.window, s.critic_growth)
    at = since(windows[:, 1] > limit, windows[:, 1] < limit / s.release)
    if at is None:
        return None
    return Finding(
        "critic_drift",
        "warning",
        float(windows[at, 0]),
        f"Wasserstein estimate {windows[-1, 1]:.4g} (median of {s.window} lines), limit"
        f" {limit[-1]:.3g}, {s.critic_growth:g} times its highest in the first quarter of the run:"
        " it should fall as G follows, and the score does not improve",
        "a gradient penalty in place of weight clipping, or a stronger one; keep the best"
        " checkpoint",
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


Rule = Callable[[list[dict], Watch, dict[str, Any]], Finding | None]
ALWAYS: tuple[Rule, ...] = (
    nonfinite,
    mode_collapse,
    overfitting,
    validation_rising,
    d_overfitting,
    copies,
    score_flat,
    gradients_exploding,
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


def rules(s: Watch) -> tuple[Rule, ...]:
    """Return the rules that apply to a loss.

    No range of losses and outputs holds for an unbounded critic, but some such losses have a floor.
    """
    if s.unbounded:
        return (*ALWAYS, d_loss_low if s.floored else critic_drift)
    return (*ALWAYS, *BOUNDED)
