"""End a process that makes no progress for machine.stall_s seconds: write the stacks of its threads
and exit, so that a scheduler can start the run again.

The waiting is done by faulthandler's own thread, which needs no interpreter: it also ends a process
that hangs in C code. One per process.
"""

import contextlib
import faulthandler
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from distgan.core.files import opener

EVERY_S = 1.0  # least time between two resets of the timer

_file: IO[str] | None = None
_limit_s, _set = 0.0, 0.0


@contextlib.contextmanager
def watching(path: Path, limit_s: float | None) -> Iterator[None]:
    """Require `beat` every `limit_s` seconds in the block, or write the stacks to `path` and exit
    with code 1. None: no watch.
    """
    global _file, _limit_s
    if not limit_s:
        yield
        return
    try:
        file = open(path, "w", opener=opener)  # now: when it is needed, nothing may work any more
    except OSError:  # a rank that does not see rank 0's disk
        file = open(2, "w", closefd=False)
    _file, _limit_s = file, limit_s
    _arm()
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()
        _file = None
        file.close()
        with contextlib.suppress(OSError):
            if path.stat().st_size == 0:
                path.unlink()


def beat() -> None:
    """Report progress: a step, a chunk of a validation, a save."""
    if _file is not None and time.monotonic() - _set > EVERY_S:
        _arm()


@contextlib.contextmanager
def waiting() -> Iterator[None]:
    """Suspend the watch of the other ranks while rank 0 works alone, for as long as it takes.

    Rank 0's own watch ends rank 0, and then the others learn that it is gone.
    """
    faulthandler.cancel_dump_traceback_later()
    try:
        yield
    finally:
        _arm()


def _arm() -> None:
    global _set
    _set = time.monotonic()
    if _file is not None:
        faulthandler.dump_traceback_later(_limit_s, exit=True, file=_file)
