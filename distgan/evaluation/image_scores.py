"""Scores that compare two sets of images, put together from distgan.metrics, each beside its floor.

Pure functions, for one process.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from distgan.core import rng
from distgan.core.errors import RunError
from distgan.metrics import frechet, kernel, manifold, sliced

METRICS = ("frechet", "kernel", "manifold", "sliced", "nearest")
CHEAP = ("frechet", "kernel", "nearest")  # at every evaluation of a training
# Images of a class, on either side, from which on its Fréchet distance tells more than its floor
# varies: docs/evaluation.md, By class.
FEWEST = 16


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


@dataclass(frozen=True)
class Classes:
    """The classes of a column of labels: that of each real image, and that of each sample [n]."""

    column: str
    names: tuple[str, ...]
    real: np.ndarray
    samples: np.ndarray


def disjoint_halves(n: int, limit: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the numbers of two disjoint random sets of min(n // 2, limit) of n images each.

    The distance between the two is the floor: real images against real images.
    """
    order = torch.from_numpy(rng.numpy_generator(0, "evaluate/floor", n).permutation(n))
    k = min(n // 2, limit)
    return order[:k], order[k : 2 * k]


def compare(
    real: SetStatistics,
    fake: SetStatistics,
    metrics: tuple[str, ...],
    names: tuple[str, str],
    used: int,
    seed: int,
    thorough: bool,
) -> dict[str, Any]:
    """Score `fake` against the first `used` real images.

    `names`: of the Fréchet and the kernel distance. `thorough`: standard deviations and limits,
    too. RunError where a metric is not defined.
    """
    if real.moments is not None or fake.moments is not None:
        return _compare_moments(real, fake, names[0], used)
    a, b = real.features[:used], fake.features
    defined = min(len(a), len(b)) > 1
    result: dict[str, Any] = {
        "metric": names[0],
        "score": _as_run_error(frechet.distance, a, b) if defined else None,
    }
    if thorough and defined:
        sd, sd_method = frechet.spread(a, b, seed)
        limit, limit_method = frechet.at_infinity(a, b, seed)
        result |= {
            "score_sd": sd,
            "score_sd_by": sd_method,
            "score_at_infinity": limit,
            "score_at_infinity_by": limit_method,
            "features": a.shape[1],
        }
    if "kernel" in metrics:
        result |= _kernel(a, b, names[1])
    if "manifold" in metrics:
        if min(len(a), len(b)) > manifold.K:
            result |= manifold.manifold(a, b)
        else:
            result |= dict.fromkeys(("precision", "recall", "density", "coverage"))
        result["k"] = manifold.K
    if "sliced" in metrics:
        result["sliced_wasserstein"] = sliced.distance(real.projections[:used], fake.projections)
    if "nearest" in metrics:
        held_out = real.features[real.training :]
        result["nearest"] = manifold.nearest(
            b, real.features[: real.training], held_out if len(held_out) else None
        )
    result["floor"] = _floor(real, fake, metrics, names, used, thorough)
    return result | ({"reasons": _reasons(result, len(a), len(b), names[1])} if thorough else {})


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


def _floor(
    real: SetStatistics,
    fake: SetStatistics,
    metrics: tuple[str, ...],
    names: tuple[str, str],
    used: int,
    thorough: bool,
) -> dict[str, Any] | None:
    """Return {"samples": k, "real": …, "generated": …}; None below two images in a half.

    Both score k real images: "real" against k others, "generated" against the first k samples.
    """
    first, second = disjoint_halves(used, fake.n)
    k = len(first)
    if k < 2:
        return None

    def scores(features: torch.Tensor, projections: torch.Tensor | None) -> dict[str, Any]:
        reference = real.features[first]
        out: dict[str, Any] = {"score": _as_run_error(frechet.distance, reference, features)}
        if "kernel" in metrics:
            out |= _kernel(reference, features, names[1])
        if thorough and "manifold" in metrics and k > manifold.K:
            out |= manifold.manifold(reference, features)
        if thorough and "sliced" in metrics:
            out["sliced_wasserstein"] = sliced.distance(real.projections[first], projections)
        return out

    def projections(of: SetStatistics, rows: Any) -> torch.Tensor | None:
        return None if of.projections is None else of.projections[rows]

    return {
        "samples": k,
        "real": scores(real.features[second], projections(real, second)),
        "generated": scores(fake.features[:k], projections(fake, slice(k))),
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
        a = real.features[:used][torch.from_numpy(classes.real[:used] == number)]
        b = fake.features[torch.from_numpy(classes.samples == number)]
        if len(a) or len(b):
            sizes = {"class": name, "reals": len(a), "samples": len(b)}
            rows.append(sizes | _of_class(a, b, metrics, names))
    return {
        "column": classes.column,
        "features": real.features.shape[1],
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
    features = of.features[rows]
    return frechet.moments(features) if len(features) > 1 else None


def _kernel(a: torch.Tensor, b: torch.Tensor, name: str) -> dict[str, Any]:
    if min(len(a), len(b)) < 3:
        return {name: None}
    result = kernel.distance(a, b)
    return {name: result.value, f"{name}_sd": result.sd, f"{name}_interval": list(result.interval)}


def _as_run_error(metric: Callable[[Any, Any], float], a: Any, b: Any) -> float:
    try:
        return metric(a, b)
    except ValueError as error:
        raise RunError(str(error)) from error
