"""The audit as pictures: what the data reports like, how its values are spread against the
thresholds, and what was found.
"""

from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator
from PIL import Image
from scipy.signal import ShortTimeFFT, welch
from scipy.signal.windows import hann

from distgan.core.files import write_atomic
from distgan.core.rng import numpy_generator
from distgan.shards.audit import images, pairs
from distgan.shards.audit.findings import FAIL, Check, Checks, Finding

SHOWN = 64
PAIRS_SHOWN = 12
CLIPS_SHOWN = 3
NEAR_S = 0.01  # the stretch around the peak that is shown enlarged, for delay and polarity
DPI = 110
CELL = 120  # pixels of an image on a sheet
RED, ORANGE, BLUE, GREEN, GRAY = "#d6333a", "#e08a1e", "#3b78d8", "#2a9d6a", "#8a8f98"
STYLE = {
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
_COLOUR = {"FAIL": RED, "WARN": ORANGE}


def draw_images(
    out: Path,
    reports: list[images.ImageReport],
    examiner: images.Examiner,
    findings: list[Finding],
    checks: Checks,
    ungraded: tuple[str, ...],
) -> list[str]:
    """Write the pictures of an image set; returns their names."""
    places = {str(report.place): report.place for report in reports}
    found = [finding for finding in findings if f"{finding.split}/{finding.key}" in places]
    picked = sorted(numpy_generator(0, "audit/sheet").permutation(len(reports))[:SHOWN].tolist())
    cells = [(examiner.pixels(reports[i].place), str(reports[i].place), "black") for i in picked]
    names = [
        _sheet(out / "images.png", f"{len(cells)} of {len(reports)} images, drawn at random", cells)
    ]
    names.append(
        _histograms(
            out / "statistics.png",
            f"Levels of {len(reports)} images",
            [
                (
                    "Mean of the pixels",
                    "level, 0 black … 255 white",
                    _values(reports, "mean"),
                    None,
                ),
                (
                    "Contrast: standard deviation of the pixels",
                    "levels",
                    _values(reports, "contrast"),
                    checks.named("contrast", "images"),
                ),
                (
                    "Levels that 98 % of the pixels lie between",
                    "level",
                    {
                        "darkest 1 %": _values(reports, "low"),
                        "brightest 1 %": _values(reports, "high"),
                    },
                    None,
                ),
                (
                    "Saturated: share of pixels at 254 or 255",
                    "share",
                    _values(reports, "saturated"),
                    checks.named("saturated", "images"),
                ),
            ],
        )
    )
    alike = sorted(
        (finding for finding in found if finding.other),
        key=lambda finding: (finding.level != FAIL, -(finding.value or 1.0)),
    )
    alone = sorted(
        (finding for finding in found if not finding.other),
        key=lambda finding: finding.level != FAIL,
    )
    if alone:
        reasons: dict[str, list[Finding]] = {}
        for finding in alone:
            reasons.setdefault(f"{finding.split}/{finding.key}", []).append(finding)
        cells = [
            (
                examiner.pixels(places[name]),
                "\n".join([*map(_reason, own), name]),
                _COLOUR[own[0].level],
            )
            for name, own in list(reasons.items())[:SHOWN]
        ]
        names.append(
            _sheet(
                out / "flagged.png",
                f"{len(cells)} of {len(reasons)} images with findings of their own, FAIL first",
                cells,
            )
        )
    if alike:
        cells = []
        for finding in alike[:PAIRS_SHOWN]:
            cells += [
                (
                    examiner.pixels(places[f"{finding.split}/{finding.key}"]),
                    f"{_reason(finding)}\n{finding.split}/{finding.key}",
                    _COLOUR[finding.level],
                ),
                (examiner.pixels(places[finding.other]), f"\n{finding.other}", "black"),
            ]
        title = (
            f"{len(cells) // 2} of {len(alike)} pairs of equal or almost equal images, FAIL (in"
            " both splits) first"
        )
        names.append(_sheet(out / "duplicates.png", title, cells, pairs=True))
    return names


def draw_pairs(
    out: Path,
    reports: list[pairs.PairReport],
    examiner: pairs.Examiner,
    findings: list[Finding],
    checks: Checks,
    ungraded: tuple[str, ...],
) -> list[str]:
    """Write the pictures of a set of pairs; returns their names."""

    def check(name: str) -> Check | None:
        return None if name in ungraded else checks.named(name, "pairs")

    sdr = {"SI-SDR of the input": _values(reports, "si-sdr")}
    if declared := _values(reports, "snr"):
        sdr["declared SNR"] = declared
    panels = [
        ("Distortion of the input", "dB", sdr, check("si-sdr-low")),
        (
            "Correlation at the best delay",
            "|rho|",
            _values(reports, "correlation") + _values(reports, "correlation-room"),
            check("correlation"),
        ),
        (
            "Delay that is left",
            "samples, positive: input late",
            _values(reports, "delay"),
            check("delay"),
        ),
        ("Level of the input against the target", "dB", _values(reports, "level"), check("level")),
        (
            "Active share of the target",
            "share of frames of 20 ms",
            [] if ungraded else _values(reports, "active"),
            check("active"),
        ),
        (
            "Bandwidth of the target",
            "share of Nyquist",
            _values(reports, "bandwidth"),
            check("bandwidth"),
        ),
    ]
    names = [
        _histograms(
            out / "statistics.png",
            f"Input against target, {len(reports)} pairs",
            [panel for panel in panels if panel[2]],
        )
    ]
    readable = {str(report.place): report for report in reports if "si-sdr" in report.values}
    reasons: dict[str, list[Finding]] = {}
    for finding in findings:
        if f"{finding.split}/{finding.key}" in readable:
            reasons.setdefault(f"{finding.split}/{finding.key}", []).append(finding)
    worst = _worst(reasons)
    title = "The worst pairs: those with the most findings, of different kinds"
    if not worst:
        worst = sorted(readable, key=lambda name: readable[name].values["si-sdr"])[:CLIPS_SHOWN]
        title = "No findings; the pairs with the lowest SI-SDR"
    names += _clips(out / "worst.png", title, worst, readable, reasons, examiner, bool(ungraded))
    clean = sorted(
        (name for name in readable if name not in reasons),
        key=lambda name: readable[name].values["si-sdr"],
    )
    middle = max(len(clean) // 2 - CLIPS_SHOWN // 2, 0)
    names += _clips(
        out / "typical.png",
        "Typical pairs: no findings, SI-SDR nearest to the median",
        clean[middle : middle + CLIPS_SHOWN],
        readable,
        reasons,
        examiner,
        bool(ungraded),
    )
    return names


def _values(reports: list, name: str) -> list[float]:
    return [report.values[name] for report in reports if name in report.values]


def _reason(finding: Finding) -> str:
    if finding.value is None:
        return finding.check
    if finding.unit == "share":
        return f"{finding.check} {finding.value:.2g}"
    return (
        f"{finding.check} {finding.unit} {finding.value:.3g}"
        if finding.unit in ("r", "|rho|")
        else f"{finding.check} {finding.value:.3g} {finding.unit}"
    )


def _worst(reasons: dict[str, list[Finding]]) -> list[str]:
    """Samples with the most FAILs, then findings.

    Those that were shown on another sample count last.
    """
    shown: list[str] = []
    seen: set[str] = set()

    def order(name: str) -> tuple:
        fails = {finding.check for finding in reasons[name] if finding.level == FAIL}
        return len(fails - seen), len(fails), len(reasons[name])

    while len(shown) < min(CLIPS_SHOWN, len(reasons)):
        shown.append(max((name for name in reasons if name not in shown), key=order))
        seen |= {finding.check for finding in reasons[shown[-1]]}
    return shown


def _save(figure: Figure, path: Path) -> str:
    write_atomic(path, lambda file: figure.savefig(file, format="png", dpi=DPI))
    return path.name


def _sheet(
    path: Path, title: str, cells: list[tuple[np.ndarray | None, str, str]], pairs: bool = False
) -> str:
    """Images in rows, each with a caption below; `pairs`: two and two belong together."""
    columns = 6 if pairs else min(8, max(len(cells), 6))
    rows = -(-len(cells) // columns)
    step_x, step_y = (
        CELL + 12,
        CELL + 12 + 12 * max(1 + caption.count("\n") for _, caption, _ in cells),
    )
    width, height, head = columns * step_x + 12, rows * step_y + 12, 34
    canvas = np.full((height, width, 3), 255, np.uint8)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(width / DPI, (height + head) / DPI), dpi=DPI)
        FigureCanvasAgg(figure)
        ax = figure.add_axes((0, 0, 1, height / (height + head)))
        ax.axis("off")
        for i, (pixels, caption, colour) in enumerate(cells):
            gap = (-3 if i % 2 else 3) if pairs else 0
            x, y = i % columns * step_x + 12 + gap, i // columns * step_y
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
            *told, name = caption.split("\n")
            for k, line in enumerate([*told, name if len(name) <= 20 else f"…{name[-19:]}"]):
                ax.text(
                    x,
                    y + CELL + 4 + 12 * k,
                    line,
                    fontsize=6.5,
                    va="top",
                    color=colour if k < len(told) else "black",
                )
        ax.imshow(canvas, extent=(0, width, height, 0), interpolation="none")
        figure.text(
            12 / width, 1 - 10 / (height + head), title, va="top", fontsize=10, fontweight="bold"
        )
        return _save(figure, path)


def _enlarged(pixels: np.ndarray) -> np.ndarray:
    """uint8 [size, size, 1 or 3] -> [CELL, CELL, 3]; enlarged without smoothing, reduced with it."""
    image = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels).convert("RGB")
    return np.asarray(
        image.resize(
            (CELL, CELL), Image.Resampling.NEAREST if image.width <= CELL else Image.Resampling.BOX
        )
    )


def _histograms(
    path: Path, title: str, panels: list[tuple[str, str, list | dict, Check | None]]
) -> str:
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
        return _save(figure, path)


def _histogram(ax, series: dict[str, list[float]], check: Check | None) -> None:
    """Bars; the thresholds as lines where they are near the values, and in numbers below the title
    where not.
    """
    series = {name: np.array(values) for name, values in series.items() if len(values)}
    if not series:
        ax.text(
            0.5, 0.5, "not measured", ha="center", va="center", transform=ax.transAxes, color=GRAY
        )
        return
    low, high = (
        min(values.min() for values in series.values()),
        max(values.max() for values in series.values()),
    )
    ax.xaxis.set_major_locator(MaxNLocator(6))
    margin = 0.02 * (high - low) or max(0.1 * abs(high), 0.1)
    edges = np.linspace(low - margin, high + margin, 41)
    for (name, values), colour in zip(series.items(), (BLUE, GREEN), strict=False):
        ax.hist(
            values, edges, color=colour, alpha=0.75 if len(series) == 1 else 0.5, label=name or None
        )
    if max(ax.get_ylim()) > 20 * len(edges):
        ax.set_yscale("log")
    signs = (1, -1) if check and check.name in pairs.SIGNED else (1,)
    for level, threshold, colour in (
        (("WARN", check.warn, ORANGE), ("FAIL", check.fail, RED)) if check else ()
    ):
        if threshold is None:
            continue
        text = f"{level} {'<' if check.low else '>'} {threshold:g}"
        for place in (sign * threshold for sign in signs):
            if edges[0] <= place <= edges[-1]:
                ax.axvline(place, color=colour, linewidth=1.2, linestyle=(0, (4, 2)), label=text)
                text = None
        if text:
            ax.plot(
                [],
                [],
                color=colour,
                linewidth=1.2,
                linestyle=(0, (4, 2)),
                label=(
                    f"{text} (outside)"
                    if len(signs) == 1
                    or not any(edges[0] <= sign * threshold <= edges[-1] for sign in signs)
                    else None
                ),
            )
    if ax.get_legend_handles_labels()[1]:
        ax.legend(loc="best")


def _clips(
    path: Path,
    title: str,
    names: list[str],
    reports: dict[str, pairs.PairReport],
    reasons: dict[str, list[Finding]],
    examiner: pairs.Examiner,
    spectra: bool,
) -> list[str]:
    """One row for each pair: both waveforms, as a whole and near the peak, and both spectrograms;
    `spectra`: spectra instead.
    """
    if not names:
        return []
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(15, 2.7 * len(names) + 0.5), layout="constrained")
        FigureCanvasAgg(figure)
        figure.suptitle(title, x=0.01, ha="left", fontweight="bold", fontsize=11)
        for part, name in zip(np.atleast_1d(figure.subfigures(len(names), 1)), names, strict=True):
            observed, reference, rate = examiner.waves(reports[name].place)
            told = [
                f"{finding.level} {_reason(finding)}"
                for finding in sorted(reasons.get(name, []), key=lambda finding: finding.level)
            ]
            about = ", ".join(told) or f"SI-SDR {reports[name].values['si-sdr']:.1f} dB"
            part.suptitle(
                f"{name}   {about}", x=0.03, ha="left", fontsize=9, color=RED if told else "black"
            )
            (_row_of_spectra if spectra else _row_of_spectrograms)(part, observed, reference, rate)
        return [_save(figure, path)]


