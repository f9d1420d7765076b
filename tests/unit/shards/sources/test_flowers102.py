"""The flowers102 source on a look-alike of the official files.

Read as torchvision reads them, checked, and refused with the next step.
"""

import copy
import hashlib
import io
import json
import shutil
import tarfile
import tempfile
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest
from flowers import look_alike
from PIL import Image
from scipy.io import savemat
from torchvision.datasets import Flowers102

from distgan.core.errors import ConfigError, DataError
from distgan.shards.build import command as build_command
from distgan.shards.build.command import command_of
from distgan.shards.codecs.fitting import to_size
from distgan.shards.format.labels import labels_of, read_labels
from distgan.shards.format.reader import open_parts
from distgan.shards.sources import flowers102
from distgan.shards.sources.flowers102 import ARCHIVE, LABELS, MD5, PAGE, SETS, Source


def source(folder: Path, **changes) -> Source:
    return Source(
        Namespace(
            **{
                "folder": str(folder),
                "size": 16,
                "fit": "crop",
                "splits": list(flowers102.SPLITS),
                "unofficial": True,
                "payload": "png",
                **changes,
            }
        )
    )


def samples(folder: Path, **changes) -> list[dict]:
    flowers = source(folder, **changes)
    assert flowers.check(1).issues == []
    return [flowers.make(i) for i in range(len(flowers.keys))]


def md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def official(tmp_path_factory) -> Path:
    """48 flowers of 12 species, in the archive and in jpg/."""
    return look_alike(tmp_path_factory.mktemp("official"))


@pytest.fixture
def folder(official, tmp_path) -> Path:
    """A copy to change."""
    return shutil.copytree(official, tmp_path / "flowers-102")


@pytest.fixture
def published(official, monkeypatch):
    """The look-alike's files count as the published ones."""
    for name in MD5:
        monkeypatch.setitem(flowers102.MD5, name, md5(official / name))


def archive_of(folder: Path, *members: tuple[tarfile.TarInfo, bytes]) -> None:
    with tarfile.open(folder / ARCHIVE, "w:gz") as archive:
        for member, data in members:
            archive.addfile(member, io.BytesIO(data) if data else None)


def member(name: str, data: bytes = b"", **changes) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    for key, value in changes.items():
        setattr(info, key, value)
    return info, data


class Tiny(Flowers102):
    """torchvision's reader without its md5."""

    _file_dict = {key: (name, None) for key, (name, _) in Flowers102._file_dict.items()}


def test_photographs_labels_and_splits_are_those_of_torchvision(official):
    ours = [json.loads(sample["json"]) for sample in samples(official)]
    for split, count in (("train", 12), ("val", 12), ("test", 24)):
        theirs = Tiny(official.parent, split=split, download=False)
        expected = {
            path.name: label + 1
            for path, label in zip(theirs._image_files, theirs._labels, strict=True)
        }
        assert {
            about["file"]: about["label"] for about in ours if about["split"] == split
        } == expected and len(expected) == count
    assert [sample["__key__"] for sample in samples(official)] == [
        f"image_{number:05d}" for number in range(1, 49)
    ]
    assert {about["label"] for about in ours} == set(range(1, 13))


def test_the_published_md5s_are_those_torchvision_checks():
    assert MD5 == dict(Flowers102._file_dict.values())
    assert (
        flowers102.PAGE == Flowers102._download_url_prefix
        and flowers102.SPLITS == Flowers102._splits_map
    )


