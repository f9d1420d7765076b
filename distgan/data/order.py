"""Map a position in the training stream to its epoch, sample and augmentation address.

Imports no torch.

The stream has no end: position p lies in epoch p // n, so an epoch boundary may fall inside a batch
and is only an event to report. Nothing is dropped, padded or repeated, and the whole state is one
number, the samples seen.
"""

import functools
from dataclasses import dataclass

import numpy as np

from distgan.core import rng


@dataclass(frozen=True)
class Order:
    """The order of `n` samples for one seed.

    With `window`, that many shards at a time are shuffled together, after the shards themselves, so
    that slow storage reads a few files at a time. `bounds` are the numbers of each shard's first
    sample, and n. Without `shuffle` every epoch has the samples as they are numbered.
    """

    n: int
    seed: int
    window: int = 0
    bounds: tuple[int, ...] = ()
    shuffle: bool = True

    def locate(self, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return (sample numbers [k], addresses [k] of augmentations) for stream positions [k].

        An address is epoch * n + sample.
        """
        epochs, places = np.divmod(positions, self.n)
        if not self.shuffle:
            return places, positions
        samples = np.empty(len(positions), np.int64)
        for epoch in np.unique(epochs).tolist():
            bounds = self.bounds if self.window else ()
            order = permutation(self.n, self.seed, epoch, self.window, bounds)
            samples[epochs == epoch] = order[places[epochs == epoch]]
        return samples, epochs * self.n + samples


@functools.lru_cache(4)
def permutation(
    n: int, seed: int, epoch: int, window: int = 0, bounds: tuple[int, ...] = ()
) -> np.ndarray:
    """Return the samples 0 … n-1 in the order of one epoch."""
    generator = rng.numpy_generator(seed, "order", epoch)
    if not window:
        return generator.permutation(n)
    shards = generator.permutation(len(bounds) - 1)
    windows = []
    for i in range(0, len(shards), window):
        samples = [np.arange(bounds[k], bounds[k + 1]) for k in shards[i : i + window]]
        windows.append(generator.permutation(np.concatenate(samples)))
    return np.concatenate(windows)
