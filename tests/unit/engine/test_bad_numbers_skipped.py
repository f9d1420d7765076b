"""An update whose numbers are not finite is skipped, in one process."""

import pytest
import torch
from torch import nn

from distgan.config.sections import Machine
from distgan.distributed.ranks import Ranks
from distgan.engine.player import Player


def square(p, extra=0.0):
    return lambda x: (p(x).square().mean() + extra, {})


@pytest.mark.parametrize("extra", [float("inf"), float("nan")])
def test_a_loss_that_is_not_finite_skips_though_its_gradient_is_finite(extra):
    p = Player(
        Ranks(Machine(device="cpu")), nn.Linear(3, 2), lambda w: torch.optim.SGD(w, lr=0.1), ema=0.9
    )
    before = {name: value.clone() for name, value in p.tensors().items()}
    assert p.update(square(p, extra), [torch.ones(2, 3)], 0.0)["skipped"] == 1
    assert all(torch.equal(before[name], value) for name, value in p.tensors().items())
    assert [float(trace.skipped) for trace in p.pending_traces] == [1.0]


def test_an_overflow_of_float16_is_no_bad_number_until_the_scale_is_at_its_floor():
    p = Player(
        Ranks(Machine(device="cpu"), "fp16"), nn.Linear(3, 2), lambda w: torch.optim.SGD(w, lr=0.1)
    )
    logs = [
        p.update(square(p, float("inf")), [torch.ones(2, 3)], 0.0) for _ in range(20)
    ]  # from 65536 = 2 ** 16 down to 1
    assert all(log["skipped"] == 1 for log in logs)
    assert [bool(log["grad_norm"].isfinite()) for log in logs] == [True] * 16 + [
        False
    ] * 4  # which `watch` counts
    assert [float(trace.skipped) for trace in p.pending_traces] == [0.0] * 16 + [1.0] * 4
    assert p.skips == 4
