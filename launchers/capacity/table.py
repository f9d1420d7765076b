"""What widths cost and gain.

The runs of a capacity study -> rows, a recommendation, one table, one plot. Imports no torch.
"""

import csv
import io
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from distgan.core.errors import RunError
from distgan.runs.history import is_run, read_history

WITHIN = 0.10  # scores this close are taken for equal: about what another seed changes
LEARNT = 0.50  # of the untrained networks' score: above it there is nothing to compare yet
OVERFITTING = ("d_overfitting", "overfitting")


@dataclass(frozen=True)
class Documents:
    """What the source documents estimate for a width.

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
    """One width, as measured; None is what its run does not say (yet)."""

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
    measure: tuple[str, int, int] | None = (
        None  # metric, generated samples, real images: only scores measured alike are compared
    )
    scores: tuple[tuple[float, float], ...] = ()  # (epoch, score)
    warnings: tuple[str, ...] = ()
    overfit: float | None = None

    @property
    def overfits(self) -> bool:
        return any(rule in OVERFITTING for rule in self.warnings)


# ---- measuring
def measure(width: int, folder: Path) -> Row:
    """The row of a run folder, also of one that is not there, trains still or is damaged."""
    if not is_run(folder):
        return Row(width, "not begun")
    try:
        return _measure(width, folder)
    except (
        RunError,
        TypeError,
        ValueError,
        KeyError,
        AttributeError,
    ) as error:  # the last four: JSON of another shape than ours
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
        (found["parameters"] for found in reversed(attempts) if found.get("parameters")), None
    )
    return Row(
        width,
        "done" if (folder / "DONE").is_file() else run.state,
        epochs=run.epoch,
        parameters=(parameters["G"], parameters["D"]) if parameters else None,
        memory_mb=max(
            (found["peak_memory_mb"] for found in attempts if found.get("peak_memory_mb")),
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


# ---- recommending
def recommend(rows: list[Row], limit_gb: float | None = None) -> tuple[int | None, list[str]]:
    """The narrowest width that scores like the best one and is sound, and the reasons.

    None where there is nothing to choose from.
    """
    left_out = {
        row.width: f"{row.width} is left out: {row.state}, epoch {row.epochs:.4g}"
        for row in rows
        if row.state != "done" or row.score is None
    }
    for row in rows:
        if (
            row.width not in left_out
            and limit_gb
            and row.memory_mb
            and row.memory_mb > 1000 * limit_gb
        ):
            left_out[row.width] = (
                f"{row.width} is left out: it takes {row.memory_mb / 1000:.3g} GB, allowed are"
                f" {limit_gb:g}"
            )
    alike: dict[tuple, list[Row]] = {}
    for row in rows:
        if row.width not in left_out:
            alike.setdefault(row.measure, []).append(row)
    kept = max(alike.values(), key=len, default=[])
    for row in (row for group in alike.values() for row in group if group is not kept):
        left_out[row.width] = (
            f"{row.width} is left out: its score is {_measured(row)}, that of the others"
            f" {_measured(kept[0])}"
        )
    if len(kept) < 2:
        return None, [
            *left_out.values(),
            "at least two finished widths whose scores were measured alike are needed to compare",
        ]
    best = min(kept, key=lambda row: row.score)
    untrained = max(
        (row.scores[0][1] for row in kept if row.scores and row.scores[0][0] == 0), default=None
    )
    if untrained and best.score > LEARNT * untrained:
        return None, [
            *left_out.values(),
            (
                f"the best score, {best.score:.4g} at {best.width}, is {best.score / untrained:.0%}"
                f" of the untrained networks' {untrained:.4g}: no width has learnt enough to be"
                " compared; train longer (epochs=…)"
            ),
        ]
    close = [row for row in kept if row.score <= best.score * (1 + WITHIN)]
    chosen = min([row for row in close if not row.overfits] or close, key=lambda row: row.width)
    return chosen.width, [*_why(chosen, best, kept), *left_out.values()]


def _measured(row: Row) -> str:
    metric, samples, reals = row.measure
    return f"{metric} of {samples} samples against {reals} images"


def _why(chosen: Row, best: Row, kept: list[Row]) -> list[str]:
    def beside(row: Row) -> str:
        return f"{row.width}: {row.score:.4g} ({row.score / best.score - 1:+.0%})"

    why = [f"{best.width} has the best {best.measure[0]}, {best.score:.4g}"]
    if chosen is not best:
        shares = [
            f"{mine / theirs:.0%} of its {what}"
            for what, mine, theirs in _costs(chosen, best)
            if mine and theirs
        ]
        why.append(
            f"{beside(chosen)} lies within {WITHIN:.0%} of"
            f" it{', with ' * bool(shares)}{', '.join(shares)}"
        )
    for row in sorted((row for row in kept if row.width < chosen.width), key=lambda row: row.width):
        near = row.score <= best.score * (1 + WITHIN)
        why.append(
            f"{beside(row)} "
            + (
                "lies as near, but its D overfits"
                if near
                else f"is worse by more than {WITHIN:.0%}"
            )
        )
    wider = [
        beside(row)
        for row in sorted(kept, key=lambda row: row.width)
        if row.width > chosen.width and row is not best
    ]
    if wider:
        why.append(f"wider is no better: {', '.join(wider)}")
    if chosen.overfits:
        why.append(
            "its D"
            f" overfits{f' (valid/overfit {chosen.overfit:.2g})' if chosen.overfit is not None else ''}:"
            " it knows training images from held-out ones; keep its best checkpoint, and look at"
            " the samples"
        )
    others = [rule for rule in chosen.warnings if rule not in OVERFITTING]
    if others:
        why.append(
            f"its run ended with warnings: {', '.join(others)}; distgan report has their advice"
        )
    if chosen.width == max(row.width for row in kept):
        why.append("nothing wider was compared")
    if chosen.best_epoch and chosen.best_epoch >= 0.95 * chosen.epochs:
        why.append(
            f"its best score is that of its last evaluations (epoch {chosen.best_epoch:.4g}): more"
            " epochs may change this"
        )
    if max(row.epochs for row in kept) > 1.01 * min(row.epochs for row in kept):
        why.append(
            "the widths were trained to different epochs: "
            + ", ".join(f"{row.width}: {row.epochs:.4g}" for row in kept)
        )
    return why


def _costs(a: Row, b: Row) -> list[tuple[str, float | None, float | None]]:
    both = [
        (sum(row.parameters) if row.parameters else None, row.epoch_s, row.memory_mb)
        for row in (a, b)
    ]
    return list(zip(("parameters", "time per epoch", "memory"), *both, strict=True))


# ---- showing
def text(rows: list[Row], limit_gb: float | None = None) -> str:
    """Markdown that is also read on a terminal: table, what stands in it, recommendation."""
    width, reasons = recommend(rows, limit_gb)
    metrics = {row.measure[0] for row in rows if row.measure}
    heads = (
        "ngf = ndf",
        "parameters of G",
        "of D",
        "together",
        "peak memory",
        "checkpoint",
        "time per epoch",
        f"best {' or '.join(sorted(metrics)) or 'score'}",
        "run",
    )
    lines = [heads, tuple("---" for _ in heads), *(_cells(row) for row in rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(heads))]
    table = "\n".join(
        "| "
        + " | ".join(
            cell.ljust(n, "-" if cell == "---" else " ")
            for cell, n in zip(line, widths, strict=True)
        )
        + " |"
        for line in lines
    )
    verdict = f"Recommended: ngf = ndf = {width}" if width else "No recommendation"
    return (
        f"{table}\n\n{_legend(rows, metrics)}\n\n{verdict}\n\n"
        + "\n".join(f"* {reason}" for reason in reasons)
        + "\n"
    )


def _cells(row: Row) -> tuple[str, ...]:
    docs = DOCUMENTS.get(row.width)
    g, d = row.parameters or (None, None)
    memory = docs and docs.memory_gb and f"{docs.memory_gb[0]:g}–{docs.memory_gb[1]:g} GB"
    score = f"{row.score:.4g} @ {row.best_epoch:.4g}" if row.score is not None else None
    state = (
        row.state
        if row.state in ("not begun",) or row.state.startswith("cannot")
        else f"{row.state}, epoch {row.epochs:.4g}"
    )
    return (
        str(row.width),
        _pair(g, "{:,}", docs and docs.g and f"{docs.g:g} M"),
        _pair(d, "{:,}", docs and docs.d and f"{docs.d:g} M"),
        _pair(g and g + d, "{:,}", docs and f"{docs.both:g} M"),
        _pair(row.memory_mb and row.memory_mb / 1000, "{:.2f} GB", memory),
        _pair(
            row.checkpoint_mb,
            "{:.0f} MB",
            docs and docs.checkpoint_mb and f"{docs.checkpoint_mb:g} MB",
        ),
        _pair(row.epoch_s, "{:.3g} s", docs and docs.epoch_min and f"{60 * docs.epoch_min:g} s"),
        _pair(score, "{}", docs and docs.fid and f"FID {docs.fid}"),
        "; ".join([state, *row.warnings]),
    )


def _pair(measured: object, form: str, estimate: str | None | bool) -> str:
    """`3,824,514 (2.4 M)`; without a measurement its estimate stands alone."""
    return " ".join(
        [
            form.format(measured) if measured is not None else "–",
            *([f"({estimate})"] if estimate else []),
        ]
    )


def _legend(rows: list[Row], metrics: set[str]) -> str:
    where = {
        f"{row.device}, {row.processes} process{'es' * (row.processes != 1)}"
        for row in rows
        if row.device
    }
    on_cpu = any(row.device == "cpu" for row in rows)
    notes = [
        (
            f"Measured on: {'; '.join(sorted(where)) or 'nothing yet'}; one run of each width. In"
            " brackets: the documents' estimates, for a T4 and a batch of 32."
        ),
        (
            "Parameters: the documents' figure for G at 64 contradicts the network they describe."
            " Its 4x4 kernels 128-512-256-128-64-1 alone hold 16*(128*512 + 512*256 + 256*128 +"
            " 128*64 + 64*1) = 3,802,112 weights, not 2.4 M."
        ),
        "Peak memory: "
        + (
            "resident in the process of rank 0, with Python and torch (half a GB) and the data"
            if on_cpu
            else "allocated on the GPU of rank 0"
        )
        + ". Checkpoint: weights and two moments of Adam for both networks, and the average of G;"
        " the documents' is the weights alone, 4 bytes each.",
        (
            "Time per epoch: training alone, the median of the journal's speeds, without"
            " validations and evaluations."
        ),
    ]
    if metrics and metrics != {"fid"}:
        notes.append(
            "The score is no FID (there were no Inception weights): it compares these runs with"
            " each other, not with the documents' FID."
        )
    return "\n".join(notes)


def table_csv(rows: list[Row]) -> str:
    """The same as numbers: a row for each width, estimates in columns of their own."""
    out = io.StringIO()
    names = (
        "width",
        "state",
        "epochs",
        "parameters_g",
        "parameters_d",
        "documents_parameters_m",
        "peak_memory_mb",
        "documents_memory_gb",
        "checkpoint_mb",
        "documents_checkpoint_mb",
        "epoch_s",
        "documents_epoch_s",
        "metric",
        "score",
        "best_epoch",
        "samples",
        "documents_fid",
        "device",
        "processes",
        "warnings",
    )
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(names)
    for row in rows:
        docs = DOCUMENTS.get(row.width) or Documents(0)
        metric, samples, _ = row.measure or (None, None, None)
        memory = f"{docs.memory_gb[0]:g}–{docs.memory_gb[1]:g}" if docs.memory_gb else None
        writer.writerow(
            [
                row.width,
                row.state,
                row.epochs,
                *(row.parameters or (None, None)),
                docs.both or None,
                row.memory_mb,
                memory,
                row.checkpoint_mb,
                docs.checkpoint_mb,
                row.epoch_s,
                docs.epoch_min and 60 * docs.epoch_min,
                metric,
                row.score,
                row.best_epoch,
                samples,
                docs.fid,
                row.device,
                row.processes,
                " ".join(row.warnings),
            ]
        )
    return out.getvalue()
