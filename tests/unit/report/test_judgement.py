"""The sentence below the table of scores: right about equal and about different sets, and honest
where it cannot tell.
"""

import pytest
import torch

from distgan.evaluation.image_scores import SetStatistics, compare
from distgan.report.judgement import ALIKE, judgement, score_table

MADE = {"made_with": {"extractor": "x", "preprocessing": "none", "path": "features"}}
KNOWN = {
    "metric": "frechet_x",
    "score": 5.0,
    "score_sd": 0.5,
    "samples": 400,
    "reals": 200,
    "floor": {"samples": 100, "real": {"score": 8.0}, "generated": {"score": 9.0}},
}


def scored(seed: int, shift: float = 0.0, n: int = 100, **more) -> dict:
    """Scores of n Gaussian samples against 120 others of 12 features."""
    draw = torch.Generator().manual_seed(seed)
    real, fake = torch.randn(120, 12, generator=draw), torch.randn(n, 12, generator=draw) + shift
    sets = SetStatistics(120, 120, real), SetStatistics(n, 0, fake)
    metrics = more.get("metrics", ("frechet", "kernel"))
    result = compare(*sets, metrics, ("frechet_x", "kernel_x"), 120, 0, True)
    return result | {"samples": n, "reals": 120}


@pytest.mark.parametrize("metrics", [("frechet",), ("frechet", "kernel")])
def test_equal_sets_show_no_difference_and_others_do(metrics):
    name = "kernel_x is" if "kernel" in metrics else "frechet_x of 60 samples is"
    said = [judgement(scored(seed, metrics=metrics)) for seed in range(40)]
    assert sum("show no difference" in one for one in said) >= 38
    assert all(one.startswith(name) for one in said)
    assert all("tell the samples" in judgement(scored(i, 1.0, metrics=metrics)) for i in range(10))


def test_copies_are_below_the_floor():
    real = torch.randn(120, 12, generator=torch.Generator().manual_seed(0))
    sets = SetStatistics(120, 120, real), SetStatistics(120, 0, real)
    result = compare(*sets, ("frechet", "kernel"), ("frechet_x", "kernel_x"), 120, 0, True)
    said = judgement(result | {"samples": 120, "reals": 120})
    assert "below its floor, 0 for equal sets: the sets are more alike" in said


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({}, "frechet_x of 100 samples is 0.7 standard deviations above its floor: these features"),
        (
            {"kernel_x": 0.3, "kernel_x_sd": 0.1, "kernel_x_interval": [0.1, 0.5]},
            "kernel_x is 3.0 standard deviations above its floor, 0 for equal sets: these features"
            " tell the samples",
        ),
        (
            {"kernel_x": 0.3, "kernel_x_sd": 0.1, "kernel_x_interval": [0.0, 0.5]},
            "kernel_x is 3.0 standard deviations above its floor, 0 for equal sets: these features"
            " show no difference of 400 samples",
        ),
        (
            {
                "kernel_x": -0.3,
                "kernel_x_sd": 0.1,
                "kernel_x_interval": None,
                "reasons": {"kernel_x_interval": f"{ALIKE} than independent draws"},
            },
            "kernel_x is 3.0 standard deviations below its floor, 0 for equal sets: the sets are",
        ),
        (
            {"kernel_x": -0.3, "kernel_x_sd": 0.1, "kernel_x_interval": None},
            "frechet_x of 100 samples is 0.7",
        ),
        ({"kernel_x": 0.3, "kernel_x_sd": None}, "frechet_x of 100 samples is 0.7"),
        ({"score_sd": None}, "not judged: no standard deviation is known"),
        ({"score_sd": 0.0}, "not judged: no standard deviation"),
        ({"floor": None}, "not judged: no standard deviation"),
        ({"score": float("nan"), "score_sd": float("nan")}, "not judged: no standard deviation"),
        ({"samples": 12}, "not judged: fewer than 16"),
        ({"reals": None}, "not judged: fewer than 16"),
        ({"metric": "frechet_unverified"}, "not judged: without the images of both sides"),
    ],
)
def test_it_says_when_it_cannot_tell(change, said):
    assert judgement(KNOWN | change).startswith(said)


def test_the_table_has_a_direction_for_every_number():
    more = {"nearest": None, "coverage": 0.5, "noise": "noise/results"}
    heads, rows, notes = score_table(scored(0) | more | MADE)
    assert "the samples are drawn from other noise than those scored" in " ".join(notes)
    assert heads[:4] == ("100 samples, 120 real samples", "better", "score", "sd")
    assert heads[4:] == ("60 samples", "floor: 60 real samples")
    assert [row[:2] for row in rows] == [
        ("frechet_x", "lower ↓"),
        ("kernel_x", "lower ↓"),
        ("coverage", "higher ↑"),
        ("nearest", "near 1"),
    ]
    assert notes[0].startswith("kernel_x is") and "against" in notes[1]
