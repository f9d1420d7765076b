"""How far a run trains, in words: updates of each player, and a patience that cannot act."""

import pytest

from distgan.config.loading import validate
from distgan.core.clock import Clock
from distgan.recipes._catalog import resolve_recipe
from distgan.training.setup import length, notes


def planned(recipe, *words, train=7780):
    module, tree = resolve_recipe(recipe)
    run = validate(module.Settings, tree, ["data=d", *words])
    return run, Clock(run.batch * run.batches_per_step, train)


@pytest.mark.parametrize(
    ("recipe", "words", "train", "counts"),
    [
        ("wgan_flowers", [], 7780, {"D": 80_020, "G": 16_004}),
        ("sagan", ["d_steps=2", "g_steps=3"], 320, {"D": 40_000, "G": 60_000}),
        ("capacity", [], 320, {"D": 30_000, "G": 60_000}),
        ("r3gan", [], 320, {"D": 20_000, "G": 20_000}),
        ("waveform", ["d_steps=2"], 396, {"D": 1188, "G": 594}),
        ("timbre", [], 80, {"D": 190, "G": 240}),  # D from epoch 5 of 24 on
        ("timbre", ["gan_start_epoch=0"], 80, {"D": 240, "G": 240}),
        ("timbre", ["lambda_adversarial=0"], 80, {"D": 0, "G": 240}),
    ],
)
def test_the_updates_of_each_player_are_counted(recipe, words, train, counts):
    run, clock = planned(recipe, *words, train=train)
    assert run.update_counts(clock) == counts


def test_one_line_says_how_far_a_run_trains():
    assert length(*planned("wgan_flowers")) == (
        "2,633 epochs of 7,780 images = 16,004 steps of 1,280: 80,020 updates of D, 16,004 updates"
        " of G, 20,485,120 images seen"
    )
    template = "distgan/recipes/templates/pair.py"
    assert length(*planned(template, "epochs=2", "batch=8", train=80)) == (
        "2 epochs of 80 pairs = 20 steps of 8: 160 pairs seen"
    )


def test_a_patience_that_cannot_act_is_named():
    assert notes(*planned("waveform", train=396)) == [
        "patience=20 ends this run early only if its best score is from epoch 4 or before: it"
        " trains for epochs=24"
    ]
    assert notes(*planned("waveform", "epochs=12", train=396)) == [
        "patience=20 cannot end this run early: it trains for epochs=12"
    ]
    assert notes(*planned("waveform", "epochs=40", train=396)) == []
    assert notes(*planned("waveform", "patience=null", train=396)) == []
    assert notes(*planned("sagan", "epochs=1", train=10))[0].startswith("a step takes 16 samples")
