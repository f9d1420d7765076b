"""Each fault that trainers of two networks are known for, put into ours, is noticed; without it the
run is that of one process.

docs/engines.md lists all known pitfalls and the test that holds each; those that other files hold
are not repeated here.
"""

import json

import pytest
import torch
from compare import ROUNDING
from processes import ROOT, line, run
from trials import STEPS, TRIALS

from distgan.config.sections import Machine
from distgan.distributed.ranks import Ranks
from distgan.engine.player import Player

AS_THEY_ARE = {
    "sagan": 2 * STEPS,
    "penalty": 3 * STEPS,
    "one rank's numbers are not finite": 2 * STEPS,
}  # updates: each has one reduction
# What changes no number, and only costs time or leaves gradients behind that a later version could
# trip over: seen in the counts.
COUNTED = {
    "reduced_in_every_micro_batch": "reductions",
    "d_called_wrapped_in_gs_step": "reductions",
    "d_not_frozen_in_gs_step": "left",
    "buffers_broadcast_before_each_forward": "broadcasts",
}


@pytest.fixture(scope="module")
def trials(particles, tmp_path_factory):
    """All of them in one start of two processes."""
    output = run(
        line("torchrun", 2, ROOT / "tests" / "programs" / "trials.py"),
        str(particles),
        cwd=tmp_path_factory.mktemp("faults"),
    )
    return json.loads(next(text for text in reversed(output.splitlines()) if text.startswith("{")))


@pytest.mark.parametrize("name", AS_THEY_ARE)
def test_two_processes_are_one(name, trials):
    found = trials[name]
    assert max(found["apart"].values()) < ROUNDING
    assert {key: found[key] for key in ("reductions", "broadcasts", "left")} == {
        "reductions": AS_THEY_ARE[name],
        "broadcasts": 0,
        "left": 0,
    }


@pytest.mark.parametrize(
    "name", [name for name in TRIALS if name not in {**AS_THEY_ARE, **COUNTED}]
)
def test_a_fault_changes_the_numbers(name, trials):
    print(trials[name])
    assert "error" in trials[name] or max(trials[name]["apart"].values()) > 1e4 * ROUNDING


@pytest.mark.parametrize("name", COUNTED)
def test_a_fault_shows_in_the_counts(name, trials):
    assert trials[name][COUNTED[name]] > (
        AS_THEY_ARE["sagan"] if COUNTED[name] == "reductions" else 0
    )


def scales_after_an_overflow_in_d(shared: bool) -> tuple[float, float]:
    """(D's loss scale, G's) as parts of what they began with, after an update of D overflowed and
    one of G did not.
    """
    ranks = Ranks(Machine(device="cpu"), "fp16")
    D, G = (
        Player(ranks, torch.nn.Linear(3, 2), lambda p: torch.optim.SGD(p, lr=0.1)) for _ in "DG"
    )
    if shared:
        G.engine._scaler = D.engine._scaler
    began = G.engine._scaler.get_scale()
    for player, factor in (
        (D, 1e30),
        (G, 1e-3),
    ):  # G stays far below the largest float16, whatever its weights
        player.update(
            lambda x, p=player, k=factor: (p(x).square().mean() * k, {}), [torch.ones(4, 3)], 0.0
        )
    return D.engine._scaler.get_scale() / began, G.engine._scaler.get_scale() / began


@pytest.mark.parametrize(
    ("shared", "scales"),
    [(False, (0.5, 1.0)), (True, (0.5, 0.5))],
    ids=["as it is", "one scale for both, as Accelerate has"],
)
def test_an_overflow_in_d_leaves_gs_loss_scale(shared, scales):
    assert scales_after_an_overflow_in_d(shared) == scales
