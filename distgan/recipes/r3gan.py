"""R3GAN for small sets of images (Huang et al. 2024, The GAN is dead; long live the GAN!):
relativistic pairs, R1 and R2, no normalisation.

The paper's modern baseline: networks of residual blocks with grouped convolutions and fix-up
initialisation, bilinear resampling, and a loss that is regularised at reals and at samples alike.
Smaller than the paper's, and without what it anneals beside learning rate and gamma (Adam's beta2,
the average).
"""

import math
from collections.abc import Sequence
from functools import partial
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import nn

from distgan.config import batch_layout, image_sizes
from distgan.config.batch_layout import BatchLayout
from distgan.config.sections import Betas, Evaluate, Fraction, Positive, Restarts
from distgan.core.clock import Clock
from distgan.data import transforms
from distgan.data.dataset import Data
from distgan.data.diffaugment import ImagePolicy
from distgan.data.labels import Labels
from distgan.data.loader import MicroBatch
from distgan.distributed.ranks import Ranks
from distgan.engine.player import Log, Player, merge_logs
from distgan.engine.strength import Strength
from distgan.monitor.guides import EARLIER_R3GAN_MOVES, EARLIER_R3GAN_OVERFITTING, R3GAN_GUIDE
from distgan.monitor.settings import Neutral, Watch
from distgan.nn.class_vectors import class_vectors
from distgan.nn.image import freeze_blocks
from distgan.nn.losses import d_relativistic, g_relativistic, zero_centred_penalty
from distgan.recipes import _noise
from distgan.recipes._base import diversity, step_log
from distgan.recipes._image_settings import CHANNELS, ImageSettings

WIDEST = 8  # times the channels at half the size of the image
GROUP = 16  # channels of a group of the 3x3 convolutions, as in the paper's networks
SLOPE = 0.2  # of the leaky ReLU
GAIN = (2 / (1 + SLOPE**2)) ** 0.5


class Settings(ImageSettings):
    debug_batch: ClassVar[int] = 8  # a step of 32 images takes 4 to 7 s on two cores
    changed_defaults: ClassVar = {2: EARLIER_R3GAN_MOVES, 3: EARLIER_R3GAN_OVERFITTING}

    recipe: Literal["r3gan"] = Field("r3gan", description="the system to train")
    batch: int = Field(
        32,
        gt=0,
        le=batch_layout.MAX_BATCH,
        description="the global batch: samples per update over all ranks and micro-batches",
    )
    epochs: Positive = Field(
        2000, description="how far to train; a longer run is the same run, continued"
    )
    latent: int = Field(64, gt=0, le=65536, description="size of the noise vector")
    ngf: int = Field(
        64,
        gt=1,
        le=1024,
        description=CHANNELS.format("generator") + "; half as many at the size itself",
    )
    ndf: int = Field(
        64,
        gt=1,
        le=1024,
        description=CHANNELS.format("discriminator") + "; half as many at the size itself",
    )
    blocks: int = Field(
        2, gt=0, le=16, description="residual blocks at each resolution, in both networks"
    )
    gamma: Positive = Field(
        2.0, description="weight of R1 and R2 at the start; D's loss takes half of it times each"
    )
    gamma_end: Positive = Field(0.2, description="the same after anneal_epochs")
    penalty_every: int = Field(
        1,
        gt=0,
        le=1000,
        description=(
            "R1 and R2 in every n-th update of D only, n times as strong (lazy regularisation)"
        ),
    )
    anneal_epochs: Positive = Field(
        1000,
        description=(
            "epochs in which gamma and the learning rates go from their first values to their last,"
            " along a cosine"
        ),
    )
    g_lr: Positive = Field(2e-4, description="Adam learning rate of the generator at the start")
    d_lr: Positive = Field(2e-4, description="Adam learning rate of the discriminator at the start")
    lr_end: Positive = Field(
        0.25, description="the learning rates after anneal_epochs, as a share of the first"
    )
    lr_restarts: Annotated[Restarts, Neutral(Restarts())] = Restarts()
    betas: Betas = Field((0.0, 0.99), description="Adam beta1 and beta2")
    ema: float | None = Field(
        0.999,
        gt=0,
        lt=1,
        description="decay of the generator's moving average, warmed up; null: none",
    )
    hflip: Fraction = Field(0.5, description="chance of a left-right mirror image")
    vflip: Fraction = Field(0.5, description="chance of a top-bottom mirror image")
    diffaugment: tuple[ImagePolicy, ...] = Field(
        (),
        description="changes of all that D sees, reals and samples: of color, translation, cutout",
    )
    evaluate: Evaluate = Evaluate()
    # D's outputs mean something in differences only, but its loss is at least 0.
    watch: Watch = Watch(unbounded=True, floored=True, moves=R3GAN_GUIDE)

    def eased(self, epoch: float, end: float) -> float:
        """From 1 at the start to `end` after `anneal_epochs`, along half a cosine."""
        return end + (1 - end) * (1 + math.cos(math.pi * min(epoch / self.anneal_epochs, 1))) / 2


