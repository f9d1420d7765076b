"""`distgan evaluate REAL FAKE`: what may be compared, order and names that do not matter, folders
that are only read.
"""

import fcntl
import json
import os
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from shard_sets import copy_data

from distgan.commands import evaluate
from distgan.config.sections import Machine
from distgan.core.errors import ConfigError, DataError, RunError
from distgan.distributed.ranks import Ranks
from distgan.evaluation.drawn import NonFiniteSamples
from distgan.evaluation.features.choice import Choice
from distgan.evaluation.image_evaluator import Evaluator
from distgan.evaluation.sets import opening, statistics_cache
from distgan.evaluation.sets.traits import Traits, differences
from distgan.outputs.image_results import Drawing
from distgan.shards.codecs import image_files
from distgan.shards.codecs.fitting import Resize, to_size

STAND_IN = ("--device", "cpu", "--extractor", "standin")


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """A folder of its own to work in, and a cache of its own."""
    monkeypatch.setenv("DISTGAN_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


def of_class(seed: int, n: int, size: int = 24) -> np.ndarray:
    """Images of one of two classes: dark and flat, or bright and rough."""
    draw = np.random.default_rng(seed)
    base, spread = ((60, 8), (180, 60))[seed % 2]
    return draw.normal(base, spread, (n, size, size, 3)).clip(0, 255).astype(np.uint8)


def written(folder: str, images: np.ndarray, names: list[str] | None = None) -> str:
    Path(folder).mkdir()
    for i, image in enumerate(images):
        Image.fromarray(image).save(Path(folder, f"{names[i] if names else f'{i:03d}'}.png"))
    return folder


def scores(*words: str) -> dict:
    assert evaluate.main([*words, *STAND_IN, "--out", "scores.json"]) == 0
    return json.loads(Path("scores.json").read_text())


def contents(folder: str) -> dict[str, tuple[int, int]]:
    found = Path(folder).rglob("*")
    return {str(path): (path.stat().st_size, path.stat().st_mtime_ns) for path in found}


# ---- order is not chance
def test_files_sorted_by_class_or_shuffled_are_the_same_set():
    """Names change no bit: not the floor, not the scores of `--n`, on either side."""
    fakes = np.concatenate([of_class(0, 30), of_class(1, 30)])
    mixed = [f"{i:03d}" for i in np.random.default_rng(5).permutation(60)]
    for name, names in (("by-class", None), ("shuffled", mixed)):
        written(name, fakes, names)
    real = written("real", np.concatenate([of_class(2, 20), of_class(3, 20)]))
    for more in ([], ["--path", "moments", "--n", "25"]):
        one, other = (scores(real, fake, *more) for fake in ("by-class", "shuffled"))
        for key in ("score", "floor", "fake_images"):
            assert one[key] == other[key], (key, more)
        # Half of the fakes are of a class: a part of one class alone is at ten times the floor.
        assert one["floor"]["generated"]["score"] < 2 * one["floor"]["real"]["score"]
    assert one["made_with"]["draw"] == {"seed": 0, "samples": 25, "samples_from": 60}
    one, other = (scores(name, real, "--n", "25") for name in ("by-class", "shuffled"))
    assert one["score"] == other["score"] and one["floor"] == other["floor"]


class Sorted:
    """A set that keeps its order, as shards do: first all images of one class."""

    kind, traits, fingerprint, name = "image", Traits(), "x", "sorted"

    def __init__(self, images: np.ndarray, folder: Path):
        self.images, self.training = torch.from_numpy(images).permute(0, 3, 1, 2), len(images)
        self.statistics_folder = folder

    def __len__(self) -> int:
        return self.training

    def decode(self, numbers):
        return self.images[list(numbers)]


def test_a_part_of_a_set_that_keeps_its_order_is_a_draw(tmp_path):
    real = np.concatenate([of_class(2, 40), of_class(3, 40)])
    fake = Sorted(np.concatenate([of_class(0, 60), of_class(1, 60)]), tmp_path)
    ranks = Ranks(Machine(device="cpu"))
    evaluator = Evaluator(ranks, Sorted(real, tmp_path), 50, Choice(), True, thorough=True)
    said = evaluator.compare(fake)
    floor = said["floor"]
    assert floor["generated"]["score"] < 2 * floor["real"]["score"] and floor["samples"] == 40
    assert said["score"] < 2 * floor["real"]["score"]  # the first 50 are of one class


def test_rows_of_an_array_in_any_order_are_the_same_set():
    rows = np.random.default_rng(0).normal(size=(300, 3)) + np.repeat([0, 5], 150)[:, None]
    np.save("sorted.npy", rows)
    np.save("mixed.npy", rows[np.random.default_rng(1).permutation(300)])
    np.save("real.npy", np.random.default_rng(2).normal(size=(200, 3)))
    found = [scores("real.npy", name, "--n", "100") for name in ("sorted.npy", "mixed.npy")]
    assert found[0]["score"] == found[1]["score"] and found[0]["floor"] == found[1]["floor"]
    found = [scores(name, "real.npy") for name in ("sorted.npy", "mixed.npy")]
    assert found[0]["made_with"] == found[1]["made_with"] | {"reals_in": "sorted.npy"}


# ---- nothing is written into what is only read
def test_both_folders_hold_exactly_the_files_they_held(capsys):
    real, fake = written("real", of_class(0, 12)), written("fake", of_class(2, 12))
    np.save("rows.npy", np.random.default_rng(0).normal(size=(30, 2)))
    before = contents(".")
    assert evaluate.main([f"--real={real}", f"--fake={fake}", "--device=cpu"]) == 0
    said = capsys.readouterr().out
    (file,) = Path("cache/statistics").resolve().iterdir()
    assert f"statistics of the real images are kept in {file}" in said
    assert "features of real images" in said
    assert evaluate.main(["rows.npy", "rows.npy", "--device=cpu"]) == 0
    assert evaluate.main([real, fake, "--device=cpu"]) == 0
    assert "features of real images" not in (said := capsys.readouterr().out), said
    assert evaluate.main([real, fake, "--device=cpu", "--statistics", "mine"]) == 0
    assert [path.name for path in Path("mine").iterdir()] == [file.name]
    after = contents(".")
    assert {k: v for k, v in after.items() if not k.startswith(("cache", "mine"))} == before


def test_of_two_evaluations_at_once_the_second_finds_the_file_of_the_first(tmp_path, capsys):
    key, arrays = {"images": "x"}, {"features": torch.arange(6.0).reshape(2, 3)}
    file = statistics_cache.cache_path(tmp_path / "statistics", "features", key)
    assert statistics_cache.write(file, key, arrays)
    content, folder = file.read_bytes(), os.open(file.parent, os.O_RDONLY)
    file.unlink()
    fcntl.flock(folder, fcntl.LOCK_EX)
    other = threading.Thread(target=statistics_cache.write, args=(file, key, arrays))
    other.start()
    file.write_bytes(content)
    first = file.stat()
    os.close(folder)
    other.join()
    assert file.stat() == first and list(file.parent.iterdir()) == [file]
    file.write_bytes(content[:-1])  # a damaged one is replaced
    assert statistics_cache.write(file, key, arrays) and file.read_bytes() == content


# ---- any two
@pytest.mark.gate
def test_runs_sets_and_statistics_in_any_combination(trained, capsys):
    home, _ = trained
    data, run = copy_data(home / "data", Path("data").resolve()), str(home / "run")
    fake = written("fake", of_class(0, 12, 64))
    files = {}
    for path in ("features", "moments"):
        assert evaluate.main([str(data), fake, "--path", path, *STAND_IN]) == 0
        (files[path],) = map(str, (data / "statistics").glob(f"{path}-*"))
    of_folder = scores(str(data), fake)
    assert scores(files["features"], fake)["score"] == of_folder["score"]
    of_moments = scores(files["moments"], fake)
    assert of_moments["score"] == pytest.approx(of_folder["score"], rel=1e-6)
    assert of_moments["precision"] is of_moments["kernel_standin"] is None
    assert of_moments["reasons"]["precision"].endswith("--path features")
    itself = scores(str(data), files["features"])
    assert itself["score"] == pytest.approx(0, abs=1e-6) and itself["samples"] == 60
    both = scores(files["features"], files["features"], "--n", "30")
    assert both["made_with"]["draw"]["samples_from"] == 60 and both["precision"] == 1
    capsys.readouterr()
    of_run = scores(fake, run, "--n", "20")  # its samples, against other real images
    assert (of_run["samples"], of_run["reals"], of_run["against"]) == (20, 12, "fake")
    as_real = scores(run, fake, f"--data={data}")  # its data set
    assert "is a run: what is real is its data set" in capsys.readouterr().out
    assert (as_real["samples"], as_real["reals"]) == (12, 54)
    assert scores(run, fake, f"--data={data}", "--against", "all")["score"] == of_folder["score"]
    assert scores(files["features"], f"{run}@last", "--n", "20")["reals"] == 60
    assert scores(files["moments"], f"{run}@last", "--n", "12")["reals"] == 60
    np.save("rows.npy", np.zeros((9, 2)))
    with pytest.raises(ConfigError, match=r"rows.npy holds vectors of 2 numbers, .*run images"):
        evaluate.main(["rows.npy", run])
    with pytest.raises(ConfigError, match="resize: found 16, but rows.npy holds vectors"):
        evaluate.main(["rows.npy", "rows.npy", "--resize", "16"])
    with pytest.raises(RunError, match="resized: made with none, needed is 32"):
        evaluate.main([files["features"], fake, "--resize", "32", *STAND_IN])


@pytest.mark.filterwarnings("ignore:The `disp` argument:DeprecationWarning")  # of SciPy's
def test_means_and_covariances_of_pytorch_fid_have_another_name_and_a_warning(capsys):
    """The distance is pytorch-fid's; what cannot be known is said."""
    from pytorch_fid.fid_score import calculate_frechet_distance

    draw, given = np.random.default_rng(0), []
    for name in ("one", "two"):
        rows = draw.normal(draw.normal(size=480), 1 + draw.random(480), (900, 480))
        given.append((rows.mean(0), np.cov(rows, rowvar=False)))
        np.savez(f"{name}.npz", mu=given[-1][0], sigma=given[-1][1])
    found = scores("one.npz", "two.npz")
    expected = calculate_frechet_distance(*given[0], *given[1])
    assert found["score"] == pytest.approx(expected, rel=1e-6)
    assert found["metric"] == "frechet_unverified" and found["samples"] is found["reals"] is None
    said = capsys.readouterr().out
    assert "NOT VERIFIED: one.npz and two.npz: it does not say of how many images" in said
    assert "not judged" in said and "? samples, ? real samples" in said
    fake = written("fake", of_class(0, 20))
    against = scores("one.npz", fake, "--n", "15")
    assert (against["samples"], against["reals"], against["floor"]) == (15, None, None)
    turned = scores(written("real", of_class(0, 20)), "one.npz")
    whole = scores("one.npz", "real")
    assert turned["score"] == pytest.approx(whole["score"], rel=1e-9) and turned["reals"] == 20
    np.savez("wide.npz", mu=np.zeros(2048), sigma=np.eye(2048))
    np.savez("other.npz", mu=np.zeros(3), sigma=np.eye(2))
    np.savez("skew.npz", mu=np.zeros(2), sigma=np.array([[1, 2], [0, 1]]))
    np.savez("images.npz", arr_0=np.zeros((2, 8, 8, 3)))
    Path("text.npz").write_text("nothing")
    with open("array.npz", "wb") as file:
        np.save(file, np.zeros(3))
    np.savez_compressed("packed.npz", mu=np.arange(99.0), sigma=np.eye(99))
    packed = bytearray(Path("packed.npz").read_bytes())
    packed[120:140] = bytes(20)
    Path("packed.npz").write_bytes(packed)
    for words, message in (
        (["wide.npz", fake], "holds the moments of 2048 features, but fake has 480 .*--inception"),
        (["one.npz", "wide.npz"], "one.npz holds 480 features and wide.npz holds 2048 features"),
        (["other.npz", fake], r"holds mu \[3\] and sigma \[2, 2\]"),
        (["skew.npz", fake], "sigma is not symmetric"),
        (["images.npz", fake], "holds no statistics of pytorch-fid or clean-fid"),
        *(
            ([f"{name}.npz", fake], "holds no statistics of pytorch-fid or clean-fid")
            for name in ("text", "array", "packed")
        ),
        (["one.npz", written("one", of_class(0, 1))], "needs .* at least 2"),
    ):
        with pytest.raises(DataError, match=message):
            evaluate.main([*words, *STAND_IN])


def test_several_sizes_are_resized_as_shards_are_and_differences_are_told(capsys):
    real = written("real", of_class(0, 12, 24))
    fake = written("fake", of_class(2, 6, 40))
    for i, image in enumerate(of_class(3, 6, 48)[:, :36]):
        Image.fromarray(image).convert("LA").save(f"fake/wide{i}.png")
    Image.fromarray(of_class(3, 1, 48)[0]).save("fake/small.jpg")
    with pytest.raises(DataError, match="several sizes .* --resize SIZE makes the images of both"):
        evaluate.main([real, fake, "--device", "cpu"])
    opened = opening.open_set(fake, Resize(16))
    for name, seen in zip(opened.files, opened.decode(range(13)), strict=True):
        expected = to_size(image_files.picture(Path(fake, name))[0], 16).convert("RGB")
        # Gray is made colour before, not after: the same values.
        np.testing.assert_array_equal(seen.permute(1, 2, 0).numpy(), np.asarray(expected))
    said = scores(real, fake, "--resize", "16")
    assert said["made_with"]["resized"].startswith("16, centred square, Pillow's Lanczos")
    said = scores(real, fake, "--resize", "16", "--fit", "squash")
    assert said["made_with"]["resized"].startswith("16, squashed to a square, Pillow's Lanczos")
    wide = opening.open_set(fake, Resize(16, "squash")).decode(range(13))
    assert not torch.equal(wide, opened.decode(range(13)))
    with pytest.raises(ConfigError, match="--fit: belongs to --resize SIZE"):
        evaluate.main([real, fake, "--fit", "squash"])
    assert [note.partition(" differ")[0] for note in said["notes"]] == [
        "sizes",
        "compression",
        "colour",
        "transparency",
    ]
    assert "real 12 of 24x24, fake 6 of 40x40, 6 of 48x36, 1 of 48x48" in said["notes"][0]
    assert all(f"note: {note}" in capsys.readouterr().out for note in said["notes"][:1])
    same = opening.open_set(real, Resize(24)).decode(range(12))
    assert torch.equal(same, opening.open_set(real).decode(range(12)))


def test_equal_files_and_samples_have_no_notes():
    one, two, drawn = Traits(), Traits(), Traits()
    one.count((64, 64), "PNG", is_gray=False, has_alpha=False, n=30)
    two.count((64, 64), "BMP", is_gray=False, has_alpha=False, n=200)
    two.count((64, 64), "BMP", is_gray=True, has_alpha=False, n=2)
    assert differences(one, two) == differences(one, drawn) == []


# ---- each metric has needs of its own
def test_a_set_of_one_image_has_what_is_defined(capsys):
    said = scores(written("real", of_class(0, 12)), written("one", of_class(2, 1)))
    assert said["score"] is said["kernel_standin"] is said["precision"] is said["floor"] is None
    assert said["sliced_wasserstein"] > 0 and said["samples"] == 1
    reasons = said["reasons"]
    assert reasons["score"] == "needs 2 images on either side, found 12 real and 1"
    assert {"kernel_standin", "precision", "coverage", "nearest", "floor"} < reasons.keys()
    printed = capsys.readouterr().out
    assert "no frechet_standin: needs 2 images" in printed and "not judged" in printed


def test_a_generator_of_nan_writes_no_vectors():
    broken = Drawing(lambda numbers, _: torch.full((len(numbers), 3), torch.nan), kind="vector")
    with pytest.raises(NonFiniteSamples, match="samples 0 to 4 are not finite"):
        broken.draw(np.arange(5))


def test_an_inception_score_needs_the_published_weights(tmp_path):
    ranks, images = Ranks(Machine(device="cpu")), Sorted(of_class(0, 30), tmp_path)
    metrics = ("frechet", "inception_score")
    evaluator = Evaluator(ranks, images, 20, Choice(), True, metrics=metrics, thorough=True)
    assert "inception_score" not in evaluator.compare(images)
    evaluator.extract.classifier = torch.randn(5, 480)
    assert 1 <= evaluator.compare(images)["inception_score"] <= 5
    with pytest.raises(ConfigError, match="metrics: found inception_score, but without the publ"):
        evaluate.main([written("real", of_class(0, 12)), "real", "--metrics", "inception_score"])


def test_of_a_folder_of_sounds_and_pictures_the_sounds_are_compared(capsys):
    written("real", of_class(0, 2))
    Path("real/a.wav").write_bytes(b"no sound")
    with pytest.raises(DataError, match=r"a.wav"):
        evaluate.main(["real", "real"])
    assert (
        "real holds sounds (1) and pictures (2): the sounds are compared" in capsys.readouterr().out
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--metrics", "fid"], "without the published Inception weights"),
        (["--extractor", "dinov2"], "needs --weights FILE"),
        (["--weights", "w.pth"], "goes with --extractor dinov2 or clip"),
        (["--extractor", "standin", "--inception", "i.pth"], "leave --extractor out"),
    ],
)
def test_what_does_not_fit_together_is_refused_before_a_set_is_opened(words, message):
    with pytest.raises(ConfigError, match=message):
        evaluate.main(["no-such-folder", "another", *words])
