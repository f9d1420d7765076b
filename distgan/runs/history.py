"""Read a whole run folder: settings, events, numbers, samples. Imports no torch, changes nothing.

A run that has just begun lacks most files, so only a damaged file is an error. No file outside the
folder is read.
"""

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path

import numpy as np
from pydantic import ValidationError

from distgan.config.identity import with_neutral
from distgan.config.loading import YAML_BYTES, parse_yaml
from distgan.core.errors import RunError
from distgan.core.reading import read_bytes
from distgan.monitor.decisions import evaluate_rules
from distgan.monitor.interventions import Intervention, interventions
from distgan.monitor.journal import (
    current_settings,
    finite_number,
    floor_row,
    read_journal,
    score_key,
    series,
)
from distgan.monitor.results import Finding, HealthSignal
from distgan.monitor.settings import Watch
from distgan.monitor.signals import health_signals
from distgan.monitor.success.criterion import Criterion
from distgan.monitor.success.verdict import Verdict, judge
from distgan.runs import records
from distgan.runs.folder import REALS
from distgan.shards.format.sample_spec import UNITS

MARKS = ("status.json", "identity.json", "journal.jsonl")  # any of these makes a folder a run
HEARTBEAT_OLD_S = 600.0


@dataclass(frozen=True)
class History:
    """The contents of a run folder: all that a report shows."""

    folder: Path
    config: dict
    overrides: dict
    identity: dict
    status: dict
    attempts: dict[str, dict]  # by number: "000"
    events: list[dict]
    rows: list[dict]
    samples: dict[
        int, Path
    ]  # pictures by step: sample grids, or waveforms or spectrograms of held-out clips
    evaluations: list[dict]  # of the training
    requested: list[dict]  # evaluations by `distgan evaluate`
    checkpoints: list[tuple[int, int]]  # step, bytes
    archive: list[tuple[int, int]]
    reals: Path | None  # a picture of as many training images as a sample grid has
    sounds: list[Path]  # WAV files that belong to the newest picture
    results: list[Path]  # what the recipe made of the best checkpoint
    generated: list[Path]  # pictures by `distgan generate`, of images that lie beside them

    @property
    def name(self) -> str:
        return f"{self.folder.parent.name}/{self.folder.name}"

    @cached_property
    def settings(self) -> Watch:
        """The thresholds of this run's monitor; unknown keys of the section `watch` are ignored."""
        section = self.config.get("watch") or {}
        try:
            known = {key: value for key, value in section.items() if key in Watch.model_fields}
            return Watch(**with_neutral(Watch, known))
        except (ValidationError, AttributeError) as error:
            raise RunError(f"{self.folder / 'config.yaml'}, section watch: {error}") from error

    @cached_property
    def findings(self) -> list[Finding]:
        return evaluate_rules(self.rows, self.settings, self.values)

    @cached_property
    def verdict(self) -> Verdict:
        """Was the run a success, as of its last validation or evaluation?"""
        return judge(self.with_floors, self.config, self.settings, records.warnings(self.events))

    @property
    def criteria(self) -> tuple[Criterion, ...]:
        """The success criteria of this system."""
        return self.verdict.criteria

    @cached_property
    def with_floors(self) -> list[dict]:
        """The journal; scores of earlier versions get their floors from eval/*.json."""
        floors = {
            one["step"]: floor_row(one) for one in self.evaluations if type(one.get("step")) is int
        }
        return [
            floors.get(row["step"], {}) | row
            if any(key.startswith("eval/") for key in row)
            else row
            for row in self.rows
        ]

    @cached_property
    def signals(self) -> list[HealthSignal]:
        return health_signals(self.rows, self.settings)

    @cached_property
    def values(self) -> dict:
        """The settings with what was changed in flight."""
        return current_settings(self.config, self.rows)

    @cached_property
    def interventions(self) -> list[Intervention]:
        return interventions(self.events)

    @cached_property
    def metric(self) -> str | None:
        """`frechet_standin`, `fid`, `l1` …; None before the first evaluation."""
        key = score_key(self.rows)
        return key.partition("/")[2] if key else None

    @cached_property
    def best(self) -> dict | None:
        """{"step", "epoch", "score", "metric"} of the best evaluation: from status.json, else from
        the journal.
        """
        if self.status.get("best"):
            return self.status["best"]
        key = f"eval/{self.metric}"
        score, row = min(
            ((row[key], row) for row in self.rows if finite_number(row.get(key)) is not None),
            key=lambda pair: pair[0],
            default=(None, None),
        )
        return (
            {"step": row["step"], "epoch": row["epoch"], "score": score, "metric": self.metric}
            if row
            else None
        )

    @cached_property
    def kind(self) -> str:
        """The kind of training samples: `image`, `pair`, `image_pair` or `vector`."""
        kinds = [(attempt.get("data") or {}).get("kind") for attempt in self.attempts.values()]
        paired = any(key in row for row in self.rows[:200] for key in ("g/l1", "valid/l1"))
        return next((kind for kind in kinds if kind in tuple(UNITS)), "pair" if paired else "image")

    @property
    def unit(self) -> str:
        """The word for training samples, plural."""
        return (UNITS | {"pair": "clips"})[self.kind]

    @property
    def speed(self) -> float | None:
        """Samples per second; runs of version 0.1 have another key."""
        speed = self.recent("samples_per_second")
        return self.recent("images_per_second") if speed is None else speed

    @property
    def state(self) -> str:
        return self.status.get("state") or "unknown"

    @property
    def epoch(self) -> float:
        return self.status.get("epoch") or (self.rows[-1]["epoch"] if self.rows else 0.0)

    @property
    def seen(self) -> int:
        return self.status.get("samples") or (self.rows[-1].get("samples", 0) if self.rows else 0)

    def recent(self, key: str, lines: int = 20) -> float | None:
        """Return the median of the last finite values of a journal key."""
        values = series(self.rows, key)[-lines:, 1]
        values = values[np.isfinite(values)]
        return float(np.median(values)) if len(values) else None

    def last(self, key: str) -> float | None:
        """Return the last finite value of a journal key, for validations, which are means."""
        return next(
            (
                value
                for row in reversed(self.rows)
                if (value := finite_number(row.get(key))) is not None
            ),
            None,
        )

    def epoch_of(self, step: int) -> float | None:
        """Return the epoch of a step, interpolated between journal lines."""
        if not self.rows:
            return None
        # Steps never decrease (read_journal).
        return float(
            np.interp(
                step,
                [row["step"] for row in self.rows],
                [row["epoch"] for row in self.rows],
                left=0.0,
            )
        )

    def silent_s(self, now: datetime | None = None) -> float | None:
        """Return the seconds since the last heartbeat of a run with state `running`; None if they
        are at most HEARTBEAT_OLD_S.
        """
        beat = _time(self.status.get("heartbeat"))
        silent = (
            ((now or datetime.now(UTC)) - beat).total_seconds()
            if beat and self.state == "running"
            else 0.0
        )
        return silent if silent > HEARTBEAT_OLD_S else None

    @property
    def wall_s(self) -> float:
        """The seconds of all attempts; a killed one ends with its last event or heartbeat."""
        heard = [_time(event.get("time")) for event in self.events] + [
            _time(self.status.get("heartbeat"))
        ]
        starts = [_time(attempt.get("started")) for attempt in self.attempts.values()]
        total = 0.0
        for i, (begun, attempt) in enumerate(zip(starts, self.attempts.values(), strict=True)):
            if begun is None:
                continue
            later = min((start for start in starts[i + 1 :] if start), default=None)
            end = _time(attempt.get("ended")) or max(
                (t for t in heard if t and (later is None or t < later)), default=begun
            )
            total += max((end - begun).total_seconds(), 0.0)
        return total


