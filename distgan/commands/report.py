"""`distgan report RUN…`: a table of runs, and a page for each. Imports no torch, so it works where
nothing can be trained.
"""

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from distgan.core.arguments import MANY, Command, Option, switch
from distgan.core.console import bar, say, table
from distgan.core.errors import RunError
from distgan.core.files import write_atomic
from distgan.report import comparison
from distgan.report.formatting import number
from distgan.report.page import render
from distgan.runs.history import History, find_runs, one_error, read_history

COMMAND = Command(
    "report",
    """Print a line and a verdict for each run, and write report.html into each run folder: one file
that opens anywhere, with the success criteria, curves, pictures and sounds, results, health and
findings, settings, attempts and events of the run. Nothing else in the folder is changed, and a run
may be training meanwhile. With several runs also write comparison.html: their curves over each
other, samples side by side, and the settings in which they differ.""",
    (
        switch("no-page", "print the table only, write no page"),
        Option(
            "out",
            "of several runs: the file that compares them (default: comparison.html in the folder"
            " that holds them)",
            "FILE",
        ),
    ),
    ("RUN …", "run folders, or folders that hold runs up to two levels below"),
    least=1,
    most=MANY,
    epilog="""examples:
  distgan report runs/sagan/ngf96-1a2b3c4d     one run
  distgan report runs/sagan                    all runs of an experiment
  distgan report runs                          all runs
  distgan report runs/sagan/ngf96-1a2b3c4d runs/sagan/ngf64-5e6f7a8b
                                               two runs, compared in runs/sagan/comparison.html
  distgan report runs --no-page                the table alone""",
)
LEFT = ("run", "state", "best")  # columns of text
FEW = 4  # runs that are read before anyone would look for a bar


def main(argv: list[str]) -> int:
    """The command; RunError where a folder is no run or is damaged."""
    arguments = COMMAND.parse(argv)
    lines, runs, written, broken, failed = [], [], [], [], []
    for folder in _counted(find_runs([Path(word) for word in arguments.words])):
        try:
            with one_error():
                run = read_history(folder)
                row = line(run)
                page = None if arguments.no_page else render(run)
                compared = comparison.Compared.of(run, run.name)
        except RunError as error:
            broken.append(f"{folder} cannot be read: {error}")
            continue
        lines.append(row)
        runs.append(compared)
        try:
            written += [write_page(folder, page)] if page else []
        except RunError as error:
            failed.append(str(error))
    if not lines:
        raise RunError("\n".join(broken))
    if len(runs) > 1 and not arguments.no_page:
        try:
            written.append(write_comparison(runs, arguments.out))
        except RunError as error:
            failed.append(str(error))
    show(lines)
    for path in written:
        say(f"wrote {path}")
    for text in broken:
        say(f"warning: {text}")
    if failed:
        raise RunError("\n".join(failed))
    return 0


def show(lines: list[dict[str, str]]) -> None:
    """Print the table of runs, without columns that none has, and the verdict on each below it."""
    names = [name for name in lines[0] if name != "verdict"]
    columns = tuple(name for name in names if name in LEFT or any(r[name] != "–" for r in lines))
    table(columns, [tuple(row[name] for name in columns) for row in lines], left=LEFT)
    say("")
    table(("run", "verdict"), [(row["run"], row["verdict"]) for row in lines], right=False)


def write(folder: Path) -> Path:
    """Write the page of one run; return its path. RunError where the folder is damaged."""
    with one_error():
        page = render(read_history(folder))
    return write_page(folder, page)


def write_comparison(runs: list[comparison.Compared], out: str | None) -> Path:
    """Write the page that compares runs, by default into the folder that holds them; return its
    path. RunError where it cannot be written.
    """
    folder = Path(os.path.commonpath([run.page.parent.parent for run in runs]))
    path = Path(out).expanduser().absolute() if out else folder / "comparison.html"
    named = [replace(run, name=str(run.page.parent.relative_to(folder))) for run in runs]
    with one_error():
        write_atomic(path, comparison.render(folder.name, named, path.parent))
    return path


def _counted(folders: list[Path]) -> Iterator[Path]:
    """The folders, under a bar where there are many: a long journal takes seconds."""
    if len(folders) <= FEW:
        yield from folders
        return
    with bar("reading", len(folders), "runs") as shown:
        for folder in folders:
            yield folder
            shown.advance()


def line(run: History) -> dict[str, str]:
    """The run as one row of the table, by column."""

    def recent(key: str) -> str:
        return number(run.recent(key), 3)

    best = run.best
    return {
        "run": run.name,
        "state": run.state,
        "epoch": number(run.epoch),
        "seen": f"{run.seen:,}",
        "best": (
            f"{best.get('metric')} {number(best.get('score'))} @ {number(best.get('epoch'))}"
            if best
            else "–"
        ),
        "D loss": recent("d/loss"),
        "G loss": recent("g/loss"),
        "D(x)": recent("d/real_prob"),
        "D(G(z))": recent("d/fake_prob"),
        "L1": recent("g/l1"),
        "valid L1": number(run.last("valid/l1"), 3),
        "SI-SDR": number(run.last("valid/si_sdr"), 3),
        "samples/s": number(run.speed, 3),
        "verdict": run.verdict.sentence,
    }


def write_page(folder: Path, page: str) -> Path:
    """Writes FOLDER/report.html whole or not at all."""
    path = folder / "report.html"
    write_atomic(path, page)
    return path
