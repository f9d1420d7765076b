"""Choose the success criteria that apply to a run. Imports no torch.

The keys of the journal and the thresholds decide: pairs with an L1 loss, a discriminator whose
outputs are probabilities, a Wasserstein critic, samples from noise, audio that is compared with its
input. No recipe is named here.
"""

import dataclasses
from typing import Any

from distgan.monitor.journal import score_key
from distgan.monitor.settings import Watch
from distgan.monitor.success import game, pairs, samples
from distgan.monitor.success.criterion import Criterion

# Of runs that draw samples from noise; any of them, or a Fréchet distance, makes a run one.
GAN_LOSSES = {"g/adversarial", "g/loss"}
FROM_NOISE = ("valid/diversity", "valid/nearest", "valid/overfit", "d/real_prob", "d/wasserstein")


def criteria(
    rows: list[dict], values: dict[str, Any], watch: Watch, warnings: list[dict]
) -> list[Criterion]:
    """Return the criteria that apply to a run, in the order in which to show them: the outcome
    first. [] if none does, as for a run that has just begun.

    rows: the whole journal; values: the settings, flat; warnings: the events `warning` of the run
    so far.
    """
    keys = {key for row in rows for key in row}
    if "valid/input_si_sdr" in keys:
        named = (
            ("SI-SDR", "si_sdr", "dB", True),
            ("log-spectral distance", "lsd", "dB", False),
            ("multi-resolution STFT", "stft", "", False),
        )
        return [*(pairs.beats_input(rows, *of) for of in named), pairs.on_most(rows)]
    if "valid/l1" in keys:
        return [
            pairs.l1_falls(rows, watch),
            pairs.gap(rows, watch),
            pairs.beats_trivial(rows),
            *_of_losses(rows, keys, watch),
            game.no_warning(rows, warnings),
        ]
    score = score_key(rows)
    found = []
    if score in samples.FRECHET or keys.intersection(FROM_NOISE):
        found = _of_samples(rows, score, watch)
    if "d/wasserstein" in keys:
        return [*found, game.wasserstein(rows, watch)]
    return [*found, *_of_probabilities(rows, keys, values, watch)]


def _of_losses(rows: list[dict], keys: set[str], watch: Watch) -> list[Criterion]:
    """Return the criteria of the game of pairs, of the losses that the run journals."""
    if watch.unbounded:
        return []
    found = [game.d_loss(rows, watch)] if "d/loss" in keys else []
    if watch.stagnant_change is not None and GAN_LOSSES & keys:
        found.append(game.gan_loss(rows, watch))
    return found


def _of_samples(rows: list[dict], score: str | None, watch: Watch) -> list[Criterion]:
    """Either of diversity and coverage shows a collapse, so one that is not measured can be done
    without where the other is.
    """
    variety = [samples.diversity(rows, watch), samples.coverage(rows)]
    if any(one.met is not None for one in variety):
        variety = [
            dataclasses.replace(one, outcome=one.outcome and one.met is not None) for one in variety
        ]
    return [
        *variety,
        *([samples.score(rows, score, watch)] if score in samples.FRECHET else []),
        *([samples.fid(rows)] if score == "eval/fid" else []),
        samples.copies(rows, watch),
    ]


def _of_probabilities(
    rows: list[dict], keys: set[str], values: dict[str, Any], watch: Watch
) -> list[Criterion]:
    if "d/real_prob" not in keys:
        return []
    d_loss = watch.healthy.get("d/loss")
    return [
        game.real_prob(rows, values, watch),
        *([game.drift(rows, watch)] if "d/fake_prob" in keys else []),
        *([game.now("D loss", rows, "d/loss", *d_loss, watch)] if d_loss else []),
        *([game.comparable(rows, watch)] if {"d/loss", "g/loss"} <= keys else []),
    ]
