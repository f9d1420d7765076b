"""`distgan report RUN…`: a table of runs, and a page for each. Imports no torch, so it works where nothing can be trained."""

import argparse
import os
from pathlib import Path

from distgan.console import say
from distgan.errors import RunError
from distgan.history import History, find_runs, read_history
from distgan.page import number, render

HELP = """Prints one line per run and writes report.html into each run folder: one file that opens anywhere, with the curves, sample grids,
health and findings, settings, attempts and events of the run. Nothing else in the folder is changed, and a run
may be training meanwhile."""
EXAMPLES = """examples:
  distgan report runs/sagan/ngf=96-1a2b3c4d     one run
  distgan report runs/sagan                     all runs of an experiment
  distgan report runs                           all runs
  distgan report runs --no-page                 the table alone"""
COLUMNS = ("run", "state", "epoch", "images", "best", "D loss", "G loss", "D(x)", "D(G(z))", "images/s", "warnings")


def main(argv: list[str] | None = None) -> int:
    """The command; RunError where a folder is no run or is damaged."""
    parser = argparse.ArgumentParser(prog="distgan report", description=HELP, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="a run folder, or a folder that holds runs up to two levels below")
    parser.add_argument("--no-page", action="store_true", help="print the table only, write no report.html")
    args = parser.parse_args(argv)
    runs, lines, broken = [], [COLUMNS], []
    for folder in find_runs(args.runs):
        try:
            run = read_history(folder)
            lines.append(line(run))
            runs.append(run)
        except (RunError, TypeError, ValueError, KeyError, AttributeError) as error:  # the last four: JSON of another shape than ours
            broken.append(f"{folder} cannot be read: {error}")
    if not runs:
        raise RunError("\n".join(broken))
    say(table(lines))
    for run in runs if not args.no_page else []:
        say(f"wrote {write_page(run)}")
    for text in broken:
        say(f"warning: {text}")
    return 0


def line(run: History) -> tuple[str, ...]:
    """The run as one row of COLUMNS."""
    best = run.best
    score = f"{best.get('metric')} {number(best.get('score'))} @ {number(best.get('epoch'))}" if best else "–"
    numbers = [number(run.recent(key), 3) for key in ("d/loss", "g/loss", "d/real_prob", "d/fake_prob", "samples_per_second")]
    warnings = [finding.rule for finding in run.findings if finding.level == "warning"]
    return (run.name, run.state, number(run.epoch), f"{run.images_seen:,}", score, *numbers, ", ".join(warnings) or "–")


def table(rows: list[tuple[str, ...]]) -> str:
    """Columns under COLUMNS, text to the left and numbers to the right; the same on a terminal and in a file."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(COLUMNS))]
    left = {COLUMNS.index(name) for name in ("run", "state", "best", "warnings")}
    aligned = ("  ".join(cell.ljust(width) if i in left else cell.rjust(width) for i, (cell, width) in enumerate(zip(row, widths, strict=True)))
               for row in rows)
    return "\n".join(text.rstrip() for text in aligned)


def write_page(run: History) -> Path:
    """Writes RUN/report.html whole or not at all."""
    path = run.folder / "report.html"
    partial = run.folder / f".report.html.{os.getpid()}"
    try:
        partial.write_text(render(run), encoding="utf-8")
        partial.replace(path)
    except OSError as error:
        raise RunError(f"cannot write {path}: {error}") from error
    finally:
        partial.unlink(missing_ok=True)
    return path
