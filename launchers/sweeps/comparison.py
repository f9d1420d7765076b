"""Compare the members of a sweep: a table and a plot in its folder, and a page for each run."""

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from distgan.commands import report
from distgan.core import console
from distgan.core.errors import RunError
from distgan.core.files import csv_text, disk_errors, make_folder, write_atomic
from distgan.launchers.runs.accounting import run_cost
from distgan.launchers.runs.state import read_run_files
from distgan.launchers.slurm.ledger import anchor
from distgan.launchers.sweeps import seeds
from distgan.monitor.journal import score_key, series
from distgan.report.comparison import Compared, render
from distgan.runs.history import History, one_error, read_history
from distgan.runs.records import read_if_good


def write(folder: Path, members: Sequence[str], values: Sequence[dict[str, Any]]) -> None:
    """Write report.html, report.md, report.csv and report.png into `folder`, and report.html into
    each run.

    Print the table. Raise RunError if no member has begun.
    """
    histories = _read_and_report(members)
    if not histories:
        raise RunError(
            f"no member of {folder.name} has begun; next: {console.command('status', folder.name)}"
        )
    keys = [*dict.fromkeys(key for settings in values for key in settings)]
    heads = (
        "",
        *keys,
        "state",
        "epoch",
        "best",
        "at epoch",
        "samples/s",
        "hours",
        "restarts",
        "verdict",
        "run",
    )
    rows = [
        _row(index, Path(run), values[index], keys, histories.get(index))
        for index, run in enumerate(members)
    ]
    order = _order(len(rows), histories)
    rows = [rows[i] for i in order]
    with disk_errors(folder):
        make_folder(folder)
    repeated = _repeated(values, keys, histories)
    text = _markdown(folder.name, heads, rows, histories, repeated)
    write_atomic(folder / "report.md", console.printable(text))
    write_atomic(folder / "report.csv", _csv(heads, rows))
    write_atomic(folder / "report.html", _page(folder, values, histories))
    picture = _draw(folder / "report.png", histories, values, order)
    for table in repeated:
        console.table(table[0], table[1:], right=False)
        console.say("")
    console.table(heads[:-2], [row[:-2] for row in rows], right=False)
    console.say("")
    console.table(("", "verdict"), [(row[0], row[-2]) for row in rows], right=False)
    console.say(
        "\n".join(
            [
                "",
                *_apart(histories),
                f"wrote {folder / 'report.md'}",
                f"wrote {folder / 'report.csv'}",
                *([f"wrote {folder / 'report.png'}"] if picture else []),
                f"wrote {folder / 'report.html'}",
                f"wrote report.html into {len(histories)} run folders",
            ]
        )
    )


def _repeated(
    values: Sequence[dict[str, Any]], keys: Sequence[str], histories: dict[int, History]
) -> list[list[tuple[str, ...]]]:
    """Return the table over seeds, its head first; [] where no setting has two seeds."""
    scores = {i: best for i, run in histories.items() if (best := _best(run)) is not None}
    measured = {i: tuple(map(str, _measured(histories[i]).values())) for i in scores}
    rows = seeds.rows(values, keys, scores, measured)
    return [[(*(key for key in keys if key != "seed"), *seeds.HEADS), *rows]] if rows else []


def _page(folder: Path, values: Sequence[dict[str, Any]], histories: dict[int, History]) -> str:
    """Return the page of a sweep: its members by what they vary."""
    members = [
        Compared.of(run, f"{index}: {_varied(values[index]) or run.folder.name}")
        for index, run in histories.items()
    ]
    begun = f"{len(histories)} of {len(values)} members have begun."
    return render(f"Sweep {folder.name}", members, folder, [begun, *_apart(histories)])


def _varied(values: dict[str, Any]) -> str:
    return ", ".join(f"{name.rpartition('.')[2]}={value}" for name, value in values.items())


