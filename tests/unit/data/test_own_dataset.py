"""A map-style Dataset in place of a folder of shards: its forms, faults and names."""

import os
import sys
import textwrap

import numpy as np
import pytest
import torch

import distgan
from distgan.core.errors import ConfigError, DataError
from distgan.data.own_dataset import name_of, open_data
from distgan.launchers.sweeps import definition
from distgan.recipes import sagan
from distgan.recipes._catalog import resolve_recipe


class Items:
    """`n` samples that `make(i)` returns."""

    fingerprint = "v1"

    def __init__(self, make, n=20, **more):
        self.make, self.n = make, n
        vars(self).update(more)

    def __len__(self):
        return self.n

    def __getitem__(self, i):
        return self.make(i)


def image(i, channels=3):
    return np.full((channels, 16, 32), i, np.uint8)


FORMS = {
    "image": image,
    "gray": lambda i: torch.full((1, 16, 32), i, dtype=torch.uint8),
    "image_pair": lambda i: np.stack([image(i), image(i) + 1]),
    "two_images": lambda i: (image(i), image(i) + 1),
    "int16": lambda i: np.stack([np.arange(100) + i, np.arange(100) - i]).astype(np.int16),
    "vector": lambda i: np.array([i, -i, 0.5], np.float32),
    "float32": lambda i: torch.arange(200.0).reshape(2, 100) + i,
}


@pytest.mark.parametrize("form", FORMS)
def test_samples_come_as_they_are_given(form):
    data = open_data(Items(FORMS[form], rate=8000))
    assert (len(data.train), len(data.validation)) == (18, 2)
    keys = [int(split.key(i)) for split in (data.train, data.validation) for i in range(len(split))]
    assert sorted(keys) == list(range(20))
    for split, at in ((data.train, keys[:18]), (data.validation, keys[18:])):
        whole = data.decode(split, range(len(split)))
        for got, i in zip(whole, at, strict=True):
            assert torch.equal(got, torch.as_tensor(np.asarray(FORMS[form](i))))
        assert torch.equal(data.resident(split, "split"), whole)
    if data.kind == "pair":
        cut = data.decode(data.train, [3], 10, np.array([0.5]))
        assert torch.equal(cut[0], data.decode(data.train, [3])[0][:, 45:55])


@pytest.mark.parametrize("form", ["int16", "vector", "float32"])
def test_samples_of_another_byte_order_are_the_same_data(form):
    def other(i):
        array = np.asarray(FORMS[form](i))
        return array.astype(array.dtype.newbyteorder("S"))

    data, swapped = (open_data(Items(make, rate=8000)) for make in (FORMS[form], other))
    every = range(len(data.train))
    assert torch.equal(swapped.decode(swapped.train, every), data.decode(data.train, every))
    assert swapped.fingerprint == data.fingerprint


def test_without_classes_what_comes_with_a_sample_is_not_read():
    assert len(open_data(Items(lambda i: (image(i), i / 2))).train) == 18


def test_the_fingerprint_is_the_datasets_and_the_split_follows_from_it():
    one, same, other = (open_data(Items(image, fingerprint=stated)) for stated in ("a", "a", "b"))
    assert one.fingerprint == same.fingerprint != other.fingerprint
    assert one.train.numbers.tolist() == same.train.numbers.tolist()
    assert one.train.numbers.tolist() != other.train.numbers.tolist()
    held = Items(lambda i: image(i + 100), 3, fingerprint="held out")
    data = open_data(Items(image, validation=held))
    assert (len(data.train), len(data.validation)) == (20, 3)
    assert data.decode(data.validation, [2])[0, 0, 0, 0] == 102


def test_classes():
    data = open_data(Items(lambda i: (image(i), torch.tensor(i % 3)), classes=["a", "b", "c"]))
    run = sagan.Settings(data="d", conditional=True)
    data.require(run)
    assert data.labels.names == ("a", "b", "c") and sum(data.labels.counts) == 18
    assert data.classes["train"].tolist() == [i % 3 for i in data.train.numbers]
    assert data.fingerprint_for(run) != data.fingerprint
    images, classes = next(iter(distgan.Loader(data, 5, label="")))
    assert (images[:, 0, 0, 0] % 3).tolist() == classes.tolist()
    with pytest.raises(ConfigError, match="attribute `classes`"):
        open_data(Items(image)).require(run)
    wrong = open_data(Items(lambda i: (image(i), i), classes=["a", "b"]))
    with pytest.raises(DataError, match="the label '2'"):
        wrong.require(run)
    with pytest.raises(DataError, match=r"sample \d+ of Items .* has no class"):
        open_data(Items(image, classes=["a"]))


@pytest.mark.parametrize("workers", [0, 2])
def test_a_loader_reads_it_and_names_a_sample_that_fails(workers):
    def make(i):
        if i == 7 and gone:
            raise OSError("the disk is gone")
        return image(i)

    gone, held = [], Items(image, 1)
    loader = distgan.Loader(Items(make, 10, validation=held), 4, shuffle=False, workers=workers)
    assert [batch[:, 0, 0, 0].tolist() for batch in loader][:2] == [[0, 1, 2, 3], [4, 5, 6, 7]]
    (first, *_) = loader.samples()
    assert first["__key__"] == "000000" and first["npy"].startswith(b"\x93NUMPY")
    gone.append(True)
    with pytest.raises(DataError, match=r"sample 7 of Items .*: OSError: the disk is gone"):
        list(loader)


drawn = iter(range(10**6))
reused = np.zeros((3, 16, 32), np.uint8)


def refill(i):
    reused[:] = next(drawn) % 251
    return reused


