"""Updates whose loss or gradient is not finite. All ranks have skipped them (engine.ddp,
engine.guarded_step); count them here, report the batches, and respond to too many.

    attempts/000/bad/00000012-D/batch.json           step, epoch, the loss of each micro-batch of
                                                     each rank; of each sample: rank, position,
                                                     number, key
                                samples.safetensors  the samples as they were read, in the same
                                                     order, with their positions, numbers and
                                                     addresses

No step waits for this: what an update leaves on the device is fetched with the journal's numbers.
The response is decided every RESPOND_STEPS, whenever they were fetched.
"""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save

from distgan.config.batch_layout import BatchLayout
from distgan.config.settings import Run
from distgan.core import console
from distgan.core.clock import Clock
from distgan.core.errors import RunError
from distgan.core.files import make_folder, write_atomic
from distgan.data import loader
from distgan.data.dataset import Data
from distgan.distributed.ranks import Ranks
from distgan.engine.player import Player, UpdateTrace
from distgan.monitor.decisions import Decision, rollback_decision
from distgan.monitor.moves import format_setting, is_rate
from distgan.runs.folder import RunFolder
from distgan.runs.training_state import TrainingState

MAX_BATCHES = 8  # saved in an attempt; later ones are counted, and are in the events
RESPOND_STEPS = 20  # a grid of the run, whatever machine.flush_steps is
WINDOW = 2  # x max_skips: the number of a player's last updates that are counted


