"""Score a generator with all ranks: sample numbers are dealt out, features come back with their numbers, one process computes.

Sample i is generated from noise (seed, i), in chunks of fixed shape, so the set of samples does not depend on the number of ranks.
"""

from collections.abc import Callable

import numpy as np
import torch

from distgan import console, signals
from distgan.data import Data
from distgan.errors import DataError
from distgan.features import extractor, frechet, nearest
from distgan.ranks import Ranks

CHUNK = 16  # samples per forward pass, the last one filled up: a fixed shape gives the same bits for the same sample


class Evaluator:
    """Scores samples against the training images; with `whole`, against all images of the data set, held out or not."""

    def __init__(self, ranks: Ranks, data: Data, samples: int, inception: str | None, whole: bool = False):
        self._ranks, self._data, self._samples, self._whole = ranks, data, samples, whole
        self.reals = len(data.train) + (len(data.validation) if whole else 0)
        if len(data.train) < 2:
            raise DataError(f"the training split holds {len(data.train)} sample, a Fréchet distance needs at least 2; shard more images")
        self.extract = extractor(inception).to(ranks.device)
        self._train: torch.Tensor | None = None
        self._held_out: torch.Tensor | None = None
        self._seen = False

    @property
    def metric(self) -> str:
        """`fid` with Inception's weights, else `frechet_standin`."""
        return self.extract.metric

    def __call__(self, sample: Callable[[np.ndarray], torch.Tensor]) -> dict[str, object]:
        """`sample(numbers [n])` -> images [n, channels, size, size] in [-1, 1]. Every rank calls this and gets the result."""
        self._look_at_reals()
        return self.score(self._features("features of samples", self._samples, lambda numbers: signals.to_bytes(sample(numbers))))

    def score(self, fake: torch.Tensor | None) -> dict[str, object]:
        """What is found of samples by their features [n, d], which rank 0 holds. Every rank calls this and gets the result.

        `score` is against the training images, or all; `nearest` (see `features.nearest`) tells copies of the training images.
        """
        self._look_at_reals()
        score, apart, samples = self._ranks.alone(lambda: (frechet(self._real(), fake), nearest(fake, self._train, self._held_out), len(fake)))
        return {"metric": self.metric, "score": score, "nearest": apart, "samples": samples, "reals": self.reals, "extractor": self.extract.label}

    def floor(self) -> dict[str, object]:
        """What real images score against real images: of two halves, dealt out alternately, so of half as many as there are."""
        self._look_at_reals()
        score = self._ranks.alone(lambda: frechet(self._real()[::2], self._real()[1::2]) if self.reals >= 4 else None)
        return {"score": score, "reals": [self.reals - self.reals // 2, self.reals // 2]}

    def _real(self) -> torch.Tensor:
        return torch.cat([self._train, self._held_out]) if self._whole and self._held_out is not None else self._train

    def _look_at_reals(self) -> None:
        if not self._seen:  # the images do not change during a run
            self._train, self._held_out = (
                self._features(f"features of {name} images", len(part), lambda numbers, part=part: self._data.decode(part, numbers.tolist())) if len(part) else None
                for name, part in (("training", self._data.train), ("held-out", self._data.validation)))
            self._seen = True

    def _features(self, label: str, total: int, images: Callable[[np.ndarray], torch.Tensor]) -> torch.Tensor | None:
        with console.bar(label, total, "images") as bar:
            return deal(self._ranks, range(total), lambda numbers: (self.extract(images(numbers).to(self._ranks.device)),), bar)[0]


@torch.no_grad()
def deal(ranks: Ranks, numbers: range, work: Callable[[np.ndarray], tuple[torch.Tensor, ...]], bar: console.Bar,
         columns: int = 1) -> list[torch.Tensor | None]:
    """`work([CHUNK])` -> `columns` tensors [CHUNK, d], called by all ranks until every number has had its turn.

    On rank 0, all rows of each of the tensors, in order; elsewhere None. `bar` counts on.
    """
    def mine() -> tuple[np.ndarray, list[torch.Tensor]]:
        found, parts = [np.zeros(0, np.int64)], [[] for _ in range(columns)]
        for start in range(numbers.start + ranks.rank * CHUNK, numbers.stop, ranks.size * CHUNK):
            chunk = np.arange(start, min(start + CHUNK, numbers.stop))
            for part, rows in zip(parts, work(np.resize(chunk, CHUNK)), strict=True):
                part.append(rows[: len(chunk)].cpu())
            found.append(chunk - numbers.start)
            bar.advance(min(len(chunk) * ranks.size, bar.total - bar.done))
        return np.concatenate(found), [torch.cat(rows) if rows else torch.zeros(0) for rows in parts]

    # What goes wrong may meet one rank alone, a damaged image that was dealt to it: all of them must leave together.
    index, parts = ranks.together(mine)
    return [ranks.gather(index, rows, len(numbers)) for rows in parts]
