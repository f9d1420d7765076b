"""Health rules of the results of training: validation, overfitting, score, diversity of samples,
numbers that are not finite.

rules_game says what a rule is. Imports no torch.
"""

import math
from typing import Any

import numpy as np

from distgan.monitor.journal import finite, gaps, medians, score_key, since
from distgan.monitor.results import Finding
from distgan.monitor.settings import Watch

IMPROVES, LEAVE = "; but the score still improves", "none while the score improves"


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


def overfitting(rows: list[dict], s: Watch, values: dict[str, Any]) -> Finding | None:
    if s.gap_high is None:
        return None
    table = gaps(rows)
    windows = medians(np.column_stack([table, table[:, 2] - table[:, 1]]), s.valid_window)
    at = since(windows[:, 3] > s.gap_high, windows[:, 3] < s.gap_high / s.release)
    if at is None:
        return None
    return Finding(
        "overfitting",
        "warning",
        float(windows[at, 0]),
        f"validation L1 {windows[-1, 2]:.3g} − training L1 {windows[-1, 1]:.3g} ="
        f" {windows[-1, 3]:.3g}"
        f" (medians of {s.valid_window} validations), healthy below {s.gap_healthy:g}, limit"
        f" {s.gap_high:g}: overfitting",
        "more data; keep the best checkpoint",
    )


def validation_rising(rows: list[dict], s: Watch, values: dict[str, Any]) -> Finding | None:
    """Find a validation L1 that rises or fluctuates.

    Rising: the median of the last validations is above the lowest such median by `valid_rise`.
    Fluctuating: over the last two windows the value goes up and down by that fraction on average
    from one validation to the next (its path less its net change), and the later window has no new
    low.
    """
    valid = finite(rows, "valid/l1")
    valid = valid[valid[:, 0] > 0]  # not before the first step
    windows, n = medians(valid, s.valid_window), 2 * s.valid_window
    if s.valid_rise is None or not len(windows):
        return None
    lowest = np.minimum.accumulate(windows[:, 1])
    swing = np.zeros(len(windows))
    if len(valid) >= n:
        runs = np.lib.stride_tricks.sliding_window_view(valid[:, 1], n)
        lows = np.minimum.accumulate(valid[:, 1])
        no_new_low = (
            runs[:, s.valid_window :].min(axis=1)
            >= lows[s.valid_window - 1 : len(valid) - s.valid_window]
        )
        back_and_forth = np.abs(np.diff(runs, axis=1)).sum(axis=1) - np.abs(
            runs[:, -1] - runs[:, 0]
        )
        swing[s.valid_window :] = (
            back_and_forth / (n - 1) / np.maximum(runs.mean(axis=1), 1e-12) * no_new_low
        )
    rise = windows[:, 1] / np.maximum(lowest, 1e-12) - 1
    at = since(
        (rise > s.valid_rise) | (swing > s.valid_rise),
        (rise < s.valid_rise / s.release) & (swing < s.valid_rise / s.release),
    )
    if at is None:
        return None
    low = int(windows[:, 1].argmin())
    how = (
        f"rising, {rise[-1]:.0%} above its lowest, {windows[low, 1]:.3g} at epoch"
        f" {windows[low, 0]:.4g}"
        if swing[-1] < s.valid_rise / s.release
        else f"fluctuating by {swing[-1]:.0%} from one validation to the next without a new low"
    )
    return Finding(
        "validation_rising",
        "warning",
        float(windows[at, 0]),
        f"validation L1 {windows[-1, 1]:.3g} (median of {s.valid_window} validations) is {how}, "
        f"limit {s.valid_rise:.0%}: it should fall as the training L1 does",
        "keep the best checkpoint; early stopping (patience)",
    )


def d_overfitting(rows: list[dict], s: Watch, values: dict[str, Any]) -> Finding | None:
    if s.overfit_high is None:
        return None
    windows = medians(finite(rows, "valid/overfit"), s.valid_window)
    at = since(windows[:, 1] > s.overfit_high, windows[:, 1] < s.overfit_high / s.release)
    if at is None:
        return None
    return Finding(
        "d_overfitting",
        "note" if values.get("ada") else "warning",
        float(windows[at, 0]),
        f"valid/overfit {windows[-1, 1]:.3g} (median of {s.valid_window} validations), healthy"
        " below"
        f" {s.overfit_high:g}: D has memorised the training samples, and classifies held-out ones"
        " as"
        " generated" + _regulated(rows, values),
        "stop early and keep the best checkpoint; more or cleaner images (of particles, flips only:"
        " rotation, affine and colour jitter hurt)",
    )


def _regulated(rows: list[dict], values: dict[str, Any]) -> str:
    if not values.get("ada"):
        return ""
    strength = finite(rows, "d/ada")[:, 1]
    return f"; ada counters it{f', strength now {strength[-1]:.2g}' if len(strength) else ''}"


def copies(rows: list[dict], s: Watch, values: dict[str, Any]) -> Finding | None:
    """Find samples that lie nearer to training images than unseen images do."""
    if s.nearest_low is None:
        return None
    windows = medians(finite(rows, "valid/nearest"), s.valid_window)
    at = since(windows[:, 1] < s.nearest_low, windows[:, 1] > s.nearest_low * s.release)
    if at is None:
        return None
    return Finding(
        "copies",
        "warning",
        float(windows[at, 0]),
        f"samples lie at {windows[-1, 1]:.3g} of the distance of unseen images from their nearest"
        f" training image (valid/nearest, median of {s.valid_window} evaluations; 1 is healthy),"
        f" limit {s.nearest_low:g}: G copies training images",
        "keep a checkpoint from before; more images; look at samples beside their nearest training"
        " images before using them",
    )


