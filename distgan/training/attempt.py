"""Train a run, and record the attempt in its folder."""

import contextlib
import dataclasses
import os
import platform
import resource
import sys
from pathlib import Path
from typing import Any, Literal

import torch

from distgan import __version__
from distgan.config.introspection import changed
from distgan.config.sections import Machine
from distgan.config.settings import Run
from distgan.core import console, watchdog
from distgan.core.clock import Clock
from distgan.core.errors import RunError, SelfCheckTooLarge
from distgan.data.samples import Vectors
from distgan.distributed.environment import process_count
from distgan.distributed.ranks import Ranks
from distgan.recipes._catalog import Module
from distgan.runs import checkout
from distgan.runs.folder import NoRunFolder, RunFolder
from distgan.self_check import comparison, first_start
from distgan.shards.format.sample_spec import UNITS
from distgan.training import out_of_memory
from distgan.training.loop import STOPPED, Loop
from distgan.training.saving import Disk
from distgan.training.setup import TrainingSetup, length, notes


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How an attempt ended, the same on all ranks."""

    folder: Path  # of the run, as rank 0 names it
    state: Literal["done", "stopped"]

    @property
    def exit_code(self) -> int:
        return STOPPED if self.state == "stopped" else 0


def train(module: Module, run: Run, overrides: dict[str, Any]) -> Outcome:
    """Train, or continue, or print that the run is finished. Collective.

    overrides: the settings of the command line, kept in overrides.yaml.
    """
    with out_of_memory.explained(run, int(os.environ.get("RANK", 0)), process_count()[1]):
        return _train(TrainingSetup(module, run), overrides)


def _train(setup: TrainingSetup, overrides: dict[str, Any]) -> Outcome:
    run = setup.run
    ranks = setup.ranks
    folder: RunFolder = NoRunFolder()  # replaced on rank 0
    clock = Clock(setup.layout.batch * setup.run.batches_per_step, len(setup.data.train))
    last = clock.steps(run.epochs)

    def enter() -> tuple[str, str | None, int]:
        nonlocal folder
        code = getattr(setup.module, "code", None)
        folder = RunFolder(run, setup.data.fingerprint_for(run), overrides, setup.start, code)
        return str(folder.path), folder.done(last), folder.attempt

    path, done, attempt = ranks.on_rank_zero(enter)
    try:
        if done:
            console.say(
                f"{path} is finished ({done}; {last} steps requested): nothing to do. Open its"
                f" report: {console.command('report', path)}"
            )
            state: Literal["done", "stopped"] = "done"
        else:
            _announce(setup, run, path, clock)
            ranks.on_rank_zero(lambda: folder.begin(_facts(setup)))
            stacks = Path(path) / "attempts" / f"{attempt:03d}" / f"stacks-rank{ranks.rank}.txt"
            with (
                ranks.translating_peer_loss(path),
                watchdog.watching(stacks, run.machine.stall_s),
            ):
                state = _attempt(setup, run, folder)
            console.say(
                f"saved and stopped; run the same line again to continue the run in {path}"
                if state == "stopped"
                else f"finished; next: {console.command('report', path)}"
            )
    finally:
        folder.close()
    ranks.close()
    return Outcome(Path(path), state)


def _announce(setup: TrainingSetup, run: Run, path: str, clock: Clock) -> None:
    disk = Disk.of(run, setup.recipe, setup.data, clock.at(clock.steps(run.epochs)))
    shortage = setup.ranks.on_rank_zero(lambda: disk.shortage(Path(path)))
    console.say(
        f"run folder {path}\n{setup.layout}; {len(setup.data.train)} training {UNITS[run.kind]},"
        f" {len(setup.data.validation)} held out; on {setup.ranks.device.type},"
        f" {_engine(setup.ranks)}, {_options(run)}\n{length(run, clock)}\ndisk: {disk}"
        + "".join(f"\nnote: {note}" for note in notes(run, clock))
        + (f"\nwarning: {shortage}" if shortage else "")
    )


def _attempt(setup: TrainingSetup, run: Run, folder: RunFolder) -> Literal["done", "stopped"]:
    """Train, and record how the attempt ended. Return the state: `done` or `stopped`."""
    folder.reopen()
    try:
        loop = _checked_loop(setup, run, folder)
        state = loop.train()
    except BaseException as error:
        cause = f"{type(error).__name__}: {error}"
        # On a full disk this record fails as well: the user should read the first error.
        with contextlib.suppress(RunError):
            folder.end("failed", cause, **_measured(setup.ranks))
            folder.event("failed", cause=cause)
        raise
    why = loop.requests.cause if state == "stopped" else None
    folder.end(state, why, **_measured(setup.ranks))
    if setup.ranks.is_main:
        console.say(f"verdict: {loop.checks.summary(loop.state)['verdict']}")
    return state


def _checked_loop(setup: TrainingSetup, run: Run, folder: RunFolder) -> Loop:
    """Run the self-check if it is due, and return the loop; LaunchError if it fails.

    It is due where the settings ask for it, and where code of one's own is shared by several ranks
    for the first time. It comes first, because the loop's clock starts when the loop is made.
    """

    def loop() -> Loop:
        layout, evaluator = setup.layout, setup.evaluator
        return Loop(run, setup.recipe, setup.data, layout, setup.ranks, folder, evaluator)

    code = getattr(setup.module, "code", None)
    kind = f"compared-{setup.ranks.engine_choice.engine}"
    if run.machine.self_check or setup.ranks.on_rank_zero(
        lambda: code and setup.ranks.world_size > 1 and first_start.is_due(run, code, kind)
    ):
        try:
            report = comparison.check(setup.module, run, setup.ranks, setup.data, setup.layout)
        except SelfCheckTooLarge as error:
            if run.machine.self_check:
                raise
            console.say(f"note: not compared with one process: {error}")
            return loop()
        folder.event("self_check", **report.summary())
        if not report.holds:
            report.show()
        report.require()
        console.say(f"self-check: {report.verdict()}")
        if code:
            setup.ranks.on_rank_zero(lambda: first_start.remember(run, code, kind))
    return loop()


# ---- facts about an attempt
def _measured(ranks: Ranks) -> dict[str, Any]:
    """Return the peak memory, and what was not printed, for attempt.json."""
    lines, reason = console.lost()
    return {"peak_memory_mb": _peak_mb(ranks)} | (
        {"not_printed": {"lines": lines, "reason": reason}} if lines else {}
    )


def _peak_mb(ranks: Ranks) -> float:
    """Return the peak memory of this process in MB: allocated on the GPU, or resident."""
    if ranks.device.type == "cuda":
        return round(torch.cuda.max_memory_allocated(ranks.device) / 1e6, 1)
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6, 1)


def _facts(setup: TrainingSetup) -> dict[str, Any]:
    """Return the data, processes, device, batch layout and versions, for attempt.json."""
    layout, ranks, data = setup.layout, setup.ranks, setup.data
    on_gpu = ranks.device.type == "cuda"
    return {
        "argv": sys.argv,
        "changed": list(changed(setup.run)),  # settings that differ from their defaults
        "data": {
            "kind": data.kind,
            "train": len(data.train),
            "validation": len(data.validation),
            "shape": data.shape,
        }
        | ({"labels": data.labels.record()} if data.labels else {})
        | ({"columns": data.sample.columns} if isinstance(data.sample, Vectors) else {}),
        "processes": ranks.world_size,
        "engine": _engine(ranks),
        "device": torch.cuda.get_device_name(ranks.device) if on_gpu else ranks.device.type,
        "threads": torch.get_num_threads(),
        "parameters": setup.parameters(),
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
    if ranks.machine.engine == "deepspeed":
        return "one process (DeepSpeed has nothing to share)"
    return "one process"


def _options(run: Run) -> str:
    """Return the precision and the machine's options that differ from the defaults:
    `bf16, compile=default`.
    """
    defaults = Machine()
    names = ("compile", "channels_last", "optimizer", "bucket_mb", "sync_batchnorm")
    values = {name: getattr(run.machine, name) for name in names}
    changed = [f"{name}={v}" for name, v in values.items() if v != getattr(defaults, name)]
    return ", ".join([run.precision, *changed])
