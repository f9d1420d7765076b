"""Sizes of images: `--size`, the crop, and the commands that are named next."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from distgan.core.errors import ConfigError
from distgan.data.dataset import Data
from distgan.shards.build import command as build_command
from distgan.shards.codecs.fitting import to_size
from distgan.shards.format.sample_spec import recipe_for, sample_of


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    (tmp_path / "photos").mkdir()
    for i in range(4):
        pixels = np.random.default_rng(i).integers(0, 256, (40, 72), np.uint8)
        Image.fromarray(pixels).save(tmp_path / "photos" / f"{i}.png")
    return tmp_path / "photos"


def shard(photos: Path, *options: object) -> Path:
    out = photos.parent / f"out{len(list(photos.parent.iterdir()))}"
    line = ["images", out, "--from", photos, "--workers", 1, *options]
    assert build_command.main([str(word) for word in line]) == 0
    return out


@pytest.mark.parametrize(
    ("text", "size", "shape"),
    [("64x32", [32, 64], (1, 32, 64)), ("32x32", 32, (1, 32, 32)), ("9x20", [20, 9], (1, 20, 9))],
)
def test_a_size_is_a_side_or_width_x_height(photos, capsys, text, size, shape):
    out = shard(photos, "--size", text)
    dataset = json.loads((out / "dataset.json").read_text())
    assert dataset["sample"]["size"] == dataset["options"]["size"] == size
    data = Data(str(out))
    assert data.shape == shape
    pixels = np.concatenate([data.decode(part, [0]) for part in (data.train, data.validation)])
    assert pixels.shape == (2, *shape)
    said = capsys.readouterr().out
    assert f"next: distgan check {out}" in said
    assert ("next: distgan run --processes 2 sagan" in said) is (text != "9x20")
    assert ("the shorter side must be 16, 32, 64" in said) is (text == "9x20")
    again = [*("images", out, "--from", photos, "--workers", 1), "--size", "40x64"]
    with pytest.raises(ConfigError, match="made with other options"):
        build_command.main([str(word) for word in again])


@pytest.mark.parametrize("text", ["7", "64x7", "x64", "64x", "64x64x3", "2049", "-64", "٦٤"])
def test_a_wrong_size_is_answered_with_what_is_allowed(photos, text):
    with pytest.raises(
        ConfigError, match=r"--size: .*allowed: 8 to 2,048, or two of them as WIDTH"
    ):
        shard(photos, f"--size={text}")


def test_the_crop_is_the_largest_of_its_aspect_in_the_middle():
    ramp = Image.fromarray(np.tile(np.arange(72, dtype=np.uint8), (40, 1)))
    np.testing.assert_array_equal(np.asarray(to_size(ramp, [40, 20]))[0], np.arange(26, 46))
    np.testing.assert_array_equal(np.asarray(to_size(ramp, [20, 36])).shape, (20, 36))
    upright = Image.fromarray(np.asarray(ramp).T.copy())
    np.testing.assert_array_equal(np.asarray(to_size(upright, [20, 40]))[:, 0], np.arange(26, 46))
    assert to_size(Image.new("L", (2000, 1)), [64, 16]).size == (16, 64), "never empty"


def test_squashed_images_are_whole_and_a_set_keeps_its_fit(photos, capsys):
    out = shard(photos, "--size", 32, "--fit", "squash")
    said = capsys.readouterr().out
    assert "4 of 4 images have another aspect than 32x32 and were squashed to it" in said
    dataset = json.loads((out / "dataset.json").read_text())
    assert dataset["options"]["fit"] == "squash"
    data = Data(str(out))
    whole = {
        np.asarray(Image.open(file).resize((32, 32), Image.Resampling.LANCZOS)).tobytes()
        for file in photos.iterdir()
    }
    for part in (data.train, data.validation):
        pixels = data.decode(part, range(len(part))).numpy()
        assert {image.tobytes() for image in pixels} <= whole
    line = ["images", out, "--from", photos, "--workers", 1, "--size", 32]
    with pytest.raises(ConfigError, match="--fit: squash there, crop now"):
        build_command.main([str(word) for word in line])


def test_a_crop_is_described_and_sets_made_before_the_option_go_on(photos, capsys):
    out = shard(photos, "--size", 32)
    said = capsys.readouterr().out
    assert (
        "4 of 4 images have another aspect than 32x32 and were cut to their centre before they were"
        " resized (--fit crop): of 0.png of 72x40 pixels, 40x40 were kept" in said
    )
    dataset = json.loads((out / "dataset.json").read_text())
    del dataset["options"]["fit"]
    (out / "dataset.json").write_text(json.dumps(dataset))
    line = ["images", out, "--from", photos, "--workers", 1, "--size", 32]
    assert build_command.main([str(word) for word in line]) == 0
    with pytest.raises(ConfigError, match="--fit: crop there, squash now"):
        build_command.main([str(word) for word in [*line, "--fit", "squash"]])
    shard(photos, "--size", "72x40")
    assert "resized to 72x40; all images have that aspect" in capsys.readouterr().out


@pytest.mark.parametrize(
    "size", [[64], [64, 64], [64, 0], [64, True], [64, 1 << 15], [64, "32"], [1, 2, 3], True, "64"]
)
def test_a_damaged_size_is_refused(size):
    dataset = {"version": 1, "sample": {"kind": "image", "channels": 1, "size": size}}
    with pytest.raises(ValueError, match="sample: size"):
        sample_of(dataset)


def test_a_recipe_is_named_where_it_trains():
    for size in (16, 64, 256, [32, 64], [64, 256], [80, 64]):
        assert recipe_for({"kind": "image", "size": size}, "sagan") == "sagan"
    for size in (None, 8, 100, 512, [64, 65], [16, 128]):
        assert recipe_for({"kind": "image", "size": size}, "sagan") is None
    assert recipe_for({"kind": "pair"}, "timbre") == "timbre"
