"""Statistics of a set in a file that a user names, without its images: distgan's own, which say
what they were computed from, and the mean and covariance of pytorch-fid and clean-fid, which do
not.
"""

import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from distgan.core.errors import DataError
from distgan.core.reading import open_regular
from distgan.evaluation.sets import statistics_cache
from distgan.evaluation.sets.traits import Traits
from distgan.metrics.frechet import Moments
from distgan.shards.codecs import array

WIDEST = 8192  # features; a covariance of more would take gigabytes
UNVERIFIED = (
    "it does not say of how many images, by which weights and after which resizing it was made."
    " The distance means something only if all three are as on the other side, and is no FID that"
    " distgan vouches for"
)


class StatisticsFile:
    """Statistics that distgan computed, with the key of all they depend on."""

    kind = "image"

    def __init__(self, file: Path):
        self.key, arrays = statistics_cache.open_user_file(file)
        self.file, self.name, self.statistics_folder = file, str(file), file.parent
        n, training = (_number(self.key, name) for name in ("n", "training"))
        rows = arrays["features"].shape[:1] if "features" in arrays else None
        if n is None or training is None or rows not in (None, (n,)):
            raise DataError(f"{file} is damaged: its arrays are not of the images that it names")
        self._n, self.training = n, training
        self.fingerprint = str(self.key.get("images"))
        # How many of the images, the first ones, moments are of.
        self.used = _number(self.key, "used")
        self.path = "features" if self.used is None else "moments"
        self.traits = Traits()

    def __len__(self) -> int:
        return self._n

    def decode(self, numbers: Sequence[int]) -> torch.Tensor:
        raise DataError(f"{self.name} holds statistics, not images")


class UnverifiedMoments:
    """`mu` [d] and `sigma` [d, d] of an .npz file, as pytorch-fid and clean-fid write them."""

    kind = "image"

    def __init__(self, file: Path):
        self.name = str(file)
        try:
            with array.one_error(), open_regular(file, links=True) as opened:
                with np.load(opened) as arrays:
                    found = {name: _array(arrays, name) for name in ("mu", "sigma")}
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise DataError(
                f"{file} holds no statistics of pytorch-fid or clean-fid, which are arrays mu [d]"
                f" and sigma [d, d]: {error}"
            ) from error
        mean, cov = found["mu"], found["sigma"]
        if mean.ndim != 1 or cov.shape != (len(mean), len(mean)) or len(mean) < 1:
            raise DataError(
                f"{file} holds mu {list(mean.shape)} and sigma {list(cov.shape)}; needed are [d]"
                " and [d, d]"
            )
        if not (np.isfinite(mean).all() and np.isfinite(cov).all()):
            raise DataError(f"{file} holds NaN or infinity")
        if not np.allclose(cov, cov.T, rtol=1e-3, atol=1e-6 * float(np.abs(cov).max())):
            raise DataError(f"{file}: sigma is not symmetric, so it is no covariance")
        # The number of images is not known; 2 is the least that has a covariance.
        self.moments = Moments(2, torch.from_numpy(mean), torch.from_numpy((cov + cov.T) / 2))

    @property
    def width(self) -> int:
        return len(self.moments.mean)


def _number(key: Any, name: str) -> int | None:
    value = key.get(name) if isinstance(key, dict) else None
    return value if type(value) is int and value >= 0 else None


def _array(arrays: np.lib.npyio.NpzFile, name: str) -> np.ndarray:
    """Return an array in float64; ValueError, before it is unpacked, if it is too large."""
    assert arrays.zip is not None, "it is open"
    if arrays.zip.getinfo(f"{name}.npy").file_size > 8 * WIDEST**2 + 4096:
        raise ValueError(f"{name} is larger than the covariance of {WIDEST:,} features")
    values = arrays[name]
    if values.dtype.kind not in "fiu":
        raise ValueError(f"{name} holds {values.dtype}")
    return values.astype(np.float64)
