"""A move of DiffAugment, the guide's answer to `d_overfitting` and `copies`, is made in flight: the
next step augments all that D sees.
"""

import numpy as np
import pytest
import torch

from distgan.config import batch_layout, loading
from distgan.core.clock import Clock
from distgan.data import diffaugment
from distgan.data.loader import MicroBatch
from distgan.distributed.ranks import Ranks
from distgan.monitor.decisions import next_moves
from distgan.recipes._base import apply_settings
from distgan.recipes._catalog import resolve_recipe


@pytest.mark.parametrize("name", ["sagan", "r3gan", "wgan_flowers"])
def test_the_next_step_augments_what_d_sees(name, monkeypatch):
    module, tree = resolve_recipe(name)
    words = ["ngf=2", "ndf=2", "latent=4", "batch=4"]
    run = loading.validate(module.Settings, {**tree, "data": "-"}, words)
    ranks = Ranks(run.machine.model_copy(update={"device": "cpu"}))
    made = module.Recipe(run, ranks, batch_layout.fit(4, 1, 1, run.group), (3, 64, 64))
    at, seen, usual = np.arange(4), [], diffaugment.images
    images = torch.zeros(4, 3, 64, 64, dtype=torch.uint8)
    batches = [[MicroBatch(images, at, at, slice(0, 4), 0)]] * made.run.batches_per_step
    monkeypatch.setattr(
        diffaugment,
        "images",
        lambda x, policies, *a: seen.append(policies) or usual(x, policies, *a),
    )
    made.step(batches, Clock(4, 4))
    before, seen[:] = set(seen), []
    values = run.model_dump(mode="json")
    changes = next_moves("copies", run.watch, values, in_flight=True)
    apply_settings(made, type(run).model_validate(values | changes))
    made.step(batches, Clock(4, 4, 1))
    assert before == {()} and set(seen) == {("color", "translation", "cutout")}
