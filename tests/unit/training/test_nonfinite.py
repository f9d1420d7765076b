"""Updates that are not finite: counted over a window, and too many of them answered."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from distgan.config import batch_layout
from distgan.core.clock import Clock
from distgan.core.errors import RunError
from distgan.data import loader
from distgan.data.dataset import Data
from distgan.distributed.ranks import Ranks
from distgan.engine.player import UpdateTrace
from distgan.recipes.sagan import Settings
from distgan.runs.folder import NoRunFolder, RunFolder
from distgan.runs.training_state import TrainingState
from distgan.training.nonfinite import WINDOW, NonFiniteMonitor

CLOCK = Clock(per_step=4, train=8, step=5)


class Player:
    def __init__(self):
        self.pending_traces = []

    def update(self, *skipped):
        for bad in skipped:
            self.pending_traces.append(UpdateTrace(torch.tensor(float(bad)), [], []))


def monitor(**watch):
    run = Settings(data="data", max_skips=3, watch={"max_rollbacks": 3, **watch})
    players = {"G": Player(), "D": Player()}
    state = TrainingState.from_dict({}, run, players)
    return players, state, NonFiniteMonitor(run, players, None, None, None, NoRunFolder(), 4)


def test_skipped_updates_are_forgotten_after_the_window():
    players, state, nonfinite = monitor()
    players["D"].update(1, 0, 1)
    nonfinite.inspect(CLOCK, state)
    assert state.nonfinite["D"] == {"updates": 3, "skipped": [1, 3]} and not state.is_healthy
    players["D"].update(*[0] * (WINDOW * 3 - 2))
    nonfinite.inspect(CLOCK, state)
    assert state.nonfinite["D"]["skipped"] == [3] and nonfinite.pending is None
    players["D"].update(0, 0)
    nonfinite.inspect(CLOCK, state)
    assert state.nonfinite["D"] == {"updates": 9, "skipped": []} and state.is_healthy
    assert state.nonfinite["G"] == {"updates": 0, "skipped": []}


def test_too_many_lead_back_to_the_healthy_checkpoint_with_half_the_rates():
    players, state, nonfinite = monitor()
    state.last_healthy_step = 4
    players["D"].update(1, 1, 1)
    nonfinite.inspect(CLOCK.at(19), state)  # as where a checkpoint is written
    assert nonfinite.pending is None
    nonfinite.inspect(CLOCK.at(20), state)
    decision = nonfinite.pending
    assert (decision.action, decision.rule) == ("rollback", "bad_numbers")
    assert decision.changes == {"g_lr": state.run.g_lr / 2, "d_lr": state.run.d_lr / 2}
    players["D"].update(1)
    nonfinite.reset()
    assert nonfinite.pending is None and not players["D"].pending_traces


@pytest.mark.parametrize(
    ("healthy", "memory", "watch", "message"),
    [
        (None, {}, {}, "there is no healthy checkpoint to go back to; no checkpoint is kept"),
        (
            4,
            {},
            {"max_rollbacks": 0},
            "watch.max_rollbacks=0 allows no rollback; the checkpoint of",
        ),
        (
            4,
            {"rollbacks": 3, "epoch": 0},
            {},
            "the run went back 3 times, down to g_lr=1e-4, d_lr=",
        ),
        (4, {"rollbacks": 1, "epoch": 0}, {"max_rollbacks": 1}, "the run went back 1 time, down"),
    ],
)
def test_without_a_way_back_the_run_ends_and_says_why(healthy, memory, watch, message):
    players, state, nonfinite = monitor(**watch)
    state.last_healthy_step, state.monitor_memory = healthy, memory
    state.change({"g_lr": 1e-4})
    players["G"].update(1, 1, 1)
    with pytest.raises(RunError) as error:
        nonfinite.inspect(CLOCK.at(20), state)
    text = str(error.value)
    assert message in text and "bad numbers: 3 of the last 6 updates of G" in text
    assert ("the checkpoint of step 4 is good, and kept" in text) == (healthy == 4)


@pytest.mark.parametrize("window", [None, 1])
def test_the_batch_of_a_skipped_update_is_recorded(window, reference, tmp_path, capsys):
    """The samples at their positions in the order of the run, and which micro-batch it was."""
    run, data = Settings(data=str(reference), shuffle_window=window), Data(str(reference))
    where = {"machine": {"folder": str(tmp_path / "run")}}
    folder = RunFolder(Settings(data=str(reference), **where), data.fingerprint, {})
    n = len(data.train)  # in several shards
    step = n // 6 + 1
    layout, player = batch_layout.fit(6, 1, 2), Player()
    nonfinite = NonFiniteMonitor(run, {"D": player}, data, layout, Ranks(), folder, 6)
    positions = [np.arange(n + 6 * k, n + 6 * k + 3) for k in (0, 1)]  # of the second epoch
    losses = [torch.tensor(0.5), torch.tensor(float("nan"))]
    player.pending_traces.append(UpdateTrace(torch.tensor(1.0), losses, positions))
    nonfinite.inspect(Clock(6, n, step=step), TrainingState.from_dict({}, run, {"D": player}))
    folder.close()
    kept = folder.path / f"attempts/{folder.attempt:03d}/bad/{step:08d}-D"
    about, held = (
        json.loads((kept / "batch.json").read_text()),
        load_file(kept / "samples.safetensors"),
    )
    assert (about["step"], about["not_finite"], about["losses"]) == (
        step,
        "loss of rank 0",
        [[0.5, "nan"]],
    )
    assert [(row["rank"], row["micro_batch"]) for row in about["samples"]] == [(0, 1)] * 3
    numbers, _ = loader.located(data, run.seed, window or 0, positions[1])
    real = loader.again(data, run.seed, window or 0, None, positions[1])
    assert (
        [row["sample"] for row in about["samples"]] == held["numbers"].tolist() == numbers.tolist()
    )
    assert [row["position"] for row in about["samples"]] == positions[1].tolist()
    assert [row["key"] for row in about["samples"]] == [data.train.key(int(k)) for k in numbers]
    assert torch.equal(held["samples"], real.view_as(held["samples"]))
    assert f"step {step}: an update of D was skipped on all ranks" in capsys.readouterr().out
