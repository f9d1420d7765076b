"""Set up a run: processes, settings, data, batch layout, networks, evaluator."""

import contextlib
import json
from typing import Any

from distgan.config import batch_layout
from distgan.config.introspection import flatten
from distgan.config.settings import Run
from distgan.core import console
from distgan.core.clock import Clock
from distgan.data.own_dataset import open_data
from distgan.distributed.ranks import Ranks
from distgan.evaluation.features.choice import Choice
from distgan.evaluation.image_evaluator import Evaluator
from distgan.recipes._base import build_recipe
from distgan.recipes._catalog import Module
from distgan.runs import checkpoints
from distgan.runs.locate import start_digest
from distgan.runs.resolve import (
    folder_of,
    recorded_code,
    recorded_identity,
    require_code,
    resolve,
    versions,
)
from distgan.self_check import first_start
from distgan.self_check.findings import explained
from distgan.shards.format.sample_spec import UNITS

# Settings in which the ranks of one run may differ: paths, and what no collective depends on.
PER_RANK: Any = {
    "data": True,
    "experiment": True,
    "evaluate": {"inception"},
    "machine": {"runs", "folder", "device", "workers", "resident_mb", "verify"},
}


class RunContext:
    """The processes, data and batch layout of a run.

    Checks them in the order in which a user should read about errors. Collective.
    """

    def __init__(self, module: Module, run: Run):
        self.module, self.ranks = module, Ranks(run.machine, run.precision)
        # Each rank has read its own run file: with other epochs in one of them, say, the other
        # ranks would wait for it at the end.
        for key, value in flatten(run.model_dump(mode="json", exclude=PER_RANK)):
            self.ranks.require_same(f"the setting {key}", str(value))
        # accelerate's configuration and DeepSpeed's file may differ between machines as well;
        # bucket sizes decide the order of collectives.
        deepspeed = json.dumps(self.ranks.engine_choice.deepspeed, sort_keys=True)
        self.ranks.require_same("the requested engine", f"{self.ranks.engine_choice} {deepspeed}")
        self.ranks.require_same("the kind of device", self.ranks.device.type)
        if code := getattr(module, "code", None):
            self.ranks.require_same(f"the code of {code.name}", code.digest)
        self.data = self.ranks.on_all_ranks(lambda: open_data(run.data, run.machine.verify))
        self.run = run = self._resolve(run)
        self.ranks.on_all_ranks(lambda: self.data.require(run))
        self.layout = batch_layout.fit(
            run.batch, self.ranks.world_size, run.machine.accumulation, run.group, run.group_of
        )
        self.start = self.ranks.on_rank_zero(lambda: self._recorded_start or start_digest(run))
        self.ranks.require_same(
            "the data set or the settings",
            run.identity(self.data.fingerprint_for(run), self.start)["id"],
        )

    def _resolve(self, run: Run) -> Run:
        """Return the version of `run` that its line means, see runs/resolve.py."""
        index, self._recorded_start, note = self.ranks.on_rank_zero(
            lambda: resolve(run, self.data.fingerprint_for(run))
        )
        if note:
            console.say(f"note: {note}")
        return versions(run)[index]


class TrainingSetup(RunContext):
    """A `RunContext` with the networks and the evaluator."""

    def __init__(self, module: Module, run: Run):
        super().__init__(module, run)
        run = self.run
        self.ranks.on_rank_zero(self._inspect)
        code = getattr(module, "code", None)
        checked = code and run.machine.self_check is not False
        with explained(code.paths) if code and checked else contextlib.nullcontext():
            self.recipe = build_recipe(
                module, run, self.ranks, self.layout, self.data.shape, self.data.labels
            )
        if self.ranks.world_size > 1:
            # Weights are sent from rank 0, buffers and averages are not: another version of torch
            # draws other numbers.
            digest = checkpoints.digest(self.recipe.players)
            self.ranks.require_same("the digest of the initial networks", digest)
        self.evaluator = None
        if scored := run.scored:
            self.evaluator = self.ranks.on_all_ranks(
                lambda: Evaluator(
                    self.ranks,
                    self.data,
                    scored.samples,
                    Choice.of(scored),
                )
            )

    def _inspect(self) -> None:
        """Rank 0: check code of one's own, unless this run has begun with it. RunError where it has
        begun with other code.
        """
        identity = self.run.identity(self.data.fingerprint_for(self.run), self.start)
        folder = folder_of(self.run, identity)
        code, recorded = getattr(self.module, "code", None), recorded_code(folder) or {}
        if recorded_identity(folder) == identity:
            require_code(self.run, code, folder)  # a check takes seconds
        if code and recorded.get("digest") != code.digest:
            first_start.inspect_once(self.module, self.run, self.data, self.ranks)

    def parameters(self) -> dict[str, int]:
        """Return the number of parameters of each player."""
        return {
            name: sum(p.numel() for p in player.module.parameters())
            for name, player in self.recipe.players.items()
        }


def length(run: Run, clock: Clock) -> str:
    """Return in words how far a run trains: epochs, steps, updates of each player, samples seen."""
    unit, last = UNITS[run.kind], clock.at(clock.steps(run.epochs))
    updates = ", ".join(f"{n:,} updates of {name}" for name, n in run.update_counts(clock).items())
    return (
        f"{run.epochs:,g} epochs of {clock.train:,} {unit} = {last.step:,} steps of"
        f" {clock.per_step:,}: "
        + (f"{updates}, " if updates else "")
        + f"{last.samples:,} {unit} seen"
    )


def notes(run: Run, clock: Clock) -> list[str]:
    """Return what a user should know of a run's length before it begins."""
    return [note for note in (clock.overshoot(run.epochs), _late_patience(run)) if note]


def _late_patience(run: Run) -> str | None:
    """Return that `patience` can end the run early in few cases, or in none; None in others."""
    if run.patience is None:
        return None
    given = f"patience={run.patience:g}"
    if run.scored is None and run.judge is None:
        return f"{given} cannot end this run early: it has no score"
    if run.patience >= run.epochs:
        return f"{given} cannot end this run early: it trains for epochs={run.epochs:g}"
    if run.patience > run.epochs / 2:
        return (
            f"{given} ends this run early only if its best score is from epoch"
            f" {run.epochs - run.patience:g} or before: it trains for epochs={run.epochs:g}"
        )
    return None
