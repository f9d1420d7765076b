"""What the numbers of a run mean: pure functions of its journal. Imports no torch.

A rule judges the median of a window of journal lines, so a single noisy step raises nothing; a finding begins when the median passes
its threshold and ends only when the median is back past it by the factor `release`. With fewer lines than a window nothing is found,
except numbers that are not finite. The advice names the moves of the tuning guides of the sagan and capacity systems.
"""

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from distgan.errors import RunError

SCORES = ("eval/fid", "eval/frechet_standin")  # lower is better; which of them a run writes depends on the weights it has


class Watch(BaseModel):
    """Thresholds of the rules; the defaults are those of the sagan recipe."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    window: int = Field(25, ge=1, description="training lines of the journal whose median is judged")
    valid_window: int = Field(3, ge=1, description="validation lines whose median is judged")
    release: float = Field(1.1, ge=1, description="a finding ends when the median is back past its threshold by this factor")
    unbounded: bool = Field(False, description="D is an unbounded critic (Wasserstein): no range of its losses and outputs is healthy or not, "
                            "so only overfitting, scores and numbers that are not finite are judged")
    d_loss_collapsed: float = Field(0.05, ge=0, description="D loss below this: the discriminator may have collapsed")
    d_loss_strong: float = Field(0.1, ge=0, description="D loss below this: D too strong")
    d_loss_floor: float = Field(0.0, ge=0, description="least D loss that label smoothing allows (0.325 for the sum of both terms with "
                                "real labels of 0.9); the two thresholds above count from here")
    real_prob_low: float = Field(0.5, ge=0, le=1, description="D(x) below this: D takes real images for generated ones")
    real_prob_high: float = Field(0.8, ge=0, le=1, description="upper end of the healthy range of D(x)")
    fake_prob_low: float = Field(0.05, ge=0, le=1, description="D(G(z)) below this while D(x) is above its range: D too strong")
    fake_prob_high: float = Field(0.6, ge=0, le=1, description="upper end of the healthy range of D(G(z)), which should drift towards 0.5")
    g_loss_growth: float = Field(4.0, ge=1, description="G loss above this many times its own lowest median: exploding")
    g_loss_high: float = Field(5.0, ge=0, description="G loss below this never counts as exploding (5: D(G(z)) is still 0.7 %)")
    loss_ratio: float = Field(5.0, ge=1, description="G and D losses within this factor of each other are of comparable size")
    overfit_high: float = Field(0.6, ge=0, description="valid/overfit above this: D overfits (0.6 is the target of Karras et al. 2020)")
    score_flat_epochs: float = Field(100, gt=0, description="epochs without a better score until it counts as flat")
    score_flat_change: float = Field(0.01, ge=0, lt=1, description="fraction by which a score must fall to count as better")
    score_flat_evaluations: int = Field(3, ge=1, description="evaluations without a better score that are needed as well")
    nonfinite_lines: int = Field(3, ge=1, description="lines with numbers that are not finite, within a window, for a warning")


@dataclass(frozen=True)
class Finding:
    """A rule that holds at the end of the journal, and since which epoch."""

    rule: str
    level: str  # "warning": something should be changed; "note": worth knowing
    epoch: float
    message: str
    advice: str


@dataclass(frozen=True)
class Signal:
    """A number to keep an eye on: its recent value, its healthy range (None: open end), and whether it lies there (None: too few lines)."""

    name: str
    value: float | None
    low: float | None
    high: float | None
    ok: bool | None
    meaning: str


def read_journal(path: Path | str) -> list[dict]:
    """The lines of a journal in order, [] if there is none yet.

    A last line torn by a crash is left out. Lines that a resumed attempt wrote again replace the earlier ones.
    Raises RunError for damage anywhere else, with the line number.
    """
    path = Path(path)
    rows: list[dict] = []
    lines = path.read_bytes().split(b"\n") if path.is_file() else []
    last = max((n for n, line in enumerate(lines) if line.strip()), default=-1)
    for n, line in enumerate(lines[:last + 1]):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            step, _ = int(row["step"]), float(row["epoch"])
        except (ValueError, KeyError, TypeError) as error:
            if n == last:
                break
            raise RunError(f"{path}, line {n + 1}: not a journal line (a JSON object with step and epoch): {line[:60]!r}; "
                           "only the last line may be torn. Remove the line to go on without it") from error
        while rows and rows[-1]["step"] > step:
            rows.pop()
        rows.append(row)
    return rows


def series(rows: list[dict], *keys: str) -> np.ndarray:
    """[n, 1 + len(keys)] float64: epoch and the values of all lines that hold every key, one per step, in order of steps."""
    held = [row for row in rows if all(key in row for key in keys)]
    table = np.array([(row["epoch"], *[_number(row[key]) for key in keys]) for row in held], dtype=float).reshape(-1, 1 + len(keys))
    # Of lines with the same step the last counts: look for the first in the reversed order.
    _, first = np.unique(np.array([row["step"] for row in held], dtype=np.int64)[::-1], return_index=True)
    return table[len(held) - 1 - first]


def score_key(rows: list[dict]) -> str | None:
    """The score this run was measured with last: one of SCORES, None before the first evaluation."""
    return next((key for row in reversed(rows) for key in SCORES if key in row), None)


def check(rows: list[dict], settings: Watch) -> list[Finding]:
    """What is wrong at the end of the journal: at most one finding per rule, warnings first.

    It reads the whole journal (0.4 s for 37,000 lines), so a loop asks at its evaluations, not at every step.
    """
    bounded: tuple[Callable, ...] = () if settings.unbounded else (_d_loss, _d_too_strong, _real_prob_low, _g_loss)
    rules = (_nonfinite, *bounded, _overfit, _score_flat)
    found = [finding for rule in rules if (finding := rule(rows, settings))]
    return sorted(found, key=lambda finding: finding.level != "warning")


def healthy(rows: list[dict], s: Watch) -> list[Signal]:
    """The signals of a healthy run, each with its recent value and range; the last two need no full window."""
    def signal(name: str, value: float | None, enough: bool, low: float | None, high: float | None, meaning: str) -> Signal:
        fits = value is not None and (low is None or value >= low) and (high is None or value <= high)
        return Signal(name, value, low, high, fits if enough and value is not None else None, meaning)

    def recent(key: str, window: int) -> tuple[float | None, bool]:
        values = _finite(series(rows, key))[-window:, 1]
        return (float(np.median(values)) if len(values) else None), len(values) >= window

    d_loss, g_loss = recent("d/loss", s.window), recent("g/loss", s.window)
    ratio = g_loss[0] / d_loss[0] if d_loss[0] and g_loss[0] is not None else None
    limit = _g_loss_limit(_medians(_finite(series(rows, "g/loss")), s.window)[:, 1], s)
    mark, last, _ = _score_mark(rows, s)
    bad = _nonfinite_lines(rows[-s.window:])
    probabilities = [
        signal("D(x)", *recent("d/real_prob", s.window), s.real_prob_low, s.real_prob_high, "real images, as D sees them"),
        signal("D(G(z))", *recent("d/fake_prob", s.window), s.fake_prob_low, s.fake_prob_high,
               "generated images, as D sees them; should drift towards 0.5"),
        signal("D loss", *d_loss, s.d_loss_floor + s.d_loss_strong, None, "near its floor D has nothing left to learn and G no gradient"),
        signal("G loss", *g_loss, None, float(limit[-1]) if len(limit) else s.g_loss_high, "against its own lowest median"),
        signal("G loss / D loss", ratio, d_loss[1] and g_loss[1], 1 / s.loss_ratio, s.loss_ratio, "of comparable size"),
    ]
    return [
        *(() if s.unbounded else probabilities),
        signal("overfit of D", *recent("valid/overfit", s.valid_window), None, s.overfit_high,
               "(train − held-out) / (train − fake): 0 none, 1 held-out images look generated"),
        Signal("epochs without a better score", float(last[0] - mark[0]) if mark is not None else None, None, s.score_flat_epochs,
               _score_flat(rows, s) is None if mark is not None else None, f"a better score is lower by {s.score_flat_change:.0%} at the least"),
        signal("lines with NaN or infinity", float(len(bad)) if rows else None, True, None, 0.0, f"of the last {s.window}"),
    ]


def _number(value) -> float:
    """JSON has no NaN: null counts as one."""
    return float(value) if isinstance(value, int | float) else math.nan


def _finite(table: np.ndarray) -> np.ndarray:
    return table[np.isfinite(table).all(axis=1)]


def _medians(table: np.ndarray, window: int) -> np.ndarray:
    """[n, k] -> [n - window + 1, k]: epoch at which each full window ends, and the medians over it."""
    if len(table) < window:
        return table[:0]
    views = np.lib.stride_tricks.sliding_window_view(table[:, 1:], window, axis=0)
    return np.column_stack([table[window - 1:, 0], np.median(views, axis=-1)])


def _since(bad: np.ndarray, good: np.ndarray) -> int | None:
    """Index at which the state now in force began: it starts at `bad` and ends at `good`; None when it is not in force."""
    ended = np.flatnonzero(good)
    start = ended[-1] + 1 if len(ended) else 0
    begun = np.flatnonzero(bad[start:])
    return int(start + begun[0]) if len(begun) else None


def _d_loss(rows: list[dict], s: Watch) -> Finding | None:
    found = _medians(_finite(series(rows, "d/loss")), s.window)
    above = found[:, 1] - s.d_loss_floor
    since = _since(above < s.d_loss_strong, above >= s.d_loss_strong * s.release)
    if since is None:
        return None
    collapsed = above[-1] < s.d_loss_collapsed
    limit = s.d_loss_floor + (s.d_loss_collapsed if collapsed else s.d_loss_strong)
    means = "the discriminator may have collapsed: it has nothing left to learn, and G gets no usable gradient" if collapsed else "D too strong"
    return Finding("d_loss_low", "warning", float(found[since, 0]), f"D loss {found[-1, 1]:.3g} (median of {s.window} lines), healthy above "
                   f"{s.d_loss_floor + s.d_loss_strong:.3g}, limit {limit:.3g}: {means}",
                   "train D less: D:G steps 1:2 (1:3 where D is still too strong), or d_lr 2e-4→1e-4")


def _d_too_strong(rows: list[dict], s: Watch) -> Finding | None:
    found = _medians(_finite(series(rows, "d/real_prob", "d/fake_prob")), s.window)
    real, fake = found[:, 1], found[:, 2]
    since = _since((real > s.real_prob_high) & (fake < s.fake_prob_low),
                   (real < s.real_prob_high / s.release) | (fake > s.fake_prob_low * s.release))
    if since is None:
        return None
    return Finding("d_too_strong", "warning", float(found[since, 0]), f"D(x) {real[-1]:.3g}, above {s.real_prob_high:g}, while D(G(z)) "
                   f"{fake[-1]:.2g}, below {s.fake_prob_low:g} (medians of {s.window} lines): D too strong, it tells every image apart",
                   "one more G step (D:G steps 1:2, then 1:3), or d_lr 2e-4→1e-4")


def _real_prob_low(rows: list[dict], s: Watch) -> Finding | None:
    found = _medians(_finite(series(rows, "d/real_prob", "d/fake_prob")), s.window)
    since = _since(found[:, 1] < s.real_prob_low, found[:, 1] >= s.real_prob_low * s.release)
    if since is None:
        return None
    return Finding("real_prob_low", "warning", float(found[since, 0]), f"D(x) {found[-1, 1]:.3g} (median of {s.window} lines), healthy "
                   f"{s.real_prob_low:g}–{s.real_prob_high:g}; D(G(z)) {found[-1, 2]:.3g}: D takes real images for generated ones",
                   "let D catch up: D:G steps 1:1, d_lr not below g_lr; where the score falls all the same, leave it: "
                   "with real labels of 0.9 a D that cannot tell the two apart ends at 0.45")


def _g_loss_limit(medians: np.ndarray, s: Watch) -> np.ndarray:
    """What the G loss may reach: measured against its lowest median so far, which an explosion cannot move."""
    lowest = np.minimum.accumulate(medians) if len(medians) else medians
    return np.maximum(s.g_loss_growth * lowest, s.g_loss_high)


def _g_loss(rows: list[dict], s: Watch) -> Finding | None:
    found = _medians(_finite(series(rows, "g/loss")), s.window)
    limit = _g_loss_limit(found[:, 1], s)
    since = _since(found[:, 1] > limit, found[:, 1] < limit / s.release)
    if since is None:
        return None
    at = int(found[:, 1].argmin())
    return Finding("g_loss_exploding", "warning", float(found[since, 0]), f"G loss {found[-1, 1]:.3g} (median of {s.window} lines), limit "
                   f"{limit[-1]:.3g}; its lowest was {found[at, 1]:.3g} at epoch {found[at, 0]:.4g}: exploding, the learning rate is too high",
                   "lower the learning rate: g_lr and d_lr 2e-4→1e-4, then 5e-5; gradient clipping 1.0→0.5; "
                   "with D(x) → 1 and D(G(z)) → 0, one more G step")


def _overfit(rows: list[dict], s: Watch) -> Finding | None:
    found = _medians(_finite(series(rows, "valid/overfit")), s.valid_window)
    since = _since(found[:, 1] > s.overfit_high, found[:, 1] < s.overfit_high / s.release)
    if since is None:
        return None
    return Finding("d_overfitting", "warning", float(found[since, 0]), f"valid/overfit {found[-1, 1]:.3g} (median of {s.valid_window} validations), "
                   f"healthy below {s.overfit_high:g}: D has memorised the training images, held-out ones look generated to it",
                   "stop early and keep the best checkpoint; weight decay 1e-5; a smaller D (ndf); "
                   "more or cleaner images (flips only: rotation, affine and colour jitter hurt on this data)")


def _score_mark(rows: list[dict], s: Watch) -> tuple[np.ndarray | None, np.ndarray | None, int]:
    """(epoch, score) of the last clear improvement, of the last evaluation, and how many evaluations came after the former."""
    key = score_key(rows)
    scores = _finite(series(rows, key)) if key else np.empty((0, 2))
    if not len(scores):
        return None, None, 0
    at = 0
    for i, score in enumerate(scores[:, 1]):
        if score < scores[at, 1] - abs(scores[at, 1]) * s.score_flat_change:
            at = i
    return scores[at], scores[-1], len(scores) - 1 - at


def _score_flat(rows: list[dict], s: Watch) -> Finding | None:
    mark, last, evaluations = _score_mark(rows, s)
    if mark is None or evaluations < s.score_flat_evaluations or last[0] - mark[0] < s.score_flat_epochs:
        return None
    name = score_key(rows).partition("/")[2]
    return Finding("score_flat", "warning", float(mark[0]), f"{name} flat for {last[0] - mark[0]:.4g} epochs ({evaluations} evaluations): {mark[1]:.4g} at "
                   f"epoch {mark[0]:.4g}, now {last[1]:.4g}",
                   "change the schedule (decay earlier, 2500–3000 epochs) or stop early; then ngf = ndf = 96, attention at 8×8 and 32×32, "
                   "StyleGAN2, cleaner data; if it jumped up, return to an earlier checkpoint and lower both rates (D 5e-5, G 1e-4)")


def _nonfinite_lines(rows: list[dict]) -> list[tuple[float, list[str]]]:
    """(epoch, keys) of the lines that hold a NaN, an infinity or null."""
    bad = [(row["epoch"], [key for key, value in row.items() if "/" in key and not math.isfinite(_number(value))]) for row in rows]
    return [(epoch, keys) for epoch, keys in bad if keys]


def _nonfinite(rows: list[dict], s: Watch) -> Finding | None:
    bad = _nonfinite_lines(rows[-s.window:])
    if not bad:
        return None
    total = min(len(rows), s.window)
    lasting = len(bad) >= min(s.nonfinite_lines, total)
    names = ", ".join(sorted({key for _, keys in bad for key in keys}))
    return Finding("nonfinite", "warning" if lasting else "note", bad[0][0], f"NaN or infinity in {len(bad)} of the last {total} lines: {names}",
                   "unstable: learning rate 5e-5, gradient clipping 0.5; go back to a checkpoint from before" if lasting else
                   "nothing while it stays single: such a step is skipped")
