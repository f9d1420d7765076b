"""Pairs of signals in files: match them by name, load them, read parts of them."""

import functools
import math
import os
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from distgan.core.errors import ConfigError, DataError
from distgan.core.file_tree import Contents, find_files, keys_of, shown
from distgan.shards.audio import align
from distgan.shards.codecs import audio as audio_codec

SOUNDS = (".aif", ".aiff", ".au", ".caf", ".flac", ".mp3", ".oga", ".ogg", ".opus", ".w64", ".wav")
ARRAYS = (".npy",)
# the others are decoded from their beginning: seeking misses Ogg's last page
_SEEKABLE = (".aif", ".aiff", ".au", ".caf", ".flac", ".w64", ".wav")
INPUT, TARGET = "input", "target"
SILENT_PEAK = 1e-3  # -60 dB of full scale
_FILTER_REACH = 64  # samples of the lower rate within which the resampling filter has died away


def pair_sample(
    rate: int, extension: str, dtype: str, lengths: Iterable[int], **more: Any
) -> dict[str, Any]:
    """Return the entry `sample` of dataset.json for pairs; `lengths` in frames."""
    lengths = list(lengths)
    return {
        "kind": "pair",
        "rate": rate,
        "fields": [f"{INPUT}.{extension}", f"{TARGET}.{extension}"],
        "dtype": dtype,
        "length": min(lengths, default=0),
        "longest": max(lengths, default=0),
        **more,
    }


def named(files: Iterable[str], most: int = 20) -> str:
    """Format file names for a message: `a.wav, b.wav and 3 more`."""
    files = [shown(file) for file in files]
    return ", ".join(files[:most]) + (f" and {len(files) - most} more" if len(files) > most else "")


class FilePairs:
    """Files of two folders with the same names, extensions aside.

    `complete`: ConfigError names every file without a partner; otherwise `notes` count them.
    """

    def __init__(
        self,
        inputs: Path,
        targets: Path,
        extensions: tuple[str, ...] = SOUNDS,
        complete: bool = False,
    ):
        self.folders = (inputs, targets)
        sides = [self.by_stem(folder, extensions) for folder in self.folders]
        stems = [stem for stem in sides[0] if stem in sides[1]]
        lone = [
            [file for stem, file in side.items() if stem not in other]
            for side, other in (sides, sides[::-1])
        ]
        if not stems:
            raise ConfigError(
                f"no file of {inputs} has the same name as one of {targets} (extensions aside): "
                f"{named(lone[0], 3)} there, {named(lone[1], 3)} here"
            )
        if complete and any(lone):
            lines = [
                f"  {folder / shown(file)}: no file of that name in {other}"
                for folder, other, files in zip(self.folders, self.folders[::-1], lone, strict=True)
                for file in files
            ]
            raise ConfigError(
                f"{len(lines)} files have no partner of the same name (extensions aside):\n"
                + "\n".join(lines)
            )
        self.files = [(sides[0][stem], sides[1][stem]) for stem in stems]
        self.names = [shown(file) for file, _ in self.files]
        self.keys = keys_of([file for file, _ in self.files])
        self.groups = self.keys
        self.notes = [
            f"{len(files)} without {side}, left out: {named(files)}"
            for files, side in ((lone[0], "a target"), (lone[1], "an input"))
            if files
        ]

    @classmethod
    def in_one_folder(
        cls, folder: Path, extensions: tuple[str, ...] = SOUNDS, complete: bool = False
    ) -> "FilePairs":
        """Match the files of FOLDER/input and FOLDER/target."""
        missing = [side for side in (INPUT, TARGET) if not (folder / side).is_dir()]
        if missing:
            raise ConfigError(
                f"{folder} has no folder {' and no folder '.join(missing)}; pairs are {INPUT}/NAME"
                f" and {TARGET}/NAME in it"
            )
        return cls(folder / INPUT, folder / TARGET, extensions, complete)

    @staticmethod
    def by_stem(folder: Path, extensions: tuple[str, ...]) -> dict[str, str]:
        """Return the files of a folder by their names without extensions; ConfigError for none."""
        if not folder.is_dir():
            raise ConfigError(f"{folder}: no such folder")
        files = find_files(folder, extensions)[0]
        stems = [os.path.splitext(file)[0] for file in files]
        twice = {stem for stem, n in Counter(stems).items() if n > 1}
        if twice:
            raise ConfigError(
                f"{folder} has several files of one name:"
                f" {named(f for f, s in zip(files, stems, strict=True) if s in twice)}"
            )
        if not files:
            raise ConfigError(f"{folder} has no files with the extensions {', '.join(extensions)}")
        return dict(zip(stems, files, strict=True))

    def paths(self, i: int) -> tuple[Path, Path]:
        return self.folders[0] / self.files[i][0], self.folders[1] / self.files[i][1]

    def contents(self) -> str:
        """Return the hashes of both sides; group recordings with equal targets."""
        inputs, targets = (
            Contents(folder, [pair[k] for pair in self.files])
            for k, folder in enumerate(self.folders)
        )
        self.digests = [
            (inputs.digests[file], targets.digests[target]) for file, target in self.files
        ]
        keys = {target: key for (_, target), key in zip(self.files, self.keys, strict=True)}
        self.groups = [keys[targets.first(target)] for _, target in self.files]
        return f"{INPUT}: {inputs}; {TARGET}: {targets}"

    def one_rate(self) -> int | None:
        """Return the rate of all files in Hz, None if no header has one; ConfigError if several."""
        examples: dict[int, Path] = {}
        for i in range(len(self.files)):
            for path in self.paths(i):
                if rate := frames_and_rate(path)[1]:
                    examples.setdefault(rate, path)
        if len(examples) > 1:
            lines = [f"  {rate} Hz: {shown(str(path))}" for rate, path in sorted(examples.items())]
            raise ConfigError(
                "\n".join(["the files have several rates; choose one with --rate:", *lines])
            )
        return next(iter(examples), None)

    def load(self, i: int) -> tuple[np.ndarray, np.ndarray]:
        """Load (input, target) as float32 [frames]; DataError names the file."""
        source, target = (
            _array(path) if path.suffix.lower() in ARRAYS else audio_codec.load(path)[0]
            for path in self.paths(i)
        )
        return source, target


