"""Memory that does not suffice: what to change, with numbers; and `--find-batch`, the largest
per-rank batch that fits.

    distgan train sagan data=data/particles --find-batch --processes=2 --memory=8

A size is tried by taking two steps in a process of its own: on a GPU with what is free there, on a
CPU with as much as `--memory` GB say, or as is free now.
"""

import contextlib
import errno
import json
import os
import resource
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import distgan
from distgan.config import batch_layout
from distgan.config.settings import Run
from distgan.core import console
from distgan.core.errors import ConfigError, DistganError, LaunchError, OutOfMemory, RunError
from distgan.distributed.environment import process_count

FLAGS = ("--find-batch", "--processes=", "--memory=")
_SHORT = 3  # exit code of a trial whose memory did not suffice
_KILLED = (
    -6,
    -7,
    -9,
    -11,
)  # of one that was ended for it: C++ aborts or faults where it gets none, the system kills
# What torch, NumPy, C++, oneDNN and a loader's parent say.
_WORDS = (
    "out of memory",
    "can't allocate memory",
    "cannot allocate memory",
    "unable to allocate",
    "std::bad_alloc",
    "could not create a primitive",
    "is killed by signal: killed",
)


def short(error: BaseException) -> bool:
    """Whether this says that there was not enough memory, on a GPU or on the host."""
    if isinstance(error, DistganError):
        return False
    return (
        isinstance(error, MemoryError)
        or isinstance(error, OSError)
        and error.errno == errno.ENOMEM
        or (
            isinstance(error, RuntimeError) and any(words in str(error).lower() for words in _WORDS)
        )
    )


@contextlib.contextmanager
def told(run: Run, rank: int, processes: int):
    """What ends for lack of memory in here ends with OutOfMemory, which says what to change."""
    try:
        yield
    except (MemoryError, RuntimeError, OSError) as error:
        if not short(error):
            raise
        raise OutOfMemory(advice(run, rank, processes, error)) from error


def advice(run: Run, rank: int, processes: int, error: BaseException) -> str:
    accumulation, what = (
        run.machine.accumulation,
        (str(error).splitlines() or [type(error).__name__])[0][:200],
    )
    now = run.batch // (processes * accumulation)
    smaller = [f"{n} ({each} per rank)" for n, each in sizes(run, processes) if each < now]
    ways = [
        (
            f"machine.accumulation={', '.join(smaller[:6])}, which is the same run"
            if smaller
            else f"no smaller share of batch={run.batch} fits its batch-norm groups of {run.group}"
        ),
        "more processes",
        "smaller networks, or another batch (another run)",
    ]
    if run.machine.resident_mb:
        ways.insert(
            1,
            f"machine.resident_mb=0, where the training set (up to {run.machine.resident_mb} MB) is"
            " what fills it",
        )
    return (
        f"out of memory on rank {rank} with {now} samples per rank (batch {run.batch} = {processes}"
        f" ranks x {accumulation} micro-batches x {now}): {what}. Change one of these, and run the"
        f" same line again: {'; '.join(ways)}. The largest per-rank batch that fits: the same line"
        f" with --find-batch --processes={processes}"
    )


