"""Fréchet distance (FID, on Inception features) between the Gaussians that have the means and
covariances of two sets (Dowson and Landau 1982; Heusel et al. 2017, eq. 6).

    |m1 - m2|^2 + tr S1 + tr S2 - 2 tr sqrt(S1 S2)

tr sqrt(S1 S2) is the sum of the singular values of F1 F2^T for any factors with S = F^T F, so no
square root of a matrix is taken, and nothing can turn complex. The usual code forms S1 S2, which
squares the singular values: what is 0 becomes 1e-12 and its root 1e-6, for every missing rank.

The factor is, with the rows of a set centred and divided by sqrt(n - 1): these rows, where n <= d;
R of their QR decomposition, where n is more; and the Cholesky factor of the covariance, where n > 2
d and the covariances turn out to be conditioned well enough for 1e-10.
"""

import functools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch

from distgan.core import rng

ROWS = 1024  # rows that are held in float64 at once
RESAMPLED = 1000  # samples up to which there is a bootstrap
_EXACT = 1e-10  # of the variances: the faster way is taken where its rounding cannot be more


@dataclass(frozen=True)
class Moments:
    """Mean [d] and covariance [d, d] (divisor n - 1) of n samples, float64."""

    n: int
    mean: torch.Tensor
    cov: torch.Tensor


def distance(a: torch.Tensor, b: torch.Tensor) -> float:
    """Between features a [n, d] and b [m, d].

    ValueError for fewer than 2 rows, other widths or values that are not finite.
    """
    require(a, b)
    d = a.shape[1]
    if min(len(a), len(b)) > 2 * d:
        return of_moments(moments(a), moments(b), lambda: (_factor(a), _factor(b)), spent=True)
    shift, first, second = _mean(a) - _mean(b), _factor(a), _factor(b)
    variances = float(first.square().sum()), float(second.square().sum())
    return _put_together(shift, *variances, _singular(first, second))


def of_moments(
    a: Moments,
    b: Moments,
    factors: Callable[[], tuple[torch.Tensor, torch.Tensor]] | None = None,
    spent: bool = False,
) -> float:
    """The same from moments alone. `factors`: how to get exact factors of both where the
    covariances are conditioned badly, if the samples are at hand; with `spent` they are what is
    then used, and the covariances may be written over.
    """
    for x in (a, b):
        if x.n < 2:
            raise ValueError(f"a Fréchet distance needs moments of at least 2 samples, found {x.n}")
        if not (torch.isfinite(x.mean).all() and torch.isfinite(x.cov).all()):
            raise ValueError("moments are not finite: features were not, or are too large")
    if len(a.mean) != len(b.mean):
        raise ValueError(
            f"moments of {len(a.mean)} and of {len(b.mean)} features cannot be compared"
        )
    variances = float(a.cov.trace()), float(b.cov.trace())
    cross = _by_cholesky(a.cov, b.cov, sum(variances), spent)
    if cross is None:
        cross = _singular(*(factors() if factors else (_root(x.cov) for x in (a, b))))
    return _put_together(a.mean - b.mean, *variances, cross)


def moments(x: torch.Tensor) -> Moments:
    """Return the moments of features [n, d], n >= 2.

    Computed in float64 over a part of the rows at a time, and only for the blocks of the covariance
    on and above its diagonal.
    """
    n, d = x.shape
    mean, cov = _mean(x), torch.zeros(d, d, dtype=torch.float64)
    for part in x.split(ROWS):
        add_products(cov, part.double() - mean)
    return Moments(n, mean, mirrored(cov).div_(n - 1))


