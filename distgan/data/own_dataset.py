"""A map-style Dataset of one's own as a data set: `__len__`, `__getitem__` and a `fingerprint`.

Each sample takes the form that it would have in a tar, .npy or .wav members, so all that reads
shards reads these. docs/loader.md describes what a Dataset may have.
"""

import hashlib
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import torch

from distgan.config.data_name import PASSED, names_code
from distgan.core import rng
from distgan.core.errors import ConfigError, DataError
from distgan.core.files import cache_folder
from distgan.data.dataset import Data
from distgan.data.samples import trainable_sample
from distgan.runs import data_code
from distgan.shards.codecs import array as npy
from distgan.shards.codecs import audio as audio_codec
from distgan.shards.format.labels import LabelColumn, labels_of
from distgan.shards.format.manifest import VERSION, fingerprint
from distgan.shards.format.reader import ShardSet
from distgan.shards.format.sample_spec import sample_of, size_entry

HELD_OUT = 0.1  # of the samples, where the Dataset has no `validation`
COLUMN = "class"  # the name of its labels
FORMS = (
    "uint8 [channels, height, width] for an image, uint8 [2, channels, height, width] for an image"
    " pair, int16 or float32 [2, frames] for a pair of signals, float32 [size] for a vector"
)


class Dataset(Protocol):
    """A map-style Dataset. Further attributes, where it has them: `classes`, the names of
    the classes; `validation`, another such Dataset; `rate`, of signals, in Hz.
    """

    fingerprint: str

    def __len__(self) -> int: ...

    def __getitem__(self, i: int, /) -> Any: ...


_given: dict[str, Any] = {}  # Datasets that a program of this process passed, by their names


def open_data(what: Any, verify: Literal["size", "sha256"] = "size") -> Data:
    """Return the data set of a folder of shards, of a Dataset that `FILE.py:NAME` or
    `pkg.module:NAME` names, or of a Dataset itself. ConfigError, DataError.
    """
    if isinstance(what, Data):
        return what
    if not isinstance(what, str | Path):
        return OwnData(what, name_of(what))
    text = str(what)
    data_code.refuse(text)
    if text in _given:
        return OwnData(_given[text], text)
    if names_code(text):
        return OwnData(data_code.load(text), text)
    if text.endswith(PASSED):
        raise ConfigError(
            f"data: {text} was passed by a Python program and is known there alone; name the data"
            " set: data=FOLDER or data=FILE.py:NAME, or --data of a verb that looks at a run"
        )
    return Data(text, verify)


def name_of(dataset: Any) -> str:
    """Return the name of a Dataset for a run's settings: this process knows it from now on."""
    stated = _fingerprint(dataset, type(dataset).__name__)
    digits = hashlib.sha256(stated.encode()).hexdigest()[:8]
    name = f"{type(dataset).__name__} {digits}{PASSED}"
    _given[name] = dataset
    return name


def _fingerprint(dataset: Any, name: str) -> str:
    """Return the fingerprint that a Dataset states; ConfigError where it is none."""
    missing = [each for each in ("__len__", "__getitem__") if not hasattr(type(dataset), each)]
    if missing:
        raise ConfigError(
            f"data: {name} is {type(dataset).__name__}, without {' and '.join(missing)}; needed is"
            " a map-style Dataset"
        )
    stated = _asked(lambda: getattr(dataset, "fingerprint", None), f"fingerprint of {name}")
    if not isinstance(stated, str) or not stated:
        raise ConfigError(
            f"data: {name} states no fingerprint, so nothing tells whether a run goes on with the"
            " same samples. Give it an attribute `fingerprint`: a text that changes whenever a"
            " sample does, such as a version of the data or the SHA-256 of a file"
        )
    if not stated.isascii() and any("\ud800" <= letter <= "\udfff" for letter in stated):
        raise ConfigError(
            f"data: the fingerprint of {name}, {stated[:60]!r}, has a surrogate, which is no"
            " character; use others"
        )
    return stated


def _asked(what: Callable[[], Any], name: str) -> Any:
    """Return what a Dataset says of itself; ConfigError where that fails."""
    try:
        return what()
    except Exception as error:
        raise ConfigError(f"data: {name}: {type(error).__name__}: {error}") from error