def scores_since_better(rows: list[dict], s: Watch) -> tuple[str, np.ndarray, int]:
    """Return the key of the score, [n, 2] the (epoch, score) of all evaluations with a finite one,
    and the number of evaluations after the last clear improvement; -1 without any.
    """
    key = score_key(rows) or ""
    scores = finite(rows, key) if key else np.empty((0, 2))
    at = 0
    for i, score in enumerate(scores[:, 1]):
        if score < scores[at, 1] - abs(scores[at, 1]) * s.score_flat_change:
            at = i
    return key, scores, len(scores) - 1 - at


def score_improves(rows: list[dict], s: Watch, last: int | None = None) -> bool:
    """Return whether one of the `last` evaluations was clearly better than all before it; null:
    of the last `score_flat_evaluations`.
    """
    _, scores, after = scores_since_better(rows, s)
    few = 0 <= after < (last or s.score_flat_evaluations)
    return few and bool(scores[-1 - after, 0] > scores[0, 0])


def score_flat(rows: list[dict], s: Watch, values: dict[str, Any]) -> Finding | None:
    key, scores, after = scores_since_better(rows, s)
    if s.score_flat_epochs is None or after < s.score_flat_evaluations:
        return None
    mark, last = scores[-1 - after], scores[-1]
    if last[0] - mark[0] < s.score_flat_epochs:
        return None
    return Finding(
        "score_flat",
        "warning",
        float(mark[0]),
        f"{key.partition('/')[2]} flat for {last[0] - mark[0]:.4g} epochs ({after} evaluations):"
        f" {mark[1]:.4g} at epoch {mark[0]:.4g}, now {last[1]:.4g}",
        "change the schedule, or stop early and keep the best checkpoint; cleaner data, another"
        " recipe",
    )


def mode_collapse(rows: list[dict], s: Watch, values: dict[str, Any]) -> Finding | None:
    """Find samples that become alike, or a score that jumps.

    A young G draws noise, which is diverse, and then the mean image: while the score improves,
    samples that are alike are a note.
    """
    fallen, jumped = _fallen(rows, s), _jumped(rows, s)
    parts = [part for part in (fallen, jumped) if part]
    if not parts:
        return None
    note = not jumped and score_improves(rows, s)
    back = "return to an earlier checkpoint and lower the rates (on_trouble=rollback_adapt does so)"
    return Finding(
        "mode_collapse",
        "note" if note else "warning",
        min(epoch for epoch, _ in parts),
        "; ".join(text for _, text in parts) + (IMPROVES if note else ""),
        LEAVE if note else back,
    )


def _fallen(rows: list[dict], s: Watch) -> tuple[float, str] | None:
    windows = medians(finite(rows, "valid/diversity"), s.valid_window)
    if not len(windows):
        return None
    now = windows[:, 1]
    # Above the diversity of real samples is noise, as of an untrained network: falling from there
    # is learning.
    highest = np.minimum(np.maximum.accumulate(now), 1.0)
    before = np.concatenate(
        [np.full(min(s.valid_window, len(now)), -math.inf), now[: -s.valid_window]]
    )
    fall, low = s.diversity_fall or 0.0, s.diversity_low or 0.0
    growing = (now > before * s.release) | np.isinf(before)
    at = since(
        (now < fall * highest) | (now < low) & ~growing,
        (now >= fall * highest * s.release) & ((now >= low * s.release) | growing),
    )
    if at is None:
        return None
    return (
        float(windows[at, 0]),
        (
            f"diversity of samples {now[-1]:.3g} of that of real ones (median of {s.valid_window}"
            f" validations; 1 is healthy), its highest was {now.max():.3g} at epoch"
            f" {windows[now.argmax(), 0]:.4g}: mode collapse, G generates fewer kinds of samples"
        ),
    )


def _jumped(rows: list[dict], s: Watch) -> tuple[float, str] | None:
    key = score_key(rows)
    if key is None or not s.score_jump or len(scores := finite(rows, key)) < 3:
        return None
    value = scores[1:, 1]
    best = np.minimum.accumulate(scores[:, 1])[:-1]
    # Ratios, as a stand-in score may fall from 370 to 0.7 and a FID from 150 to 50. The first score
    # is positive where the best is.
    way = np.maximum(scores[0, 1], best) / np.where(best > 0, best, np.inf)
    over = (best > 0) & (value > best * np.maximum(s.score_jump, way**s.score_lost))
    at = since(np.concatenate([[False], over[1:] & over[:-1]]), ~over)
    if at is None:
        return None
    low = int(scores[:, 1].argmin())
    return (
        float(scores[at + 1, 0]),
        (
            f"{key.partition('/')[2]} jumped to {value[-1]:.4g}, {value[-1] / best[-1]:.2g} times"
            f" its best, {scores[low, 1]:.4g} at epoch {scores[low, 0]:.4g}: mode collapse, or"
            " unstable training"
        ),
    )
