"""Every number of the systems' documents against the settings that a recipe resolves to. A number
that differs is listed with the page that says why.
"""

import functools
from pathlib import Path

import pytest

from distgan.config.loading import validate
from distgan.monitor.decisions import next_moves
from distgan.outputs.image_results import GOOD
from distgan.recipes._catalog import resolve_recipe
from distgan.shards.build.command import command_of

ROOT = Path(__file__).parents[3]
# Recipe or preset -> setting -> the document's value. A list holds as many numbers as it has.
DOCUMENTS = {
    "waveform": {
        "lambda_l1": 10,
        "base_filters": 64,
        "num_layers": 4,
        "base_filters_d": 32,
        "num_layers_d": 3,
        "g_lr": 2e-4,
        "d_lr": 1e-4,
        "real_label": 0.9,
        "fake_label": 0.1,
        "aug_noise_std": 0.02,
        "aug_scale_range": [0.9, 1.1],
        "aug_shift_range": 0.1,
        "patience": 20,
        "dropout_rate": 0.3,
        "weight_decay": 1e-5,
        "watch.healthy.d/loss": [0.2, 0.7],
        "watch.d_loss_strong": 0.1,
        "watch.d_loss_collapsed": 0.05,
        "watch.d_loss_weak": 1.0,
        "watch.stagnant_after": 5,
        "watch.stagnant_change": 0.01,
        "watch.stagnant_epochs": 1,
        "watch.gap_healthy": 0.1,
        "watch.gap_high": 0.2,
    },
    "waveform-collapsed": {
        "lambda_l1": 100,
        "base_filters": 64,
        "num_layers": 4,
        "base_filters_d": 64,
        "num_layers_d": 4,
        "g_lr": 1e-4,
        "d_lr": 2e-4,
        "real_label": 1.0,
        "fake_label": 0.0,
        "aug_noise_std": 0.01,
        "aug_scale_range": [0.95, 1.05],
        "aug_shift_range": 0.05,
        "patience": 15,
        "dropout_rate": 0.3,
        "weight_decay": 1e-5,
    },
    "sagan": {
        "attention": [16],
        "attention_reduction": 8,
        "latent": 128,
        "batch": 16,
        "epochs": 2000,
        "d_steps": 1,
        "g_steps": 1,
        "g_lr": 2e-4,
        "d_lr": 2e-4,
        "betas": [0.0, 0.9],
        "lr_every": 500,
        "lr_factor": 0.5,
        "clip": 1.0,
        "real_label": 0.9,
        "fake_label": 0.0,
        "hflip": 0.5,
        "vflip": 0.5,
        "evaluate.schedule": [[200, 10], [800, 20], [None, 50]],
        "evaluate.samples": 500,
        "sample_every": 10,
        "ema": 0.9999,
        "weight_decay": 1e-5,
        "watch.healthy.d/real_prob": [0.5, 0.8],
        "watch.real_prob_low": 0.5,
        "watch.score_flat_epochs": 100,
    },
    "capacity": {
        "batch": 32,
        "bn_group_max": 32,
        "g_lr": 1e-4,
        "d_lr": 1e-4,
        "weight_decay": 1e-5,
        "ema": 0.9999,
        "epochs": 3000,
        "machine.checkpoint_every": 200,
        "d_steps": 1,
        "g_steps": 2,
        "clip": 1.0,
        "watch.healthy.d/real_prob": [0.75, 0.85],
        "watch.healthy.d/fake_prob": [0.35, 0.5],
        "watch.healthy.d/loss": [0.3, 0.8],
        "watch.healthy.g/loss": [0.5, 1.5],
    },
    "timbre": {"gan_start_epoch": 5, "gain": [0.8, 1.0], "polarity": 0.0},
    "wgan_flowers": {
        "latent": 100,
        "ngf": 64,
        "ndf": 64,
        "n_critic": 5,
        "weight_clip": 0.01,
        "g_lr": 1e-4,
        "d_lr": 1e-4,
        "batch": 256,
        "epochs": 500,
        "hflip": 0.5,
        "betas": [0.0, 0.9],
    },
}
# Where a default differs: its value, the page, and what that page says of it.
DEVIATIONS = {
    ("wgan_flowers", "epochs"): (2633, "wgan_flowers.md", "16,000 updates"),
    ("waveform", "watch.stagnant_epochs"): (3, "watch.md", "`watch.stagnant_epochs=1` takes one"),
}
# The tuning guides: recipe, words of the line, rule, setting -> its value after the first move.
MOVES = [
    ("waveform", "d_loss_low", {"base_filters_d": 24, "num_layers_d": 2, "d_lr": 5e-5}),
    ("waveform", "d_loss_low", {"lambda_l1": 5}),
    ("waveform", "d_loss_high", {"g_lr": 3e-4, "lambda_l1": 20}),
    ("waveform", "overfitting", {"dropout_rate": 0.4, "weight_decay": 5e-5}),
    ("waveform", "overfitting", {"aug_noise_std": 0.03, "aug_shift_range": 0.15}),
    ("waveform", "overfitting", {"aug_scale_range": [0.85, 1.15]}),
    ("sagan", "score_flat", {"epochs": 3000, "ngf": 96, "ndf": 96, "attention": [8, 16, 32]}),
    ("capacity", "d_too_strong", {"g_steps": 3}),
    ("capacity", "mode_collapse", {"d_lr": 5e-5}),
    ("capacity", "gradients_exploding", {"g_lr": 5e-5, "d_lr": 5e-5, "clip": 0.5}),
    ("wgan_flowers", "d_overfitting", {"rotation": 15, "jitter": 0.2, "translation": 0.1}),
    ("wgan_flowers", "mode_collapse", {"penalty": 10, "optimizer": "adam"}),
]


