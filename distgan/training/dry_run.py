"""`--dry-run` and `--doctor`: print, and write nothing."""

import json
from functools import partial
from typing import Any

import torch
import yaml

from distgan.config.introspection import changed, flatten
from distgan.config.settings import Run
from distgan.core import console
from distgan.core.clock import Clock
from distgan.data.loader import Stream
from distgan.recipes._catalog import Module
from distgan.self_check import findings
from distgan.self_check.comparison import check
from distgan.self_check.inspection import inspect
from distgan.training.saving import Disk
from distgan.training.setup import RunContext, TrainingSetup, length, notes


def doctor(module: Module, run: Run) -> int:
    """`--doctor`: compare three steps with those of one process. Return 0 if they agree, else 1."""
    context = RunContext(module, run)
    run = context.run
    if code := getattr(module, "code", None):
        found = context.ranks.on_rank_zero(
            lambda: inspect(module, code.paths, run, context.ranks, context.data)
        )
        findings.require(found)
    report = check(module, run, context.ranks, context.data, context.layout)
    report.show()
    console.say(report.verdict())
    context.ranks.close()
    return 0 if report.holds else 1


def dry_run(module: Module, run: Run, every_setting: bool = False) -> int:
    """`--dry-run`: print the run's identity, its length, its sizes, and the settings that differ
    from their defaults or, if `every_setting`, all of them.
    """
    setup = TrainingSetup(module, run)
    run = setup.run
    if every_setting:
        console.say(yaml.safe_dump(run.model_dump(mode="json"), sort_keys=False))
    identity = run.identity(setup.data.fingerprint_for(run), setup.start)["id"]
    console.say(f"run identity        {identity}  ({run.delta()}-{identity})")
    console.say(f"breakdown           {setup.layout}")
    clock = _clock(setup)
    console.say(f"length              {length(run, clock)}")
    for note in notes(run, clock):
        console.say(f"note: {note}")
    for name, count in setup.parameters().items():
        console.say(f"parameters of {name}     {count:,}")
    weights = _persistent_bytes(setup)
    activations = max(_activation_bytes(setup).values())
    console.say(
        f"memory, estimated   {_mb(weights + activations)} per rank: weights, gradients, optimizer"
        f" and averages {_mb(weights)}, activations {_mb(activations)}"
    )
    disk = Disk.of(run, setup.recipe, setup.data, clock.at(clock.steps(run.epochs)))
    console.say(f"disk                {disk}")
    if not every_setting:
        _say_changed(run)
    setup.ranks.close()
    return 0


def _say_changed(run: Run) -> None:
    differing, count = changed(run), len(list(flatten(run.model_dump(mode="json"))))
    for number, (key, value) in enumerate(differing.items()):
        text = value if isinstance(value, str) else json.dumps(value)
        console.say(f"{'' if number else 'settings':19} {key}={text}")
    console.say(
        f"{'':19} {count - len(differing)} others have their defaults:"
        " `--dry-run --all` prints every setting"
    )


def _clock(setup: TrainingSetup) -> Clock:
    return Clock(setup.layout.batch * setup.run.batches_per_step, len(setup.data.train))


def _mb(size: float) -> str:
    return f"{size / 1e6:.1f} MB"


def _persistent_bytes(setup: TrainingSetup) -> int:
    """Estimate the bytes held in memory between steps."""
    weights = 0
    for player in setup.recipe.players.values():
        network = sum(p.numel() * p.element_size() for p in player.module.parameters())
        average = network if player.ema is not player.module else 0
        moments = 2 * network  # Adam's two; RMSprop keeps one
        weights += 2 * network + moments + average
    return weights


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
    batches = [next(stream) for _ in range(setup.run.batches_per_step)]
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
