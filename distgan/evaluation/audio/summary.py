"""Summarize measured clips: means with intervals, on the whole and by signal-to-noise ratio, and
Fréchet distances. Pure functions, for one process.
"""

import math
from typing import Any

import numpy as np
from scipy.special import ndtr, stdtrit

from distgan.core import rng
from distgan.evaluation.audio.embeddings import SCALE
from distgan.metrics import frechet
from distgan.metrics.exact_sums import MOST, Sums

SNR_EDGES_DB = (0, 5, 10, 15, 20)
RESAMPLES = 1000  # of the bootstrap
LEAST = 20  # recordings, or clips where each is one, for an interval
LEAST_LATE = 0.8  # of the clips, for a delay that they have in common
_BANDS = [
    f"below {SNR_EDGES_DB[0]} dB",
    *(f"{low} to {high} dB" for low, high in zip(SNR_EDGES_DB, SNR_EDGES_DB[1:], strict=False)),
    f"{SNR_EDGES_DB[-1]} dB and more",
]


def summarize(
    clips: Any,
    names: list[str],
    values: np.ndarray,
    reasons: list[str],
    sums: dict[tuple[str, str], Sums],
    seed: int,
) -> dict[str, Any]:
    """Return {"clips": a mapping for each clip, "means": …, "conditions": …, "distances": …,
    "delay": …}.

    clips: `evaluator.Clips`. values: [clips, names and then the delay], NaN where `reasons` says
    why. sums: feature frames by (distance, side). A mean is {"mean", "sd", "interval", "n",
    "failed"}: over the n clips that have a value; `interval_of` says what was resampled for it.
    """
    values, delays = values[:, :-1], values[:, -1]
    pairs = zip(clips.keys, clips.groups, strict=True)
    own = [key if group is None else group for key, group in pairs]
    groups = np.unique(own, return_inverse=True)[1]
    bands = [None if snr is None else _band(snr) for snr in clips.snrs]
    conditions = {}
    for band in _BANDS:
        inside = np.array([other == band for other in bands])
        if inside.any():
            conditions[band] = _means(names, values[inside], groups[inside], seed)
    rows = []
    for key, snr, row, reason in zip(clips.keys, clips.snrs, values.tolist(), reasons, strict=True):
        measured = [None if math.isnan(value) else value for value in row]
        rows.append(
            {"key": key, "snr_db": snr, **dict(zip(names, measured, strict=True)), "why": reason}
        )
    return {
        "clips": rows,
        "means": _means(names, values, groups, seed),
        "interval_of": "clips" if len(set(own)) == len(own) else "recordings",
        "conditions": conditions,
        "distances": _distances(sums),
        "delay": _common_delay(delays),
    }


def _common_delay(delays: np.ndarray) -> dict[str, Any] | None:
    """Return {"samples", "clips", "of"} where most clips are late by the same whole samples."""
    known = delays[~np.isnan(delays)]
    if not len(known):
        return None
    common = int(np.rint(np.median(known)))
    clips = int((np.abs(known - common) <= 0.5).sum())
    if common == 0 or clips < LEAST_LATE * len(delays):
        return None
    return {"samples": common, "clips": clips, "of": len(delays)}


def _distances(sums: dict[tuple[str, str], Sums]) -> dict[str, Any]:
    """Return the Fréchet distances of outputs and inputs from targets, by name."""
    distances = {}
    for space in dict.fromkeys(space for space, _ in sums):
        scale = SCALE if space.startswith("fad_") else 1.0
        for side, prefix in (("output", ""), ("input", "input_")):
            if (space, side) in sums:
                target = sums[space, "target"]
                distances[prefix + space] = _distance(sums[space, side], target, scale)
    return distances


def _distance(a: Sums, b: Sums, scale: float) -> dict[str, Any]:
    counts = {"frames": a.n, "target_frames": b.n}
    if max(a.n, b.n) > MOST:
        why = f"more than {MOST:,} frames: sums would not be exact any more"
        return {"value": None, **counts, "why": why}
    if min(a.n, b.n) < 2:
        return {"value": None, **counts, "why": "fewer than 2 frames"}
    return {"value": frechet.of_moments(a.moments(), b.moments()) / scale**2, **counts}


def _means(names: list[str], values: np.ndarray, groups: np.ndarray, seed: int) -> dict[str, Any]:
    """Return the mean of each column of values [clips, names], over the clips that have one."""
    means = {}
    for name, column in zip(names, values.T, strict=True):
        there = ~np.isnan(column)
        present = column[there]
        n = len(present)
        mean: dict[str, Any] = {
            "mean": math.fsum(present.tolist()) / n if n else None,
            "sd": float(present.std(ddof=1)) if n > 1 else None,
            "interval": interval(present, groups[there], seed),
            "n": n,
            "failed": len(column) - n,
        }
        means[name] = mean
    return means


def interval(values: np.ndarray, groups: np.ndarray, seed: int) -> list[float] | None:
    """Return the 95 % interval of the mean of values [n] by the bootstrap over groups [n]: its
    percentiles, expanded for the number of groups (Hesterberg 2015).

    None below LEAST groups, where it would hold less than it says.
    """
    numbers = np.unique(groups, return_inverse=True)[1]
    sums, counts = np.bincount(numbers, values), np.bincount(numbers)
    if len(counts) < LEAST:
        return None
    generator = rng.numpy_generator(seed, "metrics/clips", len(counts))
    drawn = generator.integers(0, len(counts), (RESAMPLES, len(counts)))
    n = len(counts)
    outside = float(ndtr(math.sqrt(n / (n - 1)) * stdtrit(n - 1, 0.025)))
    means = sums[drawn].sum(1) / counts[drawn].sum(1)
    return np.quantile(means, [outside, 1 - outside]).tolist()


def _band(snr: float) -> str:
    return _BANDS[int(np.searchsorted(SNR_EDGES_DB, snr, side="right"))]
