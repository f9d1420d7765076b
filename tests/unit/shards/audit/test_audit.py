"""`distgan check` on images.

Every fault that is planted is found, by name; a clean set has no findings.
"""

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from audits import check, found, write_set
from PIL import Image

from distgan.cli import guarded
from distgan.shards.adopt import command as adopt_command
from distgan.shards.audit import command as audit_command
from distgan.shards.audit import images
from distgan.shards.audit.checks import CHECKS
from distgan.shards.audit.findings import Checks
from distgan.shards.audit.images import perceptual_hash
from distgan.shards.audit.shard_integrity import Place
from distgan.shards.codecs.image import encode
from distgan.shards.format.index import load_index

SIZE = 48


def picture(i: int) -> np.ndarray:
    """Random blobs, uint8 [48, 48]: pictures that are not alike."""
    rng = np.random.default_rng(i)
    return np.asarray(
        Image.fromarray(rng.integers(0, 256, (7, 7), np.uint8)).resize(
            (SIZE, SIZE), Image.Resampling.BICUBIC
        )
    )


def png(pixels: np.ndarray) -> bytes:
    return encode(pixels, "png")[1]


def sample(key: str, image: bytes, **about) -> dict:
    return {"__key__": key, "png": image, "json": json.dumps(about).encode()}


def clean(part: int, n: int) -> list[dict]:
    return [
        sample(f"{part}{i:03d}", png(picture(1000 * part + i)), group=f"g{part}{i}")
        for i in range(n)
    ]


def image_set(root: Path, *faults: dict, validation: tuple[dict, ...] = ()) -> Path:
    return write_set(
        root,
        [*clean(0, 20), *faults],
        [*clean(1, 10), *validation],
        {"kind": "image", "channels": 1, "size": SIZE, "field": "png"},
    )


def test_a_clean_set_has_no_findings_and_stays_as_it_was(particles, capsys):
    before = {path: path.read_bytes() for path in particles.rglob("*") if path.is_file()}
    code, report = check(particles, "--strict")
    assert code == 0 and report["findings"] == [] and report["verdict"] == "pass"
    assert report["examined"] == {
        "shards": 2,
        "members": 120,
        "bytes": sum(p.stat().st_size for p in particles.glob("*/*.tar")),
        "kind": "images",
        "samples": 60,
        "of": 60,
    }
    assert {path: path.read_bytes() for path in before} == before
    assert sorted(path.name for path in (particles / "audit").iterdir()) == [
        "audit.json",
        "images.png",
        "statistics.png",
    ]
    lines = capsys.readouterr().out.splitlines()
    line = f"next: distgan run --processes 2 sagan data={particles}"
    assert lines[-1].partition("  # or my_gan.py of your own")[0] == line
    assert any(line.startswith("integrity ok: 2 shards, 120 members") for line in lines)
    assert check(particles)[1] == {**report, "strict": False}  # the audit does not find itself


def test_the_report_says_what_was_checked_against_which_threshold(tmp_path):
    blank = sample("blank", png(np.full((SIZE, SIZE), 7, np.uint8)))
    code, report = check(image_set(tmp_path, blank))
    assert code == 1 and report["verdict"] == "fail"
    assert set(report) == {
        "version",
        "fingerprint",
        "source",
        "sample",
        "verdict",
        "strict",
        "examined",
        "not_graded",
        "checks",
        "findings",
        "versions",
    }
    assert (
        report["fingerprint"] == json.loads((tmp_path / "dataset.json").read_text())["fingerprint"]
    )
    assert set(report["versions"]) == {"distgan", "python", "numpy"}
    assert [row["check"] for row in report["checks"]] == [
        c.name for c in CHECKS if c.of in ("files", "members", "images")
    ]
    row = next(row for row in report["checks"] if row["check"] == "contrast")
    assert row["level"] == "FAIL" and (row["fails"], row["warns"], row["total"], row["share"]) == (
        1,
        0,
        31,
        1 / 31,
    )
    assert row["measured"]["min"] == 0 < row["measured"]["median"] < row["measured"]["max"]
    finding = next(f for f in report["findings"] if f["check"] == "contrast")
    assert (
        finding
        == {
            "check": "contrast",
            "level": "FAIL",
            "split": "train",
            "shard": "train-000002.tar",
            "key": "blank",
            "value": 0.0,
            "threshold": 2,
            "unit": "levels",
            "detail": "",
            "other": "",
        }
        == row["worst"]
    )


