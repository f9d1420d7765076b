"""Results of the rules and of the table of health signals. Imports no torch."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """A rule that holds at the end of the journal, and since which epoch."""

    rule: str
    level: str  # "warning": something should be changed; "note": worth knowing
    epoch: float
    message: str
    advice: str  # the guide's moves from the run's present settings, then what else helps

    @property
    def name(self) -> str:
        """Under which it was told: a note that becomes a warning is told again."""
        return self.rule if self.level == "warning" else f"{self.rule} ({self.level})"


@dataclass(frozen=True)
class HealthSignal:
    """A number to keep an eye on.

    Its recent value, its healthy range (None: open end), and whether it lies there (None: too few
    lines).
    """

    name: str
    value: float | None
    low: float | None
    high: float | None
    ok: bool | None
    meaning: str
