"""Operations of adaptive augmentation: a share of the images, by address, differentiable."""

import numpy as np
import pytest
import torch

from distgan.data import ada

ALL = tuple(ada.CHANGES)
IMAGES = torch.from_numpy(np.random.default_rng(0).uniform(-1, 1, (12, 3, 16, 16)))


def changed(x, strength, operations=ALL, start=0):
    share = torch.tensor(strength, dtype=torch.float64)
    return ada.images(x, operations, share, 0, "test", np.arange(start, start + len(x)))


def test_strength_0_is_the_identity_bit_for_bit():
    assert torch.equal(changed(IMAGES, 0.0), IMAGES)


def test_no_split_of_a_batch_changes_an_image():
    parts = [changed(IMAGES[i : i + 4], 0.5, start=i) for i in (0, 4, 8)]
    torch.testing.assert_close(torch.cat(parts), changed(IMAGES, 0.5), rtol=0, atol=1e-12)


@pytest.mark.parametrize("operation", ALL)
def test_each_operation_changes_a_share_of_the_images(operation):
    x = IMAGES[:1].expand(400, -1, -1, -1)
    different = (changed(x, 0.3, (operation,)) != x).flatten(1).any(1)
    assert 0.2 < float(different.double().mean()) < 0.4
    assert changed(x, 1.0, (operation,)).shape == x.shape


@pytest.mark.parametrize("shape", [(2, 1, 4, 4), (2, 1, 4, 6)])
@pytest.mark.parametrize("operation", ALL)
def test_gradients_reach_the_images(operation, shape):
    x = torch.rand(shape, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: changed(x, 1.0, (operation,)), (x,))


def test_geometry_keeps_the_shape_of_things_in_rectangles():
    x = torch.zeros(64, 1, 32, 64, dtype=torch.float64)
    x[:, :, 12:20, 28:36] = 1
    # The middle, which no mirror image of the square reaches.
    out = changed(x, 1.0, ("geometry",))[:, :, 4:28, 20:44]
    area = out.sum((1, 2, 3))
    assert 28 < float(area.min()) and float(area.max()) < 136  # 64, by half an octave each way
    rows, columns = torch.meshgrid(torch.arange(24) - 11.5, torch.arange(24) - 11.5, indexing="ij")
    spread = [(out[:, 0] * at**2).sum((1, 2)) / area for at in (rows, columns)]
    torch.testing.assert_close(spread[0], spread[1], rtol=0.2, atol=0)
