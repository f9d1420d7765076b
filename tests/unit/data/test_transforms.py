"""Augmentations belong to the sample, not to the batch, and do what they say."""

import numpy as np
import pytest
import torch

from distgan.data import transforms

ADDRESS = np.array([5, 900, 31, 7, 8, 9])
IMAGES = transforms.to_unit(
    torch.from_numpy(np.random.default_rng(0).integers(0, 256, (6, 3, 16, 16), np.uint8))
)
PAIRS = torch.from_numpy(np.random.default_rng(1).standard_normal((6, 2, 64)).astype(np.float32))
AUGMENTATIONS = {
    "flip": (transforms.flip, IMAGES, (0.5, 0.5)),
    "flip of pairs": (transforms.flip, torch.stack([IMAGES, -IMAGES], 1), (0.5, 0.5)),
    "affine": (transforms.affine, IMAGES, (15.0, 0.1)),
    "colour_jitter": (transforms.colour_jitter, IMAGES, (0.2, 0.2, 0.2)),
    "gain": (transforms.gain, PAIRS, (0.8, 1.0)),
    "polarity": (transforms.polarity, PAIRS, (0.5,)),
    "shift": (transforms.shift, PAIRS, (0.1,)),
    "input_noise": (transforms.input_noise, PAIRS, (0.02,)),
}


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_an_augmentation_belongs_to_the_sample(name):
    function, batch, how = AUGMENTATIONS[name]
    changed = function(batch, 0, ADDRESS, *how)
    alone = torch.cat([function(batch[i : i + 1], 0, ADDRESS[i : i + 1], *how) for i in range(6)])
    assert torch.equal(changed, alone)
    assert changed.shape == batch.shape and changed.dtype == batch.dtype
    assert not torch.equal(changed, batch)
    assert not torch.equal(changed, function(batch, 1, ADDRESS, *how)) and not torch.equal(
        changed, function(batch, 0, ADDRESS + 1, *how)
    )


def test_flips():
    assert torch.equal(transforms.flip(IMAGES, 0, ADDRESS, 1.0, 0.0), IMAGES.flip(3))
    assert torch.equal(transforms.flip(IMAGES, 0, ADDRESS, 0.0, 1.0), IMAGES.flip(2))
    given, target = transforms.flip(torch.stack([IMAGES, -IMAGES], 1), 0, ADDRESS, 0.5, 0.5).unbind(
        1
    )
    assert torch.equal(given, -target)  # both of a pair alike
    assert torch.equal(given, transforms.flip(IMAGES, 0, ADDRESS, 0.5, 0.5))
    assert torch.equal(transforms.flip(IMAGES, 0, ADDRESS, 0.0, 0.0), IMAGES)


def test_affine_turns_and_shifts(monkeypatch):
    picture = torch.full((1, 1, 32, 32), -1.0)
    picture[0, 0, 14:18, 20:24] = 1
    assert torch.allclose(transforms.affine(picture, 0, ADDRESS[:1], 0.0, 0.0), picture, atol=1e-5)
    monkeypatch.setattr(
        transforms.rng,
        "uniform",
        lambda seed, purpose, index: np.array([1.0 if "turn" in purpose else 0.5]),
    )
    turned = transforms.affine(picture, 0, ADDRESS[:1], 90.0, 0.1)
    assert torch.allclose(turned, picture.rot90(1, (2, 3)), atol=1e-4) or torch.allclose(
        turned, picture.rot90(-1, (2, 3)), atol=1e-4
    )
    monkeypatch.setattr(
        transforms.rng,
        "uniform",
        lambda seed, purpose, index: np.array([0.75 if "right" in purpose else 0.5]),
    )
    shifted = transforms.affine(picture, 0, ADDRESS[:1], 15.0, 0.25)
    assert torch.allclose(
        shifted[..., 4:], picture.roll(4, 3)[..., 4:], atol=1e-4
    )  # half of a quarter of 32 pixels


