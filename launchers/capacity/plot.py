"""Draw the picture of a capacity study."""

from typing import BinaryIO

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from distgan.launchers.capacity.measurement import DOCUMENTS, ROAD_MAP, Row, has_score
from distgan.launchers.capacity.recommendation import WITHIN
from distgan.outputs.signal_plots import BLUE, GREEN, ORANGE, RED

PALETTE = (BLUE, ORANGE, GREEN, RED, "#8b5cf6", "#0f766e", "#a16207", "#6b7280")


def draw(rows: list[Row], recommended: int | None, file: BinaryIO) -> None:
    """Draw six panels: the costs of each width beside the capacity document's estimates, and its
    scores.
    """
    figure = Figure(figsize=(12, 6.6), layout="constrained", dpi=110)
    FigureCanvasAgg(figure)
    axes = figure.subplots(2, 3).flat
    positions = range(len(rows))
    docs = [DOCUMENTS.get(row.width) for row in rows]

    def panel(
        title: str,
        values: list[float | None],
        low: list[float | None],
        high: list[float | None] | None = None,
    ) -> None:
        ax = next(axes)
        points = [
            (x, value) for x, value in zip(positions, values, strict=True) if value is not None
        ]
        bars = ax.bar(
            [x for x, _ in points],
            [value for _, value in points],
            0.6,
            color=BLUE,
            label="measured",
        )
        ax.bar_label(bars, fmt="{:.3g}", fontsize=8, padding=2)
        _estimates(ax, low, high or low)
        _frame(ax, title, rows)

    _parameters(next(axes), rows)
    kind = "resident" if any(row.device == "cpu" for row in rows) else "allocated on the GPU"
    panel(
        f"Peak memory, GB ({kind})",
        [row.memory_mb and row.memory_mb / 1000 for row in rows],
        *(
            [
                estimate.memory_gb[end] if estimate and estimate.memory_gb else None
                for estimate in docs
            ]
            for end in (0, 1)
        ),
    )
    panel(
        "Checkpoint, MB",
        [row.checkpoint_mb for row in rows],
        [estimate.checkpoint_mb if estimate else None for estimate in docs],
    )
    devices = ", ".join(sorted({row.device for row in rows if row.device}))
    panel(
        f"Time per epoch, s ({devices}; capacity document: T4)",
        [row.epoch_s for row in rows],
        [60 * estimate.epoch_min if estimate and estimate.epoch_min else None for estimate in docs],
    )
    _scores(next(axes), rows, recommended)
    _curves(next(axes), rows)
    figure.savefig(file, format="png")


def _parameters(ax, rows: list[Row]) -> None:
    """Draw the parameters of G and D of each width as stacked bars."""
    counted = [(x, row.parameters) for x, row in enumerate(rows) if row.parameters]
    ax.bar(
        [x for x, _ in counted],
        [g / 1e6 for _, (g, _) in counted],
        0.6,
        color=BLUE,
        label="G",
    )
    top = ax.bar(
        [x for x, _ in counted],
        [d / 1e6 for _, (_, d) in counted],
        0.6,
        bottom=[g / 1e6 for _, (g, _) in counted],
        color="#93c5fd",
        label="D",
    )
    ax.bar_label(top, [f"{(g + d) / 1e6:.3g}" for _, (g, d) in counted], fontsize=8, padding=2)
    docs = [DOCUMENTS.get(row.width) for row in rows]
    _estimates(ax, [estimate.both if estimate else None for estimate in docs])
    _frame(ax, "Parameters, millions", rows)


def _estimates(ax, low: list[float | None], high: list[float | None] | None = None) -> None:
    label: str | None = "capacity document's estimate"
    for x, (a, b) in enumerate(zip(low, high or low, strict=True)):
        if a is not None:
            ax.plot([x - 0.38, x + 0.38], [a, a], color=ORANGE, linewidth=2, label=label)
            if b != a:
                ax.fill_between(
                    [x - 0.38, x + 0.38], [a, a], [b, b], color=ORANGE, alpha=0.35, linewidth=0
                )
                ax.plot([x - 0.38, x + 0.38], [b, b], color=ORANGE, linewidth=2)
            label = None


def _frame(ax, title: str, rows: list[Row], ticks: bool = True) -> None:
    ax.set_title(title, loc="left", fontsize=10, fontweight="bold")
    ax.spines[["top", "right"]].set_visible(False)
    ax.grid(axis="y", alpha=0.2)
    ax.set_axisbelow(True)
    ax.margins(y=0.3)
    ax.tick_params(labelsize=8.5)
    if ticks:
        ax.set_xticks(range(len(rows)), [str(row.width) for row in rows])
        ax.set_xlim(-0.6, len(rows) - 0.4)
        ax.set_xlabel("ngf = ndf", fontsize=8.5)
    if ax.get_legend_handles_labels()[0]:
        ax.legend(
            frameon=False,
            fontsize=8,
            loc="upper right" if not ticks else "upper left",
            ncols=2 if not ticks else 3,
        )


def _scores(ax, rows: list[Row], recommended: int | None) -> None:
    points = [(x, row) for x, row in enumerate(rows) if has_score(row)]
    names = sorted({row.measure[0] for _, row in points})
    if points:
        best = min(row.score for _, row in points)
        ax.axhspan(
            best,
            best * (1 + WITHIN),
            color=GREEN,
            alpha=0.15,
            linewidth=0,
            label=f"within {WITHIN:.0%} of the best",
        )
        bars = ax.bar(
            [x for x, _ in points],
            [row.score for _, row in points],
            0.6,
            color=[GREEN if row.width == recommended else BLUE for _, row in points],
        )
        ax.bar_label(bars, fmt="{:.3g}", fontsize=8, padding=2)
        for x, row in points:
            if row.overfits:
                ax.annotate(
                    "overfits",
                    (x, 0),
                    ha="center",
                    va="bottom",
                    fontsize=8,
                    color="white",
                    xytext=(0, 3),
                    textcoords="offset points",
                )
    _frame(
        ax,
        f"Best {' / '.join(names) or 'score'}"
        + (f"; green: recommended, {recommended}" if recommended else ""),
        rows,
    )


def _curves(ax, rows: list[Row]) -> None:
    """Draw the scores; of FID with the road maps of its specification and of sagan's."""
    fid = any(row.measure and row.measure[0] == "fid" for row in rows)
    for row, colour in zip([row for row in rows if row.scores], PALETTE * len(rows), strict=False):
        epochs, scores = zip(*row.scores, strict=True)
        ax.plot(
            epochs,
            scores,
            color=colour,
            linewidth=1.4,
            marker="o",
            markersize=2.5,
            label=str(row.width),
        )
    last = max((row.epochs for row in rows), default=0.0)
    for mark in ROAD_MAP if fid else ():
        if mark.number == "FID" and mark.epoch <= last:
            ax.errorbar(
                mark.epoch,
                mark.high,
                yerr=[[mark.high - mark.low], [0]] if mark.low is not None else None,
                color=ORANGE,
                marker="_" if mark.study == "capacity" else "v",
                capsize=3,
                zorder=5,
            )
    values = [score for row in rows for _, score in row.scores if score > 0]
    if values and max(values) > 10 * min(values):
        ax.set_yscale("log")
        ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        ax.yaxis.set_minor_formatter(NullFormatter())
    _frame(ax, "Score over epochs, by width", rows, ticks=False)
    ax.set_xlabel("epoch", fontsize=8.5)
