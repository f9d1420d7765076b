"""DeepSpeed's versions, and its state in one process."""

import importlib.metadata
import types

import pytest
import torch

from distgan.core.errors import LaunchError
from distgan.distributed.ranks import Ranks
from distgan.engine.deepspeed_zero import Zero


@pytest.mark.parametrize(
    ("version", "told"),
    [
        (None, r"not installed: pip install 'distgan\[deepspeed\]'"),
        ("0.18.9", "deepspeed 0.18.9 is older than 0.19"),
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
