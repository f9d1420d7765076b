"""Samples from noise, and D's scores of images it was not trained on; for image recipes."""

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch

from distgan.core import rng
from distgan.data import ada, diffaugment, transforms
from distgan.data.dataset import Data
from distgan.data.labels import Labels
from distgan.data.loader import MicroBatch
from distgan.engine.player import Log, Player
from distgan.engine.strength import Strength

CHUNK = 64  # images that are judged at once


class DrawsFromNoise:
    """A base of recipes that draw images from noise. With `labels`, the networks are given the
    class of each image: of a real one its own, of a sample that it is paired with the same.
    """

    run: Any
    G: Player
    D: Player
    ada: Strength
    dtype: torch.dtype
    labels: Labels | None

    def sample(
        self,
        numbers: np.ndarray,
        purpose: str = "noise/sample",
        classes: np.ndarray | None = None,
        truncation: float | None = None,
    ) -> torch.Tensor:
        """Return images [n, channels, height, width] in [-1, 1] of the averaged generator.

        Image i depends on the seed and i alone; so does its class, unless `classes` gives it: [n],
        or weights [n, classes] for images between several.
        """
        if classes is None and self.labels is not None:
            classes = self.classes_of(numbers, purpose)
        run = self.run
        return sample(self.G, numbers, run.seed, purpose, run.latent, classes, truncation)

    def classes_of(self, numbers: np.ndarray, purpose: str = "noise/sample") -> np.ndarray:
        """Return int64 [n], the classes of the samples `numbers`."""
        assert self.labels is not None
        return self.labels.draw(self.run.seed, purpose, numbers, self.run.class_share)

    def _classes(self, micro: MicroBatch) -> tuple[torch.Tensor, ...]:
        """Return (the classes of these samples,), to be given to the networks; () without."""
        return () if micro.labels is None else (micro.labels,)

    def _diffaugment(self, images: torch.Tensor, micro: MicroBatch, purpose: str) -> torch.Tensor:
        run = self.run
        images = diffaugment.images(
            images, run.diffaugment, run.seed, f"diffaugment/{purpose}", micro.positions
        )
        if not run.ada:
            return images
        at = f"ada/{purpose}", micro.positions
        return ada.images(images, run.ada_operations, self.ada.value, run.seed, *at)

    def _see_reals(self, real: torch.Tensor, fake: torch.Tensor) -> Log:
        """Count for ADA how often D's output for a real is above that for the sample beside it.

        Outputs are compared in pairs because they have no zero of their own: not those of a
        critic or of relativistic pairs, and with smoothed labels D is below 0 where it cannot tell.
        """
        return {"ada_sign": self.ada.see(real - fake)} if self.run.ada else {}

    def _update_d(
        self,
        loss_of: Callable[[Any], tuple[torch.Tensor, Log]],
        batch: list[MicroBatch],
        epoch: float,
    ) -> Log:
        """Update D; adjust the strength of ADA if it is due. Collective."""
        log, run = self.D.update(loss_of, batch, epoch), self.run
        if not run.ada:
            return log
        self.ada.settle(log["skipped"])
        if (batch[0].batch_index + 1) % run.ada_every == 0:
            self.ada.adjust(run.ada_target, run.ada_kimg * 1000, run.ada_limit)
        return log | {"ada": self.ada.value.clone()}

    def _noise(self, micro: MicroBatch, purpose: str) -> torch.Tensor:
        return micro.noise(self.run.seed, purpose, self.run.latent, self.run.batch).to(self.dtype)


def sample(
    G: Player,
    numbers: Iterable[int],
    seed: int,
    purpose: str,
    latent: int,
    classes: np.ndarray | None = None,
    truncation: float | None = None,
) -> torch.Tensor:
    """Return images [n, channels, height, width] in [-1, 1], or vectors [n, size], of the averaged
    generator.

    Sample i depends on the seed and i alone, and on its class where there are `classes` [n]. With
    `truncation`, its noise is cut as `truncated` does.
    """
    noise = torch.cat([rng.normal(seed, purpose, int(i), (1, latent)) for i in numbers])
    if truncation is not None:
        noise = truncated(noise, truncation)
    with G.evaluating_ema() as generator:
        like = next(generator.parameters())
        given = () if classes is None else (torch.from_numpy(classes).to(like.device),)
        return generator(noise.to(like), *given)


def truncated(noise: torch.Tensor, limit: float) -> torch.Tensor:
    """Turn standard normal noise into noise of the normal distribution cut at ± limit.

    The truncation trick of Brock et al. 2019 (BigGAN, section 3.1), who draw again what lies
    outside. Here each value moves to the same quantile of the cut distribution, so it stays a
    function of its address, and the order of values is kept at any limit.
    """
    half = torch.special.ndtr(torch.tensor(limit, dtype=torch.float64)) - 0.5
    quantile = torch.special.ndtr(noise.double()) - 0.5
    cut = torch.special.ndtri(0.5 + 2 * half * quantile)
    return cut.clamp(-limit, limit).to(noise.dtype)


def discriminator_scores(
    recipe: DrawsFromNoise, data: Data
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return D's outputs, in eval mode, for all held-out images, as many training images and as
    many samples: [n] each. Starts no collective.

    Samples are rounded to 8 bits as the images are.
    """
    held_out, purpose = len(data.validation), "noise/validation"
    with recipe.D.evaluating() as critic:
        like = next(critic.parameters())

        def said(chunks: Iterable[torch.Tensor], classes: np.ndarray | None) -> torch.Tensor:
            scores, start = [], 0
            for chunk in chunks:
                images = transforms.to_unit(chunk.to(like.device), like.dtype)
                given: tuple[torch.Tensor, ...] = ()
                if classes is not None:
                    here = classes[start : start + len(chunk)]
                    given = (torch.from_numpy(here).to(like.device),)
                scores.append(critic(images, *given))
                start += len(chunk)
            return torch.cat(scores)

        fakes = (
            transforms.to_bytes(recipe.sample(np.arange(i, min(i + CHUNK, held_out)), purpose))
            for i in range(0, held_out, CHUNK)
        )
        drawn = recipe.classes_of(np.arange(held_out), purpose) if recipe.labels else None
        return (
            said(data.chunks(data.validation, CHUNK), data.classes.get("validation")),
            said(data.chunks(data.train, CHUNK, limit=held_out), data.classes.get("train")),
            said(fakes, drawn),
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
