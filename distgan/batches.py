"""Shards -> training batches of this rank, resumable to the sample; shards -> the whole validation set.

Stream position p -> epoch p // n, sample permutation(seed, epoch)[p % n]. The stream has no end, so there is no tail to drop, pad or hang on,
and the only state is the number of samples seen. Batch k of the run is positions [k B, (k+1) B) for the global batch B; a rank takes
neighbouring positions, so that the order inside the global batch is the same for any number of ranks.
"""

import dataclasses
import functools
import io
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from distgan import console, draws
from distgan.errors import DataError
from distgan.sharing import Breakdown
from shards.index import fingerprint
from shards.reader import ShardSet


@dataclasses.dataclass(frozen=True)
class Micro:
    """A micro-batch of this rank."""

    real: torch.Tensor      # uint8 [per_rank, channels, size, size], on the device
    positions: np.ndarray   # int64 [per_rank], in the endless stream
    address: np.ndarray     # int64 [per_rank], one number per (epoch, sample): where augmentations are drawn
    slots: slice            # where these samples stand in the global batch: cut noise drawn for all of it with this
    batch: int              # the number of the global batch in the run, where noise for it is drawn

    def noise(self, seed: int, purpose: str, size: int, total: int) -> torch.Tensor:
        """Standard normal float32 [per_rank, size] on the device: this rank's rows of the [total, size] drawn for the whole global batch."""
        return draws.normal(seed, purpose, self.batch, (total, size))[self.slots].to(self.real.device)


class Data:
    """A folder made by `distgan shard`: the training split, the validation split, and what their samples are."""

    def __init__(self, folder: str, verify: str = "size"):
        root = Path(folder).expanduser()
        try:
            about = json.loads((root / "dataset.json").read_text())
            self.channels, self.size = int(about["sample"]["channels"]), int(about["sample"]["size"])
        except (FileNotFoundError, NotADirectoryError):
            if (root / "manifest.json").is_file():
                raise DataError(f"{folder} is one split of a data set; name the folder that holds both: data={root.parent}") from None
            raise DataError(f"no shards in {folder}: {root / 'dataset.json'} is missing. Make them: distgan shard particles {folder}") from None
        except OSError as error:
            raise DataError(f"cannot read {root / 'dataset.json'}: {error.strerror}") from None
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(f"{root / 'dataset.json'} is damaged ({error!r}); run `distgan shard` again into a new folder") from None
        self.train, self.validation = ShardSet(root / "train", verify), ShardSet(root / "validation", verify)
        self.fingerprint = fingerprint([self.train.fingerprint, self.validation.fingerprint])

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.channels, self.size, self.size

    def decode(self, split: ShardSet, index: int) -> torch.Tensor:
        """uint8 [channels, size, size]; DataError names the sample."""
        sample = split[index]
        try:
            # PNG alone: of shards from elsewhere Pillow would open anything, and start Ghostscript for a PostScript file of that name.
            with Image.open(io.BytesIO(sample["png"]), formats=("PNG",)) as image:
                pixels = torch.from_numpy(np.array(image.convert("L" if self.channels == 1 else "RGB")))
        except Exception as error:  # SyntaxError for a broken chunk, DecompressionBombError for a size that is a lie
            raise DataError(f"sample {sample['__key__']} does not decode: {error}") from error
        pixels = pixels[None] if self.channels == 1 else pixels.permute(2, 0, 1)
        if pixels.shape != self.shape:
            raise DataError(f"sample {sample['__key__']} is {tuple(pixels.shape)}, the data set says {self.shape}")
        return pixels

    def resident(self, split: ShardSet, label: str) -> torch.Tensor:
        """All samples of a split, uint8 [n, channels, size, size], in shard order."""
        images = torch.empty(len(split), *self.shape, dtype=torch.uint8)
        with console.bar(f"decoding {label}", len(split), "images") as bar:
            for i in range(len(split)):
                images[i] = self.decode(split, i)
                bar.advance()
        return images

    def chunks(self, split: ShardSet, size: int, limit: int | None = None) -> Iterator[torch.Tensor]:
        """The first `limit` samples, or all, in shard order, `size` at a time; the last chunk holds what is left."""
        end = len(split) if limit is None else min(limit, len(split))
        for start in range(0, end, size):
            yield torch.stack([self.decode(split, i) for i in range(start, min(start + size, end))])


