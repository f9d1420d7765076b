"""Sliced Wasserstein distance of pixels, or of vectors in their units: a companion that needs no
network and no weights, so it is the same number everywhere.

Images are averaged down to 64 x 64 and projected on 256 fixed directions of length 1 (Bonneel et
al. 2015). Along one direction the optimal transport between two sets is the order of their values.
The distance is the root of the mean, over directions, of the squared Wasserstein-2 distances, in
grey levels of 255: moving all pixels of all images by noise-like patterns of root mean square r
gives about r. It sees colours, contrast and layout, and is blind to what a network sees in shapes.
"""

import torch
from torch.nn import functional as F

from distgan.core import rng

DIRECTIONS = 256
SIDE = 64


class Projections:
    """uint8 [batch, 1 or 3, height, width], or vectors float32 [batch, d] -> float32 [batch, 256].

    Gray is repeated to three channels, smaller images are enlarged by repeating pixels.
    """

    def __init__(self) -> None:
        self._directions: torch.Tensor | None = None

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        x = images.contiguous().float()
        if x.ndim == 4:
            x = F.adaptive_avg_pool2d(x, SIDE).expand(-1, 3, -1, -1).flatten(1)
        if self._directions is None:
            drawn = rng.normal(0, "metrics/sliced", 0, (x.shape[1], DIRECTIONS))
            self._directions = (drawn / drawn.norm(dim=0)).to(x.device)
        return x @ self._directions


def distance(a: torch.Tensor, b: torch.Tensor) -> float:
    """Between projections [n, k] and [m, k].

    Exact also for n != m, where a value is worth 1/n or 1/m. ValueError for none, or others.
    """
    if min(len(a), len(b)) < 1 or a.shape[1:] != b.shape[1:]:
        raise ValueError(
            "a sliced distance needs two sets of images of one shape, found projections"
            f" {tuple(a.shape)} and {tuple(b.shape)}"
        )
    n, m = len(a), len(b)
    a, b = a.double().sort(0).values, b.double().sort(0).values
    # Both quantile functions are steps: between two neighbours of these places, both are constant.
    places = torch.cat(
        [torch.arange(1, n + 1) * m, torch.arange(1, m + 1) * n]
    ).unique()  # in units of 1 / (n m), exact
    width = torch.diff(places, prepend=torch.zeros(1, dtype=places.dtype)).double() / (n * m)
    first, second = a[(places - 1) // m], b[(places - 1) // n]
    return float(((first - second).square() * width[:, None]).sum(0).mean().sqrt())
