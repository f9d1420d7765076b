"""Labels of a folder's images: the names of their folders, or a CSV or JSON file; and labels of the
rows of a table.

    folders    the first folder below FROM is the class, in the column `class`
    FILE.csv   with a header; the column file, file_name, filename or path, else the first one,
               names an image relative to FROM, the others are columns of labels
    FILE.json  {"a.png": value or {column: value}, …}, or [{"file": "a.png", column: value}, …], or
               StyleGAN's {"labels": [["a.png", value], …]}; a value alone is in the column `class`

Every image needs a value in every column. Values are whole numbers where all of a column are, else
texts. All faults are found before an image is decoded.
"""

import csv
import hashlib
import io
import os
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from distgan.core.errors import ConfigError
from distgan.core.file_tree import shown
from distgan.core.reading import parse_json, read_bytes
from distgan.shards.format.labels import COLUMN, Value, column_of, typed

FOLDERS, CLASS = "folders", "class"
FILE_COLUMNS = ("file", "file_name", "filename", "path")
TAKEN = ("file", "width", "height", "mode")  # members of a sample's JSON object
LARGEST = 1 << 28  # bytes of a file of labels

Table = dict[str, dict[str, Any]]  # file -> column -> value


@dataclass(frozen=True)
class SampleLabels:
    """The labels of the samples, in their order; `option` tells one set of labels from another."""

    option: str
    columns: dict[str, dict[str, Any]] = field(default_factory=dict)
    rows: list[dict[str, Value]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


NONE = SampleLabels("")


def choice(text: str) -> str:
    """Parse `--labels`; ValueError for what is neither `folders` nor the name of such a file."""
    if text != FOLDERS and Path(text).suffix.lower() not in (".csv", ".json"):
        raise ValueError
    return text


def read_image_labels(chosen: str, folder: Path, files: list[str]) -> SampleLabels:
    """Return the labels of `files` below `folder`; ConfigError with the remedy for every fault."""
    try:
        if chosen == FOLDERS:
            option, table = FOLDERS, _of_folders(folder, files)
        else:
            path = Path(chosen)
            kind, data = path.suffix[1:].lower(), read_bytes(path, LARGEST, links=True)
            option = f"{kind} with sha256 {hashlib.sha256(data).hexdigest()[:16]}"
            table = _of_csv(data, files) if kind == "csv" else _of_json(data)
        names = [shown(file) for file in files]
        _require_the_same(names, table, folder)
        return labels_of_rows(option, [table[name] for name in names], names, "images", TAKEN)
    except OSError as error:
        raise ConfigError(f"--labels {chosen}: {error.strerror}") from None
    except (ValueError, csv.Error) as error:
        raise ConfigError(f"--labels {chosen}: {error}") from None


def labels_of_rows(
    option: str,
    rows: list[dict[str, Any]],
    names: list[str],
    unit: str,
    taken: tuple[str, ...] = (),
) -> SampleLabels:
    """Return the labels {column: value} of samples of these names, a row each; `taken`: no names of
    columns. ValueError for every fault, with the remedy.
    """
    columns = list(dict.fromkeys(column for row in rows for column in row))
    _require_columns(columns, taken)
    values = {name: _values(name, names, rows, unit) for name in columns}
    entries = {name: column_of(name, "json", name, values[name]).entry() for name in columns}
    if faults := [
        f"column {name} has one class only, {entry['names'][0]!r}; leave it out"
        for name, entry in entries.items()
        if len(entry["values"]) == 1
    ]:
        raise ValueError("; ".join(faults))
    notes = [note for name in columns for note in _alone(name, values[name], unit)]
    labels = [{name: values[name][i] for name in columns} for i in range(len(rows))]
    return SampleLabels(option, entries, labels, notes)


def _of_folders(folder: Path, files: list[str]) -> Table:
    outside = [file for file in files if "/" not in file]
    if len(outside) == len(files):
        raise ValueError(
            f"no image is in a folder below {folder}; put the images of each class in a folder of"
            " its name, or name a file of labels"
        )
    if outside:
        raise ValueError(
            f"{len(outside)} of {len(files)} images are in {folder} itself, such as"
            f" {shown(outside[0])}, and have no class; move them into the folder of their class, or"
            " out of it"
        )
    return {shown(file): {CLASS: shown(file).partition("/")[0]} for file in files}


def _of_csv(data: bytes, files: list[str]) -> Table:
    rows = csv.reader(io.StringIO(_text(data), newline=""), strict=True)
    header = [name.strip() for name in next(rows, [])]
    needed = f"the first line must be a header, such as {FILE_COLUMNS[0]},{CLASS}"
    if any(_plain(name) in set(map(shown, files)) for name in header):
        raise ValueError(f"{needed}; it is {','.join(header)[:80]}, which names an image")
    if len(header) < 2 or len(set(header)) != len(header):
        raise ValueError(f"{needed}, of different names; it is {','.join(header)[:80]!r}")
    at = next((i for i, name in enumerate(header) if name.lower() in FILE_COLUMNS), 0)
    pairs = []
    for row in filter(None, rows):
        if len(row) != len(header):
            raise ValueError(
                f"line {rows.line_num} has {len(row)} values, the header {len(header)}"
            )
        values = dict(zip(header, row, strict=True))
        pairs.append((values.pop(header[at]), values))
    return _unique(pairs)


def _of_json(data: bytes) -> Table:
    content = parse_json(_text(data), unique=True)
    if isinstance(content, dict) and isinstance(content.get("labels"), list):
        content = content["labels"]
        if not all(isinstance(item, list) and len(item) == 2 for item in content):
            raise ValueError('labels must be a list of ["path", value]')
        return _unique([(file, {CLASS: value}) for file, value in content])
    if isinstance(content, dict):
        return _unique(
            [
                (file, value if isinstance(value, dict) else {CLASS: value})
                for file, value in content.items()
            ]
        )
    pairs = []
    for item in content if isinstance(content, list) else [content]:
        keys = [key for key in FILE_COLUMNS if isinstance(item, dict) and key in item]
        if not keys:
            raise ValueError(
                'allowed are {"FILE": value or {"COLUMN": value}, …}, [{"file": "FILE", "COLUMN":'
                ' value}, …] and {"labels": [["FILE", value], …]}'
            )
        pairs.append((item[keys[0]], {key: item[key] for key in item if key != keys[0]}))
    return _unique(pairs)


def _text(data: bytes) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"it is not UTF-8: byte {error.start}") from None