class NonFiniteMonitor:
    """Inspect the updates of all players. All methods are collective, or the same on all ranks."""

    def __init__(
        self,
        run: Run,
        players: dict[str, Player],
        data: Data,
        layout: BatchLayout,
        ranks: Ranks,
        folder: RunFolder,
        per_step: int,
    ):
        self.pending: Decision | None = None  # the response to too many, due at the next check
        self._run, self._players, self._data, self._layout = run, players, data, layout
        self._ranks, self._folder, self._per_step = ranks, folder, per_step

    def reset(self) -> None:
        """Forget what waits: the run goes on from a checkpoint."""
        self.pending = None
        for player in self._players.values():
            player.pending_traces.clear()

    def inspect(self, now: Clock, state: TrainingState) -> None:
        """Count the updates skipped since the last call and report their batches.

        At every RESPOND_STEPS-th step, decide how to respond: RunError if there are too many, and
        no way back. Collective.
        """
        for name, player in self._players.items():
            traces, player.pending_traces = player.pending_traces, []
            skipped = torch.stack([trace.skipped for trace in traces]).tolist() if traces else []
            for trace, bad in zip(traces, skipped, strict=True):
                self._count(state.nonfinite[name], bool(bad))
                if bad and trace.positions:
                    self._report(name, trace, now)
        if now.step % RESPOND_STEPS:
            return
        worst = max(state.nonfinite, key=lambda name: len(state.nonfinite[name]["skipped"]))
        if len(state.nonfinite[worst]["skipped"]) >= self._run.max_skips:
            self._respond(worst, now, state)

    def _count(self, counts: dict[str, Any], bad: bool) -> None:
        counts["updates"] += 1
        oldest = counts["updates"] - WINDOW * self._run.max_skips
        counts["skipped"] = [number for number in counts["skipped"] if number > oldest]
        if bad:
            counts["skipped"].append(counts["updates"])

    def _respond(self, name: str, now: Clock, state: TrainingState) -> None:
        """Roll back to the last healthy checkpoint with lower rates; RunError if there is none, or
        the run has rolled back watch.max_rollbacks times.
        """
        run, step = state.run, state.last_healthy_step
        self.pending = rollback_decision(
            "bad_numbers", run.watch, run.model_dump(mode="json"), state.monitor_memory, now.epoch
        )
        if self.pending.action == "rollback" and step is not None:
            return
        rollbacks = state.monitor_memory.get("rollbacks", 0)
        rates = ", ".join(
            f"{rate}={format_setting(getattr(run, rate))}"
            for rate in type(run).model_fields
            if is_rate(rate) and getattr(run, rate)
        )
        reason = "watch.max_rollbacks=0 allows no rollback"
        if rollbacks:
            reason = f"the run went back {rollbacks} time{'s' * (rollbacks != 1)}, down to {rates}"
        elif step is None:
            reason = "there is no healthy checkpoint to go back to"
        kept = "no checkpoint is kept"
        if step is not None:
            kept = f"the checkpoint of step {step} is good, and kept"
        raise RunError(
            f"bad numbers: {len(state.nonfinite[name]['skipped'])} of the last"
            f" {WINDOW * run.max_skips} updates of {name} had a loss or gradient that is not"
            " finite,"
            f" up to step {now.step}; {reason}; {kept}. The batches are in attempts/…/bad of the"
            " run"
            f" folder. Lower {rates or 'the learning rates'}, or look for broken samples: distgan"
            f" check {self._run.data}"
        )

    # ---- one batch
    def _report(self, name: str, trace: UpdateTrace, now: Clock) -> None:
        """Record which micro-batches of an update were not finite, and save them. Collective."""
        ranks, micros = self._ranks, len(trace.losses)
        step = int(trace.positions[0][0]) // self._per_step + 1
        losses = ranks.gather(
            np.arange(ranks.rank * micros, (ranks.rank + 1) * micros),
            torch.stack(trace.losses).double()[:, None],
            ranks.world_size * micros,
        )

        def choose() -> tuple[list[list[float]], bool]:
            folder = self._bad_folder()
            save = len(list(folder.glob("*"))) < MAX_BATCHES
            table = losses.view(ranks.world_size, micros).tolist()
            return table, save and not (folder / f"{step:08d}-{name}").exists()

        table, save = ranks.on_rank_zero(choose)
        every = [(rank, k) for rank in range(ranks.world_size) for k in range(micros)]
        # A gradient may overflow where every loss is finite: after the reduction nobody knows whose
        # it was.
        bad = [(rank, k) for rank, k in every if not math.isfinite(table[rank][k])]
        culprit = "gradient"
        if bad:
            culprit = "loss of " + _listed([f"rank {rank}" for rank in sorted({r for r, _ in bad})])
        facts = {
            "step": step,
            "epoch": round(now.at(step).epoch, 6),
            "player": name,
            "not_finite": culprit,
            "losses": [[_plain(value) for value in row] for row in table],
        }
        if save:
            self._save_batch(facts, trace, bad or every)
        else:
            self._folder.event("bad_numbers", **facts)

    def _save_batch(
        self, facts: dict[str, Any], trace: UpdateTrace, chosen: Sequence[tuple[int, int]]
    ) -> None:
        """Gather the samples of the chosen (rank, micro-batch), and write them. Collective.

        Each rank reads its own samples again.
        """
        ranks, run, each = self._ranks, self._run, self._layout.per_rank
        local = [(i, k) for i, (rank, k) in enumerate(chosen) if rank == ranks.rank]
        index = positions = np.empty(0, np.int64)
        if local:
            positions = np.concatenate([trace.positions[k] for _, k in local])
            index = np.concatenate([np.arange(i * each, (i + 1) * each) for i, _ in local])

        def read() -> torch.Tensor:
            if not local:
                return torch.empty(0, 1)
            window = run.shuffle_window or 0
            return loader.again(self._data, run.seed, window, run.crop, positions)

        real, count = ranks.on_all_ranks(read), len(chosen) * each
        samples = ranks.gather(index, real.flatten(1), count)
        place = ranks.gather(index, torch.from_numpy(positions)[:, None], count)
        ranks.on_rank_zero(lambda: self._write(facts, chosen, samples, place[:, 0].numpy()))

    def _write(
        self,
        facts: dict[str, Any],
        chosen: Sequence[tuple[int, int]],
        samples: torch.Tensor,
        positions: np.ndarray,
    ) -> None:
        """Rank 0: write samples [n, values] and positions [n], an event, and a warning."""
        data, run, each = self._data, self._run, self._layout.per_rank
        numbers, addresses = loader.located(data, run.seed, run.shuffle_window or 0, positions)
        finite = [True] * len(samples)
        if samples.is_floating_point():
            finite = samples.isfinite().all(1).tolist()
        rows: list[dict[str, Any]] = [
            {
                "rank": chosen[i // each][0],
                "micro_batch": chosen[i // each][1],
                "position": int(positions[i]),
                "sample": int(numbers[i]),
                "key": data.train.key(int(numbers[i])),
                "address": int(addresses[i]),
                "finite": finite[i],
            }
            for i in range(len(samples))
        ]
        folder = self._bad_folder() / f"{facts['step']:08d}-{facts['player']}"
        try:
            make_folder(folder)
            tensors = {
                "samples": samples.view(len(samples), *data.shape[:-1], -1).contiguous(),
                "positions": torch.from_numpy(positions),
                "numbers": torch.from_numpy(numbers),
                "addresses": torch.from_numpy(addresses),
            }
            write_atomic(folder / "samples.safetensors", save(tensors))
            write_atomic(folder / "batch.json", json.dumps(facts | {"samples": rows}, indent=1))
            saved = f"the batch is in {folder}"
        except Exception as error:  # of any kind, as on a full disk: the run goes on without it
            saved = f"the batch cannot be written: {error}"
        broken = sorted({row["key"] for row in rows if not row["finite"]})
        dump = str(folder.relative_to(self._folder.path))
        self._folder.event("bad_numbers", **facts, broken=broken, dump=dump)
        cause = f"; sample {_listed(broken)} holds values that are not finite" if broken else ""
        console.say(
            f"warning: step {facts['step']}: an update of {facts['player']} was skipped on all"
            f" ranks: the {facts['not_finite']} is not finite{cause}; {saved}"
        )

    def _bad_folder(self) -> Path:
        return self._folder.path / "attempts" / f"{self._folder.attempt:03d}" / "bad"


def _plain(value: float) -> float | str:
    """Return a number for JSON, which has no NaN."""
    return value if math.isfinite(value) else str(value)


def _listed(words: list[str]) -> str:
    more = f" and {len(words) - 5} more" if len(words) > 5 else ""
    return ", ".join(words[:5]) + more
