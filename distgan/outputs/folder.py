"""A folder that `distgan generate` fills, file by file or shard by shard, and goes on filling after
a kill. Written by one process.

generated.json   of which checkpoint, from what, and how many, once all that were asked for are
                 there
result.csv       a line for each file, written when the file is on the disk; or, instead of files,
000000.tar …     shards of equal size, but for the last one; with them the index and dataset.json of
                 `distgan index`
"""

import csv
import hashlib
import json
from pathlib import Path
from typing import Any

from distgan.core import console
from distgan.core.errors import ConfigError
from distgan.core.files import append, csv_text, disk_errors, write_atomic
from distgan.outputs.image_results import save
from distgan.shards.format.index import is_written
from distgan.shards.format.manifest import DATASET, MANIFEST
from distgan.shards.format.writer import write_shard

ABOUT = "generated.json"
Row = tuple[Any, ...]  # number, file's name, …, sha256


class Store:
    """`about` says what the items are: a folder that holds others is refused."""

    def __init__(self, target: Path, about: dict[str, Any], shards: bool):
        self.target, self.shards, self._about = (
            target,
            shards,
            about | {"as": "shards" if shards else "files"},
        )

    def refuse_others(self) -> None:
        """ConfigError unless the folder is new, empty or one of ours; nothing is written."""
        try:
            there = (
                sorted(path.name for path in self.target.iterdir()) if self.target.exists() else []
            )
        except OSError as error:
            raise ConfigError(
                f"out={self.target}: {error.strerror}; give another folder"
            ) from error
        if not there:
            return
        try:
            found = json.loads((self.target / ABOUT).read_text())["about"]
        except (OSError, ValueError, KeyError, TypeError):
            raise ConfigError(
                f"out={self.target}: exists and is not empty, and `distgan generate` did not make"
                " it; give another folder, or move it away"
            ) from None
        if found != self._about:
            differ = [
                f"  {key}: {found.get(key) if isinstance(found, dict) else found} there,"
                f" {self._about.get(key)} now"
                for key in self._about
                if not isinstance(found, dict) or found.get(key) != self._about[key]
            ]
            raise ConfigError(
                "\n".join(
                    [
                        f"out={self.target} was made otherwise; nothing was overwritten",
                        *differ,
                        "give another folder, or move it away",
                    ]
                )
            )

    def begin(self, columns: tuple[str, ...], per_shard: int, multiple: int, count: int) -> int:
        """Make the folder or enter it, look at what is there, and return how many items can stay.

        `count` or more, or all that are whole, down to a multiple.
        """
        self._columns, self._count = columns, count
        with disk_errors(self.target, "give access, or name another folder"):
            self.target.mkdir(parents=True, exist_ok=True)
        before = self._finished()
        there = (
            self._whole_shards(per_shard, before) if self.shards else self._whole_files(multiple)
        )
        write_atomic(
            self.target / ABOUT,
            json.dumps({"about": self._about, "n": before if there >= count else None}, indent=1),
        )
        if there:
            console.say(f"{there} are there already, whole")
        return there

    def _finished(self) -> int:
        """How many items the folder held when it was last finished; 0 where it was not."""
        try:
            return int(json.loads((self.target / ABOUT).read_text())["n"] or 0)
        except (OSError, ValueError, KeyError, TypeError):
            return 0

    def _whole_shards(self, per_shard: int, before: int) -> int:
        self._next = 0
        while is_written(self._tar(self._next)):
            self._next += 1
        if before >= self._count and self._next * per_shard >= before:
            return before
        self._next = max(self._next - 1, 0)  # the last one may be short, and is made again
        return self._next * per_shard

    def _whole_files(self, multiple: int) -> int:
        lines = self._whole()
        if len(lines) < self._count:
            lines = lines[: len(lines) - len(lines) % multiple]
        write_atomic(self.target / "result.csv", csv_text(self._columns, lines))
        return len(lines)

    def _whole(self) -> list[Row]:
        """Lines of files that have the bytes they should, up to the first that has not."""
        try:
            with open(self.target / "result.csv", newline="", encoding="utf-8") as file:
                lines = list(csv.reader(file))
        except (OSError, ValueError, csv.Error):
            return []
        good: list[Row] = []
        with console.bar("looking at files", max(len(lines) - 1, 0), "files") as bar:
            for i, line in enumerate(lines[1:]):
                if (
                    lines[0] != list(self._columns)
                    or len(line) != len(self._columns)
                    or line[0] != str(i)
                    or not self._has(*line[1 :: len(line) - 2])
                ):
                    break
                good.append(tuple(line))
                bar.advance()
        return good

    def _has(self, name: str, sha256: str) -> bool:
        path = self.target / name
        if not path.resolve().is_relative_to(self.target.resolve()):
            return False
        try:
            return hashlib.sha256(path.read_bytes()).hexdigest() == sha256
        except OSError:
            return False

    def add(self, items: list[tuple[Row, dict[str, bytes]]]) -> None:
        """The next items: as a shard of samples, or each as a file, whose lines are written when
        all of them are on the disk.
        """
        if self.shards:
            for name in (DATASET, MANIFEST, "SHA256SUMS"):
                (self.target / name).unlink(missing_ok=True)  # of fewer shards
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
        rows = csv_text((), (row for row, _ in items))
        append(self.target / "result.csv", rows, durable=True)

    def finish(self, how: list[str]) -> None:
        """All are there. Shards become a data set; `how` tells `distgan index` what a sample is."""
        if self.shards and not (self.target / DATASET).is_file():
            from distgan.shards.adopt import command as adopt_command

            one = (
                self._next == 1
            )  # whole shards are held out, so one alone can be indexed, and no data set
            adopt_command.main([str(self.target), *(["--validation", "0"] if one else how)])
        write_atomic(
            self.target / ABOUT,
            json.dumps({"about": self._about, "n": max(self._finished(), self._count)}, indent=1),
        )

    def _tar(self, number: int) -> Path:
        return self.target / f"{number:06d}.tar"
