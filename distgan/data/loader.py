"""Shards -> training batches of this rank, resumable to the sample.

The order is a pure function of the position in an endless stream (`order`), so the only state is
the number of samples seen. Batch k of the run is positions [k B, (k+1) B) for the global batch B; a
rank takes neighbouring positions, so that the order inside the global batch is the same for any
number of ranks.
"""

import dataclasses
from collections.abc import Iterator

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

_Delivered = tuple[
    np.ndarray, np.ndarray, torch.Tensor | DataError
]  # positions, addresses, samples or what is wrong with one of them


@dataclasses.dataclass(frozen=True)
class MicroBatch:
    """A micro-batch of this rank."""

    # on the device: images uint8 [per_rank, channels, size, size]; pairs int16 or float32
    # [per_rank, 2, frames]
    real: torch.Tensor
    positions: np.ndarray  # int64 [per_rank], in the endless stream
    address: (
        np.ndarray
    )  # int64 [per_rank], one number per (epoch, sample): where augmentations are drawn
    # where these samples stand in the global batch: cut noise drawn for all of it with this
    rows: slice
    batch_index: int  # the number of the global batch in the run, where noise for it is drawn

    def noise(self, seed: int, purpose: str, size: int, total: int) -> torch.Tensor:
        """Standard normal float32 [per_rank, size] on the device.

        This rank's rows of the [total, size] drawn for the whole global batch.
        """
        return transforms.to_device_async(
            rng.normal(seed, purpose, self.batch_index, (total, size))[self.rows], self.real.device
        )

    def uniform(self, seed: int, purpose: str, size: int) -> torch.Tensor:
        """float32 [per_rank, size] in [0, 1) on the device, each number from its own address.

        Position in the stream and column.
        """
        index = self.positions[:, None] * size + np.arange(size)
        return transforms.to_device_async(
            torch.from_numpy(rng.uniform(seed, purpose, index)).float(), self.real.device
        )


def require_due(
    batches: list[list[MicroBatch]], layout: BatchLayout, rank: int, now: Clock
) -> None:
    """Every rank holds just the stream positions that are due.

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
    """Endless global batches from `start` samples seen; yields this rank's micro-batches of each.

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
        assert start % layout.batch == 0, "a run stands between two batches"
        self._layout, self._rank, self._device, self._start, self._workers = (
            layout,
            rank,
            device,
            start,
            workers,
        )
        self._decoded = _Decoded(
            data, Order(len(data.train), seed, window, tuple(data.train.bounds)), seed, crop
        )
        if data.sample.even and len(data.train) * data.sample.bytes <= resident_bytes:
            self._decoded.resident = data.resident(data.train, "training set").to(device)

    def __iter__(self) -> Iterator[list[MicroBatch]]:
        micros = self._micros(self._start // self._layout.batch)
        while True:
            yield [next(micros) for _ in range(self._layout.accumulation)]

    def _positions(self, batch: int) -> Iterator[np.ndarray]:
        """This rank's positions of one micro-batch after the other."""
        layout = self._layout
        while True:
            for k in range(layout.accumulation):
                start = batch * layout.batch + (k * layout.ranks + self._rank) * layout.per_rank
                yield np.arange(start, start + layout.per_rank)
            batch += 1

    def _micros(self, batch: int) -> Iterator[MicroBatch]:
        for positions, (found, address, real) in zip(
            self._positions(batch), self._delivered(batch), strict=True
        ):
            if isinstance(real, DataError):
                raise DataError(
                    str(real)
                )  # a new one: `real` would hold this frame, and the loader, until a collection
            if not np.array_equal(found, positions):
                raise RuntimeError(
                    f"the loader delivered stream positions {found[:3]}… where {positions[:3]}…"
                    " were due"
                )
            at, offset = divmod(int(positions[0]), self._layout.batch)
            yield MicroBatch(real, positions, address, slice(offset, offset + len(positions)), at)

    def _delivered(self, batch: int) -> Iterator["_Delivered"]:
        positions = self._positions(batch)
        if self._decoded.resident is not None:
            return map(self._decoded.pick, positions)
        if (
            self._workers
        ):  # the sampler deals only this rank's positions: never hand the loader to `prepare`
            delivered = iter(
                torch.utils.data.DataLoader(
                    self._decoded,
                    batch_sampler=positions,
                    num_workers=self._workers,
                    collate_fn=_as_it_is,
                    worker_init_fn=ignore_stop_signals,
                    pin_memory=self._device.type == "cuda",
                )
            )
        else:
            delivered = map(self._decoded.__getitems__, positions)
        return _one_ahead(delivered, self._device) if self._device.type == "cuda" else delivered


def located(
    data: Data, seed: int, window: int, positions: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Stream positions [k] -> (sample numbers [k], addresses [k])."""
    return Order(len(data.train), seed, window, tuple(data.train.bounds)).locate(positions)


def again(
    data: Data, seed: int, window: int, crop: int | None, positions: np.ndarray
) -> _Delivered:
    """What the stream delivered at these positions, read anew from the shards.

    DataError names a sample.
    """
    found = _Decoded(
        data, Order(len(data.train), seed, window, tuple(data.train.bounds)), seed, crop
    ).__getitems__(positions)
    if isinstance(found[2], DataError):
        raise found[2]
    return found


class _Decoded(torch.utils.data.Dataset):
    """Whole micro-batches by stream position, decoded straight into one array."""

    def __init__(self, data: Data, order: Order, seed: int, crop: int | None):
        self._data, self._order, self._seed, self._crop = data, order, seed, crop
        self.resident: torch.Tensor | None = None

    def __getitems__(self, positions: np.ndarray) -> _Delivered:
        samples, address = self._order.locate(positions)
        try:
            return (
                positions,
                address,
                self._data.decode(
                    self._data.train, samples.tolist(), self._crop, self._places(address)
                ),
            )
        # handed over: a loader that is left to raise it adds its traceback to the message
        except DataError as error:
            return positions, address, error

    def pick(self, positions: np.ndarray) -> _Delivered:
        """The same from samples in memory."""
        samples, address = self._order.locate(positions)
        return (
            positions,
            address,
            self._data.sample.pick(
                self.resident, torch.from_numpy(samples), self._crop, self._places(address)
            ),
        )

    def _places(self, address: np.ndarray) -> np.ndarray | None:
        return None if self._crop is None else rng.uniform(self._seed, "augment/crop", address)


def _as_it_is(delivered: _Delivered) -> _Delivered:
    return delivered


def _one_ahead(delivered: Iterator[_Delivered], device: torch.device) -> Iterator[_Delivered]:
    """Copies the next batch to the GPU, from pinned memory and on a stream of its own, while the
    present one is used.
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
        torch.cuda.current_stream(device).wait_stream(
            side
        )  # before the next copy is asked for, or its end would be waited for as well
        present, waiting = waiting, copied()
        if isinstance(present[2], torch.Tensor):
            present[2].record_stream(torch.cuda.current_stream(device))
        yield present