def test_affine_does_not_skew_a_wide_image(monkeypatch):
    monkeypatch.setattr(
        transforms.rng,
        "uniform",
        lambda seed, purpose, index: np.array([1.0 if "turn" in purpose else 0.5]),
    )
    picture = torch.full((1, 1, 32, 64), -1.0)
    picture[0, 0, 16, 22:42] = 1  # a line of 20 pixels through the centre
    turned = transforms.affine(picture, 0, ADDRESS[:1], 90.0, 0.0)
    lit = (turned[0, 0, :, 16:48] > 0).nonzero()  # further out comes the mirror image
    assert (lit.amax(0) - lit.amin(0) + 1).tolist() == [20, 1]


def test_colour_jitter_stays_in_range_and_keeps_gray_gray():
    changed = transforms.colour_jitter(IMAGES, 0, ADDRESS, 0.9, 0.9, 0.9)
    assert changed.min() >= -1 and changed.max() <= 1
    gray = transforms.colour_jitter(IMAGES[:, :1].expand(-1, 3, -1, -1), 0, ADDRESS, 0.5, 0.5, 0.5)
    assert torch.allclose(gray[:, 0], gray[:, 1], atol=1e-6) and torch.allclose(
        gray[:, 0], gray[:, 2], atol=1e-6
    )


def test_brightness_contrast_and_saturation_are_drawn_apart():
    def changed(*strengths: float) -> torch.Tensor:
        return transforms.colour_jitter(IMAGES / 8, 0, ADDRESS, *strengths)

    assert torch.equal(changed(0, 0, 0), IMAGES / 8)
    brighter = changed(0.2, 0, 0)
    factor = (brighter + 1) / (IMAGES / 8 + 1)
    assert torch.allclose(factor, factor[:, :1, :1, :1], atol=1e-5)
    contrast = changed(0, 0.2, 0)
    assert torch.allclose(contrast.mean((1, 2, 3)), (IMAGES / 8).mean((1, 2, 3)), atol=1e-5)
    both = changed(0.2, 0.2, 0)
    assert torch.equal(both, transforms.colour_jitter(brighter, 0, ADDRESS, 0, 0.2, 0))
    assert torch.equal(
        changed(0.2, 0.2, 0.2), transforms.colour_jitter(both, 0, ADDRESS, 0, 0, 0.2)
    )


def test_gain_polarity_and_shift_change_both_alike():
    same = torch.stack([PAIRS[:, 0], PAIRS[:, 0]], 1)
    for function, how in (
        (transforms.gain, (0.8, 1.0)),
        (transforms.polarity, (0.5,)),
        (transforms.shift, (0.1,)),
    ):
        changed = function(same, 0, ADDRESS, *how)
        assert torch.equal(changed[:, 0], changed[:, 1])
    factors = (transforms.gain(PAIRS, 0, np.arange(6), 0.8, 1.0) / PAIRS)[:, 0, 0]
    assert factors.min() >= 0.8 and factors.max() <= 1.0 and factors.unique().numel() == 6
    assert torch.equal(transforms.polarity(PAIRS, 0, ADDRESS, 1.0), -PAIRS)


def test_a_shift_does_not_wrap():
    ramp = torch.arange(100.0).expand(50, 2, 100)
    moved = transforms.shift(ramp, 0, np.arange(50), 0.1)
    late = (50 - moved[:, 0, 50]).tolist()
    assert min(late) >= -10 and max(late) <= 10 and len(set(late)) > 10
    assert torch.equal(
        moved[:, 0], (torch.arange(100.0) - torch.tensor(late)[:, None]).clamp(0, 99)
    )


def test_noise_is_on_the_input_alone():
    noisy = transforms.input_noise(torch.zeros(6, 2, 10000), 0, ADDRESS, 0.02)
    assert torch.equal(noisy[:, 1], torch.zeros(6, 10000))
    assert torch.allclose(noisy[:, 0].std(1), torch.full((6,), 0.02), rtol=0.05)


def test_bytes_and_units_are_inverse():
    levels = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16)
    assert torch.equal(transforms.to_bytes(transforms.to_unit(levels)), levels)
    assert transforms.to_unit(levels).min() == -1
    assert transforms.to_unit(levels).max() == 1


def test_integers_become_waves():
    assert transforms.to_waves(
        torch.tensor([[[-32768, 0, 16384]]], dtype=torch.int16)
    ).tolist() == [[[-1, 0, 0.5]]]
    assert torch.equal(transforms.to_waves(PAIRS, torch.float64), PAIRS.double())