@pytest.mark.parametrize(("payload", "field"), [("png", "png"), ("raw", "npy"), ("jpeg", "jpg")])
def test_a_sample_is_the_centre_square_of_its_photograph(official, payload, field):
    flowers = source(official, payload=payload)
    sample = flowers.make(4)
    assert flowers.sample == {"kind": "image", "channels": 3, "size": 16, "field": field}
    pixels = (
        np.load(io.BytesIO(sample[field]))
        if payload == "raw"
        else np.asarray(Image.open(io.BytesIO(sample[field])))
    )
    with Image.open(official / "jpg" / "image_00005.jpg") as photograph:
        expected = np.asarray(to_size(photograph, 16)).astype(int)
    assert np.abs(pixels - expected).max() <= (20 if payload == "jpeg" else 0)
    assert json.loads(sample["json"]) | {"label": 0, "split": ""} == {
        "file": "image_00005.jpg",
        "label": 0,
        "split": "",
        "width": 80,
        "height": 60,
        "mode": "RGB",
    }


def test_a_squashed_sample_is_the_whole_photograph(official):
    flowers = source(official, fit="squash")
    pixels = np.asarray(Image.open(io.BytesIO(flowers.make(4)["png"])))
    with Image.open(official / "jpg" / "image_00005.jpg") as photograph:
        expected = photograph.resize((16, 16), Image.Resampling.LANCZOS)
    np.testing.assert_array_equal(pixels, np.asarray(expected))
    note = "images have another aspect than 16x16 and were squashed to it (--fit squash)"
    assert note in flowers.check(1).notes[-1] and flowers.options["fit"] == "squash"


@pytest.mark.gate
def test_archive_and_unpacked_folder_give_the_same_shards_for_any_number_of_writers(
    folder, tmp_path
):
    words = ("--unofficial", "--size", "16", "--per-shard", "20")
    assert (
        build_command.main(
            [
                "flowers102",
                str(tmp_path / "a"),
                "--from",
                str(folder.parent),
                *words,
                "--workers",
                "2",
            ]
        )
        == 0
    )
    (folder / ARCHIVE).unlink()
    assert (
        build_command.main(
            ["flowers102", str(tmp_path / "b"), "--from", str(folder), *words, "--workers", "1"]
        )
        == 0
    )
    a, b = (json.loads((tmp_path / name / "dataset.json").read_text()) for name in ("a", "b"))
    assert (
        a["fingerprint"] == b["fingerprint"]
        and a["options"] == b["options"]
        and a["samples"] == {"train": 46, "validation": 2}
    )
    assert "official sets, together: 12 train, 12 val, 24 test" in a["notes"]
    assert any(
        "without 102flowers.tgz: no published md5 covers the photographs" in note
        for note in b["notes"]
    )
    assert (
        build_command.main(["flowers102", str(tmp_path / "a"), "--from", str(folder), *words]) == 0
    ), "a rerun finds the same source"


def test_the_unpacked_file_is_shared_with_writers_and_goes_with_the_source(
    folder, tmp_path, monkeypatch
):
    shutil.rmtree(folder / "jpg")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    flowers = source(folder)
    assert len(list((tmp_path / "temporary").iterdir())) == 1
    assert copy.copy(flowers).make(7) == flowers.make(7)
    assert len(list((tmp_path / "temporary").iterdir())) == 1, "a copy in a writer leaves it alone"
    del flowers
    assert not list((tmp_path / "temporary").iterdir())
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "absent"))
    with pytest.raises(
        DataError,
        match=r"cannot unpack .*102flowers.tgz .*set TMPDIR to a folder with enough space",
    ):
        source(folder)


def test_official_splits_can_be_taken_alone(official):
    abouts = [json.loads(sample["json"]) for sample in samples(official, splits=["test", "train"])]
    assert sorted(about["split"] for about in abouts) == ["test"] * 24 + ["train"] * 12
    assert source(official, splits=["test", "train"]).options["splits"] == "train,test"
    assert (
        source(official, splits=flowers102._splits("all")).options["splits"]
        == source(official, splits=flowers102._splits("test,val,train")).options["splits"]
    )


def test_the_options_name_the_contents(folder):
    before = source(folder).options["from"]
    (folder / ARCHIVE).unlink()
    assert source(folder).options["from"] == before
    (folder / "jpg" / "image_00003.jpg").write_bytes(
        (folder / "jpg" / "image_00004.jpg").read_bytes()
    )
    assert source(folder).options["from"] != before


