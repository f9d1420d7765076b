"""The tuning guide as data: what a move makes of a setting, what is advised, what is done, and that
all of it validates.
"""

import json

import pytest
import yaml
from journals import collapsed
from pydantic import ValidationError

from distgan.config.loading import validate
from distgan.core.errors import ConfigError
from distgan.monitor.decisions import (
    Decision,
    adapt,
    decide,
    evaluate_rules,
    next_moves,
    rollback_decision,
)
from distgan.monitor.guides import FLOWERS_GUIDE, SAGAN_GUIDE
from distgan.monitor.journal import current_settings
from distgan.monitor.moves import Move, format_setting
from distgan.monitor.results import Finding
from distgan.monitor.settings import WAVEFORM, Watch
from distgan.recipes import r3gan, sagan, wgan_flowers
from distgan.recipes._catalog import resolve_recipe

SAGAN = {"recipe": "sagan", "data": "x"}


def capacity(*words: str):
    module, tree = resolve_recipe("capacity")
    return validate(module.Settings, tree, ["data=x", *words])


def warning(rule, level="warning"):
    return Finding(rule, level, 1.0, "", "")


# ---- one move
@pytest.mark.parametrize(
    "move, value, new",
    [
        ({"factor": 0.5, "limit": 5e-5}, 2e-4, 1e-4),
        ({"factor": 0.5, "limit": 5e-5}, 6e-5, 5e-5),
        ({"factor": 0.5, "limit": 5e-5}, 5e-5, None),
        ({"factor": 0.5, "limit": 5e-5}, 1e-5, None),
        ({"factor": 1.5, "limit": 3e-4}, 2e-4, 3e-4),
        ({"factor": 2, "limit": 20}, 30.0, None),
        ({"add": 1, "limit": 3}, 2, 3),
        ({"add": 1, "limit": 3}, 3, None),
        ({"add": -1, "limit": 1}, 2, 1),
        ({"add": 0.1, "limit": 0.4}, 0.2, 0.3),
        ({"add": -0.1, "limit": 0.9}, 0.8, None),
        ({"factor": 0.75, "limit": 16}, 32, 24),
        ({"factor": 0.9}, 2, 1),
        ({"factor": 1.1}, 2, 3),
        ({"to": 0.9}, 1.0, 0.9),
        ({"to": 0.9}, 0.9, None),
        ({"to": [0.85, 1.15]}, (0.9, 1.1), [0.85, 1.15]),
        ({"to": [0.85, 1.15]}, (0.85, 1.15), None),
        ({"to": [8, 16]}, [16], [8, 16]),
        ({"to": ["color", "cutout"]}, [], ["color", "cutout"]),
        ({"to": ["color", "cutout"]}, ("color", "cutout"), None),
        ({"factor": 0.5}, None, None),
        ({"factor": 0.5}, True, None),
        ({"factor": 0.5}, "x", None),
        ({"factor": 0.5}, 0.0, None),
    ],
)
def test_a_move(move, value, new):
    made = Move(setting="x", **move).next(value)
    assert made == new and type(made) is type(new)


@pytest.mark.parametrize(
    "move",
    [
        {},
        {"factor": 2, "add": 1},
        {"factor": 1},
        {"add": 0},
        {"to": 1, "limit": 2},
        {"factor": -1},
        {"factor": 2, "limits": 3},
    ],
)
def test_a_move_has_one_way(move):
    with pytest.raises(ValidationError):
        Move(setting="x", **move)


@pytest.mark.parametrize(
    "value, text",
    [
        (1e-4, "1e-4"),
        (1.25e-5, "1.25e-5"),
        (2e-4, "2e-4"),
        (0.1, "0.1"),
        (10.0, "10"),
        (100.0, "100"),
        (24, "24"),
        (0.0, "0"),
        ((0.9, 1.1), "[0.9, 1.1]"),
        (None, "null"),
        (True, "true"),
        ("adam", "adam"),
        (1e-3, "0.001"),
    ],
)
def test_values_are_shown_as_one_writes_them(value, text):
    assert format_setting(value) == text


