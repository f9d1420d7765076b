"""Apply a function to many items in several processes, results in order."""

import contextlib
import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import wait
from typing import Any

from distgan.core.errors import DataError

_AHEAD = 3  # chunks per worker that may wait, so that a slow disk does not fill the memory

_function: Callable[[Any], Any]


def default_workers() -> int:
    """Processes that may run here at once: cpusets and Slurm's binding count, not the whole node."""
    allowed = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    return min(8, allowed)


def ordered_map(
    function: Callable[[Any], Any], items: Sequence[Any], workers: int, chunk_size: int = 16
) -> Iterator[Any]:
    """`map(function, items)` in `workers` processes; function and items are pickled. An exception
    of the function is raised here.

    At most `chunk_size` items travel as one chunk, so that small ones are not all overhead.
    DataError if a process was killed. Processes are spawned, not forked: a fork copies the locks of
    a progress bar's thread.
    """
    if workers <= 1 or len(items) <= 1:
        yield from map(function, items)
        return
    chunk = max(1, min(chunk_size, len(items) // (2 * workers)))
    starts = iter(range(0, len(items), chunk))
    waiting: deque[Future[list[Any]]] = deque()
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), _begin, (function,))
    try:
        with _deaf_to_interrupts():
            _submit(pool, waiting, items, starts, chunk)  # starts all processes
        for _ in range(_AHEAD * workers - 1):
            _submit(pool, waiting, items, starts, chunk)
        while waiting:
            results = waiting.popleft().result()
            _submit(pool, waiting, items, starts, chunk)
            yield from results
    except BrokenProcessPool as error:
        raise DataError(
            "a worker process was killed (out of memory?) or could not start; finished shards are"
            " kept, so run the same line again, with fewer --workers if memory is short"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _submit(
    pool: ProcessPoolExecutor,
    waiting: deque,
    items: Sequence[Any],
    starts: Iterator[int],
    chunk: int,
) -> None:
    if (start := next(starts, None)) is not None:
        waiting.append(pool.submit(_apply, items[start : start + chunk]))


@contextlib.contextmanager
def _deaf_to_interrupts():
    """Processes begin as deaf to Ctrl-C as this one is.

    While they import, it would end them with tracebacks. The parent alone decides.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _begin(function: Callable[[Any], Any]) -> None:
    global _function
    _function = function
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A pool's processes wait for ever when their parent is killed.

    Each holds the other end of the queue it waits on.
    """
    wait([multiprocessing.parent_process().sentinel])
    os._exit(1)


def _apply(items: Sequence[Any]) -> list[Any]:
    return [_function(item) for item in items]
