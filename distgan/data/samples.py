"""The format of a sample, image, vector or pair of images or signals: decode it from shards, cut
out a crop; of a WAV file only those bytes are read.
"""

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from distgan.core.errors import ConfigError, DataError
from distgan.data import transforms
from distgan.shards.codecs import array, image_files
from distgan.shards.codecs import audio as audio_codec
from distgan.shards.codecs.fitting import height_width
from distgan.shards.format.reader import ShardSet
from distgan.shards.format.sample_spec import UNITS

Numbers = Sequence[int] | np.ndarray  # of samples in a split


@dataclass(frozen=True)
class Images:
    """The format of images of one size, or of pairs of them: input and target."""

    channels: int
    height: int
    width: int
    fields: tuple[str, ...]  # one or two members: …png, …jpg, …npy; of tars of others also others
    decoding: int = 1  # of tars of others: the version of `codecs.image_files` that reads them
    even = True

    @property
    def kind(self) -> str:
        return "image" if len(self.fields) == 1 else "image_pair"

    @property
    def shape(self) -> tuple[int, ...]:
        image = self.channels, self.height, self.width
        return image if len(self.fields) == 1 else (2, *image)

    @property
    def bytes(self) -> int:
        return math.prod(self.shape)

    @property
    def reads_files(self) -> bool:
        """True where samples are files of images, and no arrays."""
        return not all(field.rpartition(".")[2] == "npy" for field in self.fields)

    def decode(
        self, split: ShardSet, numbers: Numbers, crop: int | None, at: np.ndarray | None
    ) -> np.ndarray:
        """Return uint8 [n, height, width, channels], of pairs [n, 2, height, width, channels].

        Decoders write this layout, and convolutions on GPUs prefer it.
        """
        image = self.height, self.width, self.channels
        batch = np.empty((len(numbers), len(self.fields), *image), np.uint8)
        for outs, i in zip(batch, numbers, strict=True):
            try:
                sample = split.fields_of(i, self.fields)
                for out, field in zip(outs, self.fields, strict=True):
                    image_files.decode(sample[field], field, out, self.decoding, strict=True)
            except DataError:
                raise
            # Any kind: SyntaxError for a broken chunk, DecompressionBombError for a false size.
            except Exception as error:
                raise split.undecodable(i, error) from error
        return batch if len(self.fields) == 2 else batch[:, 0]

    def tensor(self, batch: np.ndarray) -> torch.Tensor:
        """Return [n, channels, height, width] or [n, 2, …], a view of the batch."""
        return torch.from_numpy(batch).movedim(-1, -3)

    def pick(
        self, whole: torch.Tensor, numbers: torch.Tensor, crop: int | None, at: np.ndarray | None
    ) -> torch.Tensor:
        """Return some of the samples that `Data.resident` returned, on their device."""
        return (
            whole.movedim(-3, -1)
            .index_select(0, transforms.to_device_async(numbers, whole.device))
            .movedim(-1, -3)
        )

    def require_crop(self, crop: int | None) -> None:
        assert crop is None


