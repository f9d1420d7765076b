"""Losses and layers of images against numbers worked out by hand or by torch."""

import math

import pytest
import torch
from torch import nn

from distgan.config.sections import Machine
from distgan.distributed.ranks import Ranks
from distgan.nn import losses
from distgan.nn.image import Discriminator, Generator, SelfAttention2d


def test_vanilla_by_hand():
    real, fake = (
        torch.tensor([0.0, math.log(3)]),
        torch.tensor([0.0]),
    )  # probabilities 1/2, 3/4 and 1/2
    expected = 0.5 * ((math.log(2) + math.log(4 / 3)) / 2 + math.log(2))
    assert losses.d_vanilla(real, fake).item() == pytest.approx(expected)
    smooth = 0.5 * ((math.log(2) + 0.9 * math.log(4 / 3) + 0.1 * math.log(4)) / 2 + math.log(2))
    assert losses.d_vanilla(real, fake, 0.9, 0.0).item() == pytest.approx(smooth)
    assert losses.g_vanilla(torch.tensor([math.log(3)])).item() == pytest.approx(math.log(4 / 3))


def test_an_undecided_d_stands_at_log_2():
    zero = torch.zeros(4)
    assert losses.d_vanilla(zero, zero).item() == pytest.approx(math.log(2))


def test_hinge_by_hand():
    assert losses.d_hinge(
        torch.tensor([2.0, 0.5]), torch.tensor([-2.0, 0.0])
    ).item() == pytest.approx(0.25 + 0.5)
    assert losses.g_hinge(torch.tensor([1.0, 2.0])).item() == pytest.approx(-1.5)


def test_lsgan_by_hand():
    real, fake = torch.tensor([1.0, 0.0]), torch.tensor([0.5])
    assert losses.d_lsgan(real, fake).item() == pytest.approx(0.5 + 0.25)
    assert losses.d_lsgan(real, fake, 0.9, 0.1).item() == pytest.approx((0.01 + 0.81) / 2 + 0.16)
    assert losses.g_lsgan(fake, 0.9).item() == pytest.approx(0.16)


def test_an_undecided_d_of_lsgan_stands_at_a_half():
    half = torch.full((4,), 0.5)
    assert losses.d_lsgan(half, half).item() == 0.5


@pytest.mark.parametrize(
    ("mode", "d", "g"),
    [
        ("lsgan", ((2 - 0.9) ** 2 + (0 - 0.9) ** 2) / 2 + (-1 - 0.1) ** 2, (-1 - 0.9) ** 2),
        (
            "vanilla",
            0.5
            * (
                (0.9 * math.log(1 + math.exp(-2)) + 0.1 * math.log(1 + math.exp(2)) + math.log(2))
                / 2
                + 0.1 * math.log(1 + math.e)
                + 0.9 * math.log(1 + math.exp(-1))
            ),
            math.log(1 + math.e),
        ),
        ("hinge", (0 + 1) / 2 + 0, 1),
        ("wgan", -1 - 1, 1),
    ],
)
def test_losses_by_name_and_by_hand(mode, d, g):
    """D(x) = 2 and 0, D(G(z)) = -1; labels 0.9 and 0.1, which hinge and wgan do not look at."""
    real, fake = torch.tensor([2.0, 0.0]), torch.tensor([-1.0])
    assert losses.d_adversarial(mode, real, fake, 0.9, 0.1).item() == pytest.approx(d)
    assert losses.g_adversarial(mode, fake, 0.9).item() == pytest.approx(g)


def test_every_mode_is_in_the_test_above():
    assert losses.MODES == ("lsgan", "vanilla", "hinge", "wgan")


@pytest.mark.parametrize("mode", losses.MODES)
def test_d_lowers_what_it_says_of_samples_and_g_raises_it(mode):
    fake = torch.tensor([0.1, 0.3, 0.8], requires_grad=True)
    (of_d,) = torch.autograd.grad(losses.d_adversarial(mode, torch.ones(3), fake), fake)
    (of_g,) = torch.autograd.grad(losses.g_adversarial(mode, fake), fake)
    assert (of_d > 0).all() and (of_g < 0).all()


