"""Apply a function to many items in several processes, results in order."""

import contextlib
import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import wait
from typing import Any

from distgan.core import console
from distgan.core.errors import DataError

_AHEAD = 3  # chunks per worker that may wait, so that a slow disk does not fill the memory

_function: Callable[[Any], Any]


def default_workers() -> int:
    """Return the CPUs that this process may use (cpusets and Slurm's binding count), at most 8."""
    allowed = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    return min(8, allowed)


def ordered_map(
    function: Callable[[Any], Any], items: Sequence[Any], workers: int, chunk_size: int = 16
) -> Generator[Any, None, None]:
    """Yield `function(item)` for each item, in order, computed in `workers` processes.

    Function and items are pickled; an exception of the function is raised here. At most
    `chunk_size` items travel together, so that small ones are not all overhead. DataError if a
    process was killed. Processes are spawned, not forked: a fork copies the locks of a progress
    bar's thread.
    """
    if workers <= 1 or len(items) <= 1:
        yield from map(function, items)
        return
    chunk = max(1, min(chunk_size, len(items) // (2 * workers)))
    starts = iter(range(0, len(items), chunk))
    waiting: deque[Future[list[Any]]] = deque()
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), _begin, (function,))
    try:
        with _interrupts_ignored():
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
            " kept: run the same command again, with fewer --workers if memory is short"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def map_with_progress(
    label: str, function: Callable[[Any], Any], items: Sequence[Any], workers: int, unit: str
) -> Generator[Any, None, None]:
    """Yield as `ordered_map`, and show a progress bar that counts the results."""
    with console.bar(label, len(items), unit) as bar:
        for result in ordered_map(function, items, workers):
            yield result
            bar.advance()


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
def _interrupts_ignored() -> Iterator[None]:
    """Ignore Ctrl-C while processes start: they inherit that, and only the parent reacts to it.

    An interrupt during their imports would end them with tracebacks.
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
    """End this process with its parent.

    Without it a worker waits for ever when the parent is killed: each holds the other end of the
    queue it waits on.
    """
    parent: Any = multiprocessing.parent_process()
    wait([parent.sentinel])
    os._exit(1)


def _apply(items: Sequence[Any]) -> list[Any]:
    return [_function(item) for item in items]
