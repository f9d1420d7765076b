"""The update of one network.

Precision, clipping, the optimizer's implementations, steps that are not taken. One process;
tests/nightly/test_matrix.py has several.
"""

import copy
from functools import partial

import pytest
import torch
from torch import nn

from distgan.config.sections import Machine
from distgan.core.errors import LaunchError
from distgan.distributed.ranks import Ranks, SingleProcess
from distgan.engine import ddp, guarded_step
from distgan.engine.ddp import Engine
from distgan.nn.normalization import GroupBatchNorm2d, spectral_norm

KINDS = {
    "adam": partial(torch.optim.Adam, lr=0.1, weight_decay=0.01),
    "adamw": partial(torch.optim.AdamW, lr=0.1),
    "rmsprop": partial(torch.optim.RMSprop, lr=0.1),
    "sgd": partial(torch.optim.SGD, lr=0.1, momentum=0.9),
}


def engine(kind="adam", precision="float32", net=None, **machine):
    torch.manual_seed(0)
    ranks = Ranks(Machine(device="cpu", **machine), precision)
    return Engine(
        ranks,
        net or nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 1)),
        KINDS[kind],
        accumulation=machine.get("accumulation", 1),
    )


def update(e, x, clip=None):
    e.begin()
    log = e.backward(lambda: (e(x).square().mean(), {}), last=True)
    return (log["loss"], *e.step(clip))


def batch(n=4, seed=1):
    return torch.randn(n, 6, generator=torch.Generator().manual_seed(seed))


def everything(e):
    state = e.optimizer.state_dict()["state"]
    return [
        *e.module.state_dict().values(),
        *(
            value
            for each in state.values()
            for value in each.values()
            if isinstance(value, torch.Tensor)
        ),
    ]


# ---- steps
@pytest.mark.parametrize("kind", KINDS)
def test_an_update_is_torchs_own(kind):
    e, x = engine(kind), batch()
    net, torchs = copy.deepcopy(e.module), None
    torchs = KINDS[kind](net.parameters())
    for seed in range(5):
        x = batch(seed=seed)
        torchs.zero_grad()
        loss = net(x).square().mean()
        loss.backward()
        norm = nn.utils.clip_grad_norm_(net.parameters(), 0.5)
        torchs.step()
        found = update(e, x, 0.5)
        torch.testing.assert_close(found, (loss.detach(), norm, torch.tensor(1.0)))
    torch.testing.assert_close(e.module.state_dict(), net.state_dict())


@pytest.mark.parametrize("put_back", [False, True], ids=["on the CPU", "as on a GPU"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("warm", [False, True], ids=["first step", "later"])
def test_a_gradient_that_is_not_finite_changes_nothing(kind, put_back, warm, monkeypatch):
    if put_back:
        monkeypatch.setattr(ddp, "step_where", guarded_step._step_and_put_back)
    e, other = engine(kind, optimizer="loop"), engine(kind, optimizer="loop")
    for each in (e, other):
        if warm:
            update(each, batch())
    before = copy.deepcopy(everything(e))
    _, norm, finite = update(e, batch() * float("nan"), 0.5)
    assert not norm.isfinite()
    assert finite == 0
    after = everything(e)
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=False))
    assert all(not value.any() for value in after[len(before) :]), (
        "state made by a step that was not taken"
    )
    for each in (e, other):  # and it goes on as if the step had never been asked for
        update(each, batch(seed=2))
    assert all(torch.equal(a, b) for a, b in zip(everything(e), everything(other), strict=True))


def test_a_weight_that_gets_its_first_gradient_late_is_put_back_too():
    """Others have state by then, which must not be taken for its own."""
    e = engine("adam", optimizer="loop")
    first, last = e.module[0], e.module[2]
    last.weight.requires_grad_(False)
    update(e, batch())
    last.weight.requires_grad_(True)
    before = copy.deepcopy(everything(e))
    e.begin()
    e(batch()).square().mean().backward()
    guarded_step._step_and_put_back(e.optimizer, torch.tensor(0.0))
    new = e.optimizer.state[last.weight]
    assert not any(value.any() for value in new.values() if isinstance(value, torch.Tensor))
    kept = [value for p in (first.weight, last.bias) for value in e.optimizer.state[p].values()]
    assert all(value.any() for value in kept)
    assert all(
        torch.equal(a, b) for a, b in zip(before, e.module.state_dict().values(), strict=False)
    )


def test_fused_skips_by_itself():
    e = engine("adam")
    assert e.optimizer.defaults["fused"]
    update(e, batch())
    before = copy.deepcopy(everything(e))
    assert update(e, batch() / 0)[2] == 0
    assert all(torch.equal(a, b) for a, b in zip(before, everything(e), strict=True))


@pytest.mark.parametrize("which", ["fused", "foreach", "loop"])
def test_implementations_agree(which):
    e, usual = engine("adam", optimizer=which), engine("adam")
    for seed in range(5):
        update(e, batch(seed=seed), 0.5)
        update(usual, batch(seed=seed), 0.5)
    torch.testing.assert_close(e.module.state_dict(), usual.module.state_dict())


