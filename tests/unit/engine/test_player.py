"""One side of the game, in one process; tests/process/quick/test_equality.py has several."""

import copy
import math

import pytest
import torch
from torch import nn

from distgan.config.sections import Machine
from distgan.distributed.ranks import Ranks
from distgan.engine import player as player_module
from distgan.engine.player import HalfLife, Player
from distgan.nn import normalization


@pytest.fixture(scope="module")
def ranks():
    return Ranks(Machine(device="cpu"))


def player(ranks, **options):
    torch.manual_seed(0)
    return Player(ranks, nn.Linear(3, 2), lambda p: torch.optim.SGD(p, lr=0.1), **options)


def square(p):
    return lambda x: (p(x).square().mean(), {"size": x.abs().mean()})


def test_micro_batches_give_the_mean_of_the_whole(ranks):
    x = torch.randn(8, 3)
    one, four = player(ranks), player(Ranks(Machine(device="cpu", accumulation=4)))
    log = one.update(square(one), [x], 0.0)
    logs = four.update(square(four), list(x.split(2)), 0.0)
    torch.testing.assert_close(four.module.weight, one.module.weight)
    torch.testing.assert_close(logs["loss"], log["loss"])
    torch.testing.assert_close(logs["size"], log["size"])
    torch.testing.assert_close(logs["grad_norm"], log["grad_norm"])


def test_the_average_of_a_spectrally_normalised_network_is_divided_by_its_own_norm(ranks):
    """The mean of unit vectors is none.

    With averaged u and v the average would be divided by too little.
    """
    torch.manual_seed(0)
    p = Player(
        ranks,
        nn.Sequential(normalization.spectral_norm(nn.Linear(6, 5)), nn.Tanh(), nn.Linear(5, 1)),
        lambda q: torch.optim.SGD(q, lr=0.5),
        ema=0.99,
    )
    for i in range(200):
        p.update(
            lambda x, i=i: ((p(x) - math.sin(i)).square().mean() * (1 + i % 7), {}),
            [torch.randn(16, 6)],
            0.0,
        )
    for norm, weight in normalization.spectral_norms(p.ema):
        torch.testing.assert_close(
            torch.linalg.matrix_norm(weight / torch.linalg.matrix_norm(weight, 2), 2),
            torch.tensor(1.0),
        )
        used = torch.vdot(norm.u, weight @ norm.v)
        torch.testing.assert_close(used, torch.linalg.matrix_norm(weight, 2), rtol=1e-3, atol=0)
        assert abs(norm.u.norm() - 1) < 1e-5 and abs(norm.v.norm() - 1) < 1e-5


def test_the_gradient_norm_is_clipped_and_logged_as_it_was(ranks):
    p = player(ranks, clip=0.01)
    before = p.module.weight.detach().clone(), p.module.bias.detach().clone()
    log = p.update(square(p), [torch.randn(8, 3)], 0.0)
    moved = torch.cat([(before[0] - p.module.weight).flatten(), before[1] - p.module.bias]).norm()
    assert moved.item() == pytest.approx(0.1 * 0.01, rel=1e-3)
    assert log["grad_norm"] > 0.01


def test_a_frozen_player_passes_gradients_on_and_takes_none(ranks):
    p = player(ranks)
    x = torch.randn(4, 3, requires_grad=True)
    with p.frozen() as bare:
        loss = bare(x).sum()
    loss.backward()
    assert x.grad is not None
    assert all(weight.grad is None for weight in p.module.parameters())
    assert all(weight.requires_grad for weight in p.module.parameters())


def test_a_gradient_that_is_not_finite_skips_the_update(ranks):
    p = player(ranks, ema=0.9)
    before = copy.deepcopy(p.tensors())
    log = p.update(square(p), [torch.full((2, 3), float("nan"))], 0.0)
    assert log["skipped"] == 1
    assert p.updates == 0
    assert all(torch.equal(before[name], value) for name, value in p.tensors().items())
    p.update(square(p), [torch.full((2, 3), float("inf"))], 0.0)
    assert p.skips == 2
    again = player(ranks, ema=0.9)
    again.load(p.tensors(), p.state())
    assert again.skips == 2
    assert p.update(square(p), [torch.randn(2, 3)], 0.0)["skipped"] == 0
    assert p.skips == 0


def test_the_average_follows_with_a_warmed_up_decay(ranks):
    p = player(ranks, ema=0.5)
    expected, initial = p.module.weight.detach().clone(), 1.0
    for n in range(1, 21):
        p.update(square(p), [torch.randn(8, 3)], 0.0)
        decay = min(0.5, (1 + n) / (10 + n))
        expected = decay * expected + (1 - decay) * p.module.weight.detach()
        torch.testing.assert_close(p.ema.weight, expected, rtol=1e-6, atol=1e-7)
        initial *= decay
        assert p.initial_share() == pytest.approx(initial)
    assert p.half_life == 1 and player(ranks).initial_share() == 0
    assert not p.ema.weight.requires_grad
    assert not p.ema.training


