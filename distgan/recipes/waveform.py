"""Paired waveform-to-waveform GAN.

A U-Net over time, a conditional PatchGAN, least-squares GAN loss and L1 (pix2pix, Isola et al.
2017).
"""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field, ValidationInfo, field_validator, model_validator

from distgan.config.batch_layout import BatchLayout
from distgan.config.sections import Betas, Fraction, Positive, Restarts
from distgan.core.clock import Clock
from distgan.core.errors import ConfigError
from distgan.core.files import csv_text, write_atomic
from distgan.data import transforms
from distgan.data.dataset import Data
from distgan.data.loader import MicroBatch
from distgan.distributed.ranks import Ranks
from distgan.engine.player import Log, Player, merge_logs
from distgan.metrics.audio import log_spectral_distance, si_sdr
from distgan.metrics.stft import stft_distance
from distgan.monitor.moves import Move
from distgan.monitor.settings import WAVEFORM, Neutral, Watch
from distgan.nn.losses import Mode, d_adversarial, g_adversarial
from distgan.nn.waveform import Discriminator1d, Generator1d
from distgan.outputs import signal_plots
from distgan.recipes._base import lower_first, score_logs, step_log, with_monitor_defaults
from distgan.recipes._pair_settings import Count, PairSettings, Weight, beside_trivial

CHUNK = 64  # held-out pairs that are looked at together
SHOWN = 4  # held-out pairs in a picture
# A discriminator that has won long ago leaves G little gradient: the documents' moves alone were
# measured not to bring it back (docs/waveform.md).
FURTHER = (Move(setting="g_steps", add=1, limit=3), Move(setting="lambda_l1", factor=0.5, limit=1))
GUIDE = WAVEFORM.moves | {
    rule: (*WAVEFORM.moves[rule], *FURTHER)
    for rule in ("d_loss_low", "d_too_strong", "gan_loss_stagnant")
}


