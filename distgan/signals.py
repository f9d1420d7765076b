"""Augmentation and conversion: arrays in, arrays out. Random choices are drawn per sample from its own address (see `draws`)."""

import numpy as np
import torch

from distgan import draws


def to_unit(images: torch.Tensor, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """uint8 [batch, channels, height, width] -> `dtype` in [-1, 1]."""
    return images.to(dtype).div_(127.5).sub_(1)


def to_bytes(images: torch.Tensor) -> torch.Tensor:
    """float in [-1, 1] -> uint8, rounded to the nearest level and clipped: what a PNG file would hold."""
    return images.add(1).mul(127.5).round().clamp(0, 255).to(torch.uint8)


def flip(images: torch.Tensor, seed: int, address: np.ndarray, horizontal: float, vertical: float) -> torch.Tensor:
    """Mirror each image left-right and top-bottom with the given probabilities. address: [batch] int64, one per (epoch, sample)."""
    for purpose, chance, axis in (("augment/hflip", horizontal, 3), ("augment/vflip", vertical, 2)):
        chosen = torch.from_numpy(draws.uniform(seed, purpose, address) < chance).to(images.device)
        images = torch.where(chosen[:, None, None, None], images.flip(axis), images)
    return images
