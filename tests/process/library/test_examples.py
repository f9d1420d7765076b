"""The programs of examples/ run as they are, and print and draw what they say."""

import re
import sys
from pathlib import Path

import pytest
from PIL import Image
from processes import ROOT, run


def example(name: str, *arguments: str) -> str:
    program = str(ROOT / "examples" / f"{name}.py")
    return run([sys.executable, program], *arguments, cwd=Path.cwd(), cold=True)


def size(picture: str) -> tuple[int, int]:
    with Image.open(picture) as image:
        return image.size


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_gaussians_find_all_modes():
    said = example("gaussians", ".")
    modes, near = re.search(r"(\d) of 8 modes, (\d+)% of the samples within", said).groups()
    assert modes == "8" and int(near) > 60
    assert size("gaussians.png")[0] > 300
    assert example("gaussians", ".").count("is finished") == 1


def test_a_conditional_dcgan_draws_ten_classes():
    run([sys.executable, "-m", "distgan"], *"shard shapes d --n 3000".split(), cwd=Path.cwd())
    said = example("conditional_dcgan", "d", "shape", "run")
    score, floor = re.search(r"frechet_\w+ ([\d.]+); of real .* ([\d.]+)$", said, re.M).groups()
    assert float(floor) < float(score) < 6
    assert size("run/classes.png")[1] > 300


def test_outlines_are_filled():
    said = example("image_to_image", "run")
    assert float(re.search(r"mean absolute error ([\d.]+);", said)[1]) < 0.08
    assert size("run/pairs.png")[0] > 200
