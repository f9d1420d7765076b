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
from distgan.core.files import cache_folder
from distgan.evaluation.sets.traits import Traits
from distgan.shards.codecs import image as image_codec
from distgan.shards.codecs.fitting import Resize, to_size

EXTENSIONS = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm")
_ROTATED = (5, 6, 7, 8)  # EXIF orientations that exchange width and height


class FolderImages:
    """Image files in a folder, at any depth, as RGB; of several sizes only with `resize`.

    They are in the order of the SHA-256 of their contents: the same files under other names, such
    as sorted by class, are the same set.
    """

    kind = "image"

    def __init__(self, folder: Path, resize: Resize | None = None):
        self.folder, self.name, self._resize = folder, str(folder), resize
        self.statistics_folder = cache_folder() / "statistics"
        names, others = find_files(folder, EXTENSIONS)
        if not names:
            raise DataError(
                f"{folder} holds no images ({', '.join(EXTENSIONS)}); it holds"
                f" {others or 'nothing'}"
            )
        digests = Contents(folder, names, "images").digests
        self.files = sorted(names, key=lambda name: digests[name])
        self.fingerprint = hashlib.sha256(b"".join(sorted(digests.values()))).hexdigest()[:16]
        self.training = len(names)
        self.traits = Traits()
        sizes: dict[tuple[int, int], str] = {}
        for name in names:
            sizes.setdefault(self._open(name, self._examine), name)
        if len(sizes) > 1 and resize is None:
            examples = ", ".join(
                f"{width}x{height} as {name}" for (width, height), name in sorted(sizes.items())[:4]
            )
            raise DataError(
                f"{folder} holds images of several sizes ({examples}); --resize SIZE makes the"
                " images of both sets squares of one size, as `distgan shard images` does"
            )

    def __len__(self) -> int:
        return len(self.files)

    def decode(self, numbers: Sequence[int]) -> torch.Tensor:
        """Return images rotated and composited on black as by `distgan shard images`.

        Gray is repeated, as pytorch-fid does.
        """
        images = [self._open(self.files[i], self._pixels) for i in numbers]
        return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)

    def _pixels(self, image: Image.Image) -> np.ndarray:
        image = image_codec.upright(image).convert("RGB")
        return np.array(to_size(image, *self._resize) if self._resize else image)

    def _examine(self, image: Image.Image) -> tuple[int, int]:
        """Count what the header says; return width and height as decoded."""
        if wide := image_codec.deep(image):
            raise ValueError(
                f"it has more than 8 bits ({wide}); scores are of 8-bit images, so"
                " scale it to 0 to 255 first"
            )
        rotated = image.getexif().get(ExifTags.Base.Orientation) in _ROTATED
        width, height = image.size[::-1] if rotated else image.size
        self.traits.count(
            (width, height),
            image.format or "unknown",
            is_gray=image.mode in ("1", "L", "LA"),
            has_alpha=image.has_transparency_data,
        )
        return width, height

    def _open(self, name: str, read: Callable[[Image.Image], Any]) -> Any:
        try:
            with image_codec.opened(self.folder / name) as image:
                return read(image)
        except DataError:
            raise
        # Pillow raises SyntaxError for a broken chunk, DecompressionBombError for a false size.
        except Exception as error:
            raise DataError(f"{self.folder / name} cannot be decoded: {error}") from error
