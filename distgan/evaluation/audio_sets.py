"""Sets of sounds to score: the held-out pairs of a run through its network, or files of two or
three folders with the same names.
"""

import json
from collections.abc import Callable
from pathlib import Path

import soundfile
import torch

from distgan.core.errors import ConfigError, DataError
from distgan.core.file_tree import find_files, shown
from distgan.data import transforms
from distgan.data.dataset import Data
from distgan.evaluation.audio_evaluator import Clip, Resolutions
from distgan.metrics.stft import STFT_RESOLUTIONS
from distgan.shards.audio.pairs import SOUNDS, FilePairs
from distgan.shards.codecs import audio as audio_codec

TOLD = 10  # files that an error names


class HeldOut:
    """The whole validation set, each pair through `repair` ([1, frames] -> [1, frames], in units of
    the data) by itself.
    """

    paired = True

    def __init__(
        self,
        data: Data,
        repair: Callable[[torch.Tensor], torch.Tensor],
        device: torch.device,
        resolutions: Resolutions,
    ):
        if not len(data.validation):
            raise ConfigError(
                "data: the validation split is empty, and held-out clips are what is measured; make"
                " the data set again with more, or --validation 0.1"
            )
        self._data, self._repair, self._device, self.rate, self.resolutions = (
            data,
            repair,
            device,
            data.sample.rate,
            resolutions,
        )
        split = data.validation
        self.keys = [split.key(i) for i in range(len(split))]
        self.snrs = [
            _snr(split.fields_of(i, ("json",))["json"]) if "json" in split.fields else None
            for i in range(len(split))
        ]

    @torch.no_grad()
    def __getitem__(self, i: int) -> Clip:
        given, target = transforms.to_waves(
            self._data.decode(self._data.validation, [i]), torch.float32
        ).unbind(1)
        return Clip(self._repair(given.to(self._device))[0].float().cpu(), target[0], given[0])


class Loose:
    """Sound files of a folder, at any depth, resampled to `rate`, through `repair`.

    What they should be is not known.
    """

    paired = True

    def __init__(
        self,
        folder: Path,
        rate: int,
        repair: Callable[[torch.Tensor], torch.Tensor],
        device: torch.device,
    ):
        if not folder.is_dir():
            raise ConfigError(f"from={folder}: no such folder")
        self._paths = [folder / name for name in find_files(folder, SOUNDS)[0]]
        if not self._paths:
            raise ConfigError(f"from={folder} holds no files of the kinds {', '.join(SOUNDS)}")
        self._repair, self._device, self.rate, self.resolutions = (
            repair,
            device,
            rate,
            STFT_RESOLUTIONS,
        )
        self.keys = [path.relative_to(folder).with_suffix("").as_posix() for path in self._paths]
        self.snrs = [None] * len(self.keys)

    @torch.no_grad()
    def __getitem__(self, i: int) -> Clip:
        given = torch.from_numpy(audio_codec.load(self._paths[i], self.rate)[0])
        if not torch.isfinite(given).all() or not len(given):
            raise DataError(f"{self._paths[i]} holds no sound, or values that are not finite")
        return Clip(self._repair(given[None].to(self._device))[0].float().cpu(), given, given)


class Files:
    """Sound files of `fake` and `real`, and of `given` where there is such a folder, that have the
    same name but for the extension.

    ConfigError before any work where names, rates or lengths do not match.
    """

    resolutions = STFT_RESOLUTIONS

    def __init__(self, real: Path, fake: Path, given: Path | None = None):
        sides = [FilePairs(fake, real), *([FilePairs(given, real)] if given else [])]
        stems = [
            {
                Path(target).with_suffix("").as_posix(): (Path(own), Path(target))
                for own, target in side.files
            }
            for side in sides
        ]
        lone = [note for side in sides for note in side.notes]
        if lone or stems[0].keys() != stems[-1].keys():
            raise ConfigError(
                "the folders hold different clips, and each needs its counterpart: "
                + "; ".join(lone)
            )
        self.keys, self.snrs, self.paired = (
            list(stems[0]),
            [None] * len(stems[0]),
            given is not None,
        )
        self._paths = [
            [
                fake / stems[0][key][0],
                real / stems[0][key][1],
                *([given / stems[1][key][0]] if given else []),
            ]
            for key in self.keys
        ]
        self.rate = self._alike()

    def _alike(self) -> int:
        """The one rate of all files in Hz."""
        rates, faults = {}, []
        for key, paths in zip(self.keys, self._paths, strict=True):
            looks = [_look(path) for path in paths]
            rates |= {
                rate: path
                for (_, rate, _), path in zip(looks, paths, strict=True)
                if rate not in rates
            }
            if several := [
                path for path, (_, _, channels) in zip(paths, looks, strict=True) if channels > 1
            ]:
                raise ConfigError(
                    f"{several[0]} has several channels; sounds are measured one channel at a time:"
                    " mix them down or split them first"
                )
            if len({frames for frames, _, _ in looks}) > 1:
                faults.append(
                    f"  {shown(key)}: "
                    + ", ".join(
                        f"{frames} frames in {path.parent}"
                        for (frames, _, _), path in zip(looks, paths, strict=True)
                    )
                )
        if len(rates) > 1:
            raise ConfigError(
                "the files have several rates; resample them to one first:\n"
                + "\n".join(f"  {rate} Hz: {shown(str(path))}" for rate, path in rates.items())
            )
        if faults:
            more = f"\n  and {len(faults) - TOLD} more" if len(faults) > TOLD else ""
            raise ConfigError(
                "clips that are compared must be aligned and of equal length:\n"
                + "\n".join(faults[:TOLD])
                + more
            )
        return next(iter(rates))

    def __getitem__(self, i: int) -> Clip:
        return Clip(*(torch.from_numpy(audio_codec.load(path)[0]) for path in self._paths[i]))


def _look(path: Path) -> tuple[int, int, int]:
    """(frames, rate in Hz, channels) of a sound file."""
    try:
        about = soundfile.info(path)
    except (soundfile.LibsndfileError, OSError) as error:
        raise DataError(f"{path} cannot be read as sound: {error}") from error
    return about.frames, about.samplerate, about.channels


def _snr(data: bytes) -> float | None:
    """`snr_db` of a sample's json, where a source wrote one."""
    try:
        value = json.loads(data).get("snr_db")
    except (ValueError, AttributeError, RecursionError):
        return None
    return (
        float(value)
        if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e6
        else None
    )
