"""The Fréchet step against scipy's square root of a matrix, as pytorch-fid takes it: CPU seconds on
one thread, and errors.

The step is what is left when means and covariances are there, for 300 samples when only features
are: distgan needs no covariance then. Limits: 300 times faster for 300 samples a side of 2,048
features, 6 times for 8,189; errors at most 1e-9 relative. `whole` is from features to distance,
np.cov included. Errors at 2,048 features are against the closed form of two sets that share their
principal axes, at 64 features against mpmath with 50 digits.
"""

import resource
import warnings

import mpmath
import numpy as np
import scipy.linalg
import torch

from distgan.metrics import frechet

SIZES = ((300, 300.0), (8189, 6.0))
D = 2048


def main(quick: bool = False, only: str = "") -> None:
    torch.set_num_threads(1)
    d = 128 if quick else D
    for n, limit in ((40, 1.0), (520, 1.0)) if quick else SIZES:
        a, b, truth = known(n, d)
        whole, found = _clock(lambda a=a, b=b: frechet.distance(a, b))
        theirs, other = _clock(lambda a=a, b=b: usual(a.numpy(), b.numpy()), measured=1)
        means, covs = zip(
            *((x.mean(0), np.cov(x, rowvar=False)) for x in (a.numpy(), b.numpy())), strict=True
        )
        step, _ = _clock(lambda c=covs: square_root(*c), measured=1)
        both = [
            frechet.Moments(n, torch.from_numpy(mean), torch.from_numpy(cov))
            for mean, cov in zip(means, covs, strict=True)
        ]
        mine = whole if n < 2 * d else _clock(lambda both=both: frechet.of_moments(*both))[0]
        print(
            f"n = {n}, d = {d}: the step {mine:.3f} CPU s, scipy's {step:.2f}: {step / mine:.1f}"
            f" times (limit {limit:g}); whole {whole:.3f} and {theirs:.2f}: {theirs / whole:.1f}"
            " times"
        )
        print(
            f"  truth {truth:.9f}; relative error: distgan {abs(found / truth - 1):.1e} (limit"
            f" 1e-9), usual route {abs(other / truth - 1):.1e}"
        )
        print(f"  a set and itself: distgan {frechet.distance(a, a):.1e} (limit 1e-9)")
    for n in (8, 12, 40) if quick else (24, 40, 100):
        a, b = (
            torch.from_numpy(
                np.random.default_rng(seed).standard_normal((n, 16 if quick else 64)) * scale
            )
            for seed, scale in ((1, 1.0), (2, 1.5))
        )
        truth = fifty_digits(a.numpy(), b.numpy())
        print(
            f"n = {n}, d = {a.shape[1]}, mpmath, 50 digits: {truth:.12f}; relative error: distgan"
            f" {abs(frechet.distance(a, b) / truth - 1):.1e}, from moments"
            f" {abs(frechet.of_moments(frechet.moments(a), frechet.moments(b)) / truth - 1):.1e},"
            f" usual route {abs(usual(a.numpy(), b.numpy()) / truth - 1):.1e}"
        )


def known(n: int, d: int) -> tuple[torch.Tensor, torch.Tensor, float]:
    """Two sets [n, d] in float64 whose covariances have the same eigenvectors, so that the distance
    is |shift|^2 + sum (s - t)^2 over their standard deviations.
    """
    generator = torch.Generator().manual_seed(n)
    rank = min(n - 1, d)
    left = torch.randn(n, rank, generator=generator, dtype=torch.float64)
    left = torch.linalg.qr(left - left.mean(0)).Q  # orthonormal columns of mean 0
    right = torch.linalg.qr(torch.randn(d, rank, generator=generator, dtype=torch.float64)).Q
    s, t = (0.05 + torch.rand(rank, generator=generator, dtype=torch.float64) for _ in range(2))
    a, b = (left * x * (n - 1) ** 0.5 @ right.T for x in (s, t))
    return a + 0.5, b + 0.5 + 0.1, d * 0.1**2 + float((s - t).square().sum())


def usual(a: np.ndarray, b: np.ndarray) -> float:
    """pytorch_fid.fid_score: np.mean and np.cov, then calculate_frechet_distance, without its
    messages.
    """
    root = square_root(s := np.cov(a, rowvar=False), t := np.cov(b, rowvar=False))
    return float(
        np.square(a.mean(0) - b.mean(0)).sum() + np.trace(s) + np.trace(t) - 2 * np.trace(root.real)
    )


def square_root(s: np.ndarray, t: np.ndarray) -> np.ndarray:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return scipy.linalg.sqrtm(
            s @ t
        )  # pytorch-fid asks for disp=False, which SciPy 1.18 has no more


def fifty_digits(a: np.ndarray, b: np.ndarray) -> float:
    with mpmath.workdps(50):
        sets = []
        for x in (a, b):
            x = mpmath.matrix(x.tolist())
            mean = [mpmath.fsum(x[i, j] for i in range(x.rows)) / x.rows for j in range(x.cols)]
            sets.append((mean, mpmath.matrix(x.rows, x.cols)))
            for i in range(x.rows):
                for j in range(x.cols):
                    sets[-1][1][i, j] = (x[i, j] - mean[j]) / mpmath.sqrt(x.rows - 1)
        (m1, x), (m2, y) = sets
        cross = x * y.T
        gram = cross.T * cross
        values = mpmath.eigsy(gram, eigvals_only=True)
        total = mpmath.fsum((p - q) ** 2 for p, q in zip(m1, m2, strict=True)) + sum(
            mpmath.fsum(v**2 for v in z) for z in (x, y)
        )
        return float(total - 2 * mpmath.fsum(mpmath.sqrt(v) for v in values if v > 0))


def _clock(work, measured: int = 3):
    """(least CPU seconds of a call, its result)."""
    best = float("inf")
    for _ in range(measured):
        before = resource.getrusage(resource.RUSAGE_SELF)
        result = work()
        after = resource.getrusage(resource.RUSAGE_SELF)
        best = min(best, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
        if best > 5:
            break
    return best, result
