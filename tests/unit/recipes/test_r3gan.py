"""The R3GAN baseline: its networks, its penalties and when they are taken, its schedules, its
pairs.
"""

import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from distgan.config import batch_layout, loading
from distgan.core.clock import Clock
from distgan.data.dataset import Data
from distgan.data.loader import MicroBatch
from distgan.distributed.ranks import Ranks
from distgan.nn import losses
from distgan.recipes import r3gan
from distgan.recipes._base import apply_settings, show
from distgan.recipes.r3gan import Block, Discriminator, Generator, Recipe, Settings

SMALL = ["ngf=4", "ndf=4", "latent=8", "batch=4", "blocks=1"]


def recipe(*words: str) -> Recipe:
    """In one process, on the CPU."""
    chosen = loading.validate(Settings, {"recipe": "r3gan", "data": "-"}, [*SMALL, *words])
    torch.manual_seed(0)
    return Recipe(
        chosen,
        Ranks(chosen.machine.model_copy(update={"device": "cpu"})),
        batch_layout.fit(chosen.batch, 1, 1, chosen.group),
        (1, 64, 64),
    )


def batch(k: int = 0, size: int = 4) -> list[MicroBatch]:
    at = np.arange(k * size, (k + 1) * size)
    return [
        MicroBatch(
            torch.randint(0, 256, (size, 1, 64, 64), dtype=torch.uint8), at, at, slice(0, size), k
        )
    ]


# ---- networks
def test_a_block_starts_as_the_identity_and_is_what_the_paper_describes():
    torch.manual_seed(0)
    block = Block(24, 10).double()
    x = torch.randn(2, 24, 5, 5, dtype=torch.float64)
    assert torch.equal(block(x), x)
    first, _, middle, _, last = block.layers
    nn.init.normal_(last.weight)
    for layer in (block.layers[1], block.layers[3]):
        nn.init.normal_(layer.bias)
    y = F.leaky_relu(F.conv2d(x, first.weight) + block.layers[1].bias[:, None, None], 0.2)
    parts = [
        F.conv2d(y[:, k : k + 16], middle.weight[k : k + 16], padding=1) for k in (0, 16, 32)
    ]  # groups of 16 of 48 channels
    y = F.leaky_relu(torch.cat(parts, 1) + block.layers[3].bias[:, None, None], 0.2)
    torch.testing.assert_close(block(x), x + F.conv2d(y, last.weight))


def test_blocks_keep_the_size_of_their_values_at_the_start():
    """Fix-up: each of the first two convolutions scales by L^(-1/4) beside He's gain, so L blocks
    with a last layer of size 1 add about 1.
    """
    torch.manual_seed(0)
    block = Block(256, 16)
    first, middle = block.layers[0].weight, block.layers[2].weight
    gain = (2 / 1.04) ** 0.5 / 2
    assert first.std().item() == pytest.approx(gain / 256**0.5, rel=0.02)
    assert middle.std().item() == pytest.approx(gain / (16 * 9) ** 0.5, rel=0.02)


def test_parameters_by_hand():
    def block(c):
        inner = 2 * c
        return 2 * c * inner + inner * min(16, inner) * 9 + 2 * inner

    widths = [128, 64, 32, 16, 8]
    blocks = sum(2 * block(c) for c in widths)
    between = sum(a * b for a, b in zip(widths, widths[1:], strict=False))
    G, D = Generator(64, 16, 3, 2), Discriminator(16, 3, 2)
    assert sum(p.numel() for p in G.parameters()) == 128 * 16 + 64 * 128 + blocks + between + 8 * 3
    assert sum(p.numel() for p in D.parameters()) == 3 * 8 + blocks + between + 128 * 16 + 128


def test_nothing_mixes_samples_and_nothing_is_normalised():
    torch.manual_seed(0)
    G, D = Generator(5, 4, 3, 1), Discriminator(4, 3, 1)
    noise = torch.randn(4, 5)
    images = G(noise)
    assert images.shape == (4, 3, 64, 64) and D(images).shape == (4,)
    torch.testing.assert_close(G(noise[2:3]), images[2:3])
    torch.testing.assert_close(D(images)[2:3], D(images[2:3]))
    kinds = {type(module) for net in (G, D) for module in net.modules()}
    assert not [kind for kind in kinds if "Norm" in kind.__name__]
    assert images.std().item() == pytest.approx(
        1, abs=0.7
    )  # signals neither vanish nor explode without normalisation


def test_d_has_no_bias_that_pairs_cancel():
    made = recipe()
    log = [(made.D.update(lambda micro: made._d_loss(micro, 0.1), batch(k), 0.0)) for k in range(3)]
    assert all(torch.isfinite(one["loss"]) for one in log)
    scores = made.D.module(torch.zeros(1, 1, 64, 64))
    assert made.D.module.linear.bias is None and scores.shape == (1,)


