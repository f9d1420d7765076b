"""The classes of a data set's samples, for networks that are given them.

A label belongs to a sample by its number in its split, so it does not depend on the rank, the batch
or the epoch in which the sample comes. The class of a generated sample *i* is a function of (seed,
purpose, i).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Self

import numpy as np

from distgan.core import rng
from distgan.core.errors import ConfigError, did_you_mean
from distgan.shards.format.labels import MOST_CLASSES

Share = Literal["training", "uniform"]
SHOWN = 16  # classes, in a grid


@dataclass(frozen=True)
class Labels:
    """A column of labels: the names of its classes, and how many training samples each has."""

    column: str
    names: tuple[str, ...]
    counts: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.names)

    def number(self, name: str) -> int:
        """Return the number of the class of that name; ConfigError with the nearest name."""
        if name in self.names:
            return self.names.index(name)
        some = ", ".join(self.names[:12]) + (", …" if len(self) > 12 else "")
        near = did_you_mean(name, list(self.names))
        raise ConfigError(
            f"no class {name[:60]!r} in the column {self.column!r}{near}; there are: {some}"
        )

    def draw(self, seed: int, purpose: str, numbers: np.ndarray, share: Share) -> np.ndarray:
        """Return int64 [n]: the classes of the generated samples `numbers` [n].

        `training`: as often as in the training split; `uniform`: all alike that occur in it.
        """
        counts = np.asarray(self.counts, np.float64)
        weights = counts if share == "training" else (counts > 0).astype(np.float64)
        ends = np.cumsum(weights) / weights.sum()
        drawn = rng.uniform(seed, f"{purpose}/class", np.asarray(numbers, np.int64))
        return np.searchsorted(ends[:-1], drawn, side="right").astype(np.int64)

    def shown(self) -> list[int]:
        """Return the classes that have a row in a grid of samples: those that occur in the training
        split, of more than SHOWN the most frequent, in order of their numbers.
        """
        frequent = sorted(range(len(self)), key=lambda one: -self.counts[one])[:SHOWN]
        return sorted(one for one in frequent if self.counts[one])

    def record(self) -> dict[str, Any]:
        """Return plain data, for the record of an attempt."""
        return {"column": self.column, "names": list(self.names), "counts": list(self.counts)}

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Self:
        """Return what `record` returned; ValueError where it is damaged."""
        if not isinstance(record, Mapping):
            raise ValueError("labels are no names and counts of classes")
        column, names, counts = (record.get(key) for key in ("column", "names", "counts"))
        if not (
            isinstance(column, str)
            and isinstance(names, list)
            and isinstance(counts, list)
            and 0 < len(names) == len(counts) <= MOST_CLASSES
            and all(isinstance(name, str) for name in names)
            and all(type(count) is int and count >= 0 for count in counts)
            and any(counts)
        ):
            raise ValueError("labels are no names and counts of classes")
        return cls(column, tuple(names), tuple(counts))