def noisy(pixels: np.ndarray) -> np.ndarray:
    return np.clip(pixels + np.random.default_rng(0).normal(0, 5, pixels.shape), 0, 255).astype(
        np.uint8
    )


def jpeg(pixels: np.ndarray) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(encode(pixels, "jpeg")[1])))


FAULTS = {
    "a damaged image": (png(picture(5))[:200], {("undecodable", "FAIL")}),
    "no image": (b"hello", {("undecodable", "FAIL")}),
    "another size": (png(picture(5)[:40]), {("size", "FAIL")}),
    "colour": (png(np.dstack([picture(71), picture(72), picture(73)])), {("mode", "WARN")}),
    "faint": (
        png((100 + picture(70) // 16).astype(np.uint8)),
        {("contrast", "WARN"), ("range", "WARN")},
    ),
    "overexposed": (
        png(np.where(picture(70) < 200, 255, picture(70)).astype(np.uint8)),
        {("saturated", "WARN")},
    ),
    "a copy": (png(picture(3)), {("duplicate", "WARN")}),
    "a noisy copy": (png(noisy(picture(3))), {("near-duplicate", "WARN")}),
    "a brighter copy": (
        png((picture(3) * 0.7 + 50).astype(np.uint8)),
        {("near-duplicate", "WARN")},
    ),
    "a jpeg of it": (png(jpeg(picture(3))), {("near-duplicate", "WARN")}),
}


def test_every_fault_of_an_image_is_found(tmp_path):
    code, report = check(
        image_set(
            tmp_path, *(sample(name.replace(" ", "_"), data) for name, (data, _) in FAULTS.items())
        )
    )
    assert code == 1
    expected = sorted(
        (name, level, "train", key.replace(" ", "_"))
        for key, (_, findings) in FAULTS.items()
        for name, level in findings
    )
    assert found(report) == expected
    assert {path.name for path in (tmp_path / "audit").glob("*.png")} == {
        "images.png",
        "statistics.png",
        "flagged.png",
        "duplicates.png",
    }
    assert (
        next(f for f in report["findings"] if f["check"] == "near-duplicate")["other"]
        == "train/0003"
    )


def test_a_training_image_in_validation_is_a_fail(tmp_path):
    root = image_set(
        tmp_path,
        validation=(sample("copy", png(picture(3))), sample("almost", png(noisy(picture(4))))),
    )
    code, report = check(root)
    assert code == 1 and found(report) == [
        ("duplicate-leak", "FAIL", "validation", "copy"),
        ("near-leak", "FAIL", "validation", "almost"),
    ]
    assert [f["other"] for f in report["findings"]] == ["train/0003", "train/0004"]


@pytest.mark.parametrize("exact", [4000, 16])
def test_near_duplicates_are_found_by_all_pairs_and_by_hashing(monkeypatch, exact):
    """Of 300 images, number i + 150 is a copy of i."""
    monkeypatch.setattr(images, "EXACT", exact)
    looks = [
        images.ImageReport(
            Place("train", Path("t.tar"), i, str(i)),
            {},
            {"range": 255.0},
            str(i).encode(),
            perceptual_hash(blocks),
            blocks.tobytes(),
        )
        for i in range(300)
        for blocks in [picture(i % 150)[:32, :32]]
    ]
    found = images.findings(looks, Checks(["contrast=-,-", "saturated=-,-", "range=-,-"]))
    assert [(f.check, f.key, f.other) for f in found] == [
        ("near-duplicate", str(i + 150), f"train/{i}") for i in range(150)
    ]


def test_hashing_finds_what_comparing_all_pairs_finds(monkeypatch):
    """Of 3,000 hashes, 500 are copies with up to 8 bits changed, a third in the other split."""
    rng = np.random.default_rng(0)
    hashes = rng.integers(0, 2**64, 3000, dtype=np.uint64)
    for i in range(2500, 3000):
        changed = rng.choice(64, i % 9, replace=False).astype(np.uint64)
        hashes[i] = hashes[i - 2500] ^ np.bitwise_or.reduce(np.uint64(1) << changed, initial=0)
    splits = (np.arange(3000) % 3 == 0).astype(np.int8)
    every = images.nearest(hashes, splits)
    monkeypatch.setattr(images, "EXACT", 0)
    for exact, hashed in zip(every, images.nearest(hashes, splits), strict=True):
        assert (exact < images.NONE).sum() > 100
        np.testing.assert_array_equal(exact, hashed)


@pytest.mark.gate
def test_what_is_gone_leaves_no_picture(tmp_path):
    root = image_set(tmp_path, sample("blank", png(np.zeros((SIZE, SIZE), np.uint8))))
    assert check(root)[0] == 1 and (root / "audit/flagged.png").exists()
    code, report = check(root, "--threshold", "contrast=-,-", "--threshold", "range=-,-")
    assert code == 0 and report["findings"] == [] and not (root / "audit/flagged.png").exists()


def test_exit_codes(tmp_path, no_pictures, capsys):
    root = image_set(tmp_path / "data", sample("copy", png(picture(3))))
    assert check(root)[0] == 0
    assert check(root, "--strict")[0] == 1
    for wrong in (
        ["--workers", "0"],
        ["--limit", "0"],
        ["--threshold", "delay"],
        ["--threshold", "dellay=1,2"],
        ["--threshold", "size=1,2"],
        ["--threshold", "delay=nan,1"],
        ["--threshold", "delay=1,inf"],
    ):
        assert guarded(audit_command.main, [str(root), *wrong]) == 2
    assert guarded(audit_command.main, [str(tmp_path / "nothing")]) == 2
    (tmp_path / "empty").mkdir()
    assert guarded(audit_command.main, [str(tmp_path / "empty")]) == 2
    (tmp_path / "file").touch()
    assert guarded(audit_command.main, [str(root), "--out", str(tmp_path / "file")]) == 2
    errors = capsys.readouterr().err
    for text in (
        "no such folder; make it with `distgan shard",
        "no shards in",
        "choose another folder: distgan check",
        "no check 'dellay' has thresholds; there are: active,",
    ):
        assert text in errors


def test_a_false_size_is_one_finding(tmp_path, no_pictures, capsys):
    """It would be the size of an array before anything is decoded."""
    root = image_set(tmp_path / "set")
    about = json.loads((root / "dataset.json").read_text())
    about["sample"]["size"] = 10**9
    (root / "dataset.json").write_text(json.dumps(about))
    assert guarded(audit_command.main, [str(root)]) == 1
    out, err = capsys.readouterr()
    assert "sample: size 1000000000" in out + err and "Traceback" not in out + err


def test_limit_looks_into_some_samples_and_says_so(tmp_path, no_pictures, capsys):
    code, report = check(image_set(tmp_path), "--limit", "5")
    assert code == 0 and report["examined"]["samples"] == 10 and report["examined"]["members"] == 60
    assert "examined 10 of 30 images, drawn at random (--limit)" in capsys.readouterr().out


def test_help_prints_every_threshold(capsys):
    with pytest.raises(SystemExit):
        audit_command.main(["--help"])
    text = capsys.readouterr().out
    for line in (
        "  delay           > 0.5    > 2      samples",
        "  contrast        < 5      < 2      levels",
        "  sha256          -        any",
    ):
        assert line in text


def change(path: Path, at: int, new: bytes) -> None:
    data = path.read_bytes()
    path.write_bytes(data[:at] + new + data[at + len(new) :])


def damage_member(root: Path) -> None:
    change(
        root / "train/train-000001.tar",
        load_index(root / "train/train-000001.tar")["files"]["0012.png"]["offset"] + 60,
        b"\0\0\0",
    )


def damage_header(root: Path) -> None:
    change(
        root / "train/train-000001.tar",
        load_index(root / "train/train-000001.tar")["files"]["0012.png"]["offset"] - 512 + 20,
        b"x",
    )


def truncate(root: Path) -> None:
    shard = root / "train/train-000001.tar"
    os.truncate(shard, load_index(shard)["files"]["0019.json"]["offset"] + 100)


def edit(path: Path, **values) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def rename_in_index(root: Path) -> None:
    """An index of these very bytes that names a member otherwise."""
    path = root / "train/train-000001.json"
    path.write_text(path.read_text().replace('"0012.', '"00xx.'))


DAMAGES = {
    "a member": (damage_member, {("sha256", ""), ("crc32", "0012")}),
    "a header": (damage_header, {("sha256", ""), ("header", "0012")}),
    "cut": (truncate, {("shard", ""), ("sha256", ""), ("crc32", "0019")}),
    "no shard": (lambda root: (root / "train/train-000001.tar").unlink(), {("shard", "")}),
    "no index": (lambda root: (root / "train/train-000001.json").unlink(), {("index", "")}),
    "another index": (
        lambda root: (root / "train/train-000001.json").write_bytes(
            (root / "train/train-000000.json").read_bytes()
        ),
        {("index", "")},
    ),
    "other names": (rename_in_index, {("header", "00xx")}),
}


@pytest.fixture
def no_pictures(monkeypatch):
    """They take half a second."""
    monkeypatch.setattr(audit_command._Quality, "draw", lambda *_: [])


@pytest.mark.parametrize("name", DAMAGES)
def test_damage_is_a_finding_with_shard_and_key_and_the_rest_is_still_examined(
    tmp_path, no_pictures, name
):
    """A blank image in the shard after the damaged one is found all the same."""
    root = image_set(tmp_path, sample("blank", png(np.zeros((SIZE, SIZE), np.uint8))))
    do, expected = DAMAGES[name]
    do(root)
    code, report = check(root)
    integrity = [
        f
        for f in report["findings"]
        if f["check"] in {c.name for c in CHECKS if c.of in ("files", "members")}
    ]
    assert code == 1 and {(f["check"], f["key"]) for f in integrity} == expected
    assert {(f["level"], f["split"], f["shard"]) for f in integrity} == {
        ("FAIL", "train", "train-000001.tar")
    }
    assert "blank" in [f["key"] for f in report["findings"]]
    assert [f["check"] for f in report["findings"] if f["shard"] != "train-000001.tar"] == [
        "contrast",
        "range",
    ]


def test_the_byte_of_the_damage_is_told(tmp_path, no_pictures):
    root = image_set(tmp_path)
    offset, size = (
        load_index(root / "train/train-000001.tar")["files"]["0012.png"][name]
        for name in ("offset", "size")
    )
    damage_member(root)
    damage_header(root)
    details = [f["detail"] for f in check(root)[1]["findings"]]
    assert f"0012.png at bytes {offset}..{offset + size}: not what was written" in details
    assert f"header at byte {offset - 512} of 0012.png: bad checksum" in details


FILES = {
    "unfinished": (lambda root: edit(root / "dataset.json", complete=False), ("dataset", "FAIL")),
    "of another run": (
        lambda root: edit(root / "dataset.json", fingerprint="0" * 16),
        ("dataset", "FAIL"),
    ),
    "another number": (
        lambda root: edit(root / "dataset.json", samples={"train": 19, "validation": 10}),
        ("dataset", "FAIL"),
    ),
    "no dataset.json": (lambda root: (root / "dataset.json").unlink(), ("dataset", "FAIL")),
    "no sample": (lambda root: edit(root / "dataset.json", sample={}), ("dataset", "FAIL")),
    "another kind": (
        lambda root: edit(root / "dataset.json", sample={"kind": "imagf"}),
        ("dataset", "FAIL"),
    ),
    "no manifest": (lambda root: (root / "train/manifest.json").unlink(), ("manifest", "FAIL")),
    "no sums": (lambda root: (root / "train/SHA256SUMS").unlink(), ("sums", "FAIL")),
    "wrong sums": (lambda root: change(root / "train/SHA256SUMS", 70, b"x"), ("sums", "FAIL")),
    "left-over": (
        lambda root: (root / "train/train-000009.tar.tmp123").touch(),
        ("left-over", "WARN"),
    ),
    "stray": (lambda root: (root / "train/notes.txt").touch(), ("stray", "WARN")),
    "stray tar": (
        lambda root: (root / "validation/validation-000009.tar").touch(),
        ("stray", "WARN"),
    ),
}


def test_a_set_of_an_unknown_kind_is_examined_as_files(tmp_path, capsys):
    root = write_set(
        tmp_path,
        [{"__key__": "a", "txt": b"1"}],
        [{"__key__": "b", "txt": b"2"}],
        {"kind": "unknown"},
    )
    code, report = check(root)
    assert code == 0 and report["examined"]["kind"] == "none" and report["examined"]["members"] == 2
    assert [(finding["check"], finding["level"]) for finding in report["findings"]] == [
        ("unseen", "WARN")
    ]
    out = capsys.readouterr().out
    assert "WARN  unseen" in out and out.splitlines()[-1].startswith("next: ")


def test_tars_that_others_made(tmp_path, no_pictures, capsys):
    """All in one folder, divided by `distgan index`; then one is damaged."""
    root = image_set(tmp_path / "made")
    (tmp_path / "theirs").mkdir()
    for tar in root.glob("*/*.tar"):
        tar.rename(tmp_path / "theirs" / tar.name)
    assert guarded(adopt_command.main, [str(tmp_path / "theirs")]) == 0
    code, report = check(tmp_path / "theirs", "--strict")
    assert (
        code == 0
        and report["findings"] == []
        and report["examined"]["shards"] == 3
        and report["examined"]["samples"] == 30
    )
    change(tmp_path / "theirs/train-000001.tar", 514, b"xyz")
    code, report = check(tmp_path / "theirs")
    assert code == 1 and {(f["check"], f["shard"]) for f in report["findings"]} == {
        ("sha256", "train-000001.tar"),
        ("crc32", "train-000001.tar"),
    }
    last = capsys.readouterr().out.splitlines()[-1]
    assert (
        last == "next: restore or replace the files named above; then: distgan index"
        f" {tmp_path / 'theirs'}"
    )


@pytest.mark.parametrize(
    ("source", "kind", "verdict", "text"),
    [
        ("index", "images", "fail", "write those tars again, and index them: distgan index root"),
        ("index", "none", "pass", "distgan index root, which prints how to continue"),
        ("audio", "pairs", "pass", "distgan run --processes 2 timbre data=root"),
        ("images", "images", "pass", "distgan run --processes 2 sagan data=root"),
        ("images", "images", "fail", "shard it again"),
    ],
)
def test_the_next_line_is_one_that_works(source, kind, verdict, text):
    sample = {"kind": kind.removesuffix("s"), "size": 64}
    report = {"source": source, "sample": sample, "examined": {"kind": kind}, "verdict": verdict}
    (line,) = audit_command._next(Path("root"), report, [], [])
    assert text in line
    if text.endswith("sagan data=root"):
        sample["size"] = [64, 65]
        (line,) = audit_command._next(Path("root"), report, [], [])
        assert "the shorter side must be 16, 32" in line


def test_rectangles_are_examined_and_drawn(tmp_path):
    def wide(i: int, height: int = 32) -> bytes:
        return png(picture(i)[:height])

    root = write_set(
        tmp_path,
        [sample(f"a{i}", wide(i)) for i in range(4)] + [sample("odd", wide(9, 31))],
        [sample("b", wide(20)), sample("copy", wide(3))],
        {"kind": "image", "channels": 1, "size": [32, SIZE], "field": "png"},
    )
    code, report = check(root)
    assert (code, found(report)) == (
        1,
        [("duplicate-leak", "FAIL", "validation", "copy"), ("size", "FAIL", "train", "odd")],
    )
    size = next(finding for finding in report["findings"] if finding["check"] == "size")
    assert size["detail"] == "48x31 pixels, expected 48x32"
    assert (root / "audit" / "flagged.png").is_file()


@pytest.mark.parametrize("name", FILES)
def test_files_that_do_not_fit_together_are_found(tmp_path, no_pictures, name):
    root = image_set(tmp_path)
    do, expected = FILES[name]
    do(root)
    code, report = check(root)
    assert {(f["check"], f["level"]) for f in report["findings"]} == {expected}
    assert code == (expected[1] == "FAIL")


def test_groups_and_keys_on_both_sides(tmp_path, no_pictures):
    code, report = check(
        image_set(
            tmp_path,
            validation=(
                sample("0003", png(picture(88)), group="own"),
                sample("k", png(picture(99)), group="g04"),
            ),
        )
    )
    assert code == 1 and found(report) == [
        ("group-leak", "FAIL", "validation", "k"),
        ("key-repeated", "WARN", "validation", "0003"),
    ]


@pytest.mark.gate
def test_workers_find_the_same(tmp_path, no_pictures):
    root = image_set(
        tmp_path, *(sample(name.replace(" ", "_"), data) for name, (data, _) in FAULTS.items())
    )
    damage_member(root)
    reports = [check(root, "--workers", str(workers))[1] for workers in (1, 2)]
    assert reports[0] == reports[1]


@pytest.mark.gate
def test_the_command(tmp_path):
    root = image_set(tmp_path)
    run = subprocess.run(
        [
            sys.executable,
            "-c",
            "from distgan.cli import main; main()",
            "check",
            str(root),
            "--workers",
            "1",
            "--out",
            str(tmp_path / "a"),
        ],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(audit_command.__file__).parents[3])},
    )
    # No recipe trains on images of this size, so none is named.
    last = run.stdout.splitlines()[-1]
    assert run.returncode == 0 and last.startswith("next: make images of a size that recipes train")
    assert (tmp_path / "a/audit.json").is_file() and not (root / "audit").exists()
