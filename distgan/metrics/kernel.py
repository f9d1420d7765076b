"""Kernel distance (KID, Bińkowski et al. 2018): the squared maximum mean discrepancy under k(x, y)
= (x.y / d + 1)^3, by its unbiased estimator over all pairs.

    mean of k(a, a') over a != a'  +  mean of k(b, b') over b != b'  -  2 mean of k(a, b)

It has no bias at any number of samples, hence is the number to look at where a Fréchet distance is
mostly bias (300 images of 2,048 features). Nothing is drawn: the usual code takes 100 random
subsets of 1,000 and gives another number every time, and none for 876 images.

Near equal distributions the estimate is not normal: it is the squared length of D = difference of
the means + noise, less what noise alone is long, and noise alone gives a weighted sum of squares.
The interval follows that law. It holds the distances d under which the estimate is no surprise,
2.5 % at either side, where a set of distance d gives d + 2 sqrt(d) (noise along D) + (noise)^2, and
noise has the covariances of the samples (Gaussian multipliers of the centred kernel matrix without
its diagonal, whose squares are unbiased; Sutherland et al. 2017 on the variance).
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional as F

from distgan.core import rng
from distgan.metrics.frechet import require
from distgan.metrics.pairs import Comparison, Pairs

LEAST = 3  # rows of a set
DRAWS = 1000  # of noise
MOST = 1000  # rows of a set by which the noise is known
FEWEST = 20  # rows of a set from which on the interval holds what it says
MISS = 0.05
ALIKE = 0.005  # a smaller estimate is less likely than this of independent draws
_ALIKE = (
    "the sets are more alike than independent draws are (equal numbers of each class, or images"
    " that are in both?)"
)
_TINY = 1e-300


@dataclass(frozen=True)
class Distance:
    """`value`, its standard deviation over new samples, and an interval of 95 % for the distance
    of the distributions, which is never below 0; None where none holds that, and `why`.
    """

    value: float
    sd: float
    interval: tuple[float, float] | None
    why: str | None = None


def distance(
    a: torch.Tensor, b: torch.Tensor, strata: tuple[np.ndarray, np.ndarray] | None = None
) -> Distance:
    """Between features a [n, d] and b [m, d], n, m >= 3. ValueError as of `frechet.require`.

    `strata`: the classes of the rows of both, where each set has as many of a class as were asked
    for, and not as many as chance gave it.
    """
    require(a, b, "a kernel distance", LEAST)
    parts = [(x, torch.arange(len(x))) for x in (a, b)]
    return of_pairs(Pairs(parts, [Comparison((0,), (1,))]).compute(), 0, strata)


def of_pairs(
    pairs: Pairs, number: int, strata: tuple[np.ndarray, np.ndarray] | None = None
) -> Distance:
    """Return the distance of one of the comparisons of `pairs`; `strata`: see `distance`."""
    sums, one = pairs.sums(number), pairs.comparisons[number]
    own, other, across, back = (x.numpy() for x in (sums.own, sums.other, sums.across, sums.back))
    n, m = len(own), len(other)
    value = own.sum() / (n * (n - 1)) + other.sum() / (m * (m - 1)) - 2 * across.sum() / (n * m)
    a, b = strata or (np.zeros(n, np.int64), np.zeros(m, np.int64))
    groups = np.unique(np.concatenate([a, b + a.max() + 1]), return_inverse=True)[1]
    # What each row adds to the estimate when it moves along the difference of the means.
    along = np.concatenate([own / (n - 1) - across / m, other / (m - 1) - back / n])
    sizes = np.bincount(groups)
    along -= (np.bincount(groups, along) / sizes)[groups]
    along /= np.repeat([n, -m], [n, m])
    jackknife = 4 * float((along**2 * (sizes / (sizes - 1).clip(1))[groups]).sum())
    rows = [_some(n), _some(m)]
    chosen = np.concatenate([rows[0], rows[1] + n])
    if min(n, m) < FEWEST or min(np.bincount(groups[chosen])) < 4:
        each = ", 4 of each class" if strata else ""
        few = f"needs {FEWEST} images of each set{each}"
        return Distance(float(value), jackknife**0.5, None, few)
    x = torch.cat(
        [
            pairs.rows(union, torch.from_numpy(of)).double()
            for union, of in zip((one.a, one.b), rows, strict=True)
        ]
    )
    of = np.repeat([0, 1], [len(each) for each in rows])
    weights = np.array([1, -1])[of] * (np.array([n, m]) * np.bincount(of))[of] ** -0.5
    noise = _Noise(
        (x @ x.T).div_(x.shape[1]).add_(1).pow_(3),
        torch.from_numpy(groups[chosen]),
        torch.from_numpy(weights),
    )
    return _with_interval(float(value), jackknife, noise, torch.from_numpy(along[chosen]))


def _some(n: int) -> np.ndarray:
    """Return the numbers of MOST rows of n, drawn from all."""
    return np.sort(rng.numpy_generator(0, "metrics/kernel/rows", n).permutation(n)[:MOST])


class _Noise:
    """The law of the squared length of the noise in the difference of the means, less its mean."""

    def __init__(self, kernel: torch.Tensor, groups: torch.Tensor, weights: torch.Tensor):
        sizes, diagonal = torch.bincount(groups).double(), kernel.diagonal().clone()
        kernel.fill_diagonal_(0)
        member = F.one_hot(groups).double()
        rows = member.T @ kernel / sizes[:, None]  # of each column, the mean over rows of a group
        means = rows @ member / sizes
        centred = kernel - rows[groups] - rows[groups].T + means[groups][:, groups]
        scale = (sizes / (sizes - 1)).sqrt()[groups]
        centred *= scale[:, None] * scale
        for group, size in enumerate(sizes.tolist()):  # within a group without the diagonal
            places = torch.nonzero(groups == group)
            part = kernel[places, places.T]
            line, total = part.sum(0), part.sum()
            part -= (line[:, None] + line) / (size - 2) - total / ((size - 1) * (size - 2))
            part.fill_diagonal_(0)
            centred[places, places.T] = part * (size / ((size - 1) * (size - 3)) ** 0.5)
            means[group, group] = total / (size * (size - 1))
        self.length = float((weights.square() * (diagonal - means.diagonal()[groups])).sum())
        centred *= weights[:, None] * weights
        self.variance = 2 * float(centred.square().sum())
        # Pairs of two images of one class are fewer where the numbers of each class are given.
        self.between = 0.0
        for one in (weights > 0, weights < 0):
            share = member[one].mean(0)
            apart = share @ means.diagonal() - share @ means @ share
            self.between += float(weights[one].square().sum() * apart)
        drawn = rng.numpy_generator(0, "metrics/kernel/noise", len(groups))
        self.multipliers = torch.from_numpy(drawn.standard_normal((len(groups), DRAWS)))
        self.draws = (self.multipliers * (centred @ self.multipliers)).sum(0)


def _with_interval(value: float, jackknife: float, noise: _Noise, along: torch.Tensor) -> Distance:
    """Return the distance with the interval of all distances under which it is no surprise."""
    centre = value + noise.between
    if float((noise.draws <= centre).double().mean()) < ALIKE:
        return Distance(value, noise.variance**0.5, None, _ALIKE)
    # The variance that noise along the difference adds for each unit of distance, by two estimates:
    # the difference is known with noise of its own, which both allow for.
    per = max(
        jackknife / max(centre + noise.length, _TINY),
        (jackknife - 2 * noise.variance) / max(centre, _TINY) if centre > 0 else 0,
    )
    line = 2 * along @ noise.multipliers
    line *= (per / max(4 * float(along.square().sum()), _TINY)) ** 0.5

    def expected(root: float) -> float:
        """Share of estimates above this one, of sets of distance root^2."""
        return float((root**2 + root * line + noise.draws >= centre).double().mean())

    most = (abs(centre) + 40 * noise.variance**0.5) ** 0.5 + 10 * per**0.5
    low, high = (_root(expected, share, most) ** 2 for share in (MISS / 2, 1 - MISS / 2))
    variance = max(jackknife - noise.variance, noise.variance) if low else noise.variance
    return Distance(value, variance**0.5, (low, high))


def _root(rising: Callable[[float], float], level: float, most: float) -> float:
    """Return where a rising function reaches `level`, 0 where it is above there."""
    low, high = 0.0, most
    if rising(low) >= level:
        return low
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (low, middle) if rising(middle) >= level else (middle, high)
    return high
