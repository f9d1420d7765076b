"""Success criteria of the game between D and G: outputs and losses of D, the GAN loss of G, the
Wasserstein estimate, warnings. Imports no torch.
"""

import dataclasses
from typing import Any

import numpy as np

from distgan.monitor.journal import epoch_means, finite, finite_number, medians
from distgan.monitor.rules_game import gan_means
from distgan.monitor.settings import Watch
from distgan.monitor.success.criterion import Criterion, count, in_range


# ---- pairs: the waveform system
def d_loss(rows: list[dict], s: Watch) -> Criterion:
    low, high = s.healthy.get("d/loss", (None, None))
    return _stays(
        "D loss",
        "d/loss",
        rows,
        low if low is not None else s.d_loss_floor + (s.d_loss_strong or 0),
        high if high is not None else s.d_loss_weak,
        s,
    )


def _stays(
    name: str, key: str, rows: list[dict], low: float | None, high: float | None, s: Watch
) -> Criterion:
    """Judge D of pairs: their L1 falls whatever D does, so one outside at the end has failed."""
    required = f"stays {in_range(low, high)} after epoch {s.stagnant_after:g} (means over each)"
    table = finite(rows, key)
    means = epoch_means(table, rows[-1]["epoch"])
    means = means[means[:, 0] > (np.floor(table[0, 0]) if len(table) else 0) + s.stagnant_after]
    if not len(means):
        return Criterion(
            name, None, f"no whole epoch after epoch {s.stagnant_after:g} yet", required, early=True
        )
    out = means[
        (means[:, 1] < (-np.inf if low is None else low))
        | (means[:, 1] > (np.inf if high is None else high)),
        0,
    ]
    measured = (
        f"{means[:, 1].min():.3g} to {means[:, 1].max():.3g} in epochs {means[0, 0]:.0f} to"
        f" {means[-1, 0]:.0f}"
    )
    if len(out):
        measured += f"; outside in {len(out)} of {len(means)}, first in epoch {out[0]:.0f}"
    last = float(means[-1, 1])
    at_end = len(out) > 0 and out[-1] == means[-1, 0]
    how = "too low" if low is not None and last < low else "too high"
    return Criterion(
        name, not len(out), measured, required, at_end, f"{name} {how} at the end ({last:.3g})"
    )


def gan_loss(rows: list[dict], s: Watch) -> Criterion:
    required = (
        f"keeps moving after epoch {s.stagnant_after:g}: no {s.stagnant_epochs} changes in a row"
        f" below {s.stagnant_change:g} (means over each epoch)"
    )
    means, judged = gan_means(rows, s)
    if len(judged) < s.stagnant_epochs:
        return Criterion(
            "GAN loss of G",
            None,
            f"{len(judged)} changes between whole epochs after epoch {s.stagnant_after:g},"
            f" {s.stagnant_epochs} are needed",
            required,
            early=True,
        )
    small = np.abs(np.diff(means[:, 1]))[judged] < s.stagnant_change
    streak = longest = 0
    for one in small:
        streak = streak + 1 if one else 0
        longest = max(longest, streak)
    later = means[judged[0] :, 1]
    return Criterion(
        "GAN loss of G",
        longest < s.stagnant_epochs,
        f"{later.min():.3g} to {later.max():.3g}; {small.sum()} of {len(small)} changes below"
        f" {s.stagnant_change:g}, at most {longest} in a row",
        required,
    )


def no_warning(rows: list[dict], warnings: list[dict]) -> Criterion:
    raised = [event for event in warnings if event.get("level", "warning") == "warning"]
    if not raised:
        return Criterion(
            "warnings",
            True if rows else None,
            "none" if rows else "nothing was evaluated yet",
            "none was raised",
        )
    names = ", ".join(
        dict.fromkeys(
            f"{event.get('rule')} (epoch {finite_number(event.get('epoch')) or 0:.4g})"
            for event in raised
        )
    )
    return Criterion("warnings", False, f"{len(raised)}: {names}", "none was raised")


