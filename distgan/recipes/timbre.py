"""Repairs the timbre of denoised speech.

L1, multi-resolution STFT and, once it has started, a GAN loss on (denoised, clean) pairs.
"""

from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field, ValidationInfo, field_validator, model_validator
from torch import nn

from distgan.config.batch_layout import BatchLayout
from distgan.config.sections import Betas, Fraction, Positive, Restarts
from distgan.core.clock import Clock
from distgan.core.errors import ConfigError, DataError
from distgan.data import diffaugment, transforms
from distgan.data.dataset import Data
from distgan.data.diffaugment import WavePolicy
from distgan.data.loader import MicroBatch
from distgan.distributed.ranks import Ranks
from distgan.engine.player import Log, Player
from distgan.metrics.audio import table
from distgan.metrics.stft import STFT_RESOLUTIONS, stft_distance
from distgan.monitor.guides import EARLIER_TIMBRE_MOVES, TIMBRE_GUIDE
from distgan.monitor.settings import Neutral, Watch
from distgan.nn.losses import Mode, d_adversarial, g_adversarial
from distgan.nn.spectrogram import MultiResolutionDiscriminator, Repair
from distgan.outputs import audio_results
from distgan.outputs.audio_results import Repaired
from distgan.recipes._base import lower_first, score_logs, step_log, with_monitor_defaults
from distgan.recipes._pair_settings import Count, PairSettings, Weight

CHUNK = 8  # held-out pairs that are repaired at once
SHOWN = 3  # held-out pairs in a picture
SOUNDS = 8  # held-out pairs whose sound is among the results

# The ranges are those of lsgan with labels 1 and 0, where a D that cannot tell stands at 0.5. G's
# GAN loss is one of three and small: that it stands still is no fault.
WATCH = Watch(
    healthy={"d/loss": (0.1, 0.75)},
    d_loss_weak=1.0,
    stagnant_change=None,
    gap_high=0.02,
    gap_healthy=0.01,
    score_flat_epochs=20,
    moves=TIMBRE_GUIDE,
)


