"""Samples of a generator as they are scored: images rounded to 8 bits, vectors as they are."""

import numpy as np
import torch

from distgan.core.errors import RunError
from distgan.data import transforms

MAX_SAMPLE = 30.0  # samples are in [-1, 1] or little beyond; larger values have another range


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
