"""Sample grids as PNG files."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from distgan.core.files import write_atomic
from distgan.shards.codecs import image as image_codec

COLUMNS = 8


def grid(images: torch.Tensor, columns: int = COLUMNS) -> np.ndarray:
    """Arrange uint8 [n, channels, height, width] on one sheet, with gray lines between.

    Return uint8 [rows * (height + 1) + 1, columns * (width + 1) + 1, channels].
    """
    n, channels, height, width = images.shape
    rows = -(-n // columns)
    sheet = np.full((rows * (height + 1) + 1, columns * (width + 1) + 1, channels), 64, np.uint8)
    for i, image in enumerate(images.permute(0, 2, 3, 1).cpu().numpy()):
        y, x = (i // columns) * (height + 1) + 1, (i % columns) * (width + 1) + 1
        sheet[y : y + height, x : x + width] = image
    return sheet


def save_grid(path: Path, images: torch.Tensor, columns: int = COLUMNS) -> None:
    """Write images as one PNG file, whole or not at all; DiskError."""
    sheet = grid(images, columns)
    image = Image.fromarray(sheet[:, :, 0] if sheet.shape[2] == 1 else sheet)
    write_atomic(path, lambda file: image.save(file, format="PNG"))


def load(paths: list[Path]) -> torch.Tensor:
    """Read pictures of one size as uint8 [n, channels, height, width]."""
    arrays = []
    for path in paths:
        with image_codec.opened(path, ("PNG",)) as image:
            arrays.append(np.asarray(image))
    return torch.from_numpy(
        np.stack([array.reshape(*array.shape[:2], -1) for array in arrays])
    ).permute(0, 3, 1, 2)
