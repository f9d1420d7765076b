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
from distgan.monitor.journal import finite, finite_number
from distgan.outputs.signal_plots import GREEN, plain
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
TIMES = "times the floor"
# Of where a run is and how it is computed, which is no part of what it is.
UNCOMPARED = ("machine.", "watch.")


Line = tuple[np.ndarray, np.ndarray]  # epochs, values


@dataclass(frozen=True)
class Compared:
    """The part of a run that a comparison shows: its history may be a hundred times as large."""

    name: str
    page: Path  # the run's own
    state: str
    epoch: float
    best: dict[str, Any]
    verdict: str
    settings: dict[str, Any]
    metric: str | None
    lines: dict[str, Line]  # by journal key, and TIMES
    picture: Path | None

    @classmethod
    def of(cls, run: History, name: str) -> "Compared":
        """Return what is compared of a run. Errors of odd values as of `History`."""
        keys = [*([f"eval/{run.metric}"] if run.metric else []), *CURVES.values()]
        lines = {key: _smoothed(finite(run.rows, key)) for key in keys}
        return cls(
            name,
            run.folder / "report.html",
            run.state,
            run.epoch,
            run.best or {},
            run.verdict.sentence,
            dict(flatten(run.config)),
            run.metric,
            lines | {TIMES: _times_floor(run)},
            run.samples[max(run.samples)] if run.samples else None,
        )


def _smoothed(points: np.ndarray) -> Line:
    x, y = points.T
    window = max(len(y) // 40, 5) if len(y) >= 40 else 1
    thin = slice(None, None, max(len(x) // 400, 1))
    return x[thin].copy(), moving_mean(y, window)[thin].copy()


def _times_floor(run: History) -> Line:
    """The score of k samples as a multiple of that of k real images."""
    pairs = [
        (row["epoch"], row["floor/generated"] / row["floor/real"])
        for row in run.with_floors
        if finite_number(row.get("floor/generated")) and (row.get("floor/real") or 0) > 0
    ]
    x, y = np.array(pairs, float).reshape(-1, 2).T
    return x, y


def render(title: str, runs: Sequence[Compared], folder: Path, notes: Sequence[str] = ()) -> str:
    """Return the page of several runs as HTML, best first; `folder` is where it will be, for links
    to the pages of the runs. `notes` are sentences below the table.
    """
    runs = sorted(runs, key=_best)
    keys = changed(runs)
    rows = [_row(one, keys, folder) for one in runs]
    shown = [one for one in runs if one.picture]
    pictures = [
        figure(one.picture, PICTURE_PIXELS, one.name)
        for one in shown[:MOST_PICTURES]
        if one.picture
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
        pictures=pictures,
        samples=len(shown),
        written=datetime.now(UTC).strftime("%Y-%m-%d %H:%M"),
    )


def changed(runs: Sequence[Compared]) -> list[str]:
    """Return the keys of the settings in which runs differ."""
    keys = dict.fromkeys(
        key for one in runs for key in one.settings if not key.startswith(UNCOMPARED)
    )
    return [key for key in keys if len({repr(one.settings.get(key)) for one in runs}) > 1]


def _best(one: Compared) -> tuple[str, float]:
    """Sort by score, within runs of one metric; runs without a score last."""
    score = one.best.get("score")
    return (str(one.metric), score) if isinstance(score, int | float) else ("~", 0.0)


def _row(one: Compared, keys: Sequence[str], folder: Path) -> dict[str, Any]:
    return {
        "name": one.name,
        "link": quote(os.path.relpath(one.page, folder)),
        "state": one.state,
        "epoch": one.epoch,
        "metric": one.best.get("metric", "–"),
        "score": one.best.get("score"),
        "at": one.best.get("epoch"),
        "verdict": one.verdict,
        "settings": [number(one.settings.get(key)) for key in keys[:MOST_SETTINGS]],
    }


def overlaid(runs: Sequence[Compared]) -> dict[str, str]:
    """Return {title: svg element} of every curve that a run has, a line for each run."""
    metrics = dict.fromkeys(one.metric for one in runs if one.metric)
    scores = {f"Score: {plain(metric)[:40]}": f"eval/{metric}" for metric in metrics}
    curves = {"Score, times its floor": TIMES} | scores | CURVES
    drawn = {title: draw(title, partial(_lines, runs, key)) for title, key in curves.items()}
    return {title: svg for title, svg in drawn.items() if svg}


def _lines(runs: Sequence[Compared], key: str, ax: Axes) -> bool:
    for rank, one in enumerate(runs):
        x, y = one.lines.get(key, ((), ()))
        if len(x):
            _line(ax, rank, one.name, x, y)
    if ax.lines and key == TIMES:
        ax.axhline(1, color=GREEN, linewidth=0.9, linestyle=(0, (2, 3)), label="floor")
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
