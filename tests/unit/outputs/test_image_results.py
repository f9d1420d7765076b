"""Results of images: the grid, the noise, the count."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from distgan.config.sections import Machine
from distgan.core import rng
from distgan.core.errors import RunError
from distgan.distributed.ranks import Ranks
from distgan.engine.player import Player
from distgan.outputs import image_grid as pictures
from distgan.outputs import image_results as results
from distgan.recipes import wgan_flowers


class Critic(nn.Module):
    """The mean of an image, times a weight."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(100.0))

    def forward(self, images):
        return self.weight * images.mean((1, 2, 3))


@pytest.fixture
def ranks() -> Ranks:
    return Ranks(Machine(device="cpu"))


@pytest.fixture
def critic(ranks) -> Player:
    return Player(ranks, Critic(), torch.optim.SGD)


def drawn(numbers: np.ndarray, purpose: str, channels: int = 3) -> torch.Tensor:
    """Images of noise, each from its number."""
    return torch.cat([rng.normal(1, purpose, int(i), (1, channels, 64, 64)) for i in numbers]) / 2


def test_the_grid_is_of_the_first_64(tmp_path, ranks, critic):
    results.write_images(tmp_path, ranks, results.Drawing(drawn, critic), 70)
    first = torch.stack(
        [
            torch.from_numpy(np.array(Image.open(tmp_path / f"images/{i:05d}.png")))
            for i in range(64)
        ]
    ).permute(0, 3, 1, 2)
    assert np.array_equal(np.asarray(Image.open(tmp_path / "grid.png")), pictures.grid(first))


def test_the_noise_is_not_that_of_the_evaluations_which_chose_the_checkpoint(
    tmp_path, ranks, critic
):
    purposes = set()
    results.write_images(
        tmp_path,
        ranks,
        results.Drawing(
            lambda numbers, purpose: purposes.add(purpose) or drawn(numbers, purpose), critic
        ),
        20,
    )
    assert purposes == {"noise/results"}


def test_a_place_that_cannot_be_written_is_an_error_for_the_user(tmp_path, ranks, critic):
    (tmp_path / "images").write_text("in the way")
    with pytest.raises(RunError, match="cannot write .*images"):
        results.write_images(tmp_path, ranks, results.Drawing(drawn, critic), 20)


def test_the_count_of_files_is_a_setting_that_makes_no_other_run():
    few, usual = (wgan_flowers.Settings(data="-", results=count) for count in (10, None))
    assert few.identity("x") == usual.identity("x")
    with pytest.raises(ValueError, match="at least 2 images; 0 writes none"):
        wgan_flowers.Settings(data="-", results=1)
    for count, made in ((None, [9]), (10, [10]), (0, [])):
        asked = []
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(results, "write", lambda *words, asked=asked: asked.append(words[4]))
            recipe = SimpleNamespace(
                run=wgan_flowers.Settings(data="-", results=count), sample=None, players={}
            )
            wgan_flowers.Recipe.results(
                recipe, SimpleNamespace(train=range(7), validation=range(2)), None, None
            )
        assert asked == made
