"""Was the run a success? The criteria of the systems' documents, one by one: pure functions of the
journal. Imports no torch.

Which apply follows from what the journal holds and from the thresholds: pairs with an L1, a
discriminator whose outputs are probabilities, a Wasserstein critic, audio that is compared with its
input. Nothing here knows a recipe's name.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from distgan.monitor.journal import epoch_means, finite, gaps, medians, score_key
from distgan.monitor.rules_game import gan_means
from distgan.monitor.rules_outcome import validation_rising
from distgan.monitor.settings import Watch

FRECHET = ("eval/fid", "eval/frechet_standin")
FID_GOOD = 50.0  # of the documents on sagan and wgan_flowers; another extractor has another scale


@dataclass(frozen=True)
class Criterion:
    """One criterion: what was asked, what was found (where `met` is None: what is missing), both as
    text for people.
    """

    name: str
    met: bool | None  # None: not enough in the journal to say
    found: str
    asked: str


def criteria(
    rows: list[dict], config: dict[str, Any], watch: Watch, warnings: list[dict]
) -> list[Criterion]:
    """The criteria that apply to a run, in the order in which to show them; [] where none does, as
    for one that has just begun.

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
    asked = f"stays {_range(low, high)} after epoch {s.stagnant_after:g} (means over each)"
    table = finite(rows, key)
    means = epoch_means(table, rows[-1]["epoch"])
    means = means[means[:, 0] > (np.floor(table[0, 0]) if len(table) else 0) + s.stagnant_after]
    if not len(means):
        return Criterion(name, None, f"no whole epoch after epoch {s.stagnant_after:g} yet", asked)
    out = means[
        (means[:, 1] < (-np.inf if low is None else low))
        | (means[:, 1] > (np.inf if high is None else high)),
        0,
    ]
    found = (
        f"{means[:, 1].min():.3g} to {means[:, 1].max():.3g} in epochs {means[0, 0]:.0f} to"
        f" {means[-1, 0]:.0f}"
    )
    return Criterion(
        name,
        not len(out),
        found
        + (
            f"; outside in {len(out)} of {len(means)}, first in epoch {out[0]:.0f}"
            if len(out)
            else ""
        ),
        asked,
    )


def _gan_loss(rows: list[dict], s: Watch) -> Criterion:
    asked = (
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
            asked,
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
        asked,
    )


def _l1_falls(rows: list[dict], s: Watch) -> Criterion:
    asked = "both fall, and validation L1 does not rise again"
    table = gaps(rows)
    if len(table) < 2:
        return Criterion(
            "training and validation L1",
            None,
            f"{_count(len(table), 'validation')} with training before, 2 are needed",
            asked,
        )
    last = np.median(table[-s.valid_window :], axis=0) if len(table) > s.valid_window else table[-1]
    rising = validation_rising(rows, s, {})
    met = bool((last[1:] < table[0, 1:] * (1 - s.score_flat_change)).all()) and rising is None
    found = (
        f"training {table[0, 1]:.3g} → {last[1]:.3g}, validation {table[0, 2]:.3g} → {last[2]:.3g},"
        f" epochs {table[0, 0]:.4g} to {table[-1, 0]:.4g}"
    )
    return Criterion(
        "training and validation L1", met, found + (f"; {rising.message}" if rising else ""), asked
    )


def _gap(rows: list[dict], s: Watch) -> Criterion:
    asked = (
        f"validation L1 − training L1 below {s.gap_healthy:g} (median of the last {s.valid_window}"
        " validations)"
    )
    table = gaps(rows)[-s.valid_window :]
    if not len(table):
        return Criterion(
            "generalisation gap", None, "no validation with training before it yet", asked
        )
    train, valid = np.median(table[:, 1]), np.median(table[:, 2])
    gap = float(np.median(table[:, 2] - table[:, 1]))
    return Criterion(
        "generalisation gap", gap < s.gap_healthy, f"{gap:.3g} ({valid:.3g} − {train:.3g})", asked
    )


def _no_warning(rows: list[dict], warnings: list[dict]) -> Criterion:
    raised = [event for event in warnings if event.get("level", "warning") == "warning"]
    if not raised:
        return Criterion(
            "warnings",
            True if rows else None,
            "none" if rows else "nothing was judged yet",
            "none was raised",
        )
    said = ", ".join(
        dict.fromkeys(
            f"{event.get('rule')} (epoch {event.get('epoch', 0):.4g})" for event in raised
        )
    )
    return Criterion("warnings", False, f"{len(raised)}: {said}", "none was raised")


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
            f"{made.found}; with these labels a D that cannot tell the two apart ends at {end:.3g}",
            made.asked,
        )
    return made


