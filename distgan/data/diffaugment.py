"""Augment the input of D differentiably, reals and samples, in D's update and in G's (Zhao et al.
2020, DiffAugment).

Augmenting reals alone would teach G to draw augmented images. Here both are augmented, and G's
gradient flows back through it. Images are [batch, channels, height, width] in [-1, 1],
waves [batch, channels, frames]. `address` is int64 [batch], one number per sample, so that it is
changed in the same way in any micro-batch and on any rank; another `purpose` draws other changes at
the same addresses.
"""

from collections.abc import Callable
from functools import partial
from typing import Literal

import numpy as np
import torch

from distgan.core import rng
from distgan.data import transforms

ImagePolicy = Literal["color", "translation", "cutout"]
WavePolicy = Literal["gain", "polarity", "shift", "mask", "noise"]
SHIFT = 1 / 8  # largest shift, relative to the size of an image or the length of a wave
CUTOUT = 1 / 2  # sides of the square that is cut out of an image
MASK = 1 / 8  # longest silence, relative to the length of a wave
GAIN_DB = 6.0  # largest gain of a wave, up and down
NOISE = 0.01  # largest standard deviation of the noise put on waves; full scale is 1

Draw = Callable[[str], torch.Tensor]  # name -> [batch, 1, …] in [0, 1)


def images(
    x: torch.Tensor, policies: tuple[ImagePolicy, ...], seed: int, purpose: str, address: np.ndarray
) -> torch.Tensor:
    """Apply the policies to `x`, in the order: color, translation, cutout.

    Returns `x` itself where there are none.
    """
    for name, change in (("color", colour), ("translation", translate), ("cutout", cut_out)):
        if name in policies:
            x = change(x, partial(column, x, seed, purpose, address))
    return x


def waves(
    x: torch.Tensor, policies: tuple[WavePolicy, ...], seed: int, purpose: str, address: np.ndarray
) -> torch.Tensor:
    """Apply the policies to sound, in the order: gain, polarity, shift, mask, noise.

    All channels of a sample are changed alike, but for noise, which is drawn for each channel. Two
    tensors with the same purpose and address are changed alike.
    """
    for name, change in (
        ("gain", _louder),
        ("polarity", _turn_over),
        ("shift", _delay),
        ("mask", _silence),
    ):
        if name in policies:
            x = change(x, partial(column, x, seed, purpose, address))
    if "noise" in policies:
        drawn = transforms.to_device_async(
            rng.normal_each(seed, f"{purpose}/noise", address, tuple(x.shape[1:])).to(x.dtype),
            x.device,
        )
        x = x + NOISE * column(x, seed, purpose, address, "level") * drawn
    return x


# ---- images
def colour(x: torch.Tensor, draw: Draw) -> torch.Tensor:
    """Change brightness by ± 0.5, saturation by a factor of 0 to 2, contrast by 0.5 to 1.5.

    Not clipped, which would stop gradients.
    """
    x = x + (draw("brightness") - 0.5)
    gray = x.mean(1, keepdim=True)
    x = gray + (x - gray) * (draw("saturation") * 2)
    mean = x.mean((1, 2, 3), keepdim=True)
    return mean + (x - mean) * (draw("contrast") + 0.5)


def translate(x: torch.Tensor, draw: Draw) -> torch.Tensor:
    """Shift by whole pixels, down and right; zeros fill the gap."""
    for axis, name in ((2, "down"), (3, "right")):
        most = int(x.shape[axis] * SHIFT + 0.5)
        x = _shifted(x, axis, _whole(draw(name), -most, most))
    return x


def cut_out(x: torch.Tensor, draw: Draw) -> torch.Tensor:
    """Set a rectangle of half the height and width to zero, with its centre anywhere in the image.

    Part of it may lie outside.
    """
    inside = torch.ones((), dtype=torch.bool, device=x.device)
    for axis, name in ((2, "row"), (3, "column")):
        size = x.shape[axis]
        side = int(size * CUTOUT + 0.5)
        start = _whole(draw(name), 0, size - side % 2) - side // 2
        inside = inside & _between(size, axis, x, start, start + side)
    return torch.where(inside, 0.0, x)


# ---- waves
def _louder(x: torch.Tensor, draw: Draw) -> torch.Tensor:
    return x * 10 ** ((2 * draw("gain") - 1) * (GAIN_DB / 20))


def _turn_over(x: torch.Tensor, draw: Draw) -> torch.Tensor:
    return torch.where(draw("polarity") < 0.5, -x, x)


def _delay(x: torch.Tensor, draw: Draw) -> torch.Tensor:
    """Shift by whole frames, later or earlier; silence fills the gap."""
    most = int(x.shape[2] * SHIFT + 0.5)
    return _shifted(x, 2, _whole(draw("shift"), -most, most))


def _silence(x: torch.Tensor, draw: Draw) -> torch.Tensor:
    """Silence 0 to `MASK` of the length, anywhere."""
    frames = x.shape[2]
    length = _whole(draw("mask_length"), 0, int(frames * MASK + 0.5))
    start = (draw("mask_start") * (frames - length + 1)).long()
    return torch.where(_between(frames, 2, x, start, start + length), 0.0, x)


# ---- helpers
def column(
    x: torch.Tensor, seed: int, purpose: str, address: np.ndarray, name: str
) -> torch.Tensor:
    """Draw [batch, 1, …] in [0, 1), of the type and on the device of `x`."""
    values = torch.from_numpy(rng.uniform(seed, f"{purpose}/{name}", address))
    return transforms.to_device_async(values.to(x.dtype), x.device).reshape(-1, *[1] * (x.ndim - 1))


def _whole(share: torch.Tensor, low: int, high: int) -> torch.Tensor:
    """Map [0, 1) to whole numbers from `low` to `high`, both included."""
    # float32 may have rounded a number up to 1.
    return (share * (high - low + 1)).long().clamp_max_(high - low) + low


def _shifted(x: torch.Tensor, axis: int, by: torch.Tensor) -> torch.Tensor:
    """Return `x` moved along `axis` by [batch, 1, …] places; zeros fill the gap."""
    size = x.shape[axis]
    shape = [1] * x.ndim
    shape[axis] = size
    source = torch.arange(size, device=x.device).reshape(shape) - by
    moved = x.gather(axis, source.clamp(0, size - 1).expand_as(x))
    return torch.where((source >= 0) & (source < size), moved, 0.0)


def _between(
    size: int, axis: int, x: torch.Tensor, start: torch.Tensor, end: torch.Tensor
) -> torch.Tensor:
    """Return true at the places start <= i < end of `axis`."""
    shape = [1] * x.ndim
    shape[axis] = size
    place = torch.arange(size, device=x.device).reshape(shape)
    return (place >= start) & (place < end)