@dataclass(frozen=True)
class Vectors:
    """The format of vectors of numbers, such as rows of a table."""

    size: int
    field: str = "npy"
    columns: tuple[str, ...] = ()  # their names; () where they have none
    kind = "vector"
    even = True

    @property
    def shape(self) -> tuple[int]:
        return (self.size,)

    @property
    def bytes(self) -> int:
        return 4 * self.size

    def decode(
        self, split: ShardSet, numbers: Numbers, crop: int | None, at: np.ndarray | None
    ) -> np.ndarray:
        """Return float32 [n, size]; all values are finite."""
        batch = np.empty((len(numbers), self.size), np.float32)
        for out, i in zip(batch, numbers, strict=True):
            try:
                out[...] = array.vector(split.fields_of(i, (self.field,))[self.field], self.size)
            except DataError:
                raise
            except Exception as error:  # NumPy raises any kind for a damaged header
                raise split.undecodable(i, error) from error
        return batch

    def tensor(self, batch: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(batch)

    def pick(
        self, whole: torch.Tensor, numbers: torch.Tensor, crop: int | None, at: np.ndarray | None
    ) -> torch.Tensor:
        """Return some of the samples that `Data.resident` returned, on their device."""
        return whole.index_select(0, transforms.to_device_async(numbers, whole.device))

    def require_crop(self, crop: int | None) -> None:
        assert crop is None


@dataclass(frozen=True)
class Pairs:
    """The format of pairs of signals, input and target, of equal length and aligned."""

    rate: int  # Hz
    length: int  # frames of the shortest clip
    longest: int
    fields: tuple[str, str]  # members of input and target: …wav or …flac
    dtype: np.dtype  # int16 or float32
    # By the fingerprint of a split, [n, 2, 2]: (first byte, frames) of input and target; 0: not
    # read
    # yet.
    _headers: dict[str, np.ndarray] = field(default_factory=dict, compare=False, repr=False)
    kind = "pair"

    @property
    def shape(self) -> tuple[int, int]:
        return 2, self.length

    @property
    def bytes(self) -> int:
        return 2 * self.longest * self.dtype.itemsize

    @property
    def even(self) -> bool:
        return self.length == self.longest

    def decode(
        self, split: ShardSet, numbers: Numbers, crop: int | None, at: np.ndarray | None
    ) -> np.ndarray:
        """Return int16 or float32 [n, 2, frames]."""
        batch = np.empty((0, 2, crop or self.length), self.dtype)
        for k, i in enumerate(numbers):
            try:
                both = self._crop(split, i, crop, 0.0 if at is None else float(at[k]))
                if k == 0:
                    batch = np.empty((len(numbers), 2, len(both[0])), self.dtype)
                batch[k, 0], batch[k, 1] = both
            except DataError:
                raise
            # Any kind: SyntaxError for a broken chunk, DecompressionBombError for a false size.
            except Exception as error:
                raise split.undecodable(i, error) from error
        return batch

    def _crop(self, split: ShardSet, i: int, crop: int | None, at: float) -> list[np.ndarray]:
        """Return input and target, [frames] each.

        For a short window in WAV files only the headers and its own bytes are read.
        """
        if crop and 2 * crop < self.length and all(field.endswith("wav") for field in self.fields):
            layouts = self._layouts(split, i)
            start = self._start(
                [(layout.frames, layout.channels, layout.rate, layout.dtype) for layout in layouts],
                crop,
                at,
            )
            self._headers[split.fingerprint][i] = [
                (layout.start, layout.frames) for layout in layouts
            ]
            return [
                np.frombuffer(split.read_range(i, field, *layout.span(start, crop)), layout.dtype)
                for field, layout in zip(self.fields, layouts, strict=True)
            ]
        sample = split.fields_of(i, self.fields)
        both = [
            (audio_codec.read_flac if field.endswith("flac") else audio_codec.read_wav)(
                sample[field]
            )
            for field in self.fields
        ]
        start = self._start([(*wave.shape, rate, wave.dtype) for wave, rate in both], crop, at)
        return [wave[start : start + crop if crop else None, 0] for wave, _ in both]

    def _layouts(self, split: ShardSet, i: int) -> list[audio_codec.Layout]:
        """Return where the values of input and target begin; each header is read once."""
        heads = self._headers.setdefault(
            split.fingerprint, np.zeros((len(split), 2, 2), np.uint32)
        )[i].tolist()
        if all(start for start, _ in heads):
            return [
                audio_codec.Layout(start, frames, 1, self.rate, self.dtype)
                for start, frames in heads
            ]
        sizes = [split.size(i, field) for field in self.fields]
        return [
            audio_codec.read_layout(functools.partial(split.read_range, i, field), size)
            for field, size in zip(self.fields, sizes, strict=True)
        ]

    def _start(
        self, both: list[tuple[int, int, int, np.dtype]], crop: int | None, at: float
    ) -> int:
        """Return the first frame of the window; `both`: (frames, channels, rate, type) of input and
        target. Raises ValueError where they differ from each other or from the data set.
        """
        frames = both[0][0]
        if (
            both[0] != both[1]
            or both[0][1:] != (1, self.rate, self.dtype)
            or not self.length <= frames <= self.longest
        ):
            raise ValueError(
                f"input has (frames, channels, rate, type) {_words(both[0])}, target"
                f" {_words(both[1])}; the data set says {self.length} to {self.longest} frames of"
                f" one channel at {self.rate} Hz, {self.dtype}"
            )
        return int(at * (frames - crop + 1)) if crop else 0

    def tensor(self, batch: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(batch)

    def pick(
        self, whole: torch.Tensor, numbers: torch.Tensor, crop: int | None, at: np.ndarray | None
    ) -> torch.Tensor:
        """Return some of the samples that `Data.resident` returned, on their device."""
        if crop is None or at is None:
            return whole.index_select(0, transforms.to_device_async(numbers, whole.device))
        starts = (at * (whole.shape[2] - crop + 1)).astype(np.int64).tolist()
        return torch.stack(
            [
                whole[i, :, start : start + crop]
                for i, start in zip(numbers.tolist(), starts, strict=True)
            ]
        )

    def require_crop(self, crop: int | None) -> None:
        if crop is None and not self.even:
            raise ConfigError(
                f"data: clips have {self.length} to {self.longest} frames; a recipe that takes them"
                " whole needs one length"
            )
        if crop is not None and crop > self.length:
            raise ConfigError(
                f"data: windows of {crop} frames are asked for, the shortest clip has {self.length}"
            )


def _words(values: tuple) -> str:
    return ", ".join(map(str, values))


def trainable_sample(entry: dict[str, Any]) -> Images | Pairs | Vectors:
    """Return the format that the entry `sample` of dataset.json describes.

    Raises DataError where no recipe can train on such samples.
    """
    kind = entry["kind"]
    if kind == "pair":
        fields, dtype = tuple(entry["fields"]), np.dtype(entry["dtype"])
        return Pairs(entry["rate"], entry["length"], entry["longest"], fields, dtype)
    if kind == "vector":
        return Vectors(entry["size"], entry["field"], tuple(entry.get("columns", ())))
    if kind in ("image", "image_pair") and entry.get("size"):
        size = height_width(entry["size"])
        fields = (entry.get("field", "png"),) if kind == "image" else tuple(entry["fields"])
        return Images(entry["channels"], *size, fields, entry.get("decoding", 1))
    if kind in ("image", "image_pair"):
        raise DataError(
            "images of different sizes cannot be trained on; unpack them and make one size: distgan"
            f" shard {kind}s OUT --from FOLDER --size 64"
        )
    raise DataError(
        f"samples of kind {kind!r} cannot be trained on; there are {', '.join(UNITS.values())}"
    )
