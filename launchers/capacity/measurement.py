"""Measure the runs of a capacity study: a row for each width. Imports no torch."""

from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TypeGuard

from distgan.core.errors import RunError
from distgan.runs.history import is_run, one_error, read_history

OVERFITTING = ("d_overfitting", "overfitting")


@dataclass(frozen=True)
class Documents:
    """Estimates of the source documents for a width.

    Millions of parameters, FID, GB at batch 32, MB, minutes per epoch on a T4.
    """

    both: float
    g: float | None = None
    d: float | None = None
    fid: str | None = None
    memory_gb: tuple[float, float] | None = None
    checkpoint_mb: float | None = None
    epoch_min: float | None = None


DOCUMENTS = {
    64: Documents(5.1, 2.4, 2.7, "70–80", (5, 6), 20, 2.5),
    80: Documents(7.2),
    96: Documents(11.5, 5.4, 6.1, "60–70", (7, 9), 45, 3.5),
    128: Documents(20.4, fid="55–65, may overfit", memory_gb=(11, 13)),
}


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
    )
