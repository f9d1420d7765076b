"""Blocks of D that fine-tuning keeps (FreezeD, Mo et al. 2020): they stay as they were to the bit.

tests/programs/systems.py trains them on two ranks, under DDP and under DeepSpeed.
"""

import copy

import pytest
import torch
from compare import ROUNDING, tensors_apart
from processes import final, line, run
from torch import nn

from distgan.config import batch_layout, loading
from distgan.config.sections import Machine
from distgan.core.errors import ConfigError
from distgan.data.dataset import Data
from distgan.distributed.ranks import Ranks
from distgan.engine.player import Player
from distgan.nn.normalization import spectral_norm
from distgan.recipes._base import build_recipe
from distgan.recipes._catalog import resolve_recipe
from distgan.self_check import comparison

SMALL = ("batch=4", "latent=4", "ngf=4", "ndf=4", "fine_tune=x@best")


@pytest.mark.parametrize(
    ("words", "layers"),
    [
        (("sagan", "freeze_d=3", "weight_decay=0.1"), [0, 2, 4, 5]),  # attention at 16x16
        (("sagan", "freeze_d=4"), [0, 2, 4, 5, 7]),
        (("wgan_flowers", "freeze_d=2", "penalty=10", "n_critic=2"), [0, 2, 3]),
        (("wgan_flowers", "freeze_d=2", "n_critic=1"), [0, 2, 3]),  # clips weights
        (("r3gan", "freeze_d=2", "blocks=1"), [0, 1, 3, 4]),  # a 1x1 convolution where widths grow
    ],
    ids=["sagan", "all but the last", "penalty", "clipping", "r3gan"],
)
def test_the_first_blocks_stay_and_the_others_train(words, layers, particles):
    module, tree = resolve_recipe(words[0])
    chosen = loading.validate(module.Settings, tree, [f"data={particles}", *SMALL, *words[1:]])
    ranks, data = Ranks(chosen.machine.model_copy(update={"device": "cpu"})), Data(chosen.data)
    layout = batch_layout.fit(4, 1, 1, chosen.group, chosen.group_of)
    recipe = build_recipe(module, chosen, ranks, layout, data.shape)
    D = recipe.D.module
    with torch.no_grad():
        for weight in D.parameters():  # beyond any clipping
            weight.add_(0.1 * torch.randn(weight.shape))
    before = copy.deepcopy(D.state_dict())
    for batches, now in comparison.first_steps(chosen, ranks, data, layout):
        log = recipe.step(batches, now)
    assert all(torch.isfinite(value) for value in log.values())
    moving = ("running_mean", "running_var")  # of the new data
    stays = {
        name
        for name, value in D.state_dict().items()
        if torch.equal(value, before[name]) and not name.endswith(moving)
    }
    fixed = {name for name in before if name.split(".")[1] in map(str, layers)}
    one = "layers.9.parametrizations.weight.0.u"  # of one output: a vector of one element
    assert stays - {one} == {name for name in fixed if not name.endswith(moving)}
    trained = [weight.requires_grad for weight in D.parameters()]
    assert recipe.D.engine.optimizer_state().keys() == {i for i, on in enumerate(trained) if on}


def test_more_blocks_than_there_are_and_a_fresh_d_are_refused():
    module, tree = resolve_recipe("sagan")
    with pytest.raises(ConfigError, match=r"freeze_d: found 2; only trained .*fine_tune=RUN@best"):
        loading.validate(module.Settings, tree, ["data=x", "freeze_d=2"])
    five = loading.validate(module.Settings, tree, ["data=x", "freeze_d=5", "fine_tune=x"])
    assert five.refusal((3, 128, 128)) is None
    assert (
        "freeze_d: found 5; at most 4 blocks of D can be kept for images of 64x64"
        in five.refusal((3, 64, 64))
    )


def test_a_weight_that_does_not_train_stays_through_another_players_update():
    """Its spectral norm, too; neither decay nor a limit of weights reaches it."""
    torch.manual_seed(0)
    first = spectral_norm(nn.Linear(3, 4)).requires_grad_(False)
    net = nn.Sequential(first, nn.Tanh(), nn.Linear(4, 1))
    adam = torch.optim.Adam
    p = Player(
        Ranks(Machine(device="cpu")),
        net,
        lambda q: adam(q, lr=0.1, weight_decay=0.5),
        clamp=0.05,
        ema=0.9,
    )
    before = copy.deepcopy(p.tensors())
    for _ in range(3):
        with p.frozen() as judge:
            assert not judge(torch.randn(2, 3)).requires_grad
        p.update(lambda x: (p(x).square().mean(), {}), [torch.randn(4, 3)], 0.0)
    assert [weight.requires_grad for weight in net.parameters()] == [False, False, True, True]
    after = {name: value for name, value in p.tensors().items() if name.startswith("net.")}
    assert {name for name, value in after.items() if not torch.equal(value, before[name])} == {
        "net.2.weight",
        "net.2.bias",
    }


@pytest.mark.gate
def test_a_run_keeps_the_blocks_of_another_over_ranks_and_restarts(particles, tmp_path):
    """Two processes are one that was stopped and continued."""
    words = ["sagan", f"data={particles}", "batch=8", "latent=8", "ngf=4", "ndf=4"]
    words += ["evaluate.samples=8", "evaluate.schedule=[[null,1]]"]
    run(line("python"), *words, "epochs=1", "machine.folder=source", cwd=tmp_path)
    tuned = [*words, "fine_tune=source@last", "freeze_d=2", "precision=float64", "seed=1"]
    two, one = (tmp_path / name for name in ("two", "one"))
    run(line("torchrun", 2), *tuned, "epochs=1", f"machine.folder={two}", cwd=tmp_path)
    for epochs in (0.4, 1):
        said = run(
            line("python"), *tuned, f"epochs={epochs}", f"machine.folder={one}", cwd=tmp_path
        )
    assert "continuing from step" in said
    assert max(tensors_apart(final(two), final(one)).values()) < ROUNDING
    source, end = final(tmp_path / "source"), final(two)
    kept = [name for name in source if name.startswith("D.net") and name.split(".")[3] in "024"]
    assert len(kept) == 2 * 4 + 3 * 3 + 1  # weight, bias, u, v; those of attention at 16x16
    assert all(torch.equal(source[name].double(), end[name]) for name in kept)
    assert not torch.equal(source["D.net.layers.9.bias"].double(), end["D.net.layers.9.bias"])