def _read_and_report(members: Sequence[str]) -> dict[int, History]:
    """Read the runs that have begun, by member, and write the page of each."""
    histories: dict[int, History] = {}
    with console.bar("reading", len(members), "runs") as bar:
        for index, run in enumerate(members):
            with contextlib.suppress(RunError), one_error():
                if (Path(run) / "journal.jsonl").exists():
                    histories[index] = read_history(Path(run))
                    report.write_page(Path(run), report.render(histories[index]))
            bar.advance()
    return histories


def _order(count: int, histories: dict[int, History]) -> list[int]:
    """Sort members by best score within what was measured alike; members without a score last."""
    kinds = list(
        dict.fromkeys(tuple(_measured(run).values()) for run in histories.values() if run.best)
    )

    def key(index: int) -> tuple[bool, int, float]:
        best = _best(histories.get(index))
        if best is None:
            return True, 0, 0.0
        return False, kinds.index(tuple(_measured(histories[index]).values())), best

    return sorted(range(count), key=key)


def _best(run: History | None) -> float | None:
    best = (run.best or {}) if run else {}
    return best.get("score")


def _measured(run: History) -> dict[str, Any]:
    """Return what two runs must have in common for their scores to be comparable."""
    last = run.evaluations[-1] if run.evaluations else {}
    return {
        "metric": run.metric,
        "data": run.identity.get("data"),
        "evaluate.samples": last.get("samples"),
        "extractor": (last.get("made_with") or {}).get("weights_sha256"),
        "target_gain": run.config.get("target_gain"),
    }


def _apart(histories: dict[int, History]) -> list[str]:
    """Return a note if not all scores are comparable."""
    measured = [_measured(run) for run in histories.values() if run.best]
    names = [
        name
        for name in (measured[0] if measured else {})
        if len({conditions[name] for conditions in measured}) > 1
    ]
    return (
        [
            f"Not all scores are comparable: runs differ in {', '.join(names)}. The"
            " table is sorted within groups of comparable runs."
        ]
        if names
        else []
    )


def _row(
    index: int, folder: Path, values: dict[str, Any], keys: Sequence[str], run: History | None
) -> tuple[str, ...]:
    cells = (str(index), *(str(values.get(key, "–")) for key in keys))
    if run is None:
        return (*cells, "new", *["–"] * 7, folder.name)
    best, spent, files = run.best or {}, run_cost(folder, None), read_run_files(folder)
    row = report.line(run)
    state = "done" if files.done else "failed" if files.refused else row["state"]
    return (
        *cells,
        state,
        row["epoch"],
        f"{best['metric']} {best['score']:.4g}" if best else "–",
        f"{best['epoch']:.4g}" if best else "–",
        row["samples/s"],
        f"{spent.elapsed / 3600:.2f}" if spent.turns else f"{run.wall_s / 3600:.2f}",
        str(max(0, files.attempts - 1)),
        row["verdict"],
        folder.name,
    )


def _markdown(
    name: str,
    heads: Sequence[str],
    rows: Sequence[Sequence[str]],
    histories: dict[int, History],
    repeated: Sequence[Sequence[tuple[str, ...]]],
) -> str:
    single = _markdown_table([heads, *rows])
    tables = "".join(f"{_markdown_table(table)}\n\n" for table in repeated)
    if tables:  # the single members are folded
        single = f"<details><summary>{len(rows)} members</summary>\n\n{single}\n\n</details>"
    metrics = {best["metric"] for run in histories.values() if (best := run.best)}
    notes = [
        f"Sorted by the best score ({', '.join(sorted(metrics)) or 'none yet'}; lower is better)."
        " `hours`: on nodes, over all attempts."
    ]
    notes += _apart(histories)
    if "frechet_standin" in metrics:
        made = sorted(
            {
                str(run.evaluations[-1].get("extractor"))
                for run in histories.values()
                if run.metric == "frechet_standin" and run.evaluations
            }
        )
        notes.append(
            f"frechet_standin is computed with stand-in weights ({'; '.join(made)}): it compares"
            " these runs with each other only."
        )
    if any(run.verdict.raised for run in histories.values()):
        notes.append("`distgan report RUN` has the advice on warnings.")
    return (
        f"# Sweep {name}\n\n"
        + tables
        + single
        + "\n\n"
        + "\n".join(f"* {note}" for note in notes)
        + "\n\n![best score by epoch](report.png)\n"
    )


