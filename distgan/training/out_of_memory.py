"""Recognise a lack of memory, and say what to change for this run and this number of processes."""

import contextlib
import errno
from collections.abc import Iterator

from distgan.config import batch_layout
from distgan.config.settings import Run
from distgan.core.errors import ConfigError, DistganError, OutOfMemory

# Error texts of torch, NumPy, C++, oneDNN and the parent of decoding processes.
_MESSAGES = (
    "out of memory",
    "can't allocate memory",
    "cannot allocate memory",
    "unable to allocate",
    "std::bad_alloc",
    "could not create a primitive",
    "is killed by signal: killed",
    "can't start new thread",
    "failed to map segment",  # of a library that is imported on first use
)


def is_out_of_memory(error: BaseException) -> bool:
    """Return True if an error means that a GPU or the host had too little memory."""
    if isinstance(error, DistganError):
        return False
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    if isinstance(error, RuntimeError | ImportError):
        return any(message in str(error).lower() for message in _MESSAGES)
    return isinstance(error, MemoryError)


@contextlib.contextmanager
def explained(run: Run, rank: int, processes: int) -> Iterator[None]:
    """Turn an error that means a lack of memory into OutOfMemory with advice."""
    try:
        yield
    except (MemoryError, RuntimeError, ImportError, OSError) as error:
        if not is_out_of_memory(error):
            raise
        raise OutOfMemory(advice(run, rank, processes, error)) from error


def advice(run: Run, rank: int, processes: int, error: BaseException) -> str:
    """Return what ran out of memory, and the settings that need less."""
    reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
    accumulation = run.machine.accumulation
    now = run.batch // (processes * accumulation)
    smaller = [
        f"{n} ({each} per rank)" for n, each in per_rank_batches(run, processes) if each < now
    ]
    ways = [
        f"batch={run.batch} has no smaller per-rank batch with batch-norm groups of {run.group}"
    ]
    if smaller:
        ways = [f"machine.accumulation={', '.join(smaller[:6])}, which gives the same run"]
    if run.machine.resident_mb:
        ways.append(
            "machine.resident_mb=0, if the training set fills the memory (up to"
            f" {run.machine.resident_mb} MB)"
        )
    ways += ["more processes", "smaller networks or another batch, which is another run"]
    return (
        f"out of memory on rank {rank} with {now} samples per rank (batch {run.batch} = {processes}"
        f" ranks x {accumulation} micro-batches x {now}): {reason}. Change one of these, and run"
        " the"
        f" same line again: {'; '.join(ways)}. To find the largest per-rank batch that fits, add"
        f" --find-batch --processes={processes} to the same line"
    )


def per_rank_batches(run: Run, processes: int) -> list[tuple[int, int]]:
    """Return (accumulation, per-rank batch) of every way in which `processes` can share the batch,
    the largest per-rank batch first.
    """
    ways = []
    for n in range(1, run.batch // processes + 1):
        with contextlib.suppress(ConfigError):
            layout = batch_layout.fit(run.batch, processes, n, run.group, run.group_of)
            ways.append((n, layout.per_rank))
    return ways
