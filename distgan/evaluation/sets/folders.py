"""Image files in a folder, decoded on demand."""

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from distgan.core.errors import DataError
from distgan.core.file_tree import Contents, find_files
from distgan.core.files import cache_folder
from distgan.evaluation.sets.traits import Traits
from distgan.shards.codecs import image as image_codec
from distgan.shards.codecs import image_files
from distgan.shards.codecs.fitting import Resize, to_size


class FolderImages:
    """Image files in a folder, at any depth, as RGB; of several sizes only with `resize`.

    They are in the order of the SHA-256 of their contents: the same files under other names, such
    as sorted by class, are the same set.
    """

    kind = "image"

    def __init__(self, folder: Path, resize: Resize | None = None):
        self.folder, self.name, self._resize = folder, str(folder), resize
        self.statistics_folder = cache_folder() / "statistics"
        names, others = find_files(folder, image_files.EXTENSIONS)
        if not names:
            raise DataError(
                f"{folder} holds no images ({', '.join(image_files.EXTENSIONS)}); it holds"
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
        """Return images as `distgan shard images` reads their files (`shards.codecs.image_files`).

        Gray is repeated, as pytorch-fid does.
        """
        images = [self._open(self.files[i], self._pixels) for i in numbers]
        return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)

    def _pixels(self, path: Path) -> np.ndarray:
        image, _ = image_files.picture(path)
        return image_files.as_bytes(to_size(image, *self._resize) if self._resize else image, 3)

    def _examine(self, path: Path) -> tuple[int, int]:
        """Count what the header says; return width and height as decoded."""
        with image_codec.opened(path) as image:
            header = image_files.header_of(image)
            self.traits.count(
                (header.width, header.height),
                image.format or "unknown",
                is_gray=header.is_gray,
                has_alpha=image.has_transparency_data,
                space=header.space,
            )
        return header.width, header.height

    def _open(self, name: str, read: Callable[[Path], Any]) -> Any:
        try:
            return read(self.folder / name)
        except DataError:
            raise
        # Pillow raises SyntaxError for a broken chunk, DecompressionBombError for a false size.
        except Exception as error:
            raise DataError(f"{self.folder / name} cannot be decoded: {error}") from error
