"""How much a denoiser suppresses, drawn anew for each recording."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Strength:
    """How one recording is denoised, so that a model does not learn to undo one setting."""

    floor_db: float  # smallest gain
    jitter_db: float  # standard deviation of the error of a band's gain (erb)
    oversubtract: float  # the noise power is multiplied by this
    seed: int  # of the jitter


def draw_strength(rng: np.random.Generator) -> Strength:
    """Draw a floor of -35 to -12 dB, jitter of 0 to 4 dB, oversubtraction of 1 to 1.5."""
    return Strength(
        rng.uniform(-35, -12), rng.uniform(0, 4), rng.uniform(1, 1.5), int(rng.integers(2**62))
    )