def _now(
    name: str, rows: list[dict], key: str, low: float | None, high: float | None, s: Watch
) -> Criterion:
    asked = f"{_range(low, high)} at the end (median of {s.window} lines)"
    values = finite(rows, key)[-s.window :, 1]
    if len(values) < s.window:
        return Criterion(name, None, f"{_count(len(values), 'line')}, {s.window} are needed", asked)
    value = float(np.median(values))
    return Criterion(
        name,
        (low is None or value >= low) and (high is None or value <= high),
        f"{value:.3g}",
        asked,
    )


def _drift(rows: list[dict], s: Watch) -> Criterion:
    """An untrained D says 0.5 of everything, so it is the first quarter of the run, not its first
    line, that the last is compared with.
    """
    low, high = s.healthy.get("d/fake_prob", (None, None))
    asked = (
        "drifts towards 0.5: nearer to it in the last quarter of the run than in the first, or"
        " within 0.1 of it"
    )
    if low is not None and high is not None:
        return _now("D(G(z))", rows, "d/fake_prob", low, high, s)
    table = finite(rows, "d/fake_prob")
    if len(table) < 4 * s.window:
        return Criterion(
            "D(G(z))", None, f"{_count(len(table), 'line')}, {4 * s.window} are needed", asked
        )
    quarter = len(table) // 4
    first, last = float(np.median(table[:quarter, 1])), float(np.median(table[-quarter:, 1]))
    return Criterion(
        "D(G(z))",
        abs(last - 0.5) < max(abs(first - 0.5), 0.1),
        f"{first:.3g} in the first quarter, {last:.3g} in the last (medians)",
        asked,
    )


def _comparable(rows: list[dict], s: Watch) -> Criterion:
    if "g/loss" in s.healthy:
        return _now("G loss", rows, "g/loss", *s.healthy["g/loss"], s)
    asked = (
        f"within a factor of {s.loss_ratio:g} of each other at the end (medians of {s.window}"
        " lines)"
    )
    table = finite(rows, "d/loss", "g/loss")[-s.window :, 1:]
    if len(table) < s.window:
        return Criterion(
            "G and D losses", None, f"{_count(len(table), 'line')}, {s.window} are needed", asked
        )
    d, g = (float(value) for value in np.median(table, axis=0))
    return Criterion(
        "G and D losses",
        d > 0 and 1 / s.loss_ratio <= g / d <= s.loss_ratio,
        f"G {g:.3g}, D {d:.3g}",
        asked,
    )


def _score_falls(rows: list[dict], key: str, s: Watch) -> Criterion:
    name, asked = key.partition("/")[2], "falls: the best is below the first"
    scores = finite(rows, key)
    if len(scores) < 2:
        return Criterion(name, None, f"{_count(len(scores), 'evaluation')}, 2 are needed", asked)
    first, best = scores[0], scores[scores[:, 1].argmin()]
    times = f", {first[1] / best[1]:.3g}-fold" if best[1] > 0 else ""
    return Criterion(
        name,
        bool(best[1] < first[1] * (1 - s.score_flat_change)),
        f"{first[1]:.4g} at epoch {first[0]:.4g}, best {best[1]:.4g} at epoch "
        f"{best[0]:.4g}{times}; last {scores[-1, 1]:.4g}",
        asked,
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
    asked = (
        f"falls from its peak by a factor of {s.release:g} at the least (medians of {s.window}"
        " lines)"
    )
    found = medians(finite(rows, "d/wasserstein"), s.window)
    if len(found) < 2:
        return Criterion("Wasserstein estimate", None, f"fewer lines than {s.window + 1}", asked)
    peak, last = found[found[:, 1].argmax()], found[-1]
    return Criterion(
        "Wasserstein estimate",
        bool(last[1] < peak[1] / s.release),
        f"peak {peak[1]:.4g} at epoch {peak[0]:.4g}, now {last[1]:.4g}",
        asked,
    )


# ---- audio that is to be better than its input: the timbre system
def _beats_input(rows: list[dict], name: str, key: str, unit: str, higher: bool) -> Criterion:
    """At the validation with the best score, whose checkpoint is what is delivered.

    At the last where there is no score.
    """
    asked = (
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
            asked,
        )
    score = score_key(rows)
    scores = finite(rows, score) if score else table[-1:]
    epoch, own, theirs = (
        table[np.abs(table[:, 0] - scores[scores[:, 1].argmin(), 0]).argmin()]
        if len(scores)
        else table[-1]
    )
    found = (
        f"{own:.4g} against {theirs:.4g}{unit and ' ' + unit} at epoch"
        f" {epoch:.4g}{', the best checkpoint' if score else ''}"
    )
    return Criterion(name, bool(own > theirs if higher else own < theirs), found, asked)


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
