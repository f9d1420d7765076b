"""Scores that compare two sets of images, put together from distgan.metrics, each beside its floor.

Pure functions, for one process.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from distgan.core.errors import RunError
from distgan.evaluation.image_pairs import ImagePairs, disjoint_halves, plan
from distgan.metrics import cmmd, frechet, kernel, manifold, sliced

METRICS = ("frechet", "kernel", "manifold", "sliced", "nearest")
# At every evaluation of a training; "coverage": manifold, of the floor's halves alone.
CHEAP = ("frechet", "kernel", "coverage", "nearest")
# Images of a class, on either side, from which on its Fréchet distance tells more than its floor
# varies: docs/evaluation.md, By class.
FEWEST = 16
Strata = tuple[np.ndarray, np.ndarray]  # the class of each real image, and of each sample


@dataclass
class SetStatistics:
    """Features [n, d] and projections [n, 256] of one image set in the order of its images, or
    moments of groups of them; on rank 0 only.

    `training`: how many of the images, the first ones, a run trained on.
    """

    n: int
    training: int
    features: torch.Tensor | None = None
    projections: torch.Tensor | None = None
    moments: dict[str, frechet.Moments] | None = None  # all; first, second: of the floor's halves

    @property
    def rows(self) -> torch.Tensor:
        """Return the features; RuntimeError where moments alone are kept, or not on rank 0."""
        return _require(self.features)

    @property
    def projected(self) -> torch.Tensor:
        """Return the projections; RuntimeError where none are kept, or not on rank 0."""
        return _require(self.projections)

    def arrays(self) -> dict[str, torch.Tensor]:
        """Return the arrays that a file of statistics stores, by name."""
        arrays = {"features": self.features, "projections": self.projections}
        out = {name: array for name, array in arrays.items() if array is not None}
        for name, moments in (self.moments or {}).items():
            out |= {
                f"{name}.n": torch.tensor([moments.n]),
                f"{name}.mean": moments.mean,
                f"{name}.cov": moments.cov,
            }
        return out

    def load(self, arrays: dict[str, torch.Tensor]) -> None:
        """Take the arrays of a file of statistics."""
        self.features, self.projections = arrays.get("features"), arrays.get("projections")
        names = [name.removesuffix(".n") for name in arrays if name.endswith(".n")]
        self.moments = {
            name: frechet.Moments(
                int(arrays[f"{name}.n"]), arrays[f"{name}.mean"], arrays[f"{name}.cov"]
            )
            for name in names
        } or None


def _require(array: torch.Tensor | None) -> torch.Tensor:
    if array is None:
        raise RuntimeError("these statistics hold no rows of images")
    return array


@dataclass(frozen=True)
class Classes:
    """The classes of a column of labels: that of each real image, and that of each sample [n]."""

    column: str
    names: tuple[str, ...]
    real: np.ndarray
    samples: np.ndarray


def compare(
    real: SetStatistics,
    fake: SetStatistics,
    metrics: tuple[str, ...],
    names: tuple[str, str],
    used: int,
    seed: int,
    thorough: bool,
    pairs: ImagePairs | None = None,
    classes: Classes | None = None,
) -> dict[str, Any]:
    """Score `fake` against the first `used` real images.

    `names`: of the Fréchet and the kernel distance. `thorough`: standard deviations and limits,
    too. `pairs`: those of both sets, if they were computed. RunError where a metric is not defined.
    """
    if real.moments is not None or fake.moments is not None:
        scores = _compare_moments(real, fake, names[0], used)
        return scores | (_without_rows(scores, metrics, names[1]) if thorough else {})
    a, b = real.rows[:used], fake.rows
    strata = None if classes is None else _by_design(classes, used)
    defined = min(len(a), len(b)) > 1
    result: dict[str, Any] = {
        "metric": names[0],
        "score": _as_run_error(frechet.distance, a, b) if defined else None,
    }
    if thorough and defined:
        sd, sd_method = frechet.spread(
            a, b, seed, None if strata is None else torch.from_numpy(strata[1])
        )
        limit, limit_method = frechet.at_infinity(a, b, seed)
        result |= {
            "score_sd": sd,
            "score_sd_by": sd_method,
            "score_at_infinity": limit,
            "score_at_infinity_by": limit_method,
            "features": a.shape[1],
        }
    if pairs is None:
        pairs = plan(real.rows, real.training, fake.rows, metrics, used, thorough)
        pairs.pairs.compute()
    of_pairs, why = _of_pairs(pairs, "whole", metrics, names[1], strata)
    result |= of_pairs
    if "manifold" in metrics:
        result["k"] = manifold.K
    if "cmmd" in metrics:
        result["cmmd"] = cmmd.distance(a, b) if defined else None
    if "sliced" in metrics:
        result["sliced_wasserstein"] = sliced.distance(real.projected[:used], fake.projected)
    if "nearest" in metrics:
        result["nearest"] = manifold.nearest_of_pairs(pairs.pairs) if pairs.nearest else None
    result["floor"] = _floor(real, fake, metrics, names, used, thorough, pairs)
    if thorough:
        result["reasons"] = _reasons(result, len(a), len(b), names[1])
        result["reasons"] |= {f"{names[1]}_interval": why} if why else {}
    return result


def _reasons(result: dict[str, Any], reals: int, samples: int, kernel_name: str) -> dict[str, str]:
    """Return why each number that is null is not defined: each metric has needs of its own."""
    found = f"found {reals} real and {samples}"
    needs = {
        "score": f"needs 2 images on either side, {found}",
        kernel_name: f"needs 3 images on either side, {found}",
        **dict.fromkeys(
            ("precision", "recall", "density", "coverage"),
            f"needs {manifold.K + 1} images on either side, {found}",
        ),
        "nearest": "needs held-out images that are no copies of training images",
        "floor": f"needs 4 real images and 2 samples, {found}",
    }
    return {name: why for name, why in needs.items() if name in result and result[name] is None}


def _without_rows(
    result: dict[str, Any], metrics: tuple[str, ...], kernel_name: str
) -> dict[str, Any]:
    """Return null for the numbers that moments are not enough for, and why."""
    names = {"kernel": [kernel_name], "manifold": ["precision", "recall", "density", "coverage"]}
    names |= {"nearest": ["nearest"], "cmmd": ["cmmd"]}
    missing = ["score_sd", *(name for metric in metrics for name in names.get(metric, []))]
    reasons = dict.fromkeys(missing, "needs the features of each image: --path features")
    if result["floor"] is None:
        reasons["floor"] = "needs moments of two halves of 2 or more real images each"
    return dict.fromkeys(missing) | {"reasons": reasons}


def _floor(
    real: SetStatistics,
    fake: SetStatistics,
    metrics: tuple[str, ...],
    names: tuple[str, str],
    used: int,
    thorough: bool,
    pairs: ImagePairs,
) -> dict[str, Any] | None:
    """Return {"samples": k, "real": …, "generated": …}; None below two images in a half.

    Both score k real images: "real" against k others, "generated" against the first k samples.
    """
    first, second = disjoint_halves(used, fake.n)
    k = len(first)
    if k < 2:
        return None

    def scores(side: str, of: SetStatistics, rows: Any) -> dict[str, Any]:
        a, b = real.rows[first], of.rows[rows]
        out: dict[str, Any] = {"score": _as_run_error(frechet.distance, a, b)}
        out |= _of_pairs(pairs, side, metrics, names[1])[0]
        if thorough and "cmmd" in metrics:
            out["cmmd"] = cmmd.distance(a, b)
        if thorough and "sliced" in metrics:
            a, b = real.projected[first], of.projected[rows]
            out["sliced_wasserstein"] = sliced.distance(a, b)
        return out

    return {
        "samples": k,
        "real": scores("real", real, second),
        "generated": scores("generated", fake, slice(k)),
    }


def by_class(
    real: SetStatistics,
    fake: SetStatistics,
    classes: Classes,
    metrics: tuple[str, ...],
    names: tuple[str, str],
    used: int,
) -> dict[str, Any]:
    """Score the samples of each class against the real images of that class, as `compare` does.

    {"column", "features", "metric", "kernel", "fewest", "rows": one for each class that occurs}.
    """
    metrics = tuple(name for name in metrics if name == "kernel")
    rows = []
    for number, name in enumerate(classes.names):
        a = real.rows[:used][torch.from_numpy(classes.real[:used] == number)]
        b = fake.rows[torch.from_numpy(classes.samples == number)]
        if len(a) or len(b):
            sizes = {"class": name, "reals": len(a), "samples": len(b)}
            rows.append(sizes | _of_class(a, b, metrics, names))
    return {
        "column": classes.column,
        "features": real.rows.shape[1],
        "metric": names[0],
        "kernel": names[1] if metrics else None,
        "fewest": FEWEST,
        "rows": rows,
    }


def _of_class(
    a: torch.Tensor, b: torch.Tensor, metrics: tuple[str, ...], names: tuple[str, str]
) -> dict[str, Any]:
    """Return the scores of one class; no Fréchet distance where its floor has fewer than FEWEST."""
    n, m = len(a), len(b)
    if min(n, m) < 2:
        return {"score": None, "floor": None}
    result = compare(SetStatistics(n, n, a), SetStatistics(m, 0, b), metrics, names, n, 0, False)
    del result["metric"]
    floor = result["floor"]
    if floor is None or floor["samples"] < FEWEST:
        for scores in (result, *(floor[side] for side in ("real", "generated") if floor)):
            scores["score"] = None
    return result


def _compare_moments(
    real: SetStatistics, fake: SetStatistics, name: str, used: int
) -> dict[str, Any]:
    def distance(a: frechet.Moments | None, b: frechet.Moments | None) -> float | None:
        return None if a is None or b is None else _as_run_error(frechet.of_moments, a, b)

    first, second = disjoint_halves(used, fake.n)
    k = len(first)
    result: dict[str, Any] = {
        "metric": name,
        "score": distance(_moments(real, "all", slice(used)), _moments(fake, "all", slice(None))),
    }
    if real.projections is not None and fake.projections is not None:
        result["sliced_wasserstein"] = sliced.distance(real.projections[:used], fake.projections)
    result["floor"] = None
    half = _moments(real, "first", first)
    if half is not None and half.n == k:
        generated = _moments(fake, "first", slice(k))
        same = generated is not None and generated.n == k
        result["floor"] = {
            "samples": k,
            "real": {"score": distance(half, _moments(real, "second", second))},
            "generated": {"score": distance(half, generated) if same else None},
        }
    return result


def _moments(of: SetStatistics, name: str, rows: Any) -> frechet.Moments | None:
    """Return the stored moments of that name, or those of these rows; None where there are none."""
    if of.moments is not None:
        return of.moments.get(name)
    features = of.rows[rows]
    return frechet.moments(features) if len(features) > 1 else None


def _of_pairs(
    pairs: ImagePairs,
    name: str,
    metrics: tuple[str, ...],
    kernel_name: str,
    strata: Strata | None = None,
) -> tuple[dict[str, Any], str | None]:
    """Return the kernel distance and precision, recall … of one of the comparisons, null where they
    are not defined; and why there is no interval, None where there is one.
    """
    out: dict[str, Any] = {}
    why, number = None, pairs.numbers.get(name)
    if "kernel" in metrics:
        out[kernel_name] = None
        if number is not None:
            order = pairs.reals.numpy(), pairs.samples.numpy()
            within = strata and (strata[0][order[0]], strata[1][order[1]])
            found = kernel.of_pairs(pairs.pairs, number, within)
            why, interval = found.why, found.interval
            out |= {kernel_name: found.value, f"{kernel_name}_sd": found.sd}
            out[f"{kernel_name}_interval"] = None if interval is None else list(interval)
    if number is not None and pairs.balls(name):
        out |= manifold.of_pairs(pairs.pairs, number)
    elif "manifold" in metrics and name == "whole":
        out |= dict.fromkeys(("precision", "recall", "density", "coverage"))
    return out, why


def _by_design(classes: Classes, used: int) -> Strata:
    """Return the classes of both sets where their numbers were given, not drawn: the same share of
    every class in both, or as many of each class. Else one class for all.
    """
    both = (classes.real[:used], classes.samples)
    counts = [np.bincount(x, minlength=len(classes.names)) for x in both]
    same = np.array_equal(counts[0] * len(both[1]), counts[1] * len(both[0]))
    a, b = (
        x if same or np.ptp(count[count > 0]) == 0 else np.zeros_like(x)
        for x, count in zip(both, counts, strict=True)
    )
    return a, b


def _as_run_error(metric: Callable[[Any, Any], float], a: Any, b: Any) -> float:
    try:
        return metric(a, b)
    except ValueError as error:
        raise RunError(str(error)) from error
