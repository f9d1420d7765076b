"""Operations of adaptive augmentation (Karras et al. 2020, ADA), on all that D sees.

As in `data/diffaugment.py`, of whose policies three are operations here, but each operation is
applied to an image only with the probability `strength`: its own draw, at the image's address, lies
below it. Below a certain strength G cannot learn to draw augmented images, as the originals remain
the most frequent. Differentiable once; `strength` stays on the device.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Literal

import numpy as np
import torch
from torch.nn import functional

from distgan.data import diffaugment
from distgan.data.diffaugment import Draw

Operation = Literal["flip", "turn", "translation", "geometry", "color", "cutout"]
SCALE = 0.5  # largest change of size, in octaves


def images(
    x: torch.Tensor,
    operations: tuple[Operation, ...],
    strength: torch.Tensor,
    seed: int,
    purpose: str,
    address: np.ndarray,
) -> torch.Tensor:
    """Apply each of the operations to a share `strength` of the images, in the order of `CHANGES`.

    `x` is [batch, channels, height, width] in [-1, 1], `address` int64 [batch].
    """
    for name, change in CHANGES.items():
        if name in operations:
            draw = partial(diffaugment.column, x, seed, f"{purpose}/{name}", address)
            x = torch.where(draw("gate") < strength, change(x, draw), x)
    return x


def _flip(x: torch.Tensor, draw: Draw) -> torch.Tensor:
    return x.flip(3)


def _turn(x: torch.Tensor, draw: Draw) -> torch.Tensor:
    """Turn by 90, 180 or 270 degrees; images that are not square by 180."""
    half = x.flip(2, 3)
    if x.shape[2] != x.shape[3]:
        return half
    quarter, which = x.transpose(2, 3).flip(2), draw("quarters")
    return torch.where(which < 1 / 3, quarter, torch.where(which < 2 / 3, half, quarter.flip(2, 3)))


def _geometry(x: torch.Tensor, draw: Draw) -> torch.Tensor:
    """Turn by any angle and change the size by up to `SCALE` octaves, about the centre.

    Bilinear; what lies outside is mirrored in.
    """
    angle = draw("angle").reshape(-1) * (2 * math.pi)
    zoom = torch.exp2((2 * draw("scale").reshape(-1) - 1) * SCALE)
    cos, sin, zero = zoom * angle.cos(), zoom * angle.sin(), torch.zeros_like(zoom)
    ratio = x.shape[2] / x.shape[3]  # the grid's unit is half a side
    rows = (torch.stack([cos, -sin * ratio, zero], 1), torch.stack([sin / ratio, cos, zero], 1))
    grid = functional.affine_grid(torch.stack(rows, 1), list(x.shape), align_corners=False)
    return functional.grid_sample(x, grid, padding_mode="reflection", align_corners=False)


CHANGES: dict[str, Callable[[torch.Tensor, Draw], torch.Tensor]] = {
    "flip": _flip,
    "turn": _turn,
    "translation": diffaugment.translate,
    "geometry": _geometry,
    "color": diffaugment.colour,
    "cutout": diffaugment.cut_out,
}