class Settings(PairSettings):
    judged_by: ClassVar[str | None] = "valid/stft"
    changed_defaults: ClassVar = {2: EARLIER_TIMBRE_MOVES}

    recipe: Literal["timbre"] = Field("timbre", description="the system to train")
    validate_every: Positive = Field(
        2, description="epochs between two validations, on rank 0, over the whole validation set"
    )
    sample_every: Positive = Field(
        6, description="epochs between two pictures, with sound, of the same held-out pairs"
    )
    stft_resolutions: tuple[tuple[Count, Count, Count], ...] = Field(
        STFT_RESOLUTIONS,
        min_length=1,
        description="[FFT, hop, window] in frames, of the STFT loss and of D's spectrograms",
    )
    segment_length: Count = Field(
        16000,
        validate_default=True,
        description="frames of the window cut out of both sounds of a pair, at one place",
    )
    save_segment_length: Count | None = Field(
        None, description="least frames of a stored pair; null: segment_length is enough"
    )
    gain: tuple[Positive, Positive] = Field(
        (0.8, 1.0), description="both members of a pair times one factor drawn from this range"
    )
    polarity: Fraction = Field(
        0.0, description="chance that both members of a pair are turned upside down"
    )
    diffaugment: tuple[WavePolicy, ...] = Field(
        (),
        description=(
            "changes of all that D sees, clean and repaired: of gain, polarity, shift, mask, noise"
        ),
    )
    g_width: int = Field(256, gt=0, le=8192, description="channels of the generator")
    g_fft: int = Field(
        512,
        ge=4,
        le=65536,
        description=(
            "FFT of the spectrogram in which the generator works, in frames: 32 ms at 16 kHz"
        ),
    )
    g_hop: int = Field(
        128, gt=0, le=65536, validate_default=True, description="its hop, at most half of it"
    )
    d_width: int = Field(
        8,
        gt=0,
        le=2048,
        description="channels of the discriminator's first layer; 4 times as many in the last",
    )
    lambda_l1: Weight = Field(
        50.0, description="weight of the mean absolute difference of waveforms"
    )
    lambda_stft: Weight = Field(1.0, description="weight of the multi-resolution STFT loss")
    lambda_adversarial: Weight = Field(
        0.1,
        description="weight of the GAN loss once it has started; 0: never, and D is not trained",
    )
    gan_start_epoch: float = Field(
        5,
        ge=0,
        le=1e9,
        validate_default=True,
        description="before this epoch G learns by L1 and STFT alone, and D does not learn",
    )
    gan_loss: Mode = Field("lsgan", description="lsgan, vanilla or hinge; hinge knows no labels")
    real_label: Fraction = Field(
        1.0, description="what D is taught to say of clean speech, and G's aim (lsgan, vanilla)"
    )
    fake_label: Fraction = Field(
        0.0, description="what D is taught to say of repaired speech (lsgan, vanilla)"
    )
    g_lr: Positive = Field(1e-3, description="Adam learning rate of the generator")
    d_lr: Positive = Field(2e-4, description="Adam learning rate of the discriminator")
    betas: Betas = Field((0.8, 0.99), description="Adam beta1 and beta2")
    weight_decay: float = Field(0.0, ge=0, description="Adam weight decay")
    lr_every: Positive | None = Field(
        6, description="epochs between two learning-rate drops; null: constant"
    )
    lr_factor: Positive = Field(0.5, description="factor of each drop")
    lr_restarts: Annotated[Restarts, Neutral(Restarts())] = Restarts()
    clip: Positive | None = Field(
        5.0, description="largest gradient norm, in both networks; null: no limit"
    )
    ema: float | None = Field(
        0.99,
        gt=0,
        lt=1,
        description="decay of the generator's moving average, warmed up; null: none",
    )
    watch: Watch = WATCH

    @field_validator("gan_loss")
    @classmethod
    def _bounded(cls, value):
        if value == "wgan":
            raise ValueError("nothing bounds D here; lsgan, vanilla and hinge need no bound")
        return value

    @model_validator(mode="before")
    @classmethod
    def _monitor_defaults(cls, tree):
        return with_monitor_defaults(tree, "gan_loss", cls.model_fields)

    @field_validator("stft_resolutions")
    @classmethod
    def _whole_windows(cls, value):
        for size, hop, window in value:
            if not hop <= window <= size:
                raise ValueError("the hop is at most the window, the window at most the FFT")
        return value

    @field_validator("segment_length")
    @classmethod
    def _longer_than_reflections(cls, value, info: ValidationInfo):
        largest = max((size for size, _, _ in info.data.get("stft_resolutions", ())), default=0)
        if value <= largest // 2:
            raise ValueError(
                f"too short for an FFT of {largest}, which wants more than {largest // 2} frames;"
                " see stft_resolutions"
            )
        return value

    @field_validator("save_segment_length")
    @classmethod
    def _holds_a_segment(cls, value, info: ValidationInfo):
        segment = info.data.get("segment_length")
        if value is not None and segment is not None and value < segment:
            raise ValueError(
                f"less than segment_length={segment}, which is cut out of what is stored"
            )
        return value

    _range = field_validator("gain")(lower_first)

    @field_validator("g_hop")
    @classmethod
    def _overlapping(cls, value, info: ValidationInfo):
        size = info.data.get("g_fft")
        if size is not None and 2 * value > size:
            raise ValueError(
                f"at most half of g_fft={size}, or the spectrogram cannot be turned back into sound"
            )
        return value

    @field_validator("lambda_stft")
    @classmethod
    def _something_to_learn(cls, value, info: ValidationInfo):
        if value == 0 and info.data.get("lambda_l1") == 0:
            raise ValueError(
                "lambda_l1 is 0 as well: before gan_start_epoch there would be nothing to learn"
            )
        return value

    @field_validator("gan_start_epoch")
    @classmethod
    def _begins(cls, value, info: ValidationInfo):
        epochs = info.data.get("epochs")
        if info.data.get("lambda_adversarial") and epochs is not None and value >= epochs:
            raise ValueError(
                f"the run ends at epochs={epochs:g}, before its GAN loss starts;"
                " lambda_adversarial=0 says that none is wanted"
            )
        return value

    @property
    def crop(self) -> int:
        return self.segment_length

    def update_counts(self, clock: Clock) -> dict[str, int]:
        """Return them; D learns from the first step that begins at `gan_start_epoch` or later."""
        steps = clock.steps(self.epochs)
        before = clock.steps(self.gan_start_epoch) if self.gan_start_epoch else 0
        return {"D": steps - before if self.lambda_adversarial else 0, "G": steps}


