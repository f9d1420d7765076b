"""Group batch norm and spectral norm against torch's own, and against themselves when a batch is
shared.
"""

import concurrent.futures
import threading

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from distgan.nn import normalization
from distgan.nn.normalization import GroupBatchNorm2d, begin_update, end_update, spectral_norm

FINE = torch.tensor(1.0)


class Together:
    """Stands for `Ranks`: one of `size` ranks in one process."""

    def __init__(self, rank=0, size=1):
        self.rank, self.world_size = rank, size

    def all_reduce_mean_async(self, x):
        return lambda: x

    def __deepcopy__(self, memo):
        return self


def batch(n=12, channels=3, size=5):
    return (
        torch.randn(
            n, channels, size, size, generator=torch.Generator().manual_seed(0), dtype=torch.float64
        )
        * 2
        + 1
    )


def test_one_group_is_torchs_batch_norm():
    ours, theirs = GroupBatchNorm2d(3, 12, Together()).double(), nn.BatchNorm2d(3).double()
    x = batch()
    begin_update(ours)
    torch.testing.assert_close(ours(x), theirs(x))
    end_update(ours, Together())(FINE)
    torch.testing.assert_close(ours.running_mean, theirs.running_mean)
    torch.testing.assert_close(ours.running_var, theirs.running_var)
    torch.testing.assert_close(ours.eval()(x), theirs.eval()(x))


def test_groups_are_normalised_apart():
    ours, theirs = GroupBatchNorm2d(3, 4, Together()).double(), nn.BatchNorm2d(3).double()
    x = batch()
    torch.testing.assert_close(ours(x), torch.cat([theirs(part) for part in x.split(4)]))


@pytest.mark.parametrize(("ranks", "group"), [(2, 12), (3, 12), (3, 6), (4, 6), (4, 4), (6, 4)])
def test_groups_that_span_ranks_give_the_same_output_and_gradient(ranks, group):
    """Every split of 12 samples over ranks, groups cut anywhere, against one rank that holds all of
    them.
    """
    x, weight = batch().requires_grad_(), torch.randn(12, 3, 5, 5, dtype=torch.float64)
    whole = GroupBatchNorm2d(3, group, Together()).double()
    expected = whole(x)
    (expected_grad,) = torch.autograd.grad((expected * weight).sum(), x)

    expected_weight_grad = torch.autograd.grad((whole(x) * weight).sum(), whole.weight)[0]

    meeting, tables = threading.Barrier(ranks), [None] * ranks

    class Threads(Together):
        def all_reduce_sum(self, table):
            tables[self.rank] = table.clone()
            meeting.wait(60)
            total = sum(tables)
            meeting.wait(60)
            return total

    def work(rank):
        layer, part = (
            GroupBatchNorm2d(3, group, Threads(rank, ranks)).double(),
            x.detach().chunk(ranks)[rank].clone().requires_grad_(),
        )
        begin_update(layer)
        y = layer._across(part)
        (y * weight.chunk(ranks)[rank]).sum().backward()
        end_update(layer, Together())(FINE)
        return y, part.grad, layer.weight.grad, layer.running_mean, layer.running_var

    with concurrent.futures.ThreadPoolExecutor(ranks) as pool:
        y, grad, weight_grad, mean, var = zip(*pool.map(work, range(ranks)), strict=True)
    torch.testing.assert_close(torch.cat(y), expected)
    torch.testing.assert_close(torch.cat(grad), expected_grad)
    torch.testing.assert_close(sum(weight_grad), expected_weight_grad)
    begin_update(whole)
    whole(x)
    end_update(whole, Together())(FINE)
    for each_mean, each_var in zip(mean, var, strict=True):
        torch.testing.assert_close((each_mean, each_var), (whole.running_mean, whole.running_var))


def test_the_backward_kernel_across_ranks_gets_all_statistics():
    """In channels_last, CUDA's asserts that it has mean and 1 / deviation also where they are
    constants; no other kernel misses them.
    """
    found = []

    class Calls(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            if function.overloadpacket is torch.ops.aten.native_batch_norm_backward:
                found.append([statistic.shape for statistic in args[3:7] if statistic is not None])
            return function(*args, **(kwargs or {}))

    class Alone(Together):
        def all_reduce_sum(self, table):
            return table

    with Calls():
        GroupBatchNorm2d(3, 12, Alone()).double()._across(batch().requires_grad_()).sum().backward()
    assert found == [[(3,)] * 4]


def test_running_statistics_move_once_per_update_however_the_batch_is_cut():
    whole, cut = (GroupBatchNorm2d(3, 4, Together()).double() for _ in range(2))
    x = batch()
    for layer, parts in ((whole, [x]), (cut, x.split(4))):
        layer(x + 7)  # outside an update: leaves no trace
        begin_update(layer)
        for part in parts:
            layer(part)
        end_update(layer, Together())(FINE)
        layer(x - 7)
    torch.testing.assert_close(cut.running_mean, whole.running_mean)
    torch.testing.assert_close(cut.running_var, whole.running_var)
    assert not torch.equal(whole.running_mean, torch.zeros(3, dtype=torch.float64))


def test_a_skipped_update_leaves_the_statistics():
    layer = GroupBatchNorm2d(3, 4, Together()).double()
    begin_update(layer)
    layer(batch())
    end_update(layer, Together())(torch.tensor(0.0))
    assert torch.equal(layer.running_mean, torch.zeros(3, dtype=torch.float64))


def test_part_of_a_group_is_refused():
    with pytest.raises(
        RuntimeError, match="10 samples on each of 1 ranks are no whole number of groups of 4"
    ):
        GroupBatchNorm2d(3, 4, Together())(batch(10).float())


@pytest.mark.parametrize("kind", [nn.Conv2d, nn.ConvTranspose2d])
def test_spectral_norm_equals_torchs_for_the_same_vectors(kind):
    torch.manual_seed(0)
    ours, theirs = kind(3, 8, 4), kind(3, 8, 4)
    theirs.load_state_dict(ours.state_dict())
    spectral_norm(ours)
    torch.nn.utils.parametrizations.spectral_norm(theirs).eval()
    mine, torchs = ours.parametrizations.weight[0], theirs.parametrizations.weight[0]
    torchs._u.copy_(mine.u)
    torchs._v.copy_(mine.v)
    x = torch.randn(2, 3, 8, 8)
    torch.testing.assert_close(ours(x), theirs(x))
    (g_mine,) = torch.autograd.grad(ours(x).square().sum(), ours.parametrizations.weight.original)
    (g_torch,) = torch.autograd.grad(
        theirs(x).square().sum(), theirs.parametrizations.weight.original
    )
    torch.testing.assert_close(g_mine, g_torch)


def test_the_largest_singular_value_becomes_one():
    torch.manual_seed(0)
    layer = spectral_norm(nn.Conv2d(3, 8, 4))
    for _ in range(200):
        begin_update(layer)
    assert torch.linalg.svdvals(layer.weight.detach().flatten(1))[0].item() == pytest.approx(
        1, abs=1e-5
    )


def test_forward_passes_do_not_move_the_vectors():
    layer = spectral_norm(nn.Conv2d(3, 8, 4)).train()
    before = layer.parametrizations.weight[0].u.clone()
    layer(torch.randn(1, 3, 8, 8))
    assert torch.equal(layer.parametrizations.weight[0].u, before)
    begin_update(layer)
    assert not torch.equal(layer.parametrizations.weight[0].u, before)


def test_a_network_without_these_layers_is_left_alone():
    net = nn.Linear(2, 2)
    begin_update(net)
    normalization.end_update(net, Together())(FINE)
