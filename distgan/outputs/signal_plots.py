"""Plot sounds as PNG files, waveforms over each other and spectrograms side by side; and vectors.
Imports no torch.

Titles come from names of samples: they are printable ASCII, never parsed as formulas, and cut to
fit.
"""

import textwrap
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from distgan.core.files import write_atomic

BLUE, ORANGE, GREEN, RED, GRAY = "#3b82f6", "#f08c2e", "#2fa36b", "#e5484d", "#8a8f98"
STYLE: dict[Any, Any] = {  # matplotlib's stubs want each key's literal type
    "text.parse_math": False,
    "font.size": 9,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "grid.linewidth": 0.6,
    "axes.grid": True,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
}
DPI = 100
WIDTH_IN = 10.2  # 1020 pixels: the report shows a picture up to 1024 wide without scaling
RANGE_DB = 80.0  # of the colour scale of spectrograms, below the loudest point of all
# of a waveform on one panel; a longer one has a second, enlarged panel
MAX_VISIBLE_SAMPLES = 600
TITLE_CHARS = 126  # that fit across the picture
NAME_CHARS = 36  # of the name of a waveform, beside its measures


def overlay(
    path: Path, items: list[tuple[str, np.ndarray, np.ndarray, np.ndarray]], rate: float
) -> None:
    """Plot one panel for each (name, input [n], target [n], output [n]) at `rate` Hz.

    Upper part: the three signals over each other. Lower part: target - output.

    The title has the mean absolute differences. Beside a long waveform stands its loudest section.
    DiskError if the file cannot be written.
    """
    with mpl.rc_context({**STYLE, "grid.alpha": 0.25}):
        figure = _figure(2.7 * len(items))
        for part, (name, *waves) in zip(
            figure.subfigures(len(items), squeeze=False)[:, 0], items, strict=True
        ):
            source, target, output = (np.asarray(wave, np.float64).reshape(-1) for wave in waves)
            windows = [slice(0, len(target))]
            if len(target) > 2 * MAX_VISIBLE_SAMPLES:
                windows.append(_loudest(target, MAX_VISIBLE_SAMPLES))
            axes = part.subplots(
                2, len(windows), height_ratios=(3, 1), squeeze=False, sharex="col", sharey="row"
            )
            for column, window in enumerate(windows):
                _waves(axes[:, column], source, target, output, window, rate)
            errors = f"{_l1(output, target):.4f}   L1(input, target) {_l1(source, target):.4f}"
            title = f"{_short(name, NAME_CHARS)}   L1(output, target) {errors}"
            axes[0, 0].set_title(title)
            axes[0, 0].set_ylabel("signal")
            axes[1, 0].set_ylabel("residual")
            if len(windows) > 1:
                axes[0, 1].set_title(
                    "where the target is loudest", loc="right", fontsize=9, fontweight="normal"
                )
            drawn = [ax.get_legend_handles_labels() for ax in axes[:, 0]]
        figure.legend(
            *([entry for part in column for entry in part] for column in zip(*drawn, strict=True)),
            loc="outside upper right",
            ncols=4,
        )
        save(path, figure)


