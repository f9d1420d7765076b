"""The curves of a run as inline SVG, from its journal. Imports no torch.

Text and axes take the colour of the page around them (`currentColor`), so the same drawing serves light and dark pages.
"""

import io
import re

import matplotlib as mpl
import numpy as np
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from distgan.journal import SCORES, series
from distgan.watch import Watch

INK = "#010203"  # replaced by currentColor in the drawing
BLUE, ORANGE, GREEN, RED = "#3b82f6", "#f08c2e", "#2fa36b", "#e5484d"
RAW_POINTS = 1200  # a journal with more lines is drawn as the band between the lowest and highest of each bin
BINS = 400
STYLE = {
    "svg.fonttype": "none", "font.size": 9, "text.color": INK, "axes.edgecolor": INK, "axes.labelcolor": INK, "xtick.color": INK,
    "ytick.color": INK, "axes.linewidth": 0.6, "axes.spines.top": False, "axes.spines.right": False, "axes.titlesize": 10,
    "axes.titlelocation": "left", "axes.titleweight": "bold", "legend.frameon": False, "legend.fontsize": 8.5, "grid.color": INK,
    "grid.alpha": 0.12, "grid.linewidth": 0.6, "axes.grid": True, "xtick.major.size": 2.5, "ytick.major.size": 2.5, "savefig.transparent": True,
}


def curves(rows: list[dict], settings: Watch, best: dict | None = None) -> dict[str, str]:
    """{title: svg element} for every drawing that has data."""
    drawings = {
        "Losses": lambda ax: lines(ax, rows, {"D loss": ("d/loss", BLUE), "G loss": ("g/loss", ORANGE)}),
        "D(x) and D(G(z))": lambda ax: _probabilities(ax, rows, settings),
        "Score": lambda ax: _score(ax, rows, best),
        "D on held-out images": lambda ax: _validation(ax, rows, settings),
        "Gradient norms": lambda ax: lines(ax, rows, {"D": ("d/grad_norm", BLUE), "G": ("g/grad_norm", ORANGE)}),
        "Learning rates": lambda ax: lines(ax, rows, {"D": ("d/lr", BLUE), "G": ("g/lr", ORANGE)}, smooth=False, dashes=True),
    }
    drawn = {title: _draw(title, paint) for title, paint in drawings.items()}
    return {title: svg for title, svg in drawn.items() if svg}


def _draw(title: str, paint) -> str | None:
    """One drawing; `paint(ax)` says whether there was anything to draw."""
    with mpl.rc_context({**STYLE, "svg.hashsalt": title}):
        figure = Figure(figsize=(5.6, 2.7), layout="constrained")
        FigureCanvasSVG(figure)
        ax = figure.add_subplot()
        if not paint(ax):
            return None
        ax.set_title(title, pad=18)
        ax.set_xlabel("epoch", loc="right", labelpad=1)
        ax.margins(x=0.01)
        ax.set_xlim(left=0)
        if ax.get_legend_handles_labels()[0]:
            ax.legend(loc="lower left", bbox_to_anchor=(-0.02, 0.985), ncols=5, handlelength=1.2, columnspacing=1.2, borderaxespad=0.2)
        out = io.StringIO()
        figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    svg = out.getvalue()
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg[svg.index("<svg"):], flags=re.DOTALL).replace(INK, "currentColor")
    # Drawings share a page: what they define must not have the same name twice.
    prefix = re.sub(r"\W+", "-", title.lower())
    svg = re.sub(r'\bid="', f'id="{prefix}-', svg)
    svg = re.sub(r'(href="#|url\(#)', rf"\g<1>{prefix}-", svg)
    return svg.replace("<svg ", f'<svg role="img" aria-label="{title}" ', 1)


