"""Rows of a table, an array of NumPy or CSV with a header -> vectors of float32.

Values are stored as they are, not scaled. Empty values, NaN and infinity are refused by the number
of their row, which is counted from 0 in an array, and columns that hold texts by name; columns of
labels leave the vector. A sample is `key.npy` and, with labels, `key.json`. Equal rows stay on one
side of the split.
"""

import csv
import hashlib
import io
import json
from array import array as numbers
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from distgan.core.arguments import Arguments, Option
from distgan.core.errors import ConfigError, did_you_mean
from distgan.core.reading import open_regular
from distgan.shards.codecs import array
from distgan.shards.format import label_files
from distgan.shards.format.sample_spec import MOST_VALUES
from distgan.shards.sources._base import SampleIssue, SourceReport

EXAMPLES = [
    (
        "an array [samples, numbers], as np.save writes it",
        "distgan shard vectors OUT --from rows.npy",
    ),
    (
        "a table, its column `species` as labels",
        "distgan shard vectors OUT --from a.csv --labels species",
    ),
    ("two of its columns", "distgan shard vectors OUT --from a.csv --columns width,height"),
]
RECIPE, KIND = None, "vector"


def _names(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",")]
    if not all(names) or len(set(names)) != len(names):
        raise ValueError
    return names


def _file(text: str) -> Path:
    if Path(text).suffix.lower() not in (".npy", ".csv"):
        raise ValueError
    return Path(text).expanduser()


_LIST = "different names, separated by commas"
OPTIONS = (
    Option(
        "from",
        "an array [samples, numbers] of floats or integers, or a table with a header",
        "FILE.npy|FILE.csv",
        dest="file",
        required=True,
        allowed="a file .npy or .csv",
        read=_file,
    ),
    Option(
        "columns",
        "of a table: the columns that make the vector (default: all that are no labels)",
        "NAMES",
        allowed=_LIST,
        read=_names,
    ),
    Option(
        "labels",
        "of a table: columns of classes, for conditional networks",
        "NAMES",
        allowed=_LIST,
        read=_names,
    ),
)


def check_options(args: Arguments) -> Iterator[str]:
    """Yield the errors of options that do not fit together."""
    columns, labels = args.columns or [], args.labels or []
    if both := sorted({*columns} & {*labels}):
        yield f"--columns, --labels: both name {both[0]}; labels are no part of the vector"
    if args.file and args.file.suffix.lower() == ".npy" and columns + labels:
        yield "--columns, --labels: an array has no names of columns; give a table, FILE.csv"


class Source:
    def __init__(self, args: Arguments):
        self.values: np.ndarray  # float32 [samples, numbers]
        self.names: list[str]  # of the samples, in messages
        self.columns: list[str]  # () of an array
        self.labels = label_files.NONE
        try:
            if args.file.suffix.lower() == ".npy":
                values = _of_array(args.file)
                self.names, self.columns = [f"row {i}" for i in range(len(values))], []
            else:
                table = _Table(args.file, args.columns, args.labels or [])
                values, self.names, self.columns = table.values, table.names, table.columns
                if args.labels:
                    option = ",".join(args.labels)
                    self.labels = label_files.labels_of_rows(
                        option, table.labels, table.names, "rows"
                    )
                    self.label_columns = self.labels.columns
        except OSError as error:
            raise ConfigError(f"--from {args.file}: {error.strerror}") from None
        except (ValueError, csv.Error) as error:
            raise ConfigError(f"--from {args.file}: {error}") from None
        with np.errstate(over="ignore"):
            self.values = np.ascontiguousarray(values, np.float32)
        count, size = self.values.shape
        content = hashlib.sha256(self.values.data)
        content.update(json.dumps([self.columns, self.labels.rows]).encode())
        self.options: dict[str, Any] = {
            "from": f"{count} rows of {size} numbers with sha256 {content.hexdigest()[:16]}",
            "labels": self.labels.option,
        }
        self.origin: dict[str, Any] = {"file": str(args.file)}
        self.sample: dict[str, Any] = {"kind": "vector", "size": size, "field": "npy"}
        self.sample |= {"columns": self.columns} if self.columns else {}
        self.keys = [f"{i:07d}" for i in range(count)]

    def check(self, workers: int) -> SourceReport:
        """Find values that are no numbers; note constant columns and equal rows."""
        names = self.columns or [f"column {i}" for i in range(self.values.shape[1])]
        finite = np.isfinite(self.values)
        issues = [
            SampleIssue(i, self.names[i], f"{names[k]} is {self.values[i, k]}", False)
            for i in np.flatnonzero(~finite.all(1)).tolist()
            for k in np.flatnonzero(~finite[i])[:1].tolist()
        ]
        notes = list(self.labels.notes)
        constant = np.flatnonzero(self.values.min(0) == self.values.max(0)).tolist()
        if constant:
            notes.append(f"the same in all rows: {', '.join(names[k] for k in constant[:8])}")
        if again := len(self.values) - len({row.tobytes() for row in self.values}):
            notes.append(f"{again} rows are equal to an earlier one")
        return SourceReport(issues, notes)

    def label_of(self, i: int) -> dict[str, int | str]:
        """Return the value of each column of labels."""
        return self.labels.rows[i] if self.labels.rows else {}

    def group(self, i: int) -> str:
        """Return the hash of the values: no copy of a training row may be in validation."""
        return hashlib.sha256(self.values[i].data).hexdigest()

    def make(self, i: int) -> dict[str, Any]:
        labels = {"json": json.dumps(self.label_of(i)).encode()} if self.labels.rows else {}
        return {"__key__": self.keys[i], "npy": array.encode(self.values[i]), **labels}


