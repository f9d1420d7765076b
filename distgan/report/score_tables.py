"""The tables of scores on the page of a run. Imports no torch."""

from typing import Any

from distgan.report.formatting import number
from distgan.report.judgement import judgement
from distgan.runs import records
from distgan.runs.history import History

MAX_REQUESTED = 12  # evaluations by `distgan evaluate` in the table, the newest
_PARTS = ("precision", "recall", "density", "coverage", "sliced_wasserstein", "nearest")
_MADE_WITH = ("extractor", "weights_sha256", "preprocessing", "path", "seed", "arithmetic")
_DETAILS = ("against", "noise", "averaged", "checkpoint_digest", "score_sd_by", "time")


def image_scores(run: History) -> dict[str, Any] | None:
    """Return the table of image scores, each beside its floor; None where there are none.

    Rows: the best and the last evaluation of the training, and those by `distgan evaluate`.
    """
    scored = [result for result in run.evaluations if result.get("floor")]
    best, rows = (run.best or {}).get("step"), []
    for i, result in enumerate(scored):
        is_best = result.get("step") == best
        if is_best or i == len(scored) - 1:
            label = f"step {result.get('step')}, in training"
            rows.append(_image_row(f"{label}, best" if is_best else label, result))
    requested = [result for result in run.requested if "score" in result]
    for result in requested[-MAX_REQUESTED:]:
        rows.append(_image_row(f"step {result.get('step')}, distgan evaluate", result))
    if not rows:
        return None
    heads = ("", "score", "at equal sizes", "floor", "kernel distance")
    return {"heads": [*heads, *(name.replace("_", " ") for name in _PARTS)], "rows": rows}


def archive_table(run: History) -> dict[str, Any] | None:
    """Return the table of the archive's checkpoints, to compare them; None without an archive.

    Each has its newest score, of the training or by `distgan evaluate`, and its floor, and the
    diversity of samples that was validated at its step.
    """
    scored = {result.get("step"): (result, "in training") for result in run.evaluations}
    for result in sorted(run.requested, key=lambda result: str(result.get("time"))):
        if "score" in result:
            scored[result.get("step")] = result, "distgan evaluate"
    diversity = {
        row["step"]: row["valid/diversity"] for row in run.rows if "valid/diversity" in row
    }
    best, rows = (run.best or {}).get("step"), []
    for step, size in run.archive:
        result, source = scored.get(step, ({}, ""))
        floor = result.get("floor") or {}
        rows.append(
            [
                number(run.epoch_of(step)),
                f"{step}{', best' if step == best else ''}",
                number(result.get("score")),
                f"{number(result.get('metric'))}, {source}" if result else "not scored",
                number((floor.get("generated") or {}).get("score")),
                number((floor.get("real") or {}).get("score")),
                number(diversity.get(step)),
                f"{size / 1e6:.1f} MB",
            ]
        )
    heads = ["epoch", "step", "score", "", "at equal sizes", "floor", "diversity", "size"]
    return {"heads": heads, "rows": rows} if rows else None


def _image_row(label: str, result: dict[str, Any]) -> dict[str, Any]:
    """Return {"cells": (text, note) of each column, "details": what the scores depend on}."""
    floor = result.get("floor") or {}
    real, generated = floor.get("real") or {}, floor.get("generated") or {}
    size = floor.get("samples")
    kernel_cell = ("–", "")
    for key in result:
        if key.startswith(("kid", "kernel_")) and not key.endswith(("_sd", "_interval")):
            kernel_cell = (_with_sd(result, key), f"{key}, floor {number(real.get(key))}")
            break
    cells = [
        (label, f"{number(result.get('samples'))} samples, {number(result.get('reals'))} real"),
        (_with_sd(result, "score"), number(result.get("metric"))),
        (number(generated.get("score")), f"{size} samples" if size else ""),
        (number(real.get("score")), f"{size} real samples" if size else ""),
        kernel_cell,
        *((number(result.get(name)), "") for name in _PARTS),
    ]
    made_with = result.get("made_with") or {"extractor": result.get("extractor")}
    details = [(key, made_with.get(key)) for key in _MADE_WITH]
    details += [(key, result.get(key)) for key in _DETAILS]
    return {
        "cells": cells,
        "details": [
            judgement(result),
            *(f"{key.replace('_', ' ')} {value}" for key, value in details if value is not None),
        ],
    }


def _with_sd(result: dict[str, Any], key: str) -> str:
    sd = result.get(f"{key}_sd")
    return number(result.get(key)) + ("" if sd is None else f" ± {number(sd, 2)}")


