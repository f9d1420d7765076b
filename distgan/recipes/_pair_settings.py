"""Settings, and a measure, that the recipes have in common that turn one signal into another."""

from typing import Annotated, ClassVar

import torch
from pydantic import Field, ValidationInfo, field_validator

from distgan.config import batch_layout
from distgan.config.sections import BestBy, Positive
from distgan.config.settings import Run

Weight = Annotated[float, Field(ge=0, le=1e9)]
Count = Annotated[int, Field(gt=0, le=1_000_000_000)]


class PairSettings(Run):
    """Settings of a recipe that trains on pairs of signals."""

    kind: ClassVar[str] = "pair"
    validated: ClassVar[tuple[str, ...]] = ("l1", "stft", "si_sdr", "lsd", "adversarial", "g_loss")

    best_by: BestBy = None
    batch: int = Field(
        8,
        gt=0,
        le=batch_layout.MAX_BATCH,
        description="the global batch: samples per update over all ranks and micro-batches",
    )
    epochs: Positive = Field(
        24, description="how far to train; a longer run is the same run, continued"
    )

    @field_validator("lambda_adversarial", check_fields=False)
    @classmethod
    def _judged_by_what_is_there(cls, value, info: ValidationInfo):
        if value == 0 and "adversarial" in (info.data.get("best_by") or ""):
            raise ValueError(f"best_by={info.data['best_by']} names a GAN loss that there is not")
        return value

    def is_judged_by(self, name: str) -> bool:
        """Return whether the number `name` of the validation is among what `best_by` names."""
        return self.judge is not None and name in self.judge.names


def beside_trivial(
    output: torch.Tensor, target: torch.Tensor, given: torch.Tensor
) -> dict[str, torch.Tensor]:
    """Return what trivial outputs score, means over samples [n, …] in the units of the target: the
    L1 of zeros (silence, mid-grey), that of the input as it is, and the share of samples on which
    the output's is below both.
    """
    l1, zeros, untouched = (
        (x - target).abs().flatten(1).mean(1) for x in (output, torch.zeros_like(target), given)
    )
    beats = (l1 < torch.minimum(zeros, untouched)).to(l1.dtype)
    return {
        "input_l1": untouched.mean(),
        "zeros_l1": zeros.mean(),
        "beats_trivial": beats.mean(),
    }
