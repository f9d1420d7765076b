"""Every key of the files of `distgan evaluate` is in docs/evaluation-json.md, and no other."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sounds import asked, made_voices, voice_folders

from distgan.commands import evaluate
from distgan.evaluation.image_scores import Classes, SetStatistics, by_class

PAGE = Path(__file__).parents[3] / "docs" / "evaluation-json.md"
# Of these the page describes the values, not each name.
WHOLE = ("conditions", "seconds", "reasons", "by_class.rows", "made_with.versions")
STAND_IN = ("--extractor", "standin")
# Of CLIP and of Inception, whose weights are not here.
WEIGHTS_NEEDED = {"cmmd", "floor.real.cmmd", "floor.generated.cmmd"}
WEIGHTS_NEEDED |= {"inception_score", "inception_score_sd"}


def documented() -> list[set[str]]:
    """Return the keys of the tables: of images, of runs as well, and of sound."""
    tables = re.split("Of a run there are also:|## Sound", PAGE.read_text())
    rows = ((line.split("|")[1] for line in t.splitlines() if line[:3] == "| `") for t in tables)
    return [{key for cell in t for key in re.findall("`([^`]+)`", cell)} for t in rows]


def keys(value: dict, above: str = "") -> set[str]:
    found = set()
    for key, inner in value.items():
        key = "NAME" if above in ("means.", "distances.") else key
        name = above + re.sub(r"^(kid|kernel_[a-z0-9]+)(?=$|_)", "KERNEL", key)
        found.add(name)
        if isinstance(inner, dict) and name not in WHOLE:
            found |= keys(inner, f"{name}.")
    return found


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DISTGAN_CACHE", str(tmp_path / "cache"))


def said(*words: str) -> dict:
    assert evaluate.main([*words, "--device", "cpu", "--out", "out.json"]) == 0
    return json.loads(Path("out.json").read_text())


def test_the_page_has_every_key_of_two_sets_and_no_other():
    for seed, name in enumerate(("real", "fake")):
        Path(name).mkdir()
        for i, pixels in enumerate(
            np.random.default_rng(seed).integers(0, 256, (12, 24, 24, 3), np.uint8)
        ):
            Image.fromarray(pixels).save(f"{name}/{i}.png")
    np.savez("theirs.npz", mu=np.zeros(480), sigma=np.eye(480))
    found = set()
    for words in (
        ("real", "fake"),
        ("real", "fake", "--path", "moments", "--resize", "16"),
        ("theirs.npz", "fake"),
    ):
        result = said(*words, *STAND_IN)
        found |= keys(result)
        assert all(result.get(name) is None for name in result.get("reasons", {}))
    assert found == documented()[0] - WEIGHTS_NEEDED, found ^ documented()[0]


@pytest.mark.gate
def test_the_page_has_every_key_of_a_run_and_no_other(trained):
    home, _ = trained
    result = said(str(home / "run"), f"--data={home / 'data'}", "--n", "20", *STAND_IN)
    rows, of = torch.randn(60, 5), np.arange(60) % 2
    classes = Classes("kind", ("a", "b"), of, of)
    sets = SetStatistics(60, 60, rows), SetStatistics(60, 0, rows + 1)
    names = ("frechet_standin", "kernel_standin")
    result["by_class"] = by_class(*sets, classes, ("frechet", "kernel"), names, 60)
    every, of_runs, _ = documented()
    assert keys(result) - every == of_runs


def test_the_page_has_every_key_of_sound_and_no_other(tmp_path):
    folders = voice_folders(tmp_path, made_voices()[:2])
    result = said(*asked(folders, "--metrics", "si_sdr,l1,frechet"))
    assert keys(result) == documented()[2], keys(result) ^ documented()[2]
    assert result["clips"][0].keys() >= {"key", "snr_db", "si_sdr", "input_l1", "why"}
