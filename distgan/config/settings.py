"""The settings of a run: every key with its default, range and meaning. Imports no torch."""

import hashlib
import json
import re
from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, Literal, Self

import pydantic
from pydantic import Field

from distgan.config import identity
from distgan.config.batch_layout import MAX_BATCH
from distgan.config.image_sizes import ANY, SizeRule
from distgan.config.introspection import defaults, flatten, overlay, section_of
from distgan.config.judge import Judge
from distgan.config.sections import Evaluate, Machine, Positive, Restarts, Section
from distgan.core.clock import Clock
from distgan.monitor.guides import EARLIER_MOVES
from distgan.monitor.moves import goes_in_flight
from distgan.monitor.settings import Neutral, Watch


class Run(Section):
    """Settings that every recipe has; its `Settings` adds its own keys and defaults."""

    # The samples that the recipe trains on, checked before anything is launched: their kind, image,
    # pair (of signals), image_pair or vector, and of images the channels and sizes.
    kind: ClassVar[str] = "image"
    channels: ClassVar[tuple[int, ...]] = (1, 3)
    sizes: ClassVar[SizeRule] = ANY
    debug_batch: ClassVar[int] = 32  # images: `distgan debug` makes larger batches smaller
    # The validation number that ranks checkpoints, lower is better; None: the score of samples.
    judged_by: ClassVar[str | None] = None
    # What a setting `best_by` may name in place of it, without `valid/`; () where that is not known
    # before a validation.
    validated: ClassVar[tuple[str, ...]] = ()
    # Version of the settings -> defaults before it, by key; see config/identity.py.
    changed_defaults: ClassVar[dict[int, dict[str, Any]]] = {
        2: {
            "watch.floored": False,
            **dict.fromkeys(f"watch.{rule}" for rule in ("critic_growth", "grad_growth")),
            "watch.nearest_low": None,
            **EARLIER_MOVES,
        },
    }
    # The settings that the line or run file gave, and what the preset among them gave before; set
    # by loading.validate, no part of equality.
    _given: ClassVar[dict[str, Any]] = {}
    _preset: ClassVar[dict[int, dict[str, Any]]] = {}

    recipe: str = Field(description="the system to train")
    data: str = Field(
        min_length=1,
        description="folder made by `distgan shard`, or adopted by `distgan index`; or a Dataset,"
        " FILE.py:NAME",
    )
    experiment: str = Field(
        "", description="name of the parent folder of the run; the recipe's name if empty"
    )
    seed: int = Field(
        0, ge=0, description="every random number is drawn from (seed, purpose, index)"
    )
    batch: int = Field(
        gt=0,
        le=MAX_BATCH,
        description="the global batch: samples per update over all ranks and micro-batches",
    )
    precision: Literal["float32", "tf32", "bf16", "fp16", "float64"] = Field(
        "float32",
        description=(
            "of the networks' arithmetic; weights, losses and scores stay float32. tf32, bf16,"
            " fp16: faster on GPUs; float64: proves two runs equal"
        ),
    )
    shuffle_window: int | None = Field(
        None,
        gt=0,
        description=(
            "shards that are shuffled together, for slow storage: 8, say; null: the whole"
            " training set"
        ),
    )
    epochs: Positive = Field(
        description="how far to train; a longer run is the same run, continued"
    )
    validate_every: Positive = Field(
        10, description="epochs between two validations, on rank 0, over the whole validation set"
    )
    sample_every: Positive = Field(
        10, description="epochs between two sample grids from the same noise"
    )
    max_skips: int = Field(
        20,
        gt=0,
        description=(
            "roll back after this many non-finite updates of a player within the last twice as"
            " many: to the last good checkpoint, with half the learning rates, at most"
            " watch.max_rollbacks times, then stop; checked every 20 steps"
        ),
    )
    rollback_every: Annotated[Positive, Neutral(10.0)] = Field(
        10.0,
        description=(
            "epochs between two checkpoints to which the run may roll back; they are written"
            " whatever machine.checkpoint_every is, and the last one without a warning is kept"
        ),
    )
    patience: Positive | None = Field(
        None,
        description=(
            "finish early when the score has not been better for this many epochs; null: never"
        ),
    )
    grow: str | None = Field(
        None,
        description=(
            "start from a trained run of narrower networks, or at a smaller size: RUN@best,"
            " RUN@last, RUN@epoch=1000, RUN@STEP; null: from the start"
        ),
    )
    fine_tune: Annotated[str | None, Neutral(None)] = Field(
        None,
        description=(
            "start from the networks of a trained run, on this run's data: RUN@best, RUN@last,"
            " RUN@epoch=1000, RUN@STEP; the networks must be the same; null: from the start"
        ),
    )
    code: Literal["accept"] | None = Field(
        None,
        exclude=True,  # an answer to a question, and no part of the run
        description=(
            "accept: continue although the code of your own recipe has changed since the run was"
            " begun; recorded in the run"
        ),
    )
    watch: Watch = Watch()
    machine: Machine = Machine()

    @pydantic.model_validator(mode="before")
    @classmethod
    def _over_the_recipes_own(cls, tree):
        """Keep the recipe's default for each key of a section that is not given.

        A recipe may give a section other defaults than the section's own.
        """
        if not isinstance(tree, dict):
            return tree
        merged = dict(tree)
        for name, field in cls.model_fields.items():
            if section_of(field) and isinstance(tree.get(name), dict):
                merged[name] = overlay(field.default.model_dump(mode="json"), tree[name])
        return merged

    @pydantic.field_validator("watch")
    @classmethod
    def _moves_that_do_something(cls, value):
        fixed = {
            move.setting
            for moves in value.moves.values()
            for move in moves
            if move.in_flight
            and move.setting in cls.model_fields
            and not goes_in_flight(move.setting)
        }
        if fixed:
            raise ValueError(
                f"moves: a run under way does not read {', '.join(sorted(fixed))} anew; write"
                " in_flight: false. In flight go"
                f" {', '.join(sorted(filter(goes_in_flight, cls.model_fields)))}"
            )
        return value

    @pydantic.field_validator("best_by", check_fields=False)
    @classmethod
    def _a_judge(cls, value):
        if not isinstance(value, str):
            return value
        judge, own = Judge.parse(value), cls.judged_by and Judge.of_key(cls.judged_by)
        unknown = [name for name in judge.names if cls.validated and name not in cls.validated]
        if unknown:
            raise ValueError(
                f"the validation has no {unknown[0]}; there are {', '.join(cls.validated)}"
            )
        return None if judge == own else judge.label

    @pydantic.field_validator("lr_restarts", check_fields=False)
    @classmethod
    def _one_schedule(cls, value, info: pydantic.ValidationInfo):
        """Refuse a cosine beside steps; those of the recipe's default give way to it."""
        every, field = info.data.get("lr_every"), cls.model_fields.get("lr_every")
        usual = (None, field.default if field else None)
        if isinstance(value, Restarts) and value.first is not None and every not in usual:
            raise ValueError(f"with lr_every={every:g} there are two schedules; leave one out")
        return value

    @pydantic.field_validator("fine_tune")
    @classmethod
    def _one_start(cls, value, info: pydantic.ValidationInfo):
        if value and info.data.get("grow"):
            raise ValueError("a run starts from one other; leave grow or fine_tune out")
        return value

    @property
    def starts_from(self) -> tuple[str, str] | None:
        """Return (the setting that names the run whose networks this one starts from, its value).

        None for a run that starts from nothing.
        """
        for name in ("grow", "fine_tune"):
            if value := getattr(self, name):
                return name, value
        return None

    @pydantic.field_validator("experiment")
    @classmethod
    def _folder_name(cls, value):
        if not re.fullmatch(r"([A-Za-z0-9_][A-Za-z0-9._-]{0,99})?", value):
            raise ValueError(
                "a folder's name of at most 100 letters, digits, _ - and ., which does not begin"
                " with - or ."
            )
        return value

    @property
    def scored(self) -> Evaluate | None:
        """Return the section `evaluate`, of recipes whose samples get a Fréchet score.

        Else None.
        """
        return getattr(self, "evaluate", None)

    @property
    def judge(self) -> Judge | None:
        """Return what the numbers of a validation are judged by; None where they are not."""
        if best_by := getattr(self, "best_by", None):
            return Judge.parse(best_by)
        return Judge.of_key(self.judged_by) if self.judged_by else None

    @property
    def network(self) -> str | None:
        """Return the network that images are scored through: lite0 or standin.

        None with Inception's weights, of vectors, and where nothing is scored.
        """
        if self.scored is None or self.scored.inception or self.kind == "vector":
            return None
        return self.scored.extractor

    @property
    def crop(self) -> int | None:
        """Return the frames of a training window of a pair of signals; None for whole samples."""
        return None

    def refusal(self, shape: tuple[int, ...]) -> str | None:
        """Return why these settings do not fit samples of this shape; None where they do."""
        return None

    @property
    def label_column(self) -> str | None:
        """Return the column of labels that the networks are given; "": the only one there is.

        None for networks without labels.
        """
        return None

    @property
    def batches_per_step(self) -> int:
        """Return how many global batches a step takes, each for an update of D."""
        return 1

    @property
    def updates_per_step(self) -> dict[str, int]:
        """Return how often a step updates each player, by name; {} where that is not known."""
        return {}

    def update_counts(self, clock: Clock) -> dict[str, int]:
        """Return how often each player is updated until `epochs`; {} where that is not known."""
        steps = clock.steps(self.epochs)
        return {name: n * steps for name, n in self.updates_per_step.items()}

    @property
    def whole_from(self) -> float:
        """Return the epoch from which a step updates every player (later where the GAN loss is)."""
        return 0.0

    @property
    def group(self) -> int:
        """Return how many neighbouring samples share batch-norm statistics.

        1 without batch norm.
        """
        return 1

    def group_of(self, batch: int) -> int:
        """Return `group` for another global batch."""
        return self.model_copy(update={"batch": batch}).group

    @classmethod
    def unhashed(cls) -> set[str]:
        """Return the settings that say where and how far to run, not what the run is."""
        return {"machine", "experiment", "epochs", "data", "code"}

    def with_given(
        self, given: dict[str, Any], preset: dict[int, dict[str, Any]] | None = None
    ) -> Self:
        """Remember the settings that a line gave, and the changed ones of its preset; return this
        run.
        """
        object.__setattr__(self, "_given", given)
        object.__setattr__(self, "_preset", preset or {})
        return self

    def earlier_versions(self) -> Iterator[Self]:
        """Yield what the line of this run meant before each changed default, oldest first."""
        for run in identity.earlier(type(self), self._given, self._preset):
            if run._hashed() != self._hashed() or run.epochs != self.epochs:
                yield run.with_given(self._given, self._preset)

    def _hashed(self) -> dict[str, Any]:
        """Return the settings that make the run what it is.

        Where and how far it trains is left out. A weights file counts by its contents, not its
        place: the published ones, or those of a hash.
        """
        tree = self.model_dump(mode="json", exclude=self.unhashed())
        tree = identity.without_neutral(type(self), tree)
        if self.scored:
            other = tree["evaluate"].pop("inception_sha256")
            given = self.scored.inception
            tree["evaluate"]["inception"] = (other or "published") if given else None
            if self.network is None:
                tree["evaluate"].pop("extractor", None)
        return tree

    def identity(self, fingerprint: str, start: str | None = None) -> dict[str, Any]:
        """Return `{"id": 8 hex digits, "settings": …, "data": fingerprint}`.

        Two runs with equal identities are one run. `start`: the digest of the checkpoint that
        `starts_from` names, which counts instead of its place.
        """
        settings = self._hashed()
        if start and self.starts_from:
            settings |= {self.starts_from[0]: start}
        hashed = {"settings": settings, "data": fingerprint}
        digest = hashlib.sha256(json.dumps(hashed, sort_keys=True).encode()).hexdigest()
        return {"id": digest[:8], **hashed}

    def delta(self) -> str:
        """Return a readable name of what differs from the recipe's defaults.

        `ngf32,batch12`; `default` where nothing differs. Thresholds of `watch` are in the hash.
        """
        usual = dict(flatten(defaults(type(self))))
        changed = []
        for key, value in flatten(self._hashed()):
            if key == "recipe" or key.startswith("watch.") and key != "watch.on_trouble":
                continue
            if key in ("grow", "fine_tune") and value:
                value = value.rpartition("/")[2].rpartition("-")[2]  # the hash in a run's name
            if key not in usual or usual[key] != value:
                changed.append(f"{key.rpartition('.')[2]}{value}")
        return re.sub(r"[^A-Za-z0-9.,_-]+", "_", ",".join(changed))[:60] or "default"
