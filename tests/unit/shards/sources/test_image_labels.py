"""`shard images --labels`: every form gives the same set, and every fault is reported before
anything is written.
"""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from distgan.core.errors import ConfigError
from distgan.data.dataset import Data
from distgan.shards.build import command as build_command
from distgan.shards.format.labels import labels_of, read_labels
from distgan.shards.format.reader import open_parts

FILES = [f"{animal}/{i}.png" for animal in ("ant", "bee") for i in range(10)]
CLASSES = {file: file.partition("/")[0] for file in FILES}


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("labelled") / "photos"
    for k, file in enumerate(FILES):
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(k).integers(0, 256, (8, 8), np.uint8)
        Image.fromarray(pixels).save(folder / file)
    return folder


def shard(photos: Path, out: Path, *options: object, size: int = 8) -> dict:
    line = ["images", out, "--from", photos, "--size", size, "--workers", 1, *options]
    assert build_command.main([str(word) for word in line]) == 0
    return json.loads((out / "dataset.json").read_text())


def read(out: Path, column: str) -> dict[str, int]:
    """File -> number of the class, as training reads it."""
    dataset = json.loads((out / "dataset.json").read_text())
    classes = {}
    for split in open_parts(out).values():
        numbers = read_labels(split, labels_of(dataset, split.fields)[column])
        for i, number in enumerate(numbers.tolist()):
            classes[json.loads(split.fields_of(i, ("json",))["json"])["file"]] = number
    return classes


def write(path: Path, content: object) -> Path:
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def csv_of(rows: dict[str, str], header: str = "file,class") -> str:
    return "\n".join([header, *(f"{file},{value}" for file, value in rows.items())])


FORMS = {
    "l.csv": csv_of(CLASSES),
    "last.CSV": "\ufeffclass, File_Name \r\n"
    + "".join(f"{c}, ./{f}\r\n" for f, c in CLASSES.items()),
    "plain.json": CLASSES,
    "columns.json": {file: {"class": name} for file, name in CLASSES.items()},
    "list.json": [{"path": file, "class": name} for file, name in CLASSES.items()],
    "stylegan.json": {"labels": [[file, name] for file, name in CLASSES.items()]},
}


@pytest.mark.parametrize("form", ["folders", *FORMS])
def test_every_form_gives_the_same_labels(photos, tmp_path, form, capsys):
    given = form if form == "folders" else write(tmp_path / form, FORMS[form])
    dataset = shard(photos, tmp_path / "out", "--labels", given)
    names = ["ant", "bee"]
    entry = {"field": "json", "key": "class", "values": names, "names": names}
    assert dataset["labels"] == {"class": entry}
    assert read(tmp_path / "out", "class") == {f: names.index(c) for f, c in CLASSES.items()}
    line = f"next: distgan run --processes 2 sagan data={tmp_path / 'out'}"
    assert line not in capsys.readouterr().out, "8 pixels are too few"


def test_several_columns_numbers_and_the_next_lines(photos, tmp_path, capsys):
    rows = {file: {"legs": 12 - k % 3, "kind": CLASSES[file]} for k, file in enumerate(FILES)}
    rows[FILES[0]]["kind"] = "7"
    given = write(tmp_path / "l.json", rows)
    dataset = shard(photos, tmp_path / "out", "--labels", given, size=16)
    assert dataset["labels"]["legs"]["values"] == [10, 11, 12]
    assert dataset["labels"]["legs"]["names"] == ["10", "11", "12"]
    assert dataset["labels"]["kind"]["values"] == ["7", "ant", "bee"]
    assert read(tmp_path / "out", "legs") == {f: 2 - k % 3 for k, f in enumerate(FILES)}
    assert "classes of kind with one image: 1, such as 7" in dataset["notes"]
    assert any("classes of kind without a sample in" in note for note in dataset["notes"])
    run = f"next: distgan run --processes 2 sagan data={tmp_path / 'out'}"
    first, second = capsys.readouterr().out.splitlines()[-2:]
    assert first.partition("  #")[0] == run and second == f"{run} conditional=true label=legs"
    sample = json.loads(Data(str(tmp_path / "out")).train[0]["json"])
    assert set(sample) == {"file", "width", "height", "mode", "legs", "kind"}


def test_another_file_of_labels_is_another_set(photos, tmp_path):
    given = write(tmp_path / "l.csv", csv_of(CLASSES))
    shard(photos, tmp_path / "out", "--labels", given)
    moved = write(tmp_path / "moved.csv", csv_of(CLASSES))
    shard(photos, tmp_path / "out", "--labels", moved)
    write(given, csv_of(CLASSES | {FILES[0]: "bee"}))
    for options in (["--labels", given], ["--labels", "folders"], []):
        with pytest.raises(ConfigError, match=r"other options.*\n  --labels: csv with sha256"):
            shard(photos, tmp_path / "out", *options)