def test_published_files_are_accepted_and_each_changed_one_refused(folder, published):
    assert (
        f"with the published md5: {ARCHIVE}, {LABELS}, {SETS}"
        in source(folder, unofficial=False).check(1).notes
    )
    for name in MD5:
        whole = (folder / name).read_bytes()
        (folder / name).write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
        with pytest.raises(
            DataError,
            match=(
                rf"{name} is not the published file: md5 {md5(folder / name)}, expected"
                rf" {MD5[name]}; download it again: {PAGE}{name}\n.*--unofficial"
            ),
        ):
            source(folder, unofficial=False)
        (folder / name).write_bytes(whole)
    (folder / ARCHIVE).unlink()
    assert (
        f"with the published md5: {LABELS}, {SETS}"
        in source(folder, unofficial=False).check(1).notes
    )


@pytest.mark.parametrize("absent", [(LABELS,), (SETS,), (ARCHIVE, "jpg"), (*MD5, "jpg")])
def test_missing_files_are_listed_with_their_addresses(folder, absent):
    for name in absent:
        shutil.rmtree(folder / name) if name == "jpg" else (folder / name).unlink()
    place = folder if len(absent) < 4 else folder.parent
    with pytest.raises(ConfigError, match="lacks .*; download these files into ") as raised:
        source(folder.parent)
    said = str(raised.value)
    assert f"download these files into {place}:" in said
    for name in MD5:
        assert f"{PAGE}{name}\n" in said if name in absent else f"{PAGE}{name}  (there)\n" in said


def test_wrong_options_and_folders_are_refused(official, tmp_path):
    with pytest.raises(
        ConfigError,
        match=(
            "(?s)--size: found '4', allowed: 8 to 2,048.*--splits: found 'train,tst', allowed:"
            " train, val, test, separated by commas, or all"
        ),
    ):
        command_of("flowers102").parse(["OUT", "--from", "x", "--splits=train,tst", "--size=4"])
    with pytest.raises(ConfigError, match="absent: no such folder"):
        source(tmp_path / "absent")


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (
            member("jpg/image_00001.jpg", type=tarfile.SYMTYPE, linkname="/etc/passwd"),
            "image_00001.jpg is a link, device or sparse file",
        ),
        (
            member("jpg/image_00001.jpg", type=tarfile.LNKTYPE, linkname="jpg/image_00002.jpg"),
            "image_00001.jpg is a link, device or sparse file",
        ),
        (
            member("./jpg/image_00001.jpg", type=tarfile.FIFOTYPE),
            "image_00001.jpg is a link, device or sparse file",
        ),
        (
            member("jpg/image_00001.jpg", size=1 << 40),
            f"image_00001.jpg states {1 << 40} bytes; photographs have at most 16777216",
        ),
        (member("movie", size=1 << 40), f"movie states {1 << 40} bytes"),
        (
            member("../jpg/image_00001.jpg", b"x"),
            (
                "102flowers.tgz lacks 48 of 48 photographs that setid.mat lists, such as"
                " image_00001.jpg"
            ),
        ),
        (member("/jpg/image_00001.jpg", b"x"), "102flowers.tgz lacks 48 of 48"),
    ],
)
def test_unsafe_members_are_refused_or_never_unpacked(folder, bad, message):
    archive_of(folder, bad)
    with pytest.raises(DataError, match=message):
        source(folder)


def test_a_member_that_occurs_twice_is_refused(folder):
    archive_of(folder, member("jpg/image_00001.jpg", b"x"), member("./jpg/image_00001.jpg", b"x"))
    with pytest.raises(DataError, match="image_00001.jpg occurs twice"):
        source(folder)