class Settings(PairSettings):
    judged_by: ClassVar[str | None] = "valid/l1"

    recipe: Literal["waveform"] = Field("waveform", description="the system to train")
    validate_every: Positive = Field(
        1, description="epochs between two validations, on rank 0, over the whole validation set"
    )
    patience: Positive | None = Field(
        20,
        description=(
            "finish early when validation L1 has not been better for this many epochs; null: never"
        ),
    )
    segment: Count | None = Field(
        None,
        description=(
            "frames of the window cut out of both members of a pair in training; null: pairs are"
            " taken whole"
        ),
    )
    input_gain: Positive = Field(
        4.0,
        description=(
            "factor on every input before anything else, best such that its standard deviation is"
            " near 1"
        ),
    )
    target_gain: Positive = Field(
        10.0, description="factor on every target, likewise; L1 is counted in these units"
    )
    base_filters: int = Field(
        64,
        gt=0,
        le=1024,
        description="generator channels after its first layer; they double up to 8 times as many",
    )
    num_layers: int = Field(4, gt=0, le=12, description="generator layers down, and as many up")
    kernel: int = Field(8, gt=0, le=1024, description="frames of a generator kernel")
    stride: int = Field(
        4,
        gt=0,
        le=64,
        description=(
            "frames between two of its kernels: each layer makes the signal shorter by this factor"
        ),
    )
    base_filters_d: int = Field(
        32,
        gt=0,
        le=1024,
        description=(
            "discriminator channels after its first layer; they double up to 8 times as many"
        ),
    )
    num_layers_d: int = Field(
        3, gt=0, le=12, description="discriminator layers, each of which halves the length"
    )
    conditional: bool = Field(
        False,
        description=(
            "D sees the input beside the target or the output, as in pix2pix; false: it judges"
            " these alone"
        ),
    )
    dropout_rate: float = Field(
        0.3,
        ge=0,
        lt=1,
        description=(
            "share of channels left out in training, in the first half of the generator's decoder"
        ),
    )
    loss: Mode = Field(
        "lsgan", description="lsgan, vanilla, hinge or wgan; hinge and wgan know no labels"
    )
    real_label: Fraction = Field(
        0.9, description="what D is taught to say of targets, and G's aim (lsgan, vanilla)"
    )
    fake_label: Fraction = Field(
        0.1, description="what D is taught to say of outputs (lsgan, vanilla)"
    )
    lambda_l1: Weight = Field(
        10.0,
        description=(
            "weight of the mean absolute difference of output and target; that of the GAN loss is 1"
        ),
    )
    lambda_stft: Weight = Field(
        0.0, description="weight of the multi-resolution STFT loss; 0: none"
    )
    stft_resolutions: tuple[tuple[Count, Count, Count], ...] = Field(
        ((128, 32, 128), (64, 16, 64), (32, 8, 32)),
        min_length=1,
        description="[FFT, hop, window] in frames, of the STFT loss",
    )
    g_lr: Positive = Field(2e-4, description="Adam learning rate of the generator")
    d_lr: Positive = Field(1e-4, description="Adam learning rate of the discriminator")
    betas: Betas = Field((0.5, 0.999), description="Adam beta1 and beta2")
    weight_decay: float = Field(1e-5, ge=0, description="Adam weight decay")
    lr_every: Positive | None = Field(
        None, description="epochs between two learning-rate drops; null: constant"
    )
    lr_factor: Positive = Field(0.5, description="factor of each drop")
    lr_restarts: Annotated[Restarts, Neutral(Restarts())] = Restarts()
    clip: Positive | None = Field(
        None, description="largest gradient norm, in both networks; null: no limit"
    )
    weight_clip: Positive | None = Field(
        None,
        validate_default=True,
        description="D's weights stay in ± this (0.01, say): needed with loss=wgan; null: no limit",
    )
    ema: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="decay of the generator's moving average, warmed up (0.999, say); null: none",
    )
    aug_noise_std: float = Field(
        0.02,
        ge=0,
        description="standard deviation of white noise added to the input alone, after its gain",
    )
    aug_scale_range: tuple[Positive, Positive] = Field(
        (0.9, 1.1), description="both of a pair times one factor from this range"
    )
    aug_shift_range: Fraction = Field(
        0.1, description="both of a pair shifted alike, by up to ± this fraction of their length"
    )
    watch: Watch = WAVEFORM.model_copy(update={"moves": GUIDE, "settle_epochs": 2})
    d_steps: int = Field(
        1, gt=0, le=100, description="updates of D per step, each on a fresh batch"
    )
    g_steps: int = Field(1, gt=0, le=100, description="updates of G per step")

    _range = field_validator("aug_scale_range")(lower_first)

    @field_validator("weight_clip")
    @classmethod
    def _bounded(cls, value, info: ValidationInfo):
        if value is None and info.data.get("loss") == "wgan":
            raise ValueError("D's scores would grow without end; give weight_clip=0.01")
        return value

    @model_validator(mode="before")
    @classmethod
    def _monitor_defaults(cls, tree):
        return with_monitor_defaults(tree, "loss", cls.model_fields)

    @property
    def crop(self) -> int | None:
        return self.segment

    @property
    def batches_per_step(self) -> int:
        return self.d_steps

    @property
    def updates_per_step(self) -> dict[str, int]:
        return {"D": self.d_steps, "G": self.g_steps}


