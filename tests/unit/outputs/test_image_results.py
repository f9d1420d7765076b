"""Results of images: the grid, the noise, the count, names and formats of files."""

import csv
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from distgan.config.sections import Machine, ResultFiles
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


@pytest.mark.parametrize("channels", [1, 3])
def test_jpeg_files_are_scored_as_they_are_read(tmp_path, ranks, critic, channels):
    kind = ResultFiles(pattern="fake{i}.jpg", quality=60)
    drawing = results.Drawing(lambda *given: drawn(*given, channels), critic, format=kind)
    features = results.write_images(
        tmp_path, ranks, drawing, 20, lambda images: images.float().mean((1, 2, 3))[:, None]
    )
    with open(tmp_path / "result.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["file_name"] for row in rows] == [f"images/fake{i}.jpg" for i in range(20)]
    assert len(list((tmp_path / "images").iterdir())) == 20
    for row, seen in zip(rows, features[:, 0].tolist(), strict=True):
        with Image.open(tmp_path / row["file_name"]) as image:
            assert (image.format, image.mode) == ("JPEG", "L" if channels == 1 else "RGB")
            mean = np.asarray(image).astype(float).mean()
        assert seen == pytest.approx(mean, abs=1e-3)
        assert float(row["critic_score"]) == pytest.approx(100 * (mean / 127.5 - 1), abs=1e-3)


@pytest.mark.parametrize(
    ("pattern", "first", "last"),
    [
        (None, "00000.png", "00123.png"),
        ("fake{i}.jpg", "fake0.jpg", "fake123.jpg"),
        ("fake_{i:05}.jpeg", "fake_00000.jpeg", "fake_00123.jpeg"),
        ("{i:02}-of-a-set.png", "00-of-a-set.png", "123-of-a-set.png"),
    ],
)
def test_files_are_named_by_a_pattern(pattern, first, last):
    kind = ResultFiles(pattern=pattern)
    assert (kind.name(0, 124), kind.name(123, 124)) == (first, last)
    assert len({kind.name(i, 2000) for i in range(2000)}) == 2000


@pytest.mark.parametrize(
    "pattern",
    [
        *("fake.jpg", "{i}", "{i}.gif", "{i}{i}.png", "{i:0>5}.png", "{i.real}.png", "{0}.png", ""),
        *("../{i}.png", "a/{i}.png", "/{i}.png", "..{i}.png", ".{i}.png", "-{i}.png", "a\\{i}.png"),
        *("é{i}.png", "a {i}.png", "{i}.png\n", "x" * 101 + "{i}.png"),
    ],
)
def test_a_pattern_that_leaves_the_folder_or_repeats_a_name_is_refused(pattern):
    with pytest.raises(ValueError, match="the name of a file, without a folder, with {i} or"):
        ResultFiles(pattern=pattern)


def test_the_table_has_columns_of_ones_own():
    columns = {"Id": "id", "Filename": "base_name", "FID": "score"}
    drawing = results.Drawing(drawn, format=ResultFiles(pattern="fake{i}.jpg", columns=columns))
    rows = [(i, f"images/fake{i}.jpg", "0.5", "ab") for i in range(2)]
    assert results.table(drawing, rows, 41.25) == (
        "Id,Filename,FID\n0,fake0.jpg,41.25\n1,fake1.jpg,41.25\n"
    )
    usual = results.table(results.Drawing(drawn), rows, 41.25)
    assert usual.startswith("id,file_name,critic_score,sha256\n0,images/fake0.jpg,0.5,ab\n")
    for wrong in ({}, {"": "id"}, {"a\nb": "id"}, {"FID": "fid"}):
        with pytest.raises(ValueError, match="columns"):
            ResultFiles(columns=wrong)
    with pytest.raises(ValueError, match="a column of class belongs to conditional=true"):
        wgan_flowers.Settings(data="-", result_files={"columns": {"class": "class"}})


def test_the_count_of_files_is_a_setting_that_makes_no_other_run():
    few, usual = (wgan_flowers.Settings(data="-", results=count) for count in (10, None))
    assert few.identity("x") == usual.identity("x")
    named = wgan_flowers.Settings(data="-", result_files={"pattern": "fake{i}.jpg"})
    assert named.identity("x") == usual.identity("x") and named.delta() == usual.delta()
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
