"""Self-Attention GAN for small sets of images (Zhang et al. 2019, with a DCGAN backbone)."""

from functools import partial
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field, ValidationInfo, field_validator, model_validator

from distgan.config import batch_layout
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
from distgan.monitor.guides import (
    EARLIER_OVERFITTING,
    EARLIER_SAGAN_MOVES,
    EARLIER_SCORE_FLAT,
    SAGAN_GUIDE,
)
from distgan.monitor.settings import Neutral, Watch
from distgan.nn.image import Discriminator, Generator, freeze_blocks
from distgan.nn.losses import Mode, d_adversarial, g_adversarial
from distgan.recipes import _noise
from distgan.recipes._base import diversity, score_logs, step_log, with_monitor_defaults
from distgan.recipes._image_settings import CHANNELS, ImageSettings, Side

REFERENCE_BATCH = 16


class Settings(ImageSettings):
    changed_defaults: ClassVar = {
        2: EARLIER_SAGAN_MOVES,
        3: EARLIER_OVERFITTING,
        4: EARLIER_SCORE_FLAT,
    }

    recipe: Literal["sagan"] = Field("sagan", description="the system to train")
    batch: int = Field(
        REFERENCE_BATCH,
        gt=0,
        le=batch_layout.MAX_BATCH,
        description="the global batch: samples per update over all ranks and micro-batches",
    )
    epochs: Positive = Field(
        2000, description="how far to train; a longer run is the same run, continued"
    )
    latent: int = Field(128, gt=0, le=65536, description="size of the noise vector")
    ngf: int = Field(64, gt=0, le=1024, description=CHANNELS.format("generator"))
    ndf: int = Field(64, gt=0, le=1024, description=CHANNELS.format("discriminator"))
    attention: tuple[Side, ...] = Field(
        (16,),
        description=(
            "resolutions with self-attention, in both networks: 8, 16 and 32 for images of 64x64"
        ),
    )
    attention_reduction: Literal[8, 4] = Field(8, description="query and key have channels // this")
    spectral_norm: tuple[Literal["G", "D"], ...] = Field(
        ("D",), description="networks with spectral normalisation of every convolution: of G, D"
    )
    loss: Mode = Field(
        "vanilla",
        description=(
            "lsgan, vanilla, hinge or wgan; hinge and wgan know no labels, and wgan needs"
            " spectral_norm of D"
        ),
    )
    bn_group: int | None = Field(
        None,
        gt=0,
        description=(
            "samples that share batch-norm statistics; null: the largest divisor of batch up to"
            " bn_group_max"
        ),
    )
    bn_group_max: Annotated[int, Neutral(REFERENCE_BATCH)] = Field(
        REFERENCE_BATCH, gt=0, description="the most samples of a group, unless bn_group is given"
    )
    g_lr: Positive = Field(2e-4, description="Adam learning rate of the generator")
    d_lr: Positive = Field(2e-4, description="Adam learning rate of the discriminator")
    betas: Betas = Field((0.0, 0.9), description="Adam beta1 and beta2")
    weight_decay: float = Field(1e-5, ge=0, description="Adam weight decay")
    lr_every: Positive | None = Field(
        500, description="epochs between two learning-rate drops; null: constant"
    )
    lr_factor: Positive = Field(0.5, description="factor of each drop")
    lr_restarts: Annotated[Restarts, Neutral(Restarts())] = Restarts()
    clip: Positive | None = Field(
        1.0, description="largest gradient norm, in both networks; null: no limit"
    )
    ema: float | None = Field(
        0.9999,
        gt=0,
        lt=1,
        description="decay of the generator's moving average, warmed up; null: none",
    )
    real_label: Fraction = Field(
        0.9, description="what D is taught to say of reals (label smoothing); of lsgan and vanilla"
    )
    fake_label: Fraction = Field(
        0.0, description="what D is taught to say of samples; of lsgan and vanilla"
    )
    hflip: Fraction = Field(0.5, description="chance of a left-right mirror image")
    vflip: Fraction = Field(0.5, description="chance of a top-bottom mirror image")
    diffaugment: tuple[ImagePolicy, ...] = Field(
        (),
        description="changes of all that D sees, reals and samples: of color, translation, cutout",
    )
    evaluate: Evaluate = Evaluate()
    # The floor is the mean cross-entropy of a perfect D, taught 0.9 and 0.0.
    watch: Watch = Watch(d_loss_floor=0.163, moves=SAGAN_GUIDE)
    d_steps: int = Field(1, gt=0, description="updates of D per step, each on fresh reals")
    g_steps: int = Field(1, gt=0, description="updates of G per step")

    @field_validator("loss")
    @classmethod
    def _bounded(cls, value, info: ValidationInfo):
        if value == "wgan" and "D" not in info.data.get("spectral_norm", "D"):
            raise ValueError(
                "nothing bounds D, and its scores would grow without end; leave D in spectral_norm"
            )
        return value

    @model_validator(mode="before")
    @classmethod
    def _monitor_defaults(cls, tree):
        return with_monitor_defaults(tree, "loss", cls.model_fields)

    @property
    def group(self) -> int:
        return self.bn_group or batch_layout.reference_group(self.batch, self.bn_group_max)

    @property
    def batches_per_step(self) -> int:
        return self.d_steps


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
        adam = partial(torch.optim.Adam, betas=run.betas, weight_decay=run.weight_decay)
        schedule = run.lr_restarts.schedule(run.lr_every, run.lr_factor)
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
            offset=run.loss != "wgan",
            size=size,
            classes=classes,
        )
        freeze_blocks(D, run.freeze_d)
        self.ada = Strength(ranks)
        self.G = Player(
            ranks, G, partial(adam, lr=run.g_lr), clip=run.clip, ema=run.average, schedule=schedule
        )
        self.D = Player(
            ranks, D, partial(adam, lr=run.d_lr), clip=run.clip, schedule=schedule, extra=self.ada
        )
        self.players = {"G": self.G, "D": self.D}

    def step(self, batches: list[list[MicroBatch]], now: Clock) -> Log:
        """One step: `d_steps` updates of D, each on a batch of its own, then `g_steps` of G.

        Returns the numbers of the last of each.
        """
        d = merge_logs([self._update_d(self._d_loss, batch, now.epoch) for batch in batches])
        g = merge_logs(
            [
                self.G.update(partial(self._g_loss, turn=i), batches[-1], now.epoch)
                for i in range(self.run.g_steps)
            ]
        )
        return step_log(d=d, g=g)

    def _d_loss(self, micro: MicroBatch) -> tuple[torch.Tensor, Log]:
        run = self.run
        real = transforms.flip(
            transforms.to_unit(micro.real, self.dtype),
            run.seed,
            micro.address,
            run.hflip,
            run.vflip,
        )
        classes = self._classes(micro)
        fake = self.G.generate(self._noise(micro, "noise/d"), *classes)
        # One pass over both: nothing in D mixes samples.
        real_logit, fake_logit = self.D(
            torch.cat(
                [self._diffaugment(real, micro, "d/real"), self._diffaugment(fake, micro, "d/fake")]
            ),
            *(each.repeat(2) for each in classes),
        ).chunk(2)
        loss = d_adversarial(run.loss, real_logit, fake_logit, run.real_label, run.fake_label)
        log = score_logs(self.run.loss, real=real_logit, fake=fake_logit)
        return loss, log | self._see_reals(real_logit, fake_logit)

    def _g_loss(self, micro: MicroBatch, turn: int) -> tuple[torch.Tensor, Log]:
        classes = self._classes(micro)
        with self.D.frozen() as judge:
            fake = self.G(self._noise(micro, f"noise/g/{turn}"), *classes)
            logit = judge(self._diffaugment(fake, micro, f"g/{turn}"), *classes)
        loss = g_adversarial(self.run.loss, logit, self.run.real_label)
        return loss, {"adversarial": loss} | score_logs(self.run.loss, fake=logit)

    def validate(self, data: Data) -> dict[str, float]:
        """On one rank, over the whole validation set.

        Does D know the training reals better than held-out ones?
        """
        real, seen, fake = _noise.discriminator_scores(self, data)
        run = self.run
        g_loss = g_adversarial(run.loss, fake, run.real_label)
        numbers: dict[str, torch.Tensor | float] = {
            "d_loss": d_adversarial(run.loss, real, fake, run.real_label, run.fake_label),
            "g_loss": g_loss,
            "adversarial": g_loss,
            **score_logs(self.run.loss, real=real, train=seen, fake=fake),
            "overfit": _noise.overfitting_ratio(real, seen, fake),
            "diversity": diversity(data, self.sample),
        }
        return {f"valid/{name}": float(value) for name, value in numbers.items()}
