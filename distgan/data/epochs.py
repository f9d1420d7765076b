"""`distgan.Loader`: exact, resumable batches for a training loop of one's own.

The order is that of a run (`order`): a function of (seed, epoch), so the state is one number, the
samples that the loop has taken. A batch is global; each rank gets neighbouring samples of it.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from distgan.core.errors import ConfigError
from distgan.data.dataset import Data
from distgan.data.loader import Decoded, deliver, order_of
from distgan.data.own_dataset import Dataset, open_data
from distgan.distributed.environment import own_place

CPU = torch.device("cpu")
WHAT = "samples_seen"  # the key of the state that moves; the others must agree
MOST_SEEN = 1 << 62  # positions are int64


class Loader:
    """Iterate over one epoch of a data set after the other, in global batches.

    `data` is a folder of shards, a map-style Dataset (docs/loader.md), or the name of one,
    `FILE.py:NAME`.

    Batch k of an epoch is samples [k batch, (k + 1) batch) of its order; the last one is smaller,
    unless `drop_last`. Rank r of w gets the part [b r // w, b (r + 1) // w) of a batch of b: parts
    differ by one sample at most, and are empty tensors where b < w, so that all ranks take the same
    number of steps. `rank` and `world` are those of the process group, or of the launcher.

    Yields tensors as `distgan.api` calls them `micro.real`: uint8 images [n, channels, height,
    width], image pairs [n, 2, …], int16 or float32 pairs of signals [n, 2, frames], float32 vectors
    [n, size]. With `label`, a column of the data set's labels ("": the only one), yields (samples,
    int64 classes).

    An iteration is a whole epoch; after one that was broken off the next epoch follows.
    `state_dict` counts the batches that the loop has taken, not those that `workers` have read
    ahead; after `load_state_dict` the next iteration is the rest of the epoch.
    """

    def __init__(
        self,
        data: str | Path | Data | Dataset,
        batch: int,
        *,
        rank: int | None = None,
        world: int | None = None,
        seed: int = 0,
        shuffle: bool = True,
        drop_last: bool = False,
        workers: int = 0,
        window: int = 0,
        crop: int | None = None,
        split: Literal["train", "validation"] = "train",
        label: str | None = None,
        verify: Literal["size", "sha256"] = "size",
    ):
        if rank is None and world is None:
            rank, world = own_place()
        _require(batch=batch, seed=seed, workers=workers, window=window, rank=rank, world=world)
        for name, value, *allowed in (
            ("split", split, "train", "validation"),
            ("verify", verify, "size", "sha256"),
        ):
            if type(value) is not str or value not in allowed:
                raise ConfigError(
                    f"distgan.Loader: {name}={value!r}; allowed are: {', '.join(allowed)}"
                )
        self.data = open_data(data, verify)
        if crop is not None and self.data.kind != "pair":
            raise ConfigError("distgan.Loader: crop is for pairs of signals")
        self.data.sample.require_crop(crop)
        if label is not None:
            self.data.read_labels(label)
        self._split = self.data.train if split == "train" else self.data.validation
        self._classes = None if label is None else self.data.classes[split]
        self._order = order_of(self._split, seed, window, shuffle)
        self._decoded = Decoded(self.data, self._split, self._order, crop)
        self._batch, self._drop_last, self._workers = batch, drop_last, workers
        self._place = int(rank or 0), int(world or 1)
        self._about = {
            "data": self.data.fingerprint,
            "split": split,
            "seed": seed,
            "shuffle": bool(shuffle),
            "window": window,
        }
        self._seen, self._weight = 0, 0.0
        self._goes_on = False  # within an epoch: a state was loaded
        self._current = object()  # the iteration that may take batches
        if not len(self):
            raise ConfigError(
                f"distgan.Loader: batch={batch} with drop_last leaves no batch of the"
                f" {len(self._split)} samples"
            )

    def __len__(self) -> int:
        """Return the number of batches of an epoch."""
        n = len(self._split)
        return n // self._batch if self._drop_last else -(-n // self._batch)

    @property
    def part(self) -> int:
        """Return how many samples of a full batch this rank gets."""
        start, stop = self._part(0, self._batch)
        return stop - start

    @property
    def weight(self) -> float:
        """The ranks, divided by the samples of the global batch that was taken last.

        DDP takes the mean of the ranks' gradients: the sum of this rank's losses times the weight
        gives the gradient of the mean loss over the global batch, also where parts differ or are
        empty.
        """
        return self._weight

    @property
    def epoch(self) -> int:
        """Return how many epochs are complete."""
        return self._seen // len(self._split)

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes, by their numbers; () without `label`."""
        return self.data.labels.names if self.data.labels else ()

    def __iter__(self) -> Iterator[Any]:
        return self._batches(*self._begin())

    def samples(self) -> torch.utils.data.IterableDataset:
        """Return the first stage of a `webdataset.DataPipeline`: this rank's samples in their
        order, as {"__key__": key, member: bytes, …}, one epoch for each iteration.

        `wds.batched(loader.part)` makes this rank's parts of the global batches of them, and the
        state counts those that it has given. ConfigError where a part is empty.
        """
        return _Samples(self)

    def state_dict(self) -> dict[str, Any]:
        """Return the position, with what it is a position of; any rank's will do for all."""
        return {WHAT: self._seen, **self._about}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on after a state, also of other ranks and another batch; ConfigError for one of other
        data or another order.
        """
        seen = state.get(WHAT) if isinstance(state, Mapping) else None
        if (
            type(seen) is not int
            or not 0 <= seen <= MOST_SEEN
            or state.keys() != {WHAT, *self._about}
        ):
            raise ConfigError(f"this is no state of a distgan.Loader: {str(state)[:200]}")
        if other := [
            key
            for key, value in self._about.items()
            if type(state[key]) is not type(value) or state[key] != value
        ]:
            found = ", ".join(
                f"{key}={repr(state[key])[:200]} (here {self._about[key]!r})" for key in other
            )
            raise ConfigError(
                f"distgan.Loader: the state is a position in another order of samples: {found}"
            )
        self._seen, self._goes_on, self._current = seen, True, object()

    def _begin(self) -> tuple[object, int]:
        """Return the token and the first position of a new iteration."""
        self._current = object()
        if self._seen % len(self._split) and not self._goes_on:
            return self._current, self._end(self._seen)
        return self._current, self._past_rest(self._seen)

    def _end(self, position: int) -> int:
        return (position // len(self._split) + 1) * len(self._split)

    def _past_rest(self, position: int) -> int:
        """Return the position, or the next epoch where only samples follow that are dropped."""
        left = self._end(position) - position
        return position + left if self._drop_last and left < self._batch else position

    def _cuts(self, start: int) -> Iterator[tuple[int, int]]:
        """Yield the positions [first, stop) of the global batches from `start` to the end of its
        epoch.
        """
        end = self._end(start)
        for first in range(start, end, self._batch):
            if first == self._past_rest(first):
                yield first, min(first + self._batch, end)

    def _part(self, first: int, stop: int) -> tuple[int, int]:
        rank, world = self._place
        size = stop - first
        return first + size * rank // world, first + size * (rank + 1) // world

    def _take(self, token: object, first: int, stop: int) -> None:
        self._require_current(token)
        self._seen, self._goes_on = self._past_rest(stop), False
        self._weight = self._place[1] / (stop - first)

    def _require_current(self, token: object) -> None:
        if token is not self._current:
            raise RuntimeError(
                "distgan.Loader: this iteration has ended, as another was begun or a state loaded;"
                " use one at a time, or one Loader for each"
            )

    def _batches(self, token: object, start: int) -> Iterator[Any]:
        def positions() -> Iterator[np.ndarray]:
            return (np.arange(*self._part(*cut)) for cut in self._cuts(start))

        delivered = deliver(self._decoded, positions, self._workers, CPU)
        for cut, (_, address, samples) in zip(self._cuts(start), delivered, strict=True):
            self._take(token, *cut)
            if self._classes is None:
                yield samples
            else:
                yield samples, torch.from_numpy(self._classes[address % len(self._split)])

    def _members(self, token: object, start: int) -> Iterator[dict[str, Any]]:
        cuts = list(self._cuts(start))
        if cuts and min(stop - first for first, stop in cuts) < self._place[1]:
            raise ConfigError(
                f"distgan.Loader: samples() has none for some of {self._place[1]} ranks in a batch"
                " of fewer, and would take a step less: use drop_last=True, or"
                " another batch"
            )
        for first, stop in cuts:
            numbers, _ = self._order.locate(np.arange(*self._part(first, stop)))
            for left, i in zip(range(len(numbers) - 1, -1, -1), numbers.tolist(), strict=True):
                if left or len(numbers) == 1:
                    self._require_current(token)
                else:
                    self._take(token, first, stop)
                yield self._split[i]
            # wds.batched gives a batch when it is handed the sample after it.
            if len(numbers) == 1:
                self._take(token, first, stop)


class _Samples(torch.utils.data.IterableDataset):
    def __init__(self, loader: Loader):
        self._loader = loader

    def __iter__(self) -> Iterator[dict[str, Any]]:
        if torch.utils.data.get_worker_info():
            raise ConfigError(
                "distgan.Loader: samples() counts what the loop has taken, so it is read in the"
                " loop's process: use the pipeline itself in place of a DataLoader with workers, or"
                " iterate over the Loader, which has workers of its own"
            )
        return self._loader._members(*self._loader._begin())


def _require(rank: Any, world: Any, **numbers: Any) -> None:
    """Raise ConfigError unless all are whole numbers in their ranges; it names every fault."""
    given = {**numbers, "world": world, "rank": rank}
    least = {"batch": 1, "world": 1}
    wrong = [
        f"{name}={value!r}; "
        + (
            f"rank and world belong together: give {name}= as well"
            if value is None and name in ("rank", "world")
            else f"allowed is a whole number from {least.get(name, 0)} on"
        )
        for name, value in given.items()
        if type(value) is not int or value < least.get(name, 0)
    ]
    if not wrong and rank >= world:
        wrong = [f"rank={rank}; allowed are 0 to {world - 1} with world={world}"]
    if wrong:
        raise ConfigError("distgan.Loader: " + "\n  ".join(wrong))
