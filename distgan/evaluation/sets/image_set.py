"""What a set of images or vectors is, to those who compare two."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import torch


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

    def __len__(self) -> int: ...

    def decode(self, numbers: Sequence[int]) -> torch.Tensor:
        """Return uint8 [n, channels, height, width], or vectors float32 [n, d]; DataError names a
        damaged one.
        """
