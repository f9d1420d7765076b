"""What happens before the first step and after the last.

Help, dry run, set-up, the record of an attempt.
"""

import contextlib
import json
import os
import platform
import resource
import shlex
import sys
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
import yaml

from distgan import __version__, recipes
from distgan.config import batch_layout
from distgan.config.batch_layout import BatchLayout
from distgan.config.introspection import describe, flatten
from distgan.config.sections import Machine
from distgan.config.settings import Run
from distgan.core import checkout, console, watchdog
from distgan.core.clock import Clock
from distgan.core.errors import RunError
from distgan.data.dataset import Data
from distgan.data.loader import Stream
from distgan.distributed.environment import process_count
from distgan.distributed.ranks import Ranks
from distgan.evaluation.image_evaluator import Evaluator
from distgan.runs import checkpoints
from distgan.runs import folder as runs
from distgan.runs.folder import RunFolder
from distgan.training import memory
from distgan.training import self_check as doctor
from distgan.training.loop import STOPPED, Loop

USAGE = """usage: distgan train RECIPE|RUN.yaml data=FOLDER [key=value …] [--dry-run|--doctor|--find-batch] [--help]

  accelerate launch --multi_gpu --num_processes 2 -m distgan.train sagan data=data/particles   (also starts 2 CPU processes)
  torchrun --nproc-per-node 2 -m distgan.train sagan data=data/particles batch=32
  python -m distgan.train sagan data=data/particles epochs=1 machine.folder=runs/debug         (one process: a debugger works)
  distgan train sagan data=data/particles --find-batch --processes=2 --memory=8                (the largest per-rank batch that fits in 8 GB)

In a checkout, distgan/train.py in place of -m distgan.train is the same program. The batch is the global batch: the number of processes does not change the result. The same line again continues the run.
Make data first: distgan shard particles data/particles
"""


def show_help(what: str | None) -> int:
    """Print usage, and every setting of the recipe where one is named."""
    console.say(USAGE)
    if what is None or "=" in what:
        console.say(
            f"Recipes: {', '.join(recipes.names())}. `distgan train {recipes.names()[0]} --help`"
            " lists every setting."
        )
        return 0
    module, tree = recipes.resolve(what)
    given = dict(flatten({key: value for key, value in tree.items() if key != "recipe"}))
    console.say(f"Settings of {what} ({module.__doc__.strip().splitlines()[0]})\n")
    for key, default, meaning in describe(module.Settings):
        console.say(f"  {f'{key}={given.get(key, default)}':44} {meaning}")
    return 0


# What may differ among the ranks of one run: where things lie, and what decides no collective.
PLACES = {
    "data": True,
    "experiment": True,
    "evaluate": {"inception"},
    "machine": {"runs", "folder", "device", "workers", "resident_mb", "verify"},
}


class _Ground:
    """What a run stands on, in the order in which faults should be told.

    Processes, settings, data, batch.
    """

    def __init__(self, run: Run):
        self.ranks = Ranks(run.machine, run.precision)
        # Each rank has read its own run file: an older one, with other epochs, say, would leave the
        # others waiting at the end.
        for key, value in flatten(run.model_dump(mode="json", exclude=PLACES)):
            self.ranks.require_same(f"the setting {key}", str(value))
        # Also from accelerate's configuration and DeepSpeed's file, which another machine may have
        # otherwise: bucket sizes say who waits for what.
        self.ranks.require_same(
            "the engine that was asked for",
            " ".join(
                [
                    str(self.ranks.engine_choice),
                    json.dumps(self.ranks.engine_choice.deepspeed, sort_keys=True),
                ]
            ),
        )
        self.ranks.require_same("the kind of device", self.ranks.device.type)
        self.data = self.ranks.on_all_ranks(lambda: Data(run.data, run.machine.verify))
        self.data.require(run.recipe, run.kind, run.crop)
        self.layout = batch_layout.fit(
            run.batch, self.ranks.world_size, run.machine.accumulation, run.group, run.group_of
        )
        self.start = self.ranks.on_rank_zero(lambda: _source(run, self.data.fingerprint))
        self.ranks.require_same(
            "the data set or the settings", run.identity(self.data.fingerprint, self.start)["id"]
        )


class _Setup(_Ground):
    """Everything a run needs: also networks and weights files."""

    def __init__(self, module: ModuleType, run: Run):
        super().__init__(run)
        self.module = module
        self.recipe = recipes.build(module, run, self.ranks, self.layout, self.data.shape)
        if (
            self.ranks.world_size > 1
            # weights are sent from rank 0, buffers and averages are not: another torch draws other
            # numbers
        ):
            self.ranks.require_same(
                "what the networks start from", checkpoints.digest(self.recipe.players)
            )
        scored = run.scored
        self.evaluator = (
            self.ranks.on_all_ranks(
                lambda: Evaluator(
                    self.ranks,
                    self.data,
                    scored.samples,
                    scored.inception,
                    sha256=scored.inception_sha256,
                )
            )
            if scored
            else None
        )


