"""Tars as webdataset, img2dataset and tar make them: mixed kinds of images, members that nobody
reads, samples that lack a field or are damaged, sets that grow, folders that cannot be written.
"""

import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from distgan.core.errors import ConfigError, DataError
from distgan.data.dataset import Data
from distgan.shards.adopt import command as adopt_command
from distgan.shards.audit import command as audit_command
from distgan.shards.codecs import image_files


def pixels(i: int) -> np.ndarray:
    return np.random.default_rng(i).integers(0, 256, (16, 16, 3), np.uint8)


def saved(i: int, form: str, **how) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels(i)).save(file, form, **how)
    return file.getvalue()


def tar(path: Path, members: list[tuple[str, bytes]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))


def tars(folder: Path, extra=lambda k, i: [], before=(), image=None) -> Path:
    """Three tars of four samples; `image(k, i)` gives (extension, bytes)."""
    image = image or (lambda k, i: ("png", saved(4 * k + i, "PNG")))
    for k in range(3):
        members = list(before)
        for i in range(4):
            extension, data = image(k, i)
            named = [(f"{k}{i}.{extension}", data)] if data is not None else []
            members += named + [(f"{k}{i}.{name}", more) for name, more in extra(k, i)]
        tar(folder / f"s{k}.tar", members)
    return folder


def index(*argv: object) -> int:
    return adopt_command.main([str(word) for word in argv])


def about(folder: Path) -> dict:
    return json.loads((folder / "dataset.json").read_text())


def seen(folder: Path) -> dict[str, np.ndarray]:
    data = Data(str(folder))
    return {
        split.key(i): data.decode(split, [i])[0].permute(1, 2, 0).numpy()
        for split in (data.train, data.validation)
        for i in range(len(split))
    }


def test_images_of_several_kinds_are_one_field(tmp_path, capsys):
    kinds = [("png", {}), ("webp", {"lossless": True}), ("tiff", {}), ("png", {})]

    def image(k: int, i: int) -> tuple[str, bytes]:
        name, how = kinds[i]
        return (name.upper() if k else name), saved(4 * k + i, name.upper(), **how)

    assert index(tars(tmp_path, lambda k, i: [("cls", b"%d" % (i % 2))], image=image)) == 0
    dataset = about(tmp_path)
    assert dataset["sample"]["field"] == "png|tiff|webp" and dataset["labels"]["cls"]
    pictures = seen(tmp_path)
    assert len(pictures) == 12
    for key, values in pictures.items():
        np.testing.assert_array_equal(values, pixels(4 * int(key[0]) + int(key[1])))
    assert audit_command.main([str(tmp_path), "--workers=1"]) == 0
    capsys.readouterr()
    assert index(tmp_path) == 0 and about(tmp_path) == dataset, "and again, unchanged"
    assert "3 tars are whole; 0 were read" in capsys.readouterr().out


def test_what_nobody_reads_stays_out_of_the_index(tmp_path):
    before = [("README.txt", b"hello"), ("Thumbs.db", b"x"), ("._00.png", b"\0\5\x16\7")]
    before = [(f"{name}", data) for name, data in before]

    def captions(k: int, i: int) -> list[tuple[str, bytes]]:
        return [] if (k, i) == (2, 1) else [("txt", b"caption")]

    assert index(tars(tmp_path, captions, before)) == 0
    dataset = about(tmp_path)
    assert sum(dataset["samples"].values()) == 12 and dataset["left_out"] == []
    lone, unread = dataset["notes"]
    assert lone.startswith("6 files or groups of files are no samples, such as README.txt")
    assert unread == "fields that are not read, left out of the index: txt (11 of 12)"
    assert json.loads((tmp_path / "manifest.json").read_text())["fields"] == ["png"]
    assert len(seen(tmp_path)) == 12
    assert audit_command.main([str(tmp_path), "--workers=1"]) == 0


