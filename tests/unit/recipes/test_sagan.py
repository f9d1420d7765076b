"""The variants of the sagan system.

Losses, soft labels, spectral norm and attention anywhere; and what it measures beside them.
"""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from distgan.config import batch_layout, loading
from distgan.core.clock import Clock
from distgan.core.errors import ConfigError
from distgan.data.dataset import Data
from distgan.data.loader import MicroBatch
from distgan.distributed.ranks import Ranks
from distgan.nn import losses, normalization
from distgan.nn.image import SelfAttention2d
from distgan.recipes._base import diversity, validate
from distgan.recipes._catalog import resolve_recipe
from distgan.recipes.sagan import Recipe, Settings

SMALL = ["ngf=4", "ndf=4", "latent=8", "batch=4"]


def settings(*words: str) -> Settings:
    return loading.validate(Settings, {"recipe": "sagan", "data": "-"}, [*SMALL, *words])


def recipe(*words: str) -> Recipe:
    """In one process, on the CPU."""
    chosen = settings(*words)
    torch.manual_seed(0)
    return Recipe(
        chosen,
        Ranks(chosen.machine.model_copy(update={"device": "cpu"})),
        batch_layout.fit(chosen.batch, 1, 1, chosen.group),
        (1, 64, 64),
    )


def batch(k: int = 0, size: int = 4) -> list[MicroBatch]:
    at = np.arange(k * size, (k + 1) * size)
    return [
        MicroBatch(
            torch.randint(0, 256, (size, 1, 64, 64), dtype=torch.uint8), at, at, slice(0, size), k
        )
    ]


@pytest.mark.parametrize("mode", losses.MODES)
def test_a_step_takes_the_loss_that_was_asked_for(mode, monkeypatch):
    """With its labels, for D and for G; what is logged beside it is what that D's outputs mean."""
    made, asked = recipe(f"loss={mode}", "real_label=0.8", "fake_label=0.1"), []
    for name in ("d_adversarial", "g_adversarial"):
        usual = getattr(losses, name)
        monkeypatch.setattr(
            f"distgan.recipes.sagan.{name}",
            lambda *args, usual=usual: asked.append(args) or usual(*args),
        )
    log = made.step([batch()], Clock(4, 8))
    assert all(torch.isfinite(value) for value in log.values())
    (d_mode, real, fake, *labels), (g_mode, judged, label) = asked
    assert (d_mode, g_mode, labels, label) == (mode, mode, [0.8, 0.1], 0.8) and [
        len(x) for x in (real, fake, judged)
    ] == [4, 4, 4]
    assert log["g/adversarial"] == log["g/loss"]
    kind, mean = ("prob", torch.sigmoid) if mode == "vanilla" else ("score", lambda x: x)
    for name, said in (
        (f"d/real_{kind}", real),
        (f"d/fake_{kind}", fake),
        (f"g/fake_{kind}", judged),
    ):
        torch.testing.assert_close(log[name], mean(said).mean().detach())


def test_watch_judges_d_by_ranges_only_where_there_are_some():
    assert [settings(f"loss={mode}").watch.unbounded for mode in losses.MODES] == [
        False,
        False,
        True,
        True,
    ]
    assert settings().watch.d_loss_floor == 0.163 and settings("loss=lsgan").watch.d_loss_floor == 0
    assert [
        settings(f"real_label={real}", f"fake_label={fake}").watch.d_loss_floor
        for real, fake in ((1, 0), (0.9, 0.1), (0.7, 0), (0.8, 0.1))
    ] == [0, 0.325, 0.305, 0.413]
    assert (
        settings("loss=lsgan", "watch.d_loss_floor=0.3").watch.d_loss_floor == 0.3
        and not settings("loss=hinge", "watch.unbounded=false").watch.unbounded
    )
    assert (
        Settings(data="x", loss="hinge").watch.unbounded
        and Settings(data="x").watch.d_loss_floor == 0.163
    )
    for label in ("much", "2", "-1"):  # one message, although the floor follows from the label
        with pytest.raises(ConfigError, match="real_label"):
            settings(f"real_label={label}")
    again = Settings.model_validate(settings("loss=hinge").model_dump(mode="json"))
    assert again == settings("loss=hinge")


def test_a_wasserstein_d_that_nothing_bounds_is_refused():
    with pytest.raises(
        ConfigError, match=r"loss: found \"wgan\"; nothing bounds D.*leave D in spectral_norm"
    ):
        settings("loss=wgan", "spectral_norm=[G]")
    assert settings("loss=wgan", "spectral_norm=[G, D]").spectral_norm == ("G", "D")


