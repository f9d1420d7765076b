"""Images resized as `distgan shard images` resizes them."""

import numpy as np
import torch
from PIL import Image

from distgan.shards.codecs.fitting import Resize, to_size

FILTERS = {
    "crop": "centred square, Pillow's Lanczos, antialiased",
    "squash": "squashed to a square, Pillow's Lanczos, antialiased",
}


def resized(images: torch.Tensor, resize: Resize) -> torch.Tensor:
    """Return uint8 [n, channels, size, size] of uint8 [n, 1 or 3, height, width]."""
    pixels = images.cpu().permute(0, 2, 3, 1).numpy()
    gray = pixels.shape[3] == 1
    out = [
        np.asarray(
            to_size(Image.fromarray(one[:, :, 0] if gray else np.ascontiguousarray(one)), *resize)
        )
        for one in pixels
    ]
    stacked = np.stack(out)
    return torch.from_numpy(stacked[..., None] if gray else stacked).permute(0, 3, 1, 2)