def _markdown_table(rows: Sequence[Sequence[str]]) -> str:
    """Return a table in Markdown; the first row is its head."""
    lines = ["| " + " | ".join(cell.replace("|", "/") for cell in row) + " |" for row in rows]
    return "\n".join([lines[0], "|" + " --- |" * len(rows[0]), *lines[1:]])


def _csv(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    cells = ([cell.replace("–", "") for cell in row] for row in rows)
    return csv_text(["member", *heads[1:]], cells)


def _draw(
    path: Path,
    histories: dict[int, History],
    values: Sequence[dict[str, Any]],
    order: Sequence[int],
) -> bool:
    """Draw score against epoch, a line for each member, the best in colour; return whether any has
    a score.
    """
    import matplotlib
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 5), layout="constrained")
    axes, drawn = figure.add_subplot(), 0
    colours = matplotlib.color_sequences["tab10"]
    if groups := seeds.groups(values):
        drawn, order = _draw_groups(axes, colours, groups, histories, values), []
    for rank, index in enumerate(order):
        run = histories.get(index)
        key = score_key(run.rows) if run else None
        if run is None or key is None:
            continue
        points = series(run.rows, key)
        label = _varied(values[index]) or run.folder.name
        axes.plot(
            points[:, 0],
            points[:, 1],
            marker=".",
            color=colours[rank] if rank < 10 else "0.8",
            zorder=20 - min(rank, 15),
            label=label[:40] if rank < 10 else None,
        )
        drawn += 1
    if not drawn:
        return False
    axes.set(
        xlabel="epoch",
        ylabel=", ".join(dict.fromkeys(run.metric for run in histories.values() if run.metric)),
        yscale="log",
    )
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8, title="best first")
    write_atomic(path, lambda file: figure.savefig(file, dpi=110, format="png"))
    return True


def _draw_groups(
    axes: Any,
    colours: Sequence[Any],
    groups: Sequence[Sequence[int]],
    histories: dict[int, History],
    values: Sequence[dict[str, Any]],
) -> int:
    """Draw mean and standard deviation over the seeds of each setting, and the single runs thin;
    return how many settings have a score.
    """
    drawn = 0
    for group in groups:
        runs = [histories[index] for index in group if index in histories]
        points = [series(run.rows, key) for run in runs if (key := score_key(run.rows))]
        if not points:
            continue
        colour = colours[drawn] if drawn < 10 else "0.8"
        others = {key: value for key, value in values[group[0]].items() if key != "seed"}
        label = f"{_varied(others)[:34] or 'all'} ({len(points)} seeds)" if drawn < 10 else None
        for run in points:
            axes.plot(run[:, 0], run[:, 1], color=colour, linewidth=0.6, alpha=0.5)
        if len(points) > 1:
            epochs, mean, deviation = seeds.curve(points)
            low = np.maximum(mean - deviation, mean * 0.01)  # the scale is logarithmic
            axes.fill_between(epochs, low, mean + deviation, color=colour, alpha=0.2)
        else:
            epochs, mean = points[0][:, 0], points[0][:, 1]
        axes.plot(epochs, mean, marker=".", color=colour, label=label)
        drawn += 1
    return drawn


def known(home: Path, name: str) -> tuple[list[str], list[dict[str, Any]]]:
    """Return members and values of a sweep by its name; both empty without such a sweep."""
    recorded = read_if_good(home / "_sweeps" / name / "members.json")
    values = recorded.get("values", [])
    runs = [anchor(home, run) for run in recorded.get("runs", [])]
    return runs, values if len(values) == len(runs) else [{} for _ in runs]
