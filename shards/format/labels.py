"""The labels of a data set: the entry `labels` of dataset.json, and the label of each sample.

    {COLUMN: {"field": member of a sample, "key": key of its JSON object or null,
              "values": [value, …], "names": [name, …]}}

The number of a class is the index of its value; all values are whole numbers, or all are texts.
With `key`, the member is a JSON object; without, all of it is the value, in ASCII.
"""

import functools
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from distgan.core.errors import DataError
from distgan.core.reading import parse_json
from distgan.shards.format.flower_species import SPECIES
from distgan.shards.format.reader import ShardSet
from distgan.shards.format.tar_members import CONTROL

COLUMN = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,59}")
MOST_CLASSES = 100_000
LONGEST = 200  # characters of a value or a name
# Sets of this source that were made before labels were listed have them all the same.
_FLOWERS = "flowers102"
_WHOLE = re.compile(r"0|-?[1-9][0-9]{0,14}")  # 01 and 1 are two classes
Value = int | str


@dataclass(frozen=True)
class LabelColumn:
    """A column of labels: where a sample has its value, and the classes in their order."""

    name: str
    field: str
    key: str | None
    values: tuple[Value, ...]  # all of one type
    names: tuple[str, ...]

    def entry(self) -> dict[str, Any]:
        """Return the entry of dataset.json."""
        values, names = list(self.values), list(self.names)
        return {"field": self.field, "key": self.key, "values": values, "names": names}

    @functools.cached_property
    def numbers(self) -> dict[Value, int]:
        """The number of the class of each value."""
        return {value: number for number, value in enumerate(self.values)}

    @property
    def place(self) -> str:
        """The member of a sample, or the key in it, that holds the label."""
        return self.field if self.key is None else f"{self.key} of {self.field}"

    def class_of(self, data: bytes) -> int:
        """Return the number of the class that a sample's member states; ValueError if none."""
        is_whole = type(self.values[0]) is int
        try:
            value = parse_json(data)[self.key] if self.key is not None else data.decode().strip()
            if self.key is None and is_whole and _WHOLE.fullmatch(value):
                value = int(value)
            if type(value) is not type(self.values[0]):
                raise ValueError
        except (ValueError, KeyError, TypeError):
            kind = "whole number" if is_whole else "text"
            raise ValueError(f"{self.place} holds no {kind}, the label of {self.name}") from None
        if value not in self.numbers:
            raise ValueError(
                f"the label {str(value)[:60]!r} in {self.place} is none of the"
                f" {len(self.values)} classes of {self.name}"
            )
        return self.numbers[value]


FLOWERS = LabelColumn("species", "json", "label", tuple(range(1, 103)), SPECIES)


def typed(values: list[Value]) -> list[Value]:
    """Return the values as whole numbers where all of them are, else as texts."""
    texts = [str(value) for value in values]
    return [int(text) for text in texts] if all(map(_WHOLE.fullmatch, texts)) else [*texts]


def column_of(name: str, field: str, key: str | None, values: Iterable[Value]) -> LabelColumn:
    """Return the column of these values, all whole numbers or all texts, its classes sorted.

    ValueError names what cannot be a value, a class or the name of a column.
    """
    classes: list[Any] = sorted(set(values))
    if len(classes) > MOST_CLASSES:
        raise ValueError(
            f"column {name} has {len(classes):,} classes; allowed are {MOST_CLASSES:,}"
        )
    for value in classes:
        if type(value) is str and not _is_printable(value):
            raise ValueError(
                f"column {name}: {value[:60]!r} cannot be a value: 1 to {LONGEST} characters, no"
                " control characters"
            )
    names = [str(value) for value in classes]
    entry = {"field": field, "key": key, "values": classes, "names": names}
    return _column(name, entry, [field])


def labels_of(dataset: dict[str, Any], fields: list[str]) -> dict[str, LabelColumn]:
    """Return the validated columns of labels of dataset.json, by name.

    `fields` are those of a sample. ValueError names the error.
    """
    if "labels" not in dataset and dataset.get("source") == _FLOWERS and "json" in fields:
        return {"species": FLOWERS}
    entries = dataset.get("labels", {})
    if type(entries) is not dict:
        raise ValueError("labels are no columns by name")
    return {name: _column(name, entry, fields) for name, entry in entries.items()}


def _column(name: str, entry: Any, fields: list[str]) -> LabelColumn:
    if not COLUMN.fullmatch(name):
        raise ValueError(f"labels: {name[:60]!r} cannot be the name of a column")
    if type(entry) is not dict:
        raise ValueError(f"labels: {name} is no description of a column")
    field, key, values, names = (entry.get(part) for part in ("field", "key", "values", "names"))
    is_json = isinstance(field, str) and field.rpartition(".")[2] == "json"
    valid = {
        "field": field in fields,
        "key": isinstance(key, str) if is_json else key is None,
        "values": _are_distinct(values, int) or _are_distinct(values, str),
        "names": _are_distinct(names, str)
        and len(entry["names"]) == (len(values) if isinstance(values, list) else 0),
    }
    if wrong := [part for part, is_valid in valid.items() if not is_valid]:
        raise ValueError(f"labels: {wrong[0]} of {name}: {str(entry.get(wrong[0]))[:80]}")
    return LabelColumn(name, str(field), key, tuple(entry["values"]), tuple(entry["names"]))


def _are_distinct(values: Any, kind: type) -> bool:
    return (
        isinstance(values, list)
        and 0 < len(values) <= MOST_CLASSES
        and all(type(value) is kind for value in values)
        and (kind is int or all(map(_is_printable, values)))
        and len(set(values)) == len(values)
    )


def _is_printable(value: str) -> bool:
    is_text = not any("\ud800" <= letter <= "\udfff" for letter in value[: LONGEST + 1])
    return 0 < len(value) <= LONGEST and is_text and not CONTROL.search(value)


def read_labels(split: ShardSet, column: LabelColumn) -> np.ndarray:
    """Return int64 [n]: the number of the class of each sample of a split.

    Every member is verified; DataError names the sample whose label is missing or of no class.
    """
    classes = np.empty(len(split), np.int64)
    for i in range(len(split)):
        data = split.fields_of(i, (column.field,))[column.field]
        try:
            classes[i] = column.class_of(data)
        except ValueError as error:
            raise DataError(f"sample {split.key(i)} of {split.folder}: {error}") from None
    return classes
