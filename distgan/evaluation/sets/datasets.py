"""All images, or vectors, of a data set of shards."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from distgan.core.errors import ConfigError
from distgan.data.dataset import Data
from distgan.data.samples import Images
from distgan.evaluation.sets.resizing import resized
from distgan.evaluation.sets.traits import Traits
from distgan.shards.codecs.fitting import Resize
from distgan.shards.format.sample_spec import UNITS

_FORMATS = {"jpg": "JPEG", "jpeg": "JPEG"}


class DatasetImages:
    """All images, or vectors, of a data set, the training split first, in the order of shards."""

    def __init__(self, data: Data, folder: str | Path, resize: Resize | None = None):
        if data.kind not in ("image", "vector"):
            raise ConfigError(
                f"{folder} holds {UNITS[data.kind]}; images and vectors are compared here"
            )
        self.data, self.name, self.fingerprint = data, str(folder), data.fingerprint
        self.kind, self.statistics_folder = data.kind, data.statistics_folder
        self.training, self._resize = len(data.train), resize
        self.traits = Traits()
        if isinstance(sample := data.sample, Images):
            field = sample.fields[0]
            # "": several, in tars of others
            format = "" if "|" in field else _FORMATS.get(field.rpartition(".")[2], "PNG")
            size, is_gray = (sample.width, sample.height), sample.channels == 1
            self.traits.count(size, format, is_gray, has_alpha=False, n=len(self))

    def __len__(self) -> int:
        return self.training + len(self.data.validation)

    def decode(self, numbers: Sequence[int]) -> torch.Tensor:
        parts = [
            (self.data.train, [i for i in numbers if i < self.training]),
            (self.data.validation, [i - self.training for i in numbers if i >= self.training]),
        ]
        # A last chunk, filled up from its beginning, does not rise: restore the order of numbers.
        images = torch.cat([self.data.decode(split, some) for split, some in parts if some])
        order = np.argsort(np.array([i >= self.training for i in numbers]), kind="stable")
        images = images[torch.from_numpy(np.argsort(order, kind="stable"))]
        return resized(images, self._resize) if self._resize else images
