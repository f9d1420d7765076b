"""Resize images to Inception's input, 299 x 299, by one of four methods in use, each equal to its
package. Scores of two methods must never be compared.

    bilinear     corners not aligned, not antialiased, in [-1, 1]: pytorch-fid; the default
    clean        Pillow's bicubic, antialiased, in floats, (x - 128) / 128: clean-fid (Parmar et al.
                 2022)
    tensorflow   bilinear as in TensorFlow 1, shifted by part of a pixel, (x - 128) / 128:
                 torch-fidelity, the original code
    antialiased  bilinear, antialiased, (x - 128) / 128: torchmetrics since 1.9

Each takes uint8 [batch, 1 or 3, height, width] and returns float32 [batch, 3, 299, 299]. Gray is
repeated to three channels.
"""

import numpy as np
import torch
from PIL import Image
from torch.nn import functional as F

SIDE = 299
METHODS = ("bilinear", "clean", "tensorflow", "antialiased")


def prepare(images: torch.Tensor, method: str) -> torch.Tensor:
    """Resize by one of METHODS. ValueError unless `images` is a batch of 8-bit images."""
    if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] not in (1, 3):
        raise ValueError(
            "images are uint8 [batch, 1 or 3, height, width], found"
            f" {str(images.dtype).removeprefix('torch.')} {list(images.shape)}"
        )
    x = {
        "bilinear": _bilinear,
        "clean": _clean,
        "tensorflow": _tensorflow,
        "antialiased": _antialiased,
    }[method](images.contiguous())  # another memory layout takes kernels that round differently
    return x.expand(-1, 3, -1, -1)


def _three(images: torch.Tensor) -> torch.Tensor:
    """Repeat gray before resizing: torch rounds one channel differently from three."""
    return images.float().expand(-1, 3, -1, -1).contiguous()


def _bilinear(images: torch.Tensor) -> torch.Tensor:
    return (
        2
        * F.interpolate(
            _three(images).div(255), size=(SIDE, SIDE), mode="bilinear", align_corners=False
        )
        - 1
    )


def _antialiased(images: torch.Tensor) -> torch.Tensor:
    return (
        F.interpolate(
            _three(images), size=(SIDE, SIDE), mode="bilinear", align_corners=False, antialias=True
        )
        - 128
    ) / 128


def _clean(images: torch.Tensor) -> torch.Tensor:
    planes = images.cpu().numpy().reshape(-1, *images.shape[2:]).astype(np.float32)
    resized = np.stack(
        [
            np.asarray(Image.fromarray(plane).resize((SIDE, SIDE), Image.Resampling.BICUBIC))
            for plane in planes
        ]
    ).clip(0, 255)
    return ((torch.from_numpy(resized).reshape(len(images), -1, SIDE, SIDE) - 128) / 128).to(
        images.device
    )


def _tensorflow(images: torch.Tensor) -> torch.Tensor:
    """Take pixel i of n from i * in / n: from its corner instead of its centre."""

    def positions(size: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        position = torch.arange(SIDE, dtype=torch.float32) * (
            torch.tensor(size, dtype=torch.float32) / SIDE
        )
        low = position.floor()
        return (
            low.long().to(images.device),
            (low.long() + 1).clamp_max(size - 1).to(images.device),
            (position - low).to(images.device),
        )

    x = images.float()
    (top, bottom, down), (left, right, along) = positions(x.shape[2]), positions(x.shape[3])
    rows = x[..., left] + (x[..., right] - x[..., left]) * along
    return (
        rows[..., top, :] + (rows[..., bottom, :] - rows[..., top, :]) * down[:, None] - 128
    ) / 128
