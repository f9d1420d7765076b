"""The curves of a run as inline SVG, from its journal. Imports no torch.

Text and axes take the colour of the page around them (`currentColor`), so the same drawing serves
light and dark pages.
"""

import io
import re
from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from distgan.monitor.journal import finite, finite_number, gaps, series
from distgan.monitor.settings import Watch
from distgan.outputs import signal_plots as figures
from distgan.outputs.signal_plots import BLUE, GRAY, GREEN, ORANGE, RED

INK = "#010203"  # replaced by currentColor in the drawing
PURPLE = "#8b5cf6"
# a journal with more lines is drawn as the band between the lowest and highest of each bin
RAW_POINTS = 1200
BINS = 400
LEGEND = 84  # letters of a legend that fit on one line
STYLE = figures.STYLE | {
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


def curves(
    rows: list[dict],
    settings: Watch,
    best: dict | None = None,
    marks: Sequence[tuple[float, str]] = (),
) -> dict[str, str]:
    """{title: svg element} for every drawing that has data.

    `marks` are (epoch, action) of what `watch` did, as `interventions.marks` finds them.
    """
    drawings = {
        "Losses": lambda ax: _losses(ax, rows, settings),
        "D(x) and D(G(z))": lambda ax: _probabilities(ax, rows, settings),
        "L1": lambda ax: _paired(ax, rows, settings, "l1"),
        "STFT": lambda ax: _paired(ax, rows, settings, "stft"),
        "SI-SDR in dB": lambda ax: _paired(ax, rows, settings, "si_sdr"),
        "Log-spectral distance in dB": lambda ax: _paired(ax, rows, settings, "lsd"),
        "GAN loss of G": lambda ax: _ranged(
            ax,
            rows,
            settings,
            {"training": ("g/adversarial", BLUE), "validation": ("valid/adversarial", GREEN)},
        ),
        "Scores of D": lambda ax: _ranged(
            ax,
            rows,
            settings,
            {"real": ("d/real_score", BLUE), "generated": ("d/fake_score", ORANGE)},
        ),
        "Share that D tells apart": lambda ax: _ranged(
            ax, rows, settings, {"training": ("d/told_apart", BLUE)}
        ),
        "Wasserstein estimate": lambda ax: _ranged(
            ax,
            rows,
            settings,
            {
                "training": ("d/wasserstein", BLUE),
                "held-out images": ("valid/wasserstein", GREEN),
                "training images, as they are": ("valid/train_wasserstein", ORANGE),
            },
        ),
        "Score": lambda ax: _score(ax, rows, best),
        "Diversity of samples": lambda ax: _diversity(ax, rows, settings),
        "D on held-out samples": lambda ax: _validation(ax, rows, settings),
        "Gradient penalty": lambda ax: lines(
            ax,
            rows,
            {
                "penalty": ("d/penalty", BLUE),
                "of reals": ("d/r1", BLUE),
                "of samples": ("d/r2", ORANGE),
            },
        ),
        "Gradient norms": lambda ax: lines(
            ax, rows, {"D": ("d/grad_norm", BLUE), "G": ("g/grad_norm", ORANGE)}
        ),
        "Learning rates": lambda ax: lines(
            ax, rows, {"D": ("d/lr", BLUE), "G": ("g/lr", ORANGE)}, smooth=False, dashes=True
        ),
    }
    drawn = {title: _draw(title, paint, marks) for title, paint in drawings.items()}
    return {title: svg for title, svg in drawn.items() if svg}


def _draw(title: str, paint, marks: Sequence[tuple[float, str]]) -> str | None:
    """One drawing; `paint(ax)` says whether there was anything to draw."""
    with mpl.rc_context({**STYLE, "svg.hashsalt": title}):
        figure = Figure(figsize=(5.6, 2.7), layout="constrained")
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
    # Drawings share a page: what they define must not have the same name twice.
    prefix = re.sub(r"\W+", "-", title.lower())
    svg = re.sub(r'\bid="', f'id="{prefix}-', svg)
    svg = re.sub(r'(href="#|url\(#)', rf"\g<1>{prefix}-", svg)
    return svg.replace("<svg ", f'<svg role="img" aria-label="{title}" ', 1)


def lines(
    ax,
    rows: list[dict],
    keys: dict[str, tuple[str, str]],
    smooth: bool = True,
    dashes: bool = False,
) -> bool:
    """Draw `{label: (journal key, colour)}`: a smoothed line over faint raw data; crosses at the
    foot mark what is not finite.

    `dashes` for lines that may lie on each other: those after the first are dashed.
    """
    levels = []
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
    ax.fill_between(
        x[edges],
        np.minimum.reduceat(y, edges),
        np.maximum.reduceat(y, edges),
        color=colour,
        alpha=0.18,
        linewidth=0,
    )


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
    span = levels.max() / levels.min()
    ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if span < 100 else (1,)))
    ax.yaxis.set_major_formatter(
        FuncFormatter(lambda value, _: f"{value:g}")
    )  # matplotlib's own are formulas, which STYLE has switched off
    ax.yaxis.set_minor_formatter(NullFormatter())


def _mark(ax, marks: Sequence[tuple[float, str]]) -> None:
    """Upright lines where `watch` changed something; each kind once in the legend."""
    told = set()
    for epoch, action in marks:
        label, colour = MARKS[action]
        ax.axvline(
            epoch,
            color=colour,
            linewidth=0.9,
            linestyle=(0, (4, 2)),
            alpha=0.8,
            label=None if action in told else label,
        )
        told.add(action)


