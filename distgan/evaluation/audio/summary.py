"""Summarize measured clips: means with intervals, on the whole and by signal-to-noise ratio, and
Fréchet distances. Pure functions, for one process.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from distgan.core import rng
from distgan.evaluation.audio.embeddings import SCALE
from distgan.metrics import frechet
from distgan.metrics.exact_sums import MOST, Sums

SNR_EDGES_DB = (0, 5, 10, 15, 20)
RESAMPLES = 1000  # of the bootstrap
_BANDS = [
    f"below {SNR_EDGES_DB[0]} dB",
    *(f"{low} to {high} dB" for low, high in zip(SNR_EDGES_DB, SNR_EDGES_DB[1:], strict=False)),
    f"{SNR_EDGES_DB[-1]} dB and more",
]


def summarize(
    keys: Sequence[str],
    snrs: Sequence[float | None],
    names: list[str],
    values: np.ndarray,
    reasons: list[str],
    sums: dict[tuple[str, str], Sums],
    seed: int,
) -> dict[str, Any]:
    """Return {"clips": a mapping for each clip, "means": …, "conditions": …, "distances": …}.

    values: [clips, names], NaN where `reasons` says why. sums: feature frames by (space, side). A
    mean is {"mean", "sd", "interval", "n", "failed"}: over the n clips that have a value;
    `interval` contains the mean of new clips with 95 %, by the bootstrap over clips.
    """
    bands = [None if snr is None else _band(snr) for snr in snrs]
    conditions = {
        band: _means(names, values[np.array([other == band for other in bands])], seed)
        for band in _BANDS
        if band in bands
    }
    clips = []
    for key, snr, row, reason in zip(keys, snrs, values.tolist(), reasons, strict=True):
        measured = [None if math.isnan(value) else value for value in row]
        clips.append(
            {"key": key, "snr_db": snr, **dict(zip(names, measured, strict=True)), "why": reason}
        )
    return {
        "clips": clips,
        "means": _means(names, values, seed),
        "conditions": conditions,
        "distances": _distances(sums),
    }


def _distances(sums: dict[tuple[str, str], Sums]) -> dict[str, Any]:
    """Return the Fréchet distances of outputs and inputs from targets, by name."""
    distances = {}
    for space in dict.fromkeys(space for space, _ in sums):
        name, scale = (f"frechet_{space}", 1.0) if space == "logmel" else (space, SCALE)
        for side, prefix in (("output", ""), ("input", "input_")):
            if (space, side) in sums:
                target = sums[space, "target"]
                distances[prefix + name] = _distance(sums[space, side], target, scale)
    return distances


def _distance(a: Sums, b: Sums, scale: float) -> dict[str, Any]:
    if max(a.n, b.n) > MOST:
        return {
            "value": None,
            "frames": a.n,
            "why": f"more than {MOST:,} frames: sums would not be exact any more",
        }
    if min(a.n, b.n) < 2:
        return {"value": None, "frames": a.n, "why": "fewer than 2 frames"}
    return {"value": frechet.of_moments(a.moments(), b.moments()) / scale**2, "frames": a.n}


def _means(names: list[str], values: np.ndarray, seed: int) -> dict[str, Any]:
    """Return the mean of each column of values [clips, names], over the clips that have one."""
    means = {}
    for name, column in zip(names, values.T, strict=True):
        present = column[~np.isnan(column)]
        n = len(present)
        mean: dict[str, Any] = {
            "mean": None,
            "sd": None,
            "interval": None,
            "n": n,
            "failed": len(column) - n,
        }
        if n:
            mean["mean"] = math.fsum(present.tolist()) / n
        if n > 1:
            mean["sd"] = float(present.std(ddof=1))
            generator = rng.numpy_generator(seed, "metrics/clips", n)
            resampled = present[generator.integers(0, n, (RESAMPLES, n))].mean(1)
            mean["interval"] = np.quantile(resampled, [0.025, 0.975]).tolist()
        means[name] = mean
    return means


def _band(snr: float) -> str:
    return _BANDS[int(np.searchsorted(SNR_EDGES_DB, snr, side="right"))]
