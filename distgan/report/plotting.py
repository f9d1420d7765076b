"""Draw one set of curves as inline SVG: figure, lines, axes, healthy ranges and legend. Imports no
torch.

Text and axes take the colour of the page around them (`currentColor`), so one drawing serves light
and dark pages.
"""

import io
import math
import re
from collections.abc import Callable, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from distgan.monitor.journal import series
from distgan.outputs import signal_plots
from distgan.outputs.signal_plots import GREEN, RED

INK = "#010203"  # replaced by currentColor in the drawing
PURPLE = "#8b5cf6"
# A journal with more lines is drawn as the band between the lowest and highest of each bin.
MAX_POINTS = 1200
BINS = 400
WIDE, TALL = (5.6, 2.7), (4.4, 4.2)  # inches
LEGEND_CHARS = 15  # of a legend that fits on one line, for each inch
STYLE: dict[Any, Any] = signal_plots.STYLE | {
    "svg.fonttype": "none",
    "text.color": INK,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "grid.color": INK,
    "grid.alpha": 0.12,
    "savefig.transparent": True,
}
MARKS = {
    "adapt": ("settings changed", PURPLE),
    "rollback": ("went back", RED),
    "stop": ("stopped", INK),
}


def draw(
    title: str,
    paint: Callable[[Axes], bool],
    marks: Sequence[tuple[float, str]] = (),
    size: tuple[float, float] = WIDE,
) -> str | None:
    """Return one drawing as an svg element; None if `paint(ax)` returns False: no data.

    `marks` are (epoch, action) of what `watch` changed; `size` is in inches.
    """
    with mpl.rc_context({**STYLE, "svg.hashsalt": title}):
        figure = Figure(figsize=size, layout="constrained")
        FigureCanvasSVG(figure)
        ax = figure.add_subplot()
        if not paint(ax):
            return None
        ax.set_title(title)
        ax.set_xlabel("epoch", loc="right", labelpad=1)
        ax.margins(x=0.01)
        ax.set_xlim(left=0)
        _mark(ax, marks)
        _legend(ax)
        out = io.StringIO()
        figure.savefig(
            out,
            format="svg",
            metadata={"Date": None, "Creator": None, "Format": None, "Type": None},
        )
    svg = out.getvalue()
    svg = re.sub(
        r"<metadata>.*?</metadata>", "", svg[svg.index("<svg") :], flags=re.DOTALL
    ).replace(INK, "currentColor")
    # Drawings share a page, so their ids need a prefix of their own.
    prefix = re.sub(r"\W+", "-", title.lower())
    svg = re.sub(r'\bid="', f'id="{prefix}-', svg)
    svg = re.sub(r'(href="#|url\(#)', rf"\g<1>{prefix}-", svg)
    return svg.replace("<svg ", f'<svg role="img" aria-label="{title}" ', 1)