class Recipe:
    def __init__(self, run: Settings, ranks: Ranks, layout: BatchLayout, shape: tuple[int, int]):
        if run.save_segment_length and shape[1] < run.save_segment_length:
            raise ConfigError(
                f"save_segment_length: {run.save_segment_length} frames are asked for, the shortest"
                f" stored pair has {shape[1]}"
            )
        self.run, self.dtype = run, ranks.dtype
        adam = partial(torch.optim.Adam, betas=run.betas, weight_decay=run.weight_decay)
        schedule = run.lr_restarts.schedule(run.lr_every, run.lr_factor)
        G = Repair(run.g_width, run.g_fft, run.g_hop)
        D = MultiResolutionDiscriminator(run.d_width, run.stft_resolutions)
        self.G = Player(
            ranks, G, partial(adam, lr=run.g_lr), clip=run.clip, ema=run.ema, schedule=schedule
        )
        self.D = Player(ranks, D, partial(adam, lr=run.d_lr), clip=run.clip, schedule=schedule)
        self.players = {"G": self.G, "D": self.D}

    def step(self, batches: list[list[MicroBatch]], now: Clock) -> Log:
        """One update of D, once the GAN loss has started, and one of G, on the same batch."""
        started = now.epoch >= self.run.gan_start_epoch and self.run.lambda_adversarial > 0
        d = self.D.update(self._d_loss, batches[0], now.epoch) if started else {}
        g = self.G.update(partial(self._g_loss, started=started), batches[0], now.epoch)
        return step_log(d=d, g=g)

    def _d_loss(self, micro: MicroBatch) -> tuple[torch.Tensor, Log]:
        run = self.run
        given, target = self._pair(micro)
        real = self._diffaugment(target, micro, "d/real")
        fake = self._diffaugment(self.G.generate(given), micro, "d/fake")
        # One pass over both: nothing in D mixes samples.
        real, fake = self.D(torch.cat([real, fake])).chunk(2)
        loss = d_adversarial(run.gan_loss, real, fake, run.real_label, run.fake_label)
        return loss, score_logs(run.gan_loss, real=real, fake=fake)

    def _g_loss(self, micro: MicroBatch, started: bool) -> tuple[torch.Tensor, Log]:
        run = self.run
        given, target = self._pair(micro)
        repaired = self.G(given)
        log = {
            "l1": (repaired - target).abs().mean(),
            "stft": stft_distance(repaired, target, run.stft_resolutions).mean(),
        }
        loss = run.lambda_l1 * log["l1"] + run.lambda_stft * log["stft"]
        if started:
            with self.D.frozen() as judge:
                log["adversarial"] = g_adversarial(
                    run.gan_loss, judge(self._diffaugment(repaired, micro, "g")), run.real_label
                )
            loss = loss + run.lambda_adversarial * log["adversarial"]
        return loss, log

    def _pair(self, micro: MicroBatch) -> tuple[torch.Tensor, torch.Tensor]:
        """(denoised, clean), each [per_rank, segment_length].

        Both were cut out at one place, and are changed alike.
        """
        run = self.run
        pairs = transforms.gain(
            transforms.to_waves(micro.real, self.dtype), run.seed, micro.address, *run.gain
        )
        pairs = transforms.polarity(pairs, run.seed, micro.address, run.polarity)
        return pairs[:, 0], pairs[:, 1]

    def _diffaugment(self, sound: torch.Tensor, micro: MicroBatch, purpose: str) -> torch.Tensor:
        """Augment sound as D sees it (DiffAugment, Zhao et al. 2020)."""
        return diffaugment.waves(
            sound[:, None],
            self.run.diffaugment,
            self.run.seed,
            f"diffaugment/{purpose}",
            micro.positions,
        )[:, 0]

    # ---- on rank 0 alone
    def validate(self, data: Data) -> dict[str, float]:
        """Over the whole validation set, each clip whole and of equal weight: of repaired and of
        denoised speech, and the GAN losses, of a D that only looks.

        Clips whose clean speech is silent have no distance from it and are left out, as `distgan
        evaluate` does; `valid/silent` counts them.
        """
        run, rate, rows, silent = self.run, data.rate, [], 0
        with self.G.evaluating_ema() as repair, self.D.evaluating() as judge:
            for given, target in self._held_out(data):
                heard = target.any(1)
                silent += int((~heard).sum())
                if not heard.any():
                    continue
                given, target = given[heard], target[heard]
                repaired = repair(given)
                row = table(repaired, target, rate, run.stft_resolutions)
                before = table(given, target, rate, run.stft_resolutions)
                row |= {f"input_{name}": value for name, value in before.items()}
                row["beats_input"] = (row["si_sdr"] > before["si_sdr"]).double()
                total = run.lambda_l1 * row["l1"] + run.lambda_stft * row["stft"]
                if self.D.updates > 0:
                    row |= self._adversarial(judge(target), judge(repaired))
                    row["g_loss"] = total + run.lambda_adversarial * row["adversarial"]
                elif not run.lambda_adversarial:
                    row["g_loss"] = total
                rows.append(row)
        if not rows:
            raise DataError(
                f"{data.folder}: the clean speech of all held-out pairs is silent, so nothing can"
                " be measured"
            )
        means = {
            f"valid/{name}": float(torch.cat([row[name].double() for row in rows]).mean())
            for name in rows[0]
        }
        return means | ({"valid/silent": silent} if silent else {})

    def _adversarial(self, real: torch.Tensor, fake: torch.Tensor) -> Log:
        """Return the GAN losses of each clip: [n] each.

        Clip by clip, since clips differ in length and losses are means over patches.
        """
        run, clips = self.run, list(zip(real.split(1), fake.split(1), strict=True))
        d_loss = [
            d_adversarial(run.gan_loss, one, other, run.real_label, run.fake_label)
            for one, other in clips
        ]
        g_loss = [g_adversarial(run.gan_loss, other, run.real_label) for _, other in clips]
        return {"adversarial": torch.stack(g_loss), "d_loss": torch.stack(d_loss)}

    def _held_out(self, data: Data) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """(denoised, clean) of the validation set in order, [n, frames] each."""
        like = next(self.G.module.parameters())
        for chunk in data.chunks(data.validation, CHUNK):
            pairs = transforms.to_waves(chunk.to(like.device), like.dtype)
            yield pairs[:, 0], pairs[:, 1]

    def repairer(self) -> nn.Module:
        """Return a copy of the averaged generator for inference: [n, frames] -> [n, frames]."""
        with self.G.evaluating_ema() as average:
            assert isinstance(average, Repair)
            return average.plain()

    def show(self, data: Data, path: Path) -> None:
        """Spectrograms of the same held-out pairs each time, and their sound beside the picture."""
        with self.G.evaluating_ema() as repair:
            numbers = audio_results.spread(len(data.validation), SHOWN)
            pairs = list(self._repaired(data, repair, numbers))
        audio_results.draw(path, pairs, data.rate)
        audio_results.write_sound(path.parent, f"{path.stem}.", pairs, data.rate)

    def results(self, data: Data, ranks: Ranks, folder: Path) -> None:
        """Write `measures.csv` of all held-out pairs, pictures and sound of some. Collective."""
        ranks.on_rank_zero(lambda: self._results(data, folder))

    def _results(self, data: Data, folder: Path) -> None:
        repair, count = self.repairer(), len(data.validation)
        measured = self._repaired(data, repair, range(count))
        audio_results.write_table(folder / "measures.csv", measured)
        pairs = list(self._repaired(data, repair, audio_results.spread(count, SOUNDS)))
        audio_results.draw(folder / "spectrograms.png", pairs, data.rate)
        audio_results.write_sound(folder, "", pairs, data.rate)

    def _repaired(
        self, data: Data, repair: nn.Module, numbers: Iterable[int]
    ) -> Iterator[Repaired]:
        """Held-out pairs with what `repair` makes of them."""
        resolutions = self.run.stft_resolutions
        return (audio_results.repaired(data, i, repair, resolutions) for i in numbers)
