"""Pictures of an audit of images: a random sheet, statistics, flagged images, duplicates; and the
parts that those of pairs share: histograms, colours.
"""

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator
from PIL import Image

from distgan.core.files import write_atomic
from distgan.core.rng import numpy_generator
from distgan.shards.audit.checks import FAIL, SIGNED, Check
from distgan.shards.audit.findings import Checks, Finding
from distgan.shards.audit.images import Examiner, ImageReport

DPI = 110
CELL = 120  # pixels of an image on a sheet
MAX_IMAGES, MAX_PAIRS = 64, 12  # on a sheet
MAX_COLUMNS = 12  # of vectors, with a histogram each
NAME_CHARS = 20  # of a caption's last line
RED, ORANGE, BLUE, GREEN, GRAY = "#d6333a", "#e08a1e", "#3b78d8", "#2a9d6a", "#8a8f98"
STYLE: Any = {
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.2,
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "legend.fontsize": 8,
}
COLOURS = {"FAIL": RED, "WARN": ORANGE}
# title, unit, values (one series or several by name), thresholds
Panel = tuple[str, str, list[float] | dict[str, list[float]], Check | None]


def values_of(reports: list, name: str) -> list[float]:
    return [report.values[name] for report in reports if name in report.values]


def reason(finding: Finding) -> str:
    """Format check, value and unit of a finding."""
    if finding.value is None:
        return finding.check
    if finding.unit == "share":
        return f"{finding.check} {finding.value:.2g}"
    if finding.unit in ("r", "|rho|"):
        return f"{finding.check} {finding.unit} {finding.value:.3g}"
    return f"{finding.check} {finding.value:.3g} {finding.unit}"


def save(figure: Figure, path: Path) -> str:
    write_atomic(path, lambda file: figure.savefig(file, format="png", dpi=DPI), nullcontext)
    return path.name


def sheet(
    path: Path, title: str, cells: list[tuple[np.ndarray | None, str, str]], pairs: bool = False
) -> str:
    """Draw (image, caption, colour) cells in rows; `pairs`: two neighbours belong together."""
    columns = 6 if pairs else min(8, max(len(cells), 6))
    rows = -(-len(cells) // columns)
    lines = max(1 + caption.count("\n") for _, caption, _ in cells)
    step_x, step_y = CELL + 12, CELL + 12 + 12 * lines
    width, height, head = columns * step_x + 12, rows * step_y + 12, 34
    canvas = np.full((height, width, 3), 255, np.uint8)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(width / DPI, (height + head) / DPI), dpi=DPI)
        FigureCanvasAgg(figure)
        ax = figure.add_axes((0, 0, 1, height / (height + head)))
        ax.axis("off")
        for i, (pixels, caption, colour) in enumerate(cells):
            x, y = i % columns * step_x + 12, i // columns * step_y
            if pairs:
                x += -3 if i % 2 else 3
            canvas[y : y + CELL, x : x + CELL] = 235 if pixels is None else _enlarged(pixels)
            if pixels is None:
                ax.text(
                    x + CELL / 2, y + CELL / 2, "no image", ha="center", va="center", color=GRAY
                )
            ax.add_patch(
                Rectangle(
                    (x - 0.5, y - 0.5), CELL + 1, CELL + 1, fill=False, color=GRAY, linewidth=0.5
                )
            )
            *reasons, name = caption.split("\n")
            if len(name) > NAME_CHARS:
                name = f"…{name[1 - NAME_CHARS :]}"
            for k, line in enumerate([*reasons, name]):
                ax.text(
                    x,
                    y + CELL + 4 + 12 * k,
                    line,
                    fontsize=6.5,
                    va="top",
                    color=colour if k < len(reasons) else "black",
                )
        ax.imshow(canvas, extent=(0, width, height, 0), interpolation="none")
        figure.text(
            12 / width, 1 - 10 / (height + head), title, va="top", fontsize=10, fontweight="bold"
        )
        return save(figure, path)


