"""Do samples lie where real images lie, and are there samples wherever those are? Answers by
nearest neighbours in the space of features.

    precision   share of samples inside the real manifold: within a real image's distance to its
                k-th nearest other one (Kynkäänniemi et al. 2019, eq. 2)
    recall      share of real images inside the manifold of samples, likewise
    density     how many real balls a sample lies in, divided by k: above 1 where samples crowd in
                the middle (Naeem et al. 2020, eq. 6)
    coverage    share of real images with a sample nearer than their k-th nearest real one (Naeem et
                al. 2020, eq. 7)

Distances are Euclidean, in float64. On the edge counts as inside, so a set compared with itself has
precision, recall and coverage 1.
"""

import torch

from distgan.metrics.frechet import require

ROWS = 512
K = 5


def manifold(real: torch.Tensor, fake: torch.Tensor, k: int = K) -> dict[str, float]:
    """{"precision", "recall", "density", "coverage"} of features [n, d] and [m, d].

    ValueError for sets of at most k rows, or as of `frechet.require`.
    """
    require(real, fake, f"precision and recall with k = {k}", k + 1)
    radius_real, radius_fake = _radii(real, k), _radii(fake, k)
    balls = torch.zeros(len(fake), dtype=torch.float64)  # real ones around each sample
    inside = torch.zeros(len(real), dtype=torch.bool)
    near = torch.zeros(len(real), dtype=torch.bool)
    for rows, distances in _rows(fake, real):
        within = distances <= radius_real
        balls[rows] = within.sum(1).double()
        near |= within.any(0)
        inside |= (distances <= radius_fake[rows, None]).any(0)
    return {
        "precision": float((balls > 0).double().mean()),
        "recall": float(inside.double().mean()),
        "density": float(balls.mean()) / k,
        "coverage": float(near.double().mean()),
    }


def nearest(
    samples: torch.Tensor, train: torch.Tensor, held_out: torch.Tensor | None
) -> float | None:
    """Do samples lie nearer to the training images than unseen images do? Features [n, d], [m, d]
    and [k, d].

    The median distance from a sample to its nearest training image, divided by the median from a
    held-out image to its own: 1 for samples as far from them as unseen reals, towards 0 for copies,
    above 1 for samples that look like nothing there. None without held-out images, or if those are
    copies.
    """
    usual = _to_nearest(held_out, train) if held_out is not None else 0.0
    return _to_nearest(samples, train) / usual if usual else None


def _to_nearest(a: torch.Tensor, b: torch.Tensor) -> float:
    """The median over `a` of the distance to the nearest of `b`."""
    return float(torch.cat([distances.min(1).values for _, distances in _rows(a, b)]).median())


def _radii(x: torch.Tensor, k: int) -> torch.Tensor:
    """[n]: from each row to its k-th nearest other one."""
    found = []
    for rows, distances in _rows(x, x):
        distances[torch.arange(len(distances)), rows] = torch.inf
        found.append(distances.kthvalue(k, 1).values)
    return torch.cat(found)


def _rows(a: torch.Tensor, b: torch.Tensor):
    """(row numbers [r] of a, distances [r, len(b)] in float64), stretch by stretch. By products:
    ten times as fast as differences, and wrong by 1e-8 of the features' size; of what is left when
    the mean of b is taken off, which brings that down.
    """
    middle = (
        b.double().mean(0)
        if len(b) <= ROWS
        else sum(part.double().sum(0) for part in b.split(ROWS)) / len(b)
    )
    for start in range(0, len(a), ROWS):
        part = a[start : start + ROWS].double() - middle
        yield (
            torch.arange(start, start + len(part)),
            torch.cat(
                [torch.cdist(part, other.double() - middle) for other in b.split(8 * ROWS)], 1
            ),
        )
