"""DeepSpeed engines against torch by hand.

Real processes, one start for each ZeRO stage, which runs all cases of tests/programs/deepspeed_cases.py.
"""

import importlib.metadata
import json
import types
from pathlib import Path

import pytest
import torch
from processes import line, run

from distgan.core.errors import LaunchError
from distgan.distributed.ranks import Ranks
from distgan.engine.deepspeed_zero import Zero

CASES = Path(__file__).parents[2] / "programs" / "deepspeed_cases.py"
TOLERANCE = 2e-5
# Gradients of half a batch are rounded to 8 bits before they are averaged; the reference rounds
# those of the whole batch.
TOLERANCES = {"bf16": 5e-3, "fp16": 0.0}


@pytest.fixture(scope="module", params=[0, 1, 2], ids="ZeRO {}".format)
def found(request, tmp_path_factory):
    """(stage, what the cases of that stage found).

    Without a compiler in reach: nothing may be built.
    """
    folder = tmp_path_factory.mktemp("zero")
    output = run(
        line("torchrun", 2, CASES),
        str(request.param),
        cwd=folder,
        PATH=str(folder),
        TORCH_EXTENSIONS_DIR=str(folder / "built"),
    )
    assert not (folder / "built").exists()
    lines = [text for text in output.splitlines() if text]
    assert len(lines) == 1, f"DeepSpeed is not quiet:\n{output}"
    return request.param, json.loads(lines[0].removeprefix("FOUND "))


def test_players_in_deepspeed_are_those_of_one_process(found):
    stage, numbers = found
    numbers = {name: value for name, value in numbers.items() if name not in ("faults", "refused")}
    assert len(numbers) >= 15
    assert {
        name: value for name, value in numbers.items() if value > TOLERANCES.get(name, TOLERANCE)
    } == {}


def test_faults_put_back_are_seen(found):
    stage, numbers = found
    faults = numbers["faults"]
    if stage:
        assert faults["clipping left to DeepSpeed"] > 100 * TOLERANCE
        assert faults["weights clamped alone"] > 100 * TOLERANCE
    if stage == 2:
        assert "already been reduced" in faults["D not frozen"]
    else:  # the gradient that G's update leaves in D is thrown away when D's begins
        assert faults["D not frozen"] < TOLERANCE
    assert faults["D not frozen, gradients kept"] > 100 * TOLERANCE if stage < 2 else True


def test_what_would_train_something_else_is_refused(found):
    stage, numbers = found
    assert all("float64" in text for text in numbers["refused"][:1])
    if stage:
        assert f"precision=fp16 under ZeRO {stage}" in numbers["refused"][1]
        assert f"ZeRO {stage} cannot share LBFGS" in numbers["refused"][2]


@pytest.mark.parametrize(
    ("version", "told"),
    [
        (None, r"not installed: pip install 'distgan\[deepspeed\]'"),
        ("0.18.9", "deepspeed 0.18.9 is too old, 0.19"),
    ],
)
def test_a_deepspeed_that_is_missing_or_old(version, told, monkeypatch):
    def look_up(name):
        if version is None:
            raise importlib.metadata.PackageNotFoundError(name)
        return version

    monkeypatch.setattr(importlib.metadata, "version", look_up)
    with pytest.raises(LaunchError, match=told):
        Zero(Ranks(), torch.nn.Linear(1, 1), torch.optim.SGD, accumulation=1)


def test_state_of_a_weight_that_never_had_a_gradient_starts_at_zero():
    """It has none in a checkpoint.

    That it comes first, or not, must not decide what becomes of the others' state.
    """
    net = torch.nn.ParameterList([torch.ones(3), torch.ones(2)])
    stretch = torch.nn.Parameter(torch.zeros(5))
    zero = object.__new__(Zero)
    zero._stage, zero.ranks, zero.module, zero.optimizer = (
        1,
        types.SimpleNamespace(rank=0, world_size=1),
        net,
        torch.optim.Adam([stretch]),
    )
    zero._members, zero._numbers = [list(net)], {p: i for i, p in enumerate(net)}
    for trained, expected in ((1, [0, 0, 0, 7, 7]), (0, [7, 7, 7, 0, 0])):
        moments = {key: torch.full_like(net[trained], 7) for key in ("exp_avg", "exp_avg_sq")}
        zero.load(net.state_dict(), {trained: moments | {"step": torch.tensor(4.0)}}, {})
        assert zero.optimizer.state[stretch]["exp_avg"].tolist() == expected
        assert zero.optimizer.state[stretch]["step"] == 4
