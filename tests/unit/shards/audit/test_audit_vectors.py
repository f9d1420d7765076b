"""`distgan check` on vectors: values that are no numbers, constant columns, duplicates."""

import json

import numpy as np
import pytest
from audits import check, found, write_set

from distgan.shards.codecs import array

ABOUT = {"kind": "vector", "size": 3, "field": "npy", "columns": ["x", "y", "same"]}


def vector(key: str, number: int | np.ndarray, kind: str = "a") -> dict:
    values = number
    if isinstance(number, int):
        values = np.append(np.random.default_rng(number).normal(size=2), 7).astype(np.float32)
    text = json.dumps({"kind": kind}).encode()
    return {"__key__": key, "npy": array.encode(values), "json": text}


def vector_set(root, *faults: dict, validation: tuple[dict, ...] = (), **more):
    train = [vector(f"t{i}", i, "ab"[i % 2]) for i in range(12)]
    held_out = [vector(f"v{i}", 100 + i, "ab"[i % 2]) for i in range(4)]
    return write_set(
        root, [*train, *faults], [*held_out, *validation], ABOUT, source="vectors", **more
    )


@pytest.mark.gate
def test_a_clean_set_is_described(tmp_path, capsys):
    names = ["a", "b"]
    labels = {"kind": {"field": "json", "key": "kind", "values": names, "names": names}}
    code, report = check(vector_set(tmp_path / "data", labels=labels))
    assert code == 0 and found(report) == [("constant", "WARN", "", "same")]
    assert report["columns"]["same"] == {"mean": 7, "sd": 0, "min": 7, "max": 7}
    assert -1 < report["columns"]["x"]["mean"] < 1 and report["columns"]["x"]["sd"] > 0
    assert report["labels"]["kind"]["a"] == {"train": 6, "validation": 2}
    out = capsys.readouterr().out
    assert "column" in out and "distgan new my_gan.py --kind vector" in out.splitlines()[-1]
    assert (tmp_path / "data" / "audit" / "statistics.png").is_file()


def test_columns_of_other_scales_are_told(tmp_path):
    about = ABOUT | {"columns": ["x", "y", "mass"]}
    rows = np.random.default_rng(0).normal(size=(16, 3)).astype(np.float32) * [1, 2, 30]
    rows = [vector(f"t{i}", row.astype(np.float32)) for i, row in enumerate(rows)]
    root = write_set(tmp_path / "data", rows[:12], rows[12:], about, source="vectors")
    _, report = check(root)
    assert found(report) == [("scale", "WARN", "", "mass")]
    assert "that of x" in report["findings"][0]["detail"]


def test_every_fault_of_a_vector_is_found(tmp_path):
    broken = {**vector("broken", 50), "npy": b"no array"}
    root = vector_set(
        tmp_path / "data",
        broken,
        vector("long", np.zeros(4, np.float32)),
        vector("nan", np.array([1, np.nan, 2], np.float32)),
        vector("twice", 0),
        validation=(vector("leak", 5),),
    )
    code, report = check(root)
    assert code == 1
    assert found(report) == [
        ("constant", "WARN", "", "same"),
        ("duplicate", "WARN", "train", "twice"),
        ("duplicate-leak", "FAIL", "validation", "leak"),
        ("not-finite", "FAIL", "train", "nan"),
        ("undecodable", "FAIL", "train", "broken"),
        ("undecodable", "FAIL", "train", "long"),
    ]
    details = {finding["key"]: finding["detail"] for finding in report["findings"]}
    assert details["nan"] == "y is nan" and details["leak"] == "the values of train/t5"
    assert "an array of float32 [4], expected float32 [3]" in details["long"]