class ArrayPairs:
    """Rows of the arrays `input` and `target` [n, length] of an .npz.

    Rows with the same value of `group` [n] are one group.
    """

    def __init__(self, path: Path):
        self.path = path
        self.notes: list[str] = []
        rows = self._rows
        if rows[INPUT].ndim != 2 or rows[INPUT].shape != rows[TARGET].shape:
            raise ConfigError(
                f"{path}: input is {list(rows[INPUT].shape)}, target {list(rows[TARGET].shape)};"
                " both must be [n, length]"
            )
        n = len(rows[INPUT])
        if rows.get("group") is not None and rows["group"].shape != (n,):
            raise ConfigError(
                f"{path}: group is {list(rows['group'].shape)}, must be [{n}], one for each row"
            )
        self.keys, self.names = [f"{i:07d}" for i in range(n)], [f"row {i}" for i in range(n)]
        self.groups = (
            self.keys
            if rows.get("group") is None
            else [str(group) for group in rows["group"].tolist()]
        )

    @functools.cached_property
    def _rows(self) -> dict[str, np.ndarray]:
        try:
            file = np.load(self.path, allow_pickle=False)
            if not isinstance(file, np.lib.npyio.NpzFile):
                raise ConfigError(
                    f"{self.path} is a single array, expected an .npz with the arrays {INPUT} and"
                    f" {TARGET}"
                )
            with file:
                missing = [name for name in (INPUT, TARGET) if name not in file]
                if missing:
                    raise ConfigError(
                        f"{self.path} has no array {' and no '.join(missing)}; it has"
                        f" {named(file.files)}"
                    )
                rows = {name: file[name] for name in (INPUT, TARGET, "group") if name in file}
        except ConfigError:
            raise
        # any exception: zlib.error, TokenError, MemoryError for a false shape, NotImplementedError
        except Exception as error:
            raise DataError(f"{self.path} cannot be read as .npz: {error}") from error
        for name, values in rows.items():
            if not isinstance(values, np.ndarray):  # NumPy returns other members as bytes
                raise DataError(f"{self.path} cannot be read as .npz: {name} is not an array")
        for name in (INPUT, TARGET):
            if rows[name].dtype.kind not in "fiu":
                raise ConfigError(f"{self.path}: {name} is {rows[name].dtype}, expected numbers")
        return rows

    def __getstate__(self) -> dict[str, Any]:
        # each process reads the file once
        return {name: value for name, value in self.__dict__.items() if name != "_rows"}

    def contents(self) -> str:
        return str(Contents(self.path.parent, [self.path.name], "file"))

    def one_rate(self) -> None:
        """Return None: arrays have no rate."""

    def load(self, i: int) -> tuple[np.ndarray, np.ndarray]:
        with np.errstate(over="ignore"):  # an overflow becomes infinite, and is reported
            return self._rows[INPUT][i].astype(np.float32), self._rows[TARGET][i].astype(np.float32)


