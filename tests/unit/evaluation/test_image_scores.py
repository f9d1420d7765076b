"""Scores of each class: of the samples whose class it is, against the real images of the class."""

import numpy as np
import pytest
import torch

from distgan.core import rng
from distgan.evaluation.image_scores import FEWEST, Classes, SetStatistics, by_class, compare
from distgan.report.score_tables import class_scores

NAMES = ("frechet_standin", "kernel_standin")
METRICS = ("frechet", "kernel", "nearest")


def around(numbers: np.ndarray, purpose: str) -> torch.Tensor:
    """Features [n, 5] of classes that lie 3 apart."""
    noise = rng.normal_each(0, purpose, np.arange(len(numbers)), (5,))
    return noise + 3 * torch.from_numpy(numbers)[:, None]


@pytest.fixture
def sets():
    real, drawn = np.arange(190) % 3, np.arange(130) % 3
    real[-10:] = 3  # of which nothing is drawn
    reals = SetStatistics(190, 160, around(real, "real"))
    samples = SetStatistics(130, 0, around(drawn, "drawn"))
    return reals, samples, Classes("kind", ("a", "b", "c", "rare", "none"), real, drawn)


def test_the_samples_of_a_class_are_compared_with_its_real_images(sets):
    real, fake, classes = sets
    found = by_class(real, fake, classes, METRICS, NAMES, 160)
    assert [row["class"] for row in found["rows"]] == ["a", "b", "c"]  # the rare ones are held out
    assert (found["column"], found["features"], found["kernel"]) == ("kind", 5, NAMES[1])
    a = real.features[:160][torch.from_numpy(classes.real[:160] == 1)]
    b = fake.features[torch.from_numpy(classes.samples == 1)]
    alone = compare(
        SetStatistics(len(a), len(a), a),
        SetStatistics(len(b), 0, b),
        ("kernel",),
        NAMES,
        53,
        0,
        False,
    )
    row = found["rows"][1]
    assert (row["reals"], row["samples"], row["floor"]["samples"]) == (53, 43, 26)
    assert {key: row[key] for key in ("score", "floor", *(k for k in alone if "kernel" in k))} == {
        key: value for key, value in alone.items() if key != "metric"
    }
    for one in found["rows"]:
        assert one["floor"]["generated"]["score"] < 3 * one["floor"]["real"]["score"]
    moved = Classes("kind", classes.names, classes.real, (classes.samples + 1) % 3)
    for one in by_class(real, fake, moved, METRICS, NAMES, 160)["rows"]:
        assert one["floor"]["generated"]["score"] > 10 * one["floor"]["real"]["score"]


def test_few_images_of_a_class_have_no_frechet_distance_and_the_table_says_why(sets):
    real, fake, classes = sets
    classes.real[: 3 * 60] = np.repeat([0, 1, 2], [2 * FEWEST, 2 * FEWEST - 1, 117])
    classes.samples[:] = np.repeat([0, 1, 3, 4], [60, 60, 9, 1])
    found = by_class(real, fake, classes, METRICS, NAMES, 190)
    rows = {row["class"]: row for row in found["rows"]}
    assert rows["a"]["floor"]["generated"]["score"] is not None
    for name in ("b", "rare"):
        assert rows[name]["score"] is rows[name]["floor"]["real"]["score"] is None
        assert rows[name][NAMES[1]] is not None and rows[name]["floor"]["real"][NAMES[1]]
    assert (rows["c"]["samples"], rows["none"]["reals"]) == (0, 0)
    assert rows["c"]["floor"] is rows["none"]["floor"] is None
    heads, lines, notes = class_scores({"by_class": found})
    assert heads[:6] == ("kind", "real", "samples", "k", NAMES[0], "floor")
    assert [line[:4] for line in lines] == [
        ("a", 32, 60, 16),
        ("b", 31, 60, 15),
        ("c", 117, 0, None),
        ("rare", 10, 9, 5),
        ("none", 0, 1, None),
    ]
    assert "below 16 against 16, where" in notes[-1] and "mostly bias" not in "".join(notes)
    assert "mostly bias" in class_scores({"by_class": found | {"features": 480}})[2][1]
    without = by_class(real, fake, classes, ("frechet",), NAMES, 190)
    assert len(class_scores({"by_class": without})[0]) == 6
    assert class_scores({}) is None
