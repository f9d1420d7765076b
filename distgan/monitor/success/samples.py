"""Success criteria of samples from noise, which a failed run cannot meet: variety, coverage of the
real samples, the score beside its floor, no copies. Imports no torch.

The limits are measured (docs/evaluation.md, What a score beside its floor means).
"""

import numpy as np

from distgan.monitor.journal import finite
from distgan.monitor.settings import Watch
from distgan.monitor.success.criterion import Criterion, count

FRECHET = ("eval/fid", "eval/frechet_lite0", "eval/frechet_standin", "eval/frechet_vectors")
FID_GOOD = 50.0  # of sagan and wgan_flowers; another extractor has another scale
DIVERSE = (0.5, 1.5)  # of the spread of real samples; above it is noise
COVERED = 0.5  # of real samples, where other real ones cover 95 %
NEAR = 5.0  # floors, below which samples that vary and cover the reals have not failed
FLOORS = 2.0  # times the score of as many real samples
FEWEST = 16  # samples on either side, below which nothing is judged


def diversity(rows: list[dict], s: Watch) -> Criterion:
    low, high = DIVERSE
    name, required = "diversity", f"{low:g} to {high:g} times that of real samples"
    values = finite(rows, "valid/diversity")
    values = values[values[:, 0] > 0][-s.valid_window :, 1]
    if not len(values):
        return Criterion(name, None, "no validation measured it", required, outcome=True)
    value = float(np.median(values))
    noise = value > high
    fault = f"samples are {'noise' if noise else 'alike'} (diversity {value:.2g})"
    measured = f"{value:.3g} (median of {count(len(values), 'validation')})"
    return Criterion(name, low <= value <= high, measured, required, True, fault, early=True)


def coverage(rows: list[dict]) -> Criterion:
    """Judge the last evaluation: the share of real samples that have a generated one near."""
    name = "coverage"
    required = f"{COVERED:.0%} of real samples have a generated one among their nearest"
    table = finite(rows, "floor/coverage", "floor/samples")
    if not len(table):
        why = "no evaluation measured it; distgan evaluate does"
        return Criterion(name, None, why, required, outcome=True)
    _, share, k = table[-1]
    if k < FEWEST:
        return Criterion(name, None, _too_few(k), required, outcome=True)
    real = finite(rows, "floor/real_coverage")
    beside = f"; {real[-1, 1]:.0%} by as many real ones" if len(real) else ""
    measured = f"{share:.0%} of {k:.0f}{beside}"
    fault = f"{share:.0%} of real samples covered"
    return Criterion(name, bool(share >= COVERED), measured, required, True, fault, early=True)


def score(rows: list[dict], key: str, s: Watch) -> Criterion:
    """Compare the best score with its floor: both of k samples, against the same k real ones."""
    name = key.partition("/")[2]
    required = f"at most {FLOORS:g} times its floor, the score of as many real samples"
    scores = finite(rows, key)
    if not len(scores):
        return Criterion(name, None, "no finite score", required, outcome=True)
    first, best = scores[0], scores[scores[:, 1].argmin()]
    times = f", {first[1] / best[1]:.3g}-fold" if best[1] > 0 else ""
    course = (
        f"{first[1]:.4g} at epoch {first[0]:.4g}, best {best[1]:.4g} at epoch"
        f" {best[0]:.4g}{times}; last {scores[-1, 1]:.4g}"
    )
    table = finite(rows, key, "floor/generated", "floor/real", "floor/samples")
    table = table[(table[:, 3] > 0) & (table[:, 4] >= FEWEST)]
    if len(table):
        _, _, at_samples, floor, k = table[table[:, 1].argmin()]
        ratio = at_samples / floor
        measured = f"{ratio:.3g} times ({at_samples:.4g} and {floor:.4g}, of {k:.0f}); {course}"
        fault = f"{name} {ratio:.3g} times its floor"
        met = bool(ratio <= FLOORS)
        near = bool(ratio <= NEAR)
        return Criterion(name, met, measured, required, True, fault, early=True, near=near)
    if len(scores) > 1 and best[1] >= first[1] * (1 - s.score_flat_change):
        return Criterion(name, False, course, required, True, f"{name} never fell")
    return Criterion(name, None, f"no floor is known; {course}", required, outcome=True)


def fid(rows: list[dict]) -> Criterion:
    """The documents' limit. Of few images FID has a bias, which may put it out of reach."""
    best = float(finite(rows, "eval/fid")[:, 1].min(initial=np.inf))
    floors = finite(rows, "floor/real", "floor/samples")
    required = f"below {FID_GOOD:g}"
    if not np.isfinite(best):
        return Criterion("FID", None, "no finite score", required, outcome=True)
    if best >= FID_GOOD and len(floors) and floors[-1, 1] >= FID_GOOD:
        measured = f"{best:.4g}; {floors[-1, 2]:.0f} real images score {floors[-1, 1]:.4g}"
        return Criterion("FID", None, measured, required, unreachable=True)
    found = f"{best:.4g}"
    return Criterion("FID", best < FID_GOOD, found, required, True, f"FID {found}", early=True)


def copies(rows: list[dict], s: Watch) -> Criterion:
    name = "distance from training images"
    required = f"at least {s.nearest_low or 0.5:g} of that of unseen images"
    values = finite(rows, "valid/nearest")
    values = values[values[:, 0] > 0][-s.valid_window :, 1]
    if not len(values):
        return Criterion(name, None, "no evaluation measured it", required)
    value = float(np.median(values))
    measured = f"{value:.3g} (median of {count(len(values), 'evaluation')})"
    fault = f"samples copy training images (nearest {value:.2g})"
    return Criterion(name, value >= (s.nearest_low or 0.5), measured, required, True, fault)


def _too_few(k: float) -> str:
    return f"{k:.0f} on either side, {FEWEST} are needed"
