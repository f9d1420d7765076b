"""The folder that `distgan generate` fills, file by file or shard by shard, and continues to fill
after a kill. Written by one process.

generated.json   which checkpoint, what the items are, and how many, once all are written
result.csv       a row for each file, written when the file is on the disk; or, instead of files,
000000.tar …     shards of equal size, but for the last one; with them the index and dataset.json of
                 `distgan index`
"""

import csv
import io
import json
import os
import weakref
from pathlib import Path
from typing import Any

from distgan.core import console
from distgan.core.errors import ConfigError
from distgan.core.files import (
    append,
    csv_text,
    disk_errors,
    lock,
    make_folder,
    remove,
    sha256_of,
    write_atomic,
)
from distgan.core.reading import LINES_BYTES, read_bytes, read_json
from distgan.outputs.image_results import save
from distgan.shards.format.index import is_written
from distgan.shards.format.manifest import DATASET, MANIFEST
from distgan.shards.format.writer import write_shard

ABOUT = "generated.json"
Row = tuple[Any, ...]  # number, file's name, …, sha256


class OutputFolder:
    """The output folder of items described by `about`, as files or as shards."""

    def __init__(self, target: Path, about: dict[str, Any], shards: bool):
        self.target, self.shards = target, shards
        self._about = about | {"as": "shards" if shards else "files"}

    def require_ours(self) -> None:
        """ConfigError unless the folder is new, empty, or was begun with the same `about`."""
        try:
            is_new = not self.target.exists() or not any(self.target.iterdir())
        except OSError as error:
            raise ConfigError(
                f"out={self.target}: {error.strerror}; give another folder"
            ) from error
        if is_new:
            return
        try:
            stored = read_json(self.target / ABOUT)["about"]
        except (OSError, ValueError, KeyError, TypeError):
            raise ConfigError(
                f"out={self.target}: exists and is not empty, and `distgan generate` did not make"
                " it; give another folder, or move it away"
            ) from None
        if stored != self._about:
            known = stored if isinstance(stored, dict) else {}
            differences = [
                f"  {key}: {known.get(key)} there, {self._about.get(key)} now"
                for key in known | self._about
                if known.get(key) != self._about.get(key)
            ]
            raise ConfigError(
                "\n".join(
                    [
                        f"out={self.target} was made otherwise; nothing was overwritten",
                        *differences,
                        "give another folder, or move it away",
                    ]
                )
            )

    def begin(self, columns: tuple[str, ...], per_shard: int, multiple: int, count: int) -> int:
        """Create or open the folder, verify its items, and return how many are kept.

        Below `count`, complete items are kept down to a multiple.
        """
        self._columns, self._count = columns, count
        self._open()
        before = self._finished()
        if self.shards:
            kept = self._keep_shards(per_shard, before)
        else:
            kept = self._keep_files(multiple)
        self._mark(before if kept >= count else None)
        if kept:
            console.say(f"{kept} are already there, complete")
        return kept

    def begin_anew(self, count: int) -> int:
        """Create or open the folder for items that are all written anew, into one file; return how
        many to write, at least as many as it held.
        """
        self._open()
        self._count = max(count, self._finished())
        self._mark(None)
        return self._count

    def _open(self) -> None:
        """Create the folder and lock it; ConfigError where another process writes into it."""
        with disk_errors(self.target, "give access, or name another folder"):
            make_folder(self.target)
            folder = os.open(self.target, os.O_RDONLY | os.O_DIRECTORY)
        self._close = weakref.finalize(self, os.close, folder)  # and with it the lock
        busy = ConfigError(
            f"out={self.target}: another process is writing into it; wait for it, or give another"
            " folder"
        )
        if no_locks := lock(folder, busy):
            console.say(
                f"warning: {self.target} cannot be locked ({no_locks}); make sure that no other"
                " process writes into it"
            )

    def _mark(self, n: int | None) -> None:
        """Write what the folder holds, and of how many items once all are written."""
        write_atomic(self.target / ABOUT, json.dumps({"about": self._about, "n": n}, indent=1))

    def _finished(self) -> int:
        """Return how many items the folder held when it was finished; 0 if it was not."""
        try:
            return int(read_json(self.target / ABOUT)["n"] or 0)
        except (OSError, ValueError, KeyError, TypeError, OverflowError):
            return 0

    def _keep_shards(self, per_shard: int, before: int) -> int:
        self._next = 0
        while is_written(self._tar(self._next)):
            self._next += 1
        if before >= self._count and self._next * per_shard >= before:
            return before
        self._next = max(self._next - 1, 0)  # the last shard may be short, and is written again
        return self._next * per_shard

    def _keep_files(self, multiple: int) -> int:
        lines = self._verified_rows()
        if len(lines) < self._count:
            lines = lines[: len(lines) - len(lines) % multiple]
        write_atomic(self.target / "result.csv", csv_text(self._columns, lines))
        return len(lines)

    def _verified_rows(self) -> list[Row]:
        """Return the rows of result.csv up to the first file with another SHA-256."""
        try:
            text = read_bytes(self.target / "result.csv", LINES_BYTES).decode()
            lines = list(csv.reader(io.StringIO(text, newline="")))
        except (OSError, ValueError, csv.Error):
            return []
        good: list[Row] = []
        with console.bar("verifying files", max(len(lines) - 1, 0), "files") as bar:
            for i, line in enumerate(lines[1:]):
                if (
                    lines[0] != list(self._columns)
                    or len(line) != len(self._columns)
                    or line[0] != str(i)
                    or not self._has_file(*line[1 :: len(line) - 2])
                ):
                    break
                good.append(tuple(line))
                bar.advance()
        return good

    def _has_file(self, name: str, sha256: str) -> bool:
        path = self.target / name
        if not path.resolve().is_relative_to(self.target.resolve()):
            return False
        try:
            return sha256_of(path) == sha256
        except OSError:
            return False

    def add(self, items: list[tuple[Row, dict[str, bytes]]]) -> None:
        """Write the next items: as one shard, or as files and then their rows in result.csv."""
        if self.shards:
            for name in (DATASET, MANIFEST, "SHA256SUMS"):
                remove(self.target / name)  # of fewer shards
            write_shard(
                self._tar(self._next),
                (
                    {
                        "__key__": f"{row[0]:08d}",
                        **members,
                        "json": (
                            json.dumps(dict(zip(self._columns[2:], row[2:], strict=True))).encode()
                        ),
                    }
                    for row, members in items
                ),
            )
            self._next += 1
            return
        for row, members in items:
            (data,) = members.values()
            save(self.target / row[1], data)
        first, *rest = (row for row, _ in items)
        append(self.target / "result.csv", csv_text(first, rest), durable=True)

    def finish(self, how: list[str]) -> None:
        """Mark the folder as complete.

        Shards become a data set: `how` are the options of `distgan index` that describe a sample.
        """
        if self.shards and not (self.target / DATASET).is_file():
            from distgan.shards.adopt import command as adopt_command

            if self._next == 1:  # validation takes whole shards, so one alone is no data set
                how = ["--validation", "0"]
            adopt_command.main([str(self.target), *how])
        self._mark(max(self._finished(), self._count))
        self._close()

    def _tar(self, number: int) -> Path:
        return self.target / f"{number:06d}.tar"
