"""Render several runs as one HTML page: verdicts, curves over each other, samples side by side, and
the settings in which they differ. Imports no torch.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes

from distgan.config.introspection import flatten
from distgan.monitor.journal import finite
from distgan.outputs.signal_plots import plain
from distgan.report.formatting import number
from distgan.report.media import figure
from distgan.report.page import TEMPLATES
from distgan.report.plotting import draw, moving_mean, scale
from distgan.runs.history import History

MOST_COLOURS = 10  # of the best runs; the lines of others are gray
MOST_PICTURES, PICTURE_PIXELS = 12, 480
MOST_SETTINGS = 8  # columns
NAME_CHARS = 28
# {title: journal key}; the lines of each run are one colour.
CURVES = {
    "D loss": "d/loss",
    "G loss": "g/loss",
    "D(x)": "d/real_prob",
    "Diversity of samples": "valid/diversity",
    "L1, validation": "valid/l1",
    "SI-SDR in dB, validation": "valid/si_sdr",
}
# Of where a run is and how it is computed, which is no part of what it is.
UNCOMPARED = ("machine.", "watch.")


@dataclass(frozen=True)
class Compared:
    """A run of a comparison: its name, its history, and the file of its own page."""

    name: str
    run: History
    page: Path


def render(title: str, runs: Sequence[Compared], folder: Path, notes: Sequence[str] = ()) -> str:
    """Return the page of several runs as HTML, best first; `folder` is where it will be, for links
    to the pages of the runs. `notes` are sentences below the table.
    """
    runs = sorted(runs, key=_best)
    keys = changed(one.run for one in runs)
    rows = [_row(one, keys, folder) for one in runs]
    pictures = [
        figure(one.run.samples[max(one.run.samples)], PICTURE_PIXELS, one.name)
        for one in runs
        if one.run.samples
    ]
    return TEMPLATES.get_template("comparison.html").render(
        title=title,
        keys=keys,
        rows=rows,
        notes=notes,
        drawings=overlaid(runs),
        curve_notes=[
            "A colour for each run, smoothed",
            *([f"gray: not among the best {MOST_COLOURS}"] if len(runs) > MOST_COLOURS else []),
        ],
        pictures=pictures[:MOST_PICTURES],
        samples=len(pictures),
        written=datetime.now(UTC).strftime("%Y-%m-%d %H:%M"),
    )


def changed(runs: Any) -> list[str]:
    """Return the keys of the settings in which runs differ, those of recipes and data first."""
    settings = [dict(flatten(run.config)) for run in runs]
    keys = dict.fromkeys(key for one in settings for key in one if not key.startswith(UNCOMPARED))
    return [key for key in keys if len({repr(one.get(key)) for one in settings}) > 1]


def _best(one: Compared) -> tuple[str, float]:
    """Sort by score, within runs of one metric; runs without a score last."""
    score = (one.run.best or {}).get("score")
    return (str(one.run.metric), score) if isinstance(score, int | float) else ("~", 0.0)


def _row(one: Compared, keys: Sequence[str], folder: Path) -> dict[str, Any]:
    best, settings = one.run.best or {}, dict(flatten(one.run.config))
    return {
        "name": one.name,
        "link": quote(os.path.relpath(one.page, folder)),
        "state": one.run.state,
        "epoch": one.run.epoch,
        "metric": best.get("metric", "–"),
        "score": best.get("score"),
        "at": best.get("epoch"),
        "verdict": one.run.verdict.sentence,
        "settings": [number(settings.get(key)) for key in keys[:MOST_SETTINGS]],
    }


def overlaid(runs: Sequence[Compared]) -> dict[str, str]:
    """Return {title: svg element} of every curve that a run has, a line for each run."""
    metrics = dict.fromkeys(one.run.metric for one in runs if one.run.metric)
    curves = {f"Score: {plain(metric)[:40]}": f"eval/{metric}" for metric in metrics} | CURVES
    drawn = {"Score, times its floor": draw("Score, times its floor", partial(_times, runs))}
    for title, key in curves.items():
        drawn[title] = draw(title, partial(_lines, runs, key))
    return {title: svg for title, svg in drawn.items() if svg}


def _times(runs: Sequence[Compared], ax: Axes) -> bool:
    """Draw the score of k samples as a multiple of that of k real images, whose line is 1."""
    for rank, one in enumerate(runs):
        pairs = [
            (row["epoch"], row["floor/generated"] / row["floor/real"])
            for row in one.run.with_floors
            if row.get("floor/generated") and row.get("floor/real", 0) > 0
        ]
        if pairs:
            _line(ax, rank, one.name, *zip(*pairs, strict=True))
    if not ax.lines:
        return False
    ax.axhline(1, color="#2f9e6f", linewidth=0.9, linestyle=(0, (2, 3)), label="floor")
    return True


def _lines(runs: Sequence[Compared], key: str, ax: Axes) -> bool:
    for rank, one in enumerate(runs):
        x, y = finite(one.run.rows, key).T
        if len(x):
            window = max(len(y) // 40, 5) if len(y) >= 40 else 1
            thin = slice(None, None, max(len(x) // 400, 1))
            _line(ax, rank, one.name, x[thin], moving_mean(y, window)[thin])
    return bool(ax.lines)


def _line(ax: Axes, rank: int, name: str, x: Any, y: Any) -> None:
    colours = mpl.color_sequences["tab10"]
    coloured = rank < MOST_COLOURS
    ax.plot(
        x,
        y,
        color=colours[rank] if coloured else "0.6",
        linewidth=1.4 if coloured else 0.6,
        marker="o" if len(x) < 20 else None,
        markersize=3,
        zorder=30 - min(rank, 20),
        label=plain(name)[:NAME_CHARS] if coloured else None,
    )
    scale(ax, np.concatenate([np.asarray(line.get_ydata(), float) for line in ax.lines]))
