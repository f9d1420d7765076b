"""Vectors of an array, of a table, and points of Gaussians; an error names what is no number."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import shard_sets

from distgan.core.errors import ConfigError, DataError
from distgan.data.dataset import Data
from distgan.shards.format.labels import labels_of, read_labels
from distgan.shards.sources.gaussians import RADIUS

ROWS = np.random.default_rng(0).normal(size=(40, 3))


def shard(source: str, out: Path, *options: object) -> Data:
    assert shard_sets.shard(source, out, "--workers", 1, *options) == 0
    return Data(str(out))


def table(path: Path, rows: np.ndarray = ROWS, header: str = "x,y,z,kind", more=None) -> Path:
    more = more or (lambda i: "ab"[i % 2])
    lines = [",".join([*map(str, row.tolist()), str(more(i))]) for i, row in enumerate(rows)]
    path.write_text("\n".join([header, *lines]))
    return path


def rows_of(data: Data) -> np.ndarray:
    """All vectors by their keys."""
    splits = (data.train, data.validation)
    keys = [split.key(i) for split in splits for i in range(len(split))]
    whole = np.concatenate([data.decode(split, range(len(split))).numpy() for split in splits])
    assert whole.dtype == np.float32
    return whole[np.argsort(keys)]


def test_an_array_and_a_table_hold_the_same_vectors(tmp_path, capsys):
    np.save(tmp_path / "a.npy", ROWS)
    given = table(tmp_path / "a.csv")
    array = shard("vectors", tmp_path / "array", "--from", tmp_path / "a.npy")
    of_table = shard("vectors", tmp_path / "table", "--from", given, "--labels", "kind")
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith(
        "next: distgan new my_gan.py --kind vector --conditional  # then: distgan train"
    )
    assert np.array_equal(rows_of(array), ROWS.astype(np.float32))
    assert np.array_equal(rows_of(of_table), ROWS.astype(np.float32))
    assert (array.kind, array.shape, array.sample.columns) == ("vector", (3,), ())
    assert of_table.sample.columns == ("x", "y", "z")
    column = labels_of(json.loads((tmp_path / "table/dataset.json").read_text()), ["json"])["kind"]
    keys = [int(of_table.train.key(i)) % 2 for i in range(len(of_table.train))]
    assert column.names == ("a", "b") and read_labels(of_table.train, column).tolist() == keys
    two = shard("vectors", tmp_path / "two", "--from", given, "--columns", "z, x")
    assert np.array_equal(rows_of(two), ROWS[:, [2, 0]].astype(np.float32))
    with pytest.raises(ConfigError, match="made with other options"):
        shard("vectors", tmp_path / "two", "--from", given, "--columns", "z")


def test_notes_tell_constant_columns_and_equal_rows_stay_on_one_side(tmp_path):
    np.save(tmp_path / "a.npy", np.array([[i % 5, 7] for i in range(40)]))
    data = shard("vectors", tmp_path / "out", "--from", tmp_path / "a.npy")
    sides = [
        {tuple(row) for row in data.decode(s, range(len(s))).tolist()}
        for s in (data.train, data.validation)
    ]
    assert not sides[0] & sides[1] and len(sides[0] | sides[1]) == 5
    notes = json.loads((tmp_path / "out/dataset.json").read_text())["notes"]
    assert notes == ["the same in all rows: column 1", "35 rows are equal to an earlier one"]


def test_rows_with_values_that_are_no_numbers_are_named_and_can_be_left_out(tmp_path):
    rows = ROWS.copy()
    rows[3, 1], rows[7, 0], rows[9, 2] = np.nan, np.inf, 1e300
    np.save(tmp_path / "a.npy", rows)
    with pytest.raises(DataError) as error:
        shard("vectors", tmp_path / "out", "--from", tmp_path / "a.npy")
    for said in ("3 of 40 samples cannot be read", "row 3", "column 1 is nan", "column 0 is inf"):
        assert said in str(error.value)
    assert "row 9" in str(error.value) and not (tmp_path / "out").exists()
    kept = ["--drop-unreadable", "--from"]
    data = shard("vectors", tmp_path / "out", *kept, tmp_path / "a.npy")
    assert np.array_equal(rows_of(data), np.delete(ROWS, [3, 7, 9], 0).astype(np.float32))
    lines = table(tmp_path / "a.csv").read_text().splitlines()
    lines[5] = "1,,3,a"
    (tmp_path / "a.csv").write_text("\n".join(lines))
    with pytest.raises(DataError, match=r"line 6.*y is nan"):
        shard("vectors", tmp_path / "no", "--from", tmp_path / "a.csv", "--labels", "kind")


@pytest.mark.parametrize(
    ("text", "options", "said"),
    [
        ("x,y\n1,2\n3,cat\n", (), "no numbers: y (line 3: 'cat'). Make them labels with --labels y,"
         " leave them out with --columns x"),
        ("x,y\n1,2\n1_0,2\n", (), "no numbers: x (line 3: '1_0')"),
        ("x,y\n1,2\n3\n", (), "line 3 has 1 values, the header 2"),
        ("1,2\n3,4\n5,6\n", (), "the first line must be a header"),
        ("x,x\n1,2\n3,4\n", (), "the first line must be a header"),
        ("", (), "the first line must be a header"),
        ("x,y\n1,2\n", (), "1 rows of 2 numbers"),
        ("x,y\n1,2\n3,4\n", ("--columns", "z"), "--columns: no column 'z'; there are: x, y"),
        ("x,y\n1,2\n3,4\n", ("--labels", "yy"), "no column 'yy' (did you mean y?)"),
        ("x,y\n1,2\n3,2\n", ("--labels", "y"), "column y has one class only"),
        ("x,y\n1,2\n3,\n", ("--labels", "y"), "column y is empty for 1 of 2 rows, such as line 3"),
        ("x,y\n1,2\n3,4\n", ("--labels", "y", "--columns", "y"), "both name y"),
    ],
)  # fmt: skip
def test_a_table_that_does_not_fit_is_told(tmp_path, text, options, said):
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(ConfigError, match=re.escape(said)):
        shard("vectors", tmp_path / "out", "--from", tmp_path / "a.csv", *options)


def crafted(header: str) -> bytes:
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode() + bytes(8)


def shaped(shape: str) -> bytes:
    return crafted(f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}}}\n")


@pytest.mark.parametrize(
    ("array", "said"),
    [
        (np.zeros(5), "an array of float64 [5]"),
        (np.zeros((4, 2), np.complex64), "an array of complex64 [4, 2]"),
        (np.zeros((4, 0)), "4 rows of 0 numbers"),
        (np.array([[{}], [{}]]), "not an array of numbers as np.save writes it"),
        (b"no array, but longer", "not an array of numbers as np.save writes it"),
        (shaped("(-20, 2)"), "a.npy: not an array of numbers as np.save writes it"),
        (shaped("(True, 2)"), "a.npy: not an array of numbers as np.save writes it"),
        (crafted("(" * 3000), "a.npy: not an array of numbers as np.save writes it"),
        (None, "No such file"),
    ],
)
def test_an_array_that_does_not_fit_is_told(tmp_path, array, said):
    if isinstance(array, bytes):
        (tmp_path / "a.npy").write_bytes(array)
    elif array is not None:
        np.save(tmp_path / "a.npy", array, allow_pickle=True)
    with pytest.raises(ConfigError, match=re.escape(said)):
        shard("vectors", tmp_path / "out", "--from", tmp_path / "a.npy")
    with pytest.raises(ConfigError, match="an array has no names of columns"):
        shard("vectors", tmp_path / "out", "--from", tmp_path / "a.npy", "--labels", "x")


def test_a_point_depends_on_the_seed_and_its_number_alone(tmp_path):
    data = shard("gaussians", tmp_path / "one", "--n", 60)
    whole, few = rows_of(data), shard("gaussians", tmp_path / "few", "--n", 20, "--per-shard", 7)
    assert np.array_equal(whole[:20], rows_of(few))
    other = rows_of(shard("gaussians", tmp_path / "other", "--n", 20, "--seed", 1))
    assert not np.isin(other, whole).any()
    column = labels_of(json.loads((tmp_path / "one/dataset.json").read_text()), ["json"])["mode"]
    modes = read_labels(data.train, column)
    assert len(column.names) == 8 and set(modes.tolist()) == set(range(8))
    angles = 2 * np.pi * modes / 8
    places = RADIUS * np.stack([np.cos(angles), np.sin(angles)], 1)
    apart = np.abs(data.decode(data.train, range(len(data.train))).numpy() - places)
    assert apart.max() < 0.25 and 0.03 < apart.std() < 0.07
