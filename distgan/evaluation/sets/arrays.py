"""Vectors in an array of NumPy."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from distgan.core.errors import DataError
from distgan.core.files import cache_folder
from distgan.core.reading import open_regular
from distgan.evaluation.sets.traits import Traits
from distgan.shards.codecs import array


class ArrayVectors:
    """Vectors of an array [n, d], such as those that `distgan generate` writes.

    They are in the order of the SHA-256 of their rows: the rows of the file in another order, such
    as sorted by class, are the same set.
    """

    kind = "vector"

    def __init__(self, file: Path):
        self.name, self.statistics_folder = str(file), cache_folder() / "statistics"
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
            rows = np.ascontiguousarray(values, np.float32)
        if not np.isfinite(rows).all():
            raise DataError(f"{file} holds NaN, infinity, or numbers beyond float32")
        digests = [hashlib.sha256(row).digest() for row in rows]
        self._values = rows[sorted(range(len(rows)), key=digests.__getitem__)]
        self.training, self.traits = len(rows), Traits()
        digest = hashlib.sha256(str(values.shape).encode())
        digest.update(self._values.data)
        self.fingerprint = digest.hexdigest()[:16]

    def __len__(self) -> int:
        return self.training

    def decode(self, numbers: Sequence[int]) -> torch.Tensor:
        return torch.from_numpy(self._values[np.asarray(numbers)])