def _plain(file: str) -> str:
    """Return the name of a file below FROM as it is listed: `./a/b.png` -> `a/b.png`."""
    return os.path.normpath(file.strip()) if file.strip() else ""


def _unique(pairs: list[tuple[Any, dict[str, Any]]]) -> Table:
    table: Table = {}
    for file, values in pairs:
        if not isinstance(file, str):
            raise ValueError(f"{str(file)[:60]!r} is no name of a file")
        if (name := _plain(file)) in table:
            raise ValueError(f"{name} occurs twice")
        table[name] = values
    return table


def _require_the_same(names: list[str], table: Collection[str], folder: Path) -> None:
    """Raise ValueError for images without a label and labels without an image."""
    faults = []
    if missing := [name for name in names if name not in table]:
        faults.append(
            f"{len(missing)} of {len(names)} images have no label, such as {missing[0]}; add them,"
            f" or move these images out of {folder}"
        )
    known = set(names)
    if unknown := [name for name in table if name not in known]:
        faults.append(
            f"{len(unknown)} labels are of no image below {folder}, such as"
            f" {unknown[0][:80]!r}; names are relative to {folder}"
        )
    if faults:
        raise ValueError("; ".join(faults))


def _require_columns(columns: list[str], taken: tuple[str, ...]) -> None:
    """Raise ValueError for names that a column of labels cannot have, and for no columns."""
    if not columns:
        raise ValueError("it has no column of labels")
    for name in columns:
        if name in taken or not COLUMN.fullmatch(name):
            raise ValueError(
                f"{name[:60]!r} cannot be the name of a column of labels: letters of ASCII, digits"
                f" and _ . -, at most 60{', and none of ' * bool(taken)}{', '.join(taken)}; rename"
                " it"
            )


def _values(column: str, names: list[str], rows: list[dict[str, Any]], unit: str) -> list[Value]:
    """Return the value of each sample; ValueError for what is empty, no text and no number."""
    values: list[Value] = []
    empty, odd = [], []
    for name, row in zip(names, rows, strict=True):
        value = row.get(column)
        value = value.strip() if isinstance(value, str) else value
        if value is None or value == "":
            empty.append(name)
        elif type(value) not in (int, str):
            odd.append((name, value))
        else:
            values.append(value)
    if empty:
        raise ValueError(
            f"column {column} is empty for {len(empty)} of {len(names)} {unit}, such as {empty[0]}"
        )
    if odd:
        raise ValueError(
            f"column {column} has values that are neither texts nor whole numbers for {len(odd)} of"
            f" {len(names)} {unit}, such as {odd[0][0]}: {str(odd[0][1])[:60]}"
        )
    return typed(values)


def _alone(column: str, values: list[Value], unit: str) -> list[str]:
    """Return a note about the classes of one sample."""
    alone = [str(value) for value, count in Counter(values).items() if count == 1]
    return (
        [f"classes of {column} with one {unit[:-1]}: {len(alone)}, such as {alone[0]}"]
        if alone
        else []
    )
