"""Open what a user names: a data set of shards, a folder, an array, a file of statistics."""

from pathlib import Path

from distgan.config.data_name import names_code
from distgan.core.errors import ConfigError
from distgan.data.dataset import Data
from distgan.data.own_dataset import open_data
from distgan.evaluation.sets.arrays import ArrayVectors
from distgan.evaluation.sets.datasets import DatasetImages
from distgan.evaluation.sets.folders import FolderImages
from distgan.evaluation.sets.statistics_files import StatisticsFile, UnverifiedMoments
from distgan.shards.codecs.fitting import Resize

AnySet = DatasetImages | FolderImages | ArrayVectors | StatisticsFile | UnverifiedMoments


def open_any(text: str, resize: Resize | None = None) -> AnySet:
    """Open a data set, a folder of images, an array or a file of statistics. DataError,
    ConfigError.
    """
    path = Path(text).expanduser()
    if not path.is_file() or path.suffix == ".npy":
        return open_set(text, resize)
    return UnverifiedMoments(path) if path.suffix == ".npz" else StatisticsFile(path)


def open_set(
    text: str, resize: Resize | None = None
) -> DatasetImages | FolderImages | ArrayVectors:
    """Open a data set of shards if the folder has its index, else the images in the folder; a file
    .npy as vectors.

    `resize`: make images squares of one size. DataError, ConfigError.
    """
    if names_code(text):
        return DatasetImages(open_data(text), text, resize)
    folder = Path(text).expanduser()
    if folder.is_file() and folder.suffix == ".npy":
        return ArrayVectors(folder)
    if not folder.is_dir():
        raise ConfigError(f"{text}: no such folder")
    if (folder / "dataset.json").is_file() or (folder / "manifest.json").is_file():
        return DatasetImages(Data(str(folder)), folder, resize)
    return FolderImages(folder, resize)
