"""The shapes source: labelled images that depend on the seed and the number alone."""

import json
from pathlib import Path

import numpy as np

from distgan.data.dataset import Data
from distgan.shards.build import command as build_command
from distgan.shards.format.labels import labels_of, read_labels
from distgan.shards.sources.shapes import COLOURS, SHAPES


def shard(out: Path, *options: object) -> Data:
    line = ["shapes", out, "--size", 16, "--per-shard", 20, *options]
    assert build_command.main([str(word) for word in line]) == 0
    return Data(str(out))


def pixels(data: Data) -> dict[str, np.ndarray]:
    return {
        split.key(i): data.decode(split, [i]).numpy()
        for split in (data.train, data.validation)
        for i in range(len(split))
    }


def test_an_image_depends_on_the_seed_and_its_number_alone(tmp_path):
    one = shard(tmp_path / "one", "--n", 60, "--workers", 1)
    two = shard(tmp_path / "two", "--n", 60, "--workers", 2)
    assert one.fingerprint == two.fingerprint and one.shape == (3, 16, 16)
    tars = sorted(path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*.tar"))
    assert len(tars) == 4
    for tar in tars:
        assert (tmp_path / "one" / tar).read_bytes() == (tmp_path / "two" / tar).read_bytes()
    whole, fewer = pixels(one), pixels(shard(tmp_path / "few", "--n", 20, "--workers", 1))
    assert all(np.array_equal(whole[key], image) for key, image in fewer.items())
    other = pixels(shard(tmp_path / "other", "--n", 20, "--workers", 1, "--seed", 1))
    assert not any(np.array_equal(whole[key], image) for key, image in other.items())


def test_its_labels_are_those_of_its_members(tmp_path, capsys):
    data = shard(tmp_path / "out", "--n", 60, "--workers", 1)
    said = capsys.readouterr().out
    run = f"next: distgan run --processes 2 sagan data={tmp_path / 'out'}"
    first, second = said.splitlines()[-2:]
    assert first.partition("  #")[0] == run and second == f"{run} conditional=true label=shape"
    columns = labels_of(json.loads((tmp_path / "out" / "dataset.json").read_text()), ["json"])
    assert {name: column.names for name, column in columns.items()} == {
        "shape": SHAPES,
        "colour": COLOURS,
    }
    expected = [json.loads(data.train[i]["json"]) for i in range(len(data.train))]
    for name, column in columns.items():
        classes = read_labels(data.train, column)
        assert [column.names[number] for number in classes] == [row[name] for row in expected]
        assert len(set(classes.tolist())) > 4
    # the hue of the brightest pixel is that of its colour
    for i, row in enumerate(expected):
        image = data.decode(data.train, [i])[0].numpy().astype(int)
        spread = np.ptp(image, axis=0)
        ink = image[:, *np.unravel_index(spread.argmax(), spread.shape)]
        strong = {name for name, level in zip("rgb", ink, strict=True) if level > ink.mean()}
        mixed = {"red": "r", "green": "g", "blue": "b", "yellow": "rg", "cyan": "gb"}
        assert strong == set(mixed.get(row["colour"], "rb"))
