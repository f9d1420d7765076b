"""`distgan index`: tars of others become a data set that can be trained on, or the message says
what is missing.
"""

import io
import json
import os
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from distgan.core.errors import ConfigError, DataError
from distgan.data.dataset import Data
from distgan.shards.adopt import command as adopt_command
from distgan.shards.build.split import rank
from distgan.shards.codecs import audio as audio_codec
from distgan.shards.codecs import image as image_codec
from distgan.shards.format.reader import open_parts

IMAGE = {"kind": "image", "channels": 3, "size": 8, "field": "png", "decoding": 2}


def tar(path: Path, members: dict[str, bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as archive:
        for name, data in members.items():
            header = tarfile.TarInfo(name)
            header.size, header.mtime = len(data), 1.5
            archive.addfile(header, io.BytesIO(data))
    return path


def picture(
    number: int, size: int | tuple[int, int] = 8, payload: str = "png", colour: bool = True
) -> bytes:
    shape = size if isinstance(size, tuple) else (size, size)
    return image_codec.encode(
        np.random.default_rng(number).integers(0, 256, (*shape, 3)[: 2 + colour], dtype=np.uint8),
        payload,
    )[1]


def sound(
    number: int, frames: int = 12000, rate: int = 8000, channels: int = 1, dtype: type = np.int16
) -> bytes:
    values = np.random.default_rng(number).integers(-9000, 9000, (frames, channels))
    return audio_codec.write_wav(
        values.astype(dtype)[:, 0] if channels == 1 else values.astype(dtype), rate
    )


def pictures(folder: Path, shards: int = 12, name: str = "w", start: int = 0) -> Path:
    """Five colour pictures of 8 pixels and a class in each tar."""
    for k in range(shards):
        numbers = range(start + 5 * k, start + 5 * k + 5)
        tar(
            folder / f"{name}-{k}.tar",
            {
                f"d.x/{i}.{field}": data
                for i in numbers
                for field, data in (("png", picture(i)), ("cls", b"1"))
            },
        )
    return folder


def index(*argv: object) -> int:
    return adopt_command.main([str(word) for word in argv])


def about(folder: Path) -> dict:
    return json.loads((folder / "dataset.json").read_text())


def test_one_folder_of_tars_holds_out_whole_tars(tmp_path, capsys):
    before = {
        path: (path.read_bytes(), path.stat().st_mtime_ns) for path in pictures(tmp_path).iterdir()
    }
    assert index(tmp_path) == 0
    assert {
        path: (path.read_bytes(), path.stat().st_mtime_ns) for path in tmp_path.glob("*.tar")
    } == before, "the tars are only read"
    dataset = about(tmp_path)
    assert dataset["sample"] == IMAGE and dataset["complete"]
    assert (
        dataset["source"] == "index"
        and dataset["samples"] == {"train": 55, "validation": 5}
        and dataset["notes"] == []
    )
    assert sorted(
        dataset["parts"]["train"]["shards"] + dataset["parts"]["validation"]["shards"]
    ) == sorted(path.name for path in before)
    assert dataset["parts"]["validation"]["shards"] == [
        min((path.name for path in before), key=rank)
    ]
    sets = open_parts(tmp_path, "sha256")
    assert {sets[part][i]["__key__"] for part in sets for i in range(len(sets[part]))} == {
        f"d.x/{i}" for i in range(60)
    }
    assert Data(str(tmp_path)).fingerprint == dataset["fingerprint"]
    assert (
        "55 train, 5 validation" in (out := capsys.readouterr().out)
        and f"next: distgan check {tmp_path}  # no recipe of distgan trains on images of this size"
        in out
    )


def test_an_adopted_set_can_be_trained_on(tmp_path):
    index(pictures(tmp_path))
    data = Data(str(tmp_path))
    for part in (data.train, data.validation):
        for i in range(len(part)):
            expected = np.empty((8, 8, 3), np.uint8)
            image_codec.decode(picture(int(part.key(i).removeprefix("d.x/"))), "png", expected)
            assert np.array_equal(data.decode(part, [i])[0].permute(1, 2, 0).numpy(), expected)


def test_the_choice_depends_on_names_alone(tmp_path):
    for folder in ("a", "b"):
        index(pictures(tmp_path / folder), "--validation", 0.25)
    assert (
        about(tmp_path / "a") == about(tmp_path / "b")
        and len(about(tmp_path / "a")["parts"]["validation"]["shards"]) == 3
    )


@pytest.mark.parametrize(
    ("folders", "options"),
    [
        (("train", "validation"), ()),
        (("train", "val"), ()),
        (("training", "valid"), ()),
        (("train", "test"), ()),
        (("one", "two"), ("--train", "one", "--validation", "two")),
        (("train", "two"), ("--validation", "two")),
        (("one", "val"), ("--train", "one")),
    ],
)
def test_two_folders_of_tars(tmp_path, folders, options):
    for k, folder in enumerate(folders):
        pictures(tmp_path / folder, 2, start=100 * k)
    assert index(tmp_path, *options) == 0
    assert about(tmp_path)["parts"] == {
        "train": {"folder": folders[0]},
        "validation": {"folder": folders[1]},
    }
    data = Data(str(tmp_path), "sha256")
    assert (
        len(data.train) == len(data.validation) == 10
        and data.train.key(0) == "d.x/0"
        and data.validation.key(0) == "d.x/100"
    )


def test_again_it_verifies(tmp_path, capsys):
    pictures(tmp_path, 4)
    index(tmp_path)
    first = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    capsys.readouterr()
    assert index(tmp_path) == 0
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == first
    assert (
        "4 tars are whole; 0 were read, 4 have the size and time that they had"
        in capsys.readouterr().out
    )


def test_again_a_changed_tar_is_found(tmp_path):
    index(pictures(tmp_path, 4))
    data = bytearray((tmp_path / "w-2.tar").read_bytes())
    data[1600] ^= 1
    (tmp_path / "w-2.tar").write_bytes(data)
    with pytest.raises(
        DataError, match=r"w-2.json is the index of another tar .* delete the index to accept"
    ):
        index(tmp_path)


def test_again_a_missing_tar_is_found_and_a_new_one_is_taken(tmp_path):
    index(pictures(tmp_path, 4))
    tar(tmp_path / "new.tar", {"new.png": picture(1), "new.cls": b""})
    index(tmp_path)
    assert sum(about(tmp_path)["samples"].values()) == 21
    (tmp_path / "w-2.tar").unlink()
    with pytest.raises(
        DataError, match=r"w-2.tar is missing \(1 of 5 tars .*delete .*manifest.json to accept"
    ):
        index(tmp_path)


def test_sets_made_here_are_verified_only(particles, capsys):
    before = {path: path.stat().st_mtime_ns for path in particles.rglob("*")}
    assert (
        index(particles) == 0
        and "was made by `distgan shard`" in (out := capsys.readouterr().out)
        and "54 train, 6 validation" in out
    )
    assert (
        index(particles / "train") == 0
        and "is one split of" in (out := capsys.readouterr().out)
        and "54 samples" in out
    )
    assert {path: path.stat().st_mtime_ns for path in particles.rglob("*")} == before


def test_an_unfinished_set_is_refused(tmp_path):
    (tmp_path / "dataset.json").write_text(json.dumps({"source": "images", "complete": False}))
    with pytest.raises(DataError, match="is unfinished; run its `distgan shard` command again"):
        index(tmp_path)


def test_the_index_alone(tmp_path, capsys):
    pictures(tmp_path, 1)
    assert index(tmp_path, "--validation", 0) == 0 and "only the index" in capsys.readouterr().out
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "SHA256SUMS",
        "manifest.json",
        "w-0.json",
        "w-0.tar",
    ]


def test_pictures_of_several_sizes_are_indexed_and_the_way_on_is_told(tmp_path, capsys):
    pictures(tmp_path, 3)
    tar(tmp_path / "z.tar", {"z.png": picture(1, (8, 9), colour=False), "z.cls": b""})
    assert index(tmp_path) == 0
    assert about(tmp_path)["sample"] == IMAGE | {"size": None}
    out = capsys.readouterr().out
    assert (
        "needs images of one size, at most 16,384 pixels a side; found 15 of 8x8, 1 of 9x8" in out
        and "distgan shard images OUT --from unpacked --size 64" in out
    )
    with pytest.raises(DataError, match="images of different sizes"):
        Data(str(tmp_path))


@pytest.mark.parametrize(
    ("payload", "colour", "channels"),
    [("png", False, 1), ("jpeg", True, 3), ("raw", False, 1), ("raw", True, 3)],
)
def test_kinds_of_pictures(tmp_path, capsys, payload, colour, channels):
    field = image_codec.FIELDS[payload]
    for k in range(2):
        tar(tmp_path / f"{k}.tar", {f"{k}.{field}": picture(k, 16, payload, colour)})
    index(tmp_path)
    sample = IMAGE | {"channels": channels, "size": 16, "field": field}
    if payload == "raw":
        del sample["decoding"]  # an array has one meaning
    assert about(tmp_path)["sample"] == sample
    line = (
        f"next: distgan check {tmp_path}\nnext: distgan run --processes 2 sagan data={tmp_path}"
        "  # or my_gan.py of your own in place of sagan: distgan new my_gan.py\n"
    )
    assert line in capsys.readouterr().out


def test_rectangles_are_a_data_set_and_floats_are_told(tmp_path, capsys):
    for k in range(2):
        tar(tmp_path / "flat" / f"{k}.tar", {f"{k}.png": picture(k, (8, 16))})
    index(tmp_path / "flat")
    assert (
        about(tmp_path / "flat")["sample"]["size"] == [8, 16]
        and "no recipe of distgan trains on images of this size: the shorter side must be 16, 32"
        in (said := capsys.readouterr().out)
        and "distgan run" not in said
    )
    assert Data(str(tmp_path / "flat")).shape == (3, 8, 16)
    for k in range(2):
        tar(tmp_path / "wide" / f"{k}.tar", {f"{k}.png": picture(k, (1, 16385))})
    index(tmp_path / "wide")
    assert about(tmp_path / "wide")["sample"]["size"] is None
    assert "at most 16,384 pixels a side; found 2 of 16385x1" in capsys.readouterr().out
    file = io.BytesIO()
    Image.fromarray(np.full((8, 8), 0.5, np.float32)).save(file, "TIFF")
    for k, data in enumerate((picture(1), file.getvalue())):
        tar(tmp_path / "deep" / f"{k}.tar", {f"{k}.png": data})
    index(tmp_path / "deep")
    assert (
        about(tmp_path / "deep")["sample"]["size"] is None
        and "1: pixels of mode F have no stated range" in capsys.readouterr().out
    )


def test_pairs_of_two_rates_are_told(tmp_path, capsys):
    for k, rate in enumerate((8000, 16000)):
        tar(
            tmp_path / f"{k}.tar",
            {f"{k}.{part}.wav": sound(k, rate=rate) for part in ("input", "target")},
        )
    index(tmp_path)
    assert (
        about(tmp_path)["sample"]["kind"] == "unknown"
        and "1 pairs of int16 at 16000 Hz" in capsys.readouterr().out
    )


@pytest.mark.parametrize(
    ("field", "data", "message"),
    [
        ("png", b"no picture", "k: not an image in one of the formats"),
        ("png", picture(1)[:20], "k: "),
        ("npy", b"\x93NUMPY", "k: "),
        ("npy", None, "k: an array of float64 [8, 8]; an image is uint8"),
    ],
)
def test_what_is_no_picture_is_told(tmp_path, capsys, field, data, message):
    if data is None:
        file = io.BytesIO()
        np.save(file, np.zeros((8, 8)))
        data = file.getvalue()
    tar(
        tmp_path / "a.tar",
        {f"a.{field}": picture(1, payload={"png": "png", "jpg": "jpeg", "npy": "raw"}[field])},
    )
    tar(tmp_path / "b.tar", {f"k.{field}": data})
    assert index(tmp_path) == 0
    assert (
        about(tmp_path)["sample"]["size"] is None
        and "1 images cannot be read" in (out := capsys.readouterr().out)
        and message in out
    )


def test_an_array_that_would_be_unpickled_is_not(tmp_path, capsys):
    file = io.BytesIO()
    np.save(file, np.array([{}], dtype=object), allow_pickle=True)
    for k in range(2):
        tar(tmp_path / f"{k}.tar", {f"{k}.npy": file.getvalue()})
    index(tmp_path)
    assert (
        "an array of object" in capsys.readouterr().out
        and about(tmp_path)["sample"]["kind"] == "unknown"
    )


def speech(
    folder: Path, fields: tuple[str, str] = ("input.wav", "target.wav"), **last: dict
) -> Path:
    """Three pairs in three tars, 12,000 frames and more; `last` changes the target of the last."""
    for k in range(3):
        frames = {"frames": 12000 + k}
        tar(
            folder / f"{k}.tar",
            {
                f"{k}.{fields[0]}": sound(k, **frames),
                f"{k}.{fields[1]}": sound(k, **frames | (last if k == 2 else {})),
            },
        )
    return folder


def test_pairs(tmp_path, capsys):
    assert index(speech(tmp_path)) == 0
    assert about(tmp_path)["sample"] == {
        "kind": "pair",
        "rate": 8000,
        "fields": ["input.wav", "target.wav"],
        "dtype": "int16",
        "length": 12000,
        "longest": 12002,
    }
    data = Data(str(tmp_path))
    assert (
        data.decode(data.train, [0], 100, np.array([0.5])).shape == (1, 2, 100)
        and "next: distgan check" in capsys.readouterr().out
    )
    assert "blocks" in json.loads((tmp_path / "0.json").read_text())["files"]["0.input.wav"]


def test_pairs_of_flac_and_of_other_names(tmp_path):
    for k in range(2):
        waves_of = [np.arange(100 + k, dtype=np.int16)] * 2
        tar(
            tmp_path / "flac" / f"{k}.tar",
            {
                f"{k}.{part}.flac": audio_codec.write_flac(x, 8000)
                for part, x in zip(("input", "target"), waves_of, strict=True)
            },
        )
    index(tmp_path / "flac")
    assert (
        about(tmp_path / "flac")["sample"]["fields"] == ["input.flac", "target.flac"]
        and about(tmp_path / "flac")["sample"]["longest"] == 101
    )
    index(
        speech(tmp_path / "named", ("noisy.wav", "clean.wav")),
        "--input",
        "noisy.wav",
        "--target",
        "clean.wav",
    )
    assert about(tmp_path / "named")["sample"]["fields"] == ["noisy.wav", "clean.wav"]


@pytest.mark.parametrize(
    ("last", "message"),
    [
        (
            {"frames": 500},
            "2: input.wav has 12002 frames of int16 at 8000 Hz, target.wav has 500 frames",
        ),
        ({"rate": 16000}, "at 16000 Hz"),
        ({"channels": 2}, "target.wav has 2 channels"),
        ({"dtype": np.float32}, "frames of float32"),
    ],
)
def test_pairs_that_do_not_fit_are_told(tmp_path, capsys, last, message):
    assert index(speech(tmp_path, **last)) == 0
    assert about(tmp_path)["sample"]["kind"] == "unknown" and message in capsys.readouterr().out


def test_other_samples_are_indexed_and_the_options_told(tmp_path, capsys):
    for k in range(2):
        tar(
            tmp_path / f"{k}.tar",
            {f"{k}.txt": b"words", f"{k}.left.png": picture(k), f"{k}.right.png": picture(k)},
        )
    assert index(tmp_path) == 0
    assert about(tmp_path)["sample"] == {
        "kind": "unknown",
        "fields": ["left.png", "right.png", "txt"],
    }
    assert (
        "the fields of a sample (left.png, right.png, txt) do not determine"
        in capsys.readouterr().out
    )
    index(tmp_path, "--image", "left.png")
    assert about(tmp_path)["sample"] == IMAGE | {"field": "left.png"}
    assert about(tmp_path)["options"] == {"image": "left.png"}


@pytest.mark.parametrize("sides", [("input", "target"), ("a", "b")])
def test_pairs_of_images(tmp_path, capsys, sides):
    fields = [f"{side}.png" for side in sides]
    for k in range(2):
        tar(tmp_path / f"{k}.tar", {f"{k}.{field}": picture(k) for field in fields})
    named = [] if sides[0] == "input" else ["--input", fields[0], "--target", fields[1]]
    assert index(tmp_path, *named) == 0
    about_pairs = IMAGE | {"kind": "image_pair", "fields": fields}
    del about_pairs["field"]
    assert about(tmp_path)["sample"] == about_pairs
    assert (
        "next: distgan new my_gan.py --kind image_pair  # then: distgan train"
        in capsys.readouterr().out
    )
    assert Data(str(tmp_path)).shape == (2, 3, 8, 8)
    odd = tmp_path / "odd"
    for k, size in enumerate((8, (8, 4))):
        members = {f"{k}.{fields[0]}": picture(1), f"{k}.{fields[1]}": picture(2, size)}
        tar(odd / f"{k}.tar", members)
    assert index(odd, *named) == 0
    assert f"{fields[0]} has 8x8 pixels, {fields[1]} 4x8" in capsys.readouterr().out
    with pytest.raises(DataError, match="distgan shard image_pairs OUT --from FOLDER"):
        Data(str(odd))
    with pytest.raises(ConfigError, match="no field 'x.wav'"):
        index(odd, "--input", fields[0], "--target", "x.wav")


def test_vectors(tmp_path, capsys):
    def vector(values, kind=np.float32) -> bytes:
        file = io.BytesIO()
        np.save(file, np.array(values, kind))
        return file.getvalue()

    for k in range(2):
        members = {f"{k}.npy": vector([k, 2, 3]), f"{k}.b.npy": vector([k, 5]), f"{k}.cls": b"1"}
        tar(tmp_path / f"{k}.tar", members)
    assert index(tmp_path) == 0
    assert about(tmp_path)["sample"] == {"kind": "vector", "size": 3, "field": "npy"}
    assert "distgan new my_gan.py --kind vector" in capsys.readouterr().out
    index(tmp_path, "--vector", "b.npy")
    assert about(tmp_path)["sample"] == {"kind": "vector", "size": 2, "field": "b.npy"}
    data = Data(str(tmp_path))
    assert {
        *data.decode(data.train, [0])[0].tolist(),
        *data.decode(data.validation, [0])[0].tolist(),
    } == {0.0, 1.0, 5.0}
    for other, said in (
        (vector([1]), "training needs vectors of one length; found"),
        (vector([1, 2, 3], float), "k: an array of float64 [3]; a vector is float32 [numbers]"),
        (vector([1, np.nan, 3]), "k: value 1 of the vector is nan"),
        (vector([[1], [2]]), "k: an array of float32 [2, 1]; a vector is"),
    ):
        root = tmp_path / "other"
        for path in (*root.glob("*"),):
            path.unlink()
        tar(root / "a.tar", {"a.npy": vector([1, 2, 3])})
        tar(root / "b.tar", {"k.npy": other})
        assert index(root, "--vector", "npy") == 0 and about(root)["sample"]["kind"] == "unknown"
        assert said in capsys.readouterr().out


def test_several_images_are_not_guessed(tmp_path, capsys):
    for k in range(2):
        tar(tmp_path / f"{k}.tar", {f"{k}.png": picture(k), f"{k}.jpg": picture(k, payload="jpeg")})
    index(tmp_path)
    assert (
        about(tmp_path)["sample"]["kind"] == "unknown"
        and "jpg and png are images: choose one with --image" in capsys.readouterr().out
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--image", "jpg"), "--image: no field 'jpg'; there are: cls, png"),
        (("--image", "cls"), "'cls' is of an unsupported kind; allowed are .*png"),
        (
            ("--input", "png", "--target", "cls"),
            "'cls' is of an unsupported kind; allowed are .*png",
        ),
        (("--input", "png"), "both --input and --target"),
        (("--image", "png", "--input", "a", "--target", "b"), "either --image, or both"),
        (("--validation", "0.6"), "at most 0.5"),
        (("--validation", "nan"), "at most 0.5"),
        (("--validation", "-1"), "above 0"),
        (("--validation", "val"), "has no .tar files|name it with --train"),
        (("--train", "../w"), "name it with --validation"),
        (("--train", "a", "--validation", "b"), "--train a: "),
        (
            ("--train", "a", "--validation", "0.1"),
            "a share divides the tars of .* itself, and --train names a folder",
        ),
    ],
)
def test_bad_options_are_named(tmp_path, options, message):
    with pytest.raises(ConfigError, match=message):
        index(pictures(tmp_path, 2), *options)


