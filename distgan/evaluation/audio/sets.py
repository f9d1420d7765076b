"""Sets of clips to measure: the validation pairs of a run repaired by its network, sound files
repaired by it, or files of two or three folders with the same names.
"""

from collections.abc import Callable
from pathlib import Path

import soundfile
import torch

from distgan.core.errors import ConfigError, DataError
from distgan.core.file_tree import find_files, shown
from distgan.core.reading import parse_json
from distgan.data import transforms
from distgan.data.dataset import Data
from distgan.evaluation.audio.evaluator import Clip, Resolutions
from distgan.metrics.stft import STFT_RESOLUTIONS
from distgan.shards.audio.pairs import SOUNDS, FilePairs
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
        self.rate, self.resolutions = data.sample.rate, resolutions
        self.keys = [split.key(i) for i in range(len(split))]
        self.snrs = [
            _snr(split.fields_of(i, ("json",))["json"]) if "json" in split.fields else None
            for i in range(len(split))
        ]

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
        self.snrs = [None] * len(self.keys)

    @torch.no_grad()
    def __getitem__(self, i: int) -> Clip:
        source = torch.from_numpy(audio_codec.load(self._paths[i], self.rate)[0])
        if not torch.isfinite(source).all() or not len(source):
            raise DataError(f"{self._paths[i]} holds no sound, or values that are not finite")
        output = self._repair(source[None].to(self._device))[0].float().cpu()
        return Clip(output, source, source)


class PairedFolders:
    """Sound files with the same names, but for the extension, in two or three folders.

    `fake` holds the repaired sounds, `real` the clean ones, `source` what was repaired, if known.
    ConfigError before any work if names, rates or lengths do not match.
    """

    resolutions = STFT_RESOLUTIONS

    def __init__(self, real: Path, fake: Path, source: Path | None = None):
        pairs = [FilePairs(fake, real), *([FilePairs(source, real)] if source else [])]
        stems = [
            {
                Path(target).with_suffix("").as_posix(): (Path(name), Path(target))
                for name, target in part.files
            }
            for part in pairs
        ]
        unpaired = [note for part in pairs for note in part.notes]
        if unpaired or stems[0].keys() != stems[-1].keys():
            raise ConfigError(
                "the folders hold different clips, and each needs its counterpart: "
                + "; ".join(unpaired)
            )
        self.keys, self.paired = list(stems[0]), source is not None
        self.snrs = [None] * len(self.keys)
        self._paths = []
        for key in self.keys:
            name, target = stems[0][key]
            paths = [fake / name, real / target]
            self._paths.append([*paths, source / stems[1][key][0]] if source else paths)
        self.rate = self._require_alike()

    def _require_alike(self) -> int:
        """Return the rate of all files in Hz; ConfigError unless they match."""
        rates: dict[int, Path] = {}
        errors = []
        for key, paths in zip(self.keys, self._paths, strict=True):
            infos = [_info(path) for path in paths]
            for path, (_, rate, channels) in zip(paths, infos, strict=True):
                rates.setdefault(rate, path)
                if channels > 1:
                    raise ConfigError(
                        f"{path} has several channels; sounds are measured one channel at a time:"
                        " mix them down or split them first"
                    )
            if len({frames for frames, _, _ in infos}) > 1:
                lengths = ", ".join(
                    f"{frames} frames in {path.parent}"
                    for (frames, _, _), path in zip(infos, paths, strict=True)
                )
                errors.append(f"  {shown(key)}: {lengths}")
        if len(rates) > 1:
            raise ConfigError(
                "the files have several rates; resample them to one first:\n"
                + "\n".join(f"  {rate} Hz: {shown(str(path))}" for rate, path in rates.items())
            )
        if errors:
            if len(errors) > MAX_LISTED:
                errors[MAX_LISTED:] = [f"  and {len(errors) - MAX_LISTED} more"]
            raise ConfigError(
                "clips that are compared must be aligned and of equal length:\n" + "\n".join(errors)
            )
        return next(iter(rates))

    def __getitem__(self, i: int) -> Clip:
        return Clip(*(torch.from_numpy(audio_codec.load(path)[0]) for path in self._paths[i]))


def _info(path: Path) -> tuple[int, int, int]:
    """Return (frames, rate in Hz, channels) of a sound file."""
    try:
        info = soundfile.info(path)
    except (soundfile.LibsndfileError, OSError) as error:
        raise DataError(f"{path} cannot be read as sound: {error}") from error
    return info.frames, info.samplerate, info.channels


def _snr(data: bytes) -> float | None:
    """Return `snr_db` of a sample's json, None where the source wrote none."""
    try:
        value = parse_json(data).get("snr_db")
    except (ValueError, AttributeError):
        return None
    if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e6:
        return float(value)
    return None
