"""Samples of a generator as they are scored, on all ranks alike: images rounded to 8 bits, vectors
as they are.
"""

from collections.abc import Callable

import numpy as np
import torch

from distgan.core.errors import LaunchError, RunError
from distgan.data import transforms
from distgan.distributed.map_over_ranks import CHUNK, one_thread
from distgan.distributed.ranks import Ranks

MAX_SAMPLE = 30.0  # samples are in [-1, 1] or little beyond; larger values have another range
Sample = Callable[[np.ndarray], torch.Tensor]


class NonFiniteSamples(RunError):
    """A generator returned NaN or infinity."""


def scored(samples: torch.Tensor, numbers: np.ndarray, kind: str) -> torch.Tensor:
    """Return images in [-1, 1] rounded to 8 bits, as a PNG file holds them, vectors as float32.

    NonFiniteSamples, or RunError for images with values far outside that range.
    """
    if not torch.isfinite(samples).all():
        raise NonFiniteSamples(
            f"samples {numbers[0]} to {numbers[-1]} are not finite: the generator is broken. An"
            " earlier checkpoint may not be: RUN@STEP"
        )
    if kind == "vector":
        return samples.float()
    largest = float(samples.abs().max())
    if largest > MAX_SAMPLE:
        raise RunError(f"samples reach {largest:.3g}, expected are values in [-1, 1]")
    return transforms.to_bytes(samples)


def require_same_generator(ranks: Ranks, sample: Sample, kind: str) -> None:
    """LaunchError unless all ranks generate the samples of rank 0.

    Weights, running statistics and mode of their generators are then equal.
    """
    if ranks.world_size == 1:
        return

    def draw() -> torch.Tensor:
        with one_thread(), torch.no_grad():
            numbers = np.arange(CHUNK)
            return scored(sample(numbers), numbers, kind).cpu()

    local = ranks.on_all_ranks(draw)  # samples of one rank alone may not be finite
    first = ranks.on_rank_zero(lambda: local)
    difference = float((local.double() - first.double()).abs().max())
    # Two kinds of GPU may round to different levels.
    level = 1.0 if local.dtype == torch.uint8 else 1e-3 * float(first.abs().max())
    allowed = 0.0 if ranks.device.type == "cpu" else 2 * level
    unit = " grey levels" if local.dtype == torch.uint8 else ""

    def require() -> None:
        if difference > allowed:
            raise LaunchError(
                f"draws other samples than rank 0, up to {difference:g}{unit} apart: its"
                " generator's weights or running statistics differ, so a score would be of no"
                " generator"
            )

    ranks.on_all_ranks(require)
