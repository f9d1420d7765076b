"""DeepSpeed's versions, and its state in one process."""

import importlib.metadata
import os
import sys
import types

import pytest
import torch

from distgan.core.errors import LaunchError
from distgan.distributed.ranks import Ranks
from distgan.engine import deepspeed_zero
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


def alone(members, optimizer, tuning=None) -> Zero:
    """The engine of a single process at stage 1, without deepspeed."""
    zero = object.__new__(Zero)
    comm = types.SimpleNamespace(all_gather_into_tensor=lambda out, piece: out.copy_(piece))
    zero._deepspeed = types.SimpleNamespace(comm=comm, __version__="0.19.7")
    zero._stage, zero._accumulation, zero.optimizer = 1, 2, optimizer
    zero._members = [members]
    choice = types.SimpleNamespace(deepspeed=tuning or {})
    machine = types.SimpleNamespace(bucket_mb=25)
    zero.ranks = types.SimpleNamespace(
        rank=0, world_size=1, engine_choice=choice, machine=machine, device=torch.device("cpu")
    )
    return zero


def test_an_optimizer_that_looks_at_whole_weights_is_refused():
    weight = torch.nn.Parameter(torch.ones(2))
    with pytest.raises(LaunchError, match="ZeRO 1 cannot share LBFGS among ranks, only Adam"):
        alone([weight], torch.optim.LBFGS([weight]))._wrap()


def test_a_layout_in_which_one_weight_of_two_is_elsewhere_is_refused():
    members = [torch.nn.Parameter(torch.ones(3)), torch.nn.Parameter(torch.ones(2))]
    stretch = torch.nn.Parameter(torch.ones(6))  # the last rank's ends in what nobody owns
    alone(members, torch.optim.SGD([stretch]))._check_layout()
    for at in (0, 4):
        stretch.data.fill_(1.0)[at] = 2.0
        with pytest.raises(LaunchError, match="deepspeed 0.19.7 divides weights among ranks"):
            alone(members, torch.optim.SGD([stretch]))._check_layout()


def test_deepspeed_is_left_no_default_that_changes_what_is_trained():
    weight = torch.nn.Parameter(torch.ones(2))
    tuning = {"zero_optimization": {"overlap_comm": True, "reduce_bucket_size": 5}}
    usual, tuned = (
        alone([weight], torch.optim.SGD([weight]), each)._settings() for each in (None, tuning)
    )
    assert usual["zero_optimization"] == {"reduce_bucket_size": 25 * 2**20 // 4, "stage": 1}
    assert tuned["zero_optimization"] == tuning["zero_optimization"] | {"stage": 1}
    assert usual["gradient_clipping"] == 0.0 and usual["gradient_accumulation_steps"] == 2


def test_deepspeed_computes_where_the_run_does(monkeypatch):
    """It takes a GPU by itself, where there is one."""
    imported = types.SimpleNamespace(
        ops=types.SimpleNamespace(), init_distributed=lambda dist_init_required: None
    )
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "0.19.7")
    monkeypatch.setitem(sys.modules, "deepspeed", imported)
    monkeypatch.setenv("DS_ACCELERATOR", "cuda")
    weight = torch.nn.Parameter(torch.ones(2))
    assert deepspeed_zero._import(alone([weight], torch.optim.SGD([weight])).ranks) is imported
    assert os.environ["DS_ACCELERATOR"] == "cpu"
