"""Map a function over numbered items with all ranks, with the same bits at any number of ranks.

Items are computed in chunks of fixed shape on one thread, so neither their split over ranks nor
OMP_NUM_THREADS changes a row.
"""

import contextlib
from collections.abc import Callable, Iterator

import numpy as np
import torch

from distgan.core import console
from distgan.distributed.ranks import Ranks

CHUNK = 16  # items per call, the last chunk filled up: a fixed shape gives the same bits


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Compute on one thread of this process: more would split sums at other places.

    Features differ by 1e-4 between numbers of threads, so scores would depend on OMP_NUM_THREADS.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@torch.no_grad()
def map_over_ranks(
    ranks: Ranks,
    numbers: range,
    work: Callable[[np.ndarray], tuple[torch.Tensor, ...]],
    bar: console.Bar,
    columns: int = 1,
    absorb: Callable[[np.ndarray, torch.Tensor], None] | None = None,
) -> list[torch.Tensor]:
    """Call `work([CHUNK]) -> columns tensors [CHUNK, d]` until every number was computed once.

    Return all rows of each tensor in the order of `numbers`; on ranks other than 0 none. With
    `absorb`, `work` returns one tensor more, the first, whose rows are not gathered: `absorb`
    receives them with their numbers on the rank that computed them. Collective; advances `bar`.
    """

    def local_rows() -> tuple[np.ndarray, list[torch.Tensor]]:
        index = [np.zeros(0, np.int64)]
        parts: list[list[torch.Tensor]] = [[] for _ in range(columns)]
        for start in range(
            numbers.start + ranks.rank * CHUNK, numbers.stop, ranks.world_size * CHUNK
        ):
            chunk = np.arange(start, min(start + CHUNK, numbers.stop))
            rows = [each[: len(chunk)].cpu() for each in work(np.resize(chunk, CHUNK))]
            if absorb:
                absorb(chunk, rows.pop(0))
            for part, each in zip(parts, rows, strict=True):
                part.append(each)
            index.append(chunk - numbers.start)
            bar.advance(min(len(chunk) * ranks.world_size, bar.total - bar.done))
        return np.concatenate(index), [
            torch.cat(part) if part else torch.zeros(0) for part in parts
        ]

    # A damaged image may reach one rank alone: on_all_ranks makes all of them raise.
    with one_thread():
        index, parts = ranks.on_all_ranks(local_rows)
    return [ranks.gather(index, rows, len(numbers)) for rows in parts]
