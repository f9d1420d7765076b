"""Success criteria of a run, from the specifications of the systems: pure functions of the journal.
Imports no torch.

The keys of the journal and the thresholds decide which criteria apply: pairs with an L1 loss, a
discriminator whose outputs are probabilities, a Wasserstein critic, audio that is compared with its
input. No recipe is named here.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from distgan.monitor.journal import epoch_means, finite, gaps, medians, score_key
from distgan.monitor.rules_game import gan_means
from distgan.monitor.rules_outcome import validation_rising
from distgan.monitor.settings import Watch

FRECHET = ("eval/fid", "eval/frechet_lite0", "eval/frechet_standin", "eval/frechet_vectors")
FID_GOOD = 50.0  # of sagan and wgan_flowers; another extractor has another scale


@dataclass(frozen=True)
class Criterion:
    """One criterion: what is required, and what was measured (if `met` is None: what is missing),
    as text.
    """

    name: str
    met: bool | None  # None: not enough in the journal to say
    measured: str
    required: str


def criteria(
    rows: list[dict], config: dict[str, Any], watch: Watch, warnings: list[dict]
) -> list[Criterion]:
    """Return the criteria that apply to a run, in the order in which to show them; [] if none does,
    as for a run that has just begun.

    rows: the whole journal; config: the settings, flat; warnings: the events `warning` of the run
    so far.
    """
    keys = {key for row in rows for key in row}
    if "valid/input_si_sdr" in keys:
        return [
            _beats_input(rows, *of)
            for of in (
                ("SI-SDR", "si_sdr", "dB", True),
                ("log-spectral distance", "lsd", "dB", False),
                ("multi-resolution STFT", "stft", "", False),
            )
        ]
    score = score_key(rows)
    if "valid/l1" in keys:
        return [
            *([] if watch.unbounded else [_d_loss(rows, watch)]),
            *([] if watch.unbounded or watch.stagnant_change is None else [_gan_loss(rows, watch)]),
            _l1_falls(rows, watch),
            _gap(rows, watch),
            _no_warning(rows, warnings),
        ]
    frechet = (
        [_score_falls(rows, score, watch)] + ([_fid(rows)] if score == "eval/fid" else [])
        if score in FRECHET
        else []
    )
    if "d/wasserstein" in keys:
        return [*frechet, _wasserstein(rows, watch)]
    if "d/real_prob" in keys:
        d_loss = (
            [_now("D loss", rows, "d/loss", *watch.healthy["d/loss"], watch)]
            if "d/loss" in watch.healthy
            else []
        )
        return [
            _real_prob(rows, config, watch),
            _drift(rows, watch),
            *d_loss,
            _comparable(rows, watch),
            *frechet,
        ]
    return frechet


# ---- pairs: the waveform system
def _d_loss(rows: list[dict], s: Watch) -> Criterion:
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
    required = f"stays {_range(low, high)} after epoch {s.stagnant_after:g} (means over each)"
    table = finite(rows, key)
    means = epoch_means(table, rows[-1]["epoch"])
    means = means[means[:, 0] > (np.floor(table[0, 0]) if len(table) else 0) + s.stagnant_after]
    if not len(means):
        return Criterion(
            name, None, f"no whole epoch after epoch {s.stagnant_after:g} yet", required
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
    return Criterion(
        name,
        not len(out),
        measured
        + (
            f"; outside in {len(out)} of {len(means)}, first in epoch {out[0]:.0f}"
            if len(out)
            else ""
        ),
        required,
    )


def _gan_loss(rows: list[dict], s: Watch) -> Criterion:
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


def _l1_falls(rows: list[dict], s: Watch) -> Criterion:
    required = "both fall, and validation L1 does not rise again"
    table = gaps(rows)
    if len(table) < 2:
        return Criterion(
            "training and validation L1",
            None,
            f"{_count(len(table), 'validation')} with training before, 2 are needed",
            required,
        )
    last = np.median(table[-s.valid_window :], axis=0) if len(table) > s.valid_window else table[-1]
    rising = validation_rising(rows, s, {})
    met = bool((last[1:] < table[0, 1:] * (1 - s.score_flat_change)).all()) and rising is None
    measured = (
        f"training {table[0, 1]:.3g} → {last[1]:.3g}, validation {table[0, 2]:.3g} → {last[2]:.3g},"
        f" epochs {table[0, 0]:.4g} to {table[-1, 0]:.4g}"
    )
    return Criterion(
        "training and validation L1",
        met,
        measured + (f"; {rising.message}" if rising else ""),
        required,
    )


def _gap(rows: list[dict], s: Watch) -> Criterion:
    required = (
        f"validation L1 − training L1 below {s.gap_healthy:g} (median of the last {s.valid_window}"
        " validations)"
    )
    table = gaps(rows)[-s.valid_window :]
    if not len(table):
        return Criterion(
            "generalisation gap", None, "no validation with training before it yet", required
        )
    train, valid = np.median(table[:, 1]), np.median(table[:, 2])
    gap = float(np.median(table[:, 2] - table[:, 1]))
    return Criterion(
        "generalisation gap",
        gap < s.gap_healthy,
        f"{gap:.3g} ({valid:.3g} − {train:.3g})",
        required,
    )


def _no_warning(rows: list[dict], warnings: list[dict]) -> Criterion:
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
            f"{event.get('rule')} (epoch {event.get('epoch', 0):.4g})" for event in raised
        )
    )
    return Criterion("warnings", False, f"{len(raised)}: {names}", "none was raised")


# ---- samples from noise: the sagan and wgan_flowers systems
def _real_prob(rows: list[dict], config: dict[str, Any], s: Watch) -> Criterion:
    low, high = s.healthy.get("d/real_prob", (None, None))
    made = _now("D(x)", rows, "d/real_prob", low, high, s)
    label = config.get("real_label")
    if made.met is False and isinstance(label, int | float):
        end = (label + (config.get("fake_label") or 0)) / 2
        return Criterion(
            made.name,
            made.met,
            f"{made.measured}; the expected equilibrium for these labels is {end:.3g}",
            made.required,
        )
    return made


def _now(
    name: str, rows: list[dict], key: str, low: float | None, high: float | None, s: Watch
) -> Criterion:
    required = f"{_range(low, high)} at the end (median of {s.window} lines)"
    values = finite(rows, key)[-s.window :, 1]
    if len(values) < s.window:
        return Criterion(
            name, None, f"{_count(len(values), 'line')}, {s.window} are needed", required
        )
    value = float(np.median(values))
    return Criterion(
        name,
        (low is None or value >= low) and (high is None or value <= high),
        f"{value:.3g}",
        required,
    )


def _drift(rows: list[dict], s: Watch) -> Criterion:
    """Compare the last quarter of the run with the first quarter, not with the first line: an
    untrained D outputs 0.5 for every sample.
    """
    low, high = s.healthy.get("d/fake_prob", (None, None))
    required = (
        "drifts towards 0.5: nearer to it in the last quarter of the run than in the first, or"
        " within 0.1 of it"
    )
    if low is not None and high is not None:
        return _now("D(G(z))", rows, "d/fake_prob", low, high, s)
    table = finite(rows, "d/fake_prob")
    if len(table) < 4 * s.window:
        return Criterion(
            "D(G(z))", None, f"{_count(len(table), 'line')}, {4 * s.window} are needed", required
        )
    quarter = len(table) // 4
    first, last = float(np.median(table[:quarter, 1])), float(np.median(table[-quarter:, 1]))
    return Criterion(
        "D(G(z))",
        abs(last - 0.5) < max(abs(first - 0.5), 0.1),
        f"{first:.3g} in the first quarter, {last:.3g} in the last (medians)",
        required,
    )


def _comparable(rows: list[dict], s: Watch) -> Criterion:
    if "g/loss" in s.healthy:
        return _now("G loss", rows, "g/loss", *s.healthy["g/loss"], s)
    required = (
        f"within a factor of {s.loss_ratio:g} of each other at the end (medians of {s.window}"
        " lines)"
    )
    table = finite(rows, "d/loss", "g/loss")[-s.window :, 1:]
    if len(table) < s.window:
        return Criterion(
            "G and D losses", None, f"{_count(len(table), 'line')}, {s.window} are needed", required
        )
    d, g = (float(value) for value in np.median(table, axis=0))
    return Criterion(
        "G and D losses",
        d > 0 and 1 / s.loss_ratio <= g / d <= s.loss_ratio,
        f"G {g:.3g}, D {d:.3g}",
        required,
    )


def _score_falls(rows: list[dict], key: str, s: Watch) -> Criterion:
    name, required = key.partition("/")[2], "falls: the best is below the first"
    scores = finite(rows, key)
    if len(scores) < 2:
        return Criterion(name, None, f"{_count(len(scores), 'evaluation')}, 2 are needed", required)
    first, best = scores[0], scores[scores[:, 1].argmin()]
    times = f", {first[1] / best[1]:.3g}-fold" if best[1] > 0 else ""
    return Criterion(
        name,
        bool(best[1] < first[1] * (1 - s.score_flat_change)),
        f"{first[1]:.4g} at epoch {first[0]:.4g}, best {best[1]:.4g} at epoch "
        f"{best[0]:.4g}{times}; last {scores[-1, 1]:.4g}",
        required,
    )


def _fid(rows: list[dict]) -> Criterion:
    best = float(finite(rows, "eval/fid")[:, 1].min(initial=np.inf))
    return Criterion(
        "FID",
        best < FID_GOOD if np.isfinite(best) else None,
        f"{best:.4g}" if np.isfinite(best) else "no finite score",
        f"below {FID_GOOD:g}",
    )


def _wasserstein(rows: list[dict], s: Watch) -> Criterion:
    required = (
        f"falls from its peak by a factor of {s.release:g} at the least (medians of {s.window}"
        " lines)"
    )
    windows = medians(finite(rows, "d/wasserstein"), s.window)
    if len(windows) < 2:
        return Criterion("Wasserstein estimate", None, f"fewer lines than {s.window + 1}", required)
    peak, last = windows[windows[:, 1].argmax()], windows[-1]
    return Criterion(
        "Wasserstein estimate",
        bool(last[1] < peak[1] / s.release),
        f"peak {peak[1]:.4g} at epoch {peak[0]:.4g}, now {last[1]:.4g}",
        required,
    )


# ---- audio that is to be better than its input: the timbre system
def _beats_input(rows: list[dict], name: str, key: str, unit: str, higher: bool) -> Criterion:
    """Compare with the input at the validation with the best score, whose checkpoint the results
    are made from; without a score, at the last validation.
    """
    required = (
        f"repaired audio {'above' if higher else 'below'} the denoised input, on held-out"
        " recordings"
    )
    table = finite(rows, f"valid/{key}", f"valid/input_{key}")
    table = table[table[:, 0] > 0]
    if not len(table):
        return Criterion(
            name,
            None,
            f"no validation with valid/{key} and valid/input_{key} after training began",
            required,
        )
    score = score_key(rows)
    scores = finite(rows, score) if score else table[-1:]
    epoch, output, source = (
        table[np.abs(table[:, 0] - scores[scores[:, 1].argmin(), 0]).argmin()]
        if len(scores)
        else table[-1]
    )
    measured = (
        f"{output:.4g} against {source:.4g}{unit and ' ' + unit} at epoch"
        f" {epoch:.4g}{', the best checkpoint' if score else ''}"
    )
    return Criterion(name, bool(output > source if higher else output < source), measured, required)


def _range(low: float | None, high: float | None) -> str:
    if low is not None and high is not None:
        return f"in {low:.3g}–{high:.3g}"
    return (
        f"above {low:.3g}"
        if low is not None
        else f"below {high:.3g}"
        if high is not None
        else "anywhere"
    )


def _count(n: int, what: str) -> str:
    return f"{n} {what}{'' if n == 1 else 's'}"
