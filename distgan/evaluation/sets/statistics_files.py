"""Statistics of real images in a file that a user names."""

from collections.abc import Sequence
from pathlib import Path

import torch

from distgan.core.errors import DataError
from distgan.evaluation.sets import statistics_cache


class StatisticsFile:
    """Statistics of real images in a file, without the images themselves."""

    kind = "image"

    def __init__(self, file: Path):
        key, _ = statistics_cache.open_user_file(file)
        self.file, self.name, self.statistics_folder = file, str(file), file.parent
        self.fingerprint, self.training, self._n = key["images"], key["training"], key["n"]
        self.path = "moments" if "used" in key else "features"

    def __len__(self) -> int:
        return self._n

    def decode(self, numbers: Sequence[int]) -> torch.Tensor:
        raise DataError(f"{self.name} holds statistics, not images")