class OwnSplit(ShardSet):
    """A `ShardSet` of the samples `numbers` of a Dataset."""

    def __init__(self, dataset: Any, name: str, numbers: Any, labelled: bool):
        self.dataset, self.name, self.numbers = dataset, name, np.asarray(numbers, np.int64)
        self.folder, self.bounds = Path(name), [0, len(self.numbers)]
        self.rate = _asked(lambda: getattr(dataset, "rate", None), f"rate of {name}")
        self.labelled = labelled
        self._last: tuple[int, dict[str, bytes]] = -1, {}  # sounds are read in several pieces
        self.form: tuple[np.dtype, tuple[int, ...]] | None = None
        array, _ = self.item(0)
        self.form = array.dtype, array.shape
        self.fingerprint = fingerprint(
            [
                type(dataset).__qualname__,  # two may state the same text, such as "version 1"
                _fingerprint(dataset, name),
                *map(str, (self.form, self.numbers.tolist())),
            ]
        )
        self.entry = _entry(array, self.rate, name)
        members = self.entry.get("fields") or [self.entry["field"]]
        self.fields = [*members, *(["cls"] if labelled else [])]
        for i in {0, len(self) // 2, len(self) - 1}:
            self._require_repeatable(i)

    def key(self, i: int) -> str:
        return f"{self.numbers[self._index(i)]:06d}"

    def item(self, i: int) -> tuple[np.ndarray, int | None]:
        """Return (the array of sample i, its class or None); DataError names the sample."""
        number = int(self.numbers[self._index(i)])
        try:
            item, label = self.dataset[number], None
            if isinstance(item, tuple | list) and len(item) == 2 and not np.ndim(item[1]):
                item, given = item
                label = int(given)
                if self.labelled and label != float(given):
                    raise ValueError(f"the class {given} is no whole number")
            array = np.asarray(item.detach().cpu() if isinstance(item, torch.Tensor) else item)
            array = array.astype(array.dtype.newbyteorder("="), copy=False)
        except (MemoryError, KeyboardInterrupt):
            raise
        except Exception as error:
            raise self._damaged_item(i, f"{type(error).__name__}: {error}") from error
        found = f"{array.dtype} {list(array.shape)}"
        if self.form and (array.dtype, array.shape) != self.form:
            first = f"{self.form[0]} {list(self.form[1])}"
            raise self._damaged_item(i, f"{found}, where the first is {first}; all must be alike")
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise self._damaged_item(i, "holds NaN or an infinite number")
        if self.labelled and label is None:
            raise self._damaged_item(i, "has no class; with `classes` a sample is (array, class)")
        return array, label

    def fields_of(self, i: int, fields: Sequence[str]) -> dict[str, bytes]:
        i = self._index(i)
        if i != self._last[0]:
            array, label = self.item(i)
            members = _encoded(array, self.fields, self.rate)
            self._last = i, members | ({"cls": str(label).encode()} if self.labelled else {})
        return {field: self._last[1][field] for field in fields}

    def size(self, i: int, field: str) -> int:
        return len(self.fields_of(i, (field,))[field])

    def read_range(self, i: int, field: str, start: int, stop: int) -> bytes:
        return self.fields_of(i, (field,))[field][start:stop]

    def undecodable(self, i: int, error: Exception) -> DataError:
        return self._damaged_item(i, f"does not decode: {error}")

    def _damaged_item(self, i: int, what: str) -> DataError:
        return DataError(f"sample {self.numbers[i]} of {self.name}: {what}")

    def _require_repeatable(self, i: int) -> None:
        first, label = self.item(i)
        first = first.copy()  # a Dataset may fill one array again and again
        again, other = self.item(i)
        if label != other or not np.array_equal(first, again):
            raise DataError(
                f"sample {self.numbers[i]} of {self.name} differs when it is read twice: what is"
                " drawn at random belongs in the recipe's step, by addresses (docs/your-own-gan.md)"
            )


class OwnData(Data):
    """A Dataset of one's own: `validation` of it, or a tenth of the samples, is held out."""

    def __init__(self, dataset: Any, name: str):
        self.folder = Path(name)
        stated = _fingerprint(dataset, name)
        n, classes = _length(dataset, name, 2), _classes(dataset, name)
        labelled = classes is not None
        held_out = _asked(lambda: getattr(dataset, "validation", None), f"validation of {name}")
        numbers = np.arange(n)
        if held_out is None:
            chosen = rng.numpy_generator(0, f"validation/{stated}").permutation(n)
            chosen = chosen[: max(1, round(n * HELD_OUT))]
            numbers = np.setdiff1d(numbers, chosen)
            self.validation = OwnSplit(dataset, name, np.sort(chosen), labelled)
        else:
            other = f"{name}.validation"
            _fingerprint(held_out, other)
            every = range(_length(held_out, other, 1))
            self.validation = OwnSplit(held_out, other, every, labelled)
        self.train = OwnSplit(dataset, name, numbers, labelled)
        if self.train.entry != self.validation.entry:
            raise DataError(
                f"{name}: samples are {self.train.entry}, those of its validation"
                f" {self.validation.entry}"
            )
        entry = {"version": VERSION, "sample": self.train.entry}
        self.sample = trainable_sample(sample_of(entry))
        self.fingerprint = fingerprint([self.train.fingerprint, self.validation.fingerprint])
        self.statistics_folder = cache_folder() / "statistics"
        self.options: dict[str, Any] = {}
        self._columns = {} if classes is None else _columns(classes, name)
        self.labels, self.classes = None, {}

    def _column(self, name: str) -> LabelColumn:
        if not self._columns:
            raise ConfigError(
                f"data: {self.folder} has no classes, and conditional networks are given one for"
                " each sample. Let `__getitem__` return (array, number of its class), and give the"
                " Dataset an attribute `classes`, their names; or train without them: with"
                " distgan's own recipes, conditional=false"
            )
        return super()._column(name)


def _length(dataset: Any, name: str, least: int) -> int:
    if (n := _asked(lambda: len(dataset), f"length of {name}")) < least:
        raise DataError(f"{name} has {n} samples; needed are {least} or more")
    return n


def _classes(dataset: Any, name: str) -> list[str] | None:
    """Return the names of a Dataset's classes; None where it has none."""
    stated = _asked(lambda: getattr(dataset, "classes", None), f"classes of {name}")
    if stated is None:
        return None
    if isinstance(stated, str | bytes | set | frozenset) or not hasattr(stated, "__iter__"):
        raise ConfigError(
            f"data: classes of {name} is {str(stated)[:60]!r}; needed is the list of their names,"
            " in the order of their numbers"
        )
    return _asked(lambda: [str(each) for each in stated], f"classes of {name}")


def _columns(names: list[str], name: str) -> dict[str, LabelColumn]:
    entry = {"field": "cls", "key": None, "values": list(range(len(names))), "names": names}
    try:
        return labels_of({"labels": {COLUMN: entry}}, ["cls"])
    except ValueError as error:
        raise ConfigError(f"data: classes of {name}: {error}") from None


def _entry(array: np.ndarray, rate: Any, name: str) -> dict[str, Any]:
    """Return the description of a sample as dataset.json has it; ConfigError for another form."""
    kind, shape = array.dtype.name, array.shape
    if kind == "uint8" and len(shape) in (3, 4) and shape[-3] in (1, 3) and min(shape) > 0:
        about: dict[str, Any] = {"channels": shape[-3], "size": size_entry(*shape[-2:])}
        if len(shape) == 3:
            return {"kind": "image", **about, "field": "npy"}
        if shape[0] == 2:
            return {"kind": "image_pair", **about, "fields": ["input.npy", "target.npy"]}
    if kind in ("int16", "float32") and len(shape) == 2 and shape[0] == 2 and shape[1]:
        if type(rate) is not int or rate < 1:
            raise ConfigError(
                f"data: {name} has pairs of signals and rate={rate!r}; give it an attribute `rate`,"
                " samples per second"
            )
        form = {"rate": rate, "dtype": kind, "length": shape[1], "longest": shape[1]}
        return {"kind": "pair", **form, "fields": ["input.wav", "target.wav"]}
    if kind == "float32" and len(shape) == 1 and shape[0]:
        return {"kind": "vector", "size": shape[0], "field": "npy"}
    hint = "; images are bytes, without ToTensor or Normalize" if math.prod(shape) > 1 else ""
    raise ConfigError(f"data: a sample of {name} is {kind} {list(shape)}; it may be {FORMS}{hint}")


def _encoded(array: np.ndarray, fields: Sequence[str], rate: Any) -> dict[str, bytes]:
    """Return the members of a sample."""
    if array.ndim == 1:
        return {fields[0]: npy.encode(array)}
    if array.ndim == 2:
        return {f: audio_codec.write_wav(x, rate) for f, x in zip(fields, array, strict=False)}
    images = array if array.ndim == 4 else array[None]
    pixels = [one.transpose(1, 2, 0) for one in images]
    pixels = [one[..., 0] if one.shape[2] == 1 else one for one in pixels]
    return {f: npy.encode(x) for f, x in zip(fields, pixels, strict=False)}
