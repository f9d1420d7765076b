"""The images source: any size, mode and bit depth comes out right, and what is not good is reported
by name.
"""

import io
import json
import os
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from distgan.core.errors import ConfigError, DataError
from distgan.core.file_tree import find_files, keys_of, shown
from distgan.shards.build.command import command_of
from distgan.shards.codecs import image as image_codec
from distgan.shards.codecs.image_files import EXTENSIONS
from distgan.shards.sources.images import Source


def source(folder: Path, **changes) -> Source:
    return Source(
        Namespace(
            **{
                "folder": str(folder),
                "size": 8,
                "channels": None,
                "range": None,
                "payload": "png",
                "labels": None,
                "fit": "crop",
                **changes,
            }
        )
    )


def made(folder: Path, **changes) -> dict[str, np.ndarray]:
    """Key -> uint8 array of every readable image."""
    images = source(folder, **changes)
    broken = {finding.sample for finding in images.check(1).issues if not finding.usable}
    samples = [images.make(i) for i in range(len(images.keys)) if i not in broken]
    return {
        sample["__key__"]: np.asarray(Image.open(io.BytesIO(sample["png"]))) for sample in samples
    }


def halves(left, right, size: int = 8, dtype=np.uint8) -> np.ndarray:
    """[size, size(, channels)]: `left` in the left half, `right` in the right."""
    rows = [left] * (size // 2) + [right] * (size // 2)
    return np.array([rows] * size, dtype=dtype)


def noise(seed: int, shape=(8, 8), dtype=np.uint8) -> np.ndarray:
    return np.random.default_rng(seed).integers(
        0, np.iinfo(dtype).max, shape, dtype=dtype, endpoint=True
    )


@pytest.mark.parametrize("name", ["a.png", "a.bmp", "a.tif", "a.PNG", "a.pgm"])
def test_8_bit_gray_of_the_right_size_is_kept_exactly(tmp_path, name):
    Image.fromarray(noise(0)).save(tmp_path / name)
    np.testing.assert_array_equal(made(tmp_path)["a"], noise(0))


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.pgm"])
def test_16_bits_are_scaled_by_the_full_range(tmp_path, name):
    """65535 -> 255, 32768 -> 127.5 -> 128, 12850 = 50 * 257 -> 50.

    Not stretched to the range of the image.
    """
    Image.fromarray(
        np.array([[65535, 32768, 12850, 0]] * 4, dtype=np.uint16).repeat(2, 0).repeat(2, 1)
    ).save(tmp_path / name)
    np.testing.assert_array_equal(made(tmp_path)["a"][0], [255, 255, 128, 128, 50, 50, 0, 0])


def test_big_endian_16_bit_tiff(tmp_path):
    values = noise(1, dtype=np.uint16)
    Image.frombytes("I;16B", (8, 8), values.astype(">u2").tobytes()).save(tmp_path / "a.tiff")
    np.testing.assert_array_equal(made(tmp_path)["a"], np.rint(values / 257).astype(np.uint8))


@pytest.mark.parametrize("dtype", [np.int32, np.float32])
def test_32_bits_are_scaled_by_the_stated_range_and_clipping_is_said(tmp_path, dtype):
    """-1000 -> 0, 4100 -> 255, so 20 to a level: 80 -> 54, 1000 -> 100."""
    Image.fromarray(np.array([[-1000, 80, 1000, 4100]] * 8, dtype).repeat(2, 1)).save(
        tmp_path / "a.tif"
    )
    Image.fromarray(np.array([[-5000, 80, 1000, 9000]] * 8, dtype).repeat(2, 1)).save(
        tmp_path / "b.tif"
    )
    images = made(tmp_path, range=[-1000.0, 4100.0])
    for key in "ab":
        np.testing.assert_array_equal(images[key][0], [0, 0, 54, 54, 100, 100, 255, 255])
    notes = source(tmp_path, range=[-1000.0, 4100.0]).check(1).notes
    assert (
        "values outside --range -1000 4100 were clipped in 1 images, most in b.tif: 50.00% of its"
        " values" in notes
    )


def test_a_wild_value_is_clipped_before_its_neighbours_see_it(tmp_path):
    values = noise(1, (32, 32)).astype(np.float32)
    for name, wild in (("a", 1e9), ("b", 255)):
        values[16, 16] = wild
        Image.fromarray(values).save(tmp_path / f"{name}.tif")
    images = made(tmp_path, range=[0.0, 255.0])
    np.testing.assert_array_equal(images["a"], images["b"])


def test_the_stated_range_is_for_more_than_8_bits(tmp_path):
    Image.fromarray(noise(0)).save(tmp_path / "a.png")
    twelve = noise(1, dtype=np.uint16) // 16
    Image.fromarray(twelve).save(tmp_path / "b.png")
    images = made(tmp_path, range=[0.0, 4095.0])
    np.testing.assert_array_equal(images["a"], noise(0))
    np.testing.assert_array_equal(images["b"], np.rint(twelve * (255 / 4095)).astype(np.uint8))
    assert made(tmp_path)["b"].max() <= 16


def test_pixels_that_are_not_finite_are_refused(tmp_path):
    Image.fromarray(np.full((8, 8), np.nan, np.float32)).save(tmp_path / "nan.tif")
    (finding,) = source(tmp_path, range=[0.0, 1.0]).check(1).issues
    assert "some pixels are not finite numbers" in finding.reason and not finding.usable


@pytest.mark.parametrize(
    "limits", [[1.0, 1.0], [2.0, 1.0], [0.0, float("inf")], [float("nan"), 1.0]]
)
def test_wrong_ranges_are_refused(tmp_path, limits):
    with pytest.raises(ConfigError, match="--range.*: two finite numbers, the lower first"):
        command_of("images").parse(["OUT", "--from", str(tmp_path), "--range", *map(str, limits)])


@pytest.mark.parametrize(("payload", "field"), [("jpeg", "jpg"), ("raw", "npy")])
@pytest.mark.parametrize("shape", [(8, 8), (8, 8, 3)])
def test_other_payloads_hold_the_same_pixels(tmp_path, payload, field, shape):
    Image.fromarray(np.add.outer(np.arange(8) * 9, noise(0, shape[1:]) // 2).astype(np.uint8)).save(
        tmp_path / "a.png"
    )
    images = source(tmp_path, payload=payload)
    images.check(1)
    assert images.sample["field"] == field and images.options["payload"] == payload
    sample = images.make(0)
    assert set(sample) == {"__key__", field, "json"}
    pixels = np.zeros((8, 8, images.channels), np.uint8)
    image_codec.decode(sample[field], field, pixels)
    assert np.abs(pixels.reshape(shape).astype(int) - made(tmp_path)["a"]).max() <= (
        8 if payload == "jpeg" else 0
    )


def test_a_dim_16_bit_image_stays_dim(tmp_path):
    Image.fromarray(noise(1, dtype=np.uint16) // 16).save(tmp_path / "a.png")
    assert made(tmp_path)["a"].max() <= 16


def test_alpha_is_composited_on_black(tmp_path):
    """Opaque white stays 255, white at alpha 51 (a fifth) becomes 51, invisible red becomes
    black.
    """
    Image.fromarray(halves((255, 255, 255, 255), (255, 255, 255, 51)), "RGBA").save(
        tmp_path / "a.png"
    )
    Image.fromarray(halves((255, 0, 0, 255), (255, 0, 0, 0)), "RGBA").save(tmp_path / "b.png")
    Image.fromarray(halves((200, 255), (200, 0)), "LA").save(tmp_path / "c.png")
    images = made(tmp_path)
    np.testing.assert_array_equal(images["a"][0, :, 0], [255] * 4 + [51] * 4)
    np.testing.assert_array_equal(images["b"][0], [(255, 0, 0)] * 4 + [(0, 0, 0)] * 4)
    np.testing.assert_array_equal(images["c"][0, :, 1], [200] * 4 + [0] * 4)


def test_invisible_colours_do_not_bleed_when_resized(tmp_path):
    Image.fromarray(halves((0, 0, 255, 255), (255, 0, 0, 0), 32), "RGBA").save(tmp_path / "a.png")
    assert made(tmp_path)["a"][..., 0].max() == 0, "no red"


def test_palettes_with_and_without_transparency(tmp_path):
    plain = Image.fromarray(halves(0, 1), "P")
    plain.putpalette([10, 20, 30, 200, 150, 100])
    plain.save(tmp_path / "a.png")
    plain.save(tmp_path / "b.png", transparency=1)
    images = made(tmp_path)
    np.testing.assert_array_equal(images["a"][3], [(10, 20, 30)] * 4 + [(200, 150, 100)] * 4)
    np.testing.assert_array_equal(images["b"][3], [(10, 20, 30)] * 4 + [(0, 0, 0)] * 4)


def test_bilevel_and_cmyk(tmp_path):
    Image.fromarray(halves(0, 255)).convert("1").save(tmp_path / "a.png")
    Image.new("CMYK", (8, 8), (0, 255, 255, 0)).save(tmp_path / "b.tif")
    images = made(tmp_path)
    np.testing.assert_array_equal(images["a"][0, :, 0], [0] * 4 + [255] * 4)
    np.testing.assert_array_equal(images["b"][0, 0], (255, 0, 0))


@pytest.mark.parametrize(
    ("orientation", "turned"),
    [
        (1, lambda a: a),
        (2, np.fliplr),
        (3, lambda a: np.rot90(a, 2)),
        (6, lambda a: np.rot90(a, -1)),
        (8, np.rot90),
    ],
)
def test_exif_orientation_is_applied(tmp_path, orientation, turned):
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(noise(2)).save(tmp_path / "a.png", exif=exif)
    np.testing.assert_array_equal(made(tmp_path)["a"], turned(noise(2)))


def test_the_centre_square_is_cut_out(tmp_path):
    wide = noise(3, (8, 20))
    Image.fromarray(wide).save(tmp_path / "a.png")
    Image.fromarray(wide.T.copy()).save(tmp_path / "b.png")
    images = made(tmp_path)
    np.testing.assert_array_equal(images["a"], wide[:, 6:14])
    np.testing.assert_array_equal(images["b"], wide.T[6:14])


def test_reduction_does_not_alias(tmp_path):
    """Stripes finer than a pixel of the result become their mean.

    Without a widening filter they would become black, white or moiré.
    """
    Image.fromarray(np.tile(np.array([0, 255], np.uint8), (128, 64))).save(tmp_path / "a.png")
    assert np.ptp(made(tmp_path)["a"][:, 1:-1].astype(int)) <= 2
    assert made(tmp_path)["a"].mean() == pytest.approx(127.5, abs=2)


def test_the_number_of_channels_follows_the_pixels_not_the_mode(tmp_path):
    gray = noise(4)
    Image.fromarray(np.stack([gray] * 3, -1)).save(tmp_path / "a.png")
    assert made(tmp_path)["a"].shape == (8, 8)
    np.testing.assert_array_equal(made(tmp_path)["a"], gray)
    Image.fromarray(noise(5, (8, 8, 3))).save(tmp_path / "b.png")
    assert {image.shape for image in made(tmp_path).values()} == {(8, 8, 3)}
    assert {image.shape for image in made(tmp_path, channels=1).values()} == {(8, 8)}
    images = source(tmp_path)
    assert "1 of 2 images have colour; written as colour" in images.check(1).notes
    assert images.sample == {"kind": "image", "channels": 3, "size": 8, "field": "png"}


def test_metadata_is_that_of_the_file(tmp_path):
    (tmp_path / "sub").mkdir()
    Image.fromarray(noise(6, (10, 30), np.uint16)).save(tmp_path / "sub" / "Ä 1.png")
    images = source(tmp_path)
    images.check(1)
    sample = images.make(0)
    assert sample["__key__"] == "sub_1"
    assert json.loads(sample["json"]) == {
        "file": "sub/Ä 1.png",
        "width": 30,
        "height": 10,
        "mode": "I;16",
    }


def test_every_unreadable_file_is_found_by_name(tmp_path):
    Image.fromarray(noise(7, (64, 64))).save(tmp_path / "good.png")
    whole = (tmp_path / "good.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 1
    (tmp_path / "flipped.png").write_bytes(flipped)
    (tmp_path / "empty.jpg").write_bytes(b"")
    (tmp_path / "text.gif").write_text("not an image")
    Image.fromarray(noise(8).astype(np.float32)).save(tmp_path / "float.tif")
    Image.fromarray(noise(8).astype(np.int32)).save(tmp_path / "int32.tif")
    found = {finding.name: finding for finding in source(tmp_path, size=64).check(1).issues}
    assert set(found) == {
        "cut.png",
        "flipped.png",
        "empty.jpg",
        "text.gif",
        "float.tif",
        "int32.tif",
    }
    assert not any(finding.usable for finding in found.values())
    assert all(finding.reason.startswith("unreadable: ") for finding in found.values())
    assert "mode F have no stated range" in found["float.tif"].reason
    assert str(tmp_path) not in " ".join(finding.reason for finding in found.values())


def test_low_quality_is_found_and_explained(tmp_path):
    Image.fromarray(noise(9, (32, 32))).save(tmp_path / "a_good.png")
    Image.fromarray(noise(9, (32, 32))).convert("RGB").save(tmp_path / "b_again.bmp")
    Image.new("L", (32, 32), 90).save(tmp_path / "blank.png")
    Image.fromarray(noise(10, (15, 40))).save(tmp_path / "tiny.png")
    Image.fromarray(noise(10, (16, 40))).save(tmp_path / "not_tiny.png")
    white = np.full((32, 32), 255, np.uint8)
    white[:1, :16] = 0
    Image.fromarray(white).save(tmp_path / "white.png")
    found = {finding.name: finding for finding in source(tmp_path, size=32).check(1).issues}
    assert {name: finding.reason for name, finding in found.items()} == {
        "b_again.bmp": "duplicate of a_good.png",
        "blank.png": "blank: standard deviation 0.00 of 255 levels, less than 2",
        "tiny.png": "tiny: shorter side 15 pixels, less than 16",
        "white.png": "saturated: 98.4% of the values at the top, more than 95%",
    }
    assert all(finding.usable for finding in found.values())


def test_duplicates_stay_on_one_side_of_the_split(tmp_path):
    for name, seed in (("a.png", 1), ("b.bmp", 1), ("c.png", 2)):
        Image.fromarray(noise(seed)).save(tmp_path / name)
    images = source(tmp_path)
    images.check(1)
    assert images.group(0) == images.group(1) != images.group(2)


def test_the_first_frame_of_several_is_used_and_said(tmp_path):
    frames = [Image.fromarray(noise(seed)) for seed in range(3)]
    frames[0].save(tmp_path / "stack.tif", save_all=True, append_images=frames[1:])
    np.testing.assert_array_equal(made(tmp_path)["stack"], noise(0))
    assert (
        "only the first frame is used of files with several: 1, such as stack.tif"
        in source(tmp_path).check(1).notes
    )


def test_files_are_found_at_any_depth_in_any_case_once(tmp_path):
    for name in (
        "b/c/x.JPeG",
        "b/x.png",
        "A.TIFF",
        "._A.TIFF",
        ".cache/y.png",
        "readme.txt",
        "b/notes",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "b" / "up").symlink_to(tmp_path, target_is_directory=True)
    assert find_files(tmp_path, EXTENSIONS) == (
        ["A.TIFF", "b/c/x.JPeG", "b/x.png"],
        {".txt": 1, "without extension": 1},
    )


def test_keys_are_safe_and_unique():
    files = [
        "cat 1.png",
        "dog.v2.png",
        "a/b.png",
        "a_b.png",
        "../x.png",
        "日本.png",
        "x" * 200 + ".png",
        "__k__.png",
    ]
    keys = keys_of(files)
    assert keys[:2] == ["cat_1", "dog_v2"] and keys[-1] == "k"
    assert len(set(keys)) == len(files)
    assert all(
        key.replace("_", "").replace("-", "").isascii()
        and "." not in key
        and "/" not in key
        and len(key) <= 80
        for key in keys
    )


def test_file_names_that_are_not_utf_8_can_be_shown(tmp_path):
    name = os.fsdecode(b"caf\xe9.png")
    Image.fromarray(noise(1)).save(tmp_path / name)
    assert shown(name) == "caf\\xe9.png"
    images = source(tmp_path)
    images.check(1)
    assert json.loads(images.make(0)["json"])["file"] == "caf\\xe9.png"


def test_an_image_that_another_takes_the_place_of_is_told(tmp_path):
    for k, name in enumerate("ab"):
        Image.fromarray(noise(k)).save(tmp_path / f"{name}.png")
    images = source(tmp_path)
    images.check(1)
    Image.fromarray(noise(7)).save(tmp_path / "a.png")
    with pytest.raises(
        DataError,
        match=(
            "a.png could be read when it was checked, not any more: it was changed in the meantime"
        ),
    ):
        images.make(0)
    assert images.make(1)["__key__"] == "b"


def test_an_image_that_vanishes_after_the_check_is_named(tmp_path):
    Image.fromarray(noise(1)).save(tmp_path / "a.png")
    images = source(tmp_path)
    images.check(1)
    (tmp_path / "a.png").unlink()
    with pytest.raises(DataError, match="a.png could be read when it was checked, not any more"):
        images.make(0)


def test_missing_and_empty_folders_and_wrong_sizes_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="absent: no such folder"):
        source(tmp_path / "absent")
    (tmp_path / "notes.txt").touch()
    with pytest.raises(ConfigError, match=r"has no images \(\.avif.*\), but 1 other files"):
        source(tmp_path)
    with pytest.raises(ConfigError, match="--size: found '4', allowed: 8 to 2,048"):
        command_of("images").parse(["OUT", "--from", "x", "--size", "4"])
