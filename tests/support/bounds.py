"""Fail what hangs or fills the memory, in this process."""

import contextlib
import resource
import signal
from pathlib import Path

LONG_S, MORE_MEMORY = 60, 4 << 30


@contextlib.contextmanager
def bounded():
    """Give a block LONG_S seconds and MORE_MEMORY bytes."""

    def late(*_):
        raise AssertionError(f"not done in {LONG_S} s")

    old, limits = signal.signal(signal.SIGALRM, late), resource.getrlimit(resource.RLIMIT_AS)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MORE_MEMORY, limits[1]))
    signal.alarm(LONG_S)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, old)
        resource.setrlimit(resource.RLIMIT_AS, limits)