def test_relativistic_pairs_by_hand():
    real, fake = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 2.0])  # D(x) - D(G(z)): 1 and -2
    assert losses.d_relativistic(real, fake).item() == pytest.approx(
        (math.log(1 + math.exp(-1)) + math.log(1 + math.exp(2))) / 2
    )
    assert losses.g_relativistic(real, fake).item() == pytest.approx(
        (math.log(1 + math.exp(1)) + math.log(1 + math.exp(-2))) / 2
    )
    assert losses.d_relativistic(real + 7, fake + 7).item() == pytest.approx(
        losses.d_relativistic(real, fake).item()
    )
    assert losses.d_relativistic(real, real).item() == pytest.approx(math.log(2))


# ---- gradient penalties against finite differences
def bent(seed=0):
    """A smooth critic of [batch, 2, 3] with two matrices of weights, in float64."""
    draw = torch.Generator().manual_seed(seed)
    first, second = (
        torch.randn(shape, generator=draw, dtype=torch.float64).requires_grad_()
        for shape in ((6, 5), (5,))
    )
    return (first, second), lambda x: torch.tanh(x.flatten(1) @ first) @ second


def slopes(critic, x, h=1e-5):
    """The gradient of the critic at each of `x` [batch, …] by central differences, flat.

    [batch, n].
    """
    flat = x.detach().flatten(1)
    steps = torch.eye(flat.shape[1], dtype=flat.dtype) * h
    return torch.stack(
        [
            (
                critic((flat + step).reshape(x.shape)) - critic((flat - step).reshape(x.shape))
            ).detach()
            / (2 * h)
            for step in steps
        ],
        1,
    )


def penalties():
    draw = torch.Generator().manual_seed(1)
    real, fake = (torch.randn(4, 2, 3, generator=draw, dtype=torch.float64) for _ in range(2))
    share = torch.rand(4, generator=draw, dtype=torch.float64)
    between = torch.stack([s * r + (1 - s) * f for s, r, f in zip(share, real, fake, strict=True)])
    return {
        "WGAN-GP": (
            lambda critic: losses.gradient_penalty(critic, real, fake, share),
            lambda critic: (slopes(critic, between).square().sum(1).sqrt() - 1).square().mean(),
        ),  # Gulrajani et al. 2017, eq. 3
        "R1": (
            lambda critic: losses.zero_centred_penalty(critic, real),
            lambda critic: slopes(critic, real).square().sum(1).mean(),
        ),  # Mescheder et al. 2018, eq. 9
        "R2": (
            lambda critic: losses.zero_centred_penalty(critic, fake),
            lambda critic: slopes(critic, fake).square().sum(1).mean(),
        ),
    }


@pytest.mark.parametrize("name", ["WGAN-GP", "R1", "R2"])
def test_penalties_against_finite_differences(name):
    """The value, and its gradient by every weight of the critic: a difference of differences."""
    ours, reference = penalties()[name]
    weights, critic = bent()
    penalty = ours(critic)
    assert penalty.item() == pytest.approx(reference(critic).item(), rel=1e-7)
    penalty.backward()
    for weight in weights:
        for i in range(weight.numel()):
            nudged = []
            for h in (1e-4, -1e-4):
                with torch.no_grad():
                    weight.view(-1)[i] += h
                nudged.append(reference(critic).item())
                with torch.no_grad():
                    weight.view(-1)[i] -= h
            assert weight.grad.view(-1)[i].item() == pytest.approx(
                (nudged[0] - nudged[1]) / 2e-4, rel=1e-4, abs=1e-6
            )