def class_scores(
    result: dict[str, Any],
) -> tuple[tuple[str, ...], list[tuple[Any, ...]], list[str]] | None:
    """Return heads, rows and notes of the scores of each class, each beside its floor; None without
    classes. Fréchet distances are those at equal sizes, `k against k`.
    """
    classes = result.get("by_class")
    if not isinstance(classes, dict):
        return None
    kernel, fewest, features = (classes.get(key) for key in ("kernel", "fewest", "features"))
    heads = (str(classes.get("column")), "real", "samples", "k", str(classes.get("metric")))
    heads += ("floor", *((str(kernel), "sd", "floor") if kernel else ()))
    rows: list[tuple[Any, ...]] = []
    for one in classes.get("rows") or []:
        floor = one.get("floor") or {}
        real, generated = floor.get("real") or {}, floor.get("generated") or {}
        row = [one.get("class"), one.get("reals"), one.get("samples"), floor.get("samples")]
        row += [generated.get("score"), real.get("score")]
        row += [one.get(kernel), one.get(f"{kernel}_sd"), real.get(kernel)] if kernel else []
        rows.append(tuple(row))
    notes, known = [], [row[3] for row in rows if isinstance(row[3], int) and row[4] is not None]
    if known:
        notes.append(
            f"{heads[4]}: of k samples against k real samples; every floor: of k real samples"
            " against k others"
        )
    if isinstance(features, int) and any(k <= features for k in known):
        notes.append(
            f"a Fréchet distance of no more samples than {features} features is mostly bias, and"
            " so is its floor: compare the two of one line, and no others"
        )
    if len(known) < len(rows):
        notes.append(
            f"no Fréchet distance below {fewest} against {fewest}, where its floor varies as"
            " much as classes lie apart; k is at most half of the real samples, and a larger --n"
            " gives each class more samples"
        )
    return heads, rows, notes


def newest_class_scores(run: History) -> dict[str, Any] | None:
    """Return the table of the newest scores of each class: by `distgan evaluate`, else those of the
    results; None without classes.
    """
    asked = [result for result in run.requested if isinstance(result.get("by_class"), dict)]
    source, newest = "", {}
    if asked:
        newest = max(asked, key=lambda result: str(result.get("time")))
        source = f"step {newest.get('step')}, distgan evaluate"
    elif (path := run.folder / "results" / "result.json") in run.results:
        newest, source = records.read_if_good(path), "the images in results/"
    table = class_scores(newest)
    return table and dict(zip(("heads", "rows", "notes"), table, strict=True), source=source)


def audio_scores(run: History) -> dict[str, Any] | None:
    """Return the table of the newest `distgan evaluate` of held-out clips, None without one.

    Columns: means of the output and of the input, over all clips and by signal-to-noise ratio.
    """
    measured = [
        result
        for result in run.requested
        if result.get("kind") == "sound" and isinstance(result.get("means"), dict)
    ]
    if not measured:
        return None
    newest = max(measured, key=lambda result: str(result.get("time")))
    means, conditions, distances = (
        newest.get(key) or {} for key in ("means", "conditions", "distances")
    )
    rows = []
    for name, mean in means.items():
        if not name.startswith(("input_", "target_")):
            parts = [part.get(name) or {} for part in conditions.values()]
            rows.append(_audio_row(name, mean, means.get(f"input_{name}") or {}, parts))
    for name, distance in distances.items():
        if not name.startswith("input_"):
            before = distances.get(f"input_{name}") or {}
            values = [number(distance.get("value")), "", number(before.get("value"))]
            frames = f"{distance.get('frames')} frames"
            rows.append([name, *values, frames, *[""] * len(conditions)])
    return {
        "heads": ["", "mean", "95 %", "input", "clips", *conditions],
        "rows": rows,
        "step": newest.get("step"),
        "clips": newest.get("samples"),
    }


def _audio_row(
    name: str, mean: dict[str, Any], before: dict[str, Any], parts: list[dict[str, Any]]
) -> list[str]:
    interval, clips = "–", f"{mean.get('n')}"
    if mean.get("interval"):
        low, high = mean["interval"]
        interval = f"{number(low)} to {number(high)}"
    if mean.get("failed"):
        clips += f", {mean['failed']} without"
    return [
        name,
        number(mean.get("mean")),
        interval,
        number(before.get("mean")),
        clips,
        *(number(part.get("mean")) for part in parts),
    ]
