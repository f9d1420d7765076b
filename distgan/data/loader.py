"""Load this rank's training batches from shards, resumable to the sample.

The order is a pure function of the position in an endless stream (`order`), so the only state is
the number of samples seen. Batch k of the run is positions [k B, (k+1) B) for the global batch B; a
rank takes neighbouring positions, so that the order inside the global batch is the same for any
number of ranks.
"""

import dataclasses
import os
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import torch

from distgan.config.batch_layout import BatchLayout
from distgan.core import rng
from distgan.core.clock import Clock
from distgan.core.errors import DataError
from distgan.core.interrupts import ignore_stop_signals
from distgan.data import transforms
from distgan.data.dataset import Data
from distgan.data.order import Order
from distgan.data.samples import Pairs
from distgan.shards.format.reader import ShardSet

SHARED_MEMORY = "/dev/shm"
# Positions, addresses, and the samples or the error of one of them.
_Delivered = tuple[np.ndarray, np.ndarray, torch.Tensor | DataError]


@dataclasses.dataclass(frozen=True)
class MicroBatch:
    """A micro-batch of this rank."""

    # On the device: images uint8 [per_rank, channels, height, width], pairs of them [per_rank, 2,
    # channels, height, width]; pairs of signals int16 or float32 [per_rank, 2, frames]; vectors
    # float32 [per_rank, size].
    real: torch.Tensor
    positions: np.ndarray  # int64 [per_rank], in the endless stream
    # int64 [per_rank], one number per (epoch, sample): the address of its augmentations.
    address: np.ndarray
    rows: slice  # of these samples in the global batch: cut noise for all of it with this
    batch_index: int  # the number of the global batch in the run: the address of its noise
    labels: torch.Tensor | None = None  # int64 [per_rank], the classes, if networks are given them

    def noise(self, seed: int, purpose: str, size: int, total: int) -> torch.Tensor:
        """Return standard normal float32 [per_rank, size] on the device: these samples' rows of
        the [total, size] drawn for the whole global batch.
        """
        return transforms.to_device_async(
            rng.normal(seed, purpose, self.batch_index, (total, size))[self.rows], self.real.device
        )

    def uniform(self, seed: int, purpose: str, size: int) -> torch.Tensor:
        """Return float32 [per_rank, size] in [0, 1) on the device.

        The address of each number is its sample's position in the stream and its column.
        """
        index = self.positions[:, None] * size + np.arange(size)
        return transforms.to_device_async(
            torch.from_numpy(rng.uniform(seed, purpose, index)).float(), self.real.device
        )

    def dropout(
        self, seed: int, purpose: str, size: int, rate: float, dtype: torch.dtype = torch.float32
    ) -> torch.Tensor:
        """Return the factors of dropout [per_rank, size] on the device: 0 with probability `rate`,
        else 1 / (1 - rate).

        Give them to the network as an input; its layers multiply channels by them.
        """
        return (self.uniform(seed, purpose, size) >= rate).to(dtype) / (1 - rate)


def require_due(
    batches: list[list[MicroBatch]], layout: BatchLayout, rank: int, now: Clock
) -> None:
    """Raise RuntimeError unless this rank holds exactly the stream positions that are due.

    A loader that shards twice, or skips, fails at the first step.
    """
    start = now.samples
    for batch in batches:
        for k, micro in enumerate(batch):
            first = start + (k * layout.ranks + rank) * layout.per_rank
            if not np.array_equal(micro.positions, np.arange(first, first + layout.per_rank)):
                raise RuntimeError(
                    f"step {now.step + 1}, rank {rank}: the batch holds stream positions"
                    f" {micro.positions[:3]}…, due are {first}…{first + layout.per_rank - 1}"
                )
        start += layout.batch


