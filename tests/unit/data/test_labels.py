"""Labels of samples and of what a generator draws, and what a recipe accepts."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from distgan.config import batch_layout
from distgan.core.errors import ConfigError, DataError
from distgan.data.dataset import Data
from distgan.data.labels import Labels
from distgan.data.loader import Stream
from distgan.recipes import r3gan, sagan
from distgan.recipes._base import show

LABELS = Labels("kind", ("a", "b", "c"), (6, 0, 2))


def conditional(folder, **more):
    return sagan.Settings(data=str(folder), conditional=True, **{"label": "shape", **more})


def test_a_class_is_a_function_of_seed_purpose_and_number():
    numbers = np.arange(4000)
    drawn = LABELS.draw(3, "noise/sample", numbers, "training")
    assert np.array_equal(drawn[7:9], LABELS.draw(3, "noise/sample", numbers[7:9], "training"))
    assert not np.array_equal(drawn, LABELS.draw(4, "noise/sample", numbers, "training"))
    assert not np.array_equal(drawn, LABELS.draw(3, "noise/grid", numbers, "training"))
    shares = np.bincount(drawn, minlength=3) / len(drawn)
    assert shares == pytest.approx([0.75, 0, 0.25], abs=0.03)
    uniform = np.bincount(LABELS.draw(3, "noise/sample", numbers, "uniform"), minlength=3)
    assert uniform / len(drawn) == pytest.approx([0.5, 0, 0.5], abs=0.03)


def test_labels_come_back_from_a_record_and_a_damaged_one_is_refused():
    assert Labels.from_record(json.loads(json.dumps(LABELS.record()))) == LABELS
    for wrong in ({"names": ["a"]}, {"counts": [0, 0, 0]}, {"counts": [-1, 0, 2]}, {"column": 1}):
        with pytest.raises(ValueError, match="names and counts"):
            Labels.from_record(LABELS.record() | wrong)
    with pytest.raises(ValueError, match="names and counts"):
        Labels.from_record(["a"])
    assert LABELS.number("c") == 2
    with pytest.raises(ConfigError, match="no class 'd' in the column 'kind'.*a, b, c"):
        LABELS.number("d")


def test_a_grid_has_a_row_for_each_class_with_the_same_noise_along_a_column(tmp_path):
    assert LABELS.shown() == [0, 2]
    many = Labels("kind", tuple(map(str, range(20))), (1, 1, 1, 1, *[9] * 16))
    assert many.shown() == list(range(4, 20))
    seen = []

    def sample(numbers, purpose, classes):
        seen.append((numbers.tolist(), purpose, classes.tolist()))
        return torch.zeros(len(numbers), 3, 4, 4)

    drawing = SimpleNamespace(sample=sample, labels=LABELS, classes_of=LABELS.draw)
    show(drawing, SimpleNamespace(kind="image"), tmp_path / "grid.png")
    assert seen == [(list(range(8)), "noise/grid", [one] * 8) for one in (0, 2)]
    with Image.open(tmp_path / "grid.png") as image:
        assert image.size == (8 * 5 + 1, 2 * 5 + 1)


def test_a_sample_has_its_label_in_any_batch_and_epoch(shapes):
    data = Data(str(shapes))
    data.require(conditional(shapes))
    truth = [json.loads(data.train[i]["json"])["shape"] for i in range(len(data.train))]
    assert [data.labels.names[c] for c in data.classes["train"]] == truth
    assert sum(data.labels.counts) == len(data.train) == 54

    def first(batch: int, accumulation: int, resident: int) -> tuple[torch.Tensor, np.ndarray]:
        layout = batch_layout.fit(batch, 1, accumulation, 1)
        stream = Stream(
            data, 0, layout, 0, torch.device("cpu"), start=60 - 60 % batch, resident_bytes=resident
        )
        micros = next(iter(stream))
        return (
            torch.cat([micro.labels for micro in micros]),
            np.concatenate([micro.address for micro in micros]),
        )

    for how in ((12, 1, 0), (12, 3, 0), (12, 2, 1 << 30)):
        labels, address = first(*how)
        assert labels.tolist() == data.classes["train"][address % 54].tolist()


def test_what_a_recipe_does_not_accept_is_named_before_anything_is_built(shapes, particles):
    data = Data(str(shapes))
    with pytest.raises(ConfigError, match="label: several columns of labels.*shape, colour"):
        data.require(conditional(shapes, label=None))
    with pytest.raises(ConfigError, match="no column 'shap'.*did you mean shape"):
        data.require(conditional(shapes, label="shap"))
    with pytest.raises(ConfigError, match="has no labels.*conditional=false"):
        Data(str(particles)).require(conditional(particles))
    with pytest.raises(ConfigError, match=r"no layer has the resolution 32.*32x32.*4, 8, 16"):
        data.require(sagan.Settings(data="d", attention=[32]))
    data.require(r3gan.Settings(data="d"))
    object.__setattr__(data.sample, "width", 48)
    with pytest.raises(ConfigError, match="r3gan does not train on images of 48x30 pixels: the sh"):
        object.__setattr__(data.sample, "height", 30)
        data.require(r3gan.Settings(data="d"))


def test_attention_of_the_smallest_images_is_at_their_largest_layer():
    assert sagan.Settings(data="d").attention_for((1, 16, 16)) == (8,)
    assert sagan.Settings(data="d").attention_for((1, 32, 32)) == (16,)
    assert sagan.Settings(data="d", attention=[8, 16]).attention_for((1, 16, 16)) == (8, 16)


def test_classes_are_part_of_what_a_run_is(shapes, tmp_path):
    data, plain, run = Data(str(shapes)), sagan.Settings(data="d"), conditional(shapes)
    assert data.fingerprint_for(plain) == data.fingerprint != data.fingerprint_for(run)
    before = data.fingerprint_for(run)
    about = json.loads((shapes / "dataset.json").read_text())
    about["labels"]["shape"]["values"].reverse()
    for part in ("train", "validation"):
        (tmp_path / part).symlink_to(shapes / part)
    (tmp_path / "dataset.json").write_text(json.dumps(about))
    assert Data(str(tmp_path)).fingerprint_for(run) != before
    about["labels"]["shape"]["values"][0] = "blob"
    (tmp_path / "dataset.json").write_text(json.dumps(about))
    other = Data(str(tmp_path))
    with pytest.raises(DataError, match="is none of the 10 classes of shape"):
        other.require(run)
