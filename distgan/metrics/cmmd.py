"""CMMD (Jayasumana et al. 2024): the squared maximum mean discrepancy of embeddings of length 1
under the Gaussian kernel exp(-|x - y|^2 / (2 s^2)), s = 10, times 1,000. The mean over all pairs,
each embedding with itself included, as in the published code.
"""

import torch

from distgan.metrics.frechet import require

SIGMA, SCALE = 10.0, 1000.0
ROWS = 1024


def distance(a: torch.Tensor, b: torch.Tensor) -> float:
    """Return CMMD of embeddings a [n, d] and b [m, d], n, m >= 2, in float64."""
    require(a, b, "CMMD")
    return SCALE * (_mean(a, a) + _mean(b, b) - 2 * _mean(a, b))


def _mean(a: torch.Tensor, b: torch.Tensor) -> float:
    """Return the mean of the kernel over all pairs, less 1: what is left does not cancel."""
    total = torch.zeros((), dtype=torch.float64)
    for part in a.split(ROWS):
        for other in b.split(ROWS):
            squares = torch.cdist(part.double(), other.double()).square()
            total += torch.expm1(squares / (-2 * SIGMA**2)).sum()
    return float(total) / (len(a) * len(b))
