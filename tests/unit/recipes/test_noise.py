"""Noise that samples are drawn from."""

import numpy as np
import pytest
import torch
from scipy import stats

from distgan.config import batch_layout
from distgan.config.sections import Machine
from distgan.core import rng
from distgan.data.dataset import Data
from distgan.data.labels import Labels
from distgan.distributed.ranks import Ranks
from distgan.outputs.image_grid import load
from distgan.recipes import r3gan, sagan, wgan_flowers
from distgan.recipes._base import build_recipe, diversity, show_reals
from distgan.recipes._noise import truncated


@pytest.mark.parametrize("limit", [0.01, 0.5, 2.0])
def test_cut_noise_has_the_distribution_of_noise_drawn_again_until_it_is_inside(limit):
    noise = rng.normal(0, "noise/test", 0, (20_000,))
    cut = truncated(noise, limit)
    assert cut.dtype == noise.dtype and cut.abs().max() <= limit
    expected = stats.truncnorm(-limit, limit)
    assert stats.kstest(cut.double().numpy(), expected.cdf).pvalue > 0.01
    assert torch.equal(cut.argsort(), noise.argsort()) or limit < 0.1  # which rounds


def test_a_value_depends_on_no_other_and_a_far_limit_changes_nothing():
    noise = rng.normal_each(0, "noise/test", np.arange(8), (16,))
    assert torch.equal(truncated(noise, 0.7)[3:5], truncated(noise[3:5], 0.7))
    assert torch.allclose(truncated(noise, 10.0), noise, atol=1e-6)
    assert truncated(torch.tensor([-40.0, 0.0, 40.0]), 1.5).tolist() == [-1.5, 0.0, 1.5]


@pytest.mark.parametrize("name", ["particles", "gaussians"])
def test_samples_that_are_the_data_are_as_diverse_and_one_sample_is_not(name, sets):
    data = Data(str(sets(name)))
    reals = data.decode(data.train, range(54)).float()
    reals = reals / 127.5 - 1 if data.kind == "image" else reals
    assert diversity(data, lambda numbers, purpose: reals[numbers]) == pytest.approx(1)
    assert diversity(data, lambda numbers, purpose: reals[numbers * 0]) < 1e-6


@pytest.mark.parametrize("module", [sagan, r3gan, wgan_flowers])
def test_images_between_two_classes_go_from_the_one_to_the_other(module):
    words = {"data": "none", "conditional": True, "ngf": 4, "ndf": 4, "latent": 8, "batch": 8}
    run = module.Settings(**words)
    layout = batch_layout.fit(run.batch, 1, 1, run.group, run.group_of)
    labels = Labels("kind", ("a", "b", "c"), (1, 1, 1))
    ranks = Ranks(Machine(device="cpu"))
    recipe = build_recipe(module, run, ranks, layout, (3, 32, 32), labels)
    for player in (recipe.G, recipe.D):
        for name, value in player.module.named_parameters():
            if any(part in name for part in ("gain", "offset", "projection", "embedding")):
                with torch.no_grad():  # as after training: the classes differ
                    value += 0.2 * rng.normal(0, name, 0, tuple(value.shape))
    numbers, share = np.zeros(9, np.int64), np.linspace(0, 1, 9)
    weights = np.stack([0 * share, 1 - share, share], 1)
    images = recipe.sample(numbers, "noise/test", weights)
    with recipe.D.evaluating() as judge:
        scores = judge(images[:1].repeat(9, 1, 1, 1), torch.from_numpy(weights))
        ends = judge(images[:1].repeat(2, 1, 1, 1), torch.tensor([1, 2]))
    for place, one in ((0, 1), (8, 2)):
        alone = recipe.sample(numbers, "noise/test", np.full(9, one))
        assert torch.equal(images[place], alone[place]) and scores[place] == ends[one - 1]
    steps = (images[1:] - images[:-1]).flatten(1).norm(dim=1)
    assert (steps > 0).all() and steps.max() < (images[8] - images[0]).norm()
    assert torch.allclose(scores, ends[0] + (ends[1] - ends[0]) * torch.from_numpy(share).float())


def test_real_images_are_shown_in_the_rows_of_the_grid(shapes, tmp_path):
    data = Data(shapes)
    data.read_labels("shape")

    class Conditional:
        labels = data.labels

        def sample(self, numbers, purpose="", classes=None): ...
        def classes_of(self, numbers, purpose=""): ...

    show_reals(Conditional(), data, tmp_path / "real.png")
    rows = [8 * [one] for one in data.labels.shown()]
    sheet = load([tmp_path / "real.png"])[0]
    for y, row in enumerate(rows):
        of = np.flatnonzero(data.classes["train"] == row[0])
        reals = data.decode(data.train, of)
        for x in range(8):
            cell = sheet[:, y * 33 + 1 : (y + 1) * 33, x * 33 + 1 : (x + 1) * 33]
            assert (reals == cell).flatten(1).all(1).any()
    Conditional.labels = None
    show_reals(Conditional(), data, tmp_path / "plain.png")
    assert load([tmp_path / "plain.png"]).shape[2:] == (8 * 33 + 1, 8 * 33 + 1)