def lines(
    ax: Axes,
    rows: list[dict],
    keys: dict[str, tuple[str, str]],
    smooth: bool = True,
    dashes: bool = False,
) -> bool:
    """Draw `{label: (journal key, colour)}`: a smoothed line over faint raw data.

    Crosses at the foot mark values that are not finite. `dashes`: lines after the first are dashed,
    for lines that may cover each other. Return False if no key has finite values.
    """
    levels: list[np.ndarray] = []
    for label, (key, colour) in keys.items():
        table = series(rows, key)
        finite = table[np.isfinite(table[:, 1])]
        for epoch in table[~np.isfinite(table[:, 1]), 0]:
            ax.plot(
                [epoch],
                [0.03],
                "x",
                color=RED,
                markersize=5,
                transform=ax.get_xaxis_transform(),
                zorder=5,
            )
        if not len(finite):
            continue
        x, y = finite.T
        window = max(len(y) // 40, 5) if len(y) >= 40 else 1
        if not smooth or window < 2:
            style = (0, (3, 2)) if dashes and levels else "-"
            ax.plot(
                x,
                y,
                color=colour,
                label=label,
                linewidth=1.4,
                linestyle=style,
                marker="o" if len(y) < 20 else None,
                markersize=3,
            )
            levels.append(y)
            continue
        _raw(ax, x, y, colour)
        mean = moving_mean(y, window)
        thin = slice(None, None, max(len(x) // MAX_POINTS, 1))
        ax.plot(x[thin], mean[thin], color=colour, label=label, linewidth=1.6)
        levels.append(mean)
    if levels:
        scale(ax, np.concatenate(levels))
    return bool(levels)


def _raw(ax: Axes, x: np.ndarray, y: np.ndarray, colour: str) -> None:
    if len(x) <= MAX_POINTS:
        ax.plot(x, y, color=colour, alpha=0.35, linewidth=0.6)
        return
    edges = np.linspace(0, len(x), BINS + 1).astype(int)[:-1]
    ax.fill_between(
        x[edges],
        np.minimum.reduceat(y, edges),
        np.maximum.reduceat(y, edges),
        color=colour,
        alpha=0.18,
        linewidth=0,
    )


def moving_mean(y: np.ndarray, window: int) -> np.ndarray:
    """Return the centred mean over `window` values, over fewer at the ends."""
    total = np.concatenate([[0.0], np.cumsum(y)])
    center = np.arange(len(y))
    low, high = np.maximum(center - window // 2, 0), np.minimum(center + window // 2 + 1, len(y))
    return (total[high] - total[low]) / (high - low)


def scale(ax: Axes, levels: np.ndarray) -> None:
    """Take a logarithmic axis for values over more than a decade, with plain numbers on it."""
    if levels.min() <= 0 or levels.max() <= 10 * levels.min():
        if abs(levels).max() < 1e-2:
            if levels.min() >= 0:
                ax.set_ylim(0, 1.15 * levels.max() or None)
            ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.3g}"))
        return
    ax.set_yscale("log")
    span = levels.max() / levels.min()
    ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if span < 100 else (1,)))
    # matplotlib's own labels are formulas, which STYLE has switched off.
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    ax.yaxis.set_minor_formatter(NullFormatter())


def _mark(ax: Axes, marks: Sequence[tuple[float, str]]) -> None:
    """Draw vertical lines where `watch` changed something, each kind once in the legend."""
    labelled = set()
    for epoch, action in marks:
        label, colour = MARKS[action]
        ax.axvline(
            epoch,
            color=colour,
            linewidth=0.9,
            linestyle=(0, (4, 2)),
            alpha=0.8,
            label=None if action in labelled else label,
        )
        labelled.add(action)


def _legend(ax: Axes) -> None:
    """Put the legend between title and drawing, on as many lines as it needs."""
    handles, labels = ax.get_legend_handles_labels()
    if not handles:
        return
    figure = ax.get_figure(root=True)
    assert figure is not None
    width = LEGEND_CHARS * figure.get_figwidth()
    on_lines = math.ceil((sum(map(len, labels)) + 6 * len(labels)) / width)
    ax.set_title(ax.get_title(loc="left"), pad=6 + 12.5 * on_lines)
    ax.legend(
        handles,
        labels,
        loc="lower left",
        bbox_to_anchor=(-0.02, 0.985),
        ncols=-(-len(labels) // on_lines),
        handlelength=1.2,
        columnspacing=1.2,
        labelspacing=0.3,
        borderaxespad=0.2,
    )


def healthy(ax: Axes, low: float | None, high: float | None, name: str = "") -> None:
    """Draw the healthy range: a band, or a dashed line where one end is open."""
    if low is not None and high is not None:
        ax.axhspan(low, high, color=GREEN, alpha=0.12, linewidth=0, label=f"healthy{name}")
    elif (end := low if high is None else high) is not None:
        side = "above" if high is None else "below"
        ax.axhline(
            end, color=GREEN, linewidth=0.9, linestyle=(0, (2, 3)), label=f"healthy{name} {side}"
        )
