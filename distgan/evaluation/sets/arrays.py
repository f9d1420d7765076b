"""Vectors in an array of NumPy."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from distgan.core.errors import DataError
from distgan.core.reading import open_regular
from distgan.shards.codecs import array


class ArrayVectors:
    """Vectors of an array [n, d], such as those that `distgan generate` writes."""

    kind = "vector"

    def __init__(self, file: Path):
        self.name, self.statistics_folder = str(file), file.parent / "statistics"
        try:
            open_regular(file, links=True).close()
            with array.one_error():
                values = np.lib.format.open_memmap(file, mode="r")
        except (OSError, ValueError) as error:
            raise DataError(f"{file} is no array of NumPy: {error}") from None
        if values.ndim != 2 or values.dtype.kind not in "fiu" or not values.size:
            raise DataError(
                f"{file} holds {values.dtype} {list(values.shape)}; needed are numbers [samples,"
                " numbers]"
            )
        with np.errstate(over="ignore"):
            self._values = np.ascontiguousarray(values, np.float32)
        if not np.isfinite(self._values).all():
            raise DataError(f"{file} holds NaN, infinity, or numbers beyond float32")
        self.training = len(self._values)
        digest = hashlib.sha256(str(values.shape).encode())
        digest.update(self._values.data)
        self.fingerprint = digest.hexdigest()[:16]

    def __len__(self) -> int:
        return self.training

    def decode(self, numbers: Sequence[int]) -> torch.Tensor:
        return torch.from_numpy(self._values[np.asarray(numbers)])