def test_a_guide_survives_being_written_and_read():
    for watch in (Watch(), WAVEFORM):
        assert (
            Watch(**json.loads(json.dumps(watch.model_dump(mode="json"))))
            == watch
            == Watch(**yaml.safe_load(yaml.safe_dump(watch.model_dump(mode="json"))))
        )


# ---- advice
def test_moves_on_settings_that_a_run_does_not_have_are_left_out():
    rows = collapsed()
    (few,) = [
        finding
        for finding in evaluate_rules(rows, Watch(), {"d_lr": 2e-4})
        if finding.rule == "d_loss_low"
    ]
    assert few.advice == "d_lr 2e-4→1e-4; train D less, or make it smaller"
    (none,) = [
        finding
        for finding in evaluate_rules(rows, Watch(), {"d_lr": 5e-5, "clip": None})
        if finding.rule == "d_loss_low"
    ]
    assert none.advice == "train D less, or make it smaller"


# ---- adapt
def test_adapt_makes_the_moves_of_the_first_warning_that_has_any_left():
    values = {"g_steps": 1, "d_lr": 2e-4, "weight_decay": 1e-5, "diffaugment": [], "ndf": 64}
    switched = {"diffaugment": ["color", "translation", "cutout"]}
    assert adapt([warning("d_loss_low"), warning("d_overfitting")], Watch(), values) == {
        "g_steps": 2,
        "d_lr": 1e-4,
    }
    assert (
        adapt(
            [warning("d_loss_low"), warning("d_overfitting")],
            Watch(),
            values | {"g_steps": 3, "d_lr": 5e-5},
        )
        == switched
    )
    assert (
        adapt([warning("d_loss_low", "note"), warning("d_overfitting")], Watch(), values)
        == switched
    )
    assert adapt([warning("d_overfitting")], Watch(), values | switched) == {}
    assert adapt([warning("score_flat")], Watch(), values) == adapt([], Watch(), values) == {}


def test_adapting_leads_from_the_failing_run_to_the_repaired_one_and_then_ends():
    values = {"d_lr": 2e-4, "lambda_l1": 100.0, "g_lr": 1e-4, "real_label": 1.0, "fake_label": 0.0}
    seen = []
    while changes := adapt([warning("d_loss_low")], WAVEFORM, values):
        values = values | changes
        seen.append(
            (
                values["d_lr"],
                values["lambda_l1"],
                values["g_lr"],
                values["real_label"],
                values["fake_label"],
            )
        )
    assert seen == [
        (1e-4, 10, 2e-4, 0.9, 0.1),
        (5e-5, 5, 2e-4, 0.9, 0.1),
        (2.5e-5, 2.5, 2e-4, 0.9, 0.1),
        (1.25e-5, 2.5, 2e-4, 0.9, 0.1),
    ]


def test_what_adapt_makes_of_settings_validates():
    """All moves of the sagan guide, as far as they go.

    Each changes a setting there is, within its limits.
    """
    for recipe, tree in (
        (sagan, SAGAN),
        (r3gan, {"recipe": "r3gan", "data": "x"}),
        (wgan_flowers, {"recipe": "wgan_flowers", "data": "x", "watch": {"on_trouble": "adapt"}}),
    ):
        for rule in SAGAN_GUIDE:
            run = validate(recipe.Settings, tree)
            for _ in range(20):
                changes = adapt([warning(rule)], run.watch, run.model_dump(mode="json"))
                if not changes:
                    break
                run = type(run).model_validate(run.model_dump(mode="json") | changes)
            else:
                pytest.fail(f"{rule} never runs out of moves")
    made = validate(sagan.Settings, SAGAN)
    for rule, moves in SAGAN_GUIDE.items():
        for move in moves:
            if (
                move.setting in type(made).model_fields
                and (new := move.next(getattr(made, move.setting))) is not None
            ):
                assert (
                    getattr(
                        type(made).model_validate(
                            made.model_dump(mode="json") | {move.setting: new}
                        ),
                        move.setting,
                    )
                    is not None
                ), rule


