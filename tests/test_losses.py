"""Losses and layers of images against numbers worked out by hand or by torch."""

import math

import pytest
import torch
from torch import nn

from distgan import losses
from distgan.config import Machine
from distgan.nets_image import Discriminator64, Generator64, SelfAttention2d
from distgan.ranks import Ranks


def test_vanilla_by_hand():
    real, fake = torch.tensor([0.0, math.log(3)]), torch.tensor([0.0])   # probabilities 1/2, 3/4 and 1/2
    expected = 0.5 * ((math.log(2) + math.log(4 / 3)) / 2 + math.log(2))
    assert losses.d_vanilla(real, fake).item() == pytest.approx(expected)
    smooth = 0.5 * ((math.log(2) + 0.9 * math.log(4 / 3) + 0.1 * math.log(4)) / 2 + math.log(2))
    assert losses.d_vanilla(real, fake, 0.9, 0.0).item() == pytest.approx(smooth)
    assert losses.g_vanilla(torch.tensor([math.log(3)])).item() == pytest.approx(math.log(4 / 3))


def test_an_undecided_d_stands_at_log_2():
    zero = torch.zeros(4)
    assert losses.d_vanilla(zero, zero).item() == pytest.approx(math.log(2))


def test_hinge_by_hand():
    assert losses.d_hinge(torch.tensor([2.0, 0.5]), torch.tensor([-2.0, 0.0])).item() == pytest.approx(0.25 + 0.5)
    assert losses.g_hinge(torch.tensor([1.0, 2.0])).item() == pytest.approx(-1.5)


def test_attention_starts_as_the_identity_and_mixes_all_positions():
    torch.manual_seed(0)
    layer = SelfAttention2d(16)
    x = torch.randn(2, 16, 4, 4)
    assert torch.equal(layer(x), x)
    nn.init.ones_(layer.gamma)
    query, key, value = (conv(x).flatten(2) for conv in (layer.query, layer.key, layer.value))
    weights = torch.softmax(query.transpose(1, 2) @ key, dim=2)                # [batch, to, from]; SAGAN eq. 1
    expected = x + (value @ weights.transpose(1, 2)).reshape(x.shape)          # eq. 2, 3
    torch.testing.assert_close(layer(x), expected)
    assert layer.query.out_channels == 2
    assert SelfAttention2d(16, 4).query.out_channels == 4


@pytest.mark.parametrize("attention", [(), (16,), (8, 16, 32)])
def test_shapes_and_ranges(attention):
    ranks = Ranks(Machine(device="cpu"))
    G, D = Generator64(5, 4, 3, attention, 8, 2, ranks), Discriminator64(4, 3, attention, 8)
    images = G(torch.randn(2, 5))
    assert images.shape == (2, 3, 64, 64)
    assert images.abs().max() <= 1
    assert D(images).shape == (2,)
    sizes = []
    for net, layers in ((G, G.layers), (D, D.layers)):
        for layer in layers:
            if isinstance(layer, SelfAttention2d):
                layer.register_forward_hook(lambda module, args, out: sizes.append(out.shape[-1]))
        net(torch.randn(2, 5) if net is G else images)
    assert sorted(set(sizes)) == sorted(attention)


def test_every_convolution_of_d_is_spectrally_normalised():
    D = Discriminator64(4, 1, (16,), 8)
    convolutions = [module for module in D.modules() if isinstance(module, nn.Conv2d)]
    assert len(convolutions) == 5 + 3
    assert all(hasattr(module, "parametrizations") for module in convolutions)


def test_initial_weights_are_dcgans():
    torch.manual_seed(0)
    G = Generator64(64, 16, 1, (16,), 8, 2, Ranks(Machine(device="cpu")))
    first = G.layers[0].weight
    assert first.mean().abs().item() < 1e-3
    assert first.std().item() == pytest.approx(0.02, rel=0.02)
    assert G.layers[1].weight.mean().item() == pytest.approx(1, abs=0.01)
