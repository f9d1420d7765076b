"""What the benchmarks of training share.

A data set, the loop as `distgan train` builds it, a look into it before each step, a clock.
"""

import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from bench import peers
from distgan.config import batch_layout, loading
from distgan.core import rng
from distgan.data.dataset import Data
from distgan.distributed.ranks import Ranks
from distgan.runs.folder import RunFolder
from distgan.training.loop import Loop

NEVER = 1e9  # epochs
# Nothing is validated, scored or saved between the first step and the last: that is not what is
# measured.
QUIET = [
    f"validate_every={NEVER}",
    f"sample_every={NEVER}",
    f"evaluate.schedule=[[null,{NEVER}]]",
    f"machine.checkpoint_every={NEVER}",
]


def write_images(root: Path, n: int) -> Path:
    """A data set of n colour images of 64x64, as raw arrays: decoding is measured elsewhere."""
    return peers.write_data(
        root,
        peers.IMAGE | {"field": "npy"},
        ("npy",),
        [(peers.raw(peers.image(i)),) for i in range(n)],
    )


def loop(module: ModuleType, settings: list[str], data: Data, folder: Path, steps: int) -> Loop:
    """All that a run of `steps` steps holds in one process, built as distgan/start.py builds it.

    It is scored by nothing.
    """
    run = loading.validate(
        module.Settings,
        {"recipe": module.__name__.rpartition(".")[2]},
        [*settings, *QUIET, f"data={data}", f"machine.folder={folder}"],
    )
    ranks = Ranks(run.machine, run.precision)
    layout = batch_layout.fit(
        run.batch, ranks.world_size, run.machine.accumulation, run.group, run.group_of
    )
    torch.manual_seed(rng.key(run.seed, "init"))
    samples = Data(str(data))
    recipe = module.Recipe(run, ranks, layout, samples.shape)
    per_step = layout.batch * run.batches_per_step
    run = run.model_copy(update={"epochs": steps * per_step / len(samples.train)})
    return Loop(
        run,
        recipe,
        samples,
        layout,
        ranks,
        RunFolder(run, samples.fingerprint, {}),
        lambda sample: {"metric": "none", "score": 0.0},
    )


def before_each_step(recipe: Any, call: Callable[[int], None]) -> None:
    """Have `call(step)` called ahead of every step, inside the loop that takes the steps."""
    step = recipe.step

    def stepped(batches, now):
        call(now.step)
        return step(batches, now)

    recipe.step = stepped


def clock(device: torch.device) -> float:
    """Seconds: of CPU time of this process, or of wall time after the GPU has done all it was
    given.
    """
    if device.type == "cpu":
        return time.process_time()
    torch.cuda.synchronize(device)
    return time.perf_counter()