def test_incomplete_and_damaged_samples_are_left_out_and_listed(tmp_path, capsys):
    def image(k: int, i: int) -> tuple[str, bytes | None]:
        whole = saved(4 * k + i, "JPEG", quality=95)
        special = {(0, 1): None, (1, 2): whole[: len(whole) * 2 // 3], (2, 0): b""}
        return "jpg", special.get((k, i), whole)

    tars(tmp_path, lambda k, i: [("cls", b"%d" % (i % 2))], image=image)
    with pytest.raises(DataError, match=r"(?s)1 samples do .*s0.tar: 01: no jpg.*--skip-"):
        index(tmp_path, "--label", "cls")
    assert index(tmp_path, "--label", "cls", "--skip-broken") == 0
    dataset = about(tmp_path)
    reasons = {one["name"]: one["reason"] for one in dataset["left_out"]}
    assert list(reasons) == ["s0.tar: 01", "s1.tar: 12", "s2.tar: 20"]
    assert reasons["s0.tar: 01"] == "no jpg" and "runcated" in reasons["s1.tar: 12"]
    assert "not an image" in reasons["s2.tar: 20"]
    assert sum(dataset["samples"].values()) == 9 == len(seen(tmp_path))
    assert "3 samples were left out" in capsys.readouterr().out
    assert dataset["options"]["skip-broken"] == "" and index(tmp_path) == 0
    assert about(tmp_path) == dataset, "it keeps the option"
    assert audit_command.main([str(tmp_path), "--workers=1"]) == 0
    del dataset["left_out"][1]
    (tmp_path / "dataset.json").write_text(json.dumps(dataset))
    with pytest.raises(DataError, match="is damaged, or of other shards"):
        Data(str(tmp_path))


def test_a_new_tar_costs_itself_and_a_changed_one_is_read(tmp_path, capsys):
    index(tars(tmp_path))
    first = {path.name: path.stat().st_mtime_ns for path in tmp_path.glob("*.json")}
    tar(tmp_path / "s9.tar", [("90.png", saved(90, "PNG"))])
    capsys.readouterr()
    index(tmp_path)
    assert "4 tars are whole; 1 were read" in capsys.readouterr().out
    assert sum(about(tmp_path)["samples"].values()) == 13
    for name in ("s0.json", "s1.json", "s2.json"):
        assert (tmp_path / name).stat().st_mtime_ns == first[name]
    index(tmp_path, "--verify")
    assert "4 tars are whole; 4 were read" in capsys.readouterr().out


def test_fields_by_name_and_another_choice_reads_no_tar_again(tmp_path, capsys):
    tars(
        tmp_path,
        lambda k, i: [("cls", b"%d" % (i % 2)), ("json", b"{}"), ("b.png", saved(i, "PNG"))],
    )
    index(tmp_path, "--fields", "png,cls")
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert manifest["fields"] == ["cls", "png"] and about(tmp_path)["sample"]["field"] == "png"
    capsys.readouterr()
    index(tmp_path, "--fields", "b.png", "--image", "b.png")
    assert "3 tars are whole; 0 were read" in capsys.readouterr().out
    assert about(tmp_path)["sample"]["field"] == "b.png"
    with pytest.raises(ConfigError, match="--fields: no field 'jpg'; there are: b.png, cls, json"):
        index(tmp_path, "--fields", "jpg")


def test_the_index_elsewhere_leaves_a_read_only_folder_alone(tmp_path):
    (
        tars(tmp_path / "theirs" / "train"),
        tars(
            tmp_path / "theirs" / "val", image=lambda k, i: ("png", saved(100 + 4 * k + i, "PNG"))
        ),
    )
    before = sorted(path.name for path in (tmp_path / "theirs").rglob("*"))
    for _ in range(2):
        assert index(tmp_path / "theirs", "--out", tmp_path / "idx") == 0
    assert sorted(path.name for path in (tmp_path / "theirs").rglob("*")) == before
    assert len(seen(tmp_path / "idx")) == 12 and len(Data(str(tmp_path / "idx")).train) == 12
    (tmp_path / "idx2").mkdir()
    (tmp_path / "idx2" / "train").mkdir()
    (tmp_path / "idx2" / "train" / "s0.tar").write_text("of mine")
    with pytest.raises(ConfigError, match="s0.tar is there, and is no link to"):
        index(tmp_path / "theirs", "--out", tmp_path / "idx2")


TURNED = Image.Exif()
TURNED[0x0112] = 6


@pytest.mark.parametrize(
    "data",
    [saved(1, "PNG"), saved(1, "JPEG"), saved(1, "JPEG", progressive=True), saved(1, "WEBP"),
     saved(1, "JPEG", exif=TURNED), saved(1, "JPEG", comment=b"c"),
     saved(1, "PNG", dpi=(72, 72)), saved(1, "TIFF"), b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"],
)  # fmt: skip
def test_the_quick_header_says_what_the_decoder_says(data):
    quick = image_files.quick_header(data)
    if quick:
        assert quick == image_files.header(io.BytesIO(data))
