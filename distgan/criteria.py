"""Was the run a success? The criteria of the systems' documents, one by one: pure functions of the journal. Imports no torch."""

from dataclasses import dataclass
from typing import Any

from distgan.thresholds import Watch


@dataclass(frozen=True)
class Criterion:
    """One criterion: what was asked, what was found (where `met` is None: what is missing), both as text for people."""

    name: str
    met: bool | None  # None: not enough in the journal to say
    found: str
    asked: str


def criteria(rows: list[dict], config: dict[str, Any], watch: Watch, warnings: list[dict]) -> list[Criterion]:
    """The criteria that apply to a run, in the order in which to show them; [] where none does, as for one that has just begun.

    rows: the whole journal; config: the settings, flat; warnings: the events `warning` of the run so far.
    """
    return []
