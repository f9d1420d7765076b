"""Take members that differ in `seed` alone for repetitions: mean and deviation over seeds."""

import json
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

HEADS = ("seeds", "best, mean ± standard deviation", "members")


def groups(values: Sequence[Mapping[str, Any]]) -> list[list[int]]:
    """Return the members of each setting in their order; [] where none has two seeds."""
    found: dict[str, list[int]] = {}
    for index, settings in enumerate(values):
        others = {key: value for key, value in settings.items() if key != "seed"}
        found.setdefault(json.dumps(others, sort_keys=True, default=str), []).append(index)
    return list(found.values()) if any(len(group) > 1 for group in found.values()) else []


def spread(scores: Sequence[float]) -> str:
    """Return `mean ± standard deviation` of a sample (n - 1); one score alone has no deviation."""
    if len(scores) < 2:
        return f"{scores[0]:.4g}" if scores else "–"
    return f"{statistics.fmean(scores):.4g} ± {statistics.stdev(scores):.2g}"


def rows(
    values: Sequence[Mapping[str, Any]],
    keys: Sequence[str],
    scores: Mapping[int, float],
    measured: Mapping[int, tuple[Any, ...]],
) -> list[tuple[str, ...]]:
    """Return a row for each setting, the best mean first: its values, how many seeds have a score,
    mean ± standard deviation of their best scores, its members.

    `measured`: what scores must have in common to be averaged.
    """
    found = []
    for group in groups(values):
        scored = [scores[index] for index in group if index in scores]
        alike = len({measured[index] for index in group if index in scores}) <= 1
        cells = (
            *(str(values[group[0]].get(key, "–")) for key in keys if key != "seed"),
            f"{len(scored)} of {len(group)}",
            spread(scored) if alike else "not comparable",
            ", ".join(map(str, group)),
        )
        mean = statistics.fmean(scored) if scored and alike else float("inf")
        found.append((mean, cells))
    return [cells for _, cells in sorted(found, key=lambda pair: pair[0])]


def curve(points: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return (epochs that all runs have scored, mean, standard deviation) of two or more runs, each
    given as rows (epoch, score).
    """
    tables = [{round(float(epoch), 6): float(score) for epoch, score in run} for run in points]
    epochs = sorted(set.intersection(*map(set, tables)))
    scores = np.array([[table[epoch] for epoch in epochs] for table in tables])
    scores = scores.reshape(len(tables), len(epochs))
    return np.array(epochs), scores.mean(0), scores.std(0, ddof=1)
