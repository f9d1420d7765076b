"""Recommend a width from the rows of a capacity study. Imports no torch."""

from distgan.launchers.capacity.measurement import OVERFITTING, Row, ScoredRow, has_score

WITHIN = 0.10  # scores this close are taken for equal: about what another seed changes


LEARNT = 0.50  # of the untrained networks' score: above it there is nothing to compare yet


# ---- recommending
def recommend(rows: list[Row], limit_gb: float | None = None) -> tuple[int | None, list[str]]:
    """Return the narrowest width that scores like the best one and is sound, and the reasons.

    A width whose run has collapsed, or copies training images, is left out.

    None if there is nothing to choose from.
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
    for row in rows:
        if row.width not in left_out and row.unsound:
            left_out[row.width] = f"{row.width} is left out: {', '.join(row.unsound)}"
    alike: dict[tuple, list[ScoredRow]] = {}
    for row in rows:
        if row.width not in left_out and has_score(row):
            alike.setdefault(row.measure, []).append(row)
    comparable = max(alike.values(), key=len, default=[])
    for row in (row for group in alike.values() for row in group if group is not comparable):
        left_out[row.width] = (
            f"{row.width} is left out: its score is {_measured(row)}, that of the others"
            f" {_measured(comparable[0])}"
        )
    if len(comparable) < 2:
        return None, [
            *left_out.values(),
            "at least two finished widths whose scores were measured alike are needed to compare",
        ]
    best = min(comparable, key=lambda row: row.score)
    untrained = max(
        (row.scores[0][1] for row in comparable if row.scores and row.scores[0][0] == 0),
        default=None,
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
    close = [row for row in comparable if row.score <= best.score * (1 + WITHIN)]
    chosen = min([row for row in close if not row.overfits] or close, key=lambda row: row.width)
    return chosen.width, [*_why(chosen, best, comparable), *left_out.values()]


def _measured(row: ScoredRow) -> str:
    metric, samples, reals = row.measure
    return f"{metric} of {samples} samples against {reals} images"


def _why(chosen: ScoredRow, best: ScoredRow, comparable: list[ScoredRow]) -> list[str]:
    def beside(row: ScoredRow) -> str:
        return f"{row.width}: {row.score:.4g} ({row.score / best.score - 1:+.0%})"

    why = [f"{best.width} has the best {best.measure[0]}, {best.score:.4g}"]
    if chosen is not best:
        shares = [
            f"{chosen_value / best_value:.0%} of its {what}"
            for what, chosen_value, best_value in _costs(chosen, best)
            if chosen_value and best_value
        ]
        why.append(
            f"{beside(chosen)} is within {WITHIN:.0%} of"
            f" it{', with ' * bool(shares)}{', '.join(shares)}"
        )
    for row in sorted(
        (row for row in comparable if row.width < chosen.width), key=lambda row: row.width
    ):
        near = row.score <= best.score * (1 + WITHIN)
        why.append(
            f"{beside(row)} "
            + ("is as good, but its D overfits" if near else f"is worse by more than {WITHIN:.0%}")
        )
    wider = [
        beside(row)
        for row in sorted(comparable, key=lambda row: row.width)
        if row.width > chosen.width and row is not best
    ]
    if wider:
        why.append(f"wider is no better: {', '.join(wider)}")
    if chosen.overfits:
        overfit = f" (valid/overfit {chosen.overfit:.2g})" if chosen.overfit is not None else ""
        why.append(
            f"its D overfits{overfit}: it tells training images from held-out ones; keep its best"
            " checkpoint, and look at the samples"
        )
    why += _unknown(chosen)
    others = [rule for rule in chosen.warnings if rule not in OVERFITTING]
    if others:
        why.append(
            f"its run ended with warnings: {', '.join(others)}; distgan report has their advice"
        )
    if chosen.width == max(row.width for row in comparable):
        why.append("nothing wider was compared")
    if chosen.best_epoch and chosen.best_epoch >= 0.95 * chosen.epochs:
        why.append(
            f"its best score is that of its last evaluations (epoch {chosen.best_epoch:.4g}): more"
            " epochs may change this"
        )
    if max(row.epochs for row in comparable) > 1.01 * min(row.epochs for row in comparable):
        why.append(
            "the widths were trained to different epochs: "
            + ", ".join(f"{row.width}: {row.epochs:.4g}" for row in comparable)
        )
    return why


def _unknown(row: Row) -> list[str]:
    """Return a reason to look at the samples, where nothing measured their variety."""
    names = ("diversity", "coverage")
    missing = [name for name in names if getattr(row, name) is None]
    were = "was" if len(missing) == 1 else "were"
    said = f"its {' and '.join(missing)} {were} not measured: look at its samples"
    return [said] if missing else []


def _costs(a: Row, b: Row) -> list[tuple[str, float | None, float | None]]:
    both = [
        (sum(row.parameters) if row.parameters else None, row.epoch_s, row.memory_mb)
        for row in (a, b)
    ]
    return list(zip(("parameters", "time per epoch", "memory"), *both, strict=True))
