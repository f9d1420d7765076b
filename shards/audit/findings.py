"""Findings: grade measured values by the checks, and summarise them for the table."""

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from typing import Any

from distgan.core import console
from distgan.core.errors import ConfigError
from distgan.shards.audit.checks import CHECKS, FAIL, WARN, Check

SPREAD = {"min": 0.0, "p05": 0.05, "median": 0.5, "p95": 0.95, "max": 1.0}


@dataclass(frozen=True)
class Finding:
    """One error or quality issue, and where it is."""

    check: str
    level: str
    split: str
    shard: str
    key: str
    value: float | None
    threshold: float | None
    unit: str
    detail: str
    other: str = ""  # split/key of the sample it resembles

    @property
    def sample(self) -> str:
        return f"{self.split}/{self.key}"


class Checks:
    """The checks that apply to this data, with the thresholds of this call."""

    def __init__(self, changes: Iterable[str] = ()):
        self.all = list(CHECKS)
        for change in changes:
            self._change(change)

    def _change(self, text: str) -> None:
        """Apply `delay=1,4`, which sets WARN and FAIL; `-` stands for never."""
        name, _, values = text.partition("=")
        try:
            warn, fail = (None if value == "-" else float(value) for value in values.split(","))
            if not all(limit is None or math.isfinite(limit) for limit in (warn, fail)):
                raise ValueError("not finite")
        except ValueError as error:
            raise ConfigError(
                f"--threshold {text}: expected NAME=WARN,FAIL, such as delay=1,4 or"
                " near-leak=0.98,- ('-': never)"
            ) from error
        known = sorted({check.name for check in CHECKS if check.unit})
        if name not in known:
            raise ConfigError(
                f"--threshold {text}: no check {name!r} has thresholds; there are:"
                f" {', '.join(known)}"
            )
        self.all = [
            replace(check, warn=warn, fail=fail) if check.name == name else check
            for check in self.all
        ]

    def of(self, *kinds: str) -> list[Check]:
        return [check for check in self.all if check.of in kinds]

    def named(self, name: str, *kinds: str) -> Check:
        return next(check for check in self.of(*kinds) if check.name == name)

    def judge(
        self,
        findings: list[Finding],
        kind: str,
        name: str,
        place: Any,
        value: float,
        detail: str,
        other: Any = "",
    ) -> None:
        """Append a finding about the sample at `place` if `value` is beyond a threshold.

        Places are samples.Place; `other` is that of the sample it resembles.
        """
        check = self.named(name, kind)
        if level := check.level(value):
            finding = Finding(
                name,
                level,
                place.split,
                place.shard.name,
                place.key,
                value if check.unit else None,
                check.threshold(level) if check.unit else None,
                check.unit,
                detail,
                str(other),
            )
            findings.append(finding)


class FileFindings:
    """Findings about files and tar members, which have no value."""

    def __init__(self, checks: Checks):
        self.checks = checks
        self.list: list[Finding] = []

    def add(self, name: str, split: str, shard: str, key: str, detail: str) -> None:
        level = self.checks.named(name, "files", "members").level(1)
        if level:
            self.list.append(Finding(name, level, split, shard, key, None, None, "", detail))


def summary(
    check: Check, findings: list[Finding], total: int, graded: bool, values: list[float]
) -> dict[str, Any]:
    """Return one row of the table: counts of findings, the worst, quantiles of the values.

    Level "none": the check could not be measured here.
    """
    own = [finding for finding in findings if finding.check == check.name]
    finite = sorted(value for value in values if math.isfinite(value))
    if own:
        level = FAIL if any(finding.level == FAIL for finding in own) else WARN
    elif not graded:
        level = "info"
    else:
        level = "ok" if finite or not check.measured else "none"
    spread = None
    if finite:
        spread = {name: finite[round(part * (len(finite) - 1))] for name, part in SPREAD.items()}
    worst = (min if check.low else max)(
        (finding for finding in own if finding.value is not None),
        key=lambda finding: finding.value or 0.0,
        default=own[0] if own else None,
    )
    return {
        "check": check.name,
        "of": check.of,
        "unit": check.unit,
        "warn": check.warn,
        "fail": check.fail,
        "low": check.low,
        "level": level,
        "fails": sum(finding.level == FAIL for finding in own),
        "warns": sum(finding.level == WARN for finding in own),
        "total": total,
        "share": len(own) / total if total else 0.0,
        "measured": spread,
        "worst": asdict(worst) if worst else None,
    }


def print_table(rows: list[dict[str, Any]]) -> None:
    """Print these rows under headings."""
    left = ("check", "limits", "such as")
    columns = ("", "check", "findings", "share", "median", "worst", "limits", "such as")
    console.table(columns, [_row(row) for row in rows], left=left)


def _row(row: dict[str, Any]) -> tuple[str, ...]:
    worst, spread = row["worst"], row["measured"]
    value = None
    if worst:
        value = worst["value"]
    elif spread:
        value = spread["min" if row["low"] else "max"]
    if row["unit"]:
        limits = " / ".join(limit_words(limit, row["low"]) for limit in (row["warn"], row["fail"]))
    else:
        limits, spread, value = "any", None, None
    detail = ""
    if worst:
        example = "/".join(filter(None, (worst["split"], worst["key"] or worst["shard"])))
        detail = ": ".join(filter(None, (example, worst["detail"])))
    count = row["fails"] + row["warns"]
    return (
        "-" if row["level"] == "none" else row["level"],
        row["check"],
        str(count),
        f"{row['share']:.1%}" if count else "",
        f"{spread['median']:.3g}" if spread else "",
        "" if value is None else f"{value:.3g}",
        f"{limits} {row['unit']}".strip(),
        detail,
    )


def limit_words(limit: float | None, low: bool) -> str:
    """Return a threshold as the table and the help show it."""
    return "-" if limit is None else f"{'<' if low else '>'} {limit:g}"
