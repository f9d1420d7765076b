"""dataset.json: what it says of a sample is checked before anything is read by it."""

import json
import re

import numpy as np
import pytest
import shard_sets
import torch

from distgan.core.errors import DataError
from distgan.data.dataset import Data
from distgan.shards.adopt import command as adopt_command
from distgan.shards.codecs import audio as audio_codec
from distgan.shards.format.sample_spec import sample_of

PAIR = {
    "kind": "pair",
    "rate": 8000,
    "fields": ["a.wav", "b.wav"],
    "dtype": "int16",
    "length": 5,
    "longest": 9,
}


@pytest.mark.parametrize(
    ("entry", "value", "said"),
    [
        ("version", 2, "version 2; this program reads version 1"),
        ("channels", 2, "sample: channels 2"),
        ("channels", 1, "an image of mode RGB, expected a gray one"),
        ("size", 0, "sample: size 0"),
        ("size", 1e999, "sample: size inf"),
        ("size", 2**40, "sample: size"),
        ("field", "txt", "sample: field 'txt'"),
        ("kind", "imagd", "sample: kind 'imagd'"),
        ("fingerprint", "0" * 16, "is damaged, or of other shards"),
    ],
)
def test_a_wrong_entry_of_dataset_json(tmp_path, entry, value, said):
    """No checksum covers this file.

    Nor may any of it reach the first batch as a crash, or as other data.
    """
    root = shard_sets.images(tmp_path / "data", 3, payload="png", channels=3)
    about = json.loads((root / "dataset.json").read_text())
    (about["sample"] if entry in about["sample"] else about)[entry] = value
    (root / "dataset.json").write_text(json.dumps(about))
    with pytest.raises(DataError, match=re.escape(said)):
        data = Data(str(root))
        data.decode(data.train, [0])


def test_a_shard_that_dataset_json_leaves_out(tmp_path):
    folder = (shard_sets.images(tmp_path / "made", 30) / "train").rename(tmp_path / "flat")
    (folder / "manifest.json").unlink()
    assert adopt_command.main([str(folder)]) == 0
    about = json.loads((folder / "dataset.json").read_text())
    about["parts"]["train"]["shards"][0] = about["parts"]["train"]["shards"][1]
    (folder / "dataset.json").write_text(json.dumps(about))
    with pytest.raises(DataError, match="is damaged, or of other shards"):
        Data(str(folder))


@pytest.mark.parametrize(
    ("entry", "value"),
    [
        ("rate", 0),
        ("rate", "8000"),
        ("rate", True),
        ("dtype", "int32"),
        ("length", 10),
        ("length", 0),
        ("length", 5.0),
        ("fields", ["a.wav"]),
        ("fields", ["a.wav", "a.wav"]),
        ("fields", "ab"),
        ("fields", ["a.wav", "b.mp3"]),
        ("fields", ["a.wav", 1]),
    ],
)
def test_a_wrong_entry_of_a_pair(entry, value):
    assert sample_of({"version": 1, "sample": PAIR}) == PAIR
    with pytest.raises(ValueError, match=f"sample: {entry} "):
        sample_of({"version": 1, "sample": PAIR | {entry: value}})


@pytest.mark.parametrize("crop", [None, 10])
def test_a_pair_of_two_kinds_of_files(tmp_path, crop):
    """`distgan index --input a.wav --target b.flac` takes them."""

    def sample(i):
        first, second = shard_sets.pair(i, 100)
        return {
            "__key__": f"{i:03d}",
            "a.wav": audio_codec.write_wav(first, 1000),
            "b.flac": audio_codec.write_flac(second, 1000),
        }

    shard_sets.write(tmp_path, PAIR, sample, 4, 2, 10)
    (tmp_path / "dataset.json").unlink()
    assert adopt_command.main([str(tmp_path), "--input", "a.wav", "--target", "b.flac"]) == 0
    data = Data(str(tmp_path))
    both = data.decode(data.train, range(4), crop, np.full(4, 0.5) if crop else None)
    assert torch.equal(both[:, 0], -both[:, 1]) and both.shape == (4, 2, crop or 100)
