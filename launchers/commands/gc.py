"""`distgan gc`: list, and with --yes remove, what no run needs any more."""

import os
import time
from collections.abc import Iterator
from pathlib import Path

from distgan.core import console
from distgan.core.arguments import Command, number, switch
from distgan.core.files import opened_folder, remove
from distgan.launchers.executors import interface as executors
from distgan.launchers.runs.selection import RUNS, select
from distgan.launchers.slurm import client
from distgan.launchers.slurm.ledger import Ledger

COMMAND = Command(
    "gc",
    """List, and with --yes remove, what no run needs any more: files of submitit whose jobs have
ended; snapshots of code without a link from a run; runs of `distgan debug`; and, with
--checkpoints, all checkpoints of finished runs but the best and the last. Never removed: a run's
journal, scores, samples, archive, or the checkpoints of an unfinished run.""",
    (
        RUNS,
        number(
            "older",
            "only what was not changed for so many days",
            0,
            1e6,
            metavar="DAYS",
            default=7,
        ),
        switch("checkpoints", "also checkpoints of finished runs, but the best and the last"),
        switch("yes", "remove it; without, it is only listed"),
    ),
    epilog="""examples:
  distgan gc                                        list what would be freed
  distgan gc --older 30 --checkpoints --yes""",
)


def main(argv: list[str]) -> int:
    options = COMMAND.parse(argv)
    home, before = options.runs.resolve(), time.time() - 86400 * options.older
    total = count = 0
    for path, why in _garbage(home, options.checkpoints):
        try:
            if path.lstat().st_mtime > before:
                continue
            with opened_folder(path.parent, below=home):
                size = _size(path)
            if options.yes:
                remove(path, below=home)
        except (OSError, ValueError) as error:  # it is not below home, or behind a link
            console.say(f"left alone: {path}: {error}")
            continue
        total, count = total + size, count + 1
        console.say(f"{size / 1e6:10.1f} MB  {path.relative_to(home)}  ({why})")
    console.say(
        f"{count} things, {total / 1e6:.1f} MB"
        f" {'removed' if options.yes else 'could be removed; with --yes they are'}"
    )
    return 0


def _garbage(home: Path, checkpoints: bool) -> Iterator[tuple[Path, str]]:
    """Yield what may be removed, and why."""
    yield from _ended_submissions(home)
    linked = {os.path.realpath(path) for path in home.glob("*/*/code") if path.is_symlink()}
    for path in sorted(home.glob("_code/*")):
        if path.is_dir() and os.path.realpath(path) not in linked:
            yield path, "no run links to it"
    for path in sorted(home.glob("_debug/*")):
        if path.is_dir():
            yield path, "a run of distgan debug"
    for run in select(home, [], acting=True) if checkpoints else []:
        if run.state.name == "done" and not run.files.faults:
            best = (run.files.status.get("best") or {}).get("step")
            paths = sorted((run.folder / "checkpoints").glob("[0-9]" * 8))
            paths = [path for path in paths if path.is_dir() and not path.is_symlink()]
            for path in paths[:-1]:
                if best is None or int(path.name) != best:
                    yield path, "neither the best nor the last of a finished run"


def _ended_submissions(home: Path) -> Iterator[tuple[Path, str]]:
    """Yield files of submissions of this user whose jobs have ended; others' may be hidden."""
    ledger = Ledger(home)
    submissions, _ = ledger.read()
    rows, _ = executors.query(ledger)
    active = {key.partition("_")[0] for key, row in rows.items() if row.active}
    active |= {row.name for row in rows.values() if row.active}
    needed = {last.submission.id for last in ledger.last_submissions().values()}  # `distgan retry`
    for submission in submissions:
        if not submission.is_local and not client.is_available():
            continue  # nothing shows here which jobs are still waiting
        folder = home / "_slurm" / submission.id
        if not {submission.job, submission.name}.isdisjoint(active):
            continue
        if not folder.is_dir() or folder.lstat().st_uid != os.getuid():
            continue
        if submission.id in needed:
            yield from ((path, "its job has ended") for path in sorted(folder.glob("*.pkl")))
        else:
            yield folder, "its jobs have ended, and its runs were submitted again"


def _size(path: Path) -> int:
    if path.is_symlink() or path.is_file():
        return path.lstat().st_size
    return sum(file.lstat().st_size for file in path.rglob("*") if file.is_file())
