"""Print to people: lines, tables, and progress bars on a terminal or plain lines elsewhere.

All text passes through `printable`: names and causes come from files that others may have written.
Printing never ends a program: see `protect`.
"""

import contextlib
import errno
import io
import math
import os
import re
import shlex
import sys
import time
import unicodedata
from collections.abc import Iterator, Sequence
from typing import Any

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

_ends_with_reader = True  # a closed pipe ends the program, as in `distgan logs -f RUN | head`


class _Descriptor(io.RawIOBase):
    """The descriptor of a standard stream; what cannot be written there is counted and dropped."""

    def __init__(self, number: int):
        self.number = number
        self.lost, self.reason = 0, ""  # lines, so far; why

    def fileno(self) -> int:
        return self.number

    def isatty(self) -> bool:
        return os.isatty(self.number)

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        try:
            written = os.write(self.number, data)
        except OSError as error:
            if error.errno == errno.EPIPE and _ends_with_reader:
                raise
            if not self.lost:
                _write(3 - self.number, f"warning: cannot print: {error.strerror}; going on\n")
            self.lost, self.reason = self.lost + bytes(data).count(b"\n"), str(error.strerror)
            return len(data)
        return written


def protect() -> None:
    """Drop, from now on, what cannot be written to standard output or standard error: a log on a
    full disk, a terminal that is gone, an encoding that lacks a letter.

    Each write is tried. It holds for whatever prints: also for loggers and warnings of other
    packages, progress bars, and the flush at exit. Streams that somebody replaced stay.
    """
    for name, number in (("stdout", 1), ("stderr", 2)):
        stream = getattr(sys, name)
        if stream is not getattr(sys, f"__{name}__"):
            continue
        with contextlib.suppress(OSError):
            if stream:
                stream.flush()
            else:  # started with the descriptor closed: the next open file would be printed into
                os.dup2(os.open(os.devnull, os.O_WRONLY), number)
        shielded = io.TextIOWrapper(
            io.BufferedWriter(_Descriptor(number)),
            stream.encoding if stream else "utf-8",
            "backslashreplace",
            line_buffering=True,
        )
        setattr(sys, name, shielded)


def ignore_closed_pipes() -> None:
    """Go on, from now on, when the reader of a pipe has gone, as a run of days should."""
    global _ends_with_reader
    _ends_with_reader = False


def output_matters() -> bool:
    """Return False in a program that goes on without its readers."""
    return _ends_with_reader


def lost() -> tuple[int, str]:
    """Return how many lines standard output has lost, and why."""
    with contextlib.suppress(OSError):
        sys.stdout.flush()
    descriptor = getattr(getattr(sys.stdout, "buffer", None), "raw", None)
    if not isinstance(descriptor, _Descriptor):
        return 0, ""
    return descriptor.lost, descriptor.reason


def say_from_handler(text: str) -> None:
    """Print one line from a signal handler, which may have interrupted another print: past the
    buffers, which cannot be entered twice.
    """
    if TALKS:
        _write(1, text + "\n")


def _write(number: int, text: str) -> None:
    with contextlib.suppress(OSError):
        os.write(number, text.encode())


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


def table(
    columns: tuple[str, ...],
    rows: Sequence[tuple[str, ...]],
    right: bool = True,
    left: tuple[str, ...] = (),
) -> None:
    """Print columns under headings, on rank 0 only; with `right` all but the first and those named
    in `left` align right.
    """
    if not TALKS:
        return
    rich_table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for i, name in enumerate(columns):
        rich_table.add_column(
            Text(printable(name, keep="")),
            justify="right" if right and i and name not in left else "left",
            no_wrap=True,
        )
    for row in rows:
        rich_table.add_row(*(Text(printable(cell, keep="")) for cell in row))
    # As wide as the table is: rich would cut it at the terminal's width, or at 80 columns.
    printer = Console(width=WIDEST)
    with printer.capture() as captured:
        printer.print(rich_table)
    # Spaces up to the longest cell would wrap into empty lines of a terminal.
    for line in captured.get().splitlines():
        print(re.sub(r"( |\x1b\[[01]m)+$", lambda end: "\x1b[0m" * ("\x1b" in end[0]), line))
    sys.stdout.flush()


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