# ---- samples from noise: the sagan and wgan_flowers systems
def real_prob(rows: list[dict], values: dict[str, Any], s: Watch) -> Criterion:
    """A D that cannot tell real from generated ends at the mean of its two labels: where that is
    below the range, a D near it does not miss the target, the target is out of reach.
    """
    low, high = s.healthy.get("d/real_prob", (None, None))
    made = now("D(x)", rows, "d/real_prob", low, high, s)
    label, other = (finite_number(values.get(name)) for name in ("real_label", "fake_label"))
    other = other or 0.0
    if made.met is not False or label is None or low is None:
        return made
    end, value = (label + other) / 2, float(np.median(finite(rows, "d/real_prob")[-s.window :, 1]))
    measured = f"{made.measured}; the expected equilibrium for these labels is {end:.3g}"
    if end < low and end - s.real_prob_reach <= value < low:
        return dataclasses.replace(made, met=None, measured=measured, unreachable=True)
    return dataclasses.replace(made, measured=measured)


def now(
    name: str, rows: list[dict], key: str, low: float | None, high: float | None, s: Watch
) -> Criterion:
    """Judge the median of the last lines."""
    required = f"{in_range(low, high)} at the end (median of {s.window} lines)"
    values = finite(rows, key)[-s.window :, 1]
    if len(values) < s.window:
        return Criterion(
            name, None, f"{count(len(values), 'line')}, {s.window} are needed", required, early=True
        )
    value = float(np.median(values))
    return Criterion(
        name,
        (low is None or value >= low) and (high is None or value <= high),
        f"{value:.3g}",
        required,
    )


def drift(rows: list[dict], s: Watch) -> Criterion:
    """Compare the last quarter of the run with the first quarter, not with the first line: an
    untrained D outputs 0.5 for every sample.
    """
    low, high = s.healthy.get("d/fake_prob", (None, None))
    required = (
        "drifts towards 0.5: nearer to it in the last quarter of the run than in the first, or"
        " within 0.1 of it"
    )
    if low is not None and high is not None:
        return now("D(G(z))", rows, "d/fake_prob", low, high, s)
    table = finite(rows, "d/fake_prob")
    if len(table) < 4 * s.window:
        return Criterion(
            "D(G(z))",
            None,
            f"{count(len(table), 'line')}, {4 * s.window} are needed",
            required,
            early=True,
        )
    quarter = len(table) // 4
    first, last = float(np.median(table[:quarter, 1])), float(np.median(table[-quarter:, 1]))
    return Criterion(
        "D(G(z))",
        abs(last - 0.5) < max(abs(first - 0.5), 0.1),
        f"{first:.3g} in the first quarter, {last:.3g} in the last (medians)",
        required,
    )


def comparable(rows: list[dict], s: Watch) -> Criterion:
    if "g/loss" in s.healthy:
        return now("G loss", rows, "g/loss", *s.healthy["g/loss"], s)
    required = (
        f"within a factor of {s.loss_ratio:g} of each other at the end (medians of {s.window}"
        " lines)"
    )
    table = finite(rows, "d/loss", "g/loss")[-s.window :, 1:]
    if len(table) < s.window:
        return Criterion(
            "G and D losses",
            None,
            f"{count(len(table), 'line')}, {s.window} are needed",
            required,
            early=True,
        )
    d, g = (float(value) for value in np.median(table, axis=0))
    return Criterion(
        "G and D losses",
        d > 0 and 1 / s.loss_ratio <= g / d <= s.loss_ratio,
        f"G {g:.3g}, D {d:.3g}",
        required,
    )


def wasserstein(rows: list[dict], s: Watch) -> Criterion:
    required = (
        f"falls from its peak by a factor of {s.release:g} at the least (medians of {s.window}"
        " lines)"
    )
    windows = medians(finite(rows, "d/wasserstein"), s.window)
    if len(windows) < 2:
        missing = f"fewer lines than {s.window + 1}"
        return Criterion("Wasserstein estimate", None, missing, required, early=True)
    peak, last = windows[windows[:, 1].argmax()], windows[-1]
    return Criterion(
        "Wasserstein estimate",
        bool(last[1] < peak[1] / s.release),
        f"peak {peak[1]:.4g} at epoch {peak[0]:.4g}, now {last[1]:.4g}",
        required,
    )
