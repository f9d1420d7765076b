"""Moves of augmentation, the guide's answers to `copies` and `d_overfitting`, are made in flight:
the next step augments all that D sees.
"""

import numpy as np
import pytest
import torch

from distgan.config import batch_layout, loading
from distgan.core.clock import Clock
from distgan.data import ada, diffaugment
from distgan.data.loader import MicroBatch
from distgan.distributed.ranks import Ranks
from distgan.monitor.decisions import next_moves
from distgan.recipes._base import apply_settings
from distgan.recipes._catalog import resolve_recipe


def small(name, *words):
    """Return a recipe with tiny networks, and the batches of one of its steps."""
    module, tree = resolve_recipe(name)
    words = ("ngf=2", "ndf=2", "latent=4", "batch=4", *words)
    run = loading.validate(module.Settings, {**tree, "data": "-"}, words)
    ranks = Ranks(run.machine.model_copy(update={"device": "cpu"}))
    torch.manual_seed(0)
    made = module.Recipe(run, ranks, batch_layout.fit(4, 1, 1, run.group), (3, 64, 64))
    at = np.arange(4)
    images = torch.zeros(4, 3, 64, 64, dtype=torch.uint8)
    return made, [[MicroBatch(images, at, at, slice(0, 4), 0)]] * run.batches_per_step


def move(made, rule):
    """Make the guide's moves for `rule`; return them."""
    run = made.run
    values = run.model_dump(mode="json")
    changes = next_moves(rule, run.watch, values, in_flight=True)
    apply_settings(made, type(run).model_validate(values | changes))
    return changes


@pytest.mark.parametrize("name", ["sagan", "r3gan", "wgan_flowers"])
def test_the_next_step_augments_what_d_sees(name, monkeypatch):
    made, batches = small(name)
    seen, usual = [], diffaugment.images
    monkeypatch.setattr(
        diffaugment,
        "images",
        lambda x, policies, *a: seen.append(policies) or usual(x, policies, *a),
    )
    made.step(batches, Clock(4, 4))
    before, seen[:] = set(seen), []
    move(made, "copies")
    made.step(batches, Clock(4, 4, 1))
    assert before == {()} and set(seen) == {("color", "translation", "cutout")}


@pytest.mark.parametrize("name", ["sagan", "r3gan"])
def test_adaptive_augmentation_is_switched_on_and_its_strength_follows_d(name, monkeypatch):
    made, batches = small(name, "ada_every=1", "ada_kimg=0.01", "ada_target=-0.9")
    seen, usual = [], ada.images
    monkeypatch.setattr(
        ada, "images", lambda x, what, p, *a: seen.append(float(p)) or usual(x, what, p, *a)
    )
    assert "d/ada" not in made.step(batches, Clock(4, 4)) and not seen
    assert move(made, "d_overfitting")["ada"] is True
    first, second = (made.step(batches, Clock(4, 4, i)) for i in (1, 2))
    # Nothing is changed until D has been asked once; then 4 of 10 images, in D's update and G's.
    assert seen[:2] == [0, 0] and set(seen[2:]) <= {0.4, 0.8}
    assert float(first["d/ada"]) == 0.4 and float(second["d/ada"]) == 0.8