def _source(run: Run, fingerprint: str) -> str | None:
    """The digest of the checkpoint that this run starts from, or started from."""
    if not run.grow:
        return None
    from distgan.engine import widen as grow

    return runs.begun(run, fingerprint) or checkpoints.verify(grow.locate(run.grow))["digest"]


def train(module: ModuleType, run: Run, asked: dict[str, Any]) -> int:
    """Train, or continue, or say that nothing is left to do. Returns the exit code."""
    with memory.told(run, int(os.environ.get("RANK", 0)), process_count()[1]):
        return _train(module, run, asked)


def _train(module: ModuleType, run: Run, asked: dict[str, Any]) -> int:
    setup = _Setup(module, run)
    ranks = setup.ranks
    opened: list[RunFolder] = []
    clock = Clock(setup.layout.batch * setup.recipe.batches_per_step, len(setup.data.train))
    last = clock.steps(run.epochs)

    def enter() -> tuple[str, str | None, int]:
        opened.append(RunFolder(run, setup.data.fingerprint, asked, setup.start))
        return str(opened[0].path), opened[0].done(last), opened[0].attempt

    path, done, attempt = ranks.on_rank_zero(enter)
    folder = opened[0] if ranks.is_main else None
    try:
        if done:
            console.say(
                f"{path} is finished ({done}; asked are {last} steps); nothing to do. Look at it:"
                f" distgan report {shlex.quote(path)}"
            )
            state = "done"
        else:
            console.say(
                f"run folder {path}\n{setup.layout}; {len(setup.data.train)} training {run.kind}s,"
                f" {len(setup.data.validation)} held out; on {ranks.device.type}, {_engine(ranks)},"
                f" {_options(run)}"
                + (f"\nnote: {more}" if (more := clock.overshoot(run.epochs)) else "")
            )
            ranks.on_rank_zero(lambda: opened[0].begin(_facts(setup)))
            with (
                ranks.translating_peer_loss(path),
                watchdog.watching(
                    Path(path) / "attempts" / f"{attempt:03d}" / f"stacks-rank{ranks.rank}.txt",
                    run.machine.stall_s,
                ),
            ):
                state = _attempt(setup, run, folder)
            console.say(
                f"saved and stopped; the same line continues the run in {path}"
                if state == "stopped"
                else f"finished; next: distgan report {shlex.quote(path)}"
            )
    finally:
        if folder:
            folder.close()
    ranks.close()
    return STOPPED if state == "stopped" else 0


def _attempt(setup: _Setup, run: Run, folder: RunFolder | None) -> str:
    """Train, and record in the run folder that and how it was tried."""
    if not folder:
        return _checked(setup, run, None).train()
    folder.unfinish()
    try:
        loop = _checked(setup, run, folder)
        state = loop.train()
    except BaseException as error:
        cause = f"{type(error).__name__}: {error}"
        with contextlib.suppress(
            RunError
            # on a full disk the record of the failure fails as well: the failure is what must be told
        ):
            folder.end("failed", cause, peak_memory_mb=_peak_mb(setup.ranks))
            folder.event("failed", cause=cause)
        raise
    folder.end(
        state,
        loop.requests.cause if state == "stopped" else None,
        peak_memory_mb=_peak_mb(setup.ranks),
    )
    return state


def _checked(setup: _Setup, run: Run, folder: RunFolder | None) -> Loop:
    """The loop, where no self-check is asked for or it holds.

    The check comes first: the loop's clock starts when it is made.
    """
    if run.machine.self_check:
        report = doctor.check(setup.module, run, setup.ranks, setup.data, setup.layout)
        if folder:
            folder.event("self_check", **report.summary())
        if not report.holds:
            report.show()
        report.require()
        console.say(f"self-check: {report.verdict()}")
    return Loop(run, setup.recipe, setup.data, setup.layout, setup.ranks, folder, setup.evaluator)


def self_check(module: ModuleType, run: Run) -> int:
    """`--doctor`: compare three steps with those of one process, write nothing. Returns 0 where
    they agree, else 1.
    """
    ground = _Ground(run)
    report = doctor.check(module, run, ground.ranks, ground.data, ground.layout)
    report.show()
    console.say(report.verdict())
    ground.ranks.close()
    return 0 if report.holds else 1


