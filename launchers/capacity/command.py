"""`distgan capacity`: the capacity study of `sagan`, one run for each width, compared in one table
and one plot.
"""

import os
import signal
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import BinaryIO

import distgan.train as train
from distgan.core import console
from distgan.core.arguments import (
    MANY,
    Arguments,
    Command,
    Option,
    number,
    switch,
    whole,
)
from distgan.core.errors import RunError
from distgan.core.files import disk_errors, make_folder, write_atomic
from distgan.core.interrupts import STOP_SIGNALS, end_with_parent
from distgan.distributed import launch_line
from distgan.launchers.capacity import table
from distgan.launchers.capacity.measurement import Row, measure
from distgan.launchers.capacity.recommendation import recommend
from distgan.launchers.local import run as local
from distgan.launchers.slurm import profiles
from distgan.runs.history import is_run
from distgan.runs.resolve import folder_of, resolve, versions
from distgan.shards.build.command import parse_task

HELP = """Train sagan with the settings of the study (`distgan train capacity --help` lists them) at
ngf = ndf = each of these widths, one after the other, each in a run folder of its own. Then write
capacity.md, capacity.csv and capacity.png beside these runs, and print the table: parameters, peak
memory, time per epoch, checkpoint, best score, the estimates of the capacity document
(docs/capacity.md), and which width is recommended and why. The same line again continues; finished
widths are left as they are.
Exit code 0; 1 if a width failed; 75 if it was asked to stop."""
EXAMPLES = """examples:
  distgan capacity data=data/particles                 widths 64, 80, 96, 128: the whole study
  distgan capacity data=data/particles widths=64,96 epochs=200 evaluate.samples=200
  distgan capacity data=data/particles processes=2 memory_gb=16
                     two processes for each run; no width above 16 GB is recommended
  distgan capacity data=data/particles widths=64,96 epochs=200 evaluate.samples=200 --report
                     measure the runs there are, train nothing
  distgan capacity data=data/particles --submit --profile gpu
                     on Slurm, one width in each job of an array; next: distgan status"""
PRESET = "capacity"
NOT_HERE = {
    "ngf": "widths",
    "ndf": "widths",
    "grow": "distgan train capacity ngf=96 ndf=96 grow=RUN@best",
    "machine.folder": "machine.runs or experiment",
}
STOPPED = 75  # as of `distgan train`


@dataclass(frozen=True)
class Study:
    """A study as requested. `folders`: the run folder of each width."""

    settings: list[str]
    processes: int
    memory_gb: float | None
    folders: dict[int, Path]

    @property
    def home(self) -> Path:
        return next(iter(self.folders.values())).parent


def _widths(text: str) -> tuple[int, ...]:
    widths = [int(part) for part in text.strip("[]").split(",")]
    if not all(0 < width <= 1024 for width in widths) or len(set(widths)) < len(widths):
        raise ValueError
    return tuple(sorted(widths))


COMMAND = Command(
    "capacity",
    HELP,
    (
        Option(
            "widths",
            "channels of the networks, a run for each",
            "LIST",
            default=(64, 80, 96, 128),
            allowed="numbers from 1 to 1024 with commas between, each once, as in 64,80,96,128",
            read=_widths,
        ),
        whole("processes", "of each run", 1, 4096, default=1),
        number(
            "memory-gb",
            "the most memory that a recommended width may take",
            1e-6,
            1e6,
            metavar="GB",
            allowed="a number of GB above 0",
        ),
        Option(
            "task",
            "train only every N-th width from the K-th on, 0 <= K < N; slurm: of this task of a job"
            " array",
            "K/N",
        ),
        switch("report", "measure what is there; no training"),
        switch(
            "submit",
            "on Slurm: one array, a width in each job, then a job that evaluates all and writes the"
            " report",
        ),
        whole(
            "n",
            "with --submit: images of each width in that evaluation (default: as in training)",
            2,
        ),
        *(option for option in profiles.job_options(many=True) if option.name != "processes"),
    ),
    ("key=value …", "data=FOLDER, and settings of `distgan train capacity`"),
    least=1,
    most=MANY,
    settings=lambda words: train.plan([PRESET, *words]),
    check=lambda options: (
        f"{word}: no setting of a study; use {NOT_HERE[key]}"
        for word in options.words
        if (key := word.partition("=")[0]) in NOT_HERE
    ),
    epilog=EXAMPLES,
)


def main(argv: list[str]) -> int:
    options = COMMAND.parse(argv)
    study = _study(options)
    if options.submit:
        from distgan.launchers.capacity import slurm_array

        return slurm_array.submit(study, options)
    code = 0
    if options.report:
        _require_a_run(study)
    else:
        widths = list(study.folders)
        if options.task:
            number, count = parse_task(options.task, os.environ)
            widths = widths[number::count]
        code = _train(study, widths)
    if code != STOPPED:
        report(study)
    return code


