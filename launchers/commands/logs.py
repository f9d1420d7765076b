"""`distgan logs`: print what a run printed, over all its attempts, from any rank; `-f` follows it
from one attempt to the next.
"""

import argparse
import re
import sys
import time
from pathlib import Path

from distgan.core import console
from distgan.core.errors import RunError
from distgan.launchers.runs.selection import HELP, SelectedRun, select
from distgan.launchers.runs.state import UNDER_WAY

EPILOG = """examples:
  distgan logs ngf-study:3               rank 0 of the last attempt
  distgan logs ngf-study:3 -f            and what comes, across restarts, until the run has ended
  distgan logs ngf-study:3 --rank 1 --attempt 0
  distgan logs ngf-study:3 --launcher    output of accelerate or torchrun, as a failed import
  distgan logs ngf-study:3 --grep 'warning|error'"""


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="distgan logs",
        description="What a run printed.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("target", metavar="TARGET", help=HELP.partition("; without")[0])
    parser.add_argument(
        "--runs",
        type=Path,
        default=Path("runs"),
        metavar="FOLDER",
        help="the folder of runs (default runs)",
    )
    parser.add_argument(
        "-f", "--follow", action="store_true", help="show what comes, also in the next attempts"
    )
    parser.add_argument(
        "--rank", type=int, default=0, metavar="R", help="of which process (default 0)"
    )
    parser.add_argument(
        "--attempt", type=int, metavar="K", help="of which attempt (default: the last)"
    )
    parser.add_argument("--all", action="store_true", help="all attempts, one after the other")
    parser.add_argument(
        "--launcher", action="store_true", help="what the launcher printed instead of a rank"
    )
    parser.add_argument("--grep", metavar="RE", help="only lines that this regular expression fits")
    options = parser.parse_args(argv)
    try:
        wanted = re.compile(options.grep or "")
    except re.error as error:
        parser.error(f"--grep: {options.grep!r} is no regular expression: {error}")
    selected = select(options.runs.resolve(), [options.target])
    if len(selected) > 1:
        raise RunError(
            f"{options.target} names {len(selected)} runs; name one, as in {selected[0].sweep}:0"
        )
    folder = selected[0].folder
    name = "launcher.log" if options.launcher else f"rank{options.rank}.log"
    paths = _paths(folder, name, options.attempt)
    if not paths and not options.follow:
        raise RunError(_nothing_printed(selected[0], name, options))
    offsets = {
        path: _show(path, 0, wanted)
        for path in (paths if options.all or options.follow else paths[-1:])
    }
    while options.follow:
        for path in _paths(folder, name, options.attempt):
            if path not in offsets:
                console.say(f"---- attempt {path.parent.name}")
            offsets[path] = _show(path, offsets.get(path, 0), wanted)
        run = select(options.runs.resolve(), [str(folder)])[0]
        if run.state.name not in UNDER_WAY:
            console.say(f"---- {run.state.name}{f': {run.state.why}' if run.state.why else ''}")
            return 0
        time.sleep(2)
    return 0


def _nothing_printed(run: SelectedRun, name: str, options: argparse.Namespace) -> str:
    folder = run.folder
    text = f"no {name} of {folder.name}"
    if options.attempt is not None:
        text += f", attempt {options.attempt}"
    there = sorted({path.name for path in (folder / "attempts").glob("*/*.log")})
    if there:
        return f"{text}; there are {', '.join(there)}"
    if run.submitted:
        return (
            f"{text}: the run is {run.state.name} and has printed nothing yet; distgan why"
            f" {options.target}"
        )
    return f"{text}: it was not submitted, so what it printed went to its terminal"


def _paths(folder: Path, name: str, attempt: int | None) -> list[Path]:
    number = "*" if attempt is None else f"{attempt:03d}"
    return sorted((folder / "attempts").glob(f"{number}/{name}"))


def _show(path: Path, offset: int, wanted: re.Pattern[str]) -> int:
    """Print the whole lines from position `at` on; return the position after them."""
    with open(path, "rb") as file:
        file.seek(offset)
        text = file.read()
    whole = text[: text.rfind(b"\n") + 1] if offset or text.endswith(b"\n") else text
    for line in whole.decode(errors="replace").splitlines():
        if wanted.search(line):
            sys.stdout.write(line + "\n")
    sys.stdout.flush()
    return offset + len(whole)