def _legend(ax) -> None:
    """Between the title and the drawing, on as many lines as it takes."""
    handles, labels = ax.get_legend_handles_labels()
    if not handles:
        return
    on_lines = -(-(sum(map(len, labels)) + 6 * len(labels)) // LEGEND)
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


def _healthy(ax, low: float | None, high: float | None, what: str = "") -> None:
    """The healthy range: a band, or a dashed line where one end is open."""
    if low is not None and high is not None:
        ax.axhspan(low, high, color=GREEN, alpha=0.12, linewidth=0, label=f"healthy{what}")
    elif low is not None or high is not None:
        end, side = (low, "above") if high is None else (high, "below")
        ax.axhline(
            end, color=GREEN, linewidth=0.9, linestyle=(0, (2, 3)), label=f"healthy{what} {side}"
        )


def _losses(ax, rows: list[dict], settings: Watch) -> bool:
    keys = {"D": ("d/loss", BLUE), "G": ("g/loss", ORANGE)}
    if any("valid/adversarial" in row for row in rows):  # of images it stands in another drawing
        keys["D, validation"] = ("valid/d_loss", GREEN)
    if not lines(ax, rows, keys):
        return False
    if len(finite(rows, "d/loss")) and not settings.unbounded:
        strong = (
            None
            if settings.d_loss_strong is None
            else settings.d_loss_floor + settings.d_loss_strong
        )
        _healthy(ax, *settings.healthy.get("d/loss", (strong, None)), " D loss")
    return True


def _probabilities(ax, rows: list[dict], settings: Watch) -> bool:
    if not lines(ax, rows, {"D(x)": ("d/real_prob", BLUE), "D(G(z))": ("d/fake_prob", ORANGE)}):
        return False
    _healthy(ax, *settings.healthy.get("d/real_prob", (None, None)), " D(x)")
    ax.set_yscale("linear")
    ax.set_ylim(0, 1)
    return True


def _ranged(ax, rows: list[dict], settings: Watch, keys: dict[str, tuple[str, str]]) -> bool:
    """Curves on a plain axis, with the healthy range of the first, where there is one."""
    if not lines(ax, rows, keys):
        return False
    ax.set_yscale("linear")
    _healthy(ax, *settings.healthy.get(next(iter(keys.values()))[0], (None, None)))
    return True


def _paired(ax, rows: list[dict], settings: Watch, name: str) -> bool:
    """A measure of pairs, in training, validation and of the input as it is.

    Of L1 also the gap between the former two.
    """
    keys = {
        "training": (f"g/{name}", BLUE),
        "validation": (f"valid/{name}", GREEN),
        "input as it is": (f"valid/input_{name}", GRAY),
    }
    if not lines(ax, rows, keys):
        return False
    found = gaps(rows, name)
    if name == "l1" and len(found):
        limits = ax.get_ylim()
        epoch, train, valid = found.T
        ax.fill_between(
            epoch,
            train,
            train + settings.gap_healthy,
            color=GREEN,
            alpha=0.1,
            linewidth=0,
            label=f"healthy gap (to {settings.gap_healthy:g})",
        )
        beyond = valid > train + settings.gap_healthy
        if beyond.any():
            ax.fill_between(
                epoch,
                train + settings.gap_healthy,
                valid,
                where=beyond,
                interpolate=True,
                color=RED,
                alpha=0.2,
                linewidth=0,
                label="gap beyond",
            )
        ax.set_ylim(limits)
    return True


def _diversity(ax, rows: list[dict], settings: Watch) -> bool:
    if not lines(
        ax, rows, {"of real samples' (1: alike)": ("valid/diversity", BLUE)}, smooth=False
    ):
        return False
    ax.set_yscale("linear")
    ax.set_ylim(bottom=0)
    _healthy(ax, settings.diversity_low, None)
    return True


def _score(ax, rows: list[dict], best: dict | None) -> bool:
    keys = dict.fromkeys(key for row in rows for key in row if key.startswith("eval/"))
    for key, colour in zip(keys, (BLUE, GREEN, ORANGE, PURPLE, GRAY), strict=False):
        x, y = finite(rows, key).T
        if not len(x):
            continue
        ax.plot(
            x,
            y,
            color=colour,
            linewidth=0.8,
            alpha=0.5,
            marker="o",
            markersize=2.5,
            label=figures.plain(key.partition("/")[2])[:40],
        )
        ax.plot(
            x,
            np.minimum.accumulate(y),
            color=colour,
            linewidth=1.4,
            drawstyle="steps-post",
            label="best so far",
        )
        _scale(ax, y)
    if not ax.lines:
        return False
    if (
        best
        and finite_number(best.get("score")) is not None
        and finite_number(best.get("epoch")) is not None
    ):
        ax.plot(
            [best["epoch"]],
            [best["score"]],
            "*",
            color=RED,
            markersize=10,
            label=f"best {best['score']:.4g}",
            zorder=5,
        )
    return True


def _validation(ax, rows: list[dict], settings: Watch) -> bool:
    keys = {
        "training": ("valid/train_prob", BLUE),
        "held-out": ("valid/real_prob", GREEN),
        "generated": ("valid/fake_prob", ORANGE),
        "overfit": ("valid/overfit", RED),
    }
    if not lines(ax, rows, keys, smooth=False):
        return False
    both = series(rows, "valid/train_prob", "valid/real_prob")
    ax.fill_between(*both.T, color=GREEN, alpha=0.12, linewidth=0)
    if settings.overfit_high is not None:
        ax.axhline(
            settings.overfit_high, color=RED, linewidth=0.8, linestyle=(0, (2, 3)), alpha=0.7
        )
    ax.set_yscale("linear")
    return True