def test_without_labels_the_set_is_that_of_earlier_versions(photos, tmp_path):
    dataset = shard(photos, tmp_path / "out", "--payload", "raw")
    assert "labels" not in dataset and "labels" not in dataset["origin"]
    assert list(dataset["options"])[:8] == [
        *("size", "fit", "channels", "range", "payload", "decoding"),
        "from",
        "validation",
    ]
    assert dataset["fingerprint"] == "a953c29be9cc7f2f"


WITHOUT = {file: name for file, name in CLASSES.items() if file != "bee/9.png"}
FAULTS = {
    "1 of 20 images have no label, such as bee/9.png; add them, or move": csv_of(WITHOUT),
    "2 labels are of no image below": {**CLASSES, "x.png": "ant", "/etc/y.png": "ant"},
    "column class is empty for 1 of 20 images, such as ant/0.png": csv_of(
        CLASSES | {FILES[0]: " "}
    ),
    "column class is empty for 1 of 20 images": CLASSES | {FILES[0]: None},
    "neither texts nor whole numbers for 1 of 20 images, such as ant/0.png: 1.5": {
        **CLASSES,
        FILES[0]: 1.5,
    },
    "neither texts nor whole numbers for 1": CLASSES | {FILES[0]: True},
    "neither texts nor whole numbers for 2": CLASSES | {FILES[0]: [0, 1], FILES[1]: [1, 0]},
    "column class has one class only, 'ant'; leave it out": dict.fromkeys(FILES, "ant"),
    "'a\\x1b' cannot be a value": CLASSES | {FILES[0]: "a\x1b"},
    "'\\ud800' cannot be a value": CLASSES | {FILES[0]: "\ud800"},
    "'mode' cannot be the name of a column": csv_of(CLASSES, "file,mode"),
    "'wing span' cannot be the name of a column": csv_of(CLASSES, "file,wing span"),
    "the first line must be a header, such as file,class; it is ant/0.png": csv_of(CLASSES)[11:],
    "must be a header, such as file,class, of different names; it is 'file'": "file\n" + FILES[0],
    "line 3 has 3 values, the header 2": f"file,class\n{FILES[0]},ant\n{FILES[1]},ant,7",
    "ant/0.png occurs twice": csv_of(CLASSES) + "\n./ant//0.png,ant",
    "it has no column of labels": {file: {} for file in FILES},
    'labels must be a list of ["path", value]': {"labels": [["ant/0.png", 1, 2]]},
    "'7' is no name of a file": [{"file": 7, "class": "ant"}],
    "allowed are": [{"image": "ant/0.png", "class": "ant"}],
    "Expecting value": "nothing",
    "nested too deeply": "[" * 5000,
}


@pytest.mark.parametrize("message", FAULTS)
def test_a_fault_of_the_file_is_one_error_and_nothing_is_written(photos, tmp_path, message):
    content = FAULTS[message]
    is_csv = isinstance(content, str) and ".png" in content
    given = write(tmp_path / f"l.{'csv' if is_csv else 'json'}", content)
    with pytest.raises(ConfigError) as raised:
        shard(photos, tmp_path / "out", "--labels", given)
    assert message in str(raised.value) and str(raised.value).startswith(f"--labels {given}: ")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ('{"ant/0.png": "ant", "ant/0.png": "bee"}', "ant/0.png"),
        ('[{"file": "ant/0.png", "class": "ant", "class": "bee"}]', "class"),
    ],
)
def test_a_key_that_is_repeated_in_json_is_an_error(photos, tmp_path, text, key):
    (tmp_path / "l.json").write_text(text)
    with pytest.raises(ConfigError, match=f"--labels .*: '{key}' occurs twice"):
        shard(photos, tmp_path / "out", "--labels", tmp_path / "l.json")


def test_folders_and_files_that_cannot_be_labels_are_refused(photos, tmp_path):
    (tmp_path / "utf16.csv").write_bytes("file,class".encode("utf-16"))
    flat, mixed = tmp_path / "flat", tmp_path / "mixed"
    for folder, names in ((flat, ["a.png"]), (mixed, ["a.png", "x/b.png"])):
        for k, name in enumerate(names):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.full((8, 8), 9 * k, np.uint8)).save(folder / name)
    for folder, given, message in (
        (flat, "folders", "no image is in a folder below"),
        (mixed, "folders", "1 of 2 images are in .*mixed itself, such as a.png, and have no class"),
        (photos, tmp_path / "lost.csv", "No such file"),
        (photos, tmp_path / "utf16.csv", "not UTF-8"),
        (photos, tmp_path / "l.txt", r"--labels: .*allowed: folders, or a file .csv or .json"),
    ):
        with pytest.raises(ConfigError, match=message):
            shard(folder, tmp_path / "out", "--labels", given)
    assert not (tmp_path / "out").exists()
