"""`distgan debug` scales what is set in epochs to its steps, so that every recipe can be tried."""

import math
from pathlib import Path

import pytest

import distgan.train as train
from distgan.commands import new
from distgan.launchers.local import debug
from distgan.launchers.runs.plan import make_clock
from distgan.recipes._catalog import recipe_names

DATA = {"waveform": "pulses", "waveform-collapsed": "pulses", "timbre": "recordings"}
KINDS = {
    "image": "particles",
    "image --conditional": "shapes",
    "image_pair": "negatives",
    "pair": "recordings",
    "vector": "gaussians",
    "vector --conditional": "gaussians",
}
OPTIONS = [
    ["sagan", "conditional=true", "ada=true"],
    ["wgan_flowers", "lr_every=100", "penalty=10", "batch=64"],
    ["timbre", "gan_start_epoch=0"],
    ["sagan", "lr_restarts.first=100"],
    ["sagan", "epochs=0.1"],  # shorter than 20 steps
]


def planned(words, sets, monkeypatch, tmp_path, steps=20):
    """Return (the run that a line means, the run that debug trains, the number of samples)."""
    monkeypatch.chdir(tmp_path)
    words = [*words, f"data={sets(DATA.get(words[0], 'shapes'))}"]
    changed, said, folder = debug.line(words, steps)
    assert folder.parent.name == "_debug" and not folder.exists()
    assert set(said[1:]) <= set(changed)
    return train.plan(words)[1], train.plan(changed)[1]


@pytest.mark.parametrize("steps", [1, 20])
@pytest.mark.parametrize("words", [[name] for name in recipe_names()] + OPTIONS, ids=" ".join)
def test_every_recipe_and_preset_is_allowed_its_few_steps(
    words, steps, sets, monkeypatch, tmp_path
):
    real, short = planned(words, sets, monkeypatch, tmp_path, steps)
    clock = make_clock(short, 54)
    assert clock.steps(short.epochs) == min(steps, clock.steps(real.epochs))
    cosine = getattr(getattr(real, "lr_restarts", None), "first", None)
    for key in ("lr_every",) * (not cosine) + ("gan_start_epoch",):
        if (value := getattr(real, key, None)) is not None and value < real.epochs:
            assert getattr(short, key) < max(short.epochs, 2 * clock.at(1).epoch), key
    if cosine:
        assert short.lr_restarts.first < max(short.epochs, 2 * clock.at(1).epoch)
    if short.scored:
        assert short.scored.samples <= debug.MOST_SAMPLES
    assert getattr(short, "results", 0) in (0, debug.MOST_RESULTS)
    large = real.batch > real.debug_batch and "batch=64" not in words
    assert short.batch == (8 if large else real.batch)


def test_both_phases_of_timbre_are_tried(sets, monkeypatch, tmp_path):
    real, short = planned(["timbre"], sets, monkeypatch, tmp_path)
    before = short.gan_start_epoch / short.epochs * 20
    assert math.isclose(before, round(before), abs_tol=1e-3)  # whole steps
    assert before == pytest.approx(20 * real.gan_start_epoch / real.epochs, abs=1)
    assert 0 < short.lr_every / short.epochs < 1


@pytest.mark.gate
@pytest.mark.parametrize("kind", KINDS)
def test_a_new_recipe_of_every_kind_is_debugged(kind, sets, monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    name, *conditional = kind.split()
    assert new.main(["mine.py", "--kind", name, *conditional]) == 0
    words = ["mine.py", f"data={sets(KINDS[kind])}", "--steps", "2", "--no-debugger"]
    words += ["label=shape"] if kind == "image --conditional" else []
    assert debug.main(words) == 0
    assert "no fault in 2 steps" in capsys.readouterr().out


@pytest.mark.gate
@pytest.mark.parametrize(
    "words",
    [
        ["timbre", "segment_length=256", "stft_resolutions=[[64, 16, 64]]"],
        ["wgan_flowers", "ngf=4", "ndf=4", "n_critic=2"],
        ["waveform"],
    ],
    ids=lambda words: words[0],
)
def test_it_trains_scores_and_writes_results(words, sets, monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    data = {"wgan_flowers": "flowers"}.get(words[0], DATA.get(words[0]))
    line = [*words, f"data={sets(data)}", "--steps", "4", "--no-debugger"]
    assert debug.main(line) == 0
    said = capsys.readouterr().out
    assert "scaled to so many steps: epochs=" in said and "no fault in 4 steps" in said
    (results,) = Path("runs/_debug").glob("*/results")
    if words[0] == "wgan_flowers":
        assert len(list(results.rglob("*.png"))) == debug.MOST_RESULTS + 1  # and a grid