@functools.lru_cache(4)
def permutation(n: int, seed: int, epoch: int) -> np.ndarray:
    """The order of one epoch, a pure function of its arguments."""
    return draws.numpy_generator(seed, "order", epoch).permutation(n)


def locate(positions: np.ndarray, n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Stream positions -> (sample numbers, addresses for augmentation = epoch * n + sample)."""
    epochs, at = np.divmod(positions, n)
    samples = np.array([permutation(n, seed, int(e))[a] for e, a in zip(epochs, at, strict=True)])
    return samples, epochs * n + samples


class Stream:
    """Endless global batches from `start` samples seen; yields this rank's micro-batches of each."""

    def __init__(self, data: Data, seed: int, share: Breakdown, rank: int, device: torch.device, *,
                 start: int = 0, workers: int = 0, resident_bytes: int = 0):
        self._data, self._seed, self._share, self._rank, self._device, self._start = data, seed, share, rank, device, start
        self._workers, self._loader = workers, None
        fits = len(data.train) * int(np.prod(data.shape)) <= resident_bytes
        self._images = data.resident(data.train, "training set") if fits else None

    def __iter__(self) -> Iterator[list[Micro]]:
        share, batch = self._share, self._start // self._share.batch
        micros = self._micros(batch)
        while True:
            yield [next(micros) for _ in range(share.accumulation)]

    def _positions(self, batch: int) -> Iterator[np.ndarray]:
        """This rank's positions of one micro-batch after the other."""
        share = self._share
        while True:
            for k in range(share.accumulation):
                start = batch * share.batch + (k * share.ranks + self._rank) * share.per_rank
                yield np.arange(start, start + share.per_rank)
            batch += 1

    def _micros(self, batch: int) -> Iterator[Micro]:
        n = len(self._data.train)
        loaded = self._load(batch)
        for positions in self._positions(batch):
            samples, address = locate(positions, n, self._seed)
            if self._images is not None:
                images = self._images[torch.from_numpy(samples)]
            else:
                numbers, images = next(loaded)
                if isinstance(images, DataError):
                    raise DataError(str(images))  # a new one: `images` would hold this frame, and the loader, until a collection
                if not np.array_equal(numbers, positions):
                    raise RuntimeError(f"the loader delivered stream positions {numbers[:3]}… where {positions[:3]}… were due")
            batch, offset = divmod(int(positions[0]), self._share.batch)
            yield Micro(images.to(self._device, non_blocking=True), positions, address, slice(offset, offset + len(positions)), batch)

    def _load(self, batch: int) -> Iterator[tuple[np.ndarray, torch.Tensor | DataError]]:
        """(positions, images or what is wrong with one) from decoding processes. The sampler deals only this rank's positions: never hand it to `prepare`."""
        loader = torch.utils.data.DataLoader(
            _Decoded(self._data, self._seed), batch_sampler=self._positions(batch), num_workers=self._workers, collate_fn=_collate,
            pin_memory=self._device.type == "cuda")
        return iter(loader) if self._images is None else iter(())


class _Decoded(torch.utils.data.Dataset):
    def __init__(self, data: Data, seed: int):
        self._data, self._seed = data, seed

    def __getitem__(self, position: int) -> tuple[int, torch.Tensor | DataError]:
        (sample,), _ = locate(np.array([position]), len(self._data.train), self._seed)
        try:
            return position, self._data.decode(self._data.train, int(sample))
        except DataError as error:  # handed over: a loader that is left to raise it adds its traceback to the message
            return position, error


def _collate(rows):
    fault = next((image for _, image in rows if isinstance(image, DataError)), None)
    return np.array([position for position, _ in rows]), fault or torch.stack([image for _, image in rows])