def test_an_implementation_that_is_not_there_is_refused():
    with pytest.raises(
        LaunchError,
        match="machine.optimizer=fused: RMSprop has no such implementation; machine.optimizer=auto",
    ):
        engine("rmsprop", optimizer="fused")


def test_another_implementation_goes_on_from_its_state():
    a, b = engine("adam"), engine("adam", optimizer="loop")
    update(a, batch())
    b.load(copy.deepcopy(a.module.state_dict()), copy.deepcopy(a.optimizer_state()), {})
    assert not b.optimizer.param_groups[0]["fused"]
    update(a, batch(seed=2))
    update(b, batch(seed=2))
    torch.testing.assert_close(a.module.state_dict(), b.module.state_dict())


def test_weights_are_clamped():
    e = engine()
    e.clamp(0.01)
    assert max(p.abs().max() for p in e.module.parameters()) <= 0.01
    assert min(p.abs().max() for p in e.module.parameters()) > 0.009


# ---- precision
@pytest.mark.parametrize(
    ("precision", "found"),
    [
        ("float32", torch.float32),
        ("tf32", torch.float32),
        ("bf16", torch.bfloat16),
        ("fp16", torch.float16),
        ("float64", torch.float64),
    ],
)
def test_networks_compute_in_the_precision_and_weights_and_outputs_stay(precision, found):
    seen = []
    e = engine(precision=precision)
    e.module[0].register_forward_hook(lambda module, args, out: seen.append(out.dtype))
    x = batch().to(e.ranks.dtype)
    whole = torch.float64 if precision == "float64" else torch.float32
    for call in (e, e.local):
        assert call(x).dtype == whole
    assert {p.dtype for p in e.module.parameters()} == {whole}
    assert set(seen) == {found}
    assert torch.equal(e(x), e.local(x))
    assert (
        torch.backends.cuda.matmul.allow_tf32
        == torch.backends.cudnn.allow_tf32
        == (precision == "tf32")
    )
    engine()  # sets the global flags back


@pytest.mark.parametrize(("precision", "gap"), [("bf16", 0.03), ("fp16", 0.005)])
def test_low_precision_trains_nearly_alike(precision, gap):
    low, full = engine(precision=precision), engine()
    (a, norm_a, _), (b, norm_b, _) = update(low, batch()), update(full, batch())
    assert abs(a / b - 1) < gap
    assert abs(norm_a / norm_b - 1) < gap


def test_float16_scales_its_loss_and_halves_the_scale_when_that_was_too_much():
    e = engine(precision="fp16")
    scale = e._scaler.get_scale()
    before = copy.deepcopy(e.module.state_dict())
    _, norm, finite = update(e, batch() * 1e3)  # times 65536: beyond the largest float16
    assert finite == 0
    assert e._scaler.get_scale() == scale / 2
    assert all(torch.equal(before[name], value) for name, value in e.module.state_dict().items())
    again = engine(precision="fp16")
    again.load(e.module.state_dict(), e.optimizer_state(), e.extra_state())
    assert again._scaler.get_scale() == scale / 2
    assert update(again, batch())[2] == 1
    state = again.module.state_dict(), again.optimizer_state()
    again.load(*state, {})  # from a run in another precision: the scale is searched for anew
    assert again._scaler.get_scale() == scale / 2
    engine().load(*state, again.extra_state())  # into one: it has no scale


def test_sigma_is_never_rounded_to_bfloat16():
    torch.manual_seed(0)
    layer = spectral_norm(nn.Conv2d(8, 8, 3))
    exact = layer.weight
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(layer.weight, exact)


def test_moments_across_ranks_are_taken_in_float32():
    ranks = SingleProcess(Ranks(Machine(device="cpu")))
    layer, x = GroupBatchNorm2d(3, 4, ranks), torch.randn(4, 3, 8, 8) + 30
    ranks.all_reduce_sum = lambda table: table
    torch.testing.assert_close(
        layer._across(x.bfloat16()).float(), layer._across(x.bfloat16().float()), atol=0.02, rtol=0
    )


# ---- layout
def test_channels_last_changes_no_numbers():
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.LeakyReLU(0.2), nn.Conv2d(8, 1, 3), nn.Flatten())
    plain, last = engine(net=copy.deepcopy(net)), engine(net=copy.deepcopy(net), channels_last=True)
    x = torch.randn(4, 3, 8, 8)
    assert last.module[0].weight.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(plain(x), last(x))
    assert update(last, x)[2] == 1


def test_a_reference_ignores_the_engines_options():
    ranks = Ranks(
        Machine(device="cpu", compile="default", channels_last=True, accumulation=4), "bf16"
    )
    solo = SingleProcess(ranks)
    assert (solo.world_size, solo.machine.compile, solo.machine.channels_last, solo.autocast) == (
        1,
        None,
        False,
        torch.bfloat16,
    )
    assert solo.machine.accumulation == 1
