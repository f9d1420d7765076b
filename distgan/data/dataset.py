"""A folder of shards as arrays: the training split, the validation split, and what one sample is."""

import json
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from distgan.core import console, watchdog
from distgan.core.errors import ConfigError, DataError
from distgan.data import transforms
from distgan.shards.codecs import audio as audio_codec
from distgan.shards.codecs import image as image_codec
from distgan.shards.format.manifest import fingerprint
from distgan.shards.format.reader import ShardSet, open_parts
from distgan.shards.format.sample_spec import sample_of


def _nothing(folder: str, root: Path) -> str:
    """What is the matter with a folder without dataset.json, and what to do."""
    if root.is_file():
        return f"{folder} is a file; data= names a folder of shards"
    whole = next(
        (one for one in (root.parent, root.resolve().parent) if (one / "dataset.json").is_file()),
        None,
    )  # of `.` only the second
    if (root / "manifest.json").is_file() and whole:
        return (
            f"{folder} is one split of a data set; name the folder that holds both:"
            f" {shlex.quote(f'data={whole}')}"
        )
    if (root / "manifest.json").is_file():
        return (
            f"{folder} holds shards with an index, but is no data set: that takes two tars or more,"
            " of which some are held out"
        )
    return (
        f"no shards in {folder}: {root / 'dataset.json'} is missing. Make them: distgan shard"
        f" particles {shlex.quote(folder)}; or, where WebDataset tars lie there: distgan index"
        f" {shlex.quote(folder)}"
    )


class Data:
    """A folder made by `distgan shard`, or adopted by `distgan index`."""

    def __init__(self, folder: str, verify: str = "size"):
        self.folder = root = Path(folder).expanduser()
        try:
            about = json.loads((root / "dataset.json").read_bytes())
            self.sample = _sample(sample_of(about))
        except (FileNotFoundError, NotADirectoryError):
            raise DataError(_nothing(folder, root)) from None
        except OSError as error:
            raise DataError(f"cannot read {root / 'dataset.json'}: {error.strerror}") from None
        except (ValueError, RecursionError) as error:
            raise DataError(
                f"{root / 'dataset.json'} is damaged ({error}); run `distgan shard` again into a"
                " new folder"
            ) from None
        parts = open_parts(root, verify)
        self.train, self.validation = parts["train"], parts["validation"]
        self.fingerprint = fingerprint([self.train.fingerprint, self.validation.fingerprint])
        if (stated := about.get("fingerprint")) not in (
            None,
            self.fingerprint,
        ):  # a shard left out of `parts` is noticed by this alone
            raise DataError(
                f"{root / 'dataset.json'} is damaged, or of other shards: it has fingerprint"
                f" {stated}, they have {self.fingerprint}"
            )

    @property
    def kind(self) -> str:
        """`image` or `pair`."""
        return self.sample.kind

    @property
    def shape(self) -> tuple[int, ...]:
        """Of a sample: (channels, size, size), or (2, frames of the shortest clip)."""
        return self.sample.shape

    def decode(
        self,
        split: ShardSet,
        numbers: Sequence[int] | np.ndarray,
        crop: int | None = None,
        at: np.ndarray | None = None,
    ) -> torch.Tensor:
        """The samples of these numbers: uint8 [n, channels, size, size], in memory by pixels, or
        int16 or float32 [n, 2, frames].

        Of pairs, a window of `crop` frames of both alike; `at` [n] in [0, 1) says where it begins
        between the first place and the last. DataError names the sample.
        """
        return self.sample.tensor(self.sample.decode(split, numbers, crop, at))

    def resident(self, split: ShardSet, label: str) -> torch.Tensor:
        """All samples of a split, as `decode` gives them, in shard order."""
        whole: np.ndarray | None = None
        with console.bar(f"decoding {label}", len(split), f"{self.kind}s") as bar:
            for i in range(len(split)):
                one = self.sample.decode(split, [i], None, None)
                whole = (
                    np.empty((len(split), *one.shape[1:]), one.dtype) if whole is None else whole
                )
                whole[i] = one[0]
                bar.advance()
        return self.sample.tensor(whole)

    def chunks(
        self, split: ShardSet, size: int, limit: int | None = None
    ) -> Iterator[torch.Tensor]:
        """The first `limit` samples, or all, whole and in shard order, `size` at a time; the last
        chunk holds what is left: weigh it by its samples.

        Clips of different lengths come one by one.
        """
        end, size = (
            len(split) if limit is None else min(limit, len(split)),
            (size if self.sample.even else 1),
        )
        for start in range(0, end, size):
            watchdog.beat()
            yield self.decode(split, range(start, min(start + size, end)))

    def require(self, recipe: str, kind: str, crop: int | None) -> None:
        """ConfigError if the recipe trains on another kind, or windows of `crop` frames (None.

        Whole samples) cannot be cut out of every sample.
        """
        if kind != self.kind:
            raise ConfigError(f"data: {recipe} trains on {kind}s, this data set holds {self.kind}s")
        self.sample.require_crop(crop)