def test_no_bias_that_a_loss_does_not_depend_on():
    assert [recipe(f"loss={mode}").D.module.layers[-1].bias is None for mode in losses.MODES] == [
        False,
        False,
        False,
        True,
    ]


@pytest.mark.parametrize("where", ["", "G", "D", "G, D"])
def test_spectral_norm_anywhere(where):
    made = recipe(f"spectral_norm=[{where}]", "attention=[8, 32]")
    for name, player in made.players.items():
        layers = [
            m for m in player.module.modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d)
        ]
        assert len(layers) == 5 + 2 * 3 and all(
            hasattr(layer, "parametrizations") == (name in where) for layer in layers
        )
    assert all(torch.isfinite(value) for value in made.step([batch()], Clock(4, 8)).values())


@pytest.mark.parametrize("sizes", [(), (8,), (16,), (32,), (8, 16, 32)])
def test_attention_at_any_resolution(sizes):
    made = recipe(f"attention=[{', '.join(map(str, sizes))}]")
    seen = []
    for player in made.players.values():
        for layer in player.module.modules():
            if isinstance(layer, SelfAttention2d):
                layer.register_forward_hook(lambda layer, args, out: seen.append(out.shape[-1]))
    with made.D.evaluating() as judge:
        judge(made.G.generate(torch.randn(4, 8)))
    assert sorted(seen) == sorted(2 * sizes)


def test_the_preset_of_the_paper_is_sagan_with_these_settings():
    """A run of it is that of its settings, and takes steps."""
    paper = {
        "loss": "hinge",
        "real_label": 1.0,
        "spectral_norm": ("G", "D"),
        "attention": (32,),
        "g_lr": 1e-4,
        "d_lr": 4e-4,
        "betas": (0.0, 0.9),
        "d_steps": 1,
        "g_steps": 1,
        "weight_decay": 0.0,
        "lr_every": None,
        "clip": None,
        "ema": None,
        "hflip": 0.0,
        "vflip": 0.0,
    }
    module, tree = resolve_recipe("sagan-paper")
    chosen = loading.validate(module.Settings, tree | {"data": "-"}, SMALL)
    assert chosen == loading.validate(Settings, {"recipe": "sagan", "data": "-"} | paper, SMALL)
    assert {name: getattr(chosen, name) for name in tree if name != "recipe"} == paper
    made = recipe(*(f"{name}={json.dumps(value)}" for name, value in paper.items()))
    assert made.run == chosen
    assert len(normalization.spectral_norms(made.G.module)) == 5 + 3
    assert all(torch.isfinite(value) for value in made.step([batch()], Clock(4, 8)).values())


# ---- what is measured
def test_diversity_is_the_spread_of_samples_beside_that_of_reals(particles):
    data = Data(str(particles))
    reals = torch.cat(list(data.chunks(data.train, 64))).double() / 127.5 - 1
    spread = reals.numpy().var(0, ddof=1).mean() ** 0.5  # 54 images, fewer than 64
    numbers = torch.arange(54.0)[:, None, None, None].expand(-1, 1, 64, 64)
    drawn = (
        numbers % 2
    ) * 1.0 - 0.5  # half of the samples at -0.5, half at 0.5: 8 bits hold ±0.498
    level = 0.5 * 254 / 255
    found = diversity(data, lambda n, purpose: drawn[n])
    assert found == pytest.approx(level * (54 / 53) ** 0.5 / spread, rel=0.01)
    assert diversity(data, lambda n, purpose: reals[n].float()) == pytest.approx(1)
    assert diversity(data, lambda n, purpose: torch.zeros(len(n), 1, 64, 64)) == 0
    own = SimpleNamespace(sample=lambda n, purpose: drawn[n])  # one without a validation of its own
    assert validate(own, data) == {"valid/diversity": found}


def test_a_validation_has_the_numbers_of_the_journal_and_leaves_d_alone(particles):
    made = recipe("loss=lsgan")
    before = {name: value.clone() for name, value in made.D.tensors().items()}
    found = made.validate(Data(str(particles)))
    assert set(found) == {
        f"valid/{name}"
        for name in (
            "d_loss",
            "g_loss",
            "adversarial",
            "real_score",
            "train_score",
            "fake_score",
            "overfit",
            "diversity",
        )
    }
    assert all(torch.equal(value, before[name]) for name, value in made.D.tensors().items())
    assert {"valid/real_prob", "valid/train_prob", "valid/fake_prob"} <= set(
        recipe().validate(Data(str(particles)))
    )
