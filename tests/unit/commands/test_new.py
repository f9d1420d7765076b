"""`distgan new`: what it writes trains as it is; what it refuses."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from distgan import cli, train
from distgan.commands import evaluate, generate, new, report
from distgan.config import batch_layout
from distgan.core.clock import Clock
from distgan.core.errors import ConfigError
from distgan.data.loader import MicroBatch
from distgan.distributed.ranks import Ranks
from distgan.recipes._base import build_recipe
from distgan.recipes._own_code import unload

TINY = ["machine.device=cpu", "width=4", "batch=6"]
OF_TEMPLATE = {
    "image": ("particles", ["evaluate.samples=8"]),
    "pair": ("pulses", []),
    "image_pair": ("negatives", []),
    "vector": ("gaussians", ["evaluate.samples=8"]),
    "image_conditional": ("shapes", ["evaluate.samples=8", "label=shape"]),
    "vector_conditional": ("gaussians", ["evaluate.samples=8"]),
}


def options_of(template):
    kind, conditional = template.removesuffix(new.CONDITIONAL), template.endswith(new.CONDITIONAL)
    return ["--kind", kind, *(["--conditional"] if conditional else [])]


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    unload()


def journal(folder):
    return [json.loads(line) for line in (folder / "journal.jsonl").read_text().splitlines()]


@pytest.mark.gate
@pytest.mark.parametrize("template", new.DATA)
def test_what_it_writes_trains(template, sets, here, capsys):
    kind, conditional = template.removesuffix(new.CONDITIONAL), template.endswith(new.CONDITIONAL)
    assert new.main(["gans/mine.py", *options_of(template)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("wrote gans/mine.py") and new.PAGE.is_file()
    source, made, *_ = new.DATA[template]
    own, place = new.OWN.get(template, ("", made))[:2]
    assert not own or lines.pop(1).startswith(f"  distgan shard {own} {place} --from ")
    assert lines[1].startswith(f"  distgan shard {source} {made}")
    line = f"  distgan train gans/mine.py data={place}"
    column = " label=shape" if source == "shapes" else ""
    assert lines[2] == (f"{line}  # or data={made}{column}" if own else line)
    most = 100 if conditional else 80 if kind == "image_pair" else 70
    assert len(Path("gans/mine.py").read_text().splitlines()) <= most
    data, words = OF_TEMPLATE[template]
    words = [f"data={sets(data)}", "machine.folder=run", "epochs=0.2", *TINY, *words]
    assert train.main(["gans/mine.py", *words]) == 0
    rows = journal(here / "run")
    assert [row["step"] for row in rows if "d/loss" in row] == [1, 2]
    score = {"image": "frechet_standin", "vector": "frechet_vectors"}.get(kind, "l1")
    score = f"eval/{score}"
    assert any(score in row for row in rows) and list(Path("run/samples").glob("*.png"))


def test_the_data_set_that_is_there_is_named(particles, shapes, gaussians, here, capsys):
    (here / "some" / "where").parent.mkdir()
    (here / "some" / "where").symlink_to(particles)
    assert new.main(["mine.py"]) == 0
    assert capsys.readouterr().out.splitlines()[1:] == ["  distgan train mine.py data=some/where"]
    assert new.main(["pairs.py", "--kind", "pair"]) == 0  # which no images are for
    assert "distgan shard audio data/takes --from TAKES" in capsys.readouterr().out
    assert new.main(["classes.py", "--conditional"]) == 0  # which these images have none of
    assert "distgan shard shapes data/shapes" in capsys.readouterr().out
    for folder, kind, column in ((shapes, "image", " label=shape"), (gaussians, "vector", "")):
        (here / "some" / kind).symlink_to(folder)
        assert new.main([f"of_{kind}.py", "--kind", kind, "--conditional"]) == 0
        line = f"  distgan train of_{kind}.py data=some/{kind}{column}"
        assert capsys.readouterr().out.splitlines()[1:] == [line]


@pytest.mark.gate
@pytest.mark.parametrize("template", new.DATA)
def test_a_run_of_it_generates_evaluates_and_reports(template, sets, here, capsys):
    kind, conditional = template.removesuffix(new.CONDITIONAL), template.endswith(new.CONDITIONAL)
    assert new.main(["mine.py", *options_of(template)]) == 0
    data, words = OF_TEMPLATE[template]
    words = [f"data={sets(data)}", "machine.folder=run", "epochs=0.2", *TINY, *words]
    assert train.main(["mine.py", *words]) == 0
    assert generate.main(["run", "made", "--n", "5"]) == 0
    if kind == "vector":
        vectors = np.load("made/samples.npy")
        assert vectors.shape == (5, 2) and vectors.dtype == np.float32
    else:
        assert len(list(Path("made").rglob("*.wav" if kind == "pair" else "*.png"))) >= 5
    if conditional:
        name = "star" if kind == "image" else "3"
        assert generate.main(["run", "ofclass", "--n", "3", "--class", name]) == 0
        rows = Path("ofclass/result.csv").read_text().splitlines()[1:]
        assert len(rows) == 3 and all(f",{name}," in row for row in rows)
    if kind == "image_pair":  # its validation has all there is
        assert cli.guarded(evaluate.main, ["run"]) == 2
        assert "judged by l1" in capsys.readouterr().err
    else:
        scored = kind in ("image", "vector")
        assert evaluate.main(["run", *(["--n", "8"] if scored else [])]) == 0
    assert report.main(["run"]) == 0
    page = Path("run/report.html").read_text()
    same = {"pair": "held-out clips", "image_pair": "held-out image pairs"}.get(kind, "noise")
    assert f"the same {same} each time" in page
    assert kind != "vector" or "2 of 2 pictures" in page


@pytest.mark.parametrize(("size", "channels"), [(8, 1), (16, 3), (32, 1), (64, 3), (128, 1)])
def test_images_of_any_power_of_two(size, channels):
    new.main(["mine.py"])
    module, run, _ = train.plan(["mine.py", "data=d", *TINY])
    ranks, layout = Ranks(run.machine), batch_layout.fit(6, 1, 1)
    recipe = build_recipe(module, run, ranks, layout, (channels, size, size))
    images = torch.randint(0, 256, (6, channels, size, size), dtype=torch.uint8)
    log = recipe.step(
        [[MicroBatch(images, np.arange(6), np.arange(6), slice(0, 6), 0)]], Clock(6, 6)
    )
    assert all(value.isfinite() for value in log.values())
    assert recipe.sample(np.arange(2)).shape == (2, channels, size, size)


def test_images_of_another_size_are_refused():
    new.main(["mine.py"])
    module, run, _ = train.plan(["mine.py", "data=d", *TINY])
    with pytest.raises(ConfigError, match="images of 48x48; shard them with --size 64"):
        build_recipe(module, run, Ranks(run.machine), batch_layout.fit(6, 1, 1), (1, 48, 48))


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("my_gan", "a name that ends in .py"),
        ("my-gan.py", "letters, digits and _"),
        ("class.py", "letters, digits and _"),
        ("2gans.py", "letters, digits and _"),
        ("sagan.py", "a recipe that exists already"),
        ("capacity.py", "a recipe that exists already"),
        ("random.py", "hide Python's module random"),
        ("distgan.py", "hide Python's module distgan"),
    ],
)
def test_names_that_no_recipe_can_have_are_refused(name, why, here, capsys):
    assert cli.guarded(new.main, [name]) == 2
    assert why in capsys.readouterr().err and not list(here.iterdir())


def test_classes_are_for_what_draws_from_noise(here, capsys):
    assert cli.guarded(new.main, ["mine.py", "--kind", "pair", "--conditional"]) == 2
    assert "not of --kind pair; allowed of image, vector" in capsys.readouterr().err
    assert not list(here.iterdir())


@pytest.mark.parametrize("make", [lambda p: p.write_text("mine"), lambda p: p.symlink_to("gone")])
def test_nothing_is_overwritten(make, here, capsys):
    make(path := here / "mine.py")
    assert cli.guarded(new.main, ["mine.py"]) == 2
    assert "mine.py exists, and is left as it is" in capsys.readouterr().err
    assert path.is_symlink() and not (here / "gone").exists() or path.read_text() == "mine"
