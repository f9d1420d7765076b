"""Settings that the recipes have in common that turn one signal into another."""

from typing import Annotated, ClassVar

from pydantic import Field

from distgan.config import batch_layout
from distgan.config.sections import Positive
from distgan.config.settings import Run

Weight = Annotated[float, Field(ge=0, le=1e9)]
Count = Annotated[int, Field(gt=0, le=1_000_000_000)]


class PairSettings(Run):
    """Settings of a recipe that trains on pairs of signals."""

    kind: ClassVar[str] = "pair"

    batch: int = Field(
        8,
        gt=0,
        le=batch_layout.MAX_BATCH,
        description="the global batch: samples per update over all ranks and micro-batches",
    )
    epochs: Positive = Field(
        24, description="how far to train; a longer run is the same run, continued"
    )
