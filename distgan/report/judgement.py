"""The scores of `distgan evaluate` in words: a table of each beside its floor, and a sentence that
judges. Imports no torch.
"""

import math
from typing import Any

BETTER = {
    "score": "lower ↓",
    "precision": "higher ↑",
    "recall": "higher ↑",
    "density": "near 1",
    "coverage": "higher ↑",
    "cmmd": "lower ↓",
    "inception_score": "higher ↑",
    "sliced_wasserstein": "lower ↓",
    "nearest": "near 1",
}
# Standard deviations from which on a Fréchet distance differs from its floor: their size is an
# estimate, and between equal sets the differences vary by 1.3 to 1.7 of it (docs/evaluation.md).
CERTAIN = 4.0
ALIKE = "the sets are more alike"  # so begins the reason for no interval of metrics/kernel.py
FEWEST = 16  # on either side, below which nothing is judged
Table = tuple[tuple[str, ...], list[tuple[Any, ...]], list[str]]


def judgement(result: dict[str, Any]) -> str:
    """Return one sentence: do the samples score like other real samples would?

    The kernel distance differs from 0, its floor without bias, where its interval leaves 0 out.
    Where there is no interval, the Fréchet distance of k samples is compared with that of k real
    samples. Both are random: the deviation of their difference is √2 that of the score, which is
    known for n and goes as 1/√n.
    """
    floor, name = result.get("floor") or {}, kernel_of(result)
    n, reals, sd = (_value(result, x) for x in ("samples", "reals", "score_sd"))
    k = _value(floor, "samples")
    at_floor, at_samples = (_value(floor.get(x) or {}, "score") for x in ("real", "generated"))
    value, kernel_sd, interval = (_value(result, name + x) for x in ("", "_sd", "_interval"))
    if result.get("metric") == "frechet_unverified":
        return "not judged: without the images of both sides there is no floor"
    if not _numbers(n, reals) or min(n, reals) < FEWEST:
        return f"not judged: fewer than {FEWEST} samples or real samples"
    interval = interval if isinstance(interval, list) and _numbers(*interval) else None
    reasons = result.get("reasons")
    why = str(reasons.get(f"{name}_interval")) if isinstance(reasons, dict) else ""
    if _numbers(value, kernel_sd) and kernel_sd > 0 and (interval or why.startswith(ALIKE)):
        side = 1 if interval and interval[0] > 0 else 0 if interval else -1
        return _sentence(name, value / kernel_sd, "its floor, 0 for equal sets", side, n)
    if _numbers(k, n, sd, at_floor, at_samples) and sd > 0 and k >= FEWEST:
        z = (at_samples - at_floor) / (math.sqrt(2 * n / k) * sd)
        side = (z >= CERTAIN) - (z <= -CERTAIN)
        return _sentence(f"{result['metric']} of {k} samples", z, "its floor", side, k)
    return "not judged: no standard deviation is known; compare the score with its floor by eye"


def _value(tree: dict[str, Any], name: str) -> Any:
    """Return a value of a result, which others may have written: any type, None if it is absent."""
    return tree.get(name)


def _sentence(what: str, z: float, floor: str, side: int, n: Any) -> str:
    """Return the sentence; `side`: 1 above the floor, -1 below, 0 neither with certainty."""
    said = f"{what} is {abs(z):.1f} standard deviations {'above' if z >= 0 else 'below'} {floor}: "
    if side > 0:
        return said + "these features tell the samples from real ones"
    if side == 0:
        return said + (
            f"these features show no difference of {n} samples from real ones, which does not prove"
            " that there is none"
        )
    return said + (
        "the sets are more alike than independent draws are, as with equal numbers of each class in"
        " both, or with copies (look at nearest) and missing variety (recall, coverage)"
    )


def _numbers(*values: Any) -> bool:
    return all(isinstance(value, int | float) and math.isfinite(value) for value in values)


def kernel_of(result: dict[str, Any]) -> str:
    """Return the name of the kernel distance of a result, "" without one."""
    for key in result:
        if key.startswith(("kid", "kernel_")) and not key.endswith(("_sd", "_interval")):
            return key
    return ""


def score_table(result: dict[str, Any]) -> Table:
    """Return heads, rows and notes of the table of scores, each beside its floor."""
    floor = result.get("floor") or {}
    real, generated, k = floor.get("real", {}), floor.get("generated", {}), floor.get("samples")
    kernel = kernel_of(result)
    labels = {"score": result["metric"]} | ({kernel: kernel} if kernel else {})
    labels |= {name: name for name in BETTER if name in result and name != "score"}
    rows = []
    for name, label in labels.items():
        better, sd = BETTER.get(name, "lower ↓"), result.get(f"{name}_sd")
        rows.append((label, better, result[name], sd, generated.get(name), real.get(name)))
    samples, reals = ("?" if result[key] is None else result[key] for key in ("samples", "reals"))
    heads: tuple[str, ...] = (f"{samples} samples, {reals} real samples", "better", "score", "sd")
    heads += (f"{k} samples", f"floor: {k} real samples") if k else ("", "")
    return heads, rows, _notes(result, k)


def _notes(result: dict[str, Any], k: int | None) -> list[str]:
    notes = [result["warning"]] if result.get("warning") else []
    notes.append(judgement(result))
    if k:
        notes.append(
            f"the last two columns: {k} samples, and {k} other real samples, each against the same"
            f" {k} real samples. A perfect generator scores its floor"
        )
    reasons: dict[str, list[str]] = {}
    for name, why in (result.get("reasons") or {}).items():
        reasons.setdefault(why, []).append(result["metric"] if name == "score" else name)
    notes += [f"no {', '.join(names)}: {why}" for why, names in reasons.items()]
    notes += [f"note: {note}" for note in result.get("notes") or []]
    if result.get("noise"):
        notes.append(
            "the samples are drawn from other noise than those scored during training, so the two"
            " scores of a checkpoint differ by chance"
        )
    made_with = result["made_with"]
    parts = [made_with.get("extractor")]
    for name in ("preprocessing", "resized"):
        parts.append(made_with.get(name) and f"{name} {made_with[name]}")
    notes.append("; ".join(part for part in (*parts, made_with.get("path")) if part))
    if result.get("score_at_infinity_by"):
        limit, method = result["score_at_infinity"], result["score_at_infinity_by"]
        value = "" if limit is None else f"{limit:.4g}, "
        notes.append(f"limit for infinitely many samples: {value}{method}")
    return notes