def test_r1_of_a_quadratic_critic_by_hand():
    """D(x) = a |x|^2 / 2 has the gradient a x: a^2 |x|^2, whose derivative by a is 2 a |x|^2."""
    a, x = torch.tensor(3.0, requires_grad=True), torch.tensor([[1.0, 2.0], [0.0, 1.0]])
    penalty = losses.zero_centred_penalty(lambda x: a * x.square().sum(1) / 2, x)
    assert penalty.item() == pytest.approx(9 * (5 + 1) / 2)
    penalty.backward()
    assert a.grad.item() == pytest.approx(6 * 3)
    assert x.grad is None and not x.requires_grad


def test_attention_starts_as_the_identity_and_mixes_all_positions():
    torch.manual_seed(0)
    layer = SelfAttention2d(16)
    x = torch.randn(2, 16, 4, 4)
    assert torch.equal(layer(x), x)
    nn.init.ones_(layer.gamma)
    query, key, value = (conv(x).flatten(2) for conv in (layer.query, layer.key, layer.value))
    weights = torch.softmax(query.transpose(1, 2) @ key, dim=2)  # [batch, to, from]; SAGAN eq. 1
    expected = x + (value @ weights.transpose(1, 2)).reshape(x.shape)  # eq. 2, 3
    torch.testing.assert_close(layer(x), expected)
    assert layer.query.out_channels == 2
    assert SelfAttention2d(16, 4).query.out_channels == 4


def test_attention_position_by_position():
    """Zhang et al. 2019, eq. 1-3, written out: beta_ji = exp(s_ij) / sum over i, s_ij = f(x_i) .
    g(x_j); o_j = sum over i of beta_ji h(x_i).
    """
    torch.manual_seed(0)
    layer = SelfAttention2d(8, 4).double()
    nn.init.constant_(layer.gamma, 0.7)
    x = torch.randn(2, 8, 3, 2, dtype=torch.float64)
    f, g, h = (conv.weight.detach()[:, :, 0, 0] for conv in (layer.key, layer.query, layer.value))
    expected = torch.empty_like(x)
    for n in range(2):
        places = [x[n, :, a, b] for a in range(3) for b in range(2)]
        for j, here in enumerate(places):
            weights = [math.exp((f @ there) @ (g @ here)) for there in places]
            found = sum(
                w / sum(weights) * (h @ there) for w, there in zip(weights, places, strict=True)
            )
            expected[n, :, j // 2, j % 2] = 0.7 * found + here
    torch.testing.assert_close(layer(x), expected)


@pytest.mark.parametrize("attention", [(), (16,), (8, 16, 32)])
def test_shapes_and_ranges(attention):
    ranks = Ranks(Machine(device="cpu"))
    G, D = Generator(5, 4, 3, attention, 8, 2, ranks), Discriminator(4, 3, attention, 8)
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


def test_every_convolution_of_g_can_be_spectrally_normalised():
    G = Generator(5, 4, 1, (16,), 8, 2, Ranks(Machine(device="cpu")), spectral=True)
    convolutions = [
        module for module in G.modules() if isinstance(module, nn.Conv2d | nn.ConvTranspose2d)
    ]
    assert len(convolutions) == 5 + 3 and all(
        hasattr(module, "parametrizations") for module in convolutions
    )


def test_every_convolution_of_d_is_spectrally_normalised():
    D = Discriminator(4, 1, (16,), 8)
    convolutions = [module for module in D.modules() if isinstance(module, nn.Conv2d)]
    assert len(convolutions) == 5 + 3
    assert all(hasattr(module, "parametrizations") for module in convolutions)


def test_initial_weights_are_dcgans():
    torch.manual_seed(0)
    G = Generator(64, 16, 1, (16,), 8, 2, Ranks(Machine(device="cpu")))
    first = G.layers[0].weight
    assert first.mean().abs().item() < 1e-3
    assert first.std().item() == pytest.approx(0.02, rel=0.02)
    assert G.layers[1].weight.mean().item() == pytest.approx(1, abs=0.01)
