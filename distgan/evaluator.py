"""Score a generator with all ranks: sample numbers are dealt out, features come back with their numbers, one process computes.

Sample i is generated from noise (seed, i), in chunks of fixed shape, so the set of samples does not depend on the number of ranks.
"""

from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import torch

from distgan import console, signals
from distgan.data import Data
from distgan.errors import DataError
from distgan.features import extractor, frechet, nearest
from distgan.ranks import Ranks
from shards.reader import ShardSet

CHUNK = 16  # samples per forward pass, the last one filled up: a fixed shape gives the same bits for the same sample


class Evaluator:
    def __init__(self, ranks: Ranks, data: Data, samples: int, inception: str | None):
        self._ranks, self._data, self._samples = ranks, data, samples
        if len(data.train) < 2:
            raise DataError(f"the training split holds {len(data.train)} sample, a Fréchet distance needs at least 2; shard more images")
        self._extract = extractor(inception).to(ranks.device)
        self._real: torch.Tensor | None = None
        self._held_out: torch.Tensor | None = None
        self._seen = False

    @property
    def metric(self) -> str:
        """`fid` with Inception's weights, else `frechet_standin`."""
        return self._extract.metric

    def __call__(self, sample: Callable[[np.ndarray], torch.Tensor]) -> dict[str, object]:
        """`sample(numbers [n])` -> images [n, channels, size, size] in [-1, 1]. Every rank calls this and gets the result.

        `score` is against the training images; `nearest` (see `features.nearest`) tells copies of them.
        """
        if not self._seen:  # the data do not change during a run
            self._real, self._held_out = (self._features(f"features of {name} images", len(split), partial(self._reals, split)) if len(split) else None
                                          for name, split in (("training", self._data.train), ("held-out", self._data.validation)))
            self._seen = True
        fake = self._features("features of samples", self._samples, lambda numbers: signals.to_bytes(sample(numbers)))
        score, apart = self._ranks.alone(lambda: (frechet(self._real, fake), nearest(fake, self._real, self._held_out)))
        return {"metric": self.metric, "score": score, "nearest": apart, "samples": self._samples, "reals": len(self._data.train), "extractor": self._extract.label}

    def _reals(self, split: ShardSet, numbers: np.ndarray) -> torch.Tensor:
        return self._data.decode(split, numbers.tolist())

    def _features(self, label: str, total: int, images: Callable[[np.ndarray], torch.Tensor]) -> torch.Tensor | None:
        # A damaged sample meets only the rank it was dealt to: all of them must leave together.
        numbers, rows = self._ranks.together(lambda: self._my_features(label, total, images))
        return self._ranks.gather(numbers, rows, total)

    @torch.no_grad()
    def _my_features(self, label: str, total: int, images: Callable[[np.ndarray], torch.Tensor]) -> tuple[np.ndarray, torch.Tensor]:
        numbers, rows = [np.zeros(0, np.int64)], []
        with console.bar(label, total, "images") as bar:
            for chunk in self._mine(total):
                filled = np.resize(chunk, CHUNK)
                rows.append(self._extract(images(filled).to(self._ranks.device))[: len(chunk)].cpu())
                numbers.append(chunk)
                bar.advance(min(len(chunk) * self._ranks.size, total - bar.done))
        return np.concatenate(numbers), torch.cat(rows) if rows else torch.zeros(0)

    def _mine(self, total: int) -> Iterator[np.ndarray]:
        """Every size-th chunk of the numbers 0..total-1."""
        for start in range(self._ranks.rank * CHUNK, total, self._ranks.size * CHUNK):
            yield np.arange(start, min(start + CHUNK, total))
