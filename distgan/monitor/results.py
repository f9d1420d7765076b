"""Results of the rules and of the table of health signals. Imports no torch."""

from dataclasses import dataclass

from distgan.monitor.moves import Rule


@dataclass(frozen=True)
class Finding:
    """A rule that holds at the end of the journal, and the epoch since which it holds."""

    rule: Rule
    level: str  # "warning": something should be changed; "note": worth knowing
    epoch: float
    message: str
    advice: str  # the guide's moves from the run's current settings, then what else helps

    @property
    def name(self) -> str:
        """The rule, with a level that is no warning: a note that becomes a warning is new."""
        return self.rule if self.level == "warning" else f"{self.rule} ({self.level})"


@dataclass(frozen=True)
class HealthSignal:
    """A number to watch: the median of its recent values, its healthy range (None: an open end),
    `ok`, if that is in the range (None: too few lines), and `now`, its last value.
    """

    name: str
    value: float | None
    low: float | None
    high: float | None
    ok: bool | None
    meaning: str
    now: float | None = None
