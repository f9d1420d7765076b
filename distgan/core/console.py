"""What a person sees while something runs.

Bars on a terminal, plain lines elsewhere. Imports no torch.
"""

import contextlib
import os
import sys
import time

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from distgan.core import watchdog

# One process of a run talks: the others would repeat every line.
TALKS = os.environ.get("RANK", "0") == "0"
PLAIN_INTERVAL_S = 10.0


def say(text: str = "") -> None:
    """Print one line, on rank 0 only."""
    if TALKS:
        print(text, flush=True)


def numbers(values: dict[str, float]) -> str:
    """`{"d/loss": 0.61234}` -> `d/loss 0.612`."""
    return "  ".join(f"{name} {value:.4g}" for name, value in values.items())


def table(columns: tuple[str, ...], rows: list[tuple[str, ...]], right: bool = True) -> None:
    """Print columns under headings, with `right` all but the first to the right; on rank 0 only."""
    if not TALKS:
        return
    shown = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for i, name in enumerate(columns):
        shown.add_column(Text(name), justify="right" if right and i else "left", no_wrap=True)
    for row in rows:
        shown.add_row(*map(Text, row))
    # Off a terminal rich would take 80 columns for given, and cut.
    Console(width=None if sys.stdout.isatty() else 160).print(shown)


class Bar:
    """A counter with a rate and the time left; `advance` may carry numbers to show."""

    def __init__(self, label: str, total: int, unit: str, start: int = 0):
        self.label, self.total, self.unit, self.done = label, total, unit, start
        self._start, self._began, self._last, self._shown = (
            start,
            time.monotonic(),
            time.monotonic(),
            start,
        )
        self._rich = None
        if TALKS and sys.stderr.isatty():
            self._rich = Progress(
                SpinnerColumn(),
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[note]}"),
                TimeRemainingColumn(),
                console=Console(stderr=True),
            )
            self._rich.start()
            self._task = self._rich.add_task(label, total=total, completed=start, note="")

    @property
    def rate(self) -> float:
        """Units per second since the bar was opened."""
        return (self.done - self._start) / max(time.monotonic() - self._began, 1e-9)

    def advance(self, n: int = 1, values: dict[str, float] | None = None, note: str = "") -> None:
        """Count `n` units; `note` and `values` are shown beside the rate."""
        self.done += n
        watchdog.beat()
        if not TALKS:
            return
        text = (
            f"{self.rate:.4g} {self.unit}/s"
            + (f"  {note}" if note else "")
            + (f"  {numbers(values)}" if values else "")
        )
        if self._rich:
            self._rich.update(self._task, completed=self.done, note=text)
        elif time.monotonic() - self._last >= PLAIN_INTERVAL_S:
            self._last, self._shown = time.monotonic(), self.done
            left = (self.total - self.done) / max(self.rate, 1e-9)
            print(
                f"{self.label}: {self.done}/{self.total} {self.unit}  {text}  {clock(left)} left",
                flush=True,
            )

    def back(self, done: int) -> None:
        """Begin again from `done` units."""
        self._start -= self.done - done
        self._shown, self.done = min(self._shown, done), done

    def close(self) -> None:
        """Take the bar off the terminal; off a terminal, print the last line."""
        if self._rich:
            self._rich.stop()
        elif TALKS and self.done > self._shown:
            print(
                f"{self.label}: {self.done}/{self.total} {self.unit}  {self.rate:.4g}"
                f" {self.unit}/s",
                flush=True,
            )


@contextlib.contextmanager
def bar(label: str, total: int, unit: str = "it", start: int = 0):
    """`with bar("sharding", 330, "images") as b: b.advance()`."""
    shown = Bar(label, total, unit, start)
    try:
        yield shown
    finally:
        shown.close()


def clock(seconds: float) -> str:
    """3671 -> `1:01:11`."""
    s = int(max(seconds, 0))
    return (
        f"{s // 3600}:{s // 60 % 60:02d}:{s % 60:02d}" if s >= 3600 else f"{s // 60}:{s % 60:02d}"
    )
