"""Image files in a folder, decoded on demand."""

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import ExifTags, Image

from distgan.core.errors import DataError
from distgan.core.file_tree import Contents, find_files
from distgan.shards.codecs import image as image_codec

EXTENSIONS = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm")
_ROTATED = (5, 6, 7, 8)  # EXIF orientations that exchange width and height


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
