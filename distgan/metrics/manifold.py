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
from distgan.metrics.pairs import Comparison, Pairs, Part

K = 5


def manifold(real: torch.Tensor, fake: torch.Tensor, k: int = K) -> dict[str, float]:
    """{"precision", "recall", "density", "coverage"} of features [n, d] and [m, d].

    ValueError for sets of at most k rows, or as of `frechet.require`.
    """
    require(real, fake, f"precision and recall with k = {k}", k + 1)
    parts = [_whole(real), _whole(fake)]
    return of_pairs(Pairs(parts, [Comparison((0,), (1,), balls=True)], k=k).compute(), 0)


def of_pairs(pairs: Pairs, number: int) -> dict[str, float]:
    """Return the same of one of the comparisons, with balls, of `pairs`."""
    around, inside, near = pairs.counts(number)
    return {
        "precision": float((around > 0).double().mean()),
        "recall": float(inside.double().mean()),
        "density": float(around.mean()) / pairs.k,
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
    if held_out is None:
        return None
    parts = [_whole(samples), _whole(train), _whole(held_out)]
    return nearest_of_pairs(Pairs(parts, [], [((0,), (1,)), ((2,), (1,))]).compute())


def nearest_of_pairs(pairs: Pairs) -> float | None:
    """Return the same of the samples and the held-out images, the first and second in `nearest`."""
    samples, usual = (float(pairs.to_nearest(number).median()) for number in (0, 1))
    return samples / usual if usual else None


def _whole(features: torch.Tensor) -> Part:
    return features, torch.arange(len(features))
