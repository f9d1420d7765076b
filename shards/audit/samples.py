"""Reading the samples of shards of which some may be damaged, in chunks that travel to worker
processes.
"""

import functools
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from distgan.core.errors import DataError
from distgan.core.rng import numpy_generator
from distgan.shards.audit.integrity import Shard
from distgan.shards.format.index import load_index, samples_of

_CHUNK_SAMPLES = 32  # samples that are read, and told about, together


@dataclass(frozen=True)
class Place:
    """One sample: `number` counts within its shard."""

    split: str
    shard: Path
    number: int
    key: str

    def __str__(self) -> str:
        return f"{self.split}/{self.key}"


def places(shards: list[Shard], limit: int | None) -> list[Place]:
    """All samples that integrity found whole.

    With `limit`, at most so many of each split, chosen at random, the same at every call.
    """
    found: dict[str, list[Place]] = {}
    for shard in shards:
        found.setdefault(shard.split, []).extend(
            Place(shard.split, shard.path, number, key)
            for number, key in enumerate(shard.keys)
            if key not in shard.damaged
        )
    chosen = []
    for split, all_of_it in found.items():
        if limit is not None and limit < len(all_of_it):
            picked = numpy_generator(0, f"audit/{split}").choice(
                len(all_of_it), limit, replace=False
            )
            all_of_it = [all_of_it[i] for i in sorted(picked.tolist())]
        chosen += all_of_it
    return chosen


def chunks(chosen: list[Place]) -> list[list[Place]]:
    return [
        chosen[start : start + _CHUNK_SAMPLES] for start in range(0, len(chosen), _CHUNK_SAMPLES)
    ]


def read(place: Place) -> dict[str, bytes]:
    """{field: bytes} of one sample."""
    fields, table = _table(place.shard)
    try:
        with open(place.shard, "rb") as file:
            return {
                name: os.pread(file.fileno(), size, offset)
                for name, (offset, size) in zip(fields, table[place.number].tolist(), strict=True)
            }
    except OSError as error:
        raise DataError(
            f"{place.shard} could be read a moment ago, not any more: {error.strerror}"
        ) from error


@functools.lru_cache(maxsize=4)
def _table(shard: Path) -> tuple[list[str], np.ndarray]:
    """Fields, and int64 [samples, fields, 2]: offset and size."""
    _, fields, table = samples_of(shard, load_index(shard))
    return fields, table[..., :2]