def _row_of_spectrograms(part, observed: np.ndarray, reference: np.ndarray, rate: int) -> None:
    left, near, middle, right = part.subplots(1, 4, width_ratios=(1.1, 0.9, 1, 1))
    _waveforms(left, observed, reference, rate)
    width, common = max(int(NEAR_S * rate), 16), min(len(observed), len(reference))
    start = max(min(int(np.abs(reference[:common]).argmax()) - width // 2, common - width), 0)
    _waveforms(near, observed[start : start + width], reference[start : start + width], rate, start)
    near.set(ylabel="", title="near the peak")
    window = max(64, 1 << round(np.log2(0.032 * rate)))
    transform = ShortTimeFFT(hann(window, sym=False), window // 4, rate, scale_to="magnitude")
    levels = [20 * np.log10(np.abs(transform.stft(x)) + 1e-7) for x in (observed, reference)]
    top = max(level.max() for level in levels)
    for ax, level, label in ((middle, levels[0], "input"), (right, levels[1], "target")):
        shown = ax.imshow(
            level,
            origin="lower",
            aspect="auto",
            cmap="magma",
            vmin=top - 80,
            vmax=top,
            extent=(0, len(observed) / rate, 0, rate / 2000),
        )
        ax.set(title=f"{label}, dB", xlabel="s", ylabel="kHz")
        ax.grid(False)
    part.colorbar(shown, ax=right, pad=0.02)


def _row_of_spectra(part, observed: np.ndarray, reference: np.ndarray, rate: int) -> None:
    left, right = part.subplots(1, 2, width_ratios=(1.6, 1))
    _waveforms(left, observed, reference, rate)
    for x, label, colour in ((observed, "input", ORANGE), (reference, "target", BLUE)):
        frequency, power = welch(x, rate, nperseg=min(256, len(x)), detrend=False)
        right.plot(
            frequency / _unit(rate)[0],
            10 * np.log10(power / max(power.max(), 1e-30) + 1e-12),
            color=colour,
            linewidth=1,
            label=label,
        )
    right.set(xlabel=_unit(rate)[1], ylabel="dB of its largest", title="Spectra")


def _unit(rate: int) -> tuple[float, str]:
    return next(
        (scale, name)
        for scale, name in ((1e6, "MHz"), (1e3, "kHz"), (1.0, "Hz"))
        if rate / 2 >= scale or scale == 1.0
    )


def _waveforms(ax, observed: np.ndarray, reference: np.ndarray, rate: int, start: int = 0) -> None:
    end = (start + len(observed)) / rate
    scale, unit = next(
        (scale, name)
        for scale, name in ((1.0, "s"), (1e3, "ms"), (1e6, "µs"))
        if end * scale >= 0.5 or scale == 1e6
    )
    for x, label, colour in ((observed, "input", ORANGE), (reference, "target", BLUE)):
        ax.plot(
            (start + np.arange(len(x))) / rate * scale,
            x,
            color=colour,
            linewidth=0.7,
            alpha=0.85,
            label=label,
        )
    ax.set(xlabel=unit, ylabel="of full scale")
    ax.legend(loc="lower right", ncols=2, bbox_to_anchor=(1, 0.98), borderaxespad=0)
    ax.margins(x=0)
