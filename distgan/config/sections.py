"""Sections of the settings: the base of all, when to evaluate, files of results, schedules, and the
machine. Imports no torch.
"""

import re
from collections.abc import Callable
from functools import partial
from typing import Annotated, Literal

import pydantic
from pydantic import BaseModel, ConfigDict, Field

from distgan.config.image_network import STAND_IN
from distgan.core.clock import cosine_restarts, step_decay
from distgan.monitor.settings import Neutral

# Bounded, so that epochs x samples stays an integer that can be computed.
Positive = Annotated[float, Field(gt=0, le=1e9)]
Fraction = Annotated[float, Field(ge=0, le=1)]

# A setting of recipes that a number of their validation judges; see config/judge.py.
BestBy = Annotated[
    str | None,
    Neutral(None),
    Field(
        description=(
            "number of the validation that finds the best checkpoint and ends by patience, or a"
            " weighted total that is to be low, as l1+0.5*stft; null: the recipe's own"
        )
    ),
]


def _below_one(value: tuple[float, float]) -> tuple[float, float]:
    if max(value) >= 1:
        raise ValueError("both must be below 1")
    return value


# Adam's; 1 would never forget.
Betas = Annotated[tuple[Fraction, Fraction], pydantic.AfterValidator(_below_one)]


class Section(BaseModel):
    """A part of the settings: an unknown key is an error, values never change."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, allow_inf_nan=False, coerce_numbers_to_str=True
    )

    @pydantic.field_validator("*", mode="before")
    @classmethod
    def _plain(cls, value, info):
        # pydantic would take true for 1 and false for 0.
        kind = cls.model_fields[info.field_name].annotation
        if isinstance(value, bool) and kind not in (bool, bool | None):
            raise ValueError("this setting is not true or false")
        if isinstance(value, str) and "\0" in value:
            raise ValueError("a NUL character cannot be part of a value")
        return value


class Evaluate(Section):
    schedule: tuple[tuple[Positive | None, Positive], ...] = Field(
        ((200, 10), (800, 20), (None, 50)),
        min_length=1,
        description=(
            "[until epoch, every n epochs] pairs; the last 'until' is null. Also evaluated before"
            " the first step and after the last"
        ),
    )
    samples: int = Field(500, ge=2, le=1_000_000, description="generated images per evaluation")
    extractor: Annotated[Literal["lite0", "standin"], Neutral(STAND_IN)] = Field(
        "standin",
        description=(
            "network that images are scored through unless `inception` is given: standin, a seeded"
            " random network; lite0, EfficientNet-Lite0 with ImageNet weights, of"
            " `distgan[scores]`: docs/evaluation.md says which to choose"
        ),
    )
    inception: str | None = Field(
        None, description="path of pytorch-fid's Inception weights, for scores called fid and kid"
    )
    inception_sha256: str | None = Field(
        None,
        pattern="^[0-9a-f]{64}$",
        description=(
            "of other weights of that network, which are then allowed; scores on them are called"
            " frechet_standin"
        ),
    )

    @pydantic.field_validator("schedule")
    @classmethod
    def _rising(cls, value):
        ends = [until for until, _ in value]
        if ends[-1] is not None or None in ends[:-1] or ends[:-1] != sorted(set(ends[:-1])):
            raise ValueError(
                "the 'until' epochs must rise and only the last is null, as in [[200, 10], [800,"
                " 20], [null, 50]]"
            )
        return value


# One number in it and no slash: files of other numbers have other names, in the one folder.
_PATTERN = re.compile(
    r"(?![.-])([\w.-]{0,100})\{i(?::0([1-9]))?\}([\w.-]{0,100}\.(?:png|jpe?g))", re.A
)
Content = Literal["id", "file_name", "base_name", "class", "critic_score", "sha256", "score"]


class ResultFiles(Section):
    """Names and formats of files that are written after training; no part of what was trained."""

    pattern: str | None = Field(
        None,
        description=(
            "names of the images in results/images, with their number as {i}, or {i:05} with zeros"
            " before it: fake{i}.jpg; .jpg is JPEG, .png lossless; null: 00000.png and so on"
        ),
    )
    quality: int = Field(
        95, ge=1, le=100, description="of JPEG files, whose colours keep their full resolution"
    )
    columns: dict[str, Content] | None = Field(
        None,
        description=(
            "the columns of result.csv, by heading: {Id: id, Filename: base_name, FID: score}, of"
            " id, file_name, base_name, class, critic_score, sha256, score (of all files together);"
            " null: id, file_name, critic_score, sha256"
        ),
    )

    @pydantic.field_validator("pattern")
    @classmethod
    def _one_number(cls, value):
        if value is not None and not _PATTERN.fullmatch(value):
            raise ValueError(
                "the name of a file, without a folder, with {i} or {i:05} once, and .png, .jpg or"
                " .jpeg at its end; of letters, digits, ., _ and -, such as fake{i}.jpg"
            )
        return value

    @pydantic.field_validator("columns")
    @classmethod
    def _headings(cls, value):
        if value is not None and not (value and all(map(str.isprintable, value)) and all(value)):
            raise ValueError("one heading at least, of visible characters")
        return value

    @property
    def is_jpeg(self) -> bool:
        return self.pattern is not None and not self.pattern.endswith(".png")

    def name(self, i: int, count: int) -> str:
        """Return the name of file `i` of `count`."""
        if self.pattern is None:
            return f"{i:0{max(len(str(count - 1)), 5)}d}.png"
        match = _PATTERN.fullmatch(self.pattern)
        assert match is not None  # validated
        return f"{match[1]}{i:0{match[2] or 1}d}{match[3]}"


class Restarts(Section):
    """Cosine annealing of learning rates with warm restarts (Loshchilov & Hutter 2017, SGDR)."""

    first: Positive | None = Field(
        None,
        description=(
            "epochs of the first cosine, after which learning rates start anew (T_0), in place of"
            " any other schedule; null: no restarts"
        ),
    )
    factor: int = Field(
        1, ge=1, le=1000, description="each cosine is so many times as long as the last (T_mult)"
    )
    least: Fraction = Field(
        0.0, description="share of a learning rate that a cosine ends at (eta_min, as a share)"
    )

    @pydantic.field_validator("factor", "least")
    @classmethod
    def _of_a_cosine(cls, value, info):
        name = str(info.field_name)
        if value != cls.model_fields[name].default and info.data.get("first") is None:
            raise ValueError("there is no cosine that it could shape; give first as well")
        return value

    def schedule(self, every: float | None = None, factor: float = 1.0) -> Callable[[float], float]:
        """Return the schedule, epoch -> learning-rate factor; without restarts, that of a drop by
        `factor` every `every` epochs (None: constant).
        """
        if self.first is None:
            return partial(step_decay, every=every, factor=factor)
        return partial(cosine_restarts, first=self.first, factor=self.factor, least=self.least)


class Machine(Section):
    """Settings of the machine a run trains on, which are not part of its identity."""

    runs: str = Field("runs", description="folder in which run folders are made")
    folder: str | None = Field(
        None, description="the run folder itself, instead of runs/<experiment>/<changes>-<identity>"
    )
    accumulation: int = Field(
        1,
        gt=0,
        description="micro-batches per update; ranks x accumulation x per-rank batch = batch",
    )
    device: Literal["auto", "cpu", "cuda"] = Field(
        "auto", description="auto takes a GPU where there is one"
    )
    engine: Literal["auto", "ddp", "deepspeed"] = Field(
        "auto",
        description=(
            "what shares an update among processes: ddp, deepspeed; auto: deepspeed where"
            " accelerate or deepspeed launched it so"
        ),
    )
    zero_stage: int | None = Field(
        None,
        ge=0,
        le=3,
        description="of DeepSpeed, 0 to 2; null: what accelerate was configured with, or 0",
    )
    deepspeed_config: str | None = Field(
        None, description="path of a DeepSpeed JSON file with tuning keys, such as bucket sizes"
    )
    compile: Literal["default", "reduce-overhead", "max-autotune"] | None = Field(
        None,
        description=(
            "torch.compile of each network, a minute or more at the first step: default,"
            " reduce-overhead (CUDA graphs), max-autotune; null: none"
        ),
    )
    channels_last: bool = Field(
        False,
        description=(
            "keep images as [batch, height, width, channels] in memory, which some GPUs prefer"
        ),
    )
    optimizer: Literal["auto", "fused", "foreach", "loop"] = Field(
        "auto",
        description=(
            "how an optimizer goes through the weights: fused, foreach, loop; auto: fused where"
            " torch has it, else torch's own choice"
        ),
    )
    bucket_mb: int = Field(
        25,
        gt=0,
        le=1000,
        description="DDP sends gradients in pieces of this size, while the backward pass goes on",
    )
    sync_batchnorm: bool = Field(
        False,
        description=(
            "on GPUs, torch's SyncBatchNorm kernels where a batch-norm group is a micro-batch of"
            " all ranks"
        ),
    )
    self_check: bool | None = Field(
        None,
        description=(
            "before the first step, take three and compare with one process, as `distgan doctor`"
            " does; null: at the first start of the code of your own recipe; false: never"
        ),
    )
    workers: int = Field(
        2, ge=0, description="decoding processes per rank, for data that does not fit in memory"
    )
    resident_mb: int = Field(
        1024,
        ge=0,
        description="decode the training set once into memory where it is smaller than this",
    )
    verify: Literal["size", "sha256"] = Field(
        "size",
        description=(
            "how shards are checked at start, size or sha256 (every byte); each sample's crc32 is"
            " always checked"
        ),
    )
    journal_every: int = Field(1, gt=0, description="write the numbers of every n-th step")
    flush_steps: int = Field(
        20, gt=0, description="fetch numbers from the device, and write the journal, every n steps"
    )
    checkpoint_every: Positive = Field(10, description="epochs between two checkpoints")
    keep: int = Field(
        3, gt=0, description="newest checkpoints to resume from; the best one is kept as well"
    )
    keep_every: Annotated[int, Field(gt=0, le=10**9)] | None = Field(
        200,
        description=(
            "epochs between two checkpoints of the archive, RUN@epoch=N: networks and averages,"
            " which are kept; null: no archive"
        ),
    )
    on_full_disk: Literal["stop", "warn"] = Field(
        "stop",
        description=(
            "where the journal or a checkpoint cannot be written: save if possible, and stop; or"
            " warn, go on, and try again at the next (the last checkpoint must be written)"
        ),
    )
    time_limit_s: Positive | None = Field(
        None,
        description=(
            "save and leave before this many seconds are over; null: what Slurm says"
            " (SLURM_JOB_END_TIME), else no limit"
        ),
    )
    stall_s: Positive | None = Field(
        3600,
        description=(
            "a process without progress for so long writes its stacks and leaves; null: never"
        ),
    )
    timeout_s: int = Field(
        1800,
        gt=0,
        le=10_000_000,
        description="a collective that takes longer ends the run; rank-0 work is not bound by it",
    )