REFUSED = {
    "no fingerprint": (Items(image, fingerprint=None), "states no fingerprint"),
    "empty fingerprint": (Items(image, fingerprint=""), "states no fingerprint"),
    "no dataset": (7, "without __len__ and __getitem__"),
    "one sample": (Items(image, 1), "has 1 samples; needed are 2"),
    "a float image": (Items(lambda i: image(i) / 255), r"float64 \[3, 16, 32\]; it may be"),
    "channels last": (Items(lambda i: image(i).transpose(1, 2, 0)), r"uint8 \[16, 32, 3\]"),
    "an object": (Items(lambda i: {"image": 3}), r"object \[\]; it may be"),
    "no rate": (Items(FORMS["int16"]), "attribute `rate`"),
    "NaN": (Items(lambda i: np.full((2, 9), np.nan, "f4"), rate=8), "holds NaN"),
    "shapes": (Items(lambda i: image(i)[:, : 16 - (i > 9)]), r"all must be alike"),
    "raises": (Items(lambda i: 1 // 0), r"sample \d+ of Items .*: ZeroDivisionError"),
    "random": (Items(lambda i: image(next(drawn) % 251)), "differs when it is read twice"),
    "random, in one array": (Items(refill), "differs when it is read twice"),
    "another form to validate": (
        Items(image, validation=Items(lambda i: image(i, 1), 2)),
        "those of its validation",
    ),
    "no length": (Items(image, "many"), "length of Items .*: TypeError"),
    "classes": (Items(lambda i: (image(i), 0), classes=["a", "a"]), "classes of"),
    "how many classes": (Items(lambda i: (image(i), 0), classes=2), "classes of Items .* is '2'"),
    "classes in a text": (Items(lambda i: (image(i), 0), classes="ab"), "the list of their names"),
    "half a class": (
        Items(lambda i: (image(i), torch.tensor(1.7)), classes=["a", "b"]),
        r"sample \d+ of Items .*the class 1\.7",
    ),
    "surrogate": (Items(image, fingerprint="v\ud800"), r"fingerprint of Items, 'v\\ud800', has"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_trained_on_is_one_message(case):
    dataset, said = REFUSED[case]
    with pytest.raises((ConfigError, DataError), match=said):
        open_data(dataset)


CODE = """
import numpy as np
from beside import SIZE

class Photos:
    fingerprint = "photos v1"
    def __len__(self):
        return 12
    def __getitem__(self, i):
        return np.full((3, SIZE, SIZE), i, np.uint8)

photos = Photos()
def made():
    return Photos()
def broken():
    return 1 // 0
number = 7
"""


@pytest.fixture
def code(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "beside.py").write_text("SIZE = 16")
    (tmp_path / "my_data.py").write_text(textwrap.dedent(CODE))
    return tmp_path / "my_data.py"


def test_it_is_named_by_a_file_or_an_import_path(code):
    found = [open_data(f"{where}:{name}") for where, name in (
        ("my_data.py", "photos"), (str(code), "Photos"), ("my_data", "made"))]  # fmt: skip
    assert len({data.fingerprint for data in found}) == 1
    assert str(found[0].folder) == "my_data.py:photos" and found[0].shape == (3, 16, 16)
    for text, said in (
        ("my_data.py:broken", "my_data.py:16: ZeroDivisionError"),
        ("my_data.py:number", "is int, without __len__"),
        ("my_data.py:lost", "has no attribute 'lost'"),
        ("lost.py:photos", "cannot read lost.py: No such file"),
        ("no_such_module:photos", "No module named"),
    ):
        with pytest.raises(ConfigError, match=said):
            open_data(text)


def test_a_module_of_a_package_in_the_working_directory_is_imported_as_one(code, monkeypatch):
    package = code.parent / "own_data_package"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "sizes.py").write_text("SIZE = 16")
    (package / "own_data_beside.py").write_text("")  # as found before it was imported as a package
    text = code.read_text().replace("from beside", "import own_data_beside\nfrom .sizes")
    (package / "photos.py").write_text(text)
    assert open_data("own_data_package.photos:photos").shape == (3, 16, 16)
    assert os.getcwd() not in sys.path
    if os.getuid() == 0:
        os.chown(package / "__init__.py", 12345, 12345)
        with pytest.raises(ConfigError, match=r"__init__.py .*it is not run"):
            open_data("own_data_package.photos:photos")


def test_a_dataset_of_a_program_is_known_to_it_alone():
    name = name_of(Items(image))
    assert open_data(name).fingerprint == open_data(Items(image)).fingerprint
    with pytest.raises(ConfigError, match=r"--data of a verb"):
        open_data(name.replace("Items", "Others"))


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a file away")
@pytest.mark.parametrize("harm", [lambda p: os.chown(p, 12345, 12345), lambda p: p.chmod(0o646)])
def test_a_strangers_code_is_not_run(code, harm):
    harm(code)
    with pytest.raises(ConfigError, match="it is not run"):
        open_data("my_data.py:photos")


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a file away")
def test_a_strangers_run_file_runs_none_of_ones_own_code(code):
    (code.parent / "run.yaml").write_text("recipe: sagan\ndata: my_data.py:photos\n")
    (code.parent / "sweep.yaml").write_text(
        "recipe: sagan\nsettings: {data: my_data.py:photos}\ngrid: {seed: [1, 2]}\n"
    )
    open_data(resolve_recipe("run.yaml")[1]["data"]), definition.read(["sweep.yaml"])
    for name in ("run.yaml", "sweep.yaml"):
        os.chown(name, 12345, 12345)
    for read in (
        lambda: open_data(resolve_recipe("run.yaml")[1]["data"]),
        lambda: definition.read(["sweep.yaml"]),
    ):
        with pytest.raises(ConfigError, match=r"name it yourself: data=my_data\.py:photos"):
            read()
