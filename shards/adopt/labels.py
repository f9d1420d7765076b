"""Labels of adopted tars: a field of text, such as cls, or a key of a field of JSON."""

import re
from collections.abc import Iterator

from distgan.core import console
from distgan.core.errors import ConfigError, DataError
from distgan.core.reading import parse_json
from distgan.shards.format.labels import LabelColumn, Value, column_of, typed
from distgan.shards.format.reader import ShardSet

USUAL = "cls"
MOST_CLASSES, LONGEST = 1000, 60  # of labels that are taken by themselves

Place = tuple[str, str | None]  # a field, and the key in it


def places(text: str) -> list[Place]:
    """Parse `cls,json:KEY`; ValueError for an empty name."""
    pairs = [part.partition(":") for part in text.split(",")]
    if not all(field and bool(key) == bool(colon) for field, colon, key in pairs):
        raise ValueError
    return [(field, key or None) for field, _, key in pairs]


def label_columns(parts: dict[str, ShardSet], asked: list[Place] | None) -> list[LabelColumn]:
    """Return the columns of labels that --label names; without it, `cls` where it holds classes.

    ConfigError for a field that cannot hold labels, DataError for samples without one.
    """
    fields = parts["train"].fields
    if asked is None:
        return list(_usual(parts)) if USUAL in fields else []
    columns: dict[str, LabelColumn] = {}
    for field, key in asked:
        option = f"--label {field}:{key}" if key else f"--label {field}"
        if field not in fields:
            raise ConfigError(f"{option}: no field {field!r}; there are: {', '.join(fields)}")
        if (field.rpartition(".")[2] == "json") != (key is not None):
            raise ConfigError(
                f"{option}: a label is a key of a field of JSON, {field}:KEY, or all of another"
                " field"
            )
        name = re.sub(r"[^A-Za-z0-9_.-]+", "_", key or field).lstrip(".-")[:60]
        try:
            column = column_of(name, field, key, _values(parts, field, key))
        except ValueError as error:
            raise DataError(f"{option}: {error}") from None
        if len(column.values) == 1:
            raise DataError(f"{option}: one class only, {column.names[0]!r}, for all samples")
        if name in columns:
            raise ConfigError(f"{option}: another label is named {name}; give one of them")
        columns[name] = column
    return list(columns.values())


def _usual(parts: dict[str, ShardSet]) -> Iterator[LabelColumn]:
    """Yield the column `cls` if its values are classes and not a text of each sample."""
    try:
        values = _values(parts, USUAL, None)
        column = column_of(USUAL, USUAL, None, values)
    except ValueError:
        return
    most = min(MOST_CLASSES, (len(values) - 1) // 2)
    if 2 <= len(column.values) <= most and max(map(len, column.names)) <= LONGEST:
        yield column


def _values(parts: dict[str, ShardSet], field: str, key: str | None) -> list[Value]:
    """Return the value of every sample: all whole numbers, or all texts. ValueError."""
    values: list[Value] = []
    missing: list[str] = []
    with console.bar(f"reading {field}", sum(map(len, parts.values())), "samples") as bar:
        for part, shard_set in parts.items():
            for i in range(len(shard_set)):
                try:
                    values.append(_value(shard_set.fields_of(i, (field,))[field], key))
                except (ValueError, KeyError, TypeError):
                    missing.append(f"{part}/{shard_set.key(i)}")
                bar.advance()
    if missing:
        raise ValueError(
            f"{len(missing)} of {len(values) + len(missing)} samples have neither a text nor a"
            f" whole number there, such as {missing[0]}"
        )
    if key is None:
        return typed(values)
    if len({type(value) for value in values}) > 1:
        raise ValueError("some samples have a text there, others a whole number")
    return values


def _value(data: bytes, key: str | None) -> Value:
    value = data.decode().strip() if key is None else parse_json(data)[key]
    if type(value) not in (int, str) or value == "":
        raise ValueError
    return value