def _require_a_run(study: Study) -> None:
    """Raise RunError where no width of the study has begun."""
    if any(is_run(folder) for folder in study.folders.values()):
        return
    there = sorted(path.name for path in study.home.glob("*") if is_run(path))
    raise RunError(
        f"none of the widths {', '.join(map(str, study.folders))} has begun in {study.home}"
        " with these settings; nothing was written. Give the words that the study was trained"
        " with, widths too"
        + (f"; its runs there: {', '.join(there[:6])}{' …' if there[6:] else ''}" if there else "")
    )


def plan_study(words: list[str]) -> Study:
    """Plan the study of a command line and check it before anything is trained.

    Raise ConfigError for words and settings, DataError for the data.
    """
    return _study(COMMAND.parse(words))


def _study(options: Arguments) -> Study:
    folders = _folders(options.words, options.widths, options.processes)
    return Study(options.words, options.processes, options.memory_gb, folders)


def _folders(settings: list[str], widths: tuple[int, ...], processes: int) -> dict[int, Path]:
    from distgan.data.own_dataset import open_data

    planned = {width: [PRESET, *settings, *_width(width)] for width in widths}
    local.refuse_early(processes, planned[widths[0]])
    settled = {width: train.plan(words)[1] for width, words in planned.items()}
    data = open_data(settled[widths[0]].data)
    folders = {}
    for width, run in settled.items():
        fingerprint = data.fingerprint_for(run)
        version = versions(run)[resolve(run, fingerprint).version]
        folders[width] = folder_of(version, version.identity(fingerprint))
    return folders


def _width(width: int) -> list[str]:
    return [f"ngf={width}", f"ndf={width}"]


# ---- training
class _Child:
    """Run one training at a time, in a session of its own.

    A signal to this process reaches it once, and not from the terminal as well.
    """

    def __init__(self):
        self.asked = 0
        self._process: subprocess.Popen | None = None

    def __enter__(self):
        self._before = {number: signal.signal(number, self._pass_on) for number in STOP_SIGNALS}
        return self

    def __exit__(self, *_):
        for signum, handler in self._before.items():
            signal.signal(signum, handler)

    def _pass_on(self, number, frame):
        self.asked += 1
        if self._process:
            # The first asks it to save and stop, the second to leave at once.
            self._process.send_signal(signal.SIGTERM if self.asked == 1 else signal.SIGINT)

    def run(self, line: list[str]) -> int:
        """Run a command; return its exit code."""
        self._process = subprocess.Popen(
            line, start_new_session=True, preexec_fn=end_with_parent, env=launch_line.environment()
        )
        if self.asked:
            self._process.send_signal(signal.SIGTERM)
        code = self._process.wait()
        self._process = None
        return code


def _train(study: Study, widths: list[int]) -> int:
    """Train these widths. Return 0; 1 if one failed; 75 if the study was asked to stop."""
    failed = []
    console.ignore_closed_pipes()
    with _Child() as child:
        for i, width in enumerate(widths):
            console.say(f"\nwidth {width} ({i + 1} of {len(widths)}): {study.folders[width]}")
            code = child.run(
                launch_line.command(study.processes, [PRESET, *study.settings, *_width(width)])
            )
            if child.asked or code == STOPPED:
                console.say("the study was asked to stop; the same line again goes on")
                return STOPPED
            if code:
                failed.append(width)
                console.say(
                    f"width {width} failed (exit code {code}), see above"
                    + (f"; going on with {widths[i + 1]}" if widths[i + 1 :] else "")
                )
    if failed:
        console.say(
            f"\nfailed: {', '.join(map(str, failed))}; the same line again tries them again"
        )
    return 1 if failed else 0


# ---- measuring
def report(study: Study) -> None:
    """Write and print the table and the plot.

    Tasks of a job array may do so at the same time: the last one has seen all runs.
    """
    rows = _measure(study)
    while True:
        _write(study, rows)
        again = _measure(study)
        if [row.state for row in again] == [row.state for row in rows]:
            break
        rows = again
    console.say("\n" + table.text(rows, study.memory_gb))
    console.say(
        "\n".join(f"wrote {study.home / f'capacity.{kind}'}" for kind in ("md", "csv", "png"))
    )


def _measure(study: Study) -> list[Row]:
    return [measure(width, folder) for width, folder in study.folders.items()]


def _write(study: Study, rows: list[Row]) -> None:
    """Each file whole or not at all, whoever else writes it."""
    from distgan.launchers.capacity import plot as widths_plot

    files: dict[str, str | Callable[[BinaryIO], object]] = {
        "capacity.md": table.text(rows, study.memory_gb),
        "capacity.csv": table.table_csv(rows),
        "capacity.png": lambda file: widths_plot.draw(
            rows, recommend(rows, study.memory_gb)[0], file
        ),
    }
    errors = partial(
        disk_errors, remedy="the runs are not harmed: the same line with --report writes it"
    )
    with errors(study.home):
        make_folder(study.home)
    for name, data in files.items():
        write_atomic(study.home / name, data, errors)
