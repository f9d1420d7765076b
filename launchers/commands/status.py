"""`distgan status`: every submitted run in one table: state, progress, losses, score, speed, time
left, problems.
"""

import json
import shutil
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distgan.config.loading import YAML_BYTES, parse_yaml
from distgan.core import console
from distgan.core.arguments import MANY, Command, switch
from distgan.core.errors import LaunchError
from distgan.core.reading import read_bytes
from distgan.launchers.runs.selection import HELP, RUNS, SelectedRun, select
from distgan.monitor.journal import finite_number, last_rows, score_key, tail_of

EPILOG = """examples:
  distgan status                        all that was submitted
  distgan status ngf-study              a sweep
  distgan status ngf-study:3 42_1       its member 3, and an element of job 42
  distgan status --watch                again every 10 seconds
  distgan status --json                 for programs

Exit code 0 if all are done, 2 if some failed, were cancelled, are lost,
unknown or held, 3 if some go on."""
COMMAND = Command(
    "status",
    """Show every submitted run in one table: state, progress, losses, score, speed, time left,
problems.""",
    (
        RUNS,
        switch("watch", "show again every 10 seconds, until all have ended"),
        switch("json", "one JSON object for each run, a line each"),
    ),
    ("[TARGET …]", HELP),
    most=MANY,
    epilog=EPILOG,
)
LIMIT = 200  # runs that are shown one by one
FAULTY = ("failed", "cancelled", "lost", "unknown", "held")


@dataclass(frozen=True)
class Progress:
    """The progress of a run, from the end of its journal."""

    step: int | None = None
    epoch: float | None = None
    epochs: float | None = None
    losses: dict[str, float] | None = None
    score: str = ""
    speed: float | None = None
    left_s: float | None = None


def main(argv: list[str]) -> int:
    options = COMMAND.parse(argv)
    while True:
        try:
            selected = select(options.runs.resolve(), options.words)
        except LaunchError as error:
            if not options.watch:
                raise
            console.say(f"warning: {error}; trying again")
            time.sleep(10)
            continue
        if options.json:
            for run in selected:
                console.say(json.dumps(as_dict(run)))
        else:
            if options.watch:
                console.clear_screen()
                console.say(f"{time.strftime('%H:%M:%S')}  (Ctrl-C leaves; the runs go on)\n")
            show(selected, options.runs)
        code = exit_code(selected)
        if not options.watch or code != 3:
            return code
        time.sleep(10)


def exit_code(selected: Sequence[SelectedRun]) -> int:
    names = {run.state.name for run in selected}
    return 3 if names - {"done", "stopped", *FAULTY} else 2 if names & set(FAULTY) else 0


def show(selected: Sequence[SelectedRun], home: Path) -> None:
    """Print the table, a line of sums, and the next command."""
    if not selected:
        console.say(
            f"nothing was submitted from {home}. next: distgan submit --help, distgan sweep --help"
        )
        return
    rows = [_row(run) for run in selected[:LIMIT]]
    heads = (
        "",
        "run",
        "state",
        "epoch",
        "G loss",
        "D loss",
        "best score",
        "samples/s",
        "left",
        "job",
        "remark",
    )
    used = [i for i in range(len(heads)) if any(row[i] not in ("", "–") for row in rows)]
    shown = [tuple(row[i] for i in used) for row in rows]
    console.table(tuple(heads[i] for i in used), _fit(shown), right=False)
    _show_verdicts(selected[:LIMIT])
    if len(selected) > LIMIT:
        console.say(f"… and {len(selected) - LIMIT} more (--json lists all)")
    counts = Counter(run.state.name for run in selected)
    console.say("\n" + ", ".join(f"{count} {name}" for name, count in counts.most_common()))
    bad = next((run for run in selected if run.state.name in FAULTY), None)
    if bad:
        name = f"{bad.sweep}:{bad.index}" if bad.sweep else bad.folder.name
        console.say(f"next: {console.command('why', name)}")
    elif exit_code(selected) == 3:
        console.say("next: distgan status --watch, distgan logs -f TARGET")
    else:
        sweeps = {run.sweep for run in selected}
        (sweep,) = sweeps if len(sweeps) == 1 else (None,)
        line = ("sweep", sweep, "--report") if sweep else ("report", selected[0].folder.parent)
        console.say(f"next: {console.command(*line)}")


def _fit(rows: Sequence[tuple[str, ...]]) -> list[tuple[str, ...]]:
    """Cut the remarks, the last column, to what a terminal has left: the numbers are worth more."""
    if not sys.stdout.isatty():
        return [*rows]
    others = sum(2 + max(len(row[i]) for row in rows) for i in range(len(rows[0]) - 1))
    left = max(20, shutil.get_terminal_size().columns - others - 1)
    return [
        (*row[:-1], row[-1] if len(row[-1]) <= left else row[-1][: left - 1] + "…") for row in rows
    ]


