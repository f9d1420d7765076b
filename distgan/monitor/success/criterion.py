"""A success criterion, and words that several of them use. Imports no torch."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Criterion:
    """One criterion: what is required, and what was measured (if `met` is None: what is missing),
    as text.

    outcome: it judges what the run made, so that a run that does not meet it is no success; others
    judge how it was trained. unreachable: the settings or the data put the target out of reach.
    fault: a few words for the verdict where it is not met. early: what is missing may come with
    further training. near: it is missed by little, which alone is no failure.
    """

    name: str
    met: bool | None  # None: not enough in the journal to say, or unreachable
    measured: str
    required: str
    outcome: bool = False
    fault: str = ""
    unreachable: bool = False
    early: bool = False
    near: bool = False

    @property
    def state(self) -> str:
        """`met`, `not met`, `not measured` or `unreachable`."""
        if self.unreachable:
            return "unreachable"
        return {True: "met", False: "not met", None: "not measured"}[self.met]


def in_range(low: float | None, high: float | None) -> str:
    """Return `in 0.5–0.8`, `above 0.5`, `below 0.8` or `anywhere`."""
    if low is not None and high is not None:
        return f"in {low:.3g}–{high:.3g}"
    if low is not None:
        return f"above {low:.3g}"
    return f"below {high:.3g}" if high is not None else "anywhere"


def count(n: int, what: str) -> str:
    """Return `1 line`, `2 lines`."""
    return f"{n} {what}{'' if n == 1 else 's'}"
