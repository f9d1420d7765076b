"""Every warning that a recipe can get has a move that can be made to a run under way, or the page
on rules says why not.
"""

from typing import get_args

import pytest

from distgan.config.loading import validate
from distgan.monitor.decisions import next_moves
from distgan.monitor.guides import EARLIER_MOVES, SAGAN_GUIDE
from distgan.monitor.moves import Rule
from distgan.recipes._catalog import resolve_recipe

SCORED = {"nonfinite", "mode_collapse", "gradients_exploding"}
IMAGES = SCORED | {"d_overfitting", "copies"}
PAIRS = SCORED | {"overfitting", "validation_rising"}
RANGES = {"d_loss_low", "g_loss_exploding"}
PROBABILITIES = {"d_too_strong", "real_prob_low", "fake_prob_high"}
# What a recipe's journal holds decides which warnings it can get; `score_flat` has no move, see
# docs/watch.md.
CAN_GET = [
    ("sagan", [], IMAGES | RANGES | PROBABILITIES),
    ("sagan", ["loss=lsgan"], IMAGES | RANGES),
    ("sagan", ["loss=hinge"], IMAGES | {"d_loss_low"}),
    ("sagan", ["loss=wgan"], IMAGES | {"critic_drift"}),
    ("capacity", [], IMAGES | RANGES | PROBABILITIES),
    ("r3gan", [], IMAGES | {"d_loss_low"}),
    ("wgan_flowers", [], IMAGES | {"critic_drift", "score_flat"}),
    ("waveform", [], PAIRS | RANGES | {"d_loss_high", "gan_loss_stagnant"}),
    ("waveform", ["loss=vanilla"], PAIRS | RANGES | PROBABILITIES),
    ("waveform", ["loss=hinge"], PAIRS | {"d_loss_low"}),
    ("waveform", ["loss=wgan", "weight_clip=0.01"], PAIRS | {"critic_drift"}),
    ("timbre", [], PAIRS | RANGES | {"d_loss_high"}),
    ("timbre", ["gan_loss=vanilla"], PAIRS | RANGES | PROBABILITIES),
    ("timbre", ["gan_loss=hinge"], PAIRS | {"d_loss_low"}),
]


@pytest.mark.parametrize(("recipe", "words", "warnings"), CAN_GET)
def test_each_warning_has_a_move_in_flight(recipe, words, warnings):
    module, tree = resolve_recipe(recipe)
    run = validate(module.Settings, {**tree, "data": "x"}, words)
    values = run.model_dump(mode="json")
    for rule in sorted(warnings):
        changes = next_moves(rule, run.watch, values, in_flight=True)
        assert changes, rule
        type(run).model_validate(values | changes)
    if "d_overfitting" in warnings:  # weight decay does nothing to a D under spectral norm
        assert "weight_decay" not in next_moves("d_overfitting", run.watch, values, in_flight=True)


def test_moves_may_be_null_which_is_no_moves():
    module, tree = resolve_recipe("sagan")
    run = validate(module.Settings, {**tree, "data": "x"}, ["watch.moves.copies=null"])
    assert run.watch.moves == {rule: SAGAN_GUIDE[rule] for rule in SAGAN_GUIDE if rule != "copies"}
    assert {key.rpartition(".")[2] for key in EARLIER_MOVES} < set(get_args(Rule))