class Stream:
    """Iterate without end over this rank's micro-batches of each global batch, beginning after
    `start` samples.

    `crop`: frames of the window cut out of each pair, at a place drawn from its address. `window`:
    see `Order`. A training set of at most `resident_bytes` is decoded once and kept on the device;
    otherwise `workers` processes decode ahead.
    """

    def __init__(
        self,
        data: Data,
        seed: int,
        layout: BatchLayout,
        rank: int,
        device: torch.device,
        *,
        start: int = 0,
        workers: int = 0,
        resident_bytes: int = 0,
        window: int = 0,
        crop: int | None = None,
    ):
        data.sample.require_crop(crop)
        assert start % layout.batch == 0, "start is a whole number of batches"
        self._layout, self._rank, self._device = layout, rank, device
        self._start, self._workers = start, workers
        self._classes = data.classes.get("train")
        self._decoded = Decoded(data, data.train, order_of(data.train, seed, window), crop)
        if data.sample.even and len(data.train) * data.sample.bytes <= resident_bytes:
            self._decoded.resident = data.resident(data.train, "training set").to(device)

    def require_room(self) -> None:
        """Raise DataError where the batches that wait for this host's ranks exceed its shared
        memory; a container may have 64 MB of it.
        """
        if not self._workers or self._decoded.resident is not None:
            return
        try:
            disk = os.statvfs(SHARED_MEMORY)
        except OSError:  # not Linux
            return
        # Two for each process, and the one in use.
        batches = (2 * self._workers + 1) * int(os.environ.get("LOCAL_WORLD_SIZE", 1))
        need = batches * self._layout.per_rank * self._decoded.sample_bytes
        free = disk.f_bavail * disk.f_frsize
        if need > free:
            raise DataError(
                _no_room(f"{free / 1e6:.3g} MB are free and {need / 1e6:.3g} MB needed")
            )

    def __iter__(self) -> Iterator[list[MicroBatch]]:
        micros = self._micros(self._start // self._layout.batch)
        while True:
            yield [next(micros) for _ in range(self._layout.accumulation)]

    def _positions(self, batch: int) -> Iterator[np.ndarray]:
        """Yield this rank's positions of one micro-batch after the other."""
        layout = self._layout
        while True:
            for k in range(layout.accumulation):
                start = batch * layout.batch + (k * layout.ranks + self._rank) * layout.per_rank
                yield np.arange(start, start + layout.per_rank)
            batch += 1

    def _micros(self, batch: int) -> Iterator[MicroBatch]:
        for positions, address, real in deliver(
            self._decoded, partial(self._positions, batch), self._workers, self._device
        ):
            index, offset = divmod(int(positions[0]), self._layout.batch)
            rows = slice(offset, offset + len(positions))
            yield MicroBatch(real, positions, address, rows, index, self._labels(address))

    def _labels(self, address: np.ndarray) -> torch.Tensor | None:
        """Return the classes of samples at these addresses [k]: int64 [k] on the device."""
        if self._classes is None:
            return None
        classes = self._classes[address % len(self._classes)]
        return transforms.to_device_async(torch.from_numpy(classes), self._device)


def order_of(split: ShardSet, seed: int, window: int, shuffle: bool = True) -> Order:
    """Return the order of a split's samples."""
    return Order(len(split), seed, window, tuple(split.bounds), shuffle)


def deliver(
    decoded: "Decoded",
    positions: Callable[[], Iterator[np.ndarray]],
    workers: int,
    device: torch.device,
) -> Iterator[tuple[np.ndarray, np.ndarray, torch.Tensor]]:
    """Yield (positions, addresses, samples) for the positions of one micro-batch after the other.

    DataError names a sample that cannot be read.
    """
    ahead = _ahead(decoded, positions(), workers, device)
    for due, (found, address, real) in zip(positions(), ahead, strict=True):
        if isinstance(real, DataError):
            # A new error: `real` would keep this frame and the loader alive.
            raise DataError(str(real))
        if not np.array_equal(found, due):
            raise RuntimeError(
                f"the loader delivered stream positions {found[:3]}… where {due[:3]}… were due"
            )
        yield due, address, real


def _ahead(
    decoded: "Decoded", positions: Any, workers: int, device: torch.device
) -> Iterator[_Delivered]:
    delivered: Iterator[_Delivered]
    if decoded.resident is not None:
        return map(decoded.pick, positions)
    if workers:
        # The sampler yields this rank's positions only: accelerate must not prepare the loader.
        delivered = iter(
            torch.utils.data.DataLoader(
                decoded,
                batch_sampler=positions,
                num_workers=workers,
                collate_fn=_unchanged,
                worker_init_fn=ignore_stop_signals,
                pin_memory=device.type == "cuda",
                generator=torch.Generator(),  # or it would draw from the program's
            )
        )
    else:
        delivered = map(decoded.__getitems__, positions)
    return _one_ahead(delivered, device) if device.type == "cuda" else delivered


def located(
    data: Data, seed: int, window: int, positions: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return (sample numbers [k], addresses [k]) for stream positions [k]."""
    return order_of(data.train, seed, window).locate(positions)


def again(
    data: Data, seed: int, window: int, crop: int | None, positions: np.ndarray
) -> torch.Tensor:
    """Read the samples at these stream positions anew from the shards, as the stream delivered
    them. DataError names a sample.
    """
    order = order_of(data.train, seed, window)
    _, _, real = Decoded(data, data.train, order, crop).__getitems__(positions)
    if isinstance(real, DataError):
        raise real
    return real


class Decoded(torch.utils.data.Dataset):
    """Whole micro-batches of a split by stream position, decoded straight into one array."""

    def __init__(self, data: Data, split: ShardSet, order: Order, crop: int | None):
        self._data, self._split, self._order, self._crop = data, split, order, crop
        self.resident: Any = None  # all samples on the device, where they are kept there

    def __getitems__(self, positions: np.ndarray) -> _Delivered:
        samples, address = self._order.locate(positions)
        try:
            real = self._data.decode(
                self._split, samples.tolist(), self._crop, self._places(address)
            )
            if torch.utils.data.get_worker_info():
                _share(real)
            return positions, address, real
        # Returned, not raised: the loader would add a worker's traceback to the message.
        except DataError as error:
            return positions, address, error

    @property
    def sample_bytes(self) -> int:
        """Bytes of a sample, or of the window that is cut out of it."""
        sample, crop = self._data.sample, self._crop
        if isinstance(sample, Pairs) and crop:
            return 2 * crop * sample.dtype.itemsize
        return sample.bytes

    def pick(self, positions: np.ndarray) -> _Delivered:
        """Return what `__getitems__` does, from samples in memory."""
        samples, address = self._order.locate(positions)
        return (
            positions,
            address,
            self._data.sample.pick(
                self.resident, torch.from_numpy(samples), self._crop, self._places(address)
            ),
        )

    def _places(self, address: np.ndarray) -> np.ndarray | None:
        return (
            None if self._crop is None else rng.uniform(self._order.seed, "augment/crop", address)
        )


def _share(batch: torch.Tensor) -> None:
    """Move a batch to shared memory. DataError where there is no room; the loader's own thread
    would do it later, and drop the batch.
    """
    try:
        batch.share_memory_()
    except RuntimeError as error:
        raise DataError(_no_room(f"a batch finds no room ({error})")) from None


def _no_room(what: str) -> str:
    return (
        f"decoding processes hand batches over in {SHARED_MEMORY}, where {what}. Use"
        " machine.workers=0, or give it more room: docker run --shm-size=1g, or mount -o"
        f" remount,size=1g {SHARED_MEMORY}"
    )


def _unchanged(delivered: Any) -> Any:
    return delivered


def _one_ahead(delivered: Iterator[_Delivered], device: torch.device) -> Iterator[_Delivered]:
    """Copy the next batch to the GPU while the present one is used.

    From pinned memory, on a CUDA stream of its own.
    """
    side = torch.cuda.Stream(device)

    def copied() -> _Delivered:
        positions, address, real = next(delivered)
        if isinstance(real, torch.Tensor):
            with torch.cuda.stream(side):
                real = real.to(device, non_blocking=True)
        return positions, address, real

    waiting = copied()
    while True:
        # Before the next copy is queued, or the end of that copy would be waited for as well.
        torch.cuda.current_stream(device).wait_stream(side)
        present, waiting = waiting, copied()
        if isinstance(present[2], torch.Tensor):
            present[2].record_stream(torch.cuda.current_stream(device))
        yield present
