"""How a global batch is shared among ranks, micro-batches and batch-norm groups.

Pure arithmetic.
"""

import dataclasses
from collections.abc import Callable

from distgan.core.errors import ConfigError

MAX_BATCH = 1_000_000


@dataclasses.dataclass(frozen=True)
class BatchLayout:
    """How a global batch is shared.

    Ranks x accumulation x per_rank = batch, in batch-norm groups of `group` samples.
    """

    batch: int
    ranks: int
    accumulation: int
    per_rank: int
    group: int

    def __str__(self) -> str:
        return (
            f"batch {self.batch} = {self.ranks} ranks x {self.accumulation} micro-batches x"
            f" {self.per_rank} per rank, in groups of {self.group}"
        )


def fit(
    batch: int,
    ranks: int,
    accumulation: int,
    group: int = 1,
    group_of: Callable[[int], int] | None = None,
) -> BatchLayout:
    """Share a global batch, or raise ConfigError with the values that fit.

    `group` is the number of neighbouring samples of the global batch that share batch-norm
    statistics; a micro-batch must hold whole groups. `group_of` is the group that another batch
    would have, where that depends on it.
    """
    share, micro = ranks * accumulation, batch // accumulation

    def fits(batch: int, ranks: int, accumulation: int) -> bool:
        size = group_of(batch) if group_of else group
        return batch % (ranks * accumulation) == 0 and batch // accumulation % size == 0

    if fits(batch, ranks, accumulation):
        return BatchLayout(batch, ranks, accumulation, batch // share, group)
    if batch % share:
        fault = (
            f"a global batch of {batch} cannot be shared by {ranks} ranks x {accumulation}"
            f" micro-batches: {share} does not divide {batch}"
        )
    else:
        fault = (
            f"batch normalisation over groups of {group} samples does not fit micro-batches of"
            f" {micro} samples ({batch} / {accumulation}): the statistics of a group need all its"
            " samples in one forward pass"
        )
    near = batch // share
    # Where only the groups do not fit, a batch with the same groups comes first.
    same = [
        n
        for n in range(near + 1, near + 1000)
        if group_of and batch % share == 0 and group_of(n * share) == group
    ]
    batches = [
        next((n * share for n in some if fits(n * share, ranks, accumulation)), None)
        for some in (range(near, max(near - 1000, 0), -1), same or range(near + 1, near + 1000))
    ]
    ways = {
        "batch": [n for n in batches if n and n != batch and n <= MAX_BATCH],
        "machine.accumulation": [n for n in range(1, batch // ranks + 1) if fits(batch, ranks, n)][
            :12
        ],
        "number of processes": [
            n for n in range(1, batch // accumulation + 1) if fits(batch, n, accumulation)
        ][:12],
    }
    nearest = [f"{name} {', '.join(map(str, values))}" for name, values in ways.items() if values]
    raise ConfigError(
        f"{fault}. Fit, one instead of what was asked: {'; or '.join(nearest) or 'nothing near'}"
        + ("" if batch % share else f"; or a bn_group that divides {micro}")
        + ". Another batch or bn_group is another run"
    )


def reference_group(batch: int, reference: int) -> int:
    """The default batch-norm group.

    The largest divisor of `batch` that is no larger than the recipe's reference batch.
    """
    return max(n for n in range(1, min(batch, reference) + 1) if batch % n == 0)