@pytest.mark.parametrize(
    "damage",
    [
        lambda whole: whole[: len(whole) // 2],
        lambda whole: b"not gzip",
        lambda whole: b"",
        lambda whole: whole[:-8] + bytes(8),
    ],
)
def test_a_damaged_archive_is_refused(folder, damage):
    (folder / ARCHIVE).write_bytes(damage((folder / ARCHIVE).read_bytes()))
    with pytest.raises(
        DataError,
        match=(
            "102flowers.tgz is damaged, or not a gzipped tar: .*; download it again:"
            f" {PAGE}102flowers.tgz"
        ),
    ):
        source(folder)


def test_missing_unreadable_and_repeated_photographs_are_found(folder):
    (folder / ARCHIVE).unlink()
    jpg = folder / "jpg"
    (jpg / "image_00003.jpg").write_bytes((jpg / "image_00002.jpg").read_bytes())
    (jpg / "image_00005.jpg").write_bytes(b"nothing")
    flowers = source(folder)
    found = {finding.name: finding for finding in flowers.check(1).issues}
    assert (
        found["image_00003.jpg"].reason == "duplicate of image_00002.jpg"
        and found["image_00003.jpg"].usable
    )
    assert not found["image_00005.jpg"].usable and set(found) == {
        "image_00003.jpg",
        "image_00005.jpg",
    }
    assert flowers.group(1) == flowers.group(2) != flowers.group(3)
    (jpg / "image_00001.jpg").unlink()
    with pytest.raises(
        DataError, match="image_00001.jpg could be read when it was checked, not any more"
    ):
        flowers.make(0)
    with pytest.raises(
        DataError,
        match=(
            r"jpg lacks 1 of 48 photographs that setid.mat lists, such as image_00001.jpg;"
            r" .*102flowers.tgz"
        ),
    ):
        source(folder)


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        (LABELS, {"labels": [[1, 2, 103]]}, "photograph .* has no label; imagelabels.mat has 3"),
        (LABELS, {"labels": [[103] * 48]}, "label 103; labels are 1 to 102"),
        (LABELS, {"label": [[1] * 48]}, "has no integer array 'labels'; it has: label"),
        (LABELS, {"labels": [[1.5] * 48]}, "has no integer array 'labels'"),
        (
            SETS,
            {"trnid": [[1]], "valid": [[2, 1]], "tstid": [[3]]},
            "photograph 1 in valid is also in trnid",
        ),
        (
            SETS,
            {"trnid": [[0]], "valid": [[2]], "tstid": [[3]]},
            "photograph 0 in trnid has no label",
        ),
        (SETS, None, "setid.mat cannot be read as a MATLAB file"),
    ],
)
def test_label_and_set_files_that_do_not_fit_are_refused(folder, name, values, message):
    if values is None:
        (folder / name).write_bytes(b"MATLAB 5.0" * 30)
    else:
        savemat(folder / name, values)
    with pytest.raises(DataError, match=message):
        source(folder)


def test_species_have_names_and_sets_made_before_the_same_ones(official, tmp_path):
    line = ["flowers102", tmp_path / "out", "--from", official, "--unofficial", "--size", 16]
    assert build_command.main([str(word) for word in [*line, "--workers", 1]]) == 0
    dataset = json.loads((tmp_path / "out" / "dataset.json").read_text())
    columns = labels_of(dataset, ["json", "png"])
    earlier = {key: value for key, value in dataset.items() if key != "labels"}
    assert columns == labels_of(earlier, ["json", "png"]) and list(columns) == ["species"]
    species = columns["species"]
    assert species.values == tuple(range(1, 103)) and len(set(species.names)) == 102
    named = {1: "pink primrose", 12: "colt's foot", 74: "rose", 102: "blackberry lily"}
    assert {value: species.names[value - 1] for value in named} == named
    assert any("classes of species without a sample in train: 9" in n for n in dataset["notes"])
    for split in open_parts(tmp_path / "out").values():
        expected = [json.loads(split[i]["json"])["label"] - 1 for i in range(len(split))]
        assert read_labels(split, species).tolist() == expected
