"""Vectors: batches hold what the shards hold; an error names the key of what is none."""

import io
import itertools
import json
import re

import numpy as np
import pytest
import shard_sets
import torch

from distgan.config import batch_layout
from distgan.core.errors import DataError
from distgan.data.dataset import Data
from distgan.data.loader import Stream, located
from distgan.shards.format.sample_spec import sample_of

VECTOR = {"kind": "vector", "size": 2, "field": "npy"}


def npy(array) -> bytes:
    file = io.BytesIO()
    np.save(file, array, allow_pickle=True)
    return file.getvalue()


@pytest.mark.parametrize("resident", [0, 1 << 20])
def test_batches_of_vectors_are_those_of_the_shards(tmp_path, resident):
    data = Data(str(shard_sets.vectors(tmp_path / "data", 20, size=3)))
    assert (data.shape, data.sample.bytes, len(data.validation)) == ((3,), 12, 3)
    layout, seen = batch_layout.fit(12, 2, 3), {}
    for rank in range(2):
        stream = Stream(data, 3, layout, rank, torch.device("cpu"), resident_bytes=resident)
        for micro in itertools.chain(*itertools.islice(stream, 5)):
            assert micro.real.shape == (2, 3) and micro.real.dtype == torch.float32
            seen |= dict(zip(micro.positions.tolist(), micro.real[:, 0].tolist(), strict=True))
    numbers, _ = located(data, 3, 0, np.arange(60))
    assert [seen[i] for i in range(60)] == numbers.tolist()


@pytest.mark.parametrize(
    ("member", "said"),
    [
        (npy(np.zeros(3, np.float32)), "an array of float32 [3], expected float32 [2]"),
        (npy(np.zeros((2, 1), np.float32)), "an array of float32 [2, 1], expected float32 [2]"),
        (npy(np.zeros(2)), "an array of float64 [2], expected float32 [2]"),
        (npy(np.zeros(2, ">f4")), "an array of >f4 [2], expected float32 [2]"),
        (npy(np.array([{}, {}])), "an array of object [2]"),
        (npy(np.array([0, np.nan], np.float32)), "value 1 of the vector is nan"),
        (npy(np.array([-np.inf, 0], np.float32)), "value 0 of the vector is -inf"),
        (npy(np.zeros(2, np.float32))[:-1], "an array of float32 [2] in 7 bytes"),
        (b"\x93NUMPY\x01\x00", "does not decode"),
        (b"", "does not decode"),
    ],
)
def test_what_is_no_vector_is_told_by_its_key(tmp_path, member, said):
    good = npy(np.ones(2, np.float32))
    sample = lambda i: {"__key__": f"k{i}", "npy": member if i == 1 else good}  # noqa: E731
    data = Data(str(shard_sets.write(tmp_path / "data", VECTOR, sample, 4, 2, 10)))
    assert torch.equal(data.decode(data.train, [0, 2]), torch.ones(2, 2))
    with pytest.raises(DataError, match=re.escape("sample k1 does not decode: ")) as error:
        data.decode(data.train, range(4))
    assert said in str(error.value)


@pytest.mark.parametrize(
    ("entry", "value"),
    [
        *[("size", size) for size in (0, -1, 1.5, True, (1 << 20) + 1, [2], None)],
        *[("field", field) for field in ("png", None, "npy.gz")],
        *[("columns", names) for names in (["x"], ["x", "x"], ["x", 1], "xy", ["x", "a\nb"])],
    ],
)
def test_a_wrong_entry_of_a_vector(tmp_path, entry, value):
    named = VECTOR | {"columns": ["x", "y"]}
    assert sample_of({"version": 1, "sample": named}) == named
    with pytest.raises(ValueError, match=f"sample: {entry} "):
        sample_of({"version": 1, "sample": named | {entry: value}})
    del named["size"]
    with pytest.raises(ValueError, match="sample: size None"):
        sample_of({"version": 1, "sample": named})


def test_a_file_of_rows_in_place_of_shards_names_the_command(tmp_path):
    (tmp_path / "a.csv").write_text(json.dumps([]))
    with pytest.raises(DataError, match=r"Make them: distgan shard vectors data/a --from .*a\.csv"):
        Data(str(tmp_path / "a.csv"))
