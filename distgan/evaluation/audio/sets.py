"""Sets of clips to measure: the validation pairs of a run repaired by its network, sound files
repaired by it, or files of two or three folders.
"""

from collections.abc import Callable
from pathlib import Path

import torch

from distgan.core.errors import ConfigError, DataError
from distgan.core.file_tree import find_files, shown
from distgan.core.reading import parse_json
from distgan.data import transforms
from distgan.data.dataset import Data
from distgan.evaluation.audio.evaluator import Clip, Resolutions
from distgan.metrics.stft import STFT_RESOLUTIONS
from distgan.shards.audio.pairs import SOUNDS, FilePairs, named
from distgan.shards.codecs import audio as audio_codec

MAX_LISTED = 10  # files that an error names
Repair = Callable[[torch.Tensor], torch.Tensor]  # [1, frames] -> [1, frames], in units of the data


class ValidationClips:
    """The whole validation set, each clip repaired by itself."""

    paired = True

    def __init__(self, data: Data, repair: Repair, device: torch.device, resolutions: Resolutions):
        split = data.validation
        if not len(split):
            raise ConfigError(
                "data: the validation split is empty, and held-out clips are what is measured; make"
                " the data set again with more, or --validation 0.1"
            )
        self._data, self._repair, self._device = data, repair, device
        self.rate, self.resolutions = data.rate, resolutions
        self.keys = [split.key(i) for i in range(len(split))]
        records = [
            _record(split.fields_of(i, ("json",))["json"]) if "json" in split.fields else {}
            for i in range(len(split))
        ]
        self.snrs = [_snr(record) for record in records]
        groups = (record.get("group") for record in records)
        self.groups = [group if isinstance(group, str) else None for group in groups]

    @torch.no_grad()
    def __getitem__(self, i: int) -> Clip:
        source, target = transforms.to_waves(
            self._data.decode(self._data.validation, [i]), torch.float32
        ).unbind(1)
        output = self._repair(source.to(self._device))[0].float().cpu()
        return Clip(output, target[0], source[0])


class FolderClips:
    """Sound files of a folder, at any depth, resampled to `rate` and repaired.

    Their clean versions are unknown, so the target of a clip is its input.
    """

    paired = True

    def __init__(self, folder: Path, rate: int, repair: Repair, device: torch.device):
        if not folder.is_dir():
            raise ConfigError(f"from={folder}: no such folder")
        self._paths = [folder / name for name in find_files(folder, SOUNDS)[0]]
        if not self._paths:
            raise ConfigError(f"from={folder} holds no files of the kinds {', '.join(SOUNDS)}")
        self._repair, self._device = repair, device
        self.rate, self.resolutions = rate, STFT_RESOLUTIONS
        self.keys = [path.relative_to(folder).with_suffix("").as_posix() for path in self._paths]
        self.snrs = self.groups = [None] * len(self.keys)

    @torch.no_grad()
    def __getitem__(self, i: int) -> Clip:
        source = torch.from_numpy(audio_codec.load(self._paths[i], self.rate)[0])
        if not torch.isfinite(source).all() or not len(source):
            raise DataError(f"{self._paths[i]} holds no sound, or values that are not finite")
        output = self._repair(source[None].to(self._device))[0].float().cpu()
        return Clip(output, source, source)


class Folders:
    """Sound files of two or three folders; those of one name, but for the extension, are one clip.

    `fake` holds the repaired sounds, `real` the clean ones, `source` what was repaired, if known.
    A clip lacks the sides that have no file of its name.
    """

    resolutions = STFT_RESOLUTIONS

    def __init__(self, real: Path, fake: Path, source: Path | None = None):
        self._folders = {"output": fake, "target": real} | ({"input": source} if source else {})
        self._files = {
            side: {stem: folder / name for stem, name in FilePairs.by_stem(folder, SOUNDS).items()}
            for side, folder in self._folders.items()
        }
        self.keys = list(dict.fromkeys(stem for side in self._files.values() for stem in side))
        self.paired = source is not None
        self.snrs = self.groups = [None] * len(self.keys)
        self._infos = {path: _info(path) for side in self._files.values() for path in side.values()}
        if several := [path for path, (_, _, channels) in self._infos.items() if channels > 1]:
            raise ConfigError(
                f"{several[0]} has several channels; sounds are measured one channel at a time:"
                " mix them down or split them first"
            )
        self.rates: dict[int, Path] = {}  # in Hz, each with a file
        for path, (_, rate, _) in self._infos.items():
            self.rates.setdefault(rate, path)
        self.rate = next(iter(self.rates))

    def resample(self, rate: int) -> None:
        """Give all clips this rate in Hz."""
        self.rate, self.rates = rate, dict.fromkeys([rate], Path())

    def unpaired(self) -> str:
        """Return why no clip can be compared with its clean version, or ""."""
        repaired, clean = (self._files[side] for side in ("output", "target"))
        if repaired.keys() & clean.keys():
            return ""
        return (
            f"no file of {self._folders['output']} has the same name as one of"
            f" {self._folders['target']} (extensions aside): {named(repaired, 3)} there,"
            f" {named(clean, 3)} here"
        )

    def lone(self) -> list[str]:
        """Return the clips that lack a side."""
        return [key for key in self.keys if not all(key in side for side in self._files.values())]

    def unequal(self) -> list[str]:
        """Return a line for each clip whose sides differ in length, at most MAX_LISTED."""
        errors = []
        for key in self.keys:
            paths = [side[key] for side in self._files.values() if key in side]
            frames = [self._infos[path][0] for path in paths]
            if len(set(frames)) > 1:
                lengths = ", ".join(
                    f"{n} frames in {path.parent}" for n, path in zip(frames, paths, strict=True)
                )
                errors.append(f"  {shown(key)}: {lengths}")
        if len(errors) > MAX_LISTED:
            errors[MAX_LISTED:] = [f"  and {len(errors) - MAX_LISTED} more"]
        return errors

    def __getitem__(self, i: int) -> Clip:
        def load(side: str) -> torch.Tensor | None:
            path = self._files.get(side, {}).get(self.keys[i])
            return None if path is None else torch.from_numpy(audio_codec.load(path, self.rate)[0])

        return Clip(load("output"), load("target"), load("input"))


def _info(path: Path) -> tuple[int, int, int]:
    """Return (frames, rate in Hz, channels) of a sound file."""
    with audio_codec.opened(path) as sound:
        return sound.frames, sound.samplerate, sound.channels


def _record(data: bytes) -> dict:
    """Return what the source wrote of a sample, {} where that is nothing of use."""
    try:
        record = parse_json(data)
    except ValueError:
        return {}
    return record if isinstance(record, dict) else {}


def _snr(record: dict) -> float | None:
    value = record.get("snr_db")
    if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e6:
        return float(value)
    return None
