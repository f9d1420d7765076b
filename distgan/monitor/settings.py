"""The section `watch` of the settings: thresholds of the rules, and what to do about warnings.
Imports no torch.
"""

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from distgan.monitor.guides import DEFAULT_GUIDE, WAVEFORM_GUIDE
from distgan.monitor.moves import Move, Rule

Range = tuple[float | None, float | None]  # both ends count as inside; None: open


@dataclass(frozen=True)
class Neutral:
    """The value of a new setting that reproduces runs from before it existed; see
    config/identity.py.
    """

    value: Any


class Watch(BaseModel):
    """Thresholds of the rules (null switches a rule off), and the response to warnings.

    The defaults are those of the sagan recipe.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    on_trouble: Literal["warn", "adapt", "rollback", "rollback_adapt", "stop"] = Field(
        "warn",
        description=(
            "response to a warning: warn (print it), adapt (apply the guide's moves that work in"
            " flight), rollback (to the last healthy checkpoint, with both learning rates halved),"
            " rollback_adapt (to it, with the guide's moves in place of halved rates; adapt for"
            " rules that are not in rollback_on), stop"
        ),
    )
    settle_epochs: float = Field(
        5,
        ge=0,
        description="least number of epochs between two interventions",
    )
    max_rollbacks: int = Field(
        3, ge=0, description="number of rollbacks after which the next one stops the run"
    )
    rollback_on: tuple[Rule, ...] = Field(
        ("nonfinite", "mode_collapse", "d_loss_low", "d_too_strong", "g_loss_exploding"),
        description=(
            "rules whose warnings cause a rollback with on_trouble=rollback or rollback_adapt;"
            " others are printed, or answered by adapt"
        ),
    )
    window: int = Field(
        25, ge=1, description="number of training lines of the journal whose median is evaluated"
    )
    valid_window: int = Field(
        3, ge=1, description="number of validation lines whose median is evaluated"
    )
    release: float = Field(
        1.1,
        ge=1,
        description="a finding ends once the median is back past its threshold by this factor",
    )
    unbounded: bool = Field(
        False,
        description=(
            "D is an unbounded critic (Wasserstein): its losses and outputs have no healthy range,"
            " so only overfitting, scores, gradients and non-finite numbers are evaluated"
        ),
    )
    floored: Annotated[bool, Neutral(False)] = Field(
        False,
        description=(
            "with unbounded: D's loss is never below 0 (hinge, relativistic), so d_loss_low is"
            " evaluated, and critic_drift is not"
        ),
    )
    healthy: dict[str, Range] = Field(
        {"d/real_prob": (0.5, 0.8), "d/fake_prob": (None, 0.6)},
        description=(
            "healthy ranges of journal keys, for the report and its success criteria; null: an open"
            " end"
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
            "least D loss that label smoothing allows (0.325 for the sum of both terms with real"
            " labels of 0.9); the two thresholds above are relative to it"
        ),
    )
    d_loss_weak: float | None = Field(None, ge=0, description="D loss above this: D too weak")
    real_prob_low: float | None = Field(
        0.5, ge=0, le=1, description="D(x) below this: D classifies real samples as generated"
    )
    real_prob_reach: float = Field(
        0.1,
        ge=0,
        le=1,
        description=(
            "D(x) at most this far below the mean of both labels, the expected equilibrium, is only"
            " a note while the score improves"
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
        0.6, ge=0, le=1, description="D(G(z)) above this: D classifies generated samples as real"
    )
    critic_growth: Annotated[float | None, Neutral(None)] = Field(
        3.0,
        ge=1,
        description=(
            "Wasserstein estimate above this many times its highest median in the first quarter of"
            " the run, while the score does not improve: G cannot follow"
        ),
    )
    grad_growth: Annotated[float | None, Neutral(None)] = Field(
        10.0,
        ge=1,
        description=(
            "gradient norm above this many times its highest median in the first quarter of the"
            " run: exploding"
        ),
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
        description="epoch means of G's GAN loss that change by less than this are stagnant",
    )
    stagnant_epochs: int = Field(
        3, ge=1, description="number of consecutive changes that must be so small"
    )
    stagnant_after: float = Field(
        5,
        ge=0,
        description="number of epochs before the rule and the success criteria evaluate losses",
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
            "validation L1 above its lowest median by this fraction is rising; one that changes by"
            " it between validations, without a new low, fluctuates"
        ),
    )
    overfit_high: float | None = Field(
        0.6,
        ge=0,
        description=(
            "valid/overfit above this: D overfits (0.6 is the target of Karras et al. 2020)"
        ),
    )
    nearest_low: Annotated[float | None, Neutral(None)] = Field(
        0.5,
        ge=0,
        description=(
            "valid/nearest below this: G copies training images (1: as far from them as unseen"
            " images; those blurred by 4 pixels are at 0.72)"
        ),
    )
    diversity_fall: float | None = Field(
        0.5,
        ge=0,
        le=1,
        description=(
            "diversity below this fraction of its highest median (at most that of real samples):"
            " mode collapse"
        ),
    )
    diversity_low: float | None = Field(
        0.2,
        ge=0,
        le=1,
        description=(
            "diversity that stays below this fraction of that of real samples and does not grow:"
            " mode collapse"
        ),
    )
    score_jump: float | None = Field(
        2.0,
        ge=1,
        description="two consecutive scores above this many times the best: mode collapse",
    )
    score_lost: float = Field(
        0.25,
        ge=0,
        le=1,
        description=(
            "fraction of the way from the first to the best score, as a ratio, that a jump must"
            " also"
            " undo"
        ),
    )
    score_flat_epochs: float | None = Field(
        100, gt=0, description="number of epochs without a better score after which it is flat"
    )
    score_flat_change: float = Field(
        0.01, ge=0, lt=1, description="fraction by which a score must fall to count as better"
    )
    score_flat_evaluations: int = Field(
        3, ge=1, description="least number of evaluations without a better score for it to be flat"
    )
    nonfinite_lines: int | None = Field(
        3,
        ge=1,
        description="number of lines with non-finite numbers in a window for a warning",
    )
    moves: dict[Rule, tuple[Move, ...]] = Field(
        DEFAULT_GUIDE,
        description=(
            "the tuning guide, by rule: lists of {setting, factor | add | to, limit, in_flight};"
            " null: no moves"
        ),
    )

    @field_validator("moves", mode="before")
    @classmethod
    def _no_moves(cls, value):
        if not isinstance(value, dict):
            return value
        return {rule: moves for rule, moves in value.items() if moves is not None}

    @property
    def goes_back(self) -> bool:
        """Return True where a warning may lead back to a checkpoint."""
        return self.on_trouble in ("rollback", "rollback_adapt")

    @property
    def least_d_loss(self) -> float:
        """Return the floor of D's loss."""
        return 0.0 if self.floored else self.d_loss_floor


WAVEFORM = Watch(
    healthy={"d/loss": (0.2, 0.7)},
    d_loss_weak=1.0,
    stagnant_change=0.01,
    moves=WAVEFORM_GUIDE,
)
