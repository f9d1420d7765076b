"""The section `watch` of the settings.

What counts as trouble, what to do about it, and the tuning guides as data. Imports no torch.
"""

from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_serializer, model_validator

# In the order in which they are answered: what ruins a run first.
Rule = Literal[
    "nonfinite",
    "mode_collapse",
    "d_loss_low",
    "d_too_strong",
    "g_loss_exploding",
    "gan_loss_stagnant",
    "d_loss_high",
    "real_prob_low",
    "fake_prob_high",
    "overfitting",
    "validation_rising",
    "d_overfitting",
    "score_flat",
]
Range = tuple[float | None, float | None]  # both ends count as inside; None: open


class Move(BaseModel):
    """One move of a tuning guide.

    A setting, and how it changes: `factor`, `add` or `to`. Nothing is left of it where the setting
    is past `limit`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    setting: str = Field(
        min_length=1, description="a key of the settings; in a run without it the move is left out"
    )
    factor: float | None = Field(None, gt=0, description="multiply by this")
    add: float | None = Field(None, description="add this")
    to: bool | int | float | str | tuple[int | float, ...] | None = Field(
        None, description="set to this"
    )
    limit: float | None = Field(None, description="how far a factor or a sum may go")
    in_flight: bool = Field(True, description="whether it can be done to a run that is under way")

    @model_validator(mode="after")
    def _one_way(self):
        given = [name for name in ("factor", "add", "to") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(
                f"a move of {self.setting} has one of factor, add, to; found"
                f" {', '.join(given) or 'none'}"
            )
        if self.factor == 1 or self.add == 0:
            raise ValueError(f"factor 1 and add 0 leave {self.setting} as it is")
        if self.to is not None and self.limit is not None:
            raise ValueError("limit belongs to factor or add, not to `to`")
        return self

    @model_serializer
    def _brief(self):
        """Without what is not given: a guide is long enough."""
        fields = {name: getattr(self, name) for name in ("setting", "factor", "add", "to", "limit")}
        return {name: value for name, value in fields.items() if value is not None} | (
            {} if self.in_flight else {"in_flight": False}
        )

    def next(self, value: Any) -> Any:
        """The setting's value after this move.

        None where nothing is left of it. Integers stay integers.
        """
        if self.to is not None:
            to = list(self.to) if isinstance(self.to, tuple) else self.to  # as a run file has it
            return None if to == (list(value) if isinstance(value, tuple) else value) else to
        if isinstance(value, bool) or not isinstance(value, int | float):
            return None  # switched off, or no number
        new = value * self.factor if self.factor is not None else value + self.add
        down = new < value
        if self.limit is not None:
            if value <= self.limit if down else value >= self.limit:
                return None
            new = max(new, self.limit) if down else min(new, self.limit)
        if isinstance(value, int):
            new = round(new)
            if new == value:
                new += -1 if down else 1
        else:
            new = float(f"{new:.12g}")  # 0.1 + 0.2 is to be 0.3
        return None if new == value else new


# What a run reads anew in every step; everything else is built into networks, optimizers and the
# order of the data when it starts.
IN_FLIGHT = frozenset(
    (
        "g_lr",
        "d_lr",
        "weight_decay",
        "g_steps",
        "real_label",
        "fake_label",
        "lambda_l1",
        "lambda_stft",
        "lambda_adversarial",
        "gan_start_epoch",
        "dropout_rate",
        "gamma",
        "hflip",
        "vflip",
        "rotation",
        "jitter",
        "translation",
        "diffaugment",
        "gain",
        "polarity",
        "aug_noise_std",
        "aug_scale_range",
        "aug_shift_range",
    )
)


def _guide(**moves: tuple[Move, ...]) -> dict[str, tuple[Move, ...]]:
    return moves


_STRONG = (Move(setting="g_steps", add=1, limit=3), Move(setting="d_lr", factor=0.5, limit=5e-5))
_WEAK = (Move(setting="g_steps", add=-1, limit=1), Move(setting="d_lr", factor=2, limit=2e-4))
_CLIP = Move(setting="clip", factor=0.5, limit=0.5, in_flight=False)
_SMALLER_D = (
    Move(setting="weight_decay", factor=5, limit=5e-5),
    Move(setting="ndf", factor=0.75, limit=32, in_flight=False),
)
_ADAM = tuple(Move(setting=name, factor=0.5, limit=5e-5) for name in ("g_lr", "d_lr"))

# Of the documents on the sagan and capacity systems: one more G step up to 1:3; D 5e-5 and G 1e-4;
# learning rate 5e-5 and clip 0.5 where unstable.
SAGAN_GUIDE = _guide(
    nonfinite=(*(Move(setting=name, factor=0.25, limit=5e-5) for name in ("g_lr", "d_lr")), _CLIP),
    mode_collapse=(
        Move(setting="d_lr", factor=0.25, limit=5e-5),
        Move(setting="g_lr", factor=0.5, limit=1e-4),
    ),
    d_loss_low=_STRONG,
    d_too_strong=_STRONG,
    gan_loss_stagnant=_STRONG,
    g_loss_exploding=(*_ADAM, _CLIP),
    d_loss_high=_WEAK,
    real_prob_low=_WEAK,
    fake_prob_high=_WEAK,
    overfitting=_SMALLER_D,
    validation_rising=_SMALLER_D,
    d_overfitting=_SMALLER_D,
    score_flat=(
        Move(setting="epochs", factor=1.5, limit=3000, in_flight=False),
        Move(setting="lr_every", factor=0.5, limit=250, in_flight=False),
        Move(setting="ngf", factor=1.5, limit=96, in_flight=False),
        Move(setting="ndf", factor=1.5, limit=96, in_flight=False),
        Move(setting="attention", to=(8, 16, 32), in_flight=False),
    ),
)


class Watch(BaseModel):
    """Thresholds of the rules, where null switches a rule off, and what to do.

    The defaults are those of the sagan recipe.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    on_trouble: Literal["warn", "adapt", "rollback", "stop"] = Field(
        "warn",
        description=(
            "what a warning does beside being told: warn (nothing), adapt (the guide's moves that"
            " can be made in flight), rollback (back to the last healthy checkpoint, both learning"
            " rates halved), stop"
        ),
    )
    settle_epochs: float = Field(
        5,
        ge=0,
        description="epochs between two interventions, in which the last one may show its effect",
    )
    max_rollbacks: int = Field(
        3, ge=0, description="of a run; trouble that is left after so many stops it"
    )
    rollback_on: tuple[Rule, ...] = Field(
        ("nonfinite", "mode_collapse", "d_loss_low", "d_too_strong", "g_loss_exploding"),
        description=(
            "rules whose warnings are answered by on_trouble=rollback; others are only told"
        ),
    )
    window: int = Field(
        25, ge=1, description="training lines of the journal whose median is judged"
    )
    valid_window: int = Field(3, ge=1, description="validation lines whose median is judged")
    release: float = Field(
        1.1,
        ge=1,
        description="a finding ends when the median is back past its threshold by this factor",
    )
    unbounded: bool = Field(
        False,
        description=(
            "D is an unbounded critic (Wasserstein): no range of its losses and outputs is healthy"
            " or not, so only overfitting, scores and numbers that are not finite are judged"
        ),
    )
    healthy: dict[str, Range] = Field(
        {"d/real_prob": (0.5, 0.8), "d/fake_prob": (None, 0.6)},
        description=(
            "healthy ranges of journal keys, shown in the report and asked for by its criteria;"
            " null: an open end"
        ),
    )
    d_loss_collapsed: float | None = Field(
        0.05, ge=0, description="D loss below this: the discriminator may have collapsed"
    )
    d_loss_strong: float | None = Field(0.1, ge=0, description="D loss below this: D too strong")
    d_loss_floor: float = Field(
        0.0,
        ge=0,
        description=(
            "least D loss that label smoothing allows (0.325 for the sum of both terms with "
            "real labels of 0.9); the two thresholds above count from here"
        ),
    )
    d_loss_weak: float | None = Field(None, ge=0, description="D loss above this: D too weak")
    real_prob_low: float | None = Field(
        0.5, ge=0, le=1, description="D(x) below this: D takes real samples for generated ones"
    )
    real_prob_reach: float = Field(
        0.1,
        ge=0,
        le=1,
        description=(
            "D(x) this far below the mean of both labels, where D ends that cannot tell the two"
            " apart, is only noted while the score improves"
        ),
    )
    real_prob_high: float | None = Field(
        0.8,
        ge=0,
        le=1,
        description="D(x) above this while D(G(z)) is below fake_prob_low: D too strong",
    )
    fake_prob_low: float | None = Field(
        0.05,
        ge=0,
        le=1,
        description="D(G(z)) below this while D(x) is above real_prob_high: D too strong",
    )
    fake_prob_high: float | None = Field(
        0.6, ge=0, le=1, description="D(G(z)) above this: D takes generated samples for real ones"
    )
    g_loss_growth: float | None = Field(
        4.0, ge=1, description="G loss above this many times its own lowest median: exploding"
    )
    g_loss_high: float = Field(
        5.0,
        ge=0,
        description="G loss below this never counts as exploding (5: D(G(z)) is still 0.7 %)",
    )
    loss_ratio: float = Field(
        5.0,
        ge=1,
        description="G and D losses within this factor of each other are of comparable size",
    )
    stagnant_change: float | None = Field(
        None,
        ge=0,
        description="epoch means of G's GAN loss that change by less than this: stagnant",
    )
    stagnant_epochs: int = Field(3, ge=1, description="changes in a row that must be so small")
    stagnant_after: float = Field(
        5,
        ge=0,
        description="epochs before which no loss is called stagnant, nor judged by the criteria",
    )
    gap_high: float | None = Field(
        0.2, ge=0, description="validation L1 − training L1 above this: overfitting"
    )
    gap_healthy: float = Field(
        0.1, ge=0, description="validation L1 − training L1 below this is healthy"
    )
    valid_rise: float | None = Field(
        0.1,
        ge=0,
        description=(
            "validation L1 above its lowest median by this fraction is rising; "
            "changing by it from one validation to the next, without a new low, it fluctuates"
        ),
    )
    overfit_high: float | None = Field(
        0.6,
        ge=0,
        description=(
            "valid/overfit above this: D overfits (0.6 is the target of Karras et al. 2020)"
        ),
    )
    diversity_fall: float | None = Field(
        0.5,
        ge=0,
        le=1,
        description=(
            "diversity below this share of its own highest median, or of that of real samples "
            "where it was above it: mode collapse"
        ),
    )
    diversity_low: float | None = Field(
        0.2,
        ge=0,
        le=1,
        description=(
            "diversity that stays below this share of that of real samples and does not grow: mode"
            " collapse"
        ),
    )
    score_jump: float | None = Field(
        2.0, ge=1, description="two scores in a row above this many times the best: mode collapse"
    )
    score_lost: float = Field(
        0.25,
        ge=0,
        le=1,
        description=(
            "share of the way from the first to the best score, in ratios, that a jump must undo as"
            " well"
        ),
    )
    score_flat_epochs: float | None = Field(
        100, gt=0, description="epochs without a better score until it counts as flat"
    )
    score_flat_change: float = Field(
        0.01, ge=0, lt=1, description="fraction by which a score must fall to count as better"
    )
    score_flat_evaluations: int = Field(
        3, ge=1, description="evaluations without a better score that are needed as well"
    )
    nonfinite_lines: int | None = Field(
        3,
        ge=1,
        description="lines with numbers that are not finite, within a window, for a warning",
    )
    moves: dict[Rule, tuple[Move, ...]] = Field(
        SAGAN_GUIDE,
        description=(
            "the tuning guide, by rule: lists of {setting, factor | add | to, limit, in_flight}"
        ),
    )


