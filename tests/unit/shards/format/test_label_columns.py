"""The entry `labels` of dataset.json, which no checksum covers, and the labels in the members."""

import json

import pytest
from audits import write_set

from distgan.core.errors import DataError
from distgan.data.dataset import Data
from distgan.shards.format.labels import column_of, labels_of, read_labels, typed
from distgan.shards.format.reader import open_parts

GOOD = {"field": "json", "key": "kind", "values": ["a", "b"], "names": ["A", "B"]}


def entry(**changes) -> dict:
    return {"labels": {"kind": {**GOOD, **changes}}}


def test_columns_are_read_as_they_were_written():
    assert labels_of({}, ["json", "png"]) == {} == labels_of({"labels": {}}, ["json"])
    column = labels_of(entry(), ["json", "png"])["kind"]
    assert column.entry() == GOOD and column.numbers == {"a": 0, "b": 1}
    assert column_of("kind", "json", "kind", ["b", "a", "b"]).values == ("a", "b")


@pytest.mark.parametrize(
    "dataset",
    [
        {"labels": []},
        {"labels": "kind"},
        {"labels": {"kind": 7}},
        {"labels": {"a b": GOOD}},
        {"labels": {"-kind": GOOD}},
        {"labels": {"": GOOD}},
        {"labels": {"k" * 61: GOOD}},
        {"labels": {"kind\n": GOOD}},
        entry(field="cls"),
        entry(field=["json"]),
        entry(field="../json"),
        entry(key=None),
        entry(key=7),
        entry(field="png"),  # with a key, and no JSON
        entry(values=[]),
        entry(values=5),
        entry(values=True),
        entry(values="ab"),
        entry(values=["a", "a"]),
        entry(values=["a", 1]),
        entry(values=[True, False]),
        entry(values=[1.0, 2.0]),
        entry(values=[["a"], ["b"]]),
        entry(values=["a", ""]),
        entry(values=["a", "b\x1b[31m"]),
        entry(values=["a", "\u202eb"]),
        entry(values=["a", "\ud800"]),
        entry(values=["a", "b" * 201]),
        entry(values=list(range(100_001)), names=[str(i) for i in range(100_001)]),
        entry(names=["A"]),
        entry(names=["A", "A"]),
        entry(names=["A", 2]),
        entry(names=None),
    ],
    ids=str,
)
def test_a_hostile_entry_is_refused(dataset):
    with pytest.raises(ValueError, match="labels"):
        labels_of(dataset, ["json", "png"])


def members(*labels: object, field: str = "json") -> list[dict]:
    return [
        {
            "__key__": f"k{i}",
            "png": bytes([i]),
            field: data if isinstance(data, bytes) else b"%a" % data,
        }
        for i, data in enumerate(labels)
    ]


def test_a_hostile_entry_is_one_message_of_the_data_set(tmp_path):
    sample = {"kind": "image", "channels": 1, "size": 16, "field": "png"}
    write_set(tmp_path, members(b"{}"), members(b"[]"), sample, **entry(names=["A"]))
    with pytest.raises(DataError, match=r"dataset.json is damaged \(labels: names of kind"):
        Data(str(tmp_path))


@pytest.mark.parametrize(
    ("column", "data", "message"),
    [
        (GOOD, b'{"kind": "c"}', "the label 'c' in kind of json is none of the 2 classes of kind"),
        (GOOD, b"{}", "kind of json holds no text, the label of kind"),
        (GOOD, b'{"kind": 1}', "holds no text"),
        (GOOD, b'{"kind": ["a"]}', "holds no text"),
        (GOOD, b"[" * 100_000, "holds no text"),
        (GOOD, b'["kind"]', "holds no text"),
        (GOOD, b"\xff", "holds no text"),
        ({**GOOD, "values": [1, 2]}, b'{"kind": true}', "holds no whole number"),
        ({**GOOD, "values": [1, 2]}, b'{"kind": "1"}', "holds no whole number"),
        ({**GOOD, "values": [1, 2]}, b'{"kind": 1e400}', "holds no whole number"),
        ({**GOOD, "key": None, "field": "cls", "values": [1, 2]}, b"3", "'3' in cls is none"),
        ({**GOOD, "key": None, "field": "cls", "values": [1, 2]}, b"", "cls holds no whole number"),
        ({**GOOD, "key": None, "field": "cls", "values": [1, 2]}, b"01", "holds no whole number"),
        ({**GOOD, "key": None, "field": "cls", "values": [1, 2]}, b"+1", "holds no whole number"),
    ],
)
def test_a_label_that_cannot_be_read_names_its_sample(tmp_path, column, data, message):
    field = column["field"]
    good = b'{"kind": "a"}' if column["values"] == ["a", "b"] else b'{"kind": 1}'
    train = members(good if field == "json" else b" 2\n", data, field=field)
    write_set(tmp_path, train, train[:1], {"kind": "unknown"})
    split = open_parts(tmp_path)["train"]
    read = labels_of({"labels": {"kind": column}}, [field, "png"])["kind"]
    with pytest.raises(DataError, match="sample k1 of ") as raised:
        read_labels(split, read)
    assert message in str(raised.value)
    only = open_parts(tmp_path)["validation"]
    assert read_labels(only, read).tolist() == [0 if field == "json" else 1]


def test_values_are_whole_numbers_where_all_are():
    assert typed(["10", "2", "-1"]) == [10, 2, -1] and typed([3, "4"]) == [3, 4]
    assert typed(["10", "2", "x"]) == ["10", "2", "x"] and typed([3, "x"]) == ["3", "x"]
    assert typed(["1.0", "2"]) == ["1.0", "2"] and typed(["٣"]) == ["٣"]
    assert column_of("n", "cls", None, typed(["10", "9"])).names == ("9", "10")
    for values in ([""], ["a\nb"], ["x" * 201]):
        with pytest.raises(ValueError, match="cannot be a value"):
            column_of("n", "cls", None, values)
    assert json.dumps(column_of("n", "cls", None, [1]).entry())
