"""Pairs of images in two folders: matched by name, cut and resized alike, read as one sample."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from shard_sets import contents, shard

from distgan.commands import _repairs
from distgan.config import loading
from distgan.config.batch_layout import fit
from distgan.core.errors import ConfigError, DataError
from distgan.data.dataset import Data
from distgan.data.loader import Stream
from distgan.recipes.sagan import Settings
from distgan.shards.codecs.fitting import to_size


def picture(number: int, width: int = 48, height: int = 32) -> Image.Image:
    """Colour blobs, no two alike."""
    small = np.random.default_rng(number).integers(0, 256, (5, 5, 3), np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)


@pytest.fixture
def folders(tmp_path) -> Path:
    """`before` and `after`: 12 pairs of equal names, the latter of half the size."""
    for i in range(12):
        for side, image in (("before", picture(i)), ("after", picture(100 + i, 24, 16))):
            path = tmp_path / side / "deep" / f"n {i}.{'png' if side == 'before' else 'tif'}"
            path.parent.mkdir(parents=True, exist_ok=True)
            image.save(path)
    return tmp_path


def make(folder: Path, *words: object, out: str = "out", workers: int = 1) -> Path:
    sides = ("--input", folder / "before", "--target", folder / "after")
    assert (
        shard("image_pairs", folder / out, *sides, "--size", "16", "--workers", workers, *words)
        == 0
    )
    return folder / out


def test_both_images_of_a_pair_are_one_sample_cut_and_resized_alike(folders, capsys):
    out = make(folders, "--validation", 0.25)
    said = capsys.readouterr().out
    assert (
        f"next: distgan check {out}\nnext: distgan new my_gan.py --kind image_pair  # then:" in said
    )
    about = json.loads((out / "dataset.json").read_text())
    fields = ["input.png", "target.png"]
    assert about["sample"] == {"kind": "image_pair", "channels": 3, "size": 16, "fields": fields}
    data = Data(str(out))
    assert data.kind == "image_pair" and data.shape == (2, 3, 16, 16)
    assert len(data.train) == 9 and len(data.validation) == 3
    for i in range(9):
        record = json.loads(data.train[i]["json"])
        number = int(record["input"]["file"].split()[1].split(".")[0])
        assert record["target"]["file"] == f"n {number}.tif" and record["input"]["width"] == 48
        both = data.decode(data.train, [i])[0].permute(0, 2, 3, 1).numpy()
        wanted = picture(number), picture(100 + number, 24, 16)
        for found, image in zip(both, wanted, strict=True):
            np.testing.assert_array_equal(found, np.asarray(to_size(image, 16)))


def test_squashed_pairs_are_repaired_from_files_that_are_squashed_alike(folders):
    data = Data(str(make(folders, "--fit", "squash")))
    kind = _repairs.Images(data, lambda x: x, torch.device("cpu"), folders / "before")
    for name, key in ((f"n {i}.png", f"deep/n {i}") for i in range(3)):
        (file,) = kind.files(kind.keys.index(key), 1)
        whole = to_size(Image.open(folders / "before" / "deep" / name), 16, "squash")
        np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(file))), np.asarray(whole))
    assert _repairs.inputs(data, folders / "before").endswith("at 16x16, 3 channels, squash")


@pytest.mark.gate
def test_the_bytes_do_not_depend_on_the_workers_and_one_folder_may_hold_both(folders):
    first = contents(make(folders))
    assert contents(make(folders, out="again", workers=2)) == first
    (folders / "before").rename(folders / "input")
    (folders / "after").rename(folders / "target")
    words = ("--from", folders, "--size", "16", "--workers", 1)
    assert shard("image_pairs", folders / "third", *words) == 0
    tars = {name: digest for name, digest in first.items() if name.endswith(".tar")}
    assert tars.items() <= contents(folders / "third").items()


def test_every_file_without_a_partner_is_named(folders):
    for path in ("before/deep/n 3.png", "after/deep/n 5.tif", "after/deep/n 6.tif"):
        (folders / path).unlink()
    picture(7).save(folders / "after" / "n 7.png")  # at another depth
    with pytest.raises(ConfigError) as caught:
        make(folders)
    lines = str(caught.value).splitlines()
    assert lines[0].startswith("4 files have no partner of the same name")
    named = [line.split(": no file")[0].strip() for line in lines[1:]]
    lone = ("before/deep/n 5.png", "before/deep/n 6.png", "after/deep/n 3.tif", "after/n 7.png")
    assert sorted(named) == sorted(str(folders / path) for path in lone)
    assert not (folders / "out").exists()


def test_what_is_no_pair_is_told_and_what_is_poor_is_reported(folders, capsys):
    picture(1, 30, 30).save(folders / "after" / "deep" / "n 1.tif")
    (folders / "before" / "deep" / "n 2.png").write_bytes(b"no image")
    with pytest.raises(DataError) as caught:
        make(folders)
    text = str(caught.value)
    assert "n 1.png" in text and "input is 48x32 pixels, target 30x30: of another aspect" in text
    assert "n 2.png" in text and "input is unreadable" in text
    picture(3).save(folders / "after" / "deep" / "n 3.tif")
    Image.new("RGB", (24, 16), (9, 9, 9)).save(folders / "after" / "deep" / "n 4.tif")
    out = make(folders, "--drop-unreadable")
    about = json.loads((out / "dataset.json").read_text())
    kept = {one["name"]: one["reason"] for one in about["low_quality_kept"]}
    assert kept["deep/n 3.png"] == "input and target are the same picture"
    assert kept["deep/n 4.png"].startswith("target is blank")
    assert len(kept) == 2 and len(about["left_out"]) == 2


def test_pairs_with_one_target_stay_on_one_side(folders):
    for i in range(1, 12):
        picture(100, 24, 16).save(folders / "after" / "deep" / f"n {i}.png")
        (folders / "after" / "deep" / f"n {i}.tif").unlink()
    with pytest.raises(ConfigError, match="all 12 samples are of one group"):
        make(folders, "--validation", 0.3)


def test_batches_hold_both_and_other_recipes_refuse_them(negatives):
    data = Data(str(negatives))
    for resident in (0, 1 << 30):  # decoded one by one, and kept
        stream = Stream(data, 0, fit(8, 1, 2), 0, torch.device("cpu"), resident_bytes=resident)
        for micro in next(iter(stream)):
            given, target = micro.real.unbind(1)
            assert micro.real.shape == (4, 2, 3, 16, 16) and micro.real.dtype == torch.uint8
            assert torch.equal(target, 255 - given.flip(2))
    with pytest.raises(ConfigError, match="trains on images, this data set holds image pairs"):
        data.require(loading.validate(Settings, {"recipe": "sagan", "data": "x"}))
