"""The health rules of a run: each a pure function (lines of the journal, thresholds, settings) -> Finding or None. Imports no torch.

A rule judges the median of a window of lines, so a single noisy step raises nothing; a finding begins when the median passes its threshold and
ends only when the median is back past it by the factor `release`. With fewer lines than a window nothing is found, except numbers that
are not finite. `Finding.advice` holds here what helps beside the moves of the guide, which `watch.check` puts before it.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from distgan.journal import epoch_means, finite, gaps, medians, score_key, since
from distgan.thresholds import Finding, Watch


def nonfinite_lines(rows: list[dict]) -> list[tuple[float, list[str]]]:
    """(epoch, keys) of the lines that hold a NaN, an infinity or null."""
    bad = [(row["epoch"], [key for key, value in row.items() if "/" in key and (value is None or isinstance(value, float) and not math.isfinite(value))])
           for row in rows]
    return [(epoch, keys) for epoch, keys in bad if keys]


def nonfinite(rows: list[dict], s: Watch, values: dict[str, Any]) -> Finding | None:
    bad = nonfinite_lines(rows[-s.window:])
    if not bad or s.nonfinite_lines is None:
        return None
    total = min(len(rows), s.window)
    lasting = len(bad) >= min(s.nonfinite_lines, total)
    names = ", ".join(sorted({key for _, keys in bad for key in keys}))
    return Finding("nonfinite", "warning" if lasting else "note", bad[0][0], f"NaN or infinity in {len(bad)} of the last {total} lines: {names}",
                   "go back to a checkpoint from before" if lasting else "nothing while it stays single: such a step is skipped")


def d_loss_low(rows: list[dict], s: Watch, values: dict[str, Any]) -> Finding | None:
    if s.d_loss_strong is None:
        return None
    found = medians(finite(rows, "d/loss"), s.window)
    above = found[:, 1] - s.d_loss_floor
    at = since(above < s.d_loss_strong, above >= s.d_loss_strong * s.release)
    if at is None:
        return None
    collapsed = s.d_loss_collapsed is not None and above[-1] < s.d_loss_collapsed
    limit = s.d_loss_floor + (s.d_loss_collapsed if collapsed else s.d_loss_strong)
    means = "the discriminator may have collapsed: it has nothing left to learn, and G gets no usable gradient" if collapsed else "D too strong"
    return Finding("d_loss_low", "warning", float(found[at, 0]), f"D loss {found[-1, 1]:.3g} (median of {s.window} lines), healthy above "
                   f"{s.d_loss_floor + s.d_loss_strong:.3g}, limit {limit:.3g}: {means}", "train D less, or make it smaller")


def d_loss_high(rows: list[dict], s: Watch, values: dict[str, Any]) -> Finding | None:
    if s.d_loss_weak is None:
        return None
    found = medians(finite(rows, "d/loss"), s.window)
    at = since(found[:, 1] > s.d_loss_weak, found[:, 1] <= s.d_loss_weak / s.release)
    if at is None:
        return None
    return Finding("d_loss_high", "warning", float(found[at, 0]), f"D loss {found[-1, 1]:.3g} (median of {s.window} lines), limit {s.d_loss_weak:.3g}: "
                   "D too weak, what it tells G is worth little", "a D that cannot follow is too small, or learns too slowly")


def d_too_strong(rows: list[dict], s: Watch, values: dict[str, Any]) -> Finding | None:
    if s.real_prob_high is None or s.fake_prob_low is None:
        return None
    found = medians(finite(rows, "d/real_prob", "d/fake_prob"), s.window)
    real, fake = found[:, 1], found[:, 2]
    at = since((real > s.real_prob_high) & (fake < s.fake_prob_low), (real < s.real_prob_high / s.release) | (fake > s.fake_prob_low * s.release))
    if at is None:
        return None
    return Finding("d_too_strong", "warning", float(found[at, 0]), f"D(x) {real[-1]:.3g}, above {s.real_prob_high:g}, while D(G(z)) "
                   f"{fake[-1]:.2g}, below {s.fake_prob_low:g} (medians of {s.window} lines): D too strong, it tells every sample apart",
                   "one more G step for each D step, up to 1:3, before anything else")


def real_prob_low(rows: list[dict], s: Watch, values: dict[str, Any]) -> Finding | None:
    """D that cannot tell real from generated ends at the mean of both labels (Goodfellow et al. 2014, proposition 1, with soft labels): 0.45 for
    0.9 and 0, so below the documents' 0.5. There, and while the score improves, it is a note.
    """
    if s.real_prob_low is None:
        return None
    found = medians(finite(rows, "d/real_prob", "d/fake_prob"), s.window)
    at = since(found[:, 1] < s.real_prob_low, found[:, 1] >= s.real_prob_low * s.release)
    if at is None:
        return None
    real, fake = found[-1, 1:]
    end = (_label(values, "real_label", 1.0) + _label(values, "fake_label", 0.0)) / 2
    mark, _, evaluations = score_mark(rows, s)
    level = "note" if real >= end - s.real_prob_reach and mark is not None and evaluations < s.score_flat_evaluations else "warning"
    means = (f"near {end:.3g}, where D ends that cannot tell the two apart, and the score still improves" if level == "note"
             else "D takes real samples for generated ones")
    return Finding("real_prob_low", level, float(found[at, 0]), f"D(x) {real:.3g} (median of {s.window} lines), healthy from {s.real_prob_low:g}; "
                   f"D(G(z)) {fake:.3g}: {means}", "leave it" if level == "note" else "let D catch up: d_lr not below g_lr, D:G steps 1:1")


def fake_prob_high(rows: list[dict], s: Watch, values: dict[str, Any]) -> Finding | None:
    if s.fake_prob_high is None:
        return None
    found = medians(finite(rows, "d/real_prob", "d/fake_prob"), s.window)
    at = since(found[:, 2] > s.fake_prob_high, found[:, 2] <= s.fake_prob_high / s.release)
    if at is None:
        return None
    real, fake = found[-1, 1:]
    told = real > fake * s.release
    return Finding("fake_prob_high", "note" if told else "warning", float(found[at, 0]), f"D(G(z)) {fake:.3g} (median of {s.window} lines), limit "
                   f"{s.fake_prob_high:g}; D(x) {real:.3g}: " + ("D still tells the two apart, but leans to real" if told
                                                                else "D too weak, it takes generated samples for real ones"),
                   "leave it while D(x) stays above D(G(z))" if told else "let D catch up: d_lr not below g_lr, D:G steps 1:1")


def g_loss_limit(found: np.ndarray, s: Watch) -> np.ndarray:
    """What the G loss may reach: measured against its lowest median so far, which an explosion cannot move."""
    lowest = np.minimum.accumulate(found) if len(found) else found
    return np.maximum((s.g_loss_growth or math.inf) * lowest, s.g_loss_high)


def g_loss_exploding(rows: list[dict], s: Watch, values: dict[str, Any]) -> Finding | None:
    if s.g_loss_growth is None:
        return None
    found = medians(finite(rows, "g/loss"), s.window)
    limit = g_loss_limit(found[:, 1], s)
    at = since(found[:, 1] > limit, found[:, 1] < limit / s.release)
    if at is None:
        return None
    low = int(found[:, 1].argmin())
    return Finding("g_loss_exploding", "warning", float(found[at, 0]), f"G loss {found[-1, 1]:.3g} (median of {s.window} lines), limit "
                   f"{limit[-1]:.3g}; its lowest was {found[low, 1]:.3g} at epoch {found[low, 0]:.4g}: exploding, the learning rate is too high",
                   "with D(x) → 1 and D(G(z)) → 0, one more G step")


def gan_loss_stagnant(rows: list[dict], s: Watch, values: dict[str, Any]) -> Finding | None:
    """A note where D's loss lies in its healthy range: then neither side wins, and the game may have come to its end."""
    means, judged = gan_means(rows, s)
    if s.stagnant_change is None or len(judged) < s.stagnant_epochs:
        return None
    change = np.abs(np.diff(means[:, 1]))[judged]
    small = np.lib.stride_tricks.sliding_window_view(change < s.stagnant_change, s.stagnant_epochs).all(axis=1)
    bad = np.concatenate([np.zeros(s.stagnant_epochs - 1, bool), small])
    at = since(bad, change >= s.stagnant_change * s.release)
    if at is None:
        return None
    first = judged[at] - s.stagnant_epochs + 1
    low, high = s.healthy.get("d/loss", (None, None))
    d_loss = finite(rows, "d/loss")[-s.window:, 1]
    balanced = low is not None and high is not None and len(d_loss) > 0 and low <= np.median(d_loss) <= high
    means_that = (f"D loss {np.median(d_loss):.3g} is healthy, so the two may have come to a balance" if balanced
                  else "stagnant: D gives G nothing to learn from")
    return Finding("gan_loss_stagnant", "note" if balanced else "warning", float(means[first, 0]),
                   f"GAN loss of G from {means[first, 1]:.3g} in epoch {means[first, 0]:.0f} to {means[-1, 1]:.3g} in epoch {means[-1, 0]:.0f}, changing by "
                   f"less than {s.stagnant_change:g} between epochs (means over each): {means_that}",
                   "leave it while the score improves" if balanced else "train D less, or make it smaller")


