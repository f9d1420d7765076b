"""Sets of images to compare.

The shards of a data set, or a folder of files. Image i is decoded when it is asked for.
"""

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from PIL import ExifTags, Image

from distgan.core.errors import ConfigError, DataError
from distgan.core.file_tree import Contents, find_files
from distgan.data.dataset import Data
from distgan.evaluation import statistics_cache as reals
from distgan.shards.codecs import image as image_codec

EXTENSIONS = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm")
_TURNED = (5, 6, 7, 8)  # EXIF orientations that exchange width and height


class ImageSet(Protocol):
    """`training`: how many of the images, the first ones, a run trained on; the others are held
    out. `where`: a folder for statistics beside them.
    """

    name: str
    fingerprint: str
    training: int
    where: Path

    def __len__(self) -> int: ...

    def decode(self, numbers: Sequence[int]) -> torch.Tensor:
        """uint8 [n, channels, height, width]; DataError names the image."""


class Shards:
    """All images of a data set, those to train on first."""

    def __init__(self, data: Data, folder: str | Path):
        if data.kind != "image":
            raise ConfigError(f"{folder} holds {data.kind}s; images are compared here")
        self.data, self.name, self.fingerprint, self.where = (
            data,
            str(folder),
            data.fingerprint,
            Path(folder).expanduser() / "statistics",
        )
        self.training = len(data.train)

    def __len__(self) -> int:
        return self.training + len(self.data.validation)

    def decode(self, numbers: Sequence[int]) -> torch.Tensor:
        parts = [
            (self.data.train, [i for i in numbers if i < self.training]),
            (self.data.validation, [i - self.training for i in numbers if i >= self.training]),
        ]
        # Numbers rise, but for a last chunk that is filled up from its beginning: put back in their
        # order.
        found = torch.cat([self.data.decode(split, some) for split, some in parts if some])
        order = np.argsort(np.array([i >= self.training for i in numbers]), kind="stable")
        return found[torch.from_numpy(np.argsort(order, kind="stable"))]


class Files:
    """Image files in a folder, at any depth, in the order of their names.

    All in color, or gray where all are.
    """

    def __init__(self, folder: Path):
        self.folder, self.name, self.where = folder, str(folder), folder / "statistics"
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
        first: dict[tuple[int, int], str] = {}
        for name in self._files:
            first.setdefault(self._open(name, self._size), name)
        if len(first) > 1:
            sizes = ", ".join(
                f"{width}x{height} as {name}" for (width, height), name in sorted(first.items())[:4]
            )
            raise DataError(
                f"{folder} holds images of several sizes ({sizes}); make them of one size, as a"
                " generator's are: distgan shard images"
            )

    def __len__(self) -> int:
        return len(self._files)

    def decode(self, numbers: Sequence[int]) -> torch.Tensor:
        """Gray is repeated, as pytorch-fid does.

        Turned and put on black as `distgan shard images` does.
        """
        images = [
            self._open(
                self._files[i], lambda image: np.array(image_codec.upright(image).convert("RGB"))
            )
            for i in numbers
        ]
        return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)

    def _size(self, image: Image.Image) -> tuple[int, int]:
        """Width and height as decoded, from the header alone."""
        if wide := image_codec.deep(image):
            raise DataError(
                f"{image.filename} has more than 8 bits ({wide}); scores are of 8-bit images, so"
                " scale it to 0 to 255 first"
            )
        return (
            image.size[::-1]
            if image.getexif().get(ExifTags.Base.Orientation) in _TURNED
            else image.size
        )

    def _open(self, name: str, read: Callable[[Image.Image], Any]) -> Any:
        try:
            with Image.open(self.folder / name) as image:
                return read(image)
        except DataError:
            raise
        # anything: SyntaxError for a broken chunk, DecompressionBombError for a size that is a lie
        except Exception as error:
            raise DataError(f"{self.folder / name} cannot be decoded: {error}") from error


class Kept:
    """Statistics of real images, from a file: the images themselves are not there."""

    def __init__(self, file: Path):
        self.about, self.arrays = reals.given(file)
        self.file, self.name, self.where = file, str(file), file.parent
        self.fingerprint, self.training, self._n = (
            self.about["images"],
            self.about["training"],
            self.about["n"],
        )
        self.path = "moments" if "used" in self.about else "features"

    def __len__(self) -> int:
        return self._n

    def decode(self, numbers: Sequence[int]) -> torch.Tensor:
        raise DataError(f"{self.name} holds statistics, not images")


def open_real(text: str) -> "Shards | Files | Kept":
    """Also a file of statistics."""
    return Kept(Path(text).expanduser()) if Path(text).expanduser().is_file() else open_set(text)


def open_set(text: str, verify: str = "size") -> Shards | Files:
    """Of a folder that a user names: shards where dataset.json is in it. DataError, ConfigError."""
    folder = Path(text).expanduser()
    if not folder.is_dir():
        raise ConfigError(f"{text}: no such folder")
    if (folder / "dataset.json").is_file() or (folder / "manifest.json").is_file():
        return Shards(Data(str(folder), verify), folder)
    return Files(folder)
