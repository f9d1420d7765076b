"""The pairs of images that the scores of two sets need, each computed once, by all ranks: the rows
of the whole comparison, of its floor and of `nearest` are parts of one pass over all products.
"""

from dataclasses import dataclass
from typing import Any

import torch

from distgan.core import console, rng
from distgan.distributed.ranks import Ranks
from distgan.metrics import kernel, manifold
from distgan.metrics.pairs import ROWS, Comparison, Pairs, Share


@dataclass(frozen=True)
class ImagePairs:
    """`pairs`, with the numbers of its comparisons "whole", "real" and "generated" (the floor), of
    those that are defined; the numbers of real images and of samples in the order of "whole".
    """

    pairs: Pairs
    numbers: dict[str, int]
    reals: torch.Tensor
    samples: torch.Tensor
    nearest: bool

    def balls(self, name: str) -> bool:
        """Return whether precision and recall of a comparison are defined and requested."""
        return name in self.numbers and self.pairs.comparisons[self.numbers[name]].balls


def disjoint_halves(n: int, limit: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the numbers of two disjoint random sets of min(n // 2, limit) of n images each.

    The distance between the two is the floor: real images against real images.
    """
    order = torch.from_numpy(rng.numpy_generator(0, "evaluate/floor", n).permutation(n))
    k = min(n // 2, limit)
    return order[:k], order[k : 2 * k]


def plan(
    real: torch.Tensor,
    training: int,
    fake: torch.Tensor,
    metrics: tuple[str, ...],
    used: int,
    thorough: bool,
) -> ImagePairs:
    """Return the pairs, not computed, of features of samples and of the first `used` real images.

    `training`: how many of the real images, the first ones, a run trained on.
    """
    first, second = disjoint_halves(used, len(fake))
    k, at = len(first), torch.arange(len(real))
    half = torch.zeros(len(real), dtype=torch.int64)
    half[first], half[second] = 1, 2
    kinds = torch.stack([half, at < training, at < used], 1)
    found = kinds.unique(dim=0)
    rows = [torch.nonzero((kinds == kind).all(1))[:, 0] for kind in found]
    of_samples = [x for x in (torch.arange(k), torch.arange(k, len(fake))) if len(x)]
    parts = [(real, x) for x in rows] + [(fake, x) for x in of_samples]
    samples = tuple(range(len(rows), len(parts)))

    def those(column: int, value: int) -> tuple[int, ...]:
        return tuple(torch.nonzero(found[:, column] == value)[:, 0].tolist())

    compared = {"whole": (min(used, len(fake)), those(2, 1), samples)}
    if k:
        compared["real"] = (k, those(0, 1), those(0, 2))
        compared["generated"] = (k, those(0, 1), samples[:1])
    comparisons: list[Comparison] = []
    numbers: dict[str, int] = {}
    for name, (n, a, b) in compared.items():
        wanted = "manifold" in metrics and (thorough or name == "whole")
        wanted |= "coverage" in metrics and name != "whole"
        balls = wanted and n > manifold.K
        if balls or ("kernel" in metrics and n >= kernel.LEAST):
            numbers[name] = len(comparisons)
            comparisons.append(Comparison(a, b, balls))
    trained, unseen = those(1, 1), those(1, 0)
    nearest = bool("nearest" in metrics and trained and unseen)
    return ImagePairs(
        Pairs(
            parts,
            comparisons,
            [(samples, trained), (unseen, trained)] if nearest else [],
            manifold.K if any(one.balls for one in comparisons) else 1,
        ),
        numbers,
        torch.cat([rows[i] for i in those(2, 1)]),
        torch.cat(of_samples),
        nearest,
    )


def compute(
    ranks: Ranks,
    real: torch.Tensor | None,
    training: int,
    fake: torch.Tensor | None,
    metrics: tuple[str, ...],
    used: int,
    thorough: bool,
) -> ImagePairs | None:
    """Compute the pairs with all ranks, of features that rank 0 alone has; None where no number
    needs any.

    Every rank holds both sets while it works. Collective.
    """

    def shapes() -> list[tuple[Any, Any]] | None:
        return None if real is None or fake is None else [(x.shape, x.dtype) for x in (real, fake)]

    known = ranks.on_rank_zero(shapes)
    if known is None or not {"kernel", "manifold", "nearest"} & set(metrics):
        return None
    if not ranks.is_main:
        real, fake = (torch.empty(shape, dtype=dtype) for shape, dtype in known)
    assert real is not None and fake is not None
    real, fake = ranks.broadcast_cpu(real), ranks.broadcast_cpu(fake)
    planned = plan(real, training, fake, metrics, used, thorough)
    device = str(ranks.device) if ranks.device.type in ROWS else "cpu"  # cuda:3, not any
    total = planned.pairs.blocks(device)
    with console.bar("comparing pairs", total, "blocks") as bar:
        planned.pairs.compute(
            Share(
                ranks.rank,
                ranks.world_size,
                torch.get_num_threads() if device == "cpu" else 1,
                device,
                ranks.all_reduce_sum_cpu,
                lambda found: ranks.all_gather_objects(found, patient=True),
                lambda blocks: bar.advance(min(blocks, total - bar.done)),
            )
        )
    return planned