def spectrograms(path: Path, items: list[list[tuple[str, np.ndarray]]], rate: float) -> None:
    """Plot one row of spectrograms for each list of (title, signal [n] at `rate` Hz), such as
    denoised, repaired and clean, on one colour scale.

    Power in a Hann window of about 32 ms, every quarter of it, in dB below the loudest point of the
    picture. DiskError if the file cannot be written.
    """
    levels = [
        [_levels(np.asarray(wave, np.float64).reshape(-1), rate) for _, wave in row]
        for row in items
    ]
    # At least -40 dB, so that silence alone is dark.
    top = max(-40.0, *(float(level.max()) for row in levels for level, _ in row))
    with mpl.rc_context({**STYLE, "axes.grid": False}):
        figure = _figure(2.35 * len(items))
        columns = max(map(len, items))
        axes = figure.subplots(len(items), columns, squeeze=False, sharex="row", sharey="row")
        for row, signals, drawn in zip(axes, items, levels, strict=True):
            for ax, (title, wave), (level, end_s) in zip(row, signals, drawn, strict=False):
                image = ax.imshow(
                    level - top,
                    origin="lower",
                    aspect="auto",
                    cmap="magma",
                    vmin=-RANGE_DB,
                    vmax=0,
                    interpolation="nearest",
                    extent=(0, end_s, 0, rate / 2000),
                )
                if not np.isfinite(wave).all():
                    title = f"not finite: {title}"
                ax.set_title(
                    "\n".join(textwrap.wrap(plain(title), TITLE_CHARS // columns)[:2]),
                    fontsize=9,
                    fontweight="normal",
                )
                ax.set_xlabel("time in s", labelpad=1)
            for ax in row[len(signals) :]:
                ax.set_axis_off()
            row[0].set_ylabel("frequency in kHz")
        figure.colorbar(image, ax=axes, label="dB", fraction=0.025, pad=0.01)
        save(path, figure)


def scatter(path: Path, reals: Any, samples: Any) -> None:
    """Plot vectors [n, size] of the data and of a generator over each other, by their first two
    numbers; of one number, as histograms.

    DiskError if the file cannot be written.
    """
    both = [np.asarray(rows, np.float64).reshape(len(rows), -1) for rows in (reals, samples)]
    looks = ((f"{len(both[0])} real", GRAY, 1.0), (f"{len(both[1])} samples", ORANGE, 0.6))
    with mpl.rc_context({**STYLE, "grid.alpha": 0.25}):
        figure = _figure(WIDTH_IN * 0.6)
        ax = figure.subplots()
        bins = np.histogram_bin_edges(np.nan_to_num(np.concatenate(both)[:, 0]), 60)
        for rows, (label, colour, alpha) in zip(both, looks, strict=True):
            look: dict[str, Any] = {"label": label, "color": colour, "alpha": alpha}
            if rows.shape[1] > 1:
                ax.scatter(rows[:, 0], rows[:, 1], s=5, linewidths=0, **look)
            else:
                ax.hist(rows[:, 0], bins.tolist(), density=True, **look)
        if both[0].shape[1] > 1:
            ax.set_aspect("equal", "datalim")
        figure.legend(loc="outside upper right", ncols=2)
        save(path, figure)


def save(path: Path, figure: Figure) -> None:
    """Write a figure as PNG, whole or not at all; DiskError where it cannot be written."""
    look: dict[str, Any] = {"dpi": DPI, "metadata": {"Software": None}}
    write_atomic(path, lambda file: figure.savefig(file, format="png", **look))


def _figure(height_in: float) -> Figure:
    figure = Figure(figsize=(WIDTH_IN, height_in + 0.4), layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def plain(name: str) -> str:
    """Return a name in printable ASCII, which every font has.

    Other letters would be drawn as boxes, with a warning for each.
    """
    name = str(name).encode("ascii", "replace").decode()
    return "".join(char if char.isprintable() else " " for char in name)


def _short(name: str, length: int) -> str:
    name = plain(name)
    return name if len(name) <= length else f"{name[: length - 1]}~"


def _l1(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.abs(one - other).mean())


def _loudest(wave: np.ndarray, length: int) -> slice:
    """Return the section of `length` samples with the most energy."""
    energy = np.concatenate([[0.0], np.cumsum(np.square(np.nan_to_num(wave)))])
    start = int(np.argmax(energy[length:] - energy[:-length]))
    return slice(start, start + length)


def _waves(
    axes, source: np.ndarray, target: np.ndarray, output: np.ndarray, window: slice, rate: float
) -> None:
    """Plot the signals on the upper of two axes, target - output on the lower.

    Values that are not finite leave a gap.
    """
    short = (window.stop - window.start) / rate < 1
    time = np.arange(window.start, window.stop) / rate * (1000 if short else 1)
    fine = len(time) <= MAX_VISIBLE_SAMPLES
    for wave, label, colour, width, alpha in (
        (source, "input", GRAY, 0.7, 0.6),
        (target, "target", GREEN, 2.0 if fine else 0.6, 0.7 if fine else 1.0),
        (output, "output", ORANGE, 0.9, 1.0 if fine else 0.7),
    ):
        axes[0].plot(
            time,
            np.where(np.isfinite(wave), wave, np.nan)[window],
            color=colour,
            linewidth=width,
            alpha=alpha,
            label=label,
        )
    residual = target - output
    axes[1].plot(
        time,
        np.where(np.isfinite(residual), residual, np.nan)[window],
        color=RED,
        linewidth=0.7,
        label="target − output",
    )
    axes[1].axhline(0, color="black", linewidth=0.4)
    axes[1].set_xlabel(f"time in {'ms' if short else 's'}", loc="right", labelpad=1)
    axes[0].margins(x=0.005)


def _levels(wave: np.ndarray, rate: float) -> tuple[np.ndarray, float]:
    """Return the spectrogram in dB [frequencies, frames] of a signal [n], and its length in s.

    Values that are not finite count as silence.
    """
    size = 1 << max(int(np.log2(max(rate * 0.032, 2))), 4)
    padded = np.pad(np.nan_to_num(wave, nan=0.0, posinf=0.0, neginf=0.0), size // 2)
    frames = np.lib.stride_tricks.sliding_window_view(
        np.pad(padded, (0, max(size - len(padded), 0))), size
    )[:: size // 4]
    power = np.square(np.abs(np.fft.rfft(frames * np.hanning(size), axis=1))) / np.square(
        np.hanning(size).sum() / 2
    )
    return 10 * np.log10(np.maximum(power, 1e-12)).T, len(wave) / rate
