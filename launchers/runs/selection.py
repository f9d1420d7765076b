"""Select runs by the TARGETs of a command line: run folders, names or beginnings of them, sweeps,
SWEEP:INDEX, or job numbers of Slurm.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distgan.core.errors import RunError
from distgan.launchers.runs.state import RunFiles, RunState, read_run_files, run_state
from distgan.launchers.slurm import client
from distgan.launchers.slurm.ledger import LastSubmission, Ledger

HELP = (
    "a run folder, a run's name or the beginning of its name or hash, a sweep, SWEEP:INDEX, or a"
    " job number of Slurm's; without any: all that was submitted"
)


@dataclass(frozen=True)
class SelectedRun:
    """A run with its files, its last submission, its line of squeue, and its state."""

    folder: Path
    files: RunFiles
    state: RunState
    submitted: LastSubmission | None
    queue_entry: client.QueueEntry | None
    sweep: str | None = None
    index: int | None = None

    @property
    def name(self) -> str:
        return f"{self.folder.parent.name}/{self.folder.name}"


def read_sweeps(home: Path) -> dict[str, dict[str, Any]]:
    """Read all sweeps of a folder of runs: name -> its members.json."""
    found = {}
    for path in sorted((home / "_sweeps").glob("*/members.json")):
        try:
            found[path.parent.name] = json.loads(path.read_text())
        except (OSError, ValueError, RecursionError) as error:
            raise RunError(
                f"{path} is damaged: {error}; submit the sweep's file again, which writes it anew"
            ) from error
    return found


def select(home: Path, words: Sequence[str]) -> list[SelectedRun]:
    """Return the runs that these words name, in order, each once; all submitted runs without words.

    Raise RunError if a word names no run, or is the beginning of several.
    """
    rows, places = Ledger(home).query()
    sweeps = read_sweeps(home)
    where = {
        run: (name, index)
        for name, sweep in sweeps.items()
        for index, run in enumerate(sweep["runs"])
    }
    folders = (
        [run for word in words for run in _runs(word, home, places, sweeps)]
        if words
        else [*dict.fromkeys([*where, *places])]
    )
    found = [
        inspect(Path(run), places.get(run), rows, *where.get(run, (None, None)))
        for run in dict.fromkeys(folders)
    ]
    return with_accounting(found)


def inspect(
    folder: Path,
    place: LastSubmission | None,
    rows: dict[str, client.QueueEntry],
    sweep: str | None = None,
    index: int | None = None,
    steps: int | None = None,
) -> SelectedRun:
    seen, row = read_run_files(folder, steps), rows.get(place.key or "") if place else None
    return SelectedRun(folder, seen, run_state(seen, place, row), place, row, sweep, index)


def with_accounting(found: list[SelectedRun]) -> list[SelectedRun]:
    """Complete the state of runs that squeue has forgotten and whose files do not say who ended
    them, by one call of sacct.
    """
    open_ones = [
        one
        for one in found
        if one.submitted
        and one.queue_entry is None
        and one.submitted.key
        and not one.files.shorter
        and (one.state.name == "lost" or one.state.name == "stopped" and "SIGTERM" in one.state.why)
    ]
    spells = (
        {
            spell.key: spell
            for spell in client.job_spans(one.submitted.key for one in open_ones) or []
        }
        if open_ones
        else {}
    )
    return [
        (
            SelectedRun(
                one.folder,
                one.files,
                run_state(one.files, one.submitted, None, spells[one.submitted.key]),
                one.submitted,
                one.queue_entry,
                one.sweep,
                one.index,
            )
            if one in open_ones and one.submitted.key in spells
            else one
        )
        for one in found
    ]


def _runs(
    word: str, home: Path, places: dict[str, LastSubmission], sweeps: dict[str, Any]
) -> list[str]:
    name, colon, index = word.rpartition(":")
    if word in sweeps:
        return sweeps[word]["runs"]
    if colon and name in sweeps:
        if not index.isdecimal() or int(index) >= len(sweeps[name]["runs"]):
            raise RunError(
                f"{word}: sweep {name} has the runs 0 to {len(sweeps[name]['runs']) - 1}"
            )
        return [sweeps[name]["runs"][int(index)]]
    path = Path(word)
    if any((path / mark).exists() for mark in ("identity.json", "attempts")):
        return [str(path.resolve())]
    jobs = [
        run for run, place in places.items() if place.key == word or place.submission.job == word
    ]
    if jobs:
        return jobs
    if re.fullmatch(
        r"\d{1,7}(_\d+)?", word
    ):  # never the beginning of a hash: a number that is forgotten must not name another run
        raise RunError(f"{word}: this job is not the last submission of any run")
    every = {
        *places,
        *(run for sweep in sweeps.values() for run in sweep["runs"]),
        *map(str, home.glob("[!_]*/*")),
    }
    fits = sorted(
        run
        for run in every
        if word in (Path(run).name, f"{Path(run).parent.name}/{Path(run).name}")
    )
    fits = fits or sorted(
        run
        for run in every
        if Path(run).name.startswith(word)
        or Path(run).name.rpartition("-")[2].startswith(word)
        or f"{Path(run).parent.name}/{Path(run).name}".startswith(word)
    )
    if len(fits) > 1:
        raise RunError(
            f"{word} fits {len(fits)} runs:"
            f" {', '.join(Path(run).name for run in fits[:5])}{' …' if len(fits) > 5 else ''}; give"
            " more of the name"
        )
    if not fits:
        raise RunError(
            f"{word}: {home} has no run folder, run, sweep or job of this name"
            + (
                f"; sweeps are {', '.join(sweeps)}"
                if sweeps
                else "; --runs names another folder of runs"
            )
        )
    return fits
