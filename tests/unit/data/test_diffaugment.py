"""DiffAugment against plain code for one image at a time, its gradients, and the same changes for
the same addresses.
"""

import numpy as np
import pytest
import torch

from distgan.config import batch_layout, loading
from distgan.core import rng
from distgan.core.clock import Clock
from distgan.data import diffaugment
from distgan.data.loader import MicroBatch
from distgan.distributed.ranks import Ranks
from distgan.recipes._catalog import resolve_recipe

ADDRESS = np.array([5, 901, 7, 44])
ALL = ("color", "translation", "cutout")
SOUND = ("gain", "polarity", "shift", "mask", "noise")


def pictures(channels=3, size=(12, 16)):
    return (
        torch.rand(
            4, channels, *size, generator=torch.Generator().manual_seed(1), dtype=torch.float64
        )
        * 2
        - 1
    )


def clips(frames=40):
    return (
        torch.rand(4, 2, frames, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
        - 0.5
    )


def drawn(name):
    return rng.uniform(3, f"p/{name}", ADDRESS)


def changed(x, *policies):
    apply = diffaugment.images if x.ndim == 4 else diffaugment.waves
    return apply(x, policies, 3, "p", ADDRESS).numpy()


# ---- each policy, one sample at a time, in NumPy
def test_colour_is_brightness_then_saturation_then_contrast():
    """Zhao et al. 2020: + U(-0.5, 0.5); around the gray image times U(0, 2); around the mean times
    U(0.5, 1.5).
    """
    for x, found, b, s, c in zip(
        pictures().numpy(),
        changed(pictures(), "color"),
        *map(drawn, ("brightness", "saturation", "contrast")),
        strict=True,
    ):
        x = x + b - 0.5
        gray = (x[0] + x[1] + x[2]) / 3
        x = np.stack([gray + (channel - gray) * 2 * s for channel in x])
        x = x.mean() + (x - x.mean()) * (0.5 + c)
        np.testing.assert_allclose(found, x)


def test_gray_images_have_no_saturation():
    x = pictures(1)
    expected = x + torch.from_numpy(drawn("brightness") - 0.5)[:, None, None, None]
    mean = expected.mean((1, 2, 3), keepdim=True)
    np.testing.assert_allclose(
        changed(x, "color"),
        mean + (expected - mean) * torch.from_numpy(0.5 + drawn("contrast"))[:, None, None, None],
    )


def test_translation_moves_by_whole_pixels_and_lets_zeros_in():
    seen = set()
    for x, found, d, r in zip(
        pictures().numpy(),
        changed(pictures(), "translation"),
        drawn("down"),
        drawn("right"),
        strict=True,
    ):
        down, right = int(d * 5) - 2, int(r * 5) - 2  # 12 / 8 and 16 / 8, rounded: up to 2
        expected = np.zeros_like(x)
        for i in range(12):
            for j in range(16):
                if 0 <= i - down < 12 and 0 <= j - right < 16:
                    expected[:, i, j] = x[:, i - down, j - right]
        np.testing.assert_array_equal(found, expected)
        seen |= {down, right}
    assert len(seen) > 2


def test_every_shift_is_drawn():
    at = np.arange(2000)
    moved = diffaugment.images(torch.ones(2000, 1, 16, 16), ("translation",), 0, "p", at)
    rows, counts = np.unique(
        moved[:, 0].amax(2).sum(1).int().numpy(), return_counts=True
    )  # rows that are left
    assert rows.tolist() == [14, 15, 16] and np.allclose(counts / 2000, [0.4, 0.4, 0.2], atol=0.05)


def test_cutout_is_a_rectangle_of_half_the_sides():
    for x, found, r, c in zip(
        pictures().numpy(),
        changed(pictures(), "cutout"),
        drawn("row"),
        drawn("column"),
        strict=True,
    ):
        top, left = int(r * 13) - 3, int(c * 17) - 4  # the centre from 0 to 12 and 0 to 16
        expected = x.copy()
        expected[:, max(top, 0) : max(top + 6, 0), max(left, 0) : max(left + 8, 0)] = 0
        np.testing.assert_array_equal(found, expected)
    holes = (
        diffaugment.images(torch.ones(3000, 1, 8, 8), ("cutout",), 0, "p", np.arange(3000)) == 0
    ).sum((1, 2, 3))
    assert holes.max() == 16 and holes.min() == 4  # whole inside; a quarter of it in a corner


def test_sound_one_clip_at_a_time():
    x = clips()
    np.testing.assert_allclose(
        changed(x, "gain"), x.numpy() * 10 ** ((drawn("gain") * 12 - 6) / 20)[:, None, None]
    )
    np.testing.assert_array_equal(
        changed(x, "polarity"), x.numpy() * np.where(drawn("polarity") < 0.5, -1, 1)[:, None, None]
    )
    for wave, found, s in zip(x.numpy(), changed(x, "shift"), drawn("shift"), strict=True):
        by = int(s * 11) - 5  # an eighth of 40 frames
        expected = np.zeros_like(wave)
        expected[:, max(by, 0) : 40 + min(by, 0)] = wave[:, max(-by, 0) : 40 - max(by, 0)]
        np.testing.assert_array_equal(found, expected)
    for wave, found, n, s in zip(
        x.numpy(), changed(x, "mask"), drawn("mask_length"), drawn("mask_start"), strict=True
    ):
        length = int(n * 6)
        start = int(s * (41 - length))
        expected = wave.copy()
        expected[:, start : start + length] = 0
        np.testing.assert_array_equal(found, expected)
    noise = (
        rng.normal_each(3, "p/noise", ADDRESS, (2, 40)).double().numpy()
        * 0.01
        * drawn("level")[:, None, None]
    )
    np.testing.assert_allclose(changed(x, "noise"), x.numpy() + noise)


# ---- what they have in common
@pytest.mark.parametrize(
    ("x", "policies"), [(pictures(), ALL), (clips(), SOUND)], ids=["images", "waves"]
)
def test_the_same_addresses_change_alike_whatever_else_is_in_the_batch(x, policies):
    """A real and a sample at one address; one rank's half and the whole batch."""
    apply = diffaugment.images if x.ndim == 4 else diffaugment.waves
    whole = apply(x, policies, 3, "p", ADDRESS)
    assert torch.equal(
        torch.cat(
            [
                apply(half, policies, 3, "p", at)
                for half, at in zip(x.split(2), np.split(ADDRESS, 2), strict=True)
            ]
        ),
        whole,
    )
    assert not torch.equal(apply(x, policies, 3, "q", ADDRESS), whole) and not torch.equal(
        apply(x, policies, 4, "p", ADDRESS), whole
    )
    other = torch.rand_like(x)
    added = apply(x + other, policies, 3, "p", ADDRESS)
    if x.ndim == 3:  # all but the noise, which is the same, is linear
        torch.testing.assert_close(added - whole, apply(other, policies[:4], 3, "p", ADDRESS))
    assert apply(x, (), 3, "p", ADDRESS) is x


@pytest.mark.parametrize("policy", ALL + SOUND)
def test_gradients_are_those_of_finite_differences(policy):
    x = (pictures(2, (4, 4)) if policy in ALL else clips(16)).requires_grad_()
    apply = diffaugment.images if policy in ALL else diffaugment.waves
    assert torch.autograd.gradcheck(lambda x: apply(x, (policy,), 3, "p", ADDRESS), x)
    assert torch.autograd.gradgradcheck(lambda x: apply(x, (policy,), 3, "p", ADDRESS) ** 2, x)


def test_channels_of_a_pair_stay_together():
    same = clips()[:, :1].expand(-1, 2, -1)
    found = diffaugment.waves(same, SOUND[:4], 3, "p", ADDRESS)
    assert torch.equal(found[:, 0], found[:, 1]) and not torch.equal(found, same)


# ---- in the recipes
@pytest.mark.parametrize("name", ["sagan", "wgan_flowers", "r3gan"])
def test_reals_and_samples_are_changed_in_both_updates(name, monkeypatch):
    """And G's gradient goes through the change: where everything is cut out, none is left."""
    module, tree = resolve_recipe(name)
    run = loading.validate(
        module.Settings,
        tree | {"data": "-"},
        ["ngf=4", "ndf=4", "latent=8", "batch=4", "diffaugment=[color, translation, cutout]"],
    )
    torch.manual_seed(0)
    made = module.Recipe(
        run,
        Ranks(run.machine.model_copy(update={"device": "cpu"})),
        batch_layout.fit(4, 1, 1, run.group),
        (1, 64, 64),
    )
    seen, usual = [], diffaugment.images

    def spied(x, policies, seed, purpose, address):
        seen.append((purpose, policies, seed, address.tolist()))
        return usual(x, policies, seed, purpose, address)

    monkeypatch.setattr(diffaugment, "images", spied)
    places = np.arange(made.run.batches_per_step * 4).reshape(-1, 4)
    batches = [
        [
            MicroBatch(
                torch.randint(0, 256, (4, 1, 64, 64), dtype=torch.uint8), at, at, slice(0, 4), k
            )
        ]
        for k, at in enumerate(places)
    ]
    log = made.step(batches, Clock(4 * len(places), 8))
    assert all(torch.isfinite(value) for value in log.values()) and log["g/grad_norm"] > 0
    in_d, in_g = [one for one in seen if "/d/" in one[0]], [one for one in seen if "/g" in one[0]]
    assert len(in_d) == 2 * len(places) and len(in_g) == (2 if name == "r3gan" else 1)
    assert {one[0] for one in in_d} == {"diffaugment/d/real", "diffaugment/d/fake"}
    assert (
        all(one[1:3] == (ALL, 0) for one in seen)
        and [one[3] for one in in_d[::2]] == places.tolist()
    )
    monkeypatch.setattr(diffaugment, "images", lambda x, *_: x * 0)
    assert made.step(batches, Clock(4 * len(places), 8))["g/grad_norm"] == 0
