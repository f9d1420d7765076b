"""A process that makes no progress for machine.stall_s seconds writes where each of its threads
stands, and leaves, so that a scheduler can start the run again.

The waiting is done by faulthandler's own thread, which needs no interpreter: it also ends a process
that hangs in C code. One per process.
"""

import contextlib
import faulthandler
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

EVERY_S = 1.0  # at the most this often is the clock set anew

_file: IO[str] | None = None
_limit_s, _set = 0.0, 0.0


@contextlib.contextmanager
def watching(path: Path, limit_s: float | None) -> Iterator[None]:
    """From here on `beat` must be called every `limit_s` seconds, or the stacks go to `path` and
    the process ends with code 1. None: not watched.
    """
    global _file, _limit_s
    if not limit_s:
        yield
        return
    try:
        file = open(path, "w")  # now: when it is needed, nothing may work any more
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
    """Something was done: a step, a chunk of a validation, a save."""
    if _file is not None and time.monotonic() - _set > EVERY_S:
        _arm()


@contextlib.contextmanager
def waiting() -> Iterator[None]:
    """For the others, while rank 0 works alone, for as long as it takes.

    Its own watch ends it, and then they are told that it has gone.
    """
    faulthandler.cancel_dump_traceback_later()
    try:
        yield
    finally:
        if _file is not None:
            _arm()


def _arm() -> None:
    global _set
    _set = time.monotonic()
    faulthandler.dump_traceback_later(_limit_s, exit=True, file=_file)