def _row(run: SelectedRun) -> tuple[str, ...]:
    run_progress = progress(run)
    losses = run_progress.losses or {}
    index = f"{run.sweep}:{run.index}" if run.sweep else ""
    epoch = (
        f"{run_progress.epoch:.4g}/{run_progress.epochs:g}"
        if run_progress.epoch is not None and run_progress.epochs
        else f"{run_progress.epoch:.4g}"
        if run_progress.epoch is not None
        else "–"
    )
    return (
        index,
        _name(run),
        run.state.name,
        epoch,
        _number(losses.get("g/loss")),
        _number(losses.get("d/loss")),
        run_progress.score or "–",
        _number(run_progress.speed),
        (
            console.clock(run_progress.left_s)
            if run_progress.left_s is not None and run.state.name == "running"
            else "–"
        ),
        (run.submitted.key if run.submitted else None) or "–",
        _remark(run),
    )


def _name(run: SelectedRun) -> str:
    name = run.name if not run.sweep else run.folder.name
    return name if len(name) <= 46 else name[:28] + "…" + name[-17:]


def _show_verdicts(selected: Sequence[SelectedRun]) -> None:
    """Print the verdict on each run, as it recorded it at its last validation or evaluation."""
    rows = [
        (f"{run.sweep}:{run.index}" if run.sweep else _name(run), verdict)
        for run in selected
        if (verdict := recorded_verdict(run))
    ]
    if rows:
        console.say("")
        console.table(("", "verdict"), rows, right=False)


def recorded_verdict(run: SelectedRun) -> str | None:
    """Return the sentence in status.json; None in those of earlier versions."""
    verdict = run.files.status.get("verdict")
    return verdict if isinstance(verdict, str) else None


def _remark(run: SelectedRun) -> str:
    parts = [*run.files.faults, *([run.state.why] if run.state.why else [])]
    if run.state.name == "running" and run.queue_entry:
        parts.append(run.queue_entry.nodes)
        if run.files.silent_s > 600 and run.files.status:
            parts.append(f"silent for {console.clock(run.files.silent_s)}")
    return ", ".join(
        [*parts, *(alarms(run.folder) if run.state.name in ("running", "stopping") else [])]
    )[:90]


def alarms(folder: Path) -> list[str]:
    """Return the rules that the monitor warned of lately, newest last."""
    rules = [
        str(event.get("rule"))
        for event in tail_of(folder / "events.jsonl", 16 << 10)
        if event.get("event") == "warning" and event.get("level", "warning") == "warning"
    ]
    return list(dict.fromkeys(rules[-3:]))


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3g}"


def progress(run: SelectedRun) -> Progress:
    """Read the progress of a run from the last lines of its journal and from status.json."""
    status, rows = (
        run.files.status,
        (last_rows(run.folder / "journal.jsonl") if run.files.status else []),
    )
    if not status:
        return Progress()
    newest: dict[str, Any] = next((row for row in reversed(rows) if "seconds" in row), {})
    speeds = (finite_number(row.get("samples_per_second")) for row in reversed(rows))
    speed = next(filter(None, speeds), None)
    epochs = _epochs(run.folder)
    remaining_s = None
    epoch, samples = (
        finite_number(newest.get(key, status.get(key))) for key in ("epoch", "samples")
    )
    if speed and epochs and epoch and samples:
        remaining_s = max(0.0, (epochs - epoch) * samples / epoch / speed)
    best = status.get("best") or {}
    score = (
        f"{best['metric']} {best['score']:.4g} @ {best['epoch']:.4g}"
        if None not in map(best.get, ("metric", "score", "epoch"))
        else next(
            (
                f"{key.partition('/')[2]} {row[key]:.4g}"
                for row in reversed(rows)
                if (key := score_key(rows)) and isinstance(row.get(key), float)
            ),
            "",
        )
    )
    losses = {
        key: value
        for key in ("g/loss", "d/loss")
        if (value := finite_number(newest.get(key))) is not None
    }
    return Progress(
        newest.get("step", status.get("step")), epoch, epochs, losses, score, speed, remaining_s
    )


def _epochs(folder: Path) -> float | None:
    """Return the length of a run from the line of config.yaml, without parsing the rest."""
    try:
        text = read_bytes(folder / "config.yaml", YAML_BYTES).decode(errors="replace")
        line = next(line for line in text.splitlines() if line.startswith("epochs:"))
        return finite_number(parse_yaml(line[:100])["epochs"])
    except (OSError, ValueError, TypeError, KeyError, StopIteration):
        return None


def as_dict(run: SelectedRun) -> dict[str, Any]:
    """Return the row of a run for programs."""
    run_progress = progress(run)
    return {
        "run": str(run.folder),
        "sweep": run.sweep,
        "index": run.index,
        "state": run.state.name,
        "why": run.state.why,
        "job": run.submitted.key if run.submitted else None,
        "attempts": run.files.attempts,
        "step": run_progress.step,
        "epoch": run_progress.epoch,
        "epochs": run_progress.epochs,
        "losses": run_progress.losses,
        "best": run.files.status.get("best"),
        "verdict": recorded_verdict(run),
        "samples_per_second": run_progress.speed,
        "left_s": run_progress.left_s,
        "nodes": run.queue_entry.nodes if run.queue_entry else None,
    }