def dry_run(module: ModuleType, run: Run) -> int:
    """Print what would be trained, and its size; write nothing."""
    setup = _Setup(module, run)
    console.say(yaml.safe_dump(run.model_dump(mode="json"), sort_keys=False))
    identity = run.identity(setup.data.fingerprint, setup.start)["id"]
    console.say(f"run identity        {identity}  ({run.delta()}-{identity})")
    console.say(f"breakdown           {setup.layout}")
    loop = Loop(run, setup.recipe, setup.data, setup.layout, setup.ranks, None, setup.evaluator)
    console.say(
        f"length              {loop.last} steps of {loop.clock.per_step} {run.kind}s,"
        f" {len(setup.data.train)} {run.kind}s an epoch"
    )
    total = 0
    for name, player in setup.recipe.players.items():
        count = sum(p.numel() for p in player.module.parameters())
        total += count
        console.say(f"parameters of {name}     {count:,}")
    weights, saved, activations = _bytes(setup)
    console.say(
        f"memory, estimated   {_mb(weights + activations)} per rank: weights, gradients, optimizer"
        f" and averages {_mb(weights)}, activations {_mb(activations)}"
    )
    console.say(f"checkpoint          {_mb(saved)}")
    setup.ranks.close()
    return 0


def _mb(size: float) -> str:
    return f"{size / 1e6:.1f} MB"


def _bytes(setup: _Setup) -> tuple[int, int, int]:
    """Bytes: (persistent in memory, estimated.

    In a checkpoint, estimated; what one micro-batch keeps for backward, counted in a step).
    """
    weights = saved = 0
    for player in setup.recipe.players.values():
        network = sum(p.numel() * p.element_size() for p in player.module.parameters())
        average = network if player.ema is not player.module else 0
        moments = 2 * network  # Adam's two; RMSprop keeps one
        weights += 2 * network + moments + average
        saved += network + moments + average
    return weights, saved, max(_kept(setup).values())


def _kept(setup: _Setup) -> dict[str, int]:
    """Bytes of activations that backward needs, by player.

    The first step is taken, on nothing that is saved.
    """
    kept: dict[str, int] = {}
    for name, player in setup.recipe.players.items():
        player.update = partial(_counted, player.update, player, name, kept)
    stream = iter(
        Stream(
            setup.data,
            setup.recipe.run.seed,
            setup.layout,
            setup.ranks.rank,
            setup.ranks.device,
            crop=setup.recipe.run.crop,
        )
    )
    setup.recipe.step(
        [next(stream) for _ in range(setup.recipe.batches_per_step)],
        Clock(setup.layout.batch * setup.recipe.batches_per_step, len(setup.data.train)),
    )
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
    """An update on one micro-batch, with the bytes it keeps."""
    found: dict[int, int] = {}
    weights = {p.data_ptr() for p in player.module.parameters()}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.data_ptr() not in weights:
            found[tensor.data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        log = update(loss_of, batch, epoch)
    kept[name] = max(kept.get(name, 0), sum(found.values()) // len(batch))
    return log


def _peak_mb(ranks: Ranks) -> float:
    """The most memory this attempt held on rank 0.

    Allocated on the GPU, or resident in the process.
    """
    if ranks.device.type == "cuda":
        return round(torch.cuda.max_memory_allocated(ranks.device) / 1e6, 1)
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6, 1)


def _facts(setup: _Setup) -> dict[str, Any]:
    """What an attempt ran on."""
    layout: BatchLayout = setup.layout
    cuda = (
        torch.cuda.get_device_name(setup.ranks.device)
        if setup.ranks.device.type == "cuda"
        else None
    )
    data = {
        "kind": setup.data.kind,
        "train": len(setup.data.train),
        "validation": len(setup.data.validation),
        "shape": setup.data.shape,
    }
    return {
        "argv": sys.argv,
        "data": data,
        "processes": setup.ranks.world_size,
        "engine": _engine(setup.ranks),
        "device": cuda or setup.ranks.device.type,
        "threads": torch.get_num_threads(),
        "parameters": {
            name: sum(p.numel() for p in player.module.parameters())
            for name, player in setup.recipe.players.items()
        },
        "batch": {
            "global": layout.batch,
            "ranks": layout.ranks,
            "accumulation": layout.accumulation,
            "per_rank": layout.per_rank,
            "group": layout.group,
        },
        "versions": {
            "distgan": __version__,
            "python": platform.python_version(),
            "torch": torch.__version__,
        },
        "git": checkout.version(),
    }


def _engine(ranks: Ranks) -> str:
    if ranks.world_size > 1:
        return str(ranks.engine_choice)
    return "one process" + (
        ", which has nothing to share by DeepSpeed" if ranks.machine.engine == "deepspeed" else ""
    )


def _options(run: Run) -> str:
    """Precision, and what else was asked of the arithmetic: `bf16, compile=default`."""
    usual = Machine()
    asked = [
        (name, getattr(run.machine, name))
        for name in ("compile", "channels_last", "optimizer", "bucket_mb", "sync_batchnorm")
    ]
    return ", ".join(
        [
            run.precision,
            *(f"{name}={value}" for name, value in asked if value != getattr(usual, name)),
        ]
    )
