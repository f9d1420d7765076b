"""Read single samples of shards that may be damaged, in chunks for worker processes."""

import functools
import os
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from distgan.core.errors import DataError
from distgan.core.reading import open_regular
from distgan.core.rng import numpy_generator
from distgan.shards.audit.shard_integrity import Shard
from distgan.shards.format.index import load_index, samples_of

_CHUNK_SAMPLES = 32  # samples that one worker examines at a time


@dataclass(frozen=True)
class Place:
    """The address of a sample; `number` counts within its shard."""

    split: str
    shard: Path
    number: int
    key: str

    def __str__(self) -> str:
        return f"{self.split}/{self.key}"


def places(shards: list[Shard], limit: int | None) -> list[Place]:
    """Return all undamaged samples.

    With `limit`, at most that many of each split, chosen at random, the same at every call.
    """
    by_split: dict[str, list[Place]] = {}
    for shard in shards:
        by_split.setdefault(shard.split, []).extend(
            Place(shard.split, shard.path, number, key)
            for number, key in enumerate(shard.keys)
            if key not in shard.damaged
        )
    chosen = []
    for split, samples in by_split.items():
        if limit is not None and limit < len(samples):
            generator = numpy_generator(0, f"audit/{split}")
            picked = generator.choice(len(samples), limit, replace=False)
            samples = [samples[i] for i in sorted(picked.tolist())]
        chosen += samples
    return chosen


def chunks(chosen: list[Place]) -> list[list[Place]]:
    return [
        chosen[start : start + _CHUNK_SAMPLES] for start in range(0, len(chosen), _CHUNK_SAMPLES)
    ]


def read(place: Place, only: Collection[str] | None = None) -> dict[str, bytes]:
    """Return {field: bytes} of one sample; `only` some fields."""
    fields, table = _table(place.shard)
    try:
        with open_regular(place.shard, links=True) as file:
            return {
                name: os.pread(file.fileno(), size, offset)
                for name, (offset, size) in zip(fields, table[place.number].tolist(), strict=True)
                if only is None or name in only
            }
    except OSError as error:
        raise DataError(
            f"{place.shard} could be read before, but not any more: {error.strerror}"
        ) from error


@functools.lru_cache(maxsize=4)
def _table(shard: Path) -> tuple[list[str], np.ndarray]:
    """Return the fields, and int64 [samples, fields, 2]: offset and size."""
    _, fields, table = samples_of(shard, load_index(shard))
    return fields, table[..., :2]
