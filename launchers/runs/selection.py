"""Select runs by the TARGETs of a command line: run folders, names or beginnings of them, sweeps,
SWEEP:INDEX, or job numbers of Slurm.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from distgan.core import console
from distgan.core.arguments import Option
from distgan.core.errors import LaunchError, RunError
from distgan.core.files import opened_folder
from distgan.launchers.executors import interface as executors
from distgan.launchers.runs.state import RunFiles, RunState, read_run_files, run_state
from distgan.launchers.slurm import client, job_records
from distgan.launchers.slurm.ledger import LastSubmission, Ledger, anchor
from distgan.launchers.slurm.restart_policy import STUCK, last_line
from distgan.runs import records

HELP = (
    "a run folder, a run's name or the beginning of its name or hash, a sweep, SWEEP:INDEX, or a"
    " job number of Slurm's; without any: all that was submitted"
)
RUNS = Option("runs", "the folder of runs", "FOLDER", default=Path("runs"), read=Path)
# The line of slurmstepd in the log of a job that Slurm has ended, and what it gives as the reason.
ENDED_BY_SLURM = r"\*\*\* (?:JOB|STEP) \S+ ON \S+ CANCELLED AT \S+(.*)"
TARGET = HELP.partition("; without")[0]


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
    def key(self) -> str | None:
        """Slurm's name of the job, or element of an array, that it was last submitted as."""
        return self.submitted.key if self.submitted else None

    @property
    def name(self) -> str:
        return f"{self.folder.parent.name}/{self.folder.name}"


def read_sweeps(home: Path) -> dict[str, dict[str, Any]]:
    """Read all sweeps of a folder of runs: name -> its members.json. Warn of damaged ones."""
    sweeps = {}
    for path in sorted((home / "_sweeps").glob("*/members.json")):
        try:
            sweep = records.read(path)
            numbers = sweep.get("numbers", [])
            places = list(range(len(sweep["runs"])))
            sweep["numbers"] = numbers if len(numbers) == len(places) else places
            sweep["runs"] = [anchor(home, run) for run in sweep["runs"]]
            sweeps[path.parent.name] = sweep
        except (OSError, ValueError) as error:
            console.complain(
                f"warning: {path} is damaged, and the sweep left out: {error}; submit the sweep's"
                " file again, which writes it anew"
            )
    return sweeps


def read_submission(home: Path, run: SelectedRun) -> tuple[dict[str, Any], dict[str, list[str]]]:
    """Return submission.json of a run's last submission, and the words of its runs by folder.

    Both are empty if the run was not submitted or the file is missing or damaged.
    """
    if run.submitted is None:
        return {}, {}
    recorded = records.read_if_good(
        home / "_slurm" / run.submitted.submission.id / "submission.json"
    )
    specs = [spec for element in recorded.get("elements", []) for spec in element]
    return recorded, {anchor(home, spec["folder"]): spec["words"] for spec in specs}


def select(home: Path, words: Sequence[str], acting: bool = False) -> list[SelectedRun]:
    """Return the runs that these words name, in order, each once; all submitted runs without words.

    Raise RunError if a word names no run, or is the beginning of several. Where Slurm does not
    answer, states are those of the runs' files, with a warning; LaunchError with `acting`.
    """
    ledger, rows = Ledger(home), None
    try:
        rows, submissions = executors.query(ledger)
    except LaunchError as error:
        if acting:
            raise
        console.complain(f"warning: states are those of the runs' files: {error}")
        submissions = ledger.last_submissions()
    sweeps = read_sweeps(home)
    where = {
        run: (name, number)
        for name, sweep in sweeps.items()
        for run, number in zip(sweep["runs"], sweep["numbers"], strict=True)
    }
    folders = (
        [run for word in words for run in _runs(word, home, submissions, sweeps)]
        if words
        else [*dict.fromkeys([*where, *submissions])]
    )
    selected = [
        inspect(Path(run), submissions.get(run), rows, *where.get(run, (None, None)))
        for run in dict.fromkeys(folders)
    ]
    return selected if rows is None else with_accounting(selected)


