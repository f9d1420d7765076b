"""A diagonal of sizes, channels and recipes; tests/nightly/test_every_size.py has the matrix."""

import json

import pytest
import shard_sets
from sizes import compare


@pytest.mark.parametrize(
    ("recipe", "size", "channels"),
    [
        ("sagan", (16, 16), 1),
        ("r3gan", (32, 32), 3),
        ("wgan_flowers", (64, 128), 1),
        ("sagan", (128, 128), 3),
    ],
)
def test_networks_follow_the_size_of_the_images(recipe, size, channels, tmp_path):
    folder = shard_sets.images(tmp_path / "data", 8, size=size, channels=channels)
    assert json.loads((folder / "dataset.json").read_text())["samples"]["train"] == 8
    name, difference = compare(recipe, folder, "machine.accumulation=2")
    assert name == f"{recipe} at {size[1]}x{size[0]} x{channels}" and not difference
