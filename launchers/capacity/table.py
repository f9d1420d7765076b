"""The table of a capacity study, as Markdown and as CSV. Imports no torch."""

from distgan.core.files import csv_text
from distgan.launchers.capacity.measurement import DOCUMENTS, ROAD_MAP, Documents, Milestone, Row
from distgan.launchers.capacity.recommendation import recommend

COLUMNS = (  # of the CSV
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
    "hours",
    "documents_hours",
    "disk_mb",
    "documents_disk_mb",
    "diversity",
    "coverage",
    "metric",
    "score",
    "best_epoch",
    "samples",
    "documents_fid",
    "device",
    "processes",
    "warnings",
    "verdict",
)


# ---- showing
def text(rows: list[Row], limit_gb: float | None = None) -> str:
    """Return Markdown that also reads well on a terminal: table, legend, recommendation."""
    width, reasons = recommend(rows, limit_gb)
    metrics = {row.measure[0] for row in rows if row.measure}
    heads = (
        "ngf = ndf",
        "parameters of G",
        "of D",
        "together",
        "peak memory",
        "checkpoint",
        "disk",
        "time per epoch",
        "total hours",
        "diversity",
        "coverage",
        f"best {' or '.join(sorted(metrics)) or 'score'}",
        "run",
    )
    table = _markdown([heads, *(_cells(row) for row in rows)])
    verdict = f"Recommended: ngf = ndf = {width}" if width else "No recommendation"
    return (
        f"{table}\n\n{_legend(rows, metrics)}\n\n{verdict}\n\n"
        + "\n".join(f"* {reason}" for reason in reasons)
        + "\n\nVerdicts\n\n"
        + "\n".join(f"* {row.width}: {row.verdict or row.state}" for row in rows)
        + f"\n\nRoad maps of the capacity document\n\n{_road_map(rows)}\n"
    )


def _markdown(lines: list[tuple[str, ...]]) -> str:
    """Return a table; the first line is its heading."""
    lines = [lines[0], tuple("---" for _ in lines[0]), *lines[1:]]
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    return "\n".join(
        "| "
        + " | ".join(
            cell.ljust(n, "-" if cell == "---" else " ")
            for cell, n in zip(line, widths, strict=True)
        )
        + " |"
        for line in lines
    )


def _road_map(rows: list[Row]) -> str:
    """Return the phases of the specifications beside what each width had measured by that epoch."""
    heads = ("by epoch", "document", "expected", *(str(row.width) for row in rows))
    lines = [heads]
    for mark in ROAD_MAP:
        low = f"{mark.low:g}–" if mark.low is not None else "below "
        expected = f"{mark.number} {low}{mark.high:g}"
        measured = (_at(row, mark) for row in rows)
        lines.append((str(mark.epoch), mark.study, expected, *measured))
    return _markdown(lines)


def _at(row: Row, mark: Milestone) -> str:
    """Return the score or D(x) of the last measurement by that epoch; – before it is reached.

    A score of another metric than FID stands with its name.
    """
    points = row.scores if mark.number == "FID" else row.real_prob
    reached = [value for epoch, value in points if epoch < mark.epoch + 1]
    if not reached or row.epochs < mark.epoch:
        return "–"
    other = mark.number == "FID" and row.measure and row.measure[0] != "fid"
    return f"{reached[-1]:.3g}" + (f" {row.measure[0]}" if other and row.measure else "")


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
        _pair(row.parameters and sum(row.parameters), "{:,}", docs and f"{docs.both:g} M"),
        _pair(row.memory_mb and row.memory_mb / 1000, "{:.2f} GB", memory),
        _pair(
            row.checkpoint_mb,
            "{:.0f} MB",
            docs and docs.checkpoint_mb and f"{docs.checkpoint_mb:g} MB",
        ),
        _pair(row.disk_mb, "{:.0f} MB", docs and docs.disk_mb and f"{docs.disk_mb:g} MB"),
        _pair(row.epoch_s, "{:.3g} s", docs and docs.epoch_min and f"{60 * docs.epoch_min:g} s"),
        _pair(row.hours, "{:.3g}", docs and docs.hours and f"{docs.hours:g}"),
        _pair(row.diversity, "{:.3g}", None),
        _pair(row.coverage, "{:.0%}", None),
        _pair(score, "{}", docs and docs.fid and f"FID {docs.fid}"),
        "; ".join([state, *row.warnings]),
    )


def _pair(measured: object, form: str, estimate: object) -> str:
    """Return `3,824,514 (2.4 M)`; without a measurement the estimate stands alone."""
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
            " brackets: the capacity document's estimates, for a T4 and a batch of 32."
        ),
        (
            "Parameters: the capacity document's figure for G at 64 contradicts the network that it"
            " describes. Its 4x4 kernels 128-512-256-128-64-1 alone hold 16*(128*512 + 512*256 +"
            " 256*128 + 128*64 + 64*1) = 3,802,112 weights, not 2.4 M."
        ),
        "Peak memory: "
        + (
            "resident in the process of rank 0, with Python and torch (half a GB) and the data"
            if on_cpu
            else "allocated on the GPU of rank 0"
        )
        + ". Checkpoint: weights and two moments of Adam for both networks, and the average of G;"
        " that document's is the weights alone, 4 bytes each.",
        (
            "Time per epoch: training alone, the median of the journal's speeds, without"
            " validations and evaluations. Total hours: of all attempts, with those; that"
            " document's are of 3000 epochs. Disk: all files of the run; that document's is 15"
            " checkpoints."
        ),
        "Diversity (1: that of real images) and coverage (of real images): at the end.",
    ]
    if metrics and metrics != {"fid"}:
        notes.append(
            "The score is no FID (there were no Inception weights): it compares these runs with"
            " each other, not with the capacity document's FID."
        )
    return "\n".join(notes)


def table_csv(rows: list[Row]) -> str:
    """Return the rows as CSV, with the estimates in columns of their own."""
    lines = []
    for row in rows:
        docs = DOCUMENTS.get(row.width) or Documents(0)
        metric, samples, _ = row.measure or (None, None, None)
        memory = f"{docs.memory_gb[0]:g}–{docs.memory_gb[1]:g}" if docs.memory_gb else None
        lines.append(
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
                row.hours,
                docs.hours,
                row.disk_mb,
                docs.disk_mb,
                row.diversity,
                row.coverage,
                metric,
                row.score,
                row.best_epoch,
                samples,
                docs.fid,
                row.device,
                row.processes,
                " ".join(row.warnings),
                row.verdict,
            ]
        )
    return csv_text(COLUMNS, lines)
