"""The self-check: compare three steps on all ranks with those of one process that takes the whole
global batch, before a run starts.

Both start from the same networks, data and noise, as any two launches of a run do, so they differ
by rounding alone. Everything is made for the check and dropped after it; no random generator
advances, so the run afterwards is bit for bit the same as without the check.
"""

import dataclasses
import gc
import math
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch

from distgan.config.batch_layout import BatchLayout
from distgan.config.settings import Run
from distgan.core import console
from distgan.core.clock import Clock
from distgan.core.errors import LaunchError, SelfCheckTooLarge
from distgan.data.dataset import Data
from distgan.data.loader import MicroBatch, Stream
from distgan.distributed.ranks import Ranks, SingleProcess
from distgan.engine.player import Player
from distgan.recipes._base import build_recipe
from distgan.recipes._catalog import Module

STEPS = 3  # a GAN amplifies rounding with every step, and every known fault shows in three


class Tolerance(NamedTuple):
    """For each of the three steps, the largest difference that counts as rounding; measured, with a
    margin, in docs/engines.md.

    Faults show in the first steps: the tests of the self-check inject some, all above the
    tolerance. In the third step, 15 updates of a critic may have amplified 1e-6 to 0.2.
    """

    numbers: tuple[float, float, float]  # losses and gradient norms
    state: tuple[float, float, float]  # optimizers' state, which has the gradients; buffers
    weights: tuple[
        float, float, float
    ]  # weights and averages: where a gradient is rounding alone, Adam makes a whole step of it


_HALF = Tolerance((1e-2, 5e-2, 5e-1), (2e-1, 3e-1, 3e-1), (5e-1, 5e-1, 7e-1))
TOLERANCES = {
    "float64": Tolerance((1e-9, 1e-9, 1e-9), (1e-9, 1e-9, 1e-9), (1e-9, 1e-9, 1e-9)),
    "float32": Tolerance((5e-3, 2e-2, 5e-1), (3e-2, 5e-2, 3e-1), (3e-1, 3e-1, 5e-1)),
    "tf32": _HALF,
    "bf16": _HALF,
    "fp16": _HALF,
}
# A hinge or Wasserstein loss of G passes through 0, where rounding is large beside it: no loss
# counts as smaller than this share of the largest one.
NEAR_ZERO = 0.1
AMONG_RANKS = 1e-6  # all ranks step with one reduced gradient: rounding does not differ


@dataclasses.dataclass(frozen=True)
class Difference:
    """The difference of one quantity after one step.

    `apart` is relative: for a loss or gradient norm, to its largest size in the steps; for
    tensors, it is the Euclidean distance relative to how far the one process moved them.
    """

    what: str
    step: int
    apart: float
    allowed: float
    of_size: float | None = None  # for tensors: the same distance relative to their size

    @property
    def holds(self) -> bool:
        return self.apart <= self.allowed  # False for NaN

    def __str__(self) -> str:
        return (
            f"{self.what} after step {self.step} differs by {self.apart:.1e}, allowed:"
            f" {self.allowed:.0e}"
        )


@dataclasses.dataclass(frozen=True)
class Report:
    """The differences, the launch they belong to, and the seconds the check took."""

    way: str
    rows: list[Difference]
    seconds: float
    advice: str

    @property
    def holds(self) -> bool:
        return all(row.holds for row in self.rows)

    @property
    def worst(self) -> Difference:
        """The row closest to its tolerance, or furthest above it."""
        return max(
            self.rows,
            key=lambda row: math.inf if math.isnan(row.apart) else row.apart / row.allowed,
        )

    def show(self) -> None:
        """Print a table on rank 0: a line for each quantity, a column for each step."""
        lines = []
        for what in dict.fromkeys(row.what for row in self.rows):
            steps = {row.step: row for row in self.rows if row.what == what}
            cells = [
                f"{steps[k].apart:.1e}{' ' if steps[k].holds else '!'}" if k in steps else ""
                for k in range(1, STEPS + 1)
            ]
            limits = [f"{row.allowed:.0e}" for row in steps.values()]
            allowed = " ".join(limits if len(set(limits)) > 1 else limits[:1])
            size = steps[max(steps)].of_size
            lines.append((what, *cells, allowed, "" if size is None else f"{size:.1e}"))
        console.table(
            (
                "difference in",
                *(f"step {k} " for k in range(1, STEPS + 1)),
                "allowed",
                "of its size",
            ),
            lines,
        )

    def require(self) -> None:
        """Raise LaunchError, on all ranks alike, if a difference is above its tolerance."""
        if not self.holds:
            error = LaunchError(self.verdict())
            error.everywhere = True
            raise error

    def summary(self) -> dict[str, Any]:
        """Return plain data for the run folder; JSON has no infinity."""
        worst = self.worst
        return {
            "holds": self.holds,
            "way": self.way,
            "worst": worst.what,
            "step": worst.step,
            "difference": worst.apart if math.isfinite(worst.apart) else None,
            "allowed": worst.allowed,
            "seconds": round(self.seconds, 1),
        }

    def verdict(self) -> str:
        if self.holds:
            share = 100 * self.worst.apart / self.worst.allowed
            return (
                f"{self.way}: {STEPS} steps are those of one process but for rounding, which takes"
                f" at most {share:.2g} % of its tolerance ({self.seconds:.0f} s)"
            )
        others = sum(not row.holds for row in self.rows) - 1
        return (
            f"{self.way}: {STEPS} steps are not those of one process: {self.worst}"
            + (f"; {others} more are above their tolerance" if others else "")
            + f". To find the cause, check again with one change: {self.advice}"
        )


