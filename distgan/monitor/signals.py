"""The health signals of a run: numbers to keep an eye on, each with its recent value and its
healthy range. Imports no torch.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from distgan.monitor.journal import finite, gaps, medians, thinned
from distgan.monitor.results import HealthSignal
from distgan.monitor.rules_game import g_loss_limit
from distgan.monitor.rules_outcome import nonfinite_lines, score_flat, scores_since_better
from distgan.monitor.settings import Range, Watch

_PROBABILITIES = {
    "d/real_prob": ("D(x)", "D's output for real samples"),
    "d/fake_prob": ("D(G(z))", "D's output for generated samples; should drift towards 0.5"),
}


class SignalSpec(NamedTuple):
    """One row of the table."""

    name: str
    value: float | None  # a median
    now: float | None
    enough: bool  # the journal holds a full window of lines
    range: Range  # both ends count as healthy; None: an open end
    meaning: str
    applies: bool = True

    def signal(self) -> HealthSignal:
        low, high = self.range
        ok = None
        if self.enough and self.value is not None:
            ok = (low is None or self.value >= low) and (high is None or self.value <= high)
        return HealthSignal(self.name, self.value, low, high, ok, self.meaning, self.now)


def health_signals(rows: list[dict], s: Watch) -> list[HealthSignal]:
    """Return the signals that apply to a run, in the order in which to show them.

    rows: lines of the journal; s: thresholds. The last two signals need no full window.
    """
    rows = thinned(rows)  # with the validation and score of the end, scheduled or not
    table = gaps(rows)
    gap = table[:, 2] - table[:, 1]
    specs = [
        *(() if s.unbounded else _game(rows, s, paired=len(gap) > 0)),
        *([_d_loss(rows, s)] if s.floored else []),
        *(
            _healthy_range(rows, s, key, key, "healthy range")
            for key in s.healthy
            if key not in ("d/loss", "g/loss", *_PROBABILITIES)
        ),
        *_validation(rows, s, gap),
    ]
    lines = nonfinite_lines(rows[-s.window :])
    return [
        *(spec.signal() for spec in specs if spec.applies),
        _since_better_score(rows, s),
        SignalSpec(
            "lines with NaN or infinity",
            float(len(lines)) if rows else None,
            float(len(lines)) if rows else None,
            True,
            (None, 0.0),
            f"of the last {s.window}",
        ).signal(),
    ]


def _game(rows: list[dict], s: Watch, paired: bool) -> Iterator[SignalSpec]:
    """The signals of a discriminator with bounded outputs.

    paired: the run trains on pairs with an L1 loss, which makes the losses incomparable.
    """
    for key, (name, meaning) in _PROBABILITIES.items():
        yield _healthy_range(rows, s, key, name, meaning)
    yield (d := _d_loss(rows, s))
    g_losses = finite(rows, "g/loss")
    g_loss, g_now, g_enough = _latest(g_losses[:, 1], s.window)
    limit = g_loss_limit(medians(g_losses, s.window)[:, 1], s)
    g_high = float(limit[-1]) if len(limit) and s.g_loss_growth else s.g_loss_high
    yield SignalSpec(
        "G loss",
        g_loss,
        g_now,
        g_enough,
        s.healthy.get("g/loss", (None, g_high)),
        "healthy range" if "g/loss" in s.healthy else "compared with its own lowest median",
    )
    yield SignalSpec(
        "G loss / D loss",
        g_loss / d.value if d.value and g_loss is not None else None,
        g_now / d.now if d.now and g_now is not None else None,
        d.enough and g_enough,
        (1 / s.loss_ratio, s.loss_ratio),
        "of comparable size",
        applies=not paired,
    )


def _d_loss(rows: list[dict], s: Watch) -> SignalSpec:
    table = finite(rows, "d/adversarial")
    return SignalSpec(
        "D loss",
        *_latest((table if len(table) else finite(rows, "d/loss"))[:, 1], s.window),
        s.healthy.get("d/loss", (s.least_d_loss + (s.d_loss_strong or 0.0), s.d_loss_weak)),
        "near its floor D has nothing left to learn and G gets no gradient",
    )


def _validation(rows: list[dict], s: Watch, gap: np.ndarray) -> list[SignalSpec]:
    """The signals of validations. gap: [n], validation L1 − training L1."""
    l1 = finite(rows, "valid/l1")
    diversity, nearest, overfit = (
        finite(rows, f"valid/{name}")[:, 1] for name in ("diversity", "nearest", "overfit")
    )
    lowest = medians(l1, s.valid_window)[:, 1]
    rise = s.valid_rise if len(lowest) else None
    return [
        SignalSpec(
            "validation L1 − training L1",
            *_latest(gap, s.valid_window),
            (None, s.gap_healthy),
            "a gap means overfitting",
            applies=len(gap) > 0,
        ),
        SignalSpec(
            "validation L1",
            *_latest(l1[:, 1], s.valid_window),
            (None, None if rise is None else float(lowest.min() * (1 + rise))),
            f"may be {s.valid_rise or 0:.0%} above its lowest median",
            applies=rise is not None,
        ),
        SignalSpec(
            "diversity of samples",
            *_latest(diversity, s.valid_window),
            (s.diversity_low, None),
            "relative to real samples: 1 is healthy, 0 is mode collapse",
            applies=len(diversity) > 0 and s.diversity_low is not None,
        ),
        SignalSpec(
            "distance from training images",
            *_latest(nearest, s.valid_window),
            (s.nearest_low, None),
            "relative to unseen images: 1 is healthy, 0 is copies",
            applies=len(nearest) > 0 and s.nearest_low is not None,
        ),
        SignalSpec(
            "overfit of D",
            *_latest(overfit, s.valid_window),
            (None, s.overfit_high),
            "(train − held-out) / (train − fake): 0 is none; 1: held-out samples look generated",
            applies=bool(s.overfit_high) and (len(overfit) > 0 or not len(gap)),
        ),
    ]


def _healthy_range(rows: list[dict], s: Watch, key: str, name: str, meaning: str) -> SignalSpec:
    """A journal key with a range in `watch.healthy`."""
    values, limits = finite(rows, key)[:, 1], s.healthy.get(key, (None, None))
    applies = limits != (None, None) and (len(values) > 0 or not rows)
    return SignalSpec(name, *_latest(values, s.window), limits, meaning, applies)


def _since_better_score(rows: list[dict], s: Watch) -> HealthSignal:
    _, scores, after = scores_since_better(rows, s)
    return HealthSignal(
        "epochs without a better score",
        (epochs := float(scores[-1, 0] - scores[-1 - after, 0]) if len(scores) else None),
        None,
        s.score_flat_epochs or float("inf"),
        score_flat(rows, s, {}) is None if len(scores) else None,
        f"a better score is lower by at least {s.score_flat_change:.0%}",
        epochs,
    )


def _latest(values: np.ndarray, window: int) -> tuple[float | None, float | None, bool]:
    """(the median of the last `window` values, the last value, are there so many)."""
    last = values[-window:]
    if not len(last):
        return None, None, False
    return float(np.median(last)), float(last[-1]), len(last) >= window
