"""Interface of a set of images or vectors, and draws from it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import torch

from distgan.core import rng
from distgan.evaluation.sets.traits import Traits


class ImageSet(Protocol):
    """Images, or vectors, by number.

    `kind`: image or vector. `training`: how many of them, the first ones, a run trained on; the
    others are held out.
    `statistics_folder`: where statistics of the images are stored.
    """

    name: str
    kind: str
    fingerprint: str
    training: int
    statistics_folder: Path
    traits: Traits

    def __len__(self) -> int: ...

    def decode(self, numbers: Sequence[int]) -> torch.Tensor:
        """Return uint8 [n, channels, height, width], or vectors float32 [n, d]; DataError names a
        damaged one.
        """


def drawn(n: int, count: int, seed: int) -> np.ndarray:
    """Return `count` numbers of 0 to n - 1 in random order, a draw without replacement.

    The first k of them are a draw, too: an order of images, such as by class, is none of theirs.
    """
    return rng.numpy_generator(seed, "evaluate/draw", n).permutation(n)[:count]
