"""Find a source by its name; the results of its check."""

import hashlib
import importlib
import json
import os
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

from distgan.core import console
from distgan.core.errors import ConfigError, DataError, did_you_mean
from distgan.core.files import lock, make_folder, opener, write_atomic
from distgan.core.reading import LINES_BYTES, read_json
from distgan.core.worker_pool import map_with_progress, ordered_map

PARTS = 64  # of a source that several tasks examine
POLL_S = 0.2


@dataclass(frozen=True)
class SampleIssue:
    """One sample that is not as it should be."""

    sample: int  # number in Source.keys
    name: str  # what the user calls it: a file name
    reason: str
    usable: bool  # False: no sample can be made of it


@dataclass
class SourceReport:
    """The result of a source's check; `notes` are sentences about all samples."""

    issues: list[SampleIssue] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Shared:
    """The examination of a source that several tasks share: its parts, as files of a folder.

    The parts are the same for any number of tasks. Each is examined by the task that locks it, and
    read by the others; one that no living task holds is examined by any of them. So the tasks of an
    array examine each sample once in all, whether they run at once or one after the other. Without
    locks of the file system they may examine one twice, with the same result.
    """

    folder: Path
    options: dict[str, Any]  # all that decides the results
    task: tuple[int, int]  # number of this task, number of tasks

    def map(
        self,
        function: Callable[[Any], Any],
        items: Sequence[Any],
        workers: int,
        unit: str,
        parse: Callable[[dict[str, Any]], Any],
    ) -> list[Any]:
        """Return `function(item)`, a dataclass of JSON types, of every item."""
        make_folder(self.folder)
        parts = min(PARTS, len(items))
        results: dict[int, list[Any]] = {}
        number, tasks = self.task
        own_first = sorted(range(parts), key=lambda part: ((part - number) % tasks, part))
        with console.bar("checking", len(items), unit) as bar:
            while len(results) < parts:
                before = len(results)
                for part in [part for part in own_first if part not in results]:
                    mine = range(part, len(items), parts)
                    path = self.folder / f"{self._name}-{part:03d}.json"
                    if not path.exists() and not self._examine(
                        path, function, [items[i] for i in mine], workers
                    ):
                        continue  # another task is at it
                    results[part] = [parse(one) for one in _read(path)]
                    bar.advance(len(mine))
                if len(results) == before:
                    time.sleep(POLL_S)
        merged = [None] * len(items)
        for part, some in results.items():
            merged[part::parts] = some
        return merged

    @property
    def _name(self) -> str:
        text = json.dumps(self.options, sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def _examine(
        self, path: Path, function: Callable[[Any], Any], items: Sequence[Any], workers: int
    ) -> bool:
        """Write the results of a part; return whether they are there. False: another does so."""
        busy = DataError(f"{path} is being written")
        with open(path.with_suffix(".lock"), "a", opener=opener) as file:
            try:
                lock(file, busy, forks=False)
            except DataError:
                return path.exists()
            if not path.exists():
                made = [asdict(one) for one in ordered_map(function, items, workers)]
                write_atomic(path, json.dumps(made, default=float), nullcontext)
        return True


def _read(path: Path) -> list[dict[str, Any]]:
    try:
        return read_json(path, LINES_BYTES)
    except (OSError, ValueError) as error:
        raise DataError(
            f"{path} is damaged, or gone ({error}); delete it and run the task again"
        ) from None


def examine(
    shared: Shared | None,
    function: Callable[[Any], Any],
    items: Sequence[Any],
    workers: int,
    unit: str,
    parse: Callable[[dict[str, Any]], Any],
) -> list[Any]:
    """Return `function(item)` of every item, computed in `workers` processes, and by the tasks of
    an array together; `parse` makes one of its fields.
    """
    if shared:
        return shared.map(function, items, workers, unit, parse)
    return list(map_with_progress("checking", function, items, workers, unit))


def source_names() -> list[str]:
    """Return the names of all sources: the files of this folder that do not begin with _."""
    files = Path(__file__).parent.glob("[!_]*.py")
    return sorted(file.stem for file in files)


def load_source(name: str) -> ModuleType:
    """Return the source module of that name; ConfigError with the nearest name if none."""
    if name not in source_names():
        near = did_you_mean(name, source_names())
        names = f"no source {name!r}{near}; there are: {', '.join(source_names())}"
        if os.path.isdir(name):
            line = console.command("shard", "images", f"data/{Path(name).name}", "--from", name)
            names += f". Of a folder of images: {line}"
        raise ConfigError(names)
    return importlib.import_module(f"{__package__}.{name}")