def lines(ax, rows: list[dict], keys: dict[str, tuple[str, str]], smooth: bool = True, dashes: bool = False) -> bool:
    """Draw `{label: (journal key, colour)}`: a smoothed line over faint raw data; crosses at the foot mark what is not finite.

    `dashes` for lines that may lie on each other: those after the first are dashed.
    """
    levels = []
    for label, (key, colour) in keys.items():
        table = series(rows, key)
        finite = table[np.isfinite(table[:, 1])]
        for epoch in table[~np.isfinite(table[:, 1]), 0]:
            ax.plot([epoch], [0.03], "x", color=RED, markersize=5, transform=ax.get_xaxis_transform(), zorder=5)
        if not len(finite):
            continue
        x, y = finite.T
        window = max(len(y) // 40, 5) if len(y) >= 40 else 1
        if not smooth or window < 2:
            style = (0, (3, 2)) if dashes and levels else "-"
            ax.plot(x, y, color=colour, label=label, linewidth=1.4, linestyle=style, marker="o" if len(y) < 20 else None, markersize=3)
            levels.append(y)
            continue
        _raw(ax, x, y, colour)
        mean = _smooth(y, window)
        thin = slice(None, None, max(len(x) // RAW_POINTS, 1))
        ax.plot(x[thin], mean[thin], color=colour, label=label, linewidth=1.6)
        levels.append(mean)
    if levels:
        _scale(ax, np.concatenate(levels))
    return bool(levels)


def _raw(ax, x: np.ndarray, y: np.ndarray, colour: str) -> None:
    if len(x) <= RAW_POINTS:
        ax.plot(x, y, color=colour, alpha=0.35, linewidth=0.6)
        return
    edges = np.linspace(0, len(x), BINS + 1).astype(int)[:-1]
    ax.fill_between(x[edges], np.minimum.reduceat(y, edges), np.maximum.reduceat(y, edges), color=colour, alpha=0.18, linewidth=0)


def _smooth(y: np.ndarray, window: int) -> np.ndarray:
    """Centred mean over `window` values, over fewer at the ends."""
    total = np.concatenate([[0.0], np.cumsum(y)])
    at = np.arange(len(y))
    low, high = np.maximum(at - window // 2, 0), np.minimum(at + window // 2 + 1, len(y))
    return (total[high] - total[low]) / (high - low)


def _scale(ax, levels: np.ndarray) -> None:
    """Logarithmic where the values span more than a decade, with plain numbers on the axis."""
    if levels.min() <= 0 or levels.max() <= 10 * levels.min():
        if abs(levels).max() < 1e-2:
            if levels.min() >= 0:
                ax.set_ylim(0, 1.15 * levels.max() or None)
            ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.3g}"))
        return
    ax.set_yscale("log")
    if levels.max() < 1e3 and levels.min() >= 1e-3:
        few = levels.max() < 100 * levels.min()
        ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if few else (1,)))
        ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        ax.yaxis.set_minor_formatter(NullFormatter())


def _probabilities(ax, rows: list[dict], settings: Watch) -> bool:
    if not lines(ax, rows, {"D(x)": ("d/real_prob", BLUE), "D(G(z))": ("d/fake_prob", ORANGE)}):
        return False
    low, high = settings.healthy.get("d/real_prob", (None, None))
    ax.axhspan(low or 0, 1 if high is None else high, color=GREEN, alpha=0.12, linewidth=0, label="healthy D(x)")
    ax.set_yscale("linear")
    ax.set_ylim(0, 1)
    return True


def _score(ax, rows: list[dict], best: dict | None) -> bool:
    for key, colour in zip(SCORES, (BLUE, GREEN), strict=True):
        table = series(rows, key)
        x, y = table[np.isfinite(table[:, 1])].T
        if not len(x):
            continue
        ax.plot(x, y, color=colour, linewidth=0.8, alpha=0.5, marker="o", markersize=2.5, label=key.partition("/")[2])
        ax.plot(x, np.minimum.accumulate(y), color=colour, linewidth=1.4, drawstyle="steps-post", label="best so far")
        _scale(ax, y)
    if not ax.lines:
        return False
    if best and best.get("score") is not None and best.get("epoch") is not None:
        ax.plot([best["epoch"]], [best["score"]], "*", color=RED, markersize=10, label=f"best {best['score']:.4g}", zorder=5)
    return True


def _validation(ax, rows: list[dict], settings: Watch) -> bool:
    keys = {"training": ("valid/train_prob", BLUE), "held-out": ("valid/real_prob", GREEN), "generated": ("valid/fake_prob", ORANGE),
            "overfit": ("valid/overfit", RED)}
    if not lines(ax, rows, keys, smooth=False):
        return False
    both = series(rows, "valid/train_prob", "valid/real_prob")
    ax.fill_between(*both.T, color=GREEN, alpha=0.12, linewidth=0)
    if settings.overfit_high is not None:
        ax.axhline(settings.overfit_high, color=RED, linewidth=0.8, linestyle=(0, (2, 3)), alpha=0.7)
    ax.set_yscale("linear")
    return True
