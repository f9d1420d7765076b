"""`distgan gc`: list, and with --yes remove, what no run needs any more."""

import argparse
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

from distgan.core import console
from distgan.launchers.runs import selection
from distgan.launchers.runs.state import read
from distgan.launchers.slurm import client
from distgan.launchers.slurm.ledger import Ledger

EPILOG = """Removed are: files of submitit whose jobs have ended; snapshots of code to which no run links; runs of `distgan debug`; and, with --checkpoints, of
finished runs all checkpoints but the best and the last. Never: a run's journal, scores, samples, or the checkpoints of a run that is not finished.

examples:
  distgan gc                         what would be freed
  distgan gc --older 30 --checkpoints --yes"""


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="distgan gc",
        description=__doc__.partition(": ")[2].capitalize(),
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "--runs",
        type=Path,
        default=Path("runs"),
        metavar="FOLDER",
        help="the folder of runs (default runs)",
    )
    parser.add_argument(
        "--older",
        type=float,
        default=7,
        metavar="DAYS",
        help="only what was not changed for so many days (default 7)",
    )
    parser.add_argument(
        "--checkpoints",
        action="store_true",
        help="also checkpoints of finished runs, but the best and the last",
    )
    parser.add_argument("--yes", action="store_true", help="remove it; without, it is only listed")
    options = parser.parse_args(argv)
    home, before = options.runs.resolve(), time.time() - 86400 * options.older
    total = count = 0
    for path, why in _garbage(home, options.checkpoints):
        if path.lstat().st_mtime > before:
            continue
        size = _size(path)
        total, count = total + size, count + 1
        console.say(f"{size / 1e6:10.1f} MB  {path.relative_to(home)}  ({why})")
        if options.yes:
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    console.say(
        f"{count} things, {total / 1e6:.1f} MB"
        f" {'removed' if options.yes else 'could be removed; with --yes they are'}"
    )
    return 0


def _garbage(home: Path, checkpoints: bool) -> Iterator[tuple[Path, str]]:
    submissions, _ = Ledger(home).read()
    rows = client.queue() if submissions and client.is_available() else {}
    needed = {
        place.submission.id for place in Ledger(home).last_submissions().values()
    }  # `distgan retry` reads the last one of a run
    for one in (
        submissions if client.is_available() else []
    ):  # elsewhere nobody knows which jobs still wait
        if one.user != client.user():  # whose jobs may not be shown
            continue
        folder = home / "_slurm" / one.id
        alive = any(
            row.active and (key == one.job or key.startswith(f"{one.job}_"))
            for key, row in rows.items()
        )
        if folder.is_dir() and not alive and one.id not in needed:
            yield folder, "its jobs have ended, and its runs were submitted again"
        elif folder.is_dir() and not alive:
            yield from ((path, "its job has ended") for path in sorted(folder.glob("*.pkl")))
    linked = {
        (path.parent / os.readlink(path)).resolve()
        for path in home.glob("*/*/code")
        if path.is_symlink()
    }
    yield from (
        (path, "no run links to it")
        for path in sorted(home.glob("_code/*"))
        if path.is_dir() and path.resolve() not in linked
    )
    yield from (
        (path, "of distgan debug") for path in sorted(home.glob("_debug/*")) if path.is_dir()
    )
    if checkpoints:
        for one in selection.select(home, []):
            if one.state.name == "done":
                best = (read(one.folder / "status.json").get("best") or {}).get("step")
                every = sorted(
                    path
                    for path in (one.folder / "checkpoints").glob("[0-9]" * 8)
                    if path.is_dir() and not path.is_symlink()
                )
                yield from (
                    (path, "neither the best nor the last of a finished run")
                    for path in every[:-1]
                    if best is None or int(path.name) != best
                )


def _size(path: Path) -> int:
    if path.is_symlink() or path.is_file():
        return path.lstat().st_size
    return sum(found.lstat().st_size for found in path.rglob("*") if found.is_file())
