"""DCGAN's networks for any size that their grid reaches, and with classes."""

import pytest
import torch

from distgan.config import image_sizes
from distgan.config.sections import Machine
from distgan.distributed.ranks import Ranks
from distgan.nn.image import Discriminator, Generator, SelfAttention2d, resolutions
from distgan.nn.normalization import ConditionalBatchNorm2d

SIZES = [(16, 16), (32, 32), (64, 64), (128, 128), (256, 256), (64, 128), (128, 64), (32, 40)]


@pytest.fixture(scope="module")
def ranks():
    return Ranks(Machine(device="cpu"))


def networks(ranks, size, classes=0, attention=(8,)):
    torch.manual_seed(0)
    G = Generator(6, 2, 3, attention, 8, 2, ranks, size=size, classes=classes)
    return G, Discriminator(2, 3, attention, 8, size=size, classes=classes)


@pytest.mark.parametrize("size", SIZES)
def test_images_of_every_size_are_drawn_and_judged(size, ranks):
    assert image_sizes.trainable(*size)
    G, D = networks(ranks, size)
    images = G(torch.randn(2, 6))
    assert images.shape == (2, 3, *size) and D(images).shape == (2,)
    found = [[m for m in net.modules() if isinstance(m, SelfAttention2d)] for net in (G, D)]
    assert [len(layers) for layers in found] == [1, 1]
    widest = max(p.shape[1] for p in G.parameters() if p.ndim == 4)
    assert widest <= 2 * 8 and resolutions(size)[-1] == min(size) // 2


@pytest.mark.parametrize(
    "size", [(8, 8), (48, 48), (64, 72), (512, 512), (64, 320), (0, 0), (100, 64)]
)
def test_sizes_that_no_doubling_reaches_are_none(size):
    assert not image_sizes.trainable(*size)


def test_networks_for_64x64_have_the_layers_of_before(ranks):
    """Their names and shapes are in checkpoints."""
    G, D = networks(ranks, (64, 64))
    shapes = {name: tuple(value.shape) for name, value in G.named_parameters()}
    assert shapes["layers.0.weight"] == (6, 16, 4, 4)
    assert [s for s in shapes.values() if len(s) == 4 and s[2] == 4] == [
        (6, 16, 4, 4), (16, 8, 4, 4), (8, 4, 4, 4), (4, 2, 4, 4), (2, 3, 4, 4)
    ]  # fmt: skip
    assert sum(p.numel() for p in D.parameters()) == sum(
        (3 * 2 * 16 + 2, 2 * 4 * 16 + 4, 4 * 8 * 16 + 8, 8 * 16 * 16 + 16, 16 * 16 + 1)
    ) + sum((8, 8, 64, 1))  # attention at 8x8, of 8 channels: three maps, and gamma


def test_a_class_changes_a_sample_and_its_score_and_no_other(ranks):
    G, D = (net.eval() for net in networks(ranks, (32, 32), classes=3))
    for module in G.modules():
        if isinstance(module, ConditionalBatchNorm2d):
            torch.nn.init.normal_(module.offset.weight)
    noise, one, other = torch.randn(2, 6), torch.tensor([0, 1]), torch.tensor([0, 2])
    with torch.no_grad():
        first, second = G(noise, one), G(noise, other)
        assert torch.equal(first[0], second[0]) and not torch.equal(first[1], second[1])
        first, second = D(first, one), D(first, other)
        assert torch.equal(first[0], second[0]) and not torch.equal(first[1], second[1])


def test_conditional_batch_norm_is_batch_norm_with_the_weights_of_each_class(ranks):
    layer = ConditionalBatchNorm2d(4, 3, 6, ranks)
    plain = torch.nn.BatchNorm2d(4)
    torch.nn.init.normal_(layer.gain.weight)
    torch.nn.init.normal_(layer.offset.weight)
    x, classes = torch.randn(6, 4, 5, 5), torch.tensor([0, 1, 2, 2, 1, 0])
    expected = plain(x) * layer.gain(classes)[:, :, None, None]
    expected = expected + layer.offset(classes)[:, :, None, None]
    torch.testing.assert_close(layer(x, classes), expected)


def test_the_vectors_of_classes_are_normalised_with_the_rest_of_d(ranks):
    _, D = networks(ranks, (32, 32), classes=3)
    assert torch.linalg.matrix_norm(D.projection.weight, 2).item() == pytest.approx(1, rel=0.05)
