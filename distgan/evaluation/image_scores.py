"""Numbers that compare two sets of images, put together from `metrics`.

What each is called, at which sizes, beside which floor. Pure, for one process.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from distgan.core import rng
from distgan.core.errors import RunError
from distgan.metrics import frechet, kernel, manifold, sliced

METRICS = ("frechet", "kernel", "manifold", "sliced", "nearest")
CHEAP = ("frechet", "kernel", "nearest")  # at every evaluation of a training


@dataclass
class Known:
    """Of one set, on rank 0: features [n, d] and projections [n, 256] in the order of its images,
    or moments of groups of them.

    `training`: the first of them, which a run trained on.
    """

    n: int
    training: int
    features: torch.Tensor | None = None
    projections: torch.Tensor | None = None
    moments: dict[str, frechet.Moments] | None = None  # all; first, second: of the floor's halves

    def arrays(self) -> dict[str, torch.Tensor]:
        """What a file keeps."""
        out = {
            name: value
            for name in ("features", "projections")
            if (value := getattr(self, name)) is not None
        }
        for name, one in (self.moments or {}).items():
            out |= {
                f"{name}.n": torch.tensor([one.n]),
                f"{name}.mean": one.mean,
                f"{name}.cov": one.cov,
            }
        return out

    def load(self, arrays: dict[str, torch.Tensor]) -> None:
        self.features, self.projections = arrays.get("features"), arrays.get("projections")
        names = [name.removesuffix(".n") for name in arrays if name.endswith(".n")]
        self.moments = {
            name: frechet.Moments(
                int(arrays[f"{name}.n"]), arrays[f"{name}.mean"], arrays[f"{name}.cov"]
            )
            for name in names
        } or None


def halves(n: int, limit: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Numbers of two disjoint sets of min(n // 2, limit) images each, drawn without order.

    What is real against what is real.
    """
    order = torch.from_numpy(rng.numpy_generator(0, "evaluate/floor", n).permutation(n))
    k = min(n // 2, limit)
    return order[:k], order[k : 2 * k]


def compare(
    real: Known,
    fake: Known,
    metrics: tuple[str, ...],
    names: tuple[str, str],
    used: int,
    seed: int,
    thorough: bool,
) -> dict[str, Any]:
    """All that is asked for, over the first `used` real images.

    `names`: of the Fréchet and the kernel distance. `thorough`: deviations and limits, too.
    """
    if real.moments is not None:
        return _of_moments(real, fake, names[0], used)
    a, b = real.features[:used], fake.features
    found: dict[str, Any] = {"metric": names[0], "score": _told(frechet.distance, a, b)}
    if thorough:
        sd, how = frechet.spread(a, b, seed)
        limit, way = frechet.at_infinity(a, b, seed)
        found |= {
            "score_sd": sd,
            "score_sd_by": how,
            "score_at_infinity": limit,
            "score_at_infinity_by": way,
            "features": a.shape[1],
        }
    if "kernel" in metrics:
        found |= _kernel(a, b, names[1])
    if "manifold" in metrics:
        k = manifold.K
        enough = min(len(a), len(b)) > k
        found |= (
            manifold.manifold(a, b)
            if enough
            else dict.fromkeys(("precision", "recall", "density", "coverage"))
        ) | {"k": k}
    if "sliced" in metrics:
        found["sliced_wasserstein"] = sliced.distance(real.projections[:used], fake.projections)
    if "nearest" in metrics:
        held_out = real.features[real.training :]
        found["nearest"] = manifold.nearest(
            b, real.features[: real.training], held_out if len(held_out) else None
        )
    return found | {"floor": _floor(real, fake, metrics, names, used, thorough)}


def _floor(
    real: Known,
    fake: Known,
    metrics: tuple[str, ...],
    names: tuple[str, str],
    used: int,
    thorough: bool,
) -> dict[str, Any] | None:
    """{"samples": k, "real": numbers of k real images against k others, "generated": of the same k
    real images against the first k generated ones}.
    """
    first, second = halves(used, fake.n)
    if len(first) < 2:
        return None

    def numbers(features: torch.Tensor, projections: torch.Tensor | None) -> dict[str, Any]:
        out: dict[str, Any] = {"score": _told(frechet.distance, real.features[first], features)}
        if "kernel" in metrics:
            out |= _kernel(real.features[first], features, names[1])
        if thorough and "manifold" in metrics and len(first) > manifold.K:
            out |= manifold.manifold(real.features[first], features)
        if thorough and "sliced" in metrics:
            out["sliced_wasserstein"] = sliced.distance(real.projections[first], projections)
        return out

    k = len(first)
    return {
        "samples": k,
        "real": numbers(
            real.features[second],
            real.projections[second] if real.projections is not None else None,
        ),
        "generated": numbers(
            fake.features[:k], fake.projections[:k] if fake.projections is not None else None
        ),
    }


def _of_moments(real: Known, fake: Known, name: str, used: int) -> dict[str, Any]:
    found: dict[str, Any] = {
        "metric": name,
        "score": _told(frechet.of_moments, real.moments["all"], fake.moments["all"]),
    }
    if real.projections is not None and fake.projections is not None:
        found["sliced_wasserstein"] = sliced.distance(real.projections[:used], fake.projections)
    floor = None
    if "second" in real.moments:
        floor = {
            "samples": real.moments["first"].n,
            "real": {
                "score": _told(frechet.of_moments, real.moments["first"], real.moments["second"])
            },
            "generated": {
                "score": _told(frechet.of_moments, real.moments["first"], fake.moments["first"])
            },
        }
    return found | {"floor": floor}


def _kernel(a: torch.Tensor, b: torch.Tensor, name: str) -> dict[str, Any]:
    if min(len(a), len(b)) < 3:
        return {name: None}
    found = kernel.distance(a, b)
    return {name: found.value, f"{name}_sd": found.sd, f"{name}_interval": list(found.interval)}


def _told(work: Callable[[Any, Any], float], a: Any, b: Any) -> float:
    try:
        return work(a, b)
    except ValueError as error:
        raise RunError(str(error)) from error