def find_runs(folders: list[Path]) -> list[Path]:
    """Return the run folders among these and up to two levels below; RunError if one has none."""
    runs: dict[Path, None] = {}
    for folder in folders:
        if not folder.is_dir():
            raise RunError(f"no folder {folder}. {_LOOKED}")
        inside = (
            [folder]
            if is_run(folder)
            else [
                path
                for pattern in ("*", "*/*")
                for path in sorted(folder.glob(pattern))
                if not path.is_symlink() and is_run(path)
            ]
        )
        if not inside:
            raise RunError(f"{folder} is no run and holds none. {_LOOKED}")
        runs.update(dict.fromkeys(path.resolve() for path in inside))
    return list(runs)


def is_run(folder: Path) -> bool:
    return any(os.path.lexists(folder / mark) for mark in MARKS)


def read_history(folder: Path) -> History:
    """Read a run folder; RunError if a file in it is damaged."""
    folder = folder.resolve()
    samples = {
        int(path.stem): path
        for path in sorted(folder.glob("samples/*.png"))
        if path.stem.isdecimal() and _own(folder, path)
    }
    newest = samples[max(samples)].stem if samples else None
    return History(
        folder=folder,
        config=_mapping(folder, "config.yaml"),
        overrides=_mapping(folder, "overrides.yaml"),
        identity=_mapping(folder, "identity.json"),
        status=_mapping(folder, "status.json"),
        attempts={
            path.parent.name: _mapping(folder, path.relative_to(folder))
            for path in sorted(folder.glob("attempts/*/attempt.json"))
        },
        events=records.read_events(folder / "events.jsonl"),
        rows=read_journal(folder / "journal.jsonl"),
        samples=samples,
        evaluations=[
            _mapping(folder, path.relative_to(folder))
            for path in sorted(folder.glob("eval/*.json"))
            if _own(folder, path)
        ],
        requested=[
            _mapping(folder, path.relative_to(folder))
            for path in sorted(folder.glob("eval/asked/*.json"))
            if _own(folder, path)
        ],
        checkpoints=_checkpoints(folder / "checkpoints"),
        archive=_checkpoints(folder / "archive"),
        reals=folder / REALS if _own(folder, folder / REALS) else None,
        sounds=(
            [path for path in sorted(folder.glob(f"samples/{newest}*.wav")) if _own(folder, path)]
            if newest
            else []
        ),
        results=[path for path in sorted(folder.glob("results/**/*")) if _own(folder, path)],
        generated=[path for path in folder.glob("generated-*/grid.png") if _own(folder, path)],
    )


