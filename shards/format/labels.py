"""The labels of a data set: the entry `labels` of dataset.json, and the label of each sample.

    {COLUMN: {"field": member of a sample, "key": key of its JSON object or null,
              "values": [value, …], "names": [name, …]}}

The number of a class is the index of its value; all values are whole numbers, or all are texts.
With `key`, the member is a JSON object; without, all of it is the value, in ASCII.
"""

import json
import re
from dataclasses import dataclass
from typing import Any

import numpy as np

from distgan.core.errors import DataError
from distgan.shards.format.reader import ShardSet
from distgan.shards.format.tar_members import CONTROL

COLUMN = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,59}")
MOST_CLASSES = 100_000
LONGEST = 200  # characters of a value or a name
# Sets of this source that were made before labels were listed have them all the same.
_FLOWERS, _SPECIES = "flowers102", 102


@dataclass(frozen=True)
class LabelColumn:
    """A column of labels: where a sample has its value, and the classes in their order."""

    name: str
    field: str
    key: str | None
    values: tuple[int, ...] | tuple[str, ...]
    names: tuple[str, ...]

    def entry(self) -> dict[str, Any]:
        """Return the entry of dataset.json."""
        values, names = list(self.values), list(self.names)
        return {"field": self.field, "key": self.key, "values": values, "names": names}


def labels_of(dataset: dict[str, Any], fields: list[str]) -> dict[str, LabelColumn]:
    """Return the validated columns of labels of dataset.json, by name.

    `fields` are those of a sample. ValueError names the error.
    """
    if "labels" not in dataset and dataset.get("source") == _FLOWERS and "json" in fields:
        values = tuple(range(1, _SPECIES + 1))
        names = tuple(f"species {value}" for value in values)
        return {"species": LabelColumn("species", "json", "label", values, names)}
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
        "names": _are_distinct(names, str) and len(names) == len(values or ()),
    }
    if wrong := [part for part, is_valid in valid.items() if not is_valid]:
        raise ValueError(f"labels: {wrong[0]} of {name}: {str(entry.get(wrong[0]))[:80]}")
    return LabelColumn(name, str(field), key, tuple(values), tuple(names))


def _are_distinct(values: Any, kind: type) -> bool:
    return (
        isinstance(values, list)
        and 0 < len(values) <= MOST_CLASSES
        and all(type(value) is kind for value in values)
        and (kind is int or all(0 < len(v) <= LONGEST and not CONTROL.search(v) for v in values))
        and len(set(values)) == len(values)
    )


def read_labels(split: ShardSet, column: LabelColumn) -> np.ndarray:
    """Return int64 [n]: the number of the class of each sample of a split.

    Every member is verified; DataError names the sample whose label is missing or of no class.
    """
    numbers = {value: number for number, value in enumerate(column.values)}
    classes = np.empty(len(split), np.int64)
    for i in range(len(split)):
        value = _value(split, i, column)
        if value not in numbers:
            raise DataError(
                f"sample {split.key(i)} of {split.folder}: the label {str(value)[:60]!r} in"
                f" {_place(column)} is none of the {len(numbers)} classes of {column.name}"
            )
        classes[i] = numbers[value]
    return classes


def _value(split: ShardSet, i: int, column: LabelColumn) -> int | str:
    data = split.fields_of(i, (column.field,))[column.field]
    try:
        value = json.loads(data)[column.key] if column.key is not None else data.decode().strip()
        if column.key is None and type(column.values[0]) is int:
            value = int(value)
        if type(value) is not type(column.values[0]):
            raise ValueError
    except (ValueError, KeyError, TypeError, RecursionError):
        kind = "whole number" if type(column.values[0]) is int else "text"
        raise DataError(
            f"sample {split.key(i)} of {split.folder}: {_place(column)} holds no {kind}, the label"
            f" of {column.name}"
        ) from None
    return value


def _place(column: LabelColumn) -> str:
    return column.field if column.key is None else f"{column.key} of {column.field}"