def add_products(total: torch.Tensor, rows: torch.Tensor) -> None:
    """total += rows^T rows, in blocks of columns on and above the diagonal.

    What lies below the blocks is left alone.
    """
    d = len(total)
    step = max(-(-d // 8), 64)
    for i in range(0, d, step):
        total[i : i + step, i:].addmm_(rows[:, i : i + step].T, rows[:, i:])


def mirrored(total: torch.Tensor) -> torch.Tensor:
    """The symmetric matrix whose upper half this is."""
    total = total.triu()
    return total.add_(total.triu(1).T)


def spread(
    a: torch.Tensor,
    b: torch.Tensor,
    seed: int,
    strata: torch.Tensor | None = None,
    times: int = 50,
) -> tuple[float | None, str]:
    """(Standard deviation of the distance over sets b of new samples, a being fixed; how it was
    found); (None, the reason) where neither way serves.

    By the delta method where there are many samples and both covariances have full rank, by halves
    for few samples. `strata` [len(b)]: the classes of b, where their numbers were given. The
    bootstrap is 1.5 to 2 times too large for fewer samples than features: a set drawn with
    replacement has fewer different members.
    """
    n, d = min(len(a), len(b)), a.shape[1]
    if n > 2 * d and (found := _delta(moments(a), moments(b), b, strata)) is not None:
        return found, "delta method"
    if max(len(a), len(b)) > RESAMPLED:
        return (
            None,
            (
                f"left out: more than {RESAMPLED:,} samples take too long for halves, and the"
                " delta method asks for twice as many as features, and full rank"
            ),
        )
    half = len(b) // 2
    if half < 2:
        return None, "needs 4 samples"
    squares = []
    for i in range(times):
        order = rng.numpy_generator(seed, "metrics/halves", i).permutation(len(b))
        if strata is not None:  # as many of each class in either half
            order = order[strata.numpy()[order].argsort(kind="stable")]
        halves = (b[torch.from_numpy(order[start::2][:half])] for start in (0, 1))
        first, second = (distance(a, x) for x in halves)
        squares.append((first - second) ** 2)
    # Halves are independent: their difference has twice the variance of one, and that of all
    # samples is less by the number of samples.
    return (
        (sum(squares) / times / 2 * half / len(b)) ** 0.5,
        f"differences of disjoint halves of the samples, {times} times",
    )


def _delta(a: Moments, b: Moments, rows: torch.Tensor, strata: torch.Tensor | None) -> float | None:
    """Standard deviation of the distance's first-order change: 2 (mb - ma).u + u^T (1 - T) u for
    each row, u = row - mb, with the optimal map T = L (L^T Sb L)^(-1/2) L^T, Sa = L L^T. None where
    a covariance is singular.
    """
    lower, failed = torch.linalg.cholesky_ex(a.cov)
    if failed:
        return None
    product = lower.T @ b.cov @ lower
    values, vectors = torch.linalg.eigh((product + product.T) / 2)
    if values[0] <= values[-1] * 1e-12:
        return None
    half = lower @ vectors * values.pow(-0.25)
    found = []
    for part in rows.split(ROWS):
        u = part.double() - b.mean
        found.append(2 * u @ (b.mean - a.mean) + u.square().sum(1) - (u @ half).square().sum(1))
    change = torch.cat(found)
    if strata is not None:  # only what varies within classes
        sizes = torch.bincount(strata)
        change -= (torch.bincount(strata, change) / sizes)[strata]
    return float(change.std()) / b.n**0.5


def at_infinity(
    a: torch.Tensor, b: torch.Tensor, seed: int, points: int = 8
) -> tuple[float | None, str]:
    """(Distance to infinitely many samples, how it was found), by a line through distances at
    several n over 1/n (Chong and Forsyth 2020).

    (None, the reason) below 2 d samples: 1,000 samples of 2,048 features of one distribution were
    taken for 10 apart, where 0 is right.
    """
    n, d = min(len(a), len(b)), a.shape[1]
    if n < 2 * d:
        return (
            None,
            (
                f"not computed: it needs {2 * d} samples and as many real images, twice the"
                f" {d} features, and the smaller set has {n}; below that the line through 1/n"
                " misses by as much as it corrects"
            ),
        )
    order = [
        torch.from_numpy(rng.numpy_generator(seed, "metrics/infinity", i).permutation(len(x)))
        for i, x in enumerate((a, b))
    ]
    sizes = torch.linspace(n / 4, n, points).long().tolist()
    nested = [_nested(x, rows, sizes) for x, rows in zip((a, b), order, strict=True)]
    distances = []
    for k, one, other in zip(sizes, *nested, strict=True):
        parts = a[order[0][:k]], b[order[1][:k]]
        exact = functools.partial(lambda x, y: (_factor(x), _factor(y)), *parts)
        few = k <= 2 * d
        distances.append(distance(*parts) if few else of_moments(one, other, exact))
    found = torch.tensor(distances, dtype=torch.float64)
    ones = torch.stack(
        [torch.ones(points, dtype=torch.float64), 1 / torch.tensor(sizes, dtype=torch.float64)], 1
    )
    fit = torch.linalg.lstsq(ones, found[:, None]).solution[:, 0]
    return (
        float(fit[0]),
        (
            f"line through {points} sizes from {sizes[0]} to {sizes[-1]}, off by"
            f" {float((ones @ fit - found).abs().max()):.2g} at most"
        ),
    )


def _nested(x: torch.Tensor, order: torch.Tensor, sizes: list[int]) -> Iterator[Moments]:
    """Yield the moments of the first n rows in an order, for rising n, reading each row once."""
    middle, done = _mean(x), 0
    total, products = torch.zeros_like(middle), torch.zeros(len(middle), len(middle)).double()
    for n in sizes:
        for rows in order[done:n].split(ROWS):
            part = x[rows].double() - middle
            total += part.sum(0)
            add_products(products, part)
        done, shift = n, total / n
        yield Moments(
            n, middle + shift, (mirrored(products) - n * torch.outer(shift, shift)).div_(n - 1)
        )


def require(
    a: torch.Tensor, b: torch.Tensor, what: str = "a Fréchet distance", least: int = 2
) -> None:
    """ValueError unless both are [n >= least, d] and finite."""
    if a.ndim != 2 or b.ndim != 2 or min(len(a), len(b)) < least or a.shape[1] != b.shape[1]:
        raise ValueError(
            f"{what} needs two sets of at least {least} rows of equal width, found {tuple(a.shape)}"
            f" and {tuple(b.shape)}"
        )
    if not all(torch.isfinite(part).all() for x in (a, b) for part in x.split(ROWS)):
        raise ValueError("features are not finite: the generator or an image is broken")


def _mean(x: torch.Tensor) -> torch.Tensor:
    return sum(part.double().sum(0) for part in x.split(ROWS)) / len(x)


def _factor(x: torch.Tensor) -> torch.Tensor:
    """F [at most d, d] with F^T F the covariance of x [n, d].

    The centred rows, or R of them, put together stretch by stretch.
    """
    mean, scale, rows = _mean(x), (len(x) - 1) ** 0.5, x[:0].double()
    for part in x.split(ROWS):
        part = (part.double() - mean) / scale
        rows = torch.cat([rows, part]) if len(rows) else part
        if len(rows) > x.shape[1]:
            rows = torch.linalg.qr(rows, mode="r").R
    return rows


def _root(cov: torch.Tensor) -> torch.Tensor:
    """F with F^T F = cov, of the eigenvalues above rounding.

    Below it there is nothing but noise, whose roots would add up.
    """
    values, vectors = torch.linalg.eigh(cov)
    keep = values > values[-1].clamp_min(0) * 1e-15
    return values[keep].sqrt()[:, None] * vectors[:, keep].T


def _singular(f: torch.Tensor, g: torch.Tensor) -> float:
    """Sum of the singular values of F G^T."""
    if not (f.numel() and g.numel()):
        return 0.0
    return float(torch.linalg.svdvals(f @ g.T).sum())


def _by_cholesky(
    s: torch.Tensor, t: torch.Tensor, scale: float, spent: bool = False
) -> float | None:
    """tr sqrt(S T) as the sum of the roots of the eigenvalues of L^T T L, with S = L L^T.

    None where it may be wrong by more than _EXACT of `scale`: an eigenvalue is known to within
    `error`, its root to within error / (2 root).
    """
    lower, product = (
        (s, t) if spent else (torch.empty_like(s), torch.empty_like(t))
    )  # 33 MB each for 2,048 features
    failed = torch.empty((), dtype=torch.int32)
    torch.linalg.cholesky_ex(s, out=(lower, failed))
    if failed:
        return None
    torch.mm(lower.T @ t, lower, out=product)
    values = torch.linalg.eigvalsh(product)  # of the symmetric matrix whose lower half this is
    error = 4 * torch.finfo(torch.float64).eps * float(values[-1])
    if values[0] <= error or float((error / (2 * values.sqrt())).sum()) > _EXACT * scale:
        return None
    return float(values.sqrt().sum())


def _put_together(shift: torch.Tensor, variance_a: float, variance_b: float, cross: float) -> float:
    """The distance; what rounding leaves below 0 is 0. ValueError where the numbers are too large
    for it.
    """
    found = float(shift.square().sum()) + variance_a + variance_b - 2 * cross
    if not math.isfinite(found):
        raise ValueError("features are too large: their variance overflows")
    return max(found, 0.0)
