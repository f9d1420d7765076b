"""Wasserstein GAN for colour images, Oxford 102 Flowers (Arjovsky et al.

2017; Gulrajani et al. 2017 with a gradient penalty).
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field, ValidationInfo, field_validator
from torch import nn

from distgan.config import batch_layout
from distgan.config.batch_layout import BatchLayout
from distgan.config.sections import Betas, Evaluate, Fraction, Positive, Restarts, ResultFiles
from distgan.core import rng
from distgan.core.clock import Clock
from distgan.data import transforms
from distgan.data.dataset import Data
from distgan.data.diffaugment import ImagePolicy
from distgan.data.labels import Labels
from distgan.data.loader import MicroBatch
from distgan.distributed.ranks import Ranks
from distgan.engine.player import Log, Player, merge_logs
from distgan.engine.strength import Strength
from distgan.evaluation.features.choice import Choice
from distgan.monitor.guides import EARLIER_FLOWERS, FLOWERS_GUIDE
from distgan.monitor.settings import Neutral, Watch
from distgan.nn.image import Discriminator, Generator, freeze_blocks
from distgan.nn.losses import d_wasserstein, g_wasserstein, gradient_penalty
from distgan.nn.normalization import GroupBatchNorm2d
from distgan.outputs import image_results
from distgan.recipes import _noise
from distgan.recipes._base import diversity, step_log
from distgan.recipes._image_settings import CHANNELS, ImageSettings, Side

REFERENCE_BATCH = 256
WEIGHT_CLIP = 0.01
# The document updates G once a batch: 500 epochs of 32 batches are 16,000 updates. A step takes
# here n_critic = 5 batches, 1,280 images, and 16,000 of them are 2,632.4 epochs of 7,780 images.
# What counts in epochs is five times what it is elsewhere, so as often in the course of a run.
EPOCHS = 2633
SCHEDULE = ((1000.0, 50.0), (4000.0, 100.0), (None, 250.0))


class Settings(ImageSettings):
    changed_defaults: ClassVar = {4: EARLIER_FLOWERS | {"saturation": None}}

    recipe: Literal["wgan_flowers"] = Field("wgan_flowers", description="the system to train")
    batch: int = Field(
        REFERENCE_BATCH,
        gt=0,
        le=batch_layout.MAX_BATCH,
        description="the global batch: samples per update over all ranks and micro-batches",
    )
    epochs: Positive = Field(
        EPOCHS, description="how far to train; a longer run is the same run, continued"
    )
    sample_every: Positive = Field(
        50, description="epochs between two sample grids from the same noise"
    )
    latent: int = Field(100, gt=0, le=65536, description="size of the noise vector")
    ngf: int = Field(64, gt=0, le=1024, description=CHANNELS.format("generator"))
    ndf: int = Field(64, gt=0, le=1024, description=CHANNELS.format("critic"))
    n_critic: int = Field(
        5,
        gt=0,
        le=100,
        description="critic updates per generator update, each on fresh reals; usual are 3 to 10",
    )
    penalty: Positive | None = Field(
        None,
        description=(
            "lambda of the gradient penalty (10, say), which takes the place of weight clipping;"
            " null: clipping"
        ),
    )
    spectral_norm: tuple[Literal["G", "D"], ...] = Field(
        (), description="networks with spectral normalisation of every convolution: of G, D"
    )
    weight_clip: Positive | None = Field(
        WEIGHT_CLIP,
        description=(
            "the critic's weights stay in ± this; not used with a penalty; null, with"
            " spectral_norm=[D]: no limit"
        ),
    )
    critic_norm: Literal["batch", "layer", "none"] | None = Field(
        None,
        description=(
            "normalisation in the critic; null: batch, or layer with a penalty, which allows no"
            " batch normalisation"
        ),
    )
    attention: tuple[Side, ...] = Field(
        (),
        description=(
            "resolutions with self-attention, in both networks: 8, 16 and 32 for images of 64x64"
        ),
    )
    attention_reduction: Literal[8, 4] = Field(8, description="query and key have channels // this")
    bn_group: int | None = Field(
        None,
        gt=0,
        description=(
            "samples that share batch-norm statistics; null: the largest divisor of batch up to 256"
        ),
    )
    optimizer: Literal["rmsprop", "adam"] = Field(
        "rmsprop", description="of both networks; adam is usual with a penalty"
    )
    betas: Betas = Field((0.0, 0.9), description="Adam beta1 and beta2")
    g_lr: Positive = Field(1e-4, description="learning rate of the generator")
    d_lr: Positive = Field(1e-4, description="learning rate of the critic")
    lr_every: Positive | None = Field(
        None, description="epochs between two learning-rate drops; null: constant"
    )
    lr_factor: Positive = Field(0.5, description="factor of each drop")
    lr_restarts: Annotated[Restarts, Neutral(Restarts())] = Restarts()
    ema: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="decay of the generator's moving average, warmed up (0.999, say); null: none",
    )
    hflip: Fraction = Field(0.5, description="chance of a left-right mirror image")
    rotation: float = Field(
        0.0, ge=0, le=180, description="turn each image by up to ± this many degrees; usual is 15"
    )
    translation: Fraction = Field(
        0.0, description="shift each image by up to ± this share of its size; usual is 0.1"
    )
    jitter: Fraction = Field(
        0.0,
        description=(
            "change brightness and contrast by up to ± this share; usual is 0.2 (ColorJitter)"
        ),
    )
    brightness: Annotated[Fraction | None, Neutral(None)] = Field(
        None, description="change brightness by up to ± this share; null: as jitter"
    )
    contrast: Annotated[Fraction | None, Neutral(None)] = Field(
        None, description="change contrast by up to ± this share; null: as jitter"
    )
    saturation: Annotated[Fraction | None, Neutral(None)] = Field(
        0.0, description="change saturation by up to ± this share; null: as jitter"
    )
    diffaugment: tuple[ImagePolicy, ...] = Field(
        (),
        description="changes of all that D sees, reals and samples: of color, translation, cutout",
    )
    evaluate: Evaluate = Evaluate(schedule=SCHEDULE)
    results: int | None = Field(
        None,
        ge=0,
        le=1_000_000,
        description=(
            "image files to write after training, with the best checkpoint; null: as many as the "
            "data set has real images; 0: none"
        ),
    )
    watch: Watch = Watch(unbounded=True, score_flat_epochs=500, moves=FLOWERS_GUIDE)

    @field_validator("weight_clip")
    @classmethod
    def _bounded_once(cls, value, info: ValidationInfo):
        penalty = info.data.get("penalty")
        if penalty is not None and value not in (None, WEIGHT_CLIP):
            raise ValueError(
                f"with penalty={penalty:g} no weight is clipped; leave one of the two out"
            )
        if penalty is None and value is None and "D" not in info.data.get("spectral_norm", "D"):
            raise ValueError(
                "nothing else bounds the critic, and its scores would grow without end; give"
                " penalty=10, or spectral_norm=[D]"
            )
        return value

    result_files: ResultFiles = ResultFiles()

    @field_validator("result_files")
    @classmethod
    def _with_classes(cls, value, info: ValidationInfo):
        if "class" in (value.columns or {}).values() and not info.data.get("conditional"):
            raise ValueError("a column of class belongs to conditional=true")
        return value

    @field_validator("results")
    @classmethod
    def _a_set(cls, value):
        if value == 1:
            raise ValueError("a Fréchet distance needs at least 2 images; 0 writes none")
        return value

    @field_validator("critic_norm")
    @classmethod
    def _one_sample_at_a_time(cls, value, info: ValidationInfo):
        if value == "batch" and info.data.get("penalty") is not None:
            raise ValueError(
                "batch normalisation makes the critic's score of a sample depend on the others of"
                " its batch, and the penalty holds for each sample alone (Gulrajani et al. 2017,"
                " section 4); critic_norm=layer or none"
            )
        return value

    @classmethod
    def unhashed(cls) -> set[str]:
        """Leave out the files written afterwards: they do not change what was trained."""
        return super().unhashed() | {"results", "result_files"}

    @property
    def normalisation(self) -> str:
        """`critic_norm`, settled."""
        return self.critic_norm or ("batch" if self.penalty is None else "layer")

    @property
    def group(self) -> int:
        return self.bn_group or batch_layout.reference_group(self.batch, REFERENCE_BATCH)

    @property
    def batches_per_step(self) -> int:
        return self.n_critic


class Recipe(_noise.DrawsFromNoise):
    def __init__(
        self,
        run: Settings,
        ranks: Ranks,
        layout: BatchLayout,
        shape: tuple[int, int, int],
        labels: Labels | None = None,
    ):
        (channels, *size), classes = shape, len(labels) if labels else 0
        self.run, self.labels, self.dtype = run, labels, ranks.dtype
        # One pass over reals and samples only where no group of statistics would hold some of each.
        self._one_pass = run.normalisation != "batch" or layout.per_rank % layout.group == 0
        norms: dict[str, Callable[[int], nn.Module] | None] = {
            "batch": lambda width: GroupBatchNorm2d(width, layout.group, ranks),
            "layer": partial(nn.GroupNorm, 1),
            "none": None,
        }
        G = Generator(
            run.latent,
            run.ngf,
            channels,
            run.attention_for(shape),
            run.attention_reduction,
            layout.group,
            ranks,
            spectral="G" in run.spectral_norm,
            size=size,
            classes=classes,
        )
        D = Discriminator(
            run.ndf,
            channels,
            run.attention_for(shape),
            run.attention_reduction,
            spectral="D" in run.spectral_norm,
            norm=norms[run.normalisation],
            offset=False,
            size=size,
            classes=classes,
        )
        optimizer = (
            partial(torch.optim.Adam, betas=run.betas)
            if run.optimizer == "adam"
            else torch.optim.RMSprop
        )
        schedule = run.lr_restarts.schedule(run.lr_every, run.lr_factor)
        freeze_blocks(D, run.freeze_d)
        self.ada = Strength(ranks)
        self.G = Player(
            ranks, G, partial(optimizer, lr=run.g_lr), ema=run.average, schedule=schedule
        )
        self.D = Player(
            ranks,
            D,
            partial(optimizer, lr=run.d_lr),
            clamp=run.weight_clip if run.penalty is None else None,
            schedule=schedule,
            extra=self.ada,
        )
        self.players = {"G": self.G, "D": self.D}

    def step(self, batches: list[list[MicroBatch]], now: Clock) -> Log:
        """`n_critic` updates of the critic, each on a batch of its own, then one of the generator.

        Returns the numbers of the last of each.
        """
        d = merge_logs([self._update_d(self._d_loss, batch, now.epoch) for batch in batches])
        g = self.G.update(self._g_loss, batches[-1], now.epoch)
        return step_log(d=d, g=g)

    def _d_loss(self, micro: MicroBatch) -> tuple[torch.Tensor, Log]:
        classes = self._classes(micro)
        real = self._diffaugment(self._real(micro), micro, "d/real")
        fake = self.G.generate(self._noise(micro, "noise/d"), *classes)
        fake = self._diffaugment(fake, micro, "d/fake")
        real_score, fake_score = (
            self.D(torch.cat([real, fake]), *(each.repeat(2) for each in classes)).chunk(2)
            if self._one_pass
            else (self.D(real, *classes), self.D(fake, *classes))
        )
        loss = d_wasserstein(real_score, fake_score)
        log = {
            "wasserstein": -loss,
            "real_score": real_score.mean(),
            "fake_score": fake_score.mean(),
            **self._see_reals(real_score, fake_score),
        }
        if self.run.penalty is not None:
            # Each position of the stream is seen by one critic update only, so it is the address of
            # a number of its own.
            share = transforms.to_device_async(
                torch.from_numpy(rng.uniform(self.run.seed, "penalty", micro.positions)).to(
                    real.dtype
                ),
                real.device,
            )
            log["penalty"] = gradient_penalty(
                lambda images: self.D.forward_local(images, *classes), real, fake, share
            )
            loss = loss + self.run.penalty * log["penalty"]
        return loss, log

    def _g_loss(self, micro: MicroBatch) -> tuple[torch.Tensor, Log]:
        classes = self._classes(micro)
        with self.D.frozen() as critic:
            fake = self.G(self._noise(micro, "noise/g"), *classes)
            return g_wasserstein(critic(self._diffaugment(fake, micro, "g"), *classes)), {}

    def _real(self, micro: MicroBatch) -> torch.Tensor:
        run = self.run
        images = transforms.flip(
            transforms.to_unit(micro.real, self.dtype), run.seed, micro.address, run.hflip, 0.0
        )
        if run.rotation or run.translation:
            images = transforms.affine(
                images, run.seed, micro.address, run.rotation, run.translation
            )
        colours = (run.brightness, run.contrast, run.saturation)
        strengths = [run.jitter if strength is None else strength for strength in colours]
        return transforms.colour_jitter(images, run.seed, micro.address, *strengths)

    def validate(self, data: Data) -> dict[str, float]:
        """On one rank: the critic's estimate of the Wasserstein distance of samples from all
        held-out images, and from as many training images.
        """
        real, seen, fake = _noise.discriminator_scores(self, data)
        numbers: dict[str, torch.Tensor | float] = {
            "d_loss": d_wasserstein(real, fake),
            "g_loss": g_wasserstein(fake),
            "wasserstein": -d_wasserstein(real, fake),
            "train_wasserstein": -d_wasserstein(seen, fake),
            "overfit": _noise.overfitting_ratio(real, seen, fake),
            "diversity": diversity(data, self.sample),
        }
        return {f"valid/{name}": float(value) for name, value in numbers.items()}

    def results(self, data: Data, ranks: Ranks, folder: Path) -> None:
        """Image files of the trained generator, a line for each, and the score of these files
        against all real images. Collective.
        """
        count = (
            len(data.train) + len(data.validation) if self.run.results is None else self.run.results
        )
        if count:
            image_results.write(
                folder,
                ranks,
                data,
                image_results.Drawing.of(self, self.run.result_files),
                count,
                Choice.of(self.run.evaluate),
            )