class Recipe:
    def __init__(self, run: Settings, ranks: Ranks, layout: BatchLayout, shape: tuple[int, int]):
        least = 2 ** (run.num_layers_d + 1)
        if run.lambda_stft or run.is_judged_by("stft"):
            least = max(least, *(size // 2 + 1 for size, _, _ in run.stft_resolutions))
        if (frames := run.segment or shape[1]) < least:
            raise ConfigError(
                f"data: {frames} frames are too short for num_layers_d={run.num_layers_d} and"
                f" lambda_stft={run.lambda_stft:g}, which need {least}"
            )
        self.run, self.dtype = run, ranks.dtype
        adam = partial(torch.optim.Adam, betas=run.betas, weight_decay=run.weight_decay)
        schedule = run.lr_restarts.schedule(run.lr_every, run.lr_factor)
        G = Generator1d(run.base_filters, run.num_layers, run.kernel, run.stride)
        undecided = (run.real_label + run.fake_label) / 2 if run.loss == "lsgan" else 0.0
        D = Discriminator1d(
            1 + run.conditional,
            run.base_filters_d,
            run.num_layers_d,
            undecided,
            offset=run.loss != "wgan",
        )
        self.G = Player(
            ranks, G, partial(adam, lr=run.g_lr), clip=run.clip, ema=run.ema, schedule=schedule
        )
        self.D = Player(
            ranks,
            D,
            partial(adam, lr=run.d_lr),
            clip=run.clip,
            clamp=run.weight_clip,
            schedule=schedule,
        )
        self.players, self._dropped = {"G": self.G, "D": self.D}, sum(G.dropped)

    def step(self, batches: list[list[MicroBatch]], now: Clock) -> Log:
        """One step: `d_steps` updates of D, each on a batch of its own, then `g_steps` of G on the
        last. Returns the numbers of the last of each.
        """
        d = merge_logs([self.D.update(self._d_loss, batch, now.epoch) for batch in batches])
        g = merge_logs(
            [
                self.G.update(partial(self._g_loss, turn=i), batches[-1], now.epoch)
                for i in range(self.run.g_steps)
            ]
        )
        return step_log(d=d, g=g)

    def _d_loss(self, micro: MicroBatch) -> tuple[torch.Tensor, Log]:
        run = self.run
        given, target = self._augmented(micro)
        fake = self.G.generate(given, self._dropout_mask(micro, "dropout/d"))
        both = [self._discriminator_input(given, candidate) for candidate in (target, fake)]
        # One pass over both: nothing in D mixes samples.
        real_score, fake_score = self.D(torch.cat(both)).chunk(2)
        loss = d_adversarial(run.loss, real_score, fake_score, run.real_label, run.fake_label)
        return loss, score_logs(run.loss, real=real_score, fake=fake_score)

    def _g_loss(self, micro: MicroBatch, turn: int) -> tuple[torch.Tensor, Log]:
        run = self.run
        given, target = self._augmented(micro)
        output = self.G(given, self._dropout_mask(micro, f"dropout/g/{turn}"))
        with self.D.frozen() as judge:
            adversarial = g_adversarial(
                run.loss, judge(self._discriminator_input(given, output)), run.real_label
            )
        log = {"adversarial": adversarial, "l1": (output - target).abs().mean()}
        loss = adversarial + run.lambda_l1 * log["l1"]
        if run.lambda_stft:
            log["stft"] = stft_distance(output[:, 0], target[:, 0], run.stft_resolutions).mean()
            loss = loss + run.lambda_stft * log["stft"]
        return loss, log

    def _augmented(self, micro: MicroBatch) -> tuple[torch.Tensor, torch.Tensor]:
        """Input and target, [per_rank, 1, frames] each.

        Scaled and shifted alike, with noise on the input alone.
        """
        run, address = self.run, micro.address
        pairs = transforms.gain(self._units(micro.real), run.seed, address, *run.aug_scale_range)
        pairs = transforms.shift(pairs, run.seed, address, run.aug_shift_range)
        pairs = transforms.input_noise(pairs, run.seed, address, run.aug_noise_std)
        return pairs[:, :1], pairs[:, 1:]

    def _units(self, pairs: torch.Tensor) -> torch.Tensor:
        """Pairs as stored -> in the units of the networks."""
        pairs = transforms.to_waves(pairs, self.dtype)
        return torch.stack(
            [pairs[:, 0] * self.run.input_gain, pairs[:, 1] * self.run.target_gain], 1
        )

    def _dropout_mask(self, micro: MicroBatch, purpose: str) -> torch.Tensor:
        """Return the factors of channel dropout in G's decoder."""
        return micro.dropout(
            self.run.seed, purpose, self._dropped, self.run.dropout_rate, self.dtype
        )

    def _discriminator_input(self, given: torch.Tensor, candidate: torch.Tensor) -> torch.Tensor:
        """Return what D judges: the candidate, beside the input where D is conditional."""
        return torch.cat([given, candidate], 1) if self.run.conditional else candidate

    # ---- on rank 0 alone
    def _held_out(
        self, data: Data, limit: int | None = None
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
        """(input, target, output) of the validation set in order, [n, 1, frames] each, whole and as
        they are.
        """
        like = next(self.G.module.parameters())
        with self.G.evaluating_ema() as generator:
            for chunk in data.chunks(data.validation, CHUNK, limit):
                given, target = self._units(chunk.to(like.device)).chunk(2, 1)
                yield given, target, generator(given)

    def validate(self, data: Data) -> dict[str, float]:
        """Over the whole validation set, every pair of equal weight; D only looks."""
        run, rows = self.run, []
        with self.D.evaluating() as judge:
            for given, target, output in self._held_out(data):
                real = judge(self._discriminator_input(given, target))
                fake = judge(self._discriminator_input(given, output))
                row = {
                    "l1": (output - target).abs().mean(),
                    "adversarial": g_adversarial(run.loss, fake, run.real_label),
                    "d_loss": d_adversarial(run.loss, real, fake, run.real_label, run.fake_label),
                    **score_logs(run.loss, real=real, fake=fake),
                    **beside_trivial(output, target, given * run.target_gain / run.input_gain),
                }
                row["g_loss"] = row["adversarial"] + run.lambda_l1 * row["l1"]
                if run.lambda_stft or run.is_judged_by("stft"):
                    stft = stft_distance(output[:, 0], target[:, 0], run.stft_resolutions)
                    row["stft"] = stft.mean()
                    row["g_loss"] = row["g_loss"] + run.lambda_stft * row["stft"]
                if run.is_judged_by("si_sdr"):
                    row["si_sdr"] = si_sdr(output[:, 0], target[:, 0]).mean()
                if run.is_judged_by("lsd"):
                    row["lsd"] = log_spectral_distance(output[:, 0], target[:, 0], data.rate).mean()
                rows.append((len(given), row))
        total = sum(n for n, _ in rows)
        return {
            f"valid/{name}": float(sum(n * row[name].double() for n, row in rows) / total)
            for name in rows[0][1]
        }

    def repairer(self) -> Callable[[torch.Tensor], torch.Tensor]:
        """Return a function that repairs inputs [n, frames] in their own units, by the EMA."""

        def repair(given: torch.Tensor) -> torch.Tensor:
            with self.G.evaluating_ema() as generator:
                return (
                    generator(given.to(self.dtype)[:, None] * self.run.input_gain)[:, 0]
                    / self.run.target_gain
                )

        return repair

    def show(self, data: Data, path: Path) -> None:
        """The same held-out pairs each time: input, target and output over each other."""
        self._draw(data, path, SHOWN)

    def results(self, data: Data, ranks: Ranks, folder: Path) -> None:
        """Write `measures.csv` of all held-out pairs and overlays of the first 32. Collective."""
        ranks.on_rank_zero(lambda: self._results(data, folder))

    def _results(self, data: Data, folder: Path) -> None:
        rows: list[tuple[str, ...]] = []
        for given, target, output in self._held_out(data):
            untouched = given * self.run.target_gain / self.run.input_gain
            for one, clean, before in zip(output, target, untouched, strict=True):
                l1s = (
                    (x - clean).abs().mean().item() / self.run.target_gain
                    for x in (one, before, torch.zeros_like(clean))
                )
                key = data.validation.key(len(rows))
                rows.append((key, str(one.shape[1]), *(f"{l1:.6g}" for l1 in l1s)))
        heads = ("key", "frames", "l1", "input_l1", "zeros_l1")
        write_atomic(folder / "measures.csv", csv_text(heads, rows))
        self._draw(data, folder / "overlay.png", 8 * SHOWN)

    def _draw(self, data: Data, path: Path, limit: int) -> None:
        """One picture of up to SHOWN pairs, or several, in the units of the data."""
        gains = (self.run.input_gain, self.run.target_gain, self.run.target_gain)
        items: list[tuple[Any, ...]] = []
        for waves in self._held_out(data, limit):
            scaled = [
                (wave[:, 0].double().cpu() / gain).numpy()
                for wave, gain in zip(waves, gains, strict=True)
            ]
            for pair in zip(*scaled, strict=True):
                items.append((data.validation.key(len(items)), *pair))
        for i in range(0, len(items), SHOWN):
            to = path.with_stem(f"{path.stem}-{i // SHOWN:02d}") if len(items) > SHOWN else path
            signal_plots.overlay(to, items[i : i + SHOWN], data.rate)
