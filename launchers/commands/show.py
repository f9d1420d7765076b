"""`distgan show`: print the line that trains a submitted run, its settings, its job, or its
differences from another run.
"""

import shlex
from collections.abc import Iterator
from pathlib import Path

import yaml

from distgan.config.introspection import flatten
from distgan.config.loading import read_yaml
from distgan.core import console
from distgan.core.arguments import Arguments, Command, Option, switch
from distgan.core.errors import RunError
from distgan.core.reading import read_bytes
from distgan.launchers.runs.selection import RUNS, TARGET, SelectedRun, read_submission, select
from distgan.launchers.slurm.job_records import records
from distgan.launchers.slurm.profiles import Resources

WHAT = ("cmd", "config", "sbatch", "job", "diff")


def _check(options: Arguments) -> Iterator[str]:
    chosen = [name for name in WHAT if name in options.given]
    if len(chosen) != 1:
        yield f"give one of --{', --'.join(WHAT)}; {len(chosen)} were given"


COMMAND = Command(
    "show",
    "Look at a submitted run.",
    (
        switch("cmd", "the accelerate line of its processes on one node"),
        switch("config", "its settings, resolved"),
        switch("sbatch", "the batch script"),
        switch("job", "its attempts, as recorded"),
        Option("diff", "settings that differ from another run's", "OTHER"),
        RUNS,
    ),
    ("TARGET", TARGET),
    least=1,
    most=1,
    check=_check,
    epilog="example: distgan show ngf-study:3 --cmd    the line that trains it, also without Slurm",
)


def main(argv: list[str]) -> int:
    options = COMMAND.parse(argv)
    home, target = options.runs.resolve(), options.words[0]
    run = _one(home, target)
    if options.cmd:
        console.say(shlex.join(line(home, run)))
    elif options.config:
        console.say(_text(run.folder / "config.yaml"))
    elif options.sbatch:
        scripts = (
            sorted((home / "_slurm" / run.submitted.submission.id).glob("*_submission.sh"))
            if run.submitted
            else []
        )
        if not scripts:
            raise RunError(f"{run.folder.name}: no script is kept")
        console.say(_text(scripts[-1]))
    elif options.job:
        console.say(yaml.safe_dump(records(run.folder), sort_keys=False))
    else:
        _show_differences(run, _one(home, options.diff), (target, options.diff))
    return 0


def _show_differences(first: SelectedRun, second: SelectedRun, names: tuple[str, str]) -> None:
    """Print the settings that differ between two runs."""
    a, b = (dict(flatten(read_yaml(run.folder / "config.yaml"))) for run in (first, second))
    rows = [
        (key, str(a.get(key, "–")), str(b.get(key, "–")))
        for key in sorted(a.keys() | b.keys())
        if a.get(key) != b.get(key)
    ]
    if rows:
        console.table(("setting", *names), rows, right=False)
    else:
        console.say("no setting differs")


def line(home: Path, run: SelectedRun) -> list[str]:
    """Return the command that a job of this run executes on one node."""
    recorded, words = read_submission(home, run)
    if str(run.folder) not in words:
        raise RunError(
            f"{run.folder.name} was not submitted from {home}; `distgan run --show` prints the line"
            " of a run that is trained here"
        )
    resources = Resources.model_validate(recorded["resources"])
    return resources.command(words[str(run.folder)], run.folder)


def _one(home: Path, word: str) -> SelectedRun:
    selected = select(home, [word])
    if len(selected) > 1:
        raise RunError(f"{word} is {len(selected)} runs; name one of them")
    return selected[0]


def _text(path: Path) -> str:
    try:
        return read_bytes(path).decode(errors="replace").rstrip()
    except OSError as error:
        raise RunError(
            f"cannot read {path}: {error.strerror}; has the run begun? distgan status"
        ) from error
