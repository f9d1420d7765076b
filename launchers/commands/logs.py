"""`distgan logs`: print what a run printed, over all its attempts, from any rank; `-f` follows it
from one attempt to the next.
"""

import re
import sys
import time
from pathlib import Path

from distgan.core import console
from distgan.core.arguments import Arguments, Command, Option, switch, whole
from distgan.core.errors import RunError
from distgan.core.reading import open_regular
from distgan.launchers.runs.selection import RUNS, TARGET, SelectedRun, select
from distgan.launchers.runs.state import UNDER_WAY
from distgan.launchers.slurm.job_records import launch_log

EPILOG = """examples:
  distgan logs ngf-study:3               rank 0 of the last attempt
  distgan logs ngf-study:3 -f            and what comes, across restarts, until the run has ended
  distgan logs ngf-study:3 --tail 20     the last 20 lines; with -f also what comes
  distgan logs ngf-study:3 --rank 1 --attempt 0
  distgan logs ngf-study:3 --launcher    output of accelerate or torchrun, as a failed import
  distgan logs ngf-study:3 --grep 'warning|error'"""


def _expression(word: str) -> re.Pattern[str]:
    try:
        return re.compile(word)
    except re.error as error:
        raise ValueError from error


COMMAND = Command(
    "logs",
    "Print what a run printed, over all its attempts, from any rank.",
    (
        RUNS,
        switch("follow", "show what comes, also in the next attempts", short="f"),
        whole("rank", "of which process", 0, metavar="R", default=0),
        whole("attempt", "of which attempt (default: the last)", 0, metavar="K"),
        whole("tail", "only the last so many lines", 0, 10**9, metavar="N"),
        switch("all", "all attempts, one after the other"),
        switch("launcher", "what the launcher printed instead of a rank"),
        Option(
            "grep",
            "only lines that this regular expression fits",
            "RE",
            default=re.compile(""),
            allowed="a regular expression",
            read=_expression,
        ),
    ),
    ("TARGET", TARGET),
    least=1,
    most=1,
    epilog=EPILOG,
)


def main(argv: list[str]) -> int:
    options = COMMAND.parse(argv)
    target, wanted = options.words[0], options.grep
    selected = select(options.runs.resolve(), [target])
    if len(selected) > 1:
        raise RunError(
            f"{target} names {len(selected)} runs; name one, as in {selected[0].sweep}:0"
        )
    folder = selected[0].folder
    name = "launcher.log" if options.launcher else f"rank{options.rank}.log"
    paths = _paths(folder, name, options.attempt)
    if not paths and not options.follow and _show_launch_log(selected[0], options):
        return 0
    if not paths and not options.follow:
        raise RunError(_nothing_printed(selected[0], name, options))
    shown = paths if (options.all or options.follow) and options.tail is None else paths[-1:]
    offsets = {path: path.lstat().st_size for path in paths if path not in shown}
    offsets |= {path: _show(path, 0, wanted, options.tail) for path in shown}
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


def _show_launch_log(run: SelectedRun, options: Arguments) -> bool:
    """Print what the last job of a run printed itself, if it ended before the run had a log."""
    if run.submitted is None or run.key is None or any((run.folder / "attempts").glob("*/*.log")):
        return False
    text = launch_log(run.folder, run.submitted.submission.id, run.key)
    if not text or not text.strip():
        return False
    console.say(f"---- job {run.key}, before the training began")
    lines = [line for line in text.splitlines() if line.strip() and options.grep.search(line)]
    for line in _last(lines, options.tail):
        print(console.printable(line))
    return True


def _last(lines: list[str], most: int | None) -> list[str]:
    return lines if most is None else lines[len(lines) - min(most, len(lines)) :]


def _nothing_printed(run: SelectedRun, name: str, options: Arguments) -> str:
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
            f" {options.words[0]}"
        )
    return f"{text}: it was not submitted, so what it printed went to its terminal"


def _paths(folder: Path, name: str, attempt: int | None) -> list[Path]:
    number = "*" if attempt is None else f"{attempt:03d}"
    return sorted((folder / "attempts").glob(f"{number}/{name}"))


def _show(path: Path, offset: int, wanted: re.Pattern[str], most: int | None = None) -> int:
    """Print the whole lines from position `offset` on, at most the last `most` of those wanted;
    return the position after them.
    """
    try:
        with open_regular(path) as file:
            file.seek(offset)
            text = file.read()
    except OSError as error:
        raise RunError(f"cannot read {path}: {error.strerror}") from error
    whole = text[: text.rfind(b"\n") + 1] if offset or text.endswith(b"\n") else text
    lines = [line for line in whole.decode(errors="replace").splitlines() if wanted.search(line)]
    for line in _last(lines, most):
        print(console.printable(line))
    sys.stdout.flush()
    return offset + len(whole)
