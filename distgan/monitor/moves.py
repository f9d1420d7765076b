"""Rules by name, and a move of a tuning guide: how one setting changes. Imports no torch."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_serializer, model_validator

# In the order of response: what ruins a run comes first.
Rule = Literal[
    "nonfinite",
    "mode_collapse",
    "gradients_exploding",
    "d_loss_low",
    "d_too_strong",
    "critic_drift",
    "g_loss_exploding",
    "gan_loss_stagnant",
    "d_loss_high",
    "real_prob_low",
    "fake_prob_high",
    "overfitting",
    "validation_rising",
    "d_overfitting",
    "copies",
    "score_flat",
]


class Move(BaseModel):
    """One move of a tuning guide: a setting, and how it changes, by `factor`, `add` or `to`.

    It is not applicable once the setting is at or past `limit`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    setting: str = Field(
        min_length=1, description="a key of the settings; ignored by a recipe without it"
    )
    factor: float | None = Field(None, gt=0, description="multiply by this")
    add: float | None = Field(None, description="add this")
    to: bool | int | float | str | tuple[int | float, ...] | tuple[str, ...] | None = Field(
        None, description="set to this"
    )
    limit: float | None = Field(None, description="where `factor` or `add` stops")
    in_flight: bool = Field(True, description="can be applied while the run trains")

    @model_validator(mode="after")
    def _one_way(self):
        given = [name for name in ("factor", "add", "to") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(
                f"a move of {self.setting} needs exactly one of factor, add, to; it has"
                f" {', '.join(given) or 'none'}"
            )
        if self.factor == 1 or self.add == 0:
            raise ValueError(f"factor 1 and add 0 leave {self.setting} as it is")
        if self.to is not None and self.limit is not None:
            raise ValueError("limit belongs to factor or add, not to `to`")
        return self

    @model_serializer
    def _brief(self):
        """Leave out what is not set, to keep a guide short."""
        fields = {name: getattr(self, name) for name in ("setting", "factor", "add", "to", "limit")}
        return {name: value for name, value in fields.items() if value is not None} | (
            {} if self.in_flight else {"in_flight": False}
        )

    def next(self, value: Any) -> Any:
        """Return the setting's value after this move; None if it is not applicable.

        Integers stay integers.
        """
        if self.to is not None:
            to = list(self.to) if isinstance(self.to, tuple) else self.to  # as a run file has it
            return None if to == (list(value) if isinstance(value, tuple) else value) else to
        if isinstance(value, bool) or not isinstance(value, int | float):
            return None  # switched off, or no number
        new = value * self.factor if self.factor is not None else value + (self.add or 0)
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
            new = float(f"{new:.12g}")  # 0.1 + 0.2 gives 0.3
        return None if new == value else new


# Settings that a run reads in every step, beside learning rates; all others are built into
# networks, optimizers and the order of the data at its start.
IN_FLIGHT = frozenset(
    (
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
        "gamma_end",
        "hflip",
        "vflip",
        "rotation",
        "jitter",
        "brightness",
        "contrast",
        "saturation",
        "translation",
        "diffaugment",
        "ada",
        "gain",
        "polarity",
        "aug_noise_std",
        "aug_scale_range",
        "aug_shift_range",
    )
)


def is_rate(setting: str) -> bool:
    """Return True for the learning rate of a player: `g_lr`, `d_lr`, `x_lr` of a player X."""
    return setting.endswith("_lr")


def goes_in_flight(setting: str) -> bool:
    """Return True for a setting that a run under way reads anew."""
    return setting in IN_FLIGHT or is_rate(setting)


def format_setting(value: Any) -> str:
    """Return a setting as a person writes it: 5e-5, 24, [0.9, 1.1]."""
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(format_setting, value))}]"
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    if not isinstance(value, float):
        return str(value)
    text = f"{value:.4g}" if abs(value) >= 1e-3 or value == 0 else f"{value:.3e}"
    digits, _, power = text.partition("e")
    return f"{digits.rstrip('0').rstrip('.')}e{int(power)}" if power else text