@functools.cache
def settings(recipe):
    module, tree = resolve_recipe(recipe)
    return validate(module.Settings, tree, ["data=d"])


def resolved(recipe, key):
    value = settings(recipe).model_dump(mode="json")
    for part in key.split("."):
        value = value[part]
    return value


def numbers(value):
    """How many numbers a value of a document holds."""
    if isinstance(value, list):
        return sum(map(numbers, value))
    return 0 if value is None else 1


@pytest.mark.parametrize("recipe", DOCUMENTS)
def test_the_numbers_of_the_documents_are_the_defaults(recipe):
    found = {key: resolved(recipe, key) for key in DOCUMENTS[recipe]}
    differ = {key: found[key] for key, value in DOCUMENTS[recipe].items() if found[key] != value}
    assert differ == {
        key: value for (name, key), (value, *_) in DEVIATIONS.items() if name == recipe
    }


def test_a_number_that_differs_is_on_a_page_with_its_reason():
    for (recipe, key), (_, page, words) in DEVIATIONS.items():
        assert words in (ROOT / "docs" / page).read_text(), (recipe, key)
    assert (
        "patience ends only\n  a run whose best is from epoch 4"
        in (ROOT / "docs/waveform.md").read_text()
    ), "the documents give no length beside a patience of 20"


@pytest.mark.parametrize(("recipe", "rule", "moves"), MOVES)
def test_the_moves_of_the_documents_are_the_first_of_the_guide(recipe, rule, moves):
    run = settings(recipe)
    values = run.model_dump(mode="json")
    found = {}
    for in_flight in (True, False):
        found |= next_moves(rule, run.watch, values, in_flight)
    found = {name: list(new) if isinstance(new, tuple) else new for name, new in found.items()}
    assert {name: found.get(name) for name in moves} == moves


def test_numbers_that_are_no_settings():
    for source in ("timbre", "flowers102"):
        (share,) = [o.default for o in command_of(source).options if o.name == "validation"]
        assert 0.05 <= share <= 0.1
    assert GOOD == 50
    module, tree = resolve_recipe("wgan_flowers")
    for count in range(3, 11):
        assert validate(module.Settings, tree, ["data=d", f"n_critic={count}"]).n_critic == count


def test_every_number_of_the_documents_is_in_the_table():
    """94 were counted in them as defaults; thresholds and moves are beside these here."""
    table = sum(numbers(value) for document in DOCUMENTS.values() for value in document.values())
    moves = sum(numbers(list(each.values())) for _, _, each in MOVES)
    assert table >= 94 and moves >= 20