def test_a_folder_that_leaves_is_no_folder_of_the_set(tmp_path):
    pictures(tmp_path / "out", 1)
    pictures(tmp_path / "in" / "val", 1)
    with pytest.raises(ConfigError, match=r"--train \.\./out: .*in has tars in val"):
        index(tmp_path / "in", "--train", "../out", "--validation", "val")


def test_what_cannot_be_divided_says_what_to_do(tmp_path):
    with pytest.raises(ConfigError, match="no such folder"):
        index(tmp_path / "nowhere")
    with pytest.raises(ConfigError, match="which is empty"):
        index(tmp_path)
    with pytest.raises(ConfigError, match=r"has one tar, w-0.tar, .* --validation 0"):
        index(pictures(tmp_path / "one", 1))
    pictures(tmp_path / "half" / "train", 2)
    with pytest.raises(
        ConfigError, match=rf"name it with --validation NAME.*distgan index {tmp_path}/half/train"
    ):
        index(tmp_path / "half")
    for name in ("val", "test"):
        pictures(tmp_path / "half" / name, 2)
    with pytest.raises(ConfigError, match="has val and test; choose with --validation val"):
        index(tmp_path / "half")
    pictures(tmp_path / "half", 2)
    with pytest.raises(ConfigError, match="has tars itself and in"):
        index(tmp_path / "half")
    assert not list(tmp_path.rglob("*.json")), "nothing is written before the layout is understood"
    (tmp_path / "packed").mkdir()
    (tmp_path / "packed" / "a.tar.gz").touch()
    with pytest.raises(ConfigError, match="a.tar.gz is compressed"):
        index(tmp_path / "packed")


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("a.png", "b.png", "a.png"), "2.tar: key a occurs in an earlier shard too"),
        (
            ("a.txt", "b.bin", "c.txt"),
            r"1.tar: sample b has the fields \['bin'\], expected \['txt'\]",
        ),
    ],
)
def test_tars_that_are_no_set_are_refused_by_name(tmp_path, names, message):
    for k, name in enumerate(names):
        tar(tmp_path / f"{k}.tar", {name: picture(k)})
    with pytest.raises(DataError, match=message):
        index(tmp_path)
    assert not (tmp_path / "dataset.json").exists()


