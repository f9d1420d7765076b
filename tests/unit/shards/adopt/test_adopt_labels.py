"""`distgan index --label`: fields and keys of adopted tars become labels."""

import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from distgan.core.errors import ConfigError, DataError
from distgan.shards.adopt import command as adopt_command
from distgan.shards.codecs import image as image_codec
from distgan.shards.format.labels import labels_of, read_labels
from distgan.shards.format.reader import open_parts

N = 20  # samples, in two tars


def tars(folder: Path, **fields: Callable[[int], object]) -> Path:
    """Images of 16 pixels, and these fields of each."""
    for k in range(2):
        with tarfile.open(folder / f"{k}.tar", "w") as archive:
            for i in range(10 * k, 10 * k + 10):
                pixels = np.random.default_rng(i).integers(0, 256, (16, 16), np.uint8)
                members = {"png": image_codec.encode(pixels, "png")[1]}
                for field, make in fields.items():
                    value = make(i)
                    data = value if isinstance(value, bytes) else json.dumps(value).encode()
                    members[field] = data
                for field, data in members.items():
                    header = tarfile.TarInfo(f"s{i:02d}.{field}")
                    header.size = len(data)
                    archive.addfile(header, io.BytesIO(data))
    return folder


def index(folder: Path, *options: str) -> dict:
    assert adopt_command.main([str(folder), *options]) == 0
    return json.loads((folder / "dataset.json").read_text())


def classes(folder: Path, dataset: dict, name: str) -> list[str]:
    """The name of the class of each sample, by its number."""
    named = {}
    for split in open_parts(folder).values():
        column = labels_of(dataset, split.fields)[name]
        for i, number in enumerate(read_labels(split, column).tolist()):
            named[int(split.key(i)[1:])] = column.names[number]
    return [named[i] for i in range(N)]


def test_cls_is_taken_by_itself(tmp_path, capsys):
    dataset = index(tars(tmp_path, cls=lambda i: b"%d\n" % (12 - i % 4)))
    values = [9, 10, 11, 12]
    assert dataset["labels"] == {
        "cls": {"field": "cls", "key": None, "values": values, "names": list(map(str, values))}
    }
    assert dataset["notes"] == ["labels: 4 classes in cls"]
    assert classes(tmp_path, dataset, "cls") == [str(12 - i % 4) for i in range(N)]
    run = f"next: distgan run --processes 2 sagan data={tmp_path}"
    first, second = capsys.readouterr().out.splitlines()[-2:]
    assert first.startswith(f"{run}  # or my_gan.py") and second == f"{run} conditional=true"
    assert index(tmp_path) == dataset


@pytest.mark.parametrize(
    "cls",
    [
        lambda i: b"1",
        lambda i: b"%d" % (i % 10),
        lambda i: b"a caption of %d words" % i,
        lambda i: b"\xff" if i == 7 else b"%d" % (i % 2),
        lambda i: b"" if i == 7 else b"%d" % (i % 2),
        lambda i: b"x" * (61 - i % 2),
    ],
    ids=["one", "half", "captions", "not UTF-8", "empty", "long"],
)
def test_what_is_no_class_is_not_taken_by_itself(tmp_path, cls):
    dataset = index(tars(tmp_path, cls=cls))
    assert "labels" not in dataset and dataset["notes"] == []


def test_fields_and_keys_that_are_named(tmp_path, capsys):
    about = {"json": lambda i: {"the kind": "ab"[i % 2], "n": -(i % 3), "cap": str(i)}}
    tars(tmp_path, cls=lambda i: b"%d" % (i % 2), txt=lambda i: b" t%d\n" % (i % 5), **about)
    dataset = index(tmp_path, "--label", "json:the kind,json:n,txt")
    assert list(dataset["labels"]) == ["the_kind", "n", "txt"], "cls was not named"
    assert dataset["options"]["label"] == "json:the kind,json:n,txt"
    assert dataset["labels"]["n"]["values"] == [-2, -1, 0]
    assert classes(tmp_path, dataset, "the_kind") == ["ab"[i % 2] for i in range(N)]
    assert classes(tmp_path, dataset, "n") == [str(-(i % 3)) for i in range(N)]
    assert classes(tmp_path, dataset, "txt") == [f"t{i % 5}" for i in range(N)]
    again = capsys.readouterr() and index(tmp_path)  # as `distgan index` names no options
    assert again == dataset
    assert "was indexed with --label=json:the kind,json:n,txt, and is" in capsys.readouterr().out
    other = index(tmp_path, "--image=png", "--label", "cls")
    assert list(other["labels"]) == ["cls"] and other["options"] == {"image": "png", "label": "cls"}
    kept = index(tmp_path, "--label=txt")
    assert list(kept["labels"]) == ["txt"] and kept["options"] == {"image": "png", "label": "txt"}
    (tmp_path / "dataset.json").unlink()
    assert list(index(tmp_path)["labels"]) == ["cls"]
    for label, error, message in (
        ("json", ConfigError, "a label is a key of a field of JSON, json:KEY"),
        ("txt:kind", ConfigError, "a label is a key of a field of JSON"),
        ("text", ConfigError, "no field 'text'; there are: cls, json, png, txt"),
        ("txt,txt", ConfigError, "another label is named txt"),
        ("json:", ConfigError, "--label: .*allowed: FIELD or FIELD:KEY"),
        ("json:kind", DataError, "20 of 20 samples have neither .* such as (train|validation)/s"),
        ("png", DataError, "neither a text nor a whole number"),
    ):
        with pytest.raises(error, match=message):
            index(tmp_path, f"--label={label}")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (lambda i: i % 2 or "none", "some samples have a text there, others a whole number"),
        (lambda i: bool(i % 2), "20 of 20 samples have neither a text nor a whole number"),
        (lambda i: None if i == 3 else i % 2, "1 of 20 .*such as [a-z]+/s03"),
        (lambda i: "same", "one class only, 'same', for all samples"),
        (lambda i: "ab"[i % 2] + "\x1b[2J", "cannot be a value"),
        (lambda i: "x" * (201 + i % 2), "cannot be a value"),
    ],
)
def test_values_that_are_no_labels_are_told(tmp_path, value, message):
    tars(tmp_path, json=lambda i: {"kind": value(i)})
    with pytest.raises(DataError, match=f"--label json:kind: .*{message}"):
        index(tmp_path, "--label", "json:kind")
    assert not (tmp_path / "dataset.json").exists()