def inspect(
    folder: Path,
    submitted: LastSubmission | None,
    rows: dict[str, client.QueueEntry] | None,
    sweep: str | None = None,
    index: int | None = None,
    steps: int | None = None,
) -> SelectedRun:
    """Return a run with its state. `rows`: the queue; None where Slurm does not answer."""
    files = read_run_files(folder, steps)
    row = rows.get(submitted.key or "") if rows and submitted else None
    state = run_state(files, submitted, row)
    if rows is None and submitted and state.name not in ("done", "running", "cancelled"):
        said = f": {state.why}" if state.why else ""
        if state.name != "failed" or not files.refused:
            state = RunState(
                "uncertain", f"Slurm does not answer; by its files it is {state.name}{said}"
            )
    return SelectedRun(folder, files, state, submitted, row, sweep, index)


def with_accounting(selected: list[SelectedRun]) -> list[SelectedRun]:
    """Complete the state of runs that squeue has forgotten and whose files do not say who ended
    them, by one call of sacct, and by what their jobs printed before the training began.
    """
    open_ones = [
        run
        for run in selected
        if run.queue_entry is None
        and run.submitted
        and run.key
        and not run.submitted.submission.is_local
        and not run.files.shorter
        and (
            run.state.name == "unknown"
            or run.state.name == "stopped"
            and "SIGTERM" in run.state.why
        )
    ]
    spells = (
        {
            spell.key: spell
            for spell in client.job_spans(run.key for run in open_ones if run.key) or []
        }
        if open_ones
        else {}
    )
    asked = {run.key for run in open_ones} & spells.keys()
    return [
        _with_launch_log(
            replace(run, state=run_state(run.files, run.submitted, None, spells[run.key]))
            if run.key and run.key in asked and run in open_ones
            else run
        )
        for run in selected
    ]


def _with_launch_log(run: SelectedRun) -> SelectedRun:
    """Complete the state of a run whose job ended before the training began."""
    if run.submitted is None or not run.key or run.state.name not in ("unknown", "lost", "failed"):
        return run
    identifiers = (run.submitted.submission.id, *run.submitted.earlier)
    begun = {record.get("submission") for record in job_records.records(run.folder)}
    if identifiers[0] in begun:
        return run
    if run.state.name == "lost":
        local = run.submitted.submission.is_local  # the machine may have been restarted
        if local or len(identifiers) < STUCK or begun & set(identifiers):
            return run
        why = f"no progress: the last {STUCK} jobs ended before the training began"
        return replace(run, state=RunState("failed", f"{why}, preempted"))
    log = job_records.launch_log(run.folder, run.submitted.submission.id, run.key)
    if log is None or run.state.name == "failed" and not run.state.why.startswith("Slurm: "):
        return run
    if run.state.name == "unknown" and (ended := re.findall(ENDED_BY_SLURM, log)):
        by = ended[-1].strip(" *").removeprefix("DUE TO ").partition(",")[0].lower()
        names = {"": "cancelled", "preemption": "lost", "node failure": "lost"}
        return replace(run, state=RunState(names.get(by, "failed"), by))
    return replace(
        run,
        state=RunState(
            "failed",
            f"its job ended before the training began: {last_line(log) or 'it printed nothing'}",
        ),
    )


def _resolved(path: Path) -> str:
    """Return a run folder's real path; RunError where another user's link would choose it."""
    try:
        with opened_folder(path):
            return str(path.resolve())
    except OSError as error:
        raise RunError(f"{path}: {error.strerror}") from error


def _member(name: str, index: str, sweep: dict[str, Any]) -> str:
    """Return the run SWEEP:NUMBER; RunError without one."""
    numbers = sweep["numbers"]
    if not index.isdecimal() or int(index) not in numbers:
        raise RunError(
            f"{name}:{index}: sweep {name} has the runs {min(numbers, default=0)} to"
            f" {max(numbers, default=0)}"
            + (f"; {index} is no longer one" if index.isdecimal() else "")
        )
    return sweep["runs"][numbers.index(int(index))]


def _runs(
    word: str, home: Path, submissions: dict[str, LastSubmission], sweeps: dict[str, Any]
) -> list[str]:
    name, colon, index = word.rpartition(":")
    if word in sweeps:
        return sweeps[word]["runs"]
    if colon and name in sweeps:
        return [_member(name, index, sweeps[name])]
    path = Path(word)
    if any((path / mark).exists() for mark in ("identity.json", "attempts")):
        return [_resolved(path)]
    jobs = [
        run
        for run, submitted in submissions.items()
        if submitted.key == word or submitted.submission.job == word
    ]
    if jobs:
        return jobs
    # Never the beginning of a hash: a job that is forgotten must not name another run.
    if re.fullmatch(r"\d{1,7}(_\d+)?", word):
        raise RunError(f"{word}: this job is not the last submission of any run")
    every = {
        *submissions,
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
