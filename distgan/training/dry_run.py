"""`--help`, `--dry-run` and `--doctor`: print, and write nothing."""

from functools import partial
from types import ModuleType
from typing import Any

import torch
import yaml

from distgan.config.introspection import describe, flatten
from distgan.config.settings import Run
from distgan.core import console
from distgan.core.clock import Clock
from distgan.data.loader import Stream
from distgan.recipes._catalog import recipe_names, resolve_recipe
from distgan.training.self_check import check
from distgan.training.setup import RunContext, TrainingSetup

USAGE = """usage: distgan train RECIPE|RUN.yaml data=FOLDER [key=value …]
                     [--dry-run|--doctor|--find-batch] [--help]

Two processes, on GPUs or CPUs:
  accelerate launch --multi_gpu --num_processes 2 -m distgan.train sagan data=data/particles
  torchrun --nproc-per-node 2 -m distgan.train sagan data=data/particles batch=32
One process, in which a debugger works:
  python -m distgan.train sagan data=data/particles epochs=1 machine.folder=runs/debug
The largest per-rank batch that fits into 8 GB:
  distgan train sagan data=data/particles --find-batch --processes=2 --memory=8

In a checkout, distgan/train.py is the same program as -m distgan.train.
`batch` is the global batch: the number of processes does not change the result.
Run the same line again to continue a run.
Make a data set first: distgan shard particles data/particles
"""


def show_help(recipe: str | None) -> int:
    """Print usage, and every setting of `recipe` if one is named."""
    console.say(USAGE)
    if recipe is None or "=" in recipe:
        console.say(
            f"Recipes: {', '.join(recipe_names())}. `distgan train {recipe_names()[0]} --help`"
            " lists every setting."
        )
        return 0
    module, tree = resolve_recipe(recipe)
    values = dict(flatten({key: value for key, value in tree.items() if key != "recipe"}))
    console.say(f"Settings of {recipe} ({module.__doc__.strip().splitlines()[0]})\n")
    for key, default, description in describe(module.Settings):
        console.say(f"  {f'{key}={values.get(key, default)}':44} {description}")
    return 0


def doctor(module: ModuleType, run: Run) -> int:
    """`--doctor`: compare three steps with those of one process. Return 0 if they agree, else 1."""
    context = RunContext(run)
    run = context.run
    report = check(module, run, context.ranks, context.data, context.layout)
    report.show()
    console.say(report.verdict())
    context.ranks.close()
    return 0 if report.holds else 1


def dry_run(module: ModuleType, run: Run) -> int:
    """`--dry-run`: print the settings, the run's identity and length, and its sizes."""
    setup = TrainingSetup(module, run)
    run = setup.run
    console.say(yaml.safe_dump(run.model_dump(mode="json"), sort_keys=False))
    identity = run.identity(setup.data.fingerprint, setup.start)["id"]
    console.say(f"run identity        {identity}  ({run.delta()}-{identity})")
    console.say(f"breakdown           {setup.layout}")
    clock = _clock(setup)
    console.say(
        f"length              {clock.steps(run.epochs)} steps of {clock.per_step} {run.kind}s,"
        f" {len(setup.data.train)} {run.kind}s an epoch"
    )
    for name, count in setup.parameters().items():
        console.say(f"parameters of {name}     {count:,}")
    weights, saved = _persistent_bytes(setup)
    activations = max(_activation_bytes(setup).values())
    console.say(
        f"memory, estimated   {_mb(weights + activations)} per rank: weights, gradients, optimizer"
        f" and averages {_mb(weights)}, activations {_mb(activations)}"
    )
    console.say(f"checkpoint          {_mb(saved)}")
    setup.ranks.close()
    return 0


def _clock(setup: TrainingSetup) -> Clock:
    return Clock(setup.layout.batch * setup.recipe.batches_per_step, len(setup.data.train))


def _mb(size: float) -> str:
    return f"{size / 1e6:.1f} MB"


def _persistent_bytes(setup: TrainingSetup) -> tuple[int, int]:
    """Estimate (bytes held in memory between steps, bytes of a checkpoint)."""
    weights = saved = 0
    for player in setup.recipe.players.values():
        network = sum(p.numel() * p.element_size() for p in player.module.parameters())
        average = network if player.ema is not player.module else 0
        moments = 2 * network  # Adam's two; RMSprop keeps one
        weights += 2 * network + moments + average
        saved += network + moments + average
    return weights, saved


def _activation_bytes(setup: TrainingSetup) -> dict[str, int]:
    """Count the bytes that backward needs of one micro-batch, by player.

    Takes one training step, whose result is dropped.
    """
    kept: dict[str, int] = {}
    run = setup.recipe.run
    for name, player in setup.recipe.players.items():
        player.update = partial(_counted, player.update, player, name, kept)
    stream = iter(
        Stream(
            setup.data, run.seed, setup.layout, setup.ranks.rank, setup.ranks.device, crop=run.crop
        )
    )
    batches = [next(stream) for _ in range(setup.recipe.batches_per_step)]
    setup.recipe.step(batches, _clock(setup))
    return kept


def _counted(
    update: Any,
    player: Any,
    name: str,
    kept: dict[str, int],
    loss_of: Any,
    batch: Any,
    epoch: float,
) -> Any:
    """Call `update`, and note in `kept` the bytes it keeps for backward, per micro-batch."""
    sizes: dict[int, int] = {}
    weights = {p.data_ptr() for p in player.module.parameters()}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.data_ptr() not in weights:
            sizes[tensor.data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        log = update(loss_of, batch, epoch)
    kept[name] = max(kept.get(name, 0), sum(sizes.values()) // len(batch))
    return log