@pytest.mark.parametrize(
    "setting", ["clip", "betas", "d_steps", "lr_every", "ngf", "batch", "seed", "epochs", "loss"]
)
def test_a_move_of_what_a_run_under_way_does_not_read_is_refused(setting):
    moves = {"d_loss_low": [{"setting": setting, "to": 1}]}
    with pytest.raises(
        ConfigError,
        match=(
            f"does not read {setting} anew; write in_flight: false."
            " In flight go ada, d_lr, diffaugment"
        ),
    ):
        validate(sagan.Settings, {"recipe": "sagan", "data": "x", "watch": {"moves": moves}})
    moves["d_loss_low"][0]["in_flight"] = False
    assert (
        validate(sagan.Settings, {"recipe": "sagan", "data": "x", "watch": {"moves": moves}})
        .watch.moves["d_loss_low"][0]
        .setting
        == setting
    )


# ---- decide
def deciding(how, **more):
    return Watch(on_trouble=how, settle_epochs=5, max_rollbacks=2, **more)


VALUES = {"g_steps": 1, "g_lr": 2e-4, "d_lr": 2e-4}


def test_warn_and_notes_do_nothing():
    assert decide([warning("nonfinite")], deciding("warn"), VALUES, {}, 3.0) == Decision()
    for how in ("adapt", "rollback", "stop"):
        assert (
            decide([warning("nonfinite", "note")], deciding(how), VALUES, {}, 3.0)
            == decide([], deciding(how), VALUES, {}, 3.0)
            == Decision()
        )


def test_stop():
    made = decide([warning("score_flat")], deciding("stop"), VALUES, {}, 3.0)
    assert (made.action, made.rule, made.changes) == ("stop", "score_flat", {})


def test_adapt_waits_until_the_last_move_has_settled():
    first = decide([warning("d_loss_low")], deciding("adapt"), VALUES, {}, 10.0)
    assert (first.action, first.rule, first.changes) == (
        "adapt",
        "d_loss_low",
        {"g_steps": 2, "d_lr": 1e-4},
    )
    assert first.memory == {"epoch": 10.0, "rollbacks": 0, "answered": {"d_loss_low": 1}}
    values = VALUES | first.changes
    waiting = decide([warning("d_loss_low")], deciding("adapt"), values, first.memory, 14.9)
    assert waiting.action == "nothing" and waiting.memory == first.memory
    second = decide([warning("d_loss_low")], deciding("adapt"), values, first.memory, 15.0)
    assert second.changes == {"g_steps": 3, "d_lr": 5e-5} and second.memory["answered"] == {
        "d_loss_low": 2
    }
    spent = decide(
        [warning("d_loss_low")], deciding("adapt"), values | second.changes, second.memory, 30.0
    )
    assert spent.action == "nothing" and spent.memory == second.memory


def test_rollback_halves_both_rates_and_stops_when_it_has_gone_back_often_enough():
    watch, memory, values = deciding("rollback"), {}, VALUES
    for n, epoch in enumerate((10.0, 20.0), 1):
        made = decide(
            [warning("overfitting"), warning("mode_collapse")], watch, values, memory, epoch
        )
        assert (made.action, made.rule) == ("rollback", "mode_collapse")
        assert (
            made.changes == {"g_lr": values["g_lr"] / 2, "d_lr": values["d_lr"] / 2}
            and made.memory["rollbacks"] == n
        )
        memory, values = made.memory, values | made.changes
    assert decide([warning("mode_collapse")], watch, values, memory, 30.0).action == "stop"
    assert (
        decide([warning("overfitting")], watch, values, {}, 10.0).action == "nothing"
    )  # going back would lead to the same place
    assert (
        decide(
            [warning("overfitting")],
            deciding("rollback", rollback_on=["overfitting"]),
            values,
            {},
            10.0,
        ).action
        == "rollback"
    )