def _of_array(path: Path) -> np.ndarray:
    """Open an array [samples, numbers]; ValueError for another one."""
    open_regular(path, links=True).close()
    try:
        with array.one_error():
            values = np.lib.format.open_memmap(path, mode="r")
    except ValueError as error:
        raise ValueError(f"not an array of numbers as np.save writes it ({error})") from None
    if values.ndim != 2 or values.dtype.kind not in "fiu":
        raise ValueError(
            f"an array of {values.dtype} {list(values.shape)}; needed are floats or integers"
            " [samples, numbers]"
        )
    _require_size(*values.shape)
    return values


def _require_size(count: int, size: int) -> None:
    if count < 2 or not 1 <= size <= MOST_VALUES:
        raise ValueError(
            f"{count} rows of {size} numbers; needed are 2 rows or more, of 1 to {MOST_VALUES:,}"
        )


class _Table:
    """A CSV file: float64 `values`, the `names` of its rows, its `columns`, the `labels` of each
    row. ValueError for all columns that hold no numbers.
    """

    def __init__(self, path: Path, chosen: list[str] | None, labels: list[str]):
        self.names: list[str] = []
        self.labels: list[dict[str, Any]] = []
        flat, odd = numbers("d"), dict[str, str]()
        with open_regular(path, links=True) as file:
            text = io.TextIOWrapper(file, encoding="utf-8-sig", newline="")
            rows = csv.reader(text, strict=True)
            header = _header(rows)
            for option, names in (("columns", chosen or []), ("labels", labels)):
                _require_known(option, names, header)
            self.columns = chosen or [name for name in header if name not in labels]
            places = [header.index(name) for name in self.columns]
            label_places = [(name, header.index(name)) for name in labels]
            for row in filter(None, rows):
                line = f"line {rows.line_num}"
                if len(row) != len(header):
                    raise ValueError(f"{line} has {len(row)} values, the header {len(header)}")
                for name, place in zip(self.columns, places, strict=True):
                    try:
                        flat.append(_number(row[place].strip() or "nan"))
                    except ValueError:
                        flat.append(0.0)
                        odd.setdefault(name, f"{line}: {row[place][:40]!r}")
                self.names.append(line)
                if labels:
                    self.labels.append({name: row[place] for name, place in label_places})
        if odd:
            rest = [name for name in self.columns if name not in odd]
            raise ValueError(_no_numbers(odd, rest))
        _require_size(len(self.names), len(self.columns))
        self.values = np.frombuffer(flat).reshape(len(self.names), -1)


def _header(rows: Iterator[list[str]]) -> list[str]:
    """Return the names of the columns; ValueError where the first line has none."""
    header = [name.strip() for name in next(rows, [])]
    try:
        without = bool(header) and all(_number(name) is not None for name in header)
    except ValueError:
        without = False
    usable = header and all(name and name.isprintable() for name in header)
    if without or not usable or len(set(header)) != len(header):
        raise ValueError(
            "the first line must be a header, different names such as x,y; it is"
            f" {','.join(header)[:80]!r}"
        )
    return header


def _number(text: str) -> float:
    if "_" in text:  # float("1_0") is 10.0
        raise ValueError
    return float(text)


def _require_known(option: str, names: list[str], header: list[str]) -> None:
    for name in names:
        if name not in header:
            near = did_you_mean(name, header)
            there = ", ".join(header[:12]) + (", …" if len(header) > 12 else "")
            raise ValueError(f"--{option}: no column {name[:60]!r}{near}; there are: {there}")


def _no_numbers(odd: dict[str, str], rest: list[str]) -> str:
    """Return the message for columns of texts, with the options that leave them out."""
    names = ",".join(odd)
    found = "; ".join(f"{name} ({where})" for name, where in list(odd.items())[:8])
    columns = f", leave them out with --columns {','.join(rest)}" if rest else ""
    return (
        f"columns that hold no numbers: {found}. Make them labels with --labels {names}{columns},"
        " or write numbers there"
    )
