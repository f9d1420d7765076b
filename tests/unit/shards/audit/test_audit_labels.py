"""`distgan check` on labels: counted by class and split, and graded."""

import copy
import json
from pathlib import Path

import numpy as np
import pytest
from audits import check, found, write_set

from distgan.shards.audit import command as audit_command
from distgan.shards.audit.labels import Examiner
from distgan.shards.codecs.image import encode
from distgan.shards.format.labels import labels_of


@pytest.fixture(autouse=True)
def no_pictures(monkeypatch):
    monkeypatch.setattr(audit_command._Quality, "draw", lambda *_: [])


def labelled(root: Path, train: list, validation: list, names: list[str], **changes) -> Path:
    """Noise of 16 pixels, with a label each: a class, or the bytes of the member."""
    samples: list[list[dict]] = [[], []]
    for part, labels in enumerate((train, validation)):
        for i, label in enumerate(labels):
            rng = np.random.default_rng(1000 * part + i)
            about = label if isinstance(label, bytes) else json.dumps({"kind": label}).encode()
            image = encode(rng.integers(0, 256, (16, 16), np.uint8), "png")[1]
            samples[part].append({"__key__": f"{part}{i:03d}", "png": image, "json": about})
    column = {"field": "json", "key": "kind", "values": names, "names": names, **changes}
    sample = {"kind": "image", "channels": 1, "size": 16, "field": "png"}
    return write_set(root, *samples, sample, labels={"kind": column})


def test_classes_are_counted_by_split(tmp_path, capsys):
    root = labelled(tmp_path, ["ant"] * 6 + ["bee"] * 4, ["ant", "bee", "bee"], ["ant", "bee"])
    code, report = check(root, "--strict", "--limit", "2")
    assert (code, report["findings"]) == (0, [])
    assert report["labels"] == {
        "kind": {"ant": {"train": 6, "validation": 1}, "bee": {"train": 4, "validation": 2}}
    }
    rows = {row["check"]: row for row in report["checks"]}
    assert (rows["label"]["total"], rows["class-few"]["total"]) == (13, 2)
    assert rows["imbalance"]["measured"]["max"] == 1.5
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    at = lines.index(["labels", "kind:", "2", "classes", "train", "validation"])
    assert lines[at + 1 : at + 3] == [["ant", "6", "1"], ["bee", "4", "2"]]


def test_rare_classes_are_warned_of(tmp_path):
    labels = ["a"] * 22 + ["b", "b"] + ["c"]
    root = labelled(tmp_path, labels, ["a"], ["a", "b", "c", "d"])
    code, report = check(root)
    assert code == 0 and found(report) == [
        ("class-few", "WARN", "train", "kind c"),
        ("class-few", "WARN", "train", "kind d"),
        ("imbalance", "WARN", "train", "kind b"),
        ("imbalance", "WARN", "train", "kind c"),
    ]
    worst = next(row["worst"] for row in report["checks"] if row["check"] == "imbalance")
    assert (worst["value"], worst["threshold"], worst["unit"]) == (22, 10, "times")
    assert check(root, "--strict")[0] == 1
    changed = ["--threshold", "class-few=-,1", "--threshold", "imbalance=-,-"]
    assert found(check(root, *changed)[1]) == [("class-few", "FAIL", "train", "kind d")]


def test_labels_that_cannot_be_read_are_failures_with_their_samples(tmp_path):
    labels = ["a", "b", "a", "b", "c", 7, b"{", b"\xff"]
    code, report = check(labelled(tmp_path, labels, ["a", b"[]"], ["a", "b"]))
    assert code == 1 and found(report) == [
        *(("label", "FAIL", "train", f"000{i}") for i in range(4, 8)),
        ("label", "FAIL", "validation", "1001"),
    ]
    details = [finding["detail"] for finding in report["findings"]]
    assert details[0] == "the label 'c' in kind of json is none of the 2 classes of kind"
    assert details[1] == "kind of json holds no text, the label of kind"
    assert report["labels"]["kind"]["a"] == {"train": 2, "validation": 1}


def test_a_damaged_entry_is_a_failure_of_the_data_set(tmp_path):
    code, report = check(labelled(tmp_path, ["a", "b"], ["a"], ["a", "a"]))
    assert code == 1 and found(report) == [("dataset", "FAIL", "", "")]
    assert "dataset.json is damaged: labels: values of kind" in report["findings"][0]["detail"]
    assert "labels" not in report


def test_of_many_classes_the_extremes_are_shown(tmp_path, capsys):
    names = [f"n{i}" for i in range(40)]
    labels = [name for i, name in enumerate(names) for _ in range(2 + (i == 7))]
    code, report = check(labelled(tmp_path, labels, ["n0"], names))
    assert code == 0 and len(report["labels"]["kind"]) == 40
    columns = list(
        labels_of(json.loads((tmp_path / "dataset.json").read_text()), ["json"]).values()
    )
    assert columns[0].numbers["n39"] == 39
    assert copy.deepcopy(Examiner(columns)).columns == columns, "for the workers"
    lines = capsys.readouterr().out.splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("labels kind: 40 classes"))
    assert lines[start + 1].split() == ["n7", "3", "0"]
    assert lines[start + 13].split() == ["…", "16", "more"]
    assert lines[start + 25].split() == ["n39", "2", "0"]
    assert lines[start + 26].startswith("integrity ok")


def test_equal_images_of_two_classes_contradict_each_other(tmp_path, capsys):
    root = labelled(tmp_path, ["ant", "bee", "ant", "bee"] * 2, ["ant", "bee"], ["ant", "bee"])
    image = encode(np.arange(256, dtype=np.uint8).reshape(16, 16), "png")[1]
    parts: list[list[dict]] = [[], []]
    for part, labels in enumerate((["ant", "bee", "ant", "bee", "ant"], ["bee", "ant"])):
        for i, label in enumerate(labels):
            noise = np.random.default_rng(10 * part + i).integers(0, 256, (16, 16), np.uint8)
            png = image if i < 3 - 2 * part else encode(noise, "png")[1]
            about = json.dumps({"kind": label}).encode()
            parts[part].append({"__key__": f"{part}{i}", "png": png, "json": about})
    about = json.loads((root / "dataset.json").read_text())
    root = write_set(tmp_path / "equal", *parts, about["sample"], labels=about["labels"])
    code, report = check(root, "--threshold", "class-few=-,-")
    of_equal = [row for row in found(report) if row[0] in ("contradiction", "duplicate-leak")]
    assert code == 1 and sorted(of_equal) == [
        ("contradiction", "WARN", "train", "01"),
        ("contradiction", "WARN", "validation", "10"),
        ("duplicate-leak", "FAIL", "validation", "10"),
    ]
    assert [row[3] for row in found(report) if row[0] == "duplicate"] == ["02"]
    details = {one["key"]: one["detail"] for one in report["findings"] if one["check"][:3] == "con"}
    assert details["01"] == "the pixels of train/00, but kind is bee here and ant there"
    assert "contradiction" in capsys.readouterr().out


def test_the_next_lines_of_labelled_images_have_conditional_networks(tmp_path, capsys):
    root = labelled(tmp_path, ["ant"] * 6 + ["bee"] * 4, ["ant", "bee"], ["ant", "bee"])
    assert check(root)[0] == 0
    first, second = capsys.readouterr().out.splitlines()[-2:]
    line = f"next: distgan run --processes 2 sagan data={root}"
    assert first.partition("  #")[0] == line and second == f"{line} conditional=true"