class Recipe(_noise.DrawsFromNoise):
    def __init__(
        self,
        run: Settings,
        ranks: Ranks,
        layout: BatchLayout,
        shape: tuple[int, int, int],
        labels: Labels | None = None,
    ):
        channels, *size = shape
        classes = len(labels) if labels else 0
        self.run, self.labels, self.dtype = run, labels, ranks.dtype
        adam = partial(torch.optim.Adam, betas=run.betas)
        self.ada = Strength(ranks)
        self.G = Player(
            ranks,
            Generator(run.latent, run.ngf, channels, run.blocks, size, classes),
            partial(adam, lr=run.g_lr),
            ema=run.average,
            schedule=self._rate,
        )
        self.D = Player(
            ranks,
            freeze_blocks(
                Discriminator(run.ndf, channels, run.blocks, size, classes, run.latent),
                run.freeze_d,
            ),
            partial(adam, lr=run.d_lr),
            schedule=self._rate,
            extra=self.ada,
        )
        self.players = {"G": self.G, "D": self.D}

    def step(self, batches: list[list[MicroBatch]], now: Clock) -> Log:
        """One update of D, then one of G."""
        gamma = self.run.gamma * self.run.eased(now.epoch, self.run.gamma_end / self.run.gamma)
        d = merge_logs([self._update_d(partial(self._d_loss, gamma=gamma), batches[0], now.epoch)])
        g = self.G.update(self._g_loss, batches[0], now.epoch)
        return step_log(d=d, g=g)

    def _d_loss(self, micro: MicroBatch, gamma: float) -> tuple[torch.Tensor, Log]:
        real = self._diffaugment(self._real(micro), micro, "d/real")
        classes = self._classes(micro)
        fake = self.G.generate(self._noise(micro, "noise/d"), *classes)
        fake = self._diffaugment(fake, micro, "d/fake")
        both = (each.repeat(2) for each in classes)
        real_score, fake_score = self.D(torch.cat([real, fake]), *both).chunk(2)
        loss = d_relativistic(real_score, fake_score)
        log = {
            "adversarial": loss,
            "real_score": real_score.mean(),
            "fake_score": fake_score.mean(),
            "told_apart": (real_score > fake_score).to(real_score.dtype).mean(),
            **self._see_reals(real_score, fake_score),
        }
        if micro.batch_index % self.run.penalty_every == 0:
            # Through the bare network, at what D saw: one more term of its one loss.
            log["r1"], log["r2"] = (
                zero_centred_penalty(lambda x: self.D.forward_local(x, *classes), images)
                for images in (real, fake)
            )
            loss = loss + self.run.penalty_every * gamma / 2 * (log["r1"] + log["r2"])
        return loss, log

    def _g_loss(self, micro: MicroBatch) -> tuple[torch.Tensor, Log]:
        classes = self._classes(micro)
        with self.D.frozen() as judge:
            drawn = self.G(self._noise(micro, "noise/g"), *classes)
            fake = judge(self._diffaugment(drawn, micro, "g/fake"), *classes)
            with torch.no_grad():
                real = judge(self._diffaugment(self._real(micro), micro, "g/real"), *classes)
        loss = g_relativistic(real, fake)
        return loss, {"adversarial": loss}

    def _rate(self, epoch: float) -> float:
        restarts = self.run.lr_restarts
        if restarts.first is not None:
            return restarts.schedule()(epoch)
        return self.run.eased(epoch, self.run.lr_end)

    def _real(self, micro: MicroBatch) -> torch.Tensor:
        return transforms.flip(
            transforms.to_unit(micro.real, self.dtype),
            self.run.seed,
            micro.address,
            self.run.hflip,
            self.run.vflip,
        )

    def validate(self, data: Data) -> dict[str, float]:
        """On one rank, over the whole validation set.

        Losses are of all held-out images against as many samples, in their order.
        """
        real, seen, fake = _noise.discriminator_scores(self, data)
        numbers: dict[str, torch.Tensor | float] = {
            "d_loss": d_relativistic(real, fake),
            "g_loss": g_relativistic(real, fake),
            "train_d_loss": d_relativistic(seen, fake[: len(seen)]),
            "overfit": _noise.overfitting_ratio(real, seen, fake),
            "diversity": diversity(data, self.sample),
        }
        return {f"valid/{name}": float(value) for name, value in numbers.items()}


# ---- networks
class Biased(nn.Module):
    """Leaky ReLU of x plus a bias for each channel.

    The only biases inside the blocks stand before what is not linear.
    """

    def __init__(self, channels: int):
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(channels))
        self.activation = nn.LeakyReLU(SLOPE)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.activation(x + self.bias[:, None, None])