@dataclass(frozen=True)
class Images:
    """Square images of one size."""

    channels: int
    size: int
    field: str  # png, jpg or npy
    kind = "image"
    even = True

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.channels, self.size, self.size

    @property
    def bytes(self) -> int:
        return self.channels * self.size**2

    def decode(self, split: ShardSet, numbers: Sequence[int], crop: None, at: None) -> np.ndarray:
        """uint8 [n, size, size, channels].

        The layout in which decoders write, and the one that convolutions on GPUs prefer.
        """
        batch = np.empty((len(numbers), self.size, self.size, self.channels), np.uint8)
        fields = (self.field,)
        for out, i in zip(batch, numbers, strict=True):
            try:
                image_codec.decode(
                    split.fields_of(i, fields)[self.field], self.field, out, strict=True
                )
            except DataError:
                raise
            # anything: SyntaxError for a broken chunk, DecompressionBombError for a size that is a
            # lie
            except Exception as error:
                raise _undecodable(split, i, error) from error
        return batch

    def tensor(self, batch: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(batch).permute(0, 3, 1, 2)

    def pick(
        self, whole: torch.Tensor, numbers: torch.Tensor, crop: None, at: None
    ) -> torch.Tensor:
        """Some of what `resident` gave, on its device."""
        return (
            whole.permute(0, 2, 3, 1)
            .index_select(0, transforms.to_device_async(numbers, whole.device))
            .permute(0, 3, 1, 2)
        )

    def require_crop(self, crop: int | None) -> None:
        assert crop is None


@dataclass(frozen=True)
class Pairs:
    """Two signals, input and target, of equal length and aligned."""

    rate: int  # Hz
    length: int  # frames of the shortest clip
    longest: int
    fields: tuple[str, str]  # members of input and target: …wav or …flac
    dtype: np.dtype  # int16 or float32
    _heads: dict[str, np.ndarray] = field(
        default_factory=dict, compare=False, repr=False
    )  # of a split, [n, 2, 2]: first byte, frames; 0: not read yet
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
        self, split: ShardSet, numbers: Sequence[int], crop: int | None, at: np.ndarray | None
    ) -> np.ndarray:
        """int16 or float32 [n, 2, frames]."""
        batch: np.ndarray | None = None
        for k, i in enumerate(numbers):
            try:
                both = self._window(split, i, crop, 0.0 if at is None else float(at[k]))
                batch = (
                    np.empty((len(numbers), 2, len(both[0])), self.dtype)
                    if batch is None
                    else batch
                )
                batch[k, 0], batch[k, 1] = both
            except DataError:
                raise
            # anything: SyntaxError for a broken chunk, DecompressionBombError for a size that is a
            # lie
            except Exception as error:
                raise _undecodable(split, i, error) from error
        return batch

    def _window(self, split: ShardSet, i: int, crop: int | None, at: float) -> list[np.ndarray]:
        """Input and target, [frames] each.

        Of a short window in WAV files, only its bytes and the headers are read.
        """
        if crop and 2 * crop < self.length and all(field.endswith("wav") for field in self.fields):
            layouts = self._layouts(split, i)
            start = self._start(
                [(layout.frames, layout.channels, layout.rate, layout.dtype) for layout in layouts],
                crop,
                at,
            )
            self._heads[split.fingerprint][i] = [
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
        """Where the values of input and target lie.

        From the headers, or as they were found the first time.
        """
        heads = self._heads.setdefault(split.fingerprint, np.zeros((len(split), 2, 2), np.uint32))[
            i
        ].tolist()
        if all(start for start, _ in heads):
            return [
                audio_codec.Layout(start, frames, 1, self.rate, self.dtype)
                for start, frames in heads
            ]
        sizes = [split.size(i, field) for field in self.fields]
        return [
            audio_codec.wav_layout(
                split.read_range(i, field, 0, min(audio_codec.HEAD_BYTES, size)), size
            )
            for field, size in zip(self.fields, sizes, strict=True)
        ]

    def _start(
        self, both: list[tuple[int, int, int, np.dtype]], crop: int | None, at: float
    ) -> int:
        """The first frame of the window.

        `both` are (frames, channels, rate, type) of input and target.
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
        """Some of what `resident` gave, on its device."""
        if crop is None:
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


def _undecodable(split: ShardSet, i: int, error: Exception) -> DataError:
    return DataError(f"sample {split.key(i)} does not decode: {error}")


def _sample(about: dict[str, Any]) -> Images | Pairs:
    """The entry `sample` of dataset.json; DataError where nothing can be trained on it."""
    if about["kind"] == "pair":
        return Pairs(
            about["rate"],
            about["length"],
            about["longest"],
            tuple(about["fields"]),
            np.dtype(about["dtype"]),
        )
    if about["kind"] == "image" and about.get("size"):
        return Images(about["channels"], about["size"], about.get("field", "png"))
    raise DataError(
        "images of different sizes cannot be trained on; unpack them and make one size: distgan"
        " shard images OUT --from FOLDER --size 64"
        if about["kind"] == "image"
        else f"samples of kind {about['kind']!r} cannot be trained on; there are images and pairs"
    )
