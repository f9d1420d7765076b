"""Bad numbers: updates whose loss or gradient is not finite. All ranks have skipped them; here they
are counted, looked into, and answered.

    attempts/000/bad/00000012-D/batch.json           step, epoch, loss of each micro-batch of each
                                                     rank, and of each sample: rank, position,
                                                     number, key
                                samples.safetensors  the samples as they were read, in the same
                                                     order, with their positions, numbers and
                                                     addresses

Nothing in a step waits for this: what an update leaves on the device is fetched with the journal's
numbers, every machine.flush_steps.
"""

import json
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

from distgan.config.batch_layout import BatchLayout
from distgan.config.settings import Run
from distgan.core import console
from distgan.core.clock import Clock
from distgan.core.errors import RunError
from distgan.core.files import write_atomic
from distgan.data import loader
from distgan.data.dataset import Data
from distgan.distributed.ranks import Ranks
from distgan.engine.player import Player, UpdateTrace
from distgan.monitor.decisions import RATES, Decision, rollback_decision
from distgan.monitor.moves import format_setting
from distgan.runs.folder import RunFolder
from distgan.training.checks import Checks

DUMPS = 8  # of an attempt; what follows is counted and told in the events
WINDOW = 2  # x max_skips: the updates of a player among which so many are too many