class Block(nn.Module):
    """x + its change by three convolutions: 1x1 to twice the channels, 3x3 in groups, 1x1 back;
    [batch, channels, height, width] -> the same.

    Fix-up initialisation (Zhang et al. 2019): the last starts at 0, the others are scaled by
    L^(-1/4) for L blocks in the network, so that none needs normalisation.
    """

    def __init__(self, channels: int, total: int):
        super().__init__()
        inner = 2 * channels
        gain = GAIN * total**-0.25  # L^(-1/(2m - 2)) for m = 3 layers
        self.layers = nn.Sequential(
            _convolution(channels, inner, 1, gain),
            Biased(inner),
            _convolution(inner, inner, 3, gain, groups=inner // math.gcd(inner, GROUP)),
            Biased(inner),
            _convolution(inner, channels, 1, 0.0),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.layers(x)


class Generator(nn.Module):
    """Noise [batch, latent] -> images [batch, channels, height, width]: a learned picture of the
    smallest grid for each channel times a linear map of the noise, then blocks.

    Without a last activation, as in the paper; values outside [-1, 1] are clipped where images are
    made of them. With `classes`, the network takes classes int64 [batch] as well, and a vector of
    the class beside the noise.
    """

    def __init__(
        self,
        latent: int,
        width: int,
        channels: int,
        blocks: int,
        size: Sequence[int] = (64, 64),
        classes: int = 0,
    ):
        super().__init__()
        widths = _widths(width, size)
        self.basis = nn.Parameter(torch.randn(widths[0], *image_sizes.grid(*size)))
        entries = 2 * latent if classes else latent
        self.linear = nn.Linear(entries, widths[0], bias=False)
        nn.init.normal_(self.linear.weight, 0, entries**-0.5)
        layers: list[nn.Module] = []
        for i, here in enumerate(widths):
            layers += (
                [nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False)] if i else []
            )
            layers += (
                [_convolution(widths[i - 1], here, 1, 1.0)] if i and here != widths[i - 1] else []
            )
            layers += [Block(here, blocks * len(widths)) for _ in range(blocks)]
        self.layers = nn.Sequential(*layers, _convolution(widths[-1], channels, 1, 1.0))
        # With the scale of the noise, N(0, 1).
        self.embedding = nn.Embedding(classes, latent) if classes else None

    def forward(self, noise: torch.Tensor, classes: torch.Tensor | None = None) -> torch.Tensor:
        if self.embedding is not None:
            noise = torch.cat([noise, class_vectors(self.embedding, classes)], 1)
        return self.layers(self.basis * self.linear(noise)[:, :, None, None])


class Discriminator(nn.Module):
    """The generator's mirror image: images [batch, channels, height, width] -> scores [batch]. No
    last bias: pairs of scores are compared.

    Averages over 2x2 pixels are bilinear resampling to half the size. With `classes`, the network
    takes classes int64 [batch] as well: the score is the inner product of `entries` outputs and a
    vector of the class, as in the paper's networks.
    """

    def __init__(
        self,
        width: int,
        channels: int,
        blocks: int,
        size: Sequence[int] = (64, 64),
        classes: int = 0,
        entries: int = 1,
    ):
        super().__init__()
        widths = _widths(width, size)[::-1]
        layers: list[nn.Module] = [_convolution(channels, widths[0], 1, 1.0)]
        self.block_ends: list[int] = []
        for i, here in enumerate(widths):
            layers += [nn.AvgPool2d(2)] if i else []
            layers += (
                [_convolution(widths[i - 1], here, 1, 1.0)] if i and here != widths[i - 1] else []
            )
            layers += [Block(here, blocks * len(widths)) for _ in range(blocks)]
            self.block_ends.append(len(layers))
        self.layers = nn.Sequential(
            *layers,
            _convolution(widths[-1], widths[-1], image_sizes.grid(*size), 1.0, groups=widths[-1]),
            nn.Flatten(),
        )
        self.linear = nn.Linear(widths[-1], entries if classes else 1, bias=False)
        nn.init.normal_(self.linear.weight, 0, widths[-1] ** -0.5)
        self.embedding = nn.Embedding(classes, entries) if classes else None
        if self.embedding is not None:
            nn.init.normal_(self.embedding.weight, 0, entries**-0.5)

    def forward(self, images: torch.Tensor, classes: torch.Tensor | None = None) -> torch.Tensor:
        scores = self.linear(self.layers(images))
        if self.embedding is not None:
            return (scores * class_vectors(self.embedding, classes)).sum(1)
        return scores.flatten()


def _widths(width: int, size: Sequence[int]) -> list[int]:
    """Return the channels at each resolution, from the smallest grid to the image of (height,
    width).
    """
    levels = image_sizes.doublings(*size)
    return [width * min(2**i, WIDEST) for i in reversed(range(levels))] + [width // 2]


def _convolution(
    before: int, after: int, size: int | tuple[int, int], gain: float, groups: int = 1
) -> nn.Conv2d:
    """Return a layer without a bias, with weights N(0, gain^2 / what a value is summed over). A
    kernel of (height, width) leaves one pixel of so many, others keep the size.
    """
    kernel, padding = ((size, size), size // 2) if isinstance(size, int) else (size, 0)
    layer = nn.Conv2d(before, after, kernel, padding=padding, groups=groups, bias=False)
    if gain:
        nn.init.normal_(layer.weight, 0, gain * (before // groups * kernel[0] * kernel[1]) ** -0.5)
    else:
        nn.init.zeros_(layer.weight)
    return layer
