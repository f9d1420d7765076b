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
    "sliced_wasserstein": "lower ↓",
    "nearest": "near 1",
}
CERTAIN = 2.0  # standard deviations from which on a difference is told as one
FEWEST = 16  # samples at equal sizes below which a Fréchet distance is not judged
Table = tuple[tuple[str, ...], list[tuple[Any, ...]], list[str]]


def judgement(result: dict[str, Any]) -> str:
    """Return one sentence: do the samples score like other real ones would?

    The Fréchet distance of k samples is compared with the floor of k real samples. Both are random:
    the deviation of their difference is √2 that of the score, which is known for n samples and goes
    as 1/√n. Where it is not known the kernel distance is compared with 0, its value for equal
    distributions.
    """
    floor, metric = result.get("floor") or {}, result.get("metric")
    real, generated = floor.get("real") or {}, floor.get("generated") or {}
    k, n, sd = floor.get("samples"), result.get("samples"), result.get("score_sd")
    at_floor, at_samples = real.get("score"), generated.get("score")
    if _numbers(k, n, sd, at_floor, at_samples) and sd > 0 and k >= FEWEST:
        z = (at_samples - at_floor) / (math.sqrt(2 * n / k) * sd)
        side = "above" if z >= 0 else "below"
        return (
            f"{metric} of {k} samples is {abs(z):.1f} standard deviations {side} its floor,"
            f" {_verdict(z, k)}"
        )
    name = kernel_of(result)
    value, sd = (result.get(key) for key in (name, f"{name}_sd"))
    if _numbers(value, sd) and sd > 0 and min(n or 0, result.get("reals") or 0) >= FEWEST:
        z = value / sd
        side = "above" if z >= 0 else "below"
        return (
            f"{name} is {abs(z):.1f} standard deviations {side} 0, its value for equal"
            f" distributions, {_verdict(z, n)}"
        )
    if metric == "frechet_unverified":
        return "not judged: without images of both sides there is no floor"
    return (
        f"not judged: no standard deviation is known, or there are fewer than {FEWEST} samples or"
        " real samples; compare the score with its floor"
    )


def _verdict(z: float, n: Any) -> str:
    if z >= CERTAIN:
        return "so these features tell the samples from real ones"
    if z > -CERTAIN:
        return (
            f"so {n} samples show no difference from real ones, which does not prove that there is"
            " none"
        )
    return (
        "so samples are nearer to the real ones than other real samples are: look for copies"
        " (nearest) and for missing variety (recall, coverage)"
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