def _advice(run: Run, ranks: Ranks) -> str:
    """Return the settings that leave out, one by one, what this run has beyond one process."""
    machine = run.machine
    ways = {
        "precision=float64 (a fault stays, rounding goes)": (
            run.precision != "float64" and ranks.engine_choice.engine == "ddp"
        ),
        "precision=float32": run.precision in ("tf32", "bf16", "fp16"),
        "machine.engine=ddp": ranks.engine_choice.engine != "ddp",
        "machine.accumulation=1": machine.accumulation > 1,
        "machine.compile=null": bool(machine.compile),
        "machine.channels_last=false": machine.channels_last,
        "machine.sync_batchnorm=false": machine.sync_batchnorm,
        "machine.optimizer=loop": machine.optimizer != "loop",
        "one process": ranks.world_size > 1,
    }
    return ", ".join(way for way, differs in ways.items() if differs)


def check(module: Module, run: Run, ranks: Ranks, data: Data, layout: BatchLayout) -> Report:
    """Return the same report on every rank. Collective.

    Rank 0 computes the reference while the others wait.
    """
    began = time.perf_counter()
    mine = _play(module, run, ranks, data, layout)
    forget(run)
    apart = ranks.gather(np.array([ranks.rank]), mine.ranks_apart[None], ranks.world_size)

    def compare() -> list[Difference]:
        try:
            one = _play(
                module,
                run,
                SingleProcess(ranks),
                data,
                BatchLayout(layout.batch, 1, 1, layout.batch, layout.group),
            )
        except torch.OutOfMemoryError as error:
            raise SelfCheckTooLarge(
                f"the self-check needs one process that takes the whole batch of {layout.batch},"
                " for which this device has too little memory. Check with a smaller batch or"
                " narrower networks: the result depends on neither"
            ) from error
        return [*differences(mine, one, run.precision), *_among_ranks(one, apart.amax(0))]

    rows = ranks.on_rank_zero(compare)
    forget(run)
    engine = (
        "no engine"
        if ranks.world_size == 1
        else (
            f"DeepSpeed ZeRO {ranks.engine_choice.zero_stage}"
            if ranks.engine_choice.engine == "deepspeed"
            else "DDP"
        )
    )
    return Report(
        f"{layout}, {engine}, {run.precision}",
        rows,
        time.perf_counter() - began,
        _advice(run, ranks),
    )


_State = dict[tuple[str, str], torch.Tensor]


@dataclasses.dataclass
class Trace:
    """The results of a few steps."""

    logs: list[dict[str, float]]  # numbers of each step, means over ranks
    states: list[_State]  # after 0, 1, … steps, on the CPU
    # [players]: this rank's distance from the mean of all, relative to how far that moved
    ranks_apart: torch.Tensor = dataclasses.field(default_factory=lambda: torch.zeros(0))


def first_steps(
    run: Run, ranks: Ranks, data: Data, layout: BatchLayout, steps: int = STEPS
) -> Iterator[tuple[list[list[MicroBatch]], Clock]]:
    """Yield what the first steps that update all players are called with."""
    clock = Clock(layout.batch * run.batches_per_step, len(data.train))
    stream = iter(
        Stream(
            data,
            run.seed,
            layout,
            ranks.rank,
            ranks.device,
            window=run.shuffle_window or 0,
            crop=run.crop,
        )
    )
    first = clock.steps(run.whole_from) if run.whole_from else 0
    for k in range(first, first + steps):
        yield [next(stream) for _ in range(run.batches_per_step)], clock.at(k)