def _checkpoints(folder: Path) -> list[tuple[int, int]]:
    """Return (step, bytes) of the checkpoints in a folder that is no link."""
    if folder.is_symlink():
        return []
    return [
        (
            int(path.name),
            sum(file.lstat().st_size for file in path.rglob("*") if not file.is_dir()),
        )
        for path in sorted(folder.glob("*"))
        if path.name.isdecimal() and not path.is_symlink() and path.is_dir()
    ]


_LOOKED = (
    f"Looked for one of {', '.join(MARKS)} in it and up to two levels below. `distgan train RECIPE"
    " data=FOLDER` makes a run."
)


@contextlib.contextmanager
def one_error() -> Iterator[None]:
    """Turn what odd values in the files of a run raise while it is read and drawn into a RunError
    of one line.
    """
    try:
        yield
    except RunError:
        raise
    except (
        *(OSError, TypeError, ValueError, LookupError, AttributeError, ArithmeticError),
        *(RecursionError, MemoryError),
    ) as error:
        text = str(error).splitlines() or [""]
        raise RunError(f"{text[0][:200]} ({type(error).__name__})") from error


def _inside(folder: Path, path: Path) -> bool:
    """Return True if there is something of that name, in a folder inside the run folder."""
    return os.path.lexists(path) and path.parent.resolve().is_relative_to(folder)


def _own(folder: Path, path: Path) -> bool:
    """Return True if it is a file inside the run folder, and not a link."""
    return _inside(folder, path) and not path.is_symlink() and path.is_file()


def _mapping(folder: Path, name: str | Path) -> dict:
    path = folder / name
    if not _inside(folder, path):
        return {}
    try:
        if path.suffix == ".json":
            return records.read(path)
        value = parse_yaml(read_bytes(path, YAML_BYTES))
    except OSError as error:
        raise RunError(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise RunError(f"{path} is damaged: {error}") from error
    if not isinstance(value, dict | None):
        raise RunError(f"{path} is damaged: expected a mapping, not {type(value).__name__}")
    return value or {}


def _time(text: str | None) -> datetime | None:
    """Parse ISO 8601; a time without a zone is UTC."""
    try:
        time = datetime.fromisoformat(text) if text else None
    except (ValueError, TypeError):
        return None
    return time.replace(tzinfo=UTC) if time and time.tzinfo is None else time
