"""Statistics of a set of images or vectors, computed by all ranks: features and projections of each
image, or exact sums of groups of them.
"""

import functools
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from distgan.core import console
from distgan.core.errors import RunError
from distgan.distributed.map_over_ranks import CHUNK, map_over_ranks
from distgan.distributed.ranks import Ranks
from distgan.evaluation.image_scores import SetStatistics
from distgan.metrics import frechet
from distgan.metrics.exact_sums import Sums
from distgan.metrics.sliced import DIRECTIONS, Projections

ROUND = 64 * CHUNK  # images whose rows are gathered at once


class Computation:
    """Compute statistics with one extractor, and count the seconds.

    `width`: of its features. `unit`: images or vectors, for the bar.
    """

    def __init__(self, ranks: Ranks, extract: Any, width: int, unit: str):
        self._ranks, self._extract, self._width, self._unit = ranks, extract, width, unit
        self._project = Projections()
        self.seconds: dict[str, float] = {}

    def __call__(
        self,
        label: str,
        total: int,
        decode: Callable[[np.ndarray], torch.Tensor],
        training: int,
        groups: np.ndarray | None,
    ) -> SetStatistics:
        """Return features and projections of images 0 to total - 1, or with `groups` [total] their
        moments: of each group, 3 left out, and of all. Collective.
        """
        began, decode_s = time.perf_counter(), 0.0
        sums: list[Sums] = []
        if groups is not None:
            count = 4 if groups.max() == 3 else groups.max() + 1
            sums = [Sums(self._width, self._extract.largest) for _ in range(count)]

        def work(numbers: np.ndarray) -> tuple[torch.Tensor, ...]:
            nonlocal decode_s
            started = time.perf_counter()
            batch = decode(numbers).to(self._ranks.device)
            decode_s += time.perf_counter() - started
            return self._extract(batch), self._project(batch)

        def add_to_sums(numbers: np.ndarray, rows: torch.Tensor) -> None:
            assert groups is not None
            for group in np.unique(groups[numbers]):
                try:
                    sums[group].add(rows[torch.from_numpy(groups[numbers] == group)])
                except ValueError as error:
                    raise RunError(str(error)) from error

        widths = (DIRECTIONS,) if sums else (self._width, DIRECTIONS)
        kept = [torch.empty(total, width) for width in widths] if self._ranks.is_main else []
        with console.bar(
            f"{'moments' if sums else 'features'} of {label}", total, self._unit
        ) as bar:
            for start in range(0, total, ROUND):
                numbers = range(start, min(start + ROUND, total))
                rows = map_over_ranks(
                    self._ranks, numbers, work, bar, len(widths), add_to_sums if sums else None
                )
                self._ranks.on_rank_zero(functools.partial(_store_rows, kept, numbers, rows))
        statistics = SetStatistics(total, training)
        if self._ranks.is_main:
            *features, statistics.projections = kept
            statistics.features = features[0] if features else None
        if sums:
            statistics.moments = reduce_moments(self._ranks, sums)
        self.seconds |= {
            "images" if label == "samples" else f"decoding {label}": decode_s,
            label: time.perf_counter() - began,
        }
        return statistics


def reduce_moments(ranks: Ranks, sums: list[Sums]) -> dict[str, frechet.Moments] | None:
    """Add the sums of all ranks; return moments of all images and of the halves, on rank 0."""
    for part in sums:
        part.parts = [ranks.all_reduce_sum_cpu(value) for value in part.parts]
        count = torch.tensor([part.n], dtype=torch.float64)
        part.n = int(ranks.all_reduce_sum_cpu(count))
    if not ranks.is_main:
        return None
    moments = {
        name: part.moments()
        for name, part in zip(("first", "second"), sums[1:3], strict=False)
        if part.n > 1
    }
    for part in sums[1:3]:
        sums[0] += part
    return moments | {"all": sums[0].moments()}


def _store_rows(kept: list[torch.Tensor], numbers: range, rows: list[torch.Tensor]) -> None:
    """Store the rows of these numbers; RuntimeError unless there is one for each."""
    for stored, part in zip(kept, rows, strict=True):
        if len(part) != len(numbers):
            raise RuntimeError(f"{len(part)} rows gathered for {len(numbers)} images")
        stored[numbers.start : numbers.stop] = part
