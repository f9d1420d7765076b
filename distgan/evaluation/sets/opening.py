"""Open what a user names: a data set of shards, a folder, an array, a file of statistics."""

from pathlib import Path

from distgan.config.data_name import names_code
from distgan.core.errors import ConfigError
from distgan.data.dataset import Data
from distgan.data.own_dataset import open_data
from distgan.evaluation.sets.arrays import ArrayVectors
from distgan.evaluation.sets.datasets import DatasetImages
from distgan.evaluation.sets.folders import FolderImages
from distgan.evaluation.sets.image_set import ImageSet
from distgan.evaluation.sets.statistics_files import StatisticsFile


def open_real(text: str) -> ImageSet:
    """Open a data set, a folder of images, an array or a file of statistics. DataError,
    ConfigError.
    """
    path = Path(text).expanduser()
    is_statistics = path.is_file() and path.suffix != ".npy"
    return StatisticsFile(path) if is_statistics else open_set(text)


def open_set(text: str, verify: str = "size") -> DatasetImages | FolderImages | ArrayVectors:
    """Open a data set of shards if the folder has its index, else the images in the folder; a file
    .npy as vectors.

    DataError, ConfigError.
    """
    if names_code(text):
        return DatasetImages(open_data(text), text)
    folder = Path(text).expanduser()
    if folder.is_file() and folder.suffix == ".npy":
        return ArrayVectors(folder)
    if not folder.is_dir():
        raise ConfigError(f"{text}: no such folder")
    if (folder / "dataset.json").is_file() or (folder / "manifest.json").is_file():
        return DatasetImages(Data(str(folder), verify), folder)
    return FolderImages(folder)
