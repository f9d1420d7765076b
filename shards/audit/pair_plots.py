"""Pictures of an audit of pairs: statistics, the worst and typical pairs as signals and spectra."""

from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from scipy.signal import ShortTimeFFT, welch
from scipy.signal.windows import hann

from distgan.shards.audit import pairs
from distgan.shards.audit.checks import FAIL, Check
from distgan.shards.audit.findings import Checks, Finding
from distgan.shards.audit.plots import (
    BLUE,
    ORANGE,
    RED,
    STYLE,
    Panel,
    histograms,
    reason,
    save,
    values_of,
)

MAX_CLIPS = 3
NEAR_S = 0.01  # the part around the peak that is enlarged, to show delay and polarity


def draw_pairs(
    out: Path,
    reports: list[pairs.PairReport],
    examiner: pairs.Examiner,
    findings: list[Finding],
    checks: Checks,
    ungraded: tuple[str, ...],
) -> list[str]:
    """Write the pictures of a set of pairs; return their names."""
    title = f"Input against target, {len(reports)} pairs"
    names = [histograms(out / "statistics.png", title, _panels(reports, checks, ungraded))]
    readable = {str(report.place): report for report in reports if "si-sdr" in report.values}
    reasons: dict[str, list[Finding]] = {}
    for finding in findings:
        if finding.sample in readable:
            reasons.setdefault(finding.sample, []).append(finding)
    by_sdr = sorted(readable, key=lambda name: readable[name].values["si-sdr"])
    worst = _worst(reasons)
    title = "The worst pairs: those with the most findings, of different kinds"
    if not worst:
        worst, title = by_sdr[:MAX_CLIPS], "No findings; the pairs with the lowest SI-SDR"
    clips = _Clips(readable, reasons, examiner, bool(ungraded))
    names += clips.draw(out / "worst.png", title, worst)
    clean = [name for name in by_sdr if name not in reasons]
    middle = max(len(clean) // 2 - MAX_CLIPS // 2, 0)
    title = "Typical pairs: no findings, SI-SDR nearest to the median"
    names += clips.draw(out / "typical.png", title, clean[middle : middle + MAX_CLIPS])
    return names


def _panels(
    reports: list[pairs.PairReport], checks: Checks, ungraded: tuple[str, ...]
) -> list[Panel]:
    """Return the panels that have values."""

    def check(name: str) -> Check | None:
        return None if name in ungraded else checks.named(name, "pairs")

    sdr = {"SI-SDR of the input": values_of(reports, "si-sdr")}
    if declared := values_of(reports, "snr"):
        sdr["declared SNR"] = declared
    correlation = values_of(reports, "correlation") + values_of(reports, "correlation-room")
    delay, level = values_of(reports, "delay"), values_of(reports, "level")
    active = [] if ungraded else values_of(reports, "active")
    bandwidth = values_of(reports, "bandwidth")
    panels: list[Panel] = [
        ("Distortion of the input", "dB", sdr, check("si-sdr-low")),
        ("Correlation at the best delay", "|rho|", correlation, check("correlation")),
        ("Remaining delay", "samples, positive: input late", delay, check("delay")),
        ("Level of the input against the target", "dB", level, check("level")),
        ("Active share of the target", "share of frames of 20 ms", active, check("active")),
        ("Bandwidth of the target", "share of Nyquist", bandwidth, check("bandwidth")),
    ]
    return [panel for panel in panels if panel[2]]


def _worst(reasons: dict[str, list[Finding]]) -> list[str]:
    """Select the samples with the most FAILs, then findings, that are not yet represented."""
    chosen: list[str] = []
    represented: set[str] = set()

    def order(name: str) -> tuple:
        fails = {finding.check for finding in reasons[name] if finding.level == FAIL}
        return len(fails - represented), len(fails), len(reasons[name])

    while len(chosen) < min(MAX_CLIPS, len(reasons)):
        chosen.append(max((name for name in reasons if name not in chosen), key=order))
        represented |= {finding.check for finding in reasons[chosen[-1]]}
    return chosen


class _Clips:
    """Draws pairs as rows of waveforms and spectrograms, or `spectra` instead of the latter."""

    def __init__(
        self,
        reports: dict[str, pairs.PairReport],
        reasons: dict[str, list[Finding]],
        examiner: pairs.Examiner,
        spectra: bool,
    ):
        self.reports, self.reasons, self.examiner = reports, reasons, examiner
        self.draw_row = _row_of_spectra if spectra else _row_of_spectrograms

    def draw(self, path: Path, title: str, names: list[str]) -> list[str]:
        if not names:
            return []
        with mpl.rc_context(STYLE):
            figure = Figure(figsize=(15, 2.7 * len(names) + 0.5), layout="constrained")
            FigureCanvasAgg(figure)
            figure.suptitle(title, x=0.01, ha="left", fontweight="bold", fontsize=11)
            rows: Any = figure.subfigures(len(names), 1)
            for row, name in zip(np.atleast_1d(rows), names, strict=True):
                self._draw_clip(row, name)
            return [save(figure, path)]

    def _draw_clip(self, row: Any, name: str) -> None:
        report, own = self.reports[name], self.reasons.get(name, [])
        texts = [f"{f.level} {reason(f)}" for f in sorted(own, key=lambda finding: finding.level)]
        text = ", ".join(texts) or f"SI-SDR {report.values['si-sdr']:.1f} dB"
        colour = RED if texts else "black"
        row.suptitle(f"{name}   {text}", x=0.03, ha="left", fontsize=9, color=colour)
        self.draw_row(row, *self.examiner.waves(report.place))


def _row_of_spectrograms(row: Any, observed: np.ndarray, reference: np.ndarray, rate: int) -> None:
    left, near, middle, right = row.subplots(1, 4, width_ratios=(1.1, 0.9, 1, 1))
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
        image = ax.imshow(
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
    row.colorbar(image, ax=right, pad=0.02)


def _row_of_spectra(row: Any, observed: np.ndarray, reference: np.ndarray, rate: int) -> None:
    left, right = row.subplots(1, 2, width_ratios=(1.6, 1))
    scale, unit = _unit(rate)
    _waveforms(left, observed, reference, rate)
    for x, label, colour in ((observed, "input", ORANGE), (reference, "target", BLUE)):
        frequency, power = welch(x, rate, nperseg=min(256, len(x)), detrend=False)
        level = 10 * np.log10(power / max(power.max(), 1e-30) + 1e-12)
        right.plot(frequency / scale, level, color=colour, linewidth=1, label=label)
    right.set(xlabel=unit, ylabel="dB of the maximum", title="Spectra")


def _unit(rate: int) -> tuple[float, str]:
    """Return the scale and the name of the unit for frequencies up to Nyquist."""
    units = ((1e6, "MHz"), (1e3, "kHz"))
    return next(((scale, name) for scale, name in units if rate / 2 >= scale), (1.0, "Hz"))


def _waveforms(
    ax: Any, observed: np.ndarray, reference: np.ndarray, rate: int, start: int = 0
) -> None:
    end = (start + len(observed)) / rate
    units = ((1.0, "s"), (1e3, "ms"))
    scale, unit = next(((scale, name) for scale, name in units if end * scale >= 0.5), (1e6, "µs"))
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