def test_rollback_adapt_goes_back_with_the_moves_of_the_rule():
    """As the capacity document has it: an earlier checkpoint, D 5e-5 and G 1e-4."""
    run = capacity("watch.on_trouble=rollback_adapt")
    watch, values = run.watch, run.model_dump(mode="json")
    first = decide([warning("mode_collapse")], watch, values, {}, 100.0)
    assert (first.action, first.rule, first.changes) == (
        "rollback",
        "mode_collapse",
        {"d_lr": 5e-5},  # G is at 1e-4
    )
    run = validate(sagan.Settings, {"recipe": "sagan", "data": "x"})
    values = run.model_dump(mode="json")
    first = decide([warning("mode_collapse")], watch, values, {}, 100.0)
    assert first.changes == {"d_lr": 5e-5, "g_lr": 1e-4} and first.memory["rollbacks"] == 1
    # no move is left
    second = decide([warning("mode_collapse")], watch, values | first.changes, first.memory, 200.0)
    assert (second.action, second.changes) == ("rollback", {"d_lr": 2.5e-5, "g_lr": 5e-5})
    assert rollback_decision("bad_numbers", watch, values, {}, 1.0).changes == {
        "d_lr": 1e-4,
        "g_lr": 1e-4,
    }


def test_rollback_adapt_answers_other_warnings_where_it_is():
    watch = deciding("rollback_adapt", rollback_on=["mode_collapse"])
    made = decide([warning("d_loss_low")], watch, VALUES, {}, 10.0)
    assert (made.action, made.changes) == ("adapt", {"g_steps": 2, "d_lr": 1e-4})
    made = decide([warning("d_loss_low"), warning("mode_collapse")], watch, VALUES, {}, 10.0)
    assert (made.action, made.rule) == ("rollback", "mode_collapse")
    assert decide([warning("score_flat")], watch, VALUES, {}, 10.0) == Decision()


def test_a_flat_score_names_what_a_new_run_can_change():
    run = capacity()
    values = run.model_dump(mode="json")
    assert next_moves("score_flat", run.watch, values, True) == {}
    assert next_moves("score_flat", run.watch, values, False) == {
        "lr_every": 250,
        "ngf": 96,
        "ndf": 96,
        "attention": [8, 16, 32],
        "attention_reduction": 4,
        "g_steps": 3,
    }


def test_after_a_rollback_the_epochs_to_settle_count_from_the_earlier_epoch():
    watch = deciding("rollback")
    memory = decide([warning("nonfinite")], watch, VALUES, {}, 30.0).memory
    at_20 = decide([warning("nonfinite")], watch, VALUES, memory, 20.0)
    assert at_20.action == "nothing" and at_20.memory == memory | {"epoch": 20.0}
    assert decide([warning("nonfinite")], watch, VALUES, at_20.memory, 25.0).action == "rollback"


def test_decisions_are_plain_data_and_a_pure_function():
    made = decide([warning("d_loss_low")], deciding("adapt"), VALUES, {}, 10.0)
    kept = json.loads(json.dumps(made.memory))
    assert kept == made.memory and json.loads(json.dumps(made.changes)) == made.changes
    assert decide([warning("d_loss_low")], deciding("adapt"), VALUES, kept, 16.0) == decide(
        [warning("d_loss_low")], deciding("adapt"), VALUES, made.memory, 16.0
    )


def test_present_settings_are_those_of_the_start_and_what_the_journal_says_was_changed():
    rows = [
        {"step": 1, "epoch": 1.0, "adapt/d_lr": 1e-4},
        {"step": 2, "epoch": 2.0, "g/loss": 1.0},
        {"step": 3, "epoch": 3.0, "adapt/d_lr": 5e-5, "adapt/g_steps": 2},
    ]
    assert (
        current_settings(VALUES, rows) == VALUES | {"d_lr": 5e-5, "g_steps": 2}
        and VALUES["d_lr"] == 2e-4
    )


# ---- the section in run files
def test_a_key_of_the_section_leaves_what_the_recipe_set_in_it():
    assert validate(
        wgan_flowers.Settings, {"recipe": "wgan_flowers", "data": "x"}, ["watch.window=9"]
    ).watch == Watch(unbounded=True, score_flat_epochs=500, moves=FLOWERS_GUIDE, window=9)
    made = validate(
        sagan.Settings,
        SAGAN,
        [
            "watch.moves.d_loss_low=[{setting: d_lr, factor: 0.25}]",
            "watch.healthy={d/loss: [0.3, 0.8]}",
        ],
    ).watch
    assert made.d_loss_floor == 0.163 and made.moves == SAGAN_GUIDE | {
        "d_loss_low": (Move(setting="d_lr", factor=0.25),)
    }
    assert made.healthy == Watch().healthy | {"d/loss": (0.3, 0.8)}
