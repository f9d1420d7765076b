"""Each fault that trainers of two networks are known for, put into ours, is noticed; without it the run is that of one process.

docs/engines.md lists all known pitfalls and the test that holds each; those that other files hold are not repeated here.
"""

import json

import pytest
from faults import STEPS, TRIALS
from matrix import ROUNDING
from processes import ROOT, line, run

AS_THEY_ARE = {"sagan": 2 * STEPS, "penalty": 3 * STEPS, "one rank's numbers are not finite": 2 * STEPS}  # updates: each has one reduction
# What changes no number, and only costs time or leaves gradients behind that a later version could trip over: seen in the counts.
COUNTED = {"reduced_in_every_micro_batch": "reductions", "d_called_wrapped_in_gs_step": "reductions", "d_not_frozen_in_gs_step": "left",
           "buffers_broadcast_before_each_forward": "broadcasts"}


@pytest.fixture(scope="module")
def trials(particles, tmp_path_factory):
    """All of them in one start of two processes."""
    output = run(line("torchrun", 2, ROOT / "tests" / "faults.py"), str(particles), cwd=tmp_path_factory.mktemp("faults"))
    return json.loads(next(text for text in reversed(output.splitlines()) if text.startswith("{")))


@pytest.mark.parametrize("name", AS_THEY_ARE)
def test_two_processes_are_one(name, trials):
    found = trials[name]
    assert max(found["apart"].values()) < ROUNDING
    assert {key: found[key] for key in ("reductions", "broadcasts", "left")} == {"reductions": AS_THEY_ARE[name], "broadcasts": 0, "left": 0}


@pytest.mark.parametrize("name", [name for name in TRIALS if name not in {**AS_THEY_ARE, **COUNTED}])
def test_a_fault_changes_the_numbers(name, trials):
    print(trials[name])
    assert "error" in trials[name] or max(trials[name]["apart"].values()) > 1e4 * ROUNDING


@pytest.mark.parametrize("name", COUNTED)
def test_a_fault_shows_in_the_counts(name, trials):
    assert trials[name][COUNTED[name]] > (AS_THEY_ARE["sagan"] if COUNTED[name] == "reductions" else 0)