# ---- a step
def test_the_loss_of_d_by_its_parts(monkeypatch):
    """f(D(x) - D(G(z))) + gamma / 2 (R1 + R2), the penalties at just what D saw.

    Of G, the same pairs from the other side.
    """
    made, seen = recipe("gamma=3", "hflip=0", "vflip=0"), []
    monkeypatch.setattr(
        r3gan,
        "zero_centred_penalty",
        lambda critic, x: seen.append(x) or losses.zero_centred_penalty(critic, x),
    )
    (micro,) = batch()
    real = micro.real / 127.5 - 1
    fake = made.G.generate(made._noise(micro, "noise/d"))
    D = made.D.module
    slopes = []
    for images in (real, fake):
        images = images.clone().requires_grad_()
        (slope,) = torch.autograd.grad(D(images).sum(), images)
        slopes.append(slope.square().sum((1, 2, 3)).mean())
    expected = F.softplus(D(fake) - D(real)).mean() + 1.5 * sum(slopes)
    loss, log = made._d_loss(micro, 3.0)
    torch.testing.assert_close(loss, expected)
    assert len(seen) == 2 and torch.equal(seen[1], fake)
    torch.testing.assert_close(torch.stack([log["r1"], log["r2"]]), torch.stack(slopes))
    torch.testing.assert_close(seen[0], real)
    loss, _ = made._g_loss(micro)
    torch.testing.assert_close(
        loss, F.softplus(D(real) - D(made.G.module(made._noise(micro, "noise/g")))).mean()
    )


def test_g_learns_from_samples_only_and_d_stays_as_it_is():
    made = recipe()
    before = [p.clone() for p in made.D.module.parameters()]
    log = made.G.update(made._g_loss, batch(), 0.0)
    assert log["grad_norm"] > 0 and all(
        torch.equal(a, b) and b.grad is None
        for a, b in zip(before, made.D.module.parameters(), strict=True)
    )


def test_lazy_penalties_stand_in_every_nth_batch_n_times_as_strong():
    made = recipe("penalty_every=3", "gamma=2", "gamma_end=2")
    found = {}
    for k in range(6):
        (micro,) = batch(k)
        loss, log = made._d_loss(micro, 2.0)
        if "r1" in log:
            found[k] = float(((loss - log["adversarial"]) / (log["r1"] + log["r2"])).detach())
    assert found == {0: pytest.approx(3, rel=1e-4), 3: pytest.approx(3, rel=1e-4)}


def test_gamma_and_rates_fall_along_a_cosine():
    made, asked = (
        recipe("gamma=2", "gamma_end=0.2", "anneal_epochs=100", "g_lr=1e-3", "lr_end=0.25"),
        [],
    )
    for epoch in (0, 25, 50, 100, 500):
        made._d_loss = lambda micro, gamma: (
            asked.append(gamma) or Recipe._d_loss(made, micro, gamma)
        )
        log = made.step([batch()], Clock(4, 4, epoch))
        half = (1 + math.cos(math.pi * min(epoch, 100) / 100)) / 2
        assert asked[-1] == pytest.approx(0.2 + 1.8 * half)
        assert log["g/lr"].item() == pytest.approx(1e-3 * (0.25 + 0.75 * half))


def test_settings_changed_in_flight_are_taken_over():
    made = recipe("anneal_epochs=100", "lr_end=1")
    apply_settings(made, made.run.model_copy(update={"g_lr": 5e-5, "gamma": 1.0, "gamma_end": 1.0}))
    log = made.step([batch()], Clock(4, 4))
    assert log["g/lr"].item() == pytest.approx(5e-5) and log["d/lr"].item() == pytest.approx(2e-4)
    assert (log["d/loss"] - log["d/adversarial"]).item() == pytest.approx(
        0.5 * (log["d/r1"] + log["d/r2"]).item(), rel=1e-5
    )


def test_a_validation_is_finite_and_draws_samples(particles, tmp_path, monkeypatch):
    made, data = recipe(), Data(str(particles))
    found = made.validate(data)
    assert set(found) == {
        f"valid/{name}" for name in ("d_loss", "g_loss", "train_d_loss", "overfit", "diversity")
    }
    assert all(math.isfinite(value) for value in found.values())
    usual = data.chunks  # fewer training images than are held out: equal numbers are compared
    few = {id(data.train): 4, id(data.validation): None}
    monkeypatch.setattr(
        data, "chunks", lambda split, size, limit=None: usual(split, size, few[id(split)])
    )
    assert math.isfinite(made.validate(data)["valid/train_d_loss"])
    show(made, data, tmp_path / "grid.png")
    assert (tmp_path / "grid.png").stat().st_size > 1000