class Mishaps:
    """`folder` is None on all ranks but the first."""

    def __init__(
        self,
        run: Run,
        players: dict[str, Player],
        data: Data,
        layout: BatchLayout,
        ranks: Ranks,
        folder: RunFolder | None,
        checks: Checks,
        per_step: int,
    ):
        self.pending: Decision | None = (
            None  # what is to be done about too many of them, at the next check
        )
        self._run, self._players, self._data, self._share, self._ranks, self._folder = (
            run,
            players,
            data,
            layout,
            ranks,
            folder,
        )
        self._checks, self._per_step = checks, per_step
        self._seen = {name: {"updates": 0, "skipped": []} for name in players}

    def state(self) -> dict[str, Any]:
        """For a checkpoint: plain data."""
        return {
            "mishaps": {
                name: {"updates": seen["updates"], "skipped": list(seen["skipped"])}
                for name, seen in self._seen.items()
            }
        }

    def restore(self, state: dict[str, Any]) -> None:
        self._seen |= {name: dict(seen) for name, seen in state.get("mishaps", {}).items()}
        self.pending = None
        for player in self._players.values():
            player.pending_traces.clear()

    @property
    def quiet(self) -> bool:
        """No update of the window was skipped: a checkpoint of this moment is one to go back to."""
        return not any(seen["skipped"] for seen in self._seen.values())

    def look(self, now: Clock) -> None:
        """Count what was skipped since the last look, write bad batches down, and decide what to
        do. Collective; the same on all ranks.
        """
        for name, player in self._players.items():
            traces, player.pending_traces = player.pending_traces, []
            skipped = torch.stack([trace.skipped for trace in traces]).tolist() if traces else []
            for trace, bad in zip(traces, skipped, strict=True):
                self._count(name, bool(bad))
                if bad and trace.positions:
                    self._write_down(name, trace, now)
        worst = max(self._seen, key=lambda name: len(self._seen[name]["skipped"]))
        if len(self._seen[worst]["skipped"]) >= self._run.max_skips:
            self._answer(worst, now)

    def _count(self, name: str, bad: bool) -> None:
        seen = self._seen[name]
        seen["updates"] += 1
        seen["skipped"] = [
            n for n in seen["skipped"] if n > seen["updates"] - WINDOW * self._run.max_skips
        ] + [seen["updates"]] * bad

    def _answer(self, name: str, now: Clock) -> None:
        """Back to the last good checkpoint with lower rates.

        RunError where there is none, or this was done often enough.
        """
        checks, run = self._checks, self._checks.run
        self.pending = rollback_decision(
            "bad_numbers", run.watch, run.model_dump(mode="json"), checks.memory, now.epoch
        )
        if self.pending.action == "rollback" and checks.healthy is not None:
            return
        tried = checks.memory.get("rollbacks", 0)
        rates = ", ".join(
            f"{rate}={format_setting(getattr(run, rate))}"
            for rate in RATES
            if getattr(run, rate, None)
        )
        story = (
            f"the run went back {tried} time{'s' * (tried != 1)}, down to {rates}"
            if tried
            else (
                "there is no checkpoint of a healthy moment to go back to"
                if checks.healthy is None
                else "watch.max_rollbacks=0 forbids to go back"
            )
        )
        kept = (
            "no checkpoint is kept"
            if checks.healthy is None
            else f"the checkpoint of step {checks.healthy} is good, and kept"
        )
        raise RunError(
            f"bad numbers: {len(self._seen[name]['skipped'])} of the last {WINDOW * run.max_skips}"
            f" updates of {name} had a loss or gradient that is not finite, up to step {now.step};"
            f" {story}; {kept}. The batches are in attempts/…/bad of the run folder. Lower"
            f" {rates or 'the learning rates'}, or look for broken samples: distgan check"
            f" {self._run.data}"
        )

    # ---- one batch
    def _write_down(self, name: str, trace: UpdateTrace, now: Clock) -> None:
        """Which micro-batches it was, and what is in them.

        Each rank reads its own again. Collective.
        """
        ranks, micros = self._ranks, len(trace.losses)
        step = int(trace.positions[0][0]) // self._per_step + 1
        losses = ranks.gather(
            np.arange(ranks.rank * micros, (ranks.rank + 1) * micros),
            torch.stack(trace.losses).double()[:, None],
            ranks.world_size * micros,
        )

        def choose() -> tuple[list[list[float]], bool]:
            return (
                losses.view(ranks.world_size, micros).tolist(),
                len(list(self._bad().glob("*"))) < DUMPS
                and not (self._bad() / f"{step:08d}-{name}").exists(),
            )

        table, dump = ranks.on_rank_zero(choose)
        named = [
            (rank, k)
            for rank in range(ranks.world_size)
            for k in range(micros)
            if not math.isfinite(table[rank][k])
        ]
        # A gradient may overflow where every loss is finite: after the reduction nobody knows whose
        # it was.
        chosen = named or [(rank, k) for rank in range(ranks.world_size) for k in range(micros)]
        whose = (
            "loss of " + _listed([f"rank {rank}" for rank in sorted({rank for rank, _ in named})])
            if named
            else "gradient"
        )
        facts = {
            "step": step,
            "epoch": round(now.at(step).epoch, 6),
            "player": name,
            "not_finite": whose,
            "losses": [[_plain(value) for value in row] for row in table],
        }
        if dump:
            self._dump(facts, trace, chosen)
        elif self._folder:
            self._folder.event("bad_numbers", **facts)

    def _dump(
        self, facts: dict[str, Any], trace: UpdateTrace, chosen: Sequence[tuple[int, int]]
    ) -> None:
        ranks, run, each = self._ranks, self._run, self._share.per_rank
        mine = [(i, k) for i, (rank, k) in enumerate(chosen) if rank == ranks.rank]
        positions = (
            np.concatenate([trace.positions[k] for _, k in mine]) if mine else np.empty(0, np.int64)
        )
        index = (
            np.concatenate([np.arange(i * each, (i + 1) * each) for i, _ in mine])
            if mine
            else np.empty(0, np.int64)
        )
        _, _, real = (
            ranks.on_all_ranks(
                lambda: loader.again(
                    self._data, run.seed, run.shuffle_window or 0, run.crop, positions
                )
            )
            if mine
            else ranks.on_all_ranks(lambda: (None, None, torch.empty(0, 1)))
        )
        rows = ranks.gather(index, real.flatten(1), len(chosen) * each)
        all_positions = ranks.gather(
            index, torch.from_numpy(positions)[:, None], len(chosen) * each
        )

        def write() -> None:
            at = all_positions[:, 0].numpy()
            numbers, addresses = loader.located(self._data, run.seed, run.shuffle_window or 0, at)
            finite = (
                rows.isfinite().all(1).tolist() if rows.is_floating_point() else [True] * len(rows)
            )
            samples = [
                {
                    "rank": chosen[i // each][0],
                    "micro_batch": chosen[i // each][1],
                    "position": int(at[i]),
                    "sample": int(numbers[i]),
                    "key": self._data.train.key(int(numbers[i])),
                    "address": int(addresses[i]),
                    "finite": finite[i],
                }
                for i in range(len(rows))
            ]
            broken = sorted({one["key"] for one in samples if not one["finite"]})
            folder = self._bad() / f"{facts['step']:08d}-{facts['player']}"
            try:
                folder.mkdir(parents=True)
                save_file(
                    {
                        "samples": rows.view(len(rows), *self._data.shape[:-1], -1).contiguous(),
                        "positions": torch.from_numpy(at),
                        "numbers": torch.from_numpy(numbers),
                        "addresses": torch.from_numpy(addresses),
                    },
                    folder / "samples.safetensors",
                )
                write_atomic(
                    folder / "batch.json", json.dumps(facts | {"samples": samples}, indent=1)
                )
                where = f"the batch is in {folder}"
            except Exception as error:  # of any kind, as on a full disk: the run goes on without it
                where = f"the batch cannot be written: {error}"
            self._folder.event(
                "bad_numbers",
                **facts,
                broken=broken,
                dump=str(folder.relative_to(self._folder.path)),
            )
            what = f"; sample {_listed(broken)} holds values that are not finite" if broken else ""
            console.say(
                f"warning: step {facts['step']}: an update of {facts['player']} was skipped on all"
                f" ranks: the {facts['not_finite']} is not finite{what}; {where}"
            )

        ranks.on_rank_zero(write)

    def _bad(self):
        return self._folder.path / "attempts" / f"{self._folder.attempt:03d}" / "bad"


def _plain(value: float) -> float | str:
    """JSON knows no NaN."""
    return value if math.isfinite(value) else str(value)


def _listed(words: list[str]) -> str:
    return ", ".join(words[:5]) + (f" and {len(words) - 5} more" if len(words) > 5 else "")
