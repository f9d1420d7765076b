"""Measure vectors: values that are no numbers, columns that are constant, duplicates."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from distgan.core import console
from distgan.core.errors import DataError
from distgan.shards.audit.findings import Checks, Finding
from distgan.shards.audit.shard_integrity import Place, read
from distgan.shards.codecs import array
from distgan.shards.format.manifest import DATASET

SHOWN = 24  # columns in the printed table
CONSTANT = 1e-7  # standard deviation of a column, against its mean: that of rounding


@dataclass(frozen=True)
class VectorReport:
    """The values of one vector; only `place` and `errors` if they cannot be used."""

    place: Place
    errors: dict[str, str]  # check -> detail
    vector: np.ndarray | None = None
    digest: bytes = b""
    values: dict[str, float] = field(default_factory=dict)  # by name of the check; none has one


class Examiner:
    """Examine chunks of samples; pickled to worker processes."""

    def __init__(self, sample: dict[str, Any], fields: list[str]):
        self.size, self.field = sample["size"], sample["field"]
        self.columns = sample.get("columns") or [f"column {i}" for i in range(self.size)]
        if self.field not in fields:
            raise DataError(
                f"{DATASET} names {self.field} as the vector; the samples have the fields {fields}"
            )

    def __call__(self, chunk: list[Place]) -> list[VectorReport]:
        return [self._inspect(place, read(place, [self.field])[self.field]) for place in chunk]

    def _inspect(self, place: Place, data: bytes) -> VectorReport:
        try:
            values = array.decode(data, np.dtype(np.float32), (self.size,))
        except Exception as error:  # NumPy raises any kind for a damaged header
            return VectorReport(place, {"undecodable": f"{error}"})
        for k in np.flatnonzero(~np.isfinite(values))[:1].tolist():
            return VectorReport(place, {"not-finite": f"{self.columns[k]} is {values[k]}"})
        return VectorReport(place, {}, values, hashlib.sha256(values.tobytes()).digest()[:16])


class Columns:
    """Mean, standard deviation, least and largest value of each column, over both splits."""

    def __init__(self, names: list[str], reports: list[VectorReport]):
        self.names = names
        rows = [report.vector for report in reports if report.vector is not None]
        self.table = np.array(rows, np.float32).reshape(-1, len(names))
        self.numbers = np.zeros((0, 4))
        if rows:
            mean, sd = self.table.mean(0, np.float64), self.table.std(0, np.float64)
            self.numbers = np.stack([mean, sd, self.table.min(0), self.table.max(0)], 1)

    def findings(self, checks: Checks) -> list[Finding]:
        """Return a finding for each column that has one value only, and for the widest where the
        scales of columns differ.
        """
        check = checks.named("constant", "columns")
        found = []
        for name, (mean, sd, *_) in zip(self.names, self.numbers.tolist(), strict=False):
            if (level := check.level(1.0)) and sd <= CONSTANT * abs(mean):
                detail = f"all are {mean:.6g}"
                found.append(Finding("constant", level, "", DATASET, name, None, None, "", detail))
        constant = {finding.key for finding in found}
        sds = {
            name: sd
            for name, (_, sd, *_) in zip(self.names, self.numbers.tolist(), strict=False)
            if sd > 0 and name not in constant
        }
        if len(sds) > 1:
            wide, narrow = max(sds, key=sds.__getitem__), min(sds, key=sds.__getitem__)
            check, ratio = checks.named("scale", "columns"), sds[wide] / sds[narrow]
            if level := check.level(ratio):
                detail = (
                    f"sd {sds[wide]:.4g}, that of {narrow} {sds[narrow]:.4g}: bring columns near 1"
                    " before they are sharded, as (x - mean) / sd"
                )
                limit = check.threshold(level)
                found.append(Finding("scale", level, "", DATASET, wide, ratio, limit, "x", detail))
        return found

    def print_table(self) -> None:
        """Print the columns, of many the first."""
        rows = [
            (name, *(f"{number:.4g}" for number in numbers))
            for name, numbers in zip(self.names, self.numbers.tolist(), strict=False)
        ]
        if len(rows) > SHOWN:
            rows[SHOWN:] = [(f"… {len(rows) - SHOWN} more", "", "", "", "")]
        console.table(("column", "mean", "sd", "min", "max"), rows)

    def record(self) -> dict[str, dict[str, float]]:
        """Return the numbers of each column, for audit.json."""
        keys = ("mean", "sd", "min", "max")
        return {
            name: dict(zip(keys, numbers, strict=True))
            for name, numbers in zip(self.names, self.numbers.tolist(), strict=False)
        }


def findings(
    reports: list[VectorReport],
    checks: Checks,
    differ: Callable[[Place, Place], str] = lambda one, other: "",
) -> list[Finding]:
    """Return all findings about these vectors; `differ` says how the labels of two differ."""
    result: list[Finding] = []
    first: dict[bytes, VectorReport] = {}
    for report in reports:
        for name, detail in report.errors.items():
            checks.judge(result, "vectors", name, report.place, 1.0, detail)
        if report.vector is None:
            continue
        other = first.setdefault(report.digest, report)
        if other is report:
            continue
        leaks = other.place.split != report.place.split
        detail, contradiction = f"the values of {other.place}", differ(report.place, other.place)
        if contradiction:
            text = f"{detail}, but {contradiction}"
            checks.judge(result, "labels", "contradiction", report.place, 1.0, text, other.place)
        if leaks or not contradiction:
            name = "duplicate-leak" if leaks else "duplicate"
            checks.judge(result, "vectors", name, report.place, 1.0, detail, other.place)
    return result