def test_an_average_in_images_has_its_half_life(ranks):
    """StyleGAN2's: half of what was counts after so many images, fewer early in training."""
    p = player(ranks, ema=HalfLife(100, 0.5, 10))
    expected = p.module.weight.detach().clone()
    for n in range(1, 31):
        p.update(square(p), [torch.randn(8, 3)], 0.0)
        decay = 0.5 ** (10 / min(100, n * 10 * 0.5))
        expected = decay * expected + (1 - decay) * p.module.weight.detach()
        torch.testing.assert_close(p.ema.weight, expected, rtol=1e-5, atol=1e-6)
    count = torch.tensor(3.0, dtype=torch.float64)
    assert HalfLife(100, None, 10).decay(count) == 0.5**0.1
    p = player(ranks, ema=HalfLife(100, None, 10))
    assert p.initial_share() == 1 and p.half_life == 10
    p.updates += 10
    assert p.initial_share() == pytest.approx(0.5)


@pytest.mark.parametrize(
    "norm", [nn.utils.weight_norm, nn.utils.parametrizations.weight_norm], ids=["hook", "parameter"]
)
@pytest.mark.filterwarnings("ignore:.*weight_norm. is deprecated:FutureWarning")
def test_a_weight_normalised_network_has_an_average(norm, ranks):
    torch.manual_seed(0)
    p = Player(ranks, norm(nn.Linear(3, 2)), lambda q: torch.optim.SGD(q, lr=0.1), ema=0.5)
    average = [value.detach().clone() for value in p.module.parameters()]
    for n in range(1, 6):
        p.update(square(p), [torch.randn(8, 3)], 0.0)
        decay = min(0.5, (1 + n) / (10 + n))
        pairs = zip(average, p.module.parameters(), strict=True)
        average = [decay * mean + (1 - decay) * value.detach() for mean, value in pairs]
    x, (bias, length, direction) = torch.randn(4, 3), average
    weight = length * direction / direction.norm(dim=1, keepdim=True)
    with p.evaluating_ema() as network:
        torch.testing.assert_close(network(x), nn.functional.linear(x, weight, bias))


def test_the_rate_is_a_function_of_the_epoch_alone(ranks):
    p = player(ranks, schedule=lambda epoch: 0.5 if epoch >= 10 else 1.0)
    x = [torch.randn(2, 3)]
    assert p.update(square(p), x, 9.9)["lr"].item() == pytest.approx(0.1)
    assert p.update(square(p), x, 10.0)["lr"].item() == pytest.approx(0.05)
    assert p.update(square(p), x, 3.0)["lr"].item() == pytest.approx(0.1)


def test_modes_come_back(ranks):
    p = player(ranks, ema=0.9)
    with p.evaluating() as bare:
        assert not bare.training
        assert not torch.is_grad_enabled()
    with p.evaluating_ema() as average:
        assert average is not p.module
    assert p.module.training
    assert torch.is_grad_enabled()
    assert not p.ema.training


def test_state_survives_a_round_trip(ranks):
    a, b = player(ranks, ema=0.9), player(ranks, ema=0.9)
    for _ in range(3):
        a.update(square(a), [torch.randn(2, 3)], 0.0)
    b.load(copy.deepcopy(a.tensors()), copy.deepcopy(a.state()))
    assert b.updates == 3
    assert all(torch.equal(b.tensors()[name], value) for name, value in a.tensors().items())


class OnGpu:
    """A weight that says it lies on a GPU."""

    def __init__(self, value):
        self.value, self.is_cuda = torch.tensor(value), True

    @classmethod
    def __torch_function__(cls, function, types, args=(), kwargs=None):
        return function(
            *(arg.value if isinstance(arg, cls) else arg for arg in args), **(kwargs or {})
        )


def test_an_average_moves_alike_on_a_gpu():
    ways = []
    for weight in (torch.tensor(0.3), OnGpu(0.3)):
        torch.manual_seed(0)
        mine, theirs = ([torch.randn(3, 2), torch.randn(4)] for _ in range(2))
        player_module._approach(tuple(mine), tuple(theirs), weight)
        ways.append(mine)
    torch.testing.assert_close(*ways)


def test_rates_and_weight_decay_change_in_flight(ranks):
    """SGD by hand: w - rate * factor * (gradient + decay * w)."""
    p = player(ranks, schedule=lambda epoch: 0.5)
    p.set_rates(lr=0.02, weight_decay=0.3)
    before, x = p.module.weight.detach().clone(), torch.randn(4, 3)
    by_hand = copy.deepcopy(p.module)
    by_hand(x).square().mean().backward()
    log = p.update(square(p), [x], 0.0)
    torch.testing.assert_close(
        p.module.weight, before - 0.01 * (by_hand.weight.grad + 0.3 * before)
    )
    assert float(log["lr"]) == pytest.approx(0.01)
