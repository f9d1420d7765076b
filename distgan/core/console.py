"""Print to people: lines, tables, and progress bars on a terminal or plain lines elsewhere.

All text passes through `printable`: names and causes come from files that others may have written.
"""

import contextlib
import math
import os
import shlex
import sys
import time
import unicodedata
from collections.abc import Iterator

from rich.console import Console
from rich.markup import escape
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

# Only one process of a run prints: the others would repeat every line.
TALKS = os.environ.get("RANK", "0") == "0"
PLAIN_INTERVAL_S = 10.0
WIDEST = 10_000  # characters of a table's line


def printable(text: str, keep: str = "\n\t") -> str:
    """Return `text` with control, bidirectional and other invisible characters as escapes, such as
    `\\x1b`; it moves no cursor, hides nothing, and can be encoded.
    """
    if text.isprintable():
        return text
    return "".join(
        char
        if char.isprintable() or char in keep or unicodedata.category(char) == "Zs"
        else char.encode("unicode_escape").decode()
        for char in text
    )


def say(text: str = "") -> None:
    """Print one line, on rank 0 only."""
    if TALKS:
        print(printable(text), flush=True)


def complain(text: str) -> None:
    """Print a line to stderr, whatever the rank."""
    print(printable(text), file=sys.stderr, flush=True)


def clear_screen() -> None:
    """Empty the terminal."""
    print("\033[2J\033[H", end="")


def command(*words: object) -> str:
    """Return `distgan WORDS` as one line that a shell takes word for word."""
    return shlex.join(["distgan", *map(str, words)])


def numbers(values: dict[str, float]) -> str:
    """Format `{"d/loss": 0.61234}` as `d/loss 0.612`."""
    return "  ".join(f"{name} {value:.4g}" for name, value in values.items())


def table(columns: tuple[str, ...], rows: list[tuple[str, ...]], right: bool = True) -> None:
    """Print columns under headings, on rank 0 only; with `right` all but the first align right."""
    if not TALKS:
        return
    rich_table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for i, name in enumerate(columns):
        rich_table.add_column(Text(name), justify="right" if right and i else "left", no_wrap=True)
    for row in rows:
        rich_table.add_row(*(Text(printable(cell, keep="")) for cell in row))
    # As wide as the table is: rich would cut it at the terminal's width, or at 80 columns.
    Console(width=WIDEST).print(rich_table)


class Bar:
    """A counter with a rate and the time left; `advance` may carry numbers to show."""

    def __init__(self, label: str, total: int, unit: str, start: int = 0):
        self.label, self.total, self.unit, self.done = printable(label), total, unit, start
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
            self._task = self._rich.add_task(
                escape(self.label), total=total, completed=start, note=""
            )

    @property
    def rate(self) -> float:
        """Units per second since the bar was opened."""
        return (self.done - self._start) / max(time.monotonic() - self._began, 1e-9)

    def advance(self, n: int = 1, values: dict[str, float] | None = None, note: str = "") -> None:
        """Count `n` units; show `note` and `values` beside the rate."""
        self.done += n
        watchdog.beat()
        if not TALKS:
            return
        text = printable(
            f"{self.rate:.4g} {self.unit}/s"
            + (f"  {note}" if note else "")
            + (f"  {numbers(values)}" if values else "")
        )
        if self._rich:
            self._rich.update(self._task, completed=self.done, note=escape(text))
        elif time.monotonic() - self._last >= PLAIN_INTERVAL_S:
            self._last, self._shown = time.monotonic(), self.done
            left = (self.total - self.done) / max(self.rate, 1e-9)
            print(
                f"{self.label}: {self.done}/{self.total} {self.unit}  {text}  {clock(left)} left",
                flush=True,
            )

    def back(self, done: int) -> None:
        """Set the counter back to `done` units."""
        self._start -= self.done - done
        self._shown, self.done = min(self._shown, done), done

    def close(self) -> None:
        """Remove the bar from the terminal; off a terminal, print the last line."""
        if self._rich:
            self._rich.stop()
        elif TALKS and self.done > self._shown:
            print(
                f"{self.label}: {self.done}/{self.total} {self.unit}  {self.rate:.4g}"
                f" {self.unit}/s",
                flush=True,
            )


@contextlib.contextmanager
def bar(label: str, total: int, unit: str = "it", start: int = 0) -> Iterator[Bar]:
    """Show a bar in a block: `with bar("sharding", 330, "images") as b: b.advance()`."""
    shown = Bar(label, total, unit, start)
    try:
        yield shown
    finally:
        shown.close()


def clock(seconds: float) -> str:
    """Format seconds: 3671 as `1:01:11`; `?` where it is no finite number."""
    if not math.isfinite(seconds):
        return "?"
    s = int(max(seconds, 0))
    return (
        f"{s // 3600}:{s // 60 % 60:02d}:{s % 60:02d}" if s >= 3600 else f"{s // 60}:{s % 60:02d}"
    )