def _array(path: Path) -> np.ndarray:
    try:
        values = np.load(path, allow_pickle=False)
    except Exception as error:  # any exception: TokenError, MemoryError for a false shape
        raise DataError(f"{path} cannot be read as .npy: {error}") from error
    if not isinstance(values, np.ndarray) or values.ndim != 1 or values.dtype.kind not in "fiu":
        raise DataError(f"{path} must hold numbers in one dimension")
    with np.errstate(over="ignore"):
        return values.astype(np.float32)


def frames_and_rate(path: Path) -> tuple[int, int]:
    """Return (frames, rate in Hz) from the header of a sound file; (0, 0) if it is unreadable."""
    if path.suffix.lower() in ARRAYS:
        return 0, 0
    try:
        with audio_codec.opened(path) as sound:
            return sound.frames, sound.samplerate
    except DataError:
        return 0, 0


def read_span(path: Path, rate: int, first: int, frames: int) -> np.ndarray:
    """Read float32 frames [first, first + frames) of a sound file as resampled to `rate`.

    Channels are averaged; shorter if the file ends. Equal to resampling the whole file and then
    cutting: reading begins at a frame that both rates share, with a margin for the filter.
    """
    with audio_codec.opened(path) as file:
        file_rate = file.samplerate
        common = math.gcd(file_rate, rate)
        file_step, step = file_rate // common, rate // common
        margin = 0 if file_rate == rate else math.ceil(_FILTER_REACH / min(file_step, step))
        begin = max(0, first // step - margin)
        end = -(-(first + frames) // step) + margin
        skip = begin * file_step if path.suffix.lower() in _SEEKABLE else 0
        file.seek(min(skip, file.frames))
        samples = file.read(end * file_step - skip, dtype="float32", always_2d=True)
    samples = samples[begin * file_step - skip :].mean(1)
    if file_rate != rate and len(samples):
        samples = audio_codec.resample(samples, file_rate, rate)
    return samples[first - begin * step :][:frames]


def correction(delay: align.Delay) -> float:
    """Return the samples by which to advance the observed side.

    Rounded to whole samples if nearly so: moving whole samples needs no interpolation.
    """
    whole = round(delay.samples)
    return whole if abs(delay.samples - whole) < align.EXACT else round(delay.samples, 3)


def clipped_share(samples: np.ndarray) -> float:
    """Return the share of the samples in runs of at least 3 within 1 % of the peak.

    0 if the peak is at most 0.9 of full scale.
    """
    size = np.abs(samples)
    peak = size.max(initial=0)
    if peak <= 0.9:
        return 0.0
    high = np.concatenate([[0], size >= 0.99 * peak, [0]]).astype(np.int8)
    begins, ends = np.flatnonzero(np.diff(high) == 1), np.flatnonzero(np.diff(high) == -1)
    lengths = ends - begins
    return float(lengths[lengths >= 3].sum() / size.size)