@dataclass(frozen=True)
class Finding:
    """A rule that holds at the end of the journal, and since which epoch."""

    rule: str
    level: str  # "warning": something should be changed; "note": worth knowing
    epoch: float
    message: str
    advice: str  # the guide's moves from the run's present settings, then what else helps

    @property
    def name(self) -> str:
        """Under which it was told: a note that becomes a warning is told again."""
        return self.rule if self.level == "warning" else f"{self.rule} ({self.level})"


@dataclass(frozen=True)
class Signal:
    """A number to keep an eye on.

    Its recent value, its healthy range (None: open end), and whether it lies there (None: too few
    lines).
    """

    name: str
    value: float | None
    low: float | None
    high: float | None
    ok: bool | None
    meaning: str


# Of the documents on the waveform system: the health table, and the tuning guide with its three
# rows. The guide also leads from the settings of the run that failed (`waveform-collapsed`) to
# those of the repaired one, where the same setting stands twice: its next move is the first that
# has any left.
_COLLAPSE = (
    Move(setting="d_lr", factor=0.5, limit=1.25e-5),
    Move(setting="lambda_l1", factor=0.1, limit=10),
    Move(setting="lambda_l1", factor=0.5, limit=2.5),
    Move(setting="g_lr", factor=2, limit=2e-4),
    Move(setting="real_label", add=-0.1, limit=0.9),
    Move(setting="fake_label", add=0.1, limit=0.1),
    Move(setting="base_filters_d", factor=0.5, limit=32, in_flight=False),
    Move(setting="base_filters_d", factor=0.75, limit=16, in_flight=False),
    Move(setting="num_layers_d", add=-1, limit=2, in_flight=False),
)
_G_WEAK = (
    Move(setting="g_lr", factor=1.5, limit=3e-4),
    Move(setting="lambda_l1", factor=2, limit=20),
)
_OVERFIT = (
    Move(setting="dropout_rate", add=0.1, limit=0.4),
    Move(setting="weight_decay", factor=5, limit=5e-5),
    Move(setting="aug_noise_std", add=0.01, limit=0.03),
    Move(setting="aug_scale_range", to=(0.85, 1.15)),
    Move(setting="aug_shift_range", add=0.05, limit=0.15),
)
WAVEFORM = Watch(
    healthy={"d/loss": (0.2, 0.7)},
    d_loss_weak=1.0,
    stagnant_change=0.01,
    moves=SAGAN_GUIDE
    | _guide(
        d_loss_low=_COLLAPSE,
        d_too_strong=_COLLAPSE,
        gan_loss_stagnant=_COLLAPSE,
        d_loss_high=_G_WEAK,
        overfitting=_OVERFIT,
        validation_rising=_OVERFIT,
        real_prob_low=_G_WEAK,
        fake_prob_high=_G_WEAK,
        d_overfitting=_OVERFIT,
        score_flat=(),
    ),
)