def test_the_same_tar_for_training_and_validation_is_refused(tmp_path):
    pictures(tmp_path / "train", 2)
    pictures(tmp_path / "val", 1, "v")
    with pytest.raises(DataError, match=r"val/v-0.tar is the same as .*train/w-0.tar"):
        index(tmp_path)


def test_a_file_of_another_program_beside_a_tar_is_not_overwritten(tmp_path):
    pictures(tmp_path, 2)
    (tmp_path / "w-1.json").write_text('{"files": {}}')
    with pytest.raises(DataError, match=r"w-1.json is not a shard index.*move w-1.json away"):
        index(tmp_path)
    assert (tmp_path / "w-1.json").read_text() == '{"files": {}}'


def test_a_folder_that_cannot_be_written_says_how(tmp_path, monkeypatch):
    pictures(tmp_path, 2)

    def refuse(path: Path, data: str, errors: object) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("distgan.shards.format.index.write_atomic", refuse)
    with pytest.raises(DataError, match=r"w-0.json cannot be written.* --out FOLDER"):
        index(tmp_path)


def test_links_to_tars_elsewhere_can_be_indexed(tmp_path):
    (tmp_path / "mine").mkdir()
    for path in pictures(tmp_path / "theirs", 3).iterdir():
        (tmp_path / "mine" / path.name).symlink_to(path)
    assert index(tmp_path / "mine") == 0 and len(Data(str(tmp_path / "mine")).train) == 10
    assert sorted(path.suffix for path in (tmp_path / "theirs").iterdir()) == [".tar"] * 3


@pytest.mark.parametrize(
    "name", [b"\xff.tar", b"a\nb.tar", b"a\\b.tar", b"manifest.tar", b"dataset.tar"]
)
def test_a_tar_whose_name_no_list_can_hold_is_refused(tmp_path, name):
    for tar in (b"a.tar", name):
        (tmp_path / os.fsdecode(tar)).touch()
    with pytest.raises(DataError, match="give the tar another"):
        adopt_command.main([str(tmp_path)])
    assert len(list(tmp_path.iterdir())) == 2, "nothing was written"