def gan_means(rows: list[dict], s: Watch) -> tuple[np.ndarray, np.ndarray]:
    """([epochs, 2]: number and mean of G's GAN loss of each whole epoch; indices i whose change to i + 1 is judged: after `stagnant_after`)."""
    table = finite(rows, "g/adversarial")
    table = table if len(table) else finite(rows, "g/loss")
    if not len(table):
        return table, np.empty(0, int)
    means = epoch_means(table, rows[-1]["epoch"])
    # Counted from where the GAN loss begins, which may be late (gan_start_epoch).
    return means, np.flatnonzero(means[1:, 0] > math.floor(table[0, 0]) + s.stagnant_after)


def overfitting(rows: list[dict], s: Watch, values: dict[str, Any]) -> Finding | None:
    if s.gap_high is None:
        return None
    table = gaps(rows)
    found = medians(np.column_stack([table, table[:, 2] - table[:, 1]]), s.valid_window)
    at = since(found[:, 3] > s.gap_high, found[:, 3] < s.gap_high / s.release)
    if at is None:
        return None
    return Finding("overfitting", "warning", float(found[at, 0]), f"validation L1 {found[-1, 2]:.3g} − training L1 {found[-1, 1]:.3g} = {found[-1, 3]:.3g} "
                   f"(medians of {s.valid_window} validations), healthy below {s.gap_healthy:g}, limit {s.gap_high:g}: overfitting",
                   "more data; keep the best checkpoint")