def sizes(run: Run, processes: int) -> list[tuple[int, int]]:
    """(accumulation, per-rank batch) by which this many processes can share the batch, the largest
    per-rank batch first.
    """
    found = []
    for n in range(1, run.batch // processes + 1):
        with contextlib.suppress(ConfigError):
            found.append(
                (n, batch_layout.fit(run.batch, processes, n, run.group, run.group_of).per_rank)
            )
    return found


# ---- --find-batch
def options(flags: set[str]) -> tuple[int, float | None]:
    """(processes, GB for one of them or None) from `--processes=2 --memory=8`."""
    given = dict(flag.split("=", 1) for flag in flags if flag.startswith(FLAGS[1:]))
    try:
        processes, memory = (
            int(given.get("--processes", 1)),
            (float(given["--memory"]) if "--memory" in given else None),
        )
        if processes < 1 or memory is not None and not 0 < memory < 1e6:
            raise ValueError
    except ValueError:
        raise ConfigError(
            f"found {' '.join(f'{name}={value}' for name, value in given.items())}; --processes is"
            " a whole number from 1 on, --memory a number of GB"
        ) from None
    return processes, memory


def find(run: Run, words: list[str], flags: set[str]) -> int:
    """`--find-batch`: print the largest per-rank batch that fits, and the line to use; write
    nothing. Returns the exit code.
    """
    processes, memory = options(flags)
    if process_count()[1] > 1:
        raise LaunchError(
            "--find-batch tries in one process what each will do: start it without a launcher, and"
            " say --processes=N"
        )
    candidates = sizes(run, processes)
    if not candidates:
        batch_layout.fit(run.batch, processes, 1, run.group, run.group_of)  # which says what fits
        raise ConfigError(
            f"batch={run.batch} cannot be shared by {processes} processes with batch-norm groups of"
            f" {run.group}"
        )
    limit = int(memory * 1e9) if memory else _free() // processes
    low, high = 0, len(candidates)  # all from `high` on fit, as far as is known
    while low < high:
        middle = (low + high) // 2 if low else 0  # the largest first: it is the fastest
        accumulation, each = candidates[middle]
        fits = _try(run, each, limit)
        console.say(
            f"{each:6} per rank, machine.accumulation={accumulation}: "
            + (f"fits ({fits})" if fits else "does not fit")
        )
        low, high = (low, middle) if fits else (middle + 1, high)
    if low == len(candidates):
        raise RunError(
            f"not even {candidates[-1][1]} samples per rank fit into {limit / 1e9:.3g} GB. Smaller"
            " networks do, or"
            f" {'a smaller bn_group, which is another run' if run.group > 1 else 'more memory'}"
        )
    accumulation, each = candidates[low]
    words = [word for word in words if not word.startswith("machine.accumulation=")]
    line = (
        ["distgan", "run", "--processes", str(processes)] if processes > 1 else ["distgan", "train"]
    )
    console.say(
        f"largest per-rank batch that fits: {each}. batch {run.batch} = {processes} ranks x"
        f" {accumulation} micro-batches x {each}: the same run\nthe line to use:"
        f" {shlex.join([*line, *words, f'machine.accumulation={accumulation}'])}"
    )
    return 0


def _free() -> int:
    """Bytes that this machine can give away now."""
    for text in Path("/proc/meminfo").read_text().splitlines():
        if text.startswith("MemAvailable:"):
            return int(text.split()[1]) * 1024
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _try(run: Run, each: int, limit: int) -> str | None:
    """What two steps on `each` samples took, as words; None where memory did not suffice."""
    changes = {"batch": each} | (
        {"bn_group": batch_layout.reference_group(each, run.group)}
        if "bn_group" in type(run).model_fields
        else {}
    )
    settings = run.model_dump(mode="json") | changes
    settings["machine"] |= {"accumulation": 1, "workers": 0}
    done = subprocess.run(
        [sys.executable, "-m", "distgan.training.memory"],
        input=json.dumps({"settings": settings, "limit": limit}),
        capture_output=True,
        text=True,
        env=os.environ
        | {
            "PYTHONPATH": os.pathsep.join(
                filter(None, [str(Path(distgan.__file__).parents[1]), os.environ.get("PYTHONPATH")])
            )
        },
    )
    if done.returncode == _SHORT or done.returncode in _KILLED:
        return None
    if done.returncode:
        raise RunError(
            f"a step on {each} samples failed, not for lack of memory:"
            f" {(done.stderr.strip().splitlines() or ['(no message)'])[-1]}"
        )
    return done.stdout.strip().splitlines()[-1]


def trial(settings: dict[str, Any], limit: int) -> str:
    """Two steps in this process; how much they took."""
    import torch

    from distgan import recipes
    from distgan.core.clock import Clock
    from distgan.data.dataset import Data
    from distgan.data.loader import Stream
    from distgan.distributed.ranks import Ranks

    module, _ = recipes.resolve(settings["recipe"])
    run = module.Settings.model_validate(settings)
    ranks = Ranks(run.machine, run.precision)
    data = Data(run.data, run.machine.verify)
    layout = batch_layout.fit(run.batch, 1, 1, run.group, run.group_of)
    on_gpu = ranks.device.type == "cuda"
    if (
        not on_gpu
    ):  # what is mapped already, by torch's libraries for the most part, is hardly in memory
        pages = [
            int(word) * os.sysconf("SC_PAGE_SIZE")
            for word in Path("/proc/self/statm").read_text().split()[:2]
        ]
        resource.setrlimit(
            resource.RLIMIT_AS, (pages[0] + max(limit - pages[1], 0), resource.RLIM_INFINITY)
        )
    recipe = recipes.build(module, run, ranks, layout, data.shape)
    stream = iter(
        Stream(
            data,
            run.seed,
            layout,
            0,
            ranks.device,
            resident_bytes=run.machine.resident_mb << 20,
            window=run.shuffle_window or 0,
            crop=run.crop,
        )
    )
    clock = Clock(layout.batch * recipe.batches_per_step, len(data.train))
    for step in range(2):  # an optimizer has its state after the first
        recipe.step([next(stream) for _ in range(recipe.batches_per_step)], clock.at(step))
    if on_gpu:
        return f"at most {torch.cuda.max_memory_allocated(ranks.device) / 1e9:.2f} GB on the GPU"
    return (
        f"at most {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9:.2f} GB in"
        " memory"
    )


def main() -> int:
    asked = json.load(sys.stdin)
    try:
        print(trial(asked["settings"], asked["limit"]))
    except Exception as error:
        if not short(error):
            print(
                str(error).replace("\n", " ") if isinstance(error, DistganError) else repr(error),
                file=sys.stderr,
            )
            return 1
        return _SHORT
    return 0


if __name__ == "__main__":
    sys.exit(main())
