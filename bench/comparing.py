"""All metrics of 20,000 + 20,000 features of 2,048, in one pass over pairs of images and in many.

CPU seconds on one thread and peak memory; limit: a third of the time. Many passes are those of
distgan before 0.2: four sums of the kernel, three matrices of distances for precision and recall,
two for `nearest`, all but these again for either half of the floor, and moments for each size of
the limit of infinite samples. Since they take ten minutes every `PART`-th stretch of rows is
computed and the time multiplied; the numbers are compared, to 1e-10, on fewer samples, of which
both compute all. Each way runs in a process of its own.
"""

import multiprocessing
import resource
import time

import torch

from distgan.core import rng
from distgan.evaluation.image_pairs import disjoint_halves
from distgan.evaluation.image_scores import METRICS, SetStatistics, compare
from distgan.metrics import frechet, manifold

N, D, HELD_OUT, PART = 20_000, 2048, 10, 16  # one image of 10 is held out
NAMES = ("frechet_standin", "kernel_standin")


def main(quick: bool = False, only: str = "") -> None:
    n, d = (300, 16) if quick else (N, D)
    few = 200 if quick else 2000
    ways = {"one pass": one_pass, "many passes": many_passes}
    spent = {}
    for name, way in ways.items():
        cpu, peak, _ = _apart(way, n, d, 1 if quick else PART)
        spent[name] = cpu
        print(f"{name}: {n:,} + {n:,} of {d}: {cpu:.1f} CPU s, peak {peak:.2f} GiB", flush=True)
    one, each = spent.values()
    print(f"{one / each:.3f} of the CPU time (limit 0.333)")
    (_, _, mine), (_, _, theirs) = (_apart(way, few, d, 1) for way in ways.values())
    worst = max(abs(mine[name] / theirs[name] - 1) for name in theirs)
    print(f"{few:,} + {few:,}: relative difference {worst:.1e} at most (limit 1e-10)")


def _apart(way, *args):
    """(CPU seconds, peak GiB, result) of `way(*args)` in a process of its own."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_measured, (way, *args))


def _measured(way, n, d, part):
    torch.set_num_threads(1)
    sets = features(n, d)
    cpu, result = way(*sets, part)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return cpu, peak, result


def features(n: int, d: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    mix = torch.randn(d, d, generator=generator) / d**0.5
    return [
        (torch.randn(n, d, generator=generator) @ mix * scale + 1).relu() for scale in (1, 1.05)
    ]


def one_pass(real, fake, part):
    n, began = len(real), time.process_time()
    sets = SetStatistics(n, n - n // HELD_OUT, real), SetStatistics(n, 0, fake)
    metrics = tuple(name for name in METRICS if name != "sliced")
    result = compare(*sets, metrics, NAMES, n, 0, True)
    cpu = time.process_time() - began
    floor = result["floor"]
    names = ("score", NAMES[1], "precision", "recall", "density", "coverage")
    found = {name: result[name] for name in (*names, "nearest")}
    found |= {
        f"{side} {name}": floor[side][name] for side in ("real", "generated") for name in names
    }
    return cpu, found | {"infinity": result["score_at_infinity"] or 1.0}


def many_passes(real, fake, part):
    n, k = len(real), len(real) // 2
    began = time.process_time()
    first, second = (real[rows] for rows in disjoint_halves(n, n))
    found = {"score": frechet.distance(real, fake)}
    frechet.spread(real, fake, 0)
    found["infinity"] = _at_infinity(real, fake) or 1.0
    once, began = time.process_time() - began, time.process_time()
    for name, a, b in (("", real, fake), ("real ", first, second), ("generated ", first, fake[:k])):
        if name:
            started = time.process_time()
            found[f"{name}score"] = frechet.distance(a, b)
            once, began = (
                once + time.process_time() - started,
                began + time.process_time() - started,
            )
        found[f"{name}{NAMES[1]}"] = _kernel(a, b, part)
        found |= {f"{name}{key}": value for key, value in _manifold(a, b, part).items()}
    train, held_out = real[: n - n // HELD_OUT], real[n - n // HELD_OUT :]
    near = [
        torch.cat([x.min(1).values for _, x in _rows(x, train, part)]) for x in (fake, held_out)
    ]
    found["nearest"] = float(near[0].median() / near[1].median())
    return once + (time.process_time() - began) * part, found


def _at_infinity(a, b):
    """The line of `frechet.at_infinity`, with moments of each size by themselves."""
    n, d = len(a), a.shape[1]
    if n < 2 * d:
        return None
    order = [
        torch.from_numpy(rng.numpy_generator(0, "metrics/infinity", i).permutation(n))
        for i in range(2)
    ]
    sizes = torch.linspace(n / 4, n, 8).long().tolist()
    found = [frechet.distance(a[order[0][:k]], b[order[1][:k]]) for k in sizes]
    ones = torch.tensor([[1.0, 1 / k] for k in sizes], dtype=torch.float64)
    found = torch.tensor(found, dtype=torch.float64)
    return float(torch.linalg.lstsq(ones, found[:, None]).solution[0, 0])


def _kernel(a, b, part):
    n, m = len(a), len(b)
    own, other = _sums(a, a, part, True).sum(), _sums(b, b, part, True).sum()
    across, _ = _sums(a, b, part).sum(), _sums(b, a, part)
    return float(own / (n * (n - 1)) + other / (m * (m - 1)) - 2 * across / (n * m))


def _sums(a, b, part, skip=False):
    found = []
    for rows in a.split(1024)[::part]:
        rows = rows.double()
        total = sum(
            (rows @ other.double().T / a.shape[1] + 1).pow_(3).sum(1) for other in b.split(1024)
        )
        found.append(total - (rows.square().sum(1) / a.shape[1] + 1).pow(3) if skip else total)
    return torch.cat(found)


def _manifold(real, fake, part):
    k = manifold.K
    radii = []
    for x in (real, fake):
        radius = torch.zeros(len(x), dtype=torch.float64)
        for rows, distances in _rows(x, x, part):
            distances[torch.arange(len(distances)), rows] = torch.inf
            radius[rows] = distances.kthvalue(k, 1).values
        radii.append(radius)
    around = torch.zeros(len(fake), dtype=torch.float64)
    inside, near = (torch.zeros(len(real), dtype=torch.bool) for _ in range(2))
    for rows, distances in _rows(fake, real, part):
        within = distances <= radii[0]
        around[rows] = within.sum(1).double()
        near |= within.any(0)
        inside |= (distances <= radii[1][rows, None]).any(0)
    return {
        "precision": float((around > 0).double().mean()),
        "recall": float(inside.double().mean()),
        "density": float(around.mean()) / k,
        "coverage": float(near.double().mean()),
    }


def _rows(a, b, part):
    middle = sum(x.double().sum(0) for x in b.split(512)) / len(b)
    for start in range(0, len(a), 512 * part):
        x = a[start : start + 512].double() - middle
        distances = [torch.cdist(x, other.double() - middle) for other in b.split(4096)]
        yield torch.arange(start, start + len(x)), torch.cat(distances, 1)


if __name__ == "__main__":
    main()