def validation_rising(rows: list[dict], s: Watch, values: dict[str, Any]) -> Finding | None:
    """Rising: the median of the last validations is above the lowest such median by `valid_rise`. Fluctuating: over the last two windows the value
    changed by that fraction on average, from one validation to the next, and the later window has no new low.
    """
    valid = finite(rows, "valid/l1")
    valid = valid[valid[:, 0] > 0]  # before the first step nothing was learnt that could get worse
    found, n = medians(valid, s.valid_window), 2 * s.valid_window
    if s.valid_rise is None or not len(found):
        return None
    lowest = np.minimum.accumulate(found[:, 1])
    swing = np.zeros(len(found))
    if len(valid) >= n:
        runs = np.lib.stride_tricks.sliding_window_view(valid[:, 1], n)
        lows = np.minimum.accumulate(valid[:, 1])
        no_new_low = runs[:, s.valid_window:].min(axis=1) >= lows[s.valid_window - 1:len(valid) - s.valid_window]
        swing[s.valid_window:] = np.abs(np.diff(runs, axis=1)).mean(axis=1) / np.maximum(runs.mean(axis=1), 1e-12) * no_new_low
    rise = found[:, 1] / np.maximum(lowest, 1e-12) - 1
    at = since((rise > s.valid_rise) | (swing > s.valid_rise), (rise < s.valid_rise / s.release) & (swing < s.valid_rise / s.release))
    if at is None:
        return None
    low = int(found[:, 1].argmin())
    how = (f"rising, {rise[-1]:.0%} above its lowest, {found[low, 1]:.3g} at epoch {found[low, 0]:.4g}" if rise[-1] >= swing[-1]
           else f"fluctuating by {swing[-1]:.0%} from one validation to the next without a new low")
    return Finding("validation_rising", "warning", float(found[at, 0]), f"validation L1 {found[-1, 1]:.3g} (median of {s.valid_window} validations) is {how}, "
                   f"limit {s.valid_rise:.0%}: it should fall as the training L1 does", "keep the best checkpoint; early stopping (patience)")


def d_overfitting(rows: list[dict], s: Watch, values: dict[str, Any]) -> Finding | None:
    if s.overfit_high is None:
        return None
    found = medians(finite(rows, "valid/overfit"), s.valid_window)
    at = since(found[:, 1] > s.overfit_high, found[:, 1] < s.overfit_high / s.release)
    if at is None:
        return None
    return Finding("d_overfitting", "warning", float(found[at, 0]), f"valid/overfit {found[-1, 1]:.3g} (median of {s.valid_window} validations), "
                   f"healthy below {s.overfit_high:g}: D has memorised the training samples, held-out ones look generated to it",
                   "stop early and keep the best checkpoint; more or cleaner images (of particles, flips only: rotation, affine and colour jitter hurt)")


