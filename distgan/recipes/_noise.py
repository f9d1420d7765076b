"""Samples from noise, and D's scores of images it was not trained on; for image recipes."""

from collections.abc import Callable, Iterable

import numpy as np
import torch

from distgan.core import rng
from distgan.core.errors import ConfigError
from distgan.data import transforms
from distgan.data.dataset import Data
from distgan.engine.player import Player
from distgan.recipes._base import GRID

CHUNK = 64  # images that are judged at once


def channels(shape: tuple[int, int, int], recipe: str) -> int:
    """Return the channels of a data set of [channels, 64, 64]; ConfigError for another size."""
    if shape[1] != 64:
        raise ConfigError(
            f"data: {recipe} draws 64x64 images, this data set is {shape[1]}x{shape[1]}; make it"
            " again with --size 64"
        )
    return shape[0]


def sample(G: Player, numbers: Iterable[int], seed: int, purpose: str, latent: int) -> torch.Tensor:
    """Images [n, channels, 64, 64] in [-1, 1] of the averaged generator.

    Image i depends on the seed and i alone.
    """
    noise = torch.cat([rng.normal(seed, purpose, int(i), (1, latent)) for i in numbers])
    with G.evaluating_ema() as generator:
        return generator(noise.to(next(generator.parameters())))


def discriminator_scores(
    D: Player, data: Data, draw: Callable[[np.ndarray, str], torch.Tensor]
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return D's outputs, in eval mode, for all held-out images, as many training images and as
    many samples: [n] each. Starts no collective.

    `draw` is the recipe's `sample`. Samples are rounded to 8 bits as the images are.
    """
    held_out = len(data.validation)
    with D.evaluating() as critic:
        like = next(critic.parameters())

        def said(chunks: Iterable[torch.Tensor]) -> torch.Tensor:
            return torch.cat(
                [critic(transforms.to_unit(chunk.to(like.device), like.dtype)) for chunk in chunks]
            )

        fakes = (
            transforms.to_bytes(draw(np.arange(i, min(i + CHUNK, held_out)), "noise/validation"))
            for i in range(0, held_out, CHUNK)
        )
        return (
            said(data.chunks(data.validation, CHUNK)),
            said(data.chunks(data.train, CHUNK, limit=held_out)),
            said(fakes),
        )


def overfitting_ratio(held_out: torch.Tensor, seen: torch.Tensor, fake: torch.Tensor) -> float:
    """r_v of Karras et al. 2020 (ADA, eq. 1) on D's outputs without an activation: 0 where held-out
    reals look like training reals, 1 where they look like samples.

    Also 0 where D does not tell training reals from samples beyond chance (two standard errors): a
    share of that gap would be noise.
    """
    gap = float(seen.mean() - fake.mean())
    chance = (
        float((seen.var() / len(seen) + fake.var() / len(fake)).sqrt()) if len(seen) > 1 else 0.0
    )
    return float(seen.mean() - held_out.mean()) / gap if gap > max(2 * chance, 1e-6) else 0.0


def diversity(data: Data, draw: Callable[[np.ndarray, str], torch.Tensor]) -> float:
    """How much samples of fixed noise differ among each other, beside as many training images: 1 as
    much as those do, towards 0 a collapse.

    The root of the variance over images, averaged over pixels and channels, of up to 64 samples,
    divided by that of reals.
    """
    n = min(GRID, len(data.train))
    real = torch.cat(
        [transforms.to_unit(chunk) for chunk in data.chunks(data.train, CHUNK, limit=n)]
    )
    fake = transforms.to_unit(transforms.to_bytes(draw(np.arange(n), "noise/grid")))
    return _spread(fake) / max(_spread(real), 1e-6)


def _spread(images: torch.Tensor) -> float:
    return float(images.var(0).mean().sqrt())
