"""`distgan check` on pairs of images: what is wrong with either, and with the two together."""

import numpy as np
import pytest
from audits import check, found, write_set
from PIL import Image

from distgan.shards.codecs.image import encode

SIZE = 32


def picture(number: int, size: int = SIZE) -> bytes:
    small = np.random.default_rng(number).integers(0, 256, (7, 7), np.uint8)
    resized = Image.fromarray(small).resize((size, size), Image.Resampling.BICUBIC)
    return encode(np.asarray(resized), "png")[1]


def pair(key: str, given: int | bytes, target: int | bytes) -> dict:
    sides = (picture(side) if isinstance(side, int) else side for side in (given, target))
    return {"__key__": key, **dict(zip(("a.png", "b.png"), sides, strict=True)), "json": b"{}"}


def pair_set(root, *faults: dict, validation: tuple[dict, ...] = ()):
    about = {"kind": "image_pair", "channels": 1, "size": SIZE, "fields": ["a.png", "b.png"]}
    train = [pair(f"t{i}", 2 * i, 2 * i + 1) for i in range(12)]
    held_out = [pair(f"v{i}", 1000 + 2 * i, 1001 + 2 * i) for i in range(4)]
    return write_set(root, [*train, *faults], [*held_out, *validation], about, source="image_pairs")


@pytest.mark.gate
def test_a_clean_set_has_no_findings(tmp_path, capsys):
    code, report = check(pair_set(tmp_path / "data"), "--strict")
    assert (code, report["findings"]) == (0, [])
    assert report["examined"]["kind"] == "image pairs" and report["examined"]["samples"] == 16
    assert {row["check"] for row in report["checks"] if row["of"] == "image pairs"} == {"identical"}
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith("next: distgan new my_gan.py --kind image_pair  # then: distgan train")
    assert (tmp_path / "data" / "audit" / "images.png").is_file()


def test_every_fault_of_a_pair_of_images_is_found(tmp_path):
    root = pair_set(
        tmp_path / "data",
        pair("same", 50, 50),
        pair("broken", 52, b"no image"),
        pair("small", picture(54, 16), 55),
        pair("blank", encode(np.full((SIZE, SIZE), 7, np.uint8), "png")[1], 57),
        pair("twice", 0, 1),  # as t0
        pair("other-input", 58, 3),  # the target of t1: no finding
        validation=(pair("leak", 60, 5),),  # the target of t2
    )
    code, report = check(root)
    assert code == 1
    assert found(report) == [
        ("contrast", "FAIL", "train", "blank"),
        ("duplicate", "WARN", "train", "twice"),
        ("duplicate-leak", "FAIL", "validation", "leak"),
        ("identical", "FAIL", "train", "same"),
        ("range", "WARN", "train", "blank"),
        ("size", "FAIL", "train", "small"),
        ("undecodable", "FAIL", "train", "broken"),
    ]
    details = {finding["key"]: finding["detail"] for finding in report["findings"]}
    assert details["small"] == "input: 16x16 pixels, expected 32x32"
    assert details["broken"].startswith("target: not a PNG")
    assert details["leak"] == "the target of train/t2"