def _play(module: Module, run: Run, ranks: Ranks, data: Data, layout: BatchLayout) -> Trace:
    """Take the first three steps of the run."""
    recipe = build_recipe(module, run, ranks, layout, data.shape, data.labels)
    states, logs = [state_of(recipe.players)], []
    for batches, now in first_steps(run, ranks, data, layout):
        logs.append(recipe.step(batches, now))
        states.append(state_of(recipe.players))
    names = [name for name in logs[0] if name.endswith(("/loss", "/grad_norm", "/skipped"))]
    table = ranks.all_reduce_mean(
        torch.stack([torch.stack([log[name].double() for name in names]) for log in logs])
    ).tolist()
    apart = _apart(recipe.players, states[0], states[STEPS], ranks)
    return Trace(
        [dict(zip(names, row, strict=True)) for row in table],
        states if ranks.is_main else [],
        apart,
    )


def state_of(players: dict[str, Player]) -> _State:
    """Return everything that an update changes, by player and kind. Collective."""
    rows: dict[tuple[str, str], list[torch.Tensor]] = {}
    for name, player in players.items():
        weights = {key for key, _ in player.module.named_parameters()}
        for key, value in player.tensors().items():
            kind = "weights" if key[4:] in weights else "buffers"
            kind = f"averaged {kind}" if key.startswith("ema.") else kind
            rows.setdefault((name, kind), []).append(value)
        rows.setdefault((name, "optimizer"), []).extend(_tensors(player.state()["optimizer"]))
    return {
        key: torch.cat([value.detach().flatten().cpu() for value in values] or [torch.zeros(0)])
        for key, values in rows.items()
    }


def _tensors(state: Any) -> Iterator[torch.Tensor]:
    """Yield the tensors of an optimizer's state, by parameter and name, without counts of steps."""
    if isinstance(state, torch.Tensor):
        yield state
    elif isinstance(state, dict):
        for key in sorted(state.keys() - {"step"}):
            yield from _tensors(state[key])


def _apart(players: dict[str, Player], before: _State, after: _State, ranks: Ranks) -> torch.Tensor:
    """Return [players]: how far this rank's weights, buffers and averages are from the mean over
    ranks, the largest of each player. Collective.
    """
    found = dict.fromkeys(players, 0.0)
    for (name, kind), mine in after.items():
        if kind != "optimizer":
            mean = ranks.all_reduce_mean(mine.double().to(ranks.device)).cpu()
            found[name] = max(found[name], _relative(mine, mean, before[name, kind])[0])
    return torch.tensor(list(found.values()), dtype=torch.float64)


def differences(mine: Trace, one: Trace, precision: str) -> Iterator[Difference]:
    """Compare the numbers and the state after each step."""
    allowed, steps = TOLERANCES[precision], len(one.logs)
    losses = (abs(log[name]) for log in one.logs for name in log if name.endswith("/loss"))
    largest = max(losses, default=0.0)
    for name in one.logs[0]:
        size = max(abs(log[name]) for log in one.logs)
        if name.endswith("/loss"):
            size = max(size, NEAR_ZERO * largest)
        for k, (a, b) in enumerate(zip(mine.logs, one.logs, strict=True)):
            if a[name] != b[name] or not name.endswith("/skipped"):
                yield Difference(
                    name, k + 1, _ratio(abs(a[name] - b[name]), size), allowed.numbers[k]
                )
        if name.endswith("/skipped") and all(log[name] for log in one.logs):
            yield Difference(
                f"{name} in every step: nothing could be compared, and this",
                steps,
                math.inf,
                allowed.numbers[-1],
            )
    for player, kind in one.states[steps]:
        limits = allowed.weights if kind.endswith("weights") else allowed.state
        for k, limit in enumerate(limits[:steps]):
            apart, of_size = _relative(
                mine.states[k + 1][player, kind],
                one.states[k + 1][player, kind],
                one.states[0][player, kind],
            )
            yield Difference(f"{kind} of {player}", k + 1, apart, limit, of_size)


def _among_ranks(one: Trace, ranks_apart: torch.Tensor) -> Iterator[Difference]:
    players = dict.fromkeys(player for player, _ in one.states[STEPS])
    for player, apart in zip(players, ranks_apart.tolist(), strict=True):
        yield Difference(f"{player} among ranks", STEPS, apart, AMONG_RANKS)


def _relative(a: torch.Tensor, b: torch.Tensor, start: torch.Tensor) -> tuple[float, float]:
    """Return the distance of a from b, relative to that of b from `start`, and to the size of b."""
    if a.shape != b.shape:
        return math.inf, math.inf
    a, b = a.double(), b.double()
    distance, size = float((a - b).norm()), float(b.norm())
    moved = (
        float((b - start.double()).norm()) if len(start) == len(b) else size
    )  # an optimizer starts without state
    return _ratio(distance, moved), _ratio(distance, size)


def _ratio(distance: float, size: float) -> float:
    return 0.0 if distance == 0 else distance / size if size > 0 else math.inf


def forget(run: Run) -> None:
    """Free memory: wrapped networks are in reference cycles."""
    gc.collect()
    if run.machine.compile:
        torch.compiler.reset()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
