"""Repair sounds or images for `distgan generate`: held-out ones, or files of a folder."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from distgan.core.errors import ConfigError, DataError
from distgan.core.file_tree import Contents, find_files, shown
from distgan.data.dataset import Data
from distgan.data.transforms import to_bytes, to_unit
from distgan.evaluation.audio.sets import FolderClips, ValidationClips
from distgan.metrics.stft import STFT_RESOLUTIONS
from distgan.shards.codecs import audio as audio_codec
from distgan.shards.codecs import image as image_codec
from distgan.shards.codecs import image_files
from distgan.shards.codecs.fitting import FITS, to_size
from distgan.shards.format.sample_spec import size_entry
from distgan.shards.sources import images

Repair = Callable[[torch.Tensor], torch.Tensor]


class Sounds:
    """Clips; `keys` name them, and `files(i, n)` returns the first n of (output, target)."""

    folder, extension, unit, per_shard = "sounds", "wav", "clips", 16

    def __init__(self, data: Data, repair: Repair, device: torch.device, source: Path | None):
        self._clips: Any = (
            FolderClips(source, data.rate, repair, device)
            if source
            else ValidationClips(data, repair, device, STFT_RESOLUTIONS)
        )
        self.keys: list[str] = self._clips.keys

    def files(self, i: int, n: int) -> list[bytes]:
        clip = self._clips[i]
        waves = (clip.output, clip.target)[:n]
        return [audio_codec.write_wav(wave.numpy(), self._clips.rate) for wave in waves]


class Images:
    """The same of images, one at a time: its neighbours change nothing of an image."""

    folder, extension, unit, per_shard = "images", "png", "images", 256

    def __init__(self, data: Data, repair: Repair, device: torch.device, source: Path | None):
        self._data, self._repair, self._device, self._source = data, repair, device, source
        self._names = find_files(source, image_files.EXTENSIONS)[0] if source else []
        if source and not self._names:
            raise ConfigError(f"from={source}: has no images ({', '.join(image_files.EXTENSIONS)})")
        self._limits = stated_range(data)
        held_out = data.validation
        self.keys = [os.path.splitext(name)[0] for name in self._names] or [
            held_out.key(i) for i in range(len(held_out))
        ]

    def files(self, i: int, n: int) -> list[bytes]:
        if self._source:
            given, target = self._read(self._source / self._names[i]), None
        else:
            given, target = self._data.decode(self._data.validation, [i])[0]
        with torch.no_grad():
            output = self._repair(to_unit(given[None].to(self._device)))[0]
        return [_png(image) for image in (to_bytes(output), target)[:n] if image is not None]

    def _read(self, path: Path) -> torch.Tensor:
        """Return a file as the images of the data set are: uint8 [channels, height, width]."""
        _, channels, height, width = self._data.shape
        try:
            image = to_size(
                image_files.picture(path, self._limits)[0],
                size_entry(height, width),
                stated_fit(self._data),
            )
        except Exception as error:  # image decoders raise anything on damaged files
            raise DataError(f"{shown(str(path))} cannot be read: {images.reason(error)}") from error
        pixels = np.array(image.convert("L" if channels == 1 else "RGB"))
        return torch.from_numpy(pixels.reshape(height, width, channels)).permute(2, 0, 1)


def stated_range(data: Data) -> tuple[float, float] | None:
    """Return the values that `distgan shard … --range LOW HIGH` took for black and white; None for
    the full range.
    """
    stated = data.options.get("range") if isinstance(data.options, dict) else None
    if not isinstance(stated, list) or len(stated) != 2:
        return None
    low, high = stated
    return (low, high) if isinstance(low, int | float) and isinstance(high, int | float) else None


def stated_fit(data: Data) -> str:
    """Return how `distgan shard … --fit` brought images to one size."""
    stated = data.options.get("fit") if isinstance(data.options, dict) else None
    return stated if stated in FITS else "crop"


def inputs(data: Data, folder: Path) -> str:
    """Describe the images of a folder, and what is made of them before they are repaired."""
    _, channels, height, width = data.shape
    contents = Contents(folder, find_files(folder, image_files.EXTENSIONS)[0], "images")
    limits = stated_range(data)
    scaled = "" if limits is None else f", range {limits[0]:g} to {limits[1]:g}"
    fit = stated_fit(data)
    fitted = "" if fit == "crop" else f", {fit}"
    return f"{contents} at {width}x{height}, {channels} channels{scaled}{fitted}"


def _png(image: torch.Tensor) -> bytes:
    values = image.permute(1, 2, 0).cpu().contiguous().numpy()
    return image_codec.encode(values[..., 0] if values.shape[2] == 1 else values, "png")[1]
