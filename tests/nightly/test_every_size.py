"""Images of every size that recipes train on, from `distgan shard images` to an epoch on 1 and 2
processes; every other size is refused before anything is launched.
"""

import contextlib
import io
import itertools
import json
import shlex

import numpy as np
import pytest
from PIL import Image
from processes import ROOT, line, run
from shard_sets import shard
from sizes import RECIPES, SMALL

from distgan import train
from distgan.core.errors import ConfigError
from distgan.launchers.local.run import refuse_early

SIZES = ("16", "32", "64", "128", "256", "64x128")
OTHERS = ("24", "48", "512", "64x72")


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Folders of ten gray pictures and of ten in colour."""
    home, rng = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    for kind, shape in (("gray", (9, 7)), ("colour", (9, 7, 3))):
        (home / kind).mkdir()
        for i in range(10):
            noise = Image.fromarray(rng.integers(0, 256, shape, np.uint8))
            noise.resize((420, 540)).save(home / kind / f"{i}.png")
    return home


def made(photos, kind, size, to):
    """Shard the pictures; the words of the lines that it says come next."""
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        assert shard("images", to, "--from", photos / kind, "--size", size, "--workers", 1) == 0
    return [
        shlex.split(text.removeprefix("next: "), comments=True)
        for text in printed.getvalue().splitlines()
        if text.startswith("next: ")
    ]


def test_every_size_trains_on_two_ranks_as_on_one(photos, tmp_path):
    folders, cells = [], list(itertools.product(("gray", "colour"), SIZES))
    for kind, size in cells:
        folders.append(tmp_path / f"{kind}-{size}")
        named = [words for words in made(photos, kind, size, folders[-1]) if words[1] == "run"]
        assert named, "the line that trains on it"
        _, _, _, _, recipe, *words = named[0]
        small = [*SMALL, *RECIPES[recipe], "machine.device=cpu", "evaluate.samples=4"]
        train.plan([recipe, *words, *small])
        if size in ("16", "64x128"):  # as printed, on one process; the others below
            folder = f"machine.folder={tmp_path / kind / size}"
            assert train.main([recipe, *words, *small, folder]) == 0
    output = run(
        line("torchrun", 2, ROOT / "tests" / "programs" / "sizes.py"), *folders, cwd=tmp_path
    )
    results = json.loads(output.splitlines()[-1])
    assert len(results) == len(cells) * len(RECIPES)
    assert {name: verdict for name, verdict in results.items() if verdict} == {}


@pytest.mark.parametrize("size", OTHERS)
def test_other_sizes_are_refused_before_anything_is_launched(size, photos, tmp_path):
    lines = made(photos, "gray", size, tmp_path / "data")
    assert [words[1] for words in lines] == ["check"], "no recipe is named that would refuse"
    for recipe in RECIPES:
        with pytest.raises(ConfigError, match="does not train on images of .*the shorter side"):
            refuse_early(2, [recipe, f"data={tmp_path / 'data'}"])
