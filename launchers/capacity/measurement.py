"""Measure the runs of a capacity study: a row for each width. Imports no torch."""

from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import NamedTuple, TypeGuard

from distgan.core.errors import RunError
from distgan.monitor.journal import epoch_means, finite
from distgan.runs.history import is_run, one_error, read_history

OVERFITTING = ("d_overfitting", "overfitting")


@dataclass(frozen=True)
class Documents:
    """Estimates of the source documents for a width.

    Millions of parameters, FID, GB at batch 32, MB, minutes per epoch on a T4; hours of 3000
    epochs, MB of 15 checkpoints.
    """

    both: float
    g: float | None = None
    d: float | None = None
    fid: str | None = None
    memory_gb: tuple[float, float] | None = None
    checkpoint_mb: float | None = None
    epoch_min: float | None = None
    hours: float | None = None
    disk_mb: float | None = None


DOCUMENTS = {
    64: Documents(5.1, 2.4, 2.7, "70–80", (5, 6), 20, 2.5, 125, 300),
    80: Documents(7.2),
    96: Documents(11.5, 5.4, 6.1, "60–70", (7, 9), 45, 3.5, 175, 675),
    128: Documents(20.4, fid="55–65, may overfit", memory_gb=(11, 13)),
}
# Criteria that a collapsed run does not meet, nor one whose samples are copies: its width is not
# recommended whatever its score.
SOUND = ("diversity", "coverage", "distance from training images")


class Milestone(NamedTuple):
    """An expectation of a document: by that epoch, that range (None: open) of FID or D(x)."""

    study: str  # this one, of 3000 epochs, or sagan's, of 2000
    epoch: int
    number: str
    low: float | None
    high: float


ROAD_MAP = (
    Milestone("sagan", 0, "FID", 150, 200),
    Milestone("sagan", 200, "FID", 80, 100),
    Milestone("capacity", 500, "D(x)", 0.7, 0.9),
    Milestone("sagan", 500, "FID", 60, 80),
    Milestone("sagan", 1000, "FID", 50, 60),
    Milestone("capacity", 1500, "FID", 65, 70),
    Milestone("sagan", 1500, "FID", None, 50),
    Milestone("capacity", 3000, "FID", 60, 65),
)


@dataclass(frozen=True)
class Row:
    """The measurements of one width; None for what its run does not record (yet)."""

    width: int
    state: str  # done, stopped, failed, running, not begun, or why it cannot be read
    epochs: float = 0.0
    parameters: tuple[int, int] | None = None  # of G, of D
    memory_mb: float | None = (
        None  # the most that any attempt held on rank 0: allocated on a GPU, else resident
    )
    device: str | None = None
    processes: int | None = None
    epoch_s: float | None = None  # of training alone
    checkpoint_mb: float | None = None
    score: float | None = None  # the best; lower is better
    best_epoch: float | None = None
    measure: tuple[str, int | None, int | None] | None = (
        None  # metric, generated samples, real images: only scores measured alike are compared
    )
    scores: tuple[tuple[float, float], ...] = ()  # (epoch, score)
    warnings: tuple[str, ...] = ()
    overfit: float | None = None
    diversity: float | None = None  # 1: that of real images
    coverage: float | None = None  # share of real images
    unsound: tuple[str, ...] = ()  # what the verdict says of criteria of SOUND that are not met
    verdict: str = ""
    hours: float | None = None  # of all attempts
    disk_mb: float | None = None  # of all files of the run
    real_prob: tuple[tuple[float, float], ...] = ()  # (epoch, D(x)), means over epochs

    @property
    def overfits(self) -> bool:
        return any(rule in OVERFITTING for rule in self.warnings)


class ScoredRow(Row):
    """A row that `has_score`."""

    score: float
    measure: tuple[str, int | None, int | None]


def has_score(row: Row) -> TypeGuard[ScoredRow]:
    return row.score is not None


# ---- measuring
def measure(width: int, folder: Path) -> Row:
    """Measure a run folder, even one that is missing, still training or damaged."""
    if not is_run(folder):
        return Row(width, "not begun")
    try:
        with one_error():
            return _measure(width, folder)
    except RunError as error:
        return Row(width, f"cannot be read: {error}")


def _measure(width: int, folder: Path) -> Row:
    run = read_history(folder)
    attempts = list(run.attempts.values())
    last = attempts[-1] if attempts else {}
    images = (last.get("data") or {}).get("train")
    # The journal's speed leaves out validations and evaluations, begins anew with each attempt, and
    # has waited for the device, as the rows' own times have not.
    speeds = [row["samples_per_second"] for row in run.rows if row.get("samples_per_second")]
    best, key = run.best, f"eval/{run.metric}"
    scored = run.evaluations[-1] if run.evaluations else {}
    parameters = next(
        (attempt["parameters"] for attempt in reversed(attempts) if attempt.get("parameters")), None
    )
    return Row(
        width,
        "done" if (folder / "DONE").is_file() else run.state,
        epochs=run.epoch,
        parameters=(parameters["G"], parameters["D"]) if parameters else None,
        memory_mb=max(
            (attempt["peak_memory_mb"] for attempt in attempts if attempt.get("peak_memory_mb")),
            default=None,
        ),
        device=last.get("device"),
        processes=last.get("processes"),
        epoch_s=images / median(speeds) if images and speeds else None,
        checkpoint_mb=run.checkpoints[-1][1] / 1e6 if run.checkpoints else None,
        score=best["score"] if best else None,
        best_epoch=best["epoch"] if best else None,
        measure=(best["metric"], scored.get("samples"), scored.get("reals")) if best else None,
        scores=tuple(
            (row["epoch"], row[key]) for row in run.rows if isinstance(row.get(key), float)
        ),
        warnings=tuple(finding.rule for finding in run.findings if finding.level == "warning"),
        overfit=run.recent("valid/overfit", 3),
        diversity=run.recent("valid/diversity", 3),
        coverage=run.recent("floor/coverage", 1),
        unsound=tuple(one.fault for one in run.criteria if one.name in SOUND and one.met is False),
        verdict=run.verdict.sentence,
        hours=run.wall_s / 3600 if attempts else None,
        disk_mb=_bytes(folder) / 1e6,
        real_prob=tuple(
            (float(epoch), float(value))
            for epoch, value in epoch_means(finite(run.rows, "d/real_prob"), run.epoch)
        ),
    )


def _bytes(folder: Path) -> int:
    """Return the size of the files of a run; links are not followed."""
    return sum(
        path.lstat().st_size for path in folder.rglob("*") if path.is_symlink() or path.is_file()
    )
