"""`--find-batch`: find the largest per-rank batch that fits into memory.

    distgan train sagan data=data/particles --find-batch --processes=2 --memory=8

Tries a size by taking two steps in a child process (`python -m distgan.training.find_batch`): on a
GPU with its free memory, on a CPU with `--memory` GB, or the memory that is free now.
"""

import json
import os
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import distgan
from distgan.config import batch_layout
from distgan.config.settings import Run
from distgan.core import console
from distgan.core.errors import ConfigError, DistganError, LaunchError, RunError
from distgan.distributed.environment import process_count
from distgan.training.out_of_memory import is_out_of_memory, per_rank_batches

_EXIT_OUT_OF_MEMORY = 3
# Signals that end a process without memory: C++ aborts or faults, the system kills.
_SIGNALS = (-6, -7, -9, -11)


def find_batch(run: Run, words: list[str], processes: int, memory: float | None) -> int:
    """Print the largest per-rank batch that fits, and the line to use; write nothing.

    Return the exit code. words: the recipe and the settings of the command line. memory: GB that
    one process may take, or None for what is free.
    """
    if process_count()[1] > 1:
        raise LaunchError(
            "--find-batch runs in one process: start it without a launcher, and add --processes=N"
        )
    candidates = per_rank_batches(run, processes)
    if not candidates:
        batch_layout.fit(run.batch, processes, 1, run.group, run.group_of)  # names what would fit
        raise ConfigError(
            f"batch={run.batch} cannot be shared by {processes} processes with batch-norm groups of"
            f" {run.group}"
        )
    limit = int(memory * 1e9) if memory else _free_bytes() // processes
    low, high = 0, len(candidates)  # bisection: candidates[high:] are known to fit
    while low < high:
        middle = (low + high) // 2 if low else 0  # the largest first: it is the fastest
        accumulation, each = candidates[middle]
        used = _try_in_child(words[0], run, each, limit)
        result = f"fits ({used})" if used else "does not fit"
        console.say(f"{each:6} per rank, machine.accumulation={accumulation}: {result}")
        if used:
            high = middle
        else:
            low = middle + 1
    if low == len(candidates):
        remedy = "a smaller bn_group, which is another run," if run.group > 1 else "more memory"
        raise RunError(
            f"not even {candidates[-1][1]} samples per rank fit into {limit / 1e9:.3g} GB. Use"
            f" smaller networks, or {remedy}"
        )
    _print_line(run, words, processes, *candidates[low])
    return 0


def _print_line(run: Run, words: list[str], processes: int, accumulation: int, each: int) -> None:
    verb = ["run", "--processes", str(processes)] if processes > 1 else ["train"]
    words = [word for word in words if not word.startswith("machine.accumulation=")]
    line = console.command(*verb, *words, f"machine.accumulation={accumulation}")
    console.say(
        f"largest per-rank batch that fits: {each}. batch {run.batch} = {processes} ranks x"
        f" {accumulation} micro-batches x {each}: the same run\nthe line to use: {line}"
    )


def _free_bytes() -> int:
    """Return the memory of this machine that is available now."""
    for text in Path("/proc/meminfo").read_text().splitlines():
        if text.startswith("MemAvailable:"):
            return int(text.split()[1]) * 1024
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _try_in_child(recipe: str, run: Run, each: int, limit: int) -> str | None:
    """Take two steps on `each` samples in a child; return its memory as text, None if too little.

    RunError if the child fails for another reason.
    """
    settings = run.model_dump(mode="json") | {"batch": each}
    if "bn_group" in type(run).model_fields:
        settings["bn_group"] = batch_layout.reference_group(each, run.group)
    settings["machine"] |= {"accumulation": 1, "workers": 0}
    path = [str(Path(distgan.__file__).parents[1]), os.environ.get("PYTHONPATH")]
    done = subprocess.run(
        [sys.executable, "-m", "distgan.training.find_batch"],
        input=json.dumps({"recipe": recipe, "settings": settings, "limit": limit}),
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, path))},
    )
    if done.returncode in (_EXIT_OUT_OF_MEMORY, *_SIGNALS):
        return None
    if done.returncode:
        raise RunError(
            f"a step on {each} samples failed for a reason other than memory:"
            f" {(done.stderr.strip().splitlines() or ['(no message)'])[-1]}"
        )
    return done.stdout.strip().splitlines()[-1]


# ---- the child
def try_batch(recipe: str, settings: dict[str, Any], limit: int) -> str:
    """Take two steps in this process, on a CPU with at most `limit` bytes; return the peak memory
    as text.
    """
    import torch

    from distgan.core.clock import Clock
    from distgan.data.loader import Stream
    from distgan.data.own_dataset import open_data
    from distgan.distributed.ranks import Ranks
    from distgan.recipes._base import build_recipe
    from distgan.recipes._catalog import resolve_recipe

    module, _ = resolve_recipe(recipe)
    run = module.Settings.model_validate(settings)
    ranks = Ranks(run.machine, run.precision)
    data = open_data(run.data, run.machine.verify)
    data.require(run)
    layout = batch_layout.fit(run.batch, 1, 1, run.group, run.group_of)
    on_gpu = ranks.device.type == "cuda"
    if not on_gpu:
        # What is mapped already, mostly torch's libraries, is hardly in memory.
        pages = Path("/proc/self/statm").read_text().split()[:2]
        mapped, resident = (int(word) * os.sysconf("SC_PAGE_SIZE") for word in pages)
        soft = mapped + max(limit - resident, 0)
        resource.setrlimit(resource.RLIMIT_AS, (soft, resource.RLIM_INFINITY))
    made = build_recipe(module, run, ranks, layout, data.shape, data.labels)
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
    clock = Clock(layout.batch * run.batches_per_step, len(data.train))
    for step in range(2):  # an optimizer has its state after the first
        made.step([next(stream) for _ in range(run.batches_per_step)], clock.at(step))
    if on_gpu:
        return f"at most {torch.cuda.max_memory_allocated(ranks.device) / 1e9:.2f} GB on the GPU"
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return f"at most {peak / 1e9:.2f} GB in memory"


def main() -> int:
    request = json.load(sys.stdin)
    try:
        print(try_batch(**request))
    except Exception as error:
        if is_out_of_memory(error):
            return _EXIT_OUT_OF_MEMORY
        message = str(error) if isinstance(error, DistganError) else repr(error)
        print(message.replace("\n", " "), file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