def _enlarged(pixels: np.ndarray) -> np.ndarray:
    """Fit uint8 [height, width, 1 or 3] into [CELL, CELL, 3]; smoothed only when reduced."""
    image = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels).convert("RGB")
    longer = max(image.size)
    method = Image.Resampling.NEAREST if longer <= CELL else Image.Resampling.BOX
    width, height = (max(1, round(side * CELL / longer)) for side in image.size)
    cell = Image.new("RGB", (CELL, CELL), (235, 235, 235))
    cell.paste(image.resize((width, height), method), ((CELL - width) // 2, (CELL - height) // 2))
    return np.asarray(cell)


def histograms(path: Path, title: str, panels: list[Panel]) -> str:
    """Draw one histogram for each panel."""
    columns = 2 if len(panels) <= 4 else 3
    with mpl.rc_context(STYLE):
        figure = Figure(
            figsize=(4.2 * columns, 2.9 * -(-len(panels) // columns) + 0.4), layout="constrained"
        )
        FigureCanvasAgg(figure)
        figure.suptitle(title, x=0.01, ha="left", fontweight="bold", fontsize=11)
        for i, (name, unit, values, check) in enumerate(panels):
            ax = figure.add_subplot(
                -(-len(panels) // columns), columns, i + 1, title=name, xlabel=unit, ylabel="number"
            )
            _histogram(ax, values if isinstance(values, dict) else {"": values}, check)
        return save(figure, path)


def draw_columns(out: Path, names: list[str], table: np.ndarray) -> list[str]:
    """Draw the values of the first columns of vectors."""
    shown = names[:MAX_COLUMNS]
    panels: list[Panel] = [
        (name, "", column.tolist(), None) for name, column in zip(shown, table.T, strict=False)
    ]
    return [histograms(out / "statistics.png", f"{len(table)} vectors of {len(names)}", panels)]


def _histogram(ax: Any, series: dict[str, list[float]], check: Check | None) -> None:
    """Draw bars, with the thresholds as lines."""
    arrays = {name: np.array(values) for name, values in series.items() if len(values)}
    if not arrays:
        ax.text(
            0.5, 0.5, "not measured", ha="center", va="center", transform=ax.transAxes, color=GRAY
        )
        return
    low = min(values.min() for values in arrays.values())
    high = max(values.max() for values in arrays.values())
    ax.xaxis.set_major_locator(MaxNLocator(6))
    margin = 0.02 * (high - low) or max(0.1 * abs(high), 0.1)
    edges = np.linspace(low - margin, high + margin, 41)
    alpha = 0.75 if len(arrays) == 1 else 0.5
    for (name, values), colour in zip(arrays.items(), (BLUE, GREEN), strict=False):
        ax.hist(values, edges, color=colour, alpha=alpha, label=name or None)
    if max(ax.get_ylim()) > 20 * len(edges):
        ax.set_yscale("log")
    if check:
        _thresholds(ax, check, edges[0], edges[-1])
    if ax.get_legend_handles_labels()[1]:
        ax.legend(loc="best")


def _thresholds(ax: Any, check: Check, low: float, high: float) -> None:
    """Draw each threshold as a line if it lies in the axis, else add it to the legend alone."""
    dashes: Any = {"linewidth": 1.2, "linestyle": (0, (4, 2))}
    signs = (1, -1) if check.name in SIGNED else (1,)
    for level, threshold, colour in (("WARN", check.warn, ORANGE), ("FAIL", check.fail, RED)):
        if threshold is None:
            continue
        label = f"{level} {'<' if check.low else '>'} {threshold:g}"
        inside = [sign * threshold for sign in signs if low <= sign * threshold <= high]
        for k, x in enumerate(inside):
            ax.axvline(x, color=colour, label=None if k else label, **dashes)
        if not inside:
            ax.plot([], [], color=colour, label=f"{label} (outside)", **dashes)


def draw_images(
    out: Path,
    reports: list[ImageReport],
    examiner: Examiner,
    findings: list[Finding],
    checks: Checks,
) -> list[str]:
    """Write the pictures of an image set; return their names."""
    places = {str(report.place): report.place for report in reports}
    flagged = [finding for finding in findings if finding.sample in places]
    generator = numpy_generator(0, "audit/sheet")
    picked = sorted(generator.permutation(len(reports))[:MAX_IMAGES].tolist())
    cells = [(examiner.pixels(reports[i].place), str(reports[i].place), "black") for i in picked]
    title = f"{len(cells)} of {len(reports)} images, drawn at random"
    names = [sheet(out / "images.png", title, cells)]
    title = f"Levels of {len(reports)} images"
    names.append(histograms(out / "statistics.png", title, _panels(reports, checks)))
    reasons: dict[str, list[Finding]] = {}
    for finding in sorted(flagged, key=lambda finding: finding.level != FAIL):
        if not finding.other:
            reasons.setdefault(finding.sample, []).append(finding)
    if reasons:
        cells = [
            (
                examiner.pixels(places[name]),
                "\n".join([*map(reason, own), name]),
                COLOURS[own[0].level],
            )
            for name, own in list(reasons.items())[:MAX_IMAGES]
        ]
        title = f"{len(cells)} of {len(reasons)} images with findings of their own, FAIL first"
        names.append(sheet(out / "flagged.png", title, cells))
    similar = sorted(
        (finding for finding in flagged if finding.other),
        key=lambda finding: (finding.level != FAIL, -(finding.value or 1.0)),
    )
    if similar:
        cells = []
        for finding in similar[:MAX_PAIRS]:
            caption = f"{reason(finding)}\n{finding.sample}"
            pixels = examiner.pixels(places[finding.sample])
            cells.append((pixels, caption, COLOURS[finding.level]))
            cells.append((examiner.pixels(places[finding.other]), f"\n{finding.other}", "black"))
        title = (
            f"{len(cells) // 2} of {len(similar)} pairs of equal or almost equal images, FAIL (in"
            " both splits) first"
        )
        names.append(sheet(out / "duplicates.png", title, cells, pairs=True))
    return names


def _panels(reports: list[ImageReport], checks: Checks) -> list[Panel]:
    extremes = {
        "darkest 1 %": values_of(reports, "low"),
        "brightest 1 %": values_of(reports, "high"),
    }
    return [
        ("Mean of the pixels", "level, 0 black … 255 white", values_of(reports, "mean"), None),
        (
            "Contrast: standard deviation of the pixels",
            "levels",
            values_of(reports, "contrast"),
            checks.named("contrast", "images"),
        ),
        ("Range of 98 % of the pixels", "level", extremes, None),
        (
            "Saturated: share of pixels at 254 or 255",
            "share",
            values_of(reports, "saturated"),
            checks.named("saturated", "images"),
        ),
    ]
