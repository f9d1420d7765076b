"""Sets of images to compare: shards of a data set, a folder of files, a file of statistics.

Image i is decoded on demand.
"""

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from PIL import ExifTags, Image

from distgan.config.data_name import names_code
from distgan.core.errors import ConfigError, DataError
from distgan.core.file_tree import Contents, find_files
from distgan.core.reading import open_regular
from distgan.data.dataset import Data
from distgan.data.own_dataset import open_data
from distgan.evaluation import statistics_cache
from distgan.shards.codecs import array
from distgan.shards.codecs import image as image_codec
from distgan.shards.format.sample_spec import UNITS

EXTENSIONS = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm")
_ROTATED = (5, 6, 7, 8)  # EXIF orientations that exchange width and height


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


class DatasetImages:
    """All images, or vectors, of a data set, the training split first."""

    def __init__(self, data: Data, folder: str | Path):
        if data.kind not in ("image", "vector"):
            raise ConfigError(
                f"{folder} holds {UNITS[data.kind]}; images and vectors are compared here"
            )
        self.data, self.name, self.fingerprint = data, str(folder), data.fingerprint
        self.kind, self.statistics_folder = data.kind, data.statistics_folder
        self.training = len(data.train)

    def __len__(self) -> int:
        return self.training + len(self.data.validation)

    def decode(self, numbers: Sequence[int]) -> torch.Tensor:
        parts = [
            (self.data.train, [i for i in numbers if i < self.training]),
            (self.data.validation, [i - self.training for i in numbers if i >= self.training]),
        ]
        # A last chunk, filled up from its beginning, does not rise: restore the order of numbers.
        images = torch.cat([self.data.decode(split, some) for split, some in parts if some])
        order = np.argsort(np.array([i >= self.training for i in numbers]), kind="stable")
        return images[torch.from_numpy(np.argsort(order, kind="stable"))]


class FolderImages:
    """Image files in a folder, at any depth, in the order of their names, as RGB."""

    kind = "image"

    def __init__(self, folder: Path):
        self.folder, self.name = folder, str(folder)
        self.statistics_folder = folder / "statistics"
        self._files, others = find_files(folder, EXTENSIONS)
        if not self._files:
            raise DataError(
                f"{folder} holds no images ({', '.join(EXTENSIONS)}); it holds"
                f" {others or 'nothing'}"
            )
        contents = Contents(folder, self._files, "images")
        self.fingerprint = hashlib.sha256(
            b"".join(contents.digests[file] for file in self._files)
        ).hexdigest()[:16]
        self.training = len(self._files)
        sizes: dict[tuple[int, int], str] = {}
        for name in self._files:
            sizes.setdefault(self._open(name, self._size), name)
        if len(sizes) > 1:
            examples = ", ".join(
                f"{width}x{height} as {name}" for (width, height), name in sorted(sizes.items())[:4]
            )
            raise DataError(
                f"{folder} holds images of several sizes ({examples}); make them of one size, as a"
                " generator's are: distgan shard images"
            )

    def __len__(self) -> int:
        return len(self._files)

    def decode(self, numbers: Sequence[int]) -> torch.Tensor:
        """Return images rotated and composited on black as by `distgan shard images`.

        Gray is repeated, as pytorch-fid does.
        """
        images = [
            self._open(
                self._files[i], lambda image: np.array(image_codec.upright(image).convert("RGB"))
            )
            for i in numbers
        ]
        return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)

    def _size(self, image: Image.Image) -> tuple[int, int]:
        """Return width and height as decoded, from the header alone."""
        if wide := image_codec.deep(image):
            raise ValueError(
                f"it has more than 8 bits ({wide}); scores are of 8-bit images, so"
                " scale it to 0 to 255 first"
            )
        rotated = image.getexif().get(ExifTags.Base.Orientation) in _ROTATED
        return image.size[::-1] if rotated else image.size

    def _open(self, name: str, read: Callable[[Image.Image], Any]) -> Any:
        try:
            with image_codec.opened(self.folder / name) as image:
                return read(image)
        except DataError:
            raise
        # Pillow raises SyntaxError for a broken chunk, DecompressionBombError for a false size.
        except Exception as error:
            raise DataError(f"{self.folder / name} cannot be decoded: {error}") from error


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


def open_real(text: str) -> ImageSet:
    """Open a data set, a folder of images, an array or a file of statistics. DataError,
    ConfigError.
    """
    path = Path(text).expanduser()
    is_statistics = path.is_file() and path.suffix != ".npy"
    return StatisticsFile(path) if is_statistics else open_set(text)


def open_set(text: str, verify: str = "size") -> DatasetImages | FolderImages | ArrayVectors:
    """Open a data set of shards if the folder has its index, else the images in the folder; a file
    .npy as vectors.

    DataError, ConfigError.
    """
    if names_code(text):
        return DatasetImages(open_data(text), text)
    folder = Path(text).expanduser()
    if folder.is_file() and folder.suffix == ".npy":
        return ArrayVectors(folder)
    if not folder.is_dir():
        raise ConfigError(f"{text}: no such folder")
    if (folder / "dataset.json").is_file() or (folder / "manifest.json").is_file():
        return DatasetImages(Data(str(folder), verify), folder)
    return FolderImages(folder)