def score_mark(rows: list[dict], s: Watch) -> tuple[np.ndarray | None, np.ndarray | None, int]:
    """(epoch, score) of the last clear improvement, of the last evaluation, and how many evaluations came after the former."""
    key = score_key(rows)
    scores = finite(rows, key) if key else np.empty((0, 2))
    if not len(scores):
        return None, None, 0
    at = 0
    for i, score in enumerate(scores[:, 1]):
        if score < scores[at, 1] - abs(scores[at, 1]) * s.score_flat_change:
            at = i
    return scores[at], scores[-1], len(scores) - 1 - at


def score_flat(rows: list[dict], s: Watch, values: dict[str, Any]) -> Finding | None:
    mark, last, evaluations = score_mark(rows, s)
    if s.score_flat_epochs is None or mark is None or evaluations < s.score_flat_evaluations or last[0] - mark[0] < s.score_flat_epochs:
        return None
    name = score_key(rows).partition("/")[2]
    return Finding("score_flat", "warning", float(mark[0]), f"{name} flat for {last[0] - mark[0]:.4g} epochs ({evaluations} evaluations): {mark[1]:.4g} at "
                   f"epoch {mark[0]:.4g}, now {last[1]:.4g}", "change the schedule, or stop early and keep the best checkpoint; cleaner data, another recipe")


def mode_collapse(rows: list[dict], s: Watch, values: dict[str, Any]) -> Finding | None:
    """Samples from the same noise become alike, or the score jumps."""
    found = [part for part in (_fallen(rows, s), _jumped(rows, s)) if part]
    if not found:
        return None
    return Finding("mode_collapse", "warning", min(epoch for epoch, _ in found), "; ".join(text for _, text in found),
                   "return to an earlier checkpoint and lower both rates (on_trouble=rollback does so)")


def _fallen(rows: list[dict], s: Watch) -> tuple[float, str] | None:
    found = medians(finite(rows, "valid/diversity"), s.valid_window)
    if not len(found):
        return None
    now = found[:, 1]
    # More than the reals have is noise, as an untrained network may draw: falling from there is learning.
    highest = np.minimum(np.maximum.accumulate(now), 1.0)
    before = np.concatenate([np.full(min(s.valid_window, len(now)), -math.inf), now[:-s.valid_window]])
    fall, low = s.diversity_fall or 0.0, s.diversity_low or 0.0
    growing = (now > before * s.release) | np.isinf(before)
    at = since((now < fall * highest) | (now < low) & ~growing, (now >= fall * highest * s.release) & ((now >= low * s.release) | growing))
    if at is None:
        return None
    return float(found[at, 0]), (f"diversity of samples {now[-1]:.3g} of that of real ones (median of {s.valid_window} validations; 1 is healthy), its highest "
                                 f"was {now.max():.3g} at epoch {found[now.argmax(), 0]:.4g}: mode collapse, G draws ever fewer kinds of sample")


def _jumped(rows: list[dict], s: Watch) -> tuple[float, str] | None:
    key = score_key(rows)
    scores = finite(rows, key) if key and s.score_jump else np.empty((0, 2))
    if len(scores) < 3:
        return None
    value = scores[1:, 1]
    best = np.minimum.accumulate(scores[:, 1])[:-1]
    over = (value > s.score_jump * best) & (value - best > s.score_lost * (scores[0, 1] - best)) & (best > 0)
    at = since(np.concatenate([[False], over[1:] & over[:-1]]), ~over)
    if at is None:
        return None
    low = int(scores[:, 1].argmin())
    return float(scores[at + 1, 0]), (f"{key.partition('/')[2]} jumped to {value[-1]:.4g}, {value[-1] / best[-1]:.2g} times its best, {scores[low, 1]:.4g} at epoch "
                                      f"{scores[low, 0]:.4g}: mode collapse, or training that falls apart")


# In the order of `thresholds.Rule`. Those of an unbounded critic judge no range of its losses and outputs.
ALWAYS: tuple[Callable[[list[dict], Watch, dict[str, Any]], Finding | None], ...] = (
    nonfinite, mode_collapse, overfitting, validation_rising, d_overfitting, score_flat)
BOUNDED = (d_loss_low, d_too_strong, g_loss_exploding, gan_loss_stagnant, d_loss_high, real_prob_low, fake_prob_high)


def _label(values: dict[str, Any], name: str, usual: float) -> float:
    value = values.get(name)
    return float(value) if isinstance(value, int | float) else usual
