"""Convert and augment batches. Random choices are drawn per sample, from its own address (`rng`).

`address` is int64 [batch], one number per (epoch, sample): a sample is changed in the same way in
any batch, on any rank, after any restart. Images are float [batch, channels, height, width] in [-1,
1], pairs of them [batch, 2, channels, height, width], pairs of signals float [batch, 2, frames]:
input, then target.
"""

import math

import numpy as np
import torch
from torch.nn import functional as F

from distgan.core import rng


def to_device_async(values: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Copy to the device without waiting for it.

    A copy from ordinary memory would wait for all kernels that a GPU has queued.
    """
    if device.type == "cuda":
        return values.pin_memory().to(device, non_blocking=True)
    return values.to(device)


def to_unit(images: torch.Tensor, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Convert uint8 images, or pairs of them, to `dtype` in [-1, 1]."""
    return images.to(dtype).div_(127.5).sub_(1)


def to_bytes(images: torch.Tensor) -> torch.Tensor:
    """Convert floats in [-1, 1] to uint8 as in a PNG file.

    Rounded to the nearest level, clipped.
    """
    return images.add(1).mul(127.5).round().clamp(0, 255).to(torch.uint8)


def flip(
    images: torch.Tensor, seed: int, address: np.ndarray, horizontal: float, vertical: float
) -> torch.Tensor:
    """Mirror each image, or both of a pair, left-right and top-bottom with the given
    probabilities.
    """
    for purpose, chance, axis in (
        ("augment/hflip", horizontal, -1),
        ("augment/vflip", vertical, -2),
    ):
        chosen = to_device_async(
            torch.from_numpy(rng.uniform(seed, purpose, address) < chance), images.device
        )
        mask = chosen.reshape(-1, *[1] * (images.ndim - 1))
        images = torch.where(mask, images.flip(axis), images)
    return images


def affine(
    images: torch.Tensor, seed: int, address: np.ndarray, degrees: float, shift: float
) -> torch.Tensor:
    """Turn each image by up to ±degrees about its centre and shift it by up to ±`shift` of its
    width and height, bilinear.

    What comes in from outside is the mirror image of the inside: a filling of one colour would be
    learned as part of the pictures.
    """
    turn, right, down = (
        _between(seed, f"augment/{name}", address, -limit, limit)
        for name, limit in (
            ("turn", math.radians(degrees)),
            ("right", 2 * shift),
            ("down", 2 * shift),
        )
    )
    # Rows of the map from places in the new image to places in the old one, both in [-1, 1]; turned
    # in pixels, so that wide images stay unskewed.
    height, width = images.shape[2:]
    rows = [
        [turn.cos(), -turn.sin() * height / width, -right],
        [turn.sin() * width / height, turn.cos(), -down],
    ]
    map_back = to_device_async(
        torch.stack([torch.stack(row, 1) for row in rows], 1).to(images.dtype), images.device
    )
    grid = F.affine_grid(map_back, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, padding_mode="reflection", align_corners=False)


def colour_jitter(
    images: torch.Tensor,
    seed: int,
    address: np.ndarray,
    brightness: float,
    contrast: float,
    saturation: float,
) -> torch.Tensor:
    """Change brightness, then contrast, then saturation by factors of 1 ± each strength, clipped to
    the range after each. What has strength 0 is left as it is.
    """

    def factor(name: str, strength: float) -> torch.Tensor:
        return _column(
            _between(seed, f"augment/{name}", address, 1 - strength, 1 + strength), images
        )

    if brightness:
        images = ((images + 1) * factor("brightness", brightness) - 1).clamp(-1, 1)
    if contrast:
        mean = images.mean((1, 2, 3), keepdim=True)
        images = (mean + (images - mean) * factor("contrast", contrast)).clamp(-1, 1)
    if saturation:
        gray = images.mean(1, keepdim=True)
        images = (gray + (images - gray) * factor("saturation", saturation)).clamp(-1, 1)
    return images


def to_waves(pairs: torch.Tensor, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Convert int16 [batch, 2, frames] to `dtype` in [-1, 1); floats only change their type."""
    return pairs.to(dtype) / 32768 if pairs.dtype == torch.int16 else pairs.to(dtype)


def gain(
    pairs: torch.Tensor, seed: int, address: np.ndarray, low: float, high: float
) -> torch.Tensor:
    """Multiply both signals of a pair by one factor between `low` and `high`."""
    return pairs * _column(_between(seed, "augment/gain", address, low, high), pairs)


def polarity(pairs: torch.Tensor, seed: int, address: np.ndarray, chance: float) -> torch.Tensor:
    """Invert both signals of a pair, with probability `chance`."""
    chosen = torch.from_numpy(rng.uniform(seed, "augment/polarity", address) < chance)
    return pairs * _column(1 - 2 * chosen.double(), pairs)


def shift(pairs: torch.Tensor, seed: int, address: np.ndarray, fraction: float) -> torch.Tensor:
    """Shift both signals of a pair by the same number of frames, up to ±fraction of the length.

    The value at the edge fills the gap.
    """
    frames = pairs.shape[2]
    late = _between(seed, "augment/shift", address, -fraction, fraction).mul(frames).round().long()
    source = to_device_async(
        (torch.arange(frames) - late[:, None]).clamp(0, frames - 1), pairs.device
    )
    return pairs.gather(2, source[:, None].expand(-1, pairs.shape[1], -1))


def input_noise(pairs: torch.Tensor, seed: int, address: np.ndarray, std: float) -> torch.Tensor:
    """Add white noise of standard deviation `std` to the input, not to the target."""
    noise = to_device_async(
        rng.normal_each(seed, "augment/noise", address, pairs.shape[2:]).to(pairs.dtype),
        pairs.device,
    )
    return torch.stack([pairs[:, 0] + std * noise, pairs[:, 1]], 1)


def _between(seed: int, purpose: str, address: np.ndarray, low: float, high: float) -> torch.Tensor:
    """Draw float64 [batch], uniform in [low, high)."""
    return torch.from_numpy(low + (high - low) * rng.uniform(seed, purpose, address))


def _column(values: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """Return [batch] as [batch, 1, …], to be multiplied with `like`."""
    return to_device_async(values.to(like.dtype), like.device).reshape(-1, *[1] * (like.ndim - 1))
