"""`patience`: the score decides when a run is finished, and the decision stands."""

import json

import pytest

from distgan.evaluation.image_evaluator import Evaluator
from distgan.monitor.results import Finding
from distgan.recipes import sagan
from distgan.training import attempt
from distgan.training.loop import Loop


def test_no_better_score_for_long_finishes_early(particles, tmp_path, monkeypatch, capsys):
    scores = iter([9.0, 5.0, 4.0, 4.5, 4.0, 6.0, 7.0, 8.0])
    monkeypatch.setattr(
        Evaluator,
        "__call__",
        lambda self, sample: {
            "metric": "frechet_standin",
            "score": next(scores),
            "samples": 2,
            "reals": 2,
        },
    )
    run = sagan.Settings(
        data=str(particles),
        ngf=4,
        ndf=4,
        batch=27,
        epochs=50,
        patience=3,
        validate_every=50,
        sample_every=50,
        evaluate={"schedule": [[None, 1]]},
        machine={"folder": str(tmp_path / "run")},
    )
    assert attempt.train(sagan, run, {}).exit_code == 0
    done = json.loads((tmp_path / "run" / "DONE").read_text())
    assert (done["epoch"], done["early"]) == (
        5.0,
        True,
    )  # best at epoch 2, not better (equal is not) at 3, 4, 5
    assert json.loads((tmp_path / "run" / "status.json").read_text())["best"]["epoch"] == 2.0
    steps = sorted(path.name for path in (tmp_path / "run" / "checkpoints").glob("0*"))
    assert steps[-1] == "00000010"
    assert "finished early: no better frechet_standin for 3 epochs" in capsys.readouterr().out
    assert attempt.train(sagan, run, {}).exit_code == 0
    assert "is finished (early, at step 10; 100 steps requested)" in capsys.readouterr().out


def test_an_end_that_was_decided_stands_when_the_run_is_killed_before_it_is_done(
    particles, tmp_path, monkeypatch, capsys
):
    """Between the last checkpoint and DONE lie the deliverables, which may take minutes."""
    scores = iter([9.0, 5.0, 6.0, 7.0])  # a continued run that decided anew would ask for a fifth
    monkeypatch.setattr(
        Evaluator,
        "__call__",
        lambda self, sample: {
            "metric": "frechet_standin",
            "score": next(scores),
            "samples": 2,
            "reals": 2,
        },
    )
    run = sagan.Settings(
        data=str(particles),
        ngf=4,
        ndf=4,
        batch=27,
        epochs=50,
        patience=2,
        validate_every=50,
        sample_every=50,
        evaluate={"schedule": [[None, 1]]},
        machine={"folder": str(tmp_path / "run")},
    )

    def killed(self):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Loop, "_results", killed)
        with pytest.raises(KeyboardInterrupt):
            attempt.train(sagan, run, {})
    assert not (tmp_path / "run" / "DONE").exists()
    assert attempt.train(sagan, run, {}).exit_code == 0
    done, status = (
        json.loads((tmp_path / "run" / name).read_text()) for name in ("DONE", "status.json")
    )
    assert (done["epoch"], done["early"]) == (3.0, True) and (
        status["state"],
        status["step"],
        status["best"]["epoch"],
    ) == ("done", 6, 1.0)
    assert "finished early: no better frechet_standin for 2 epochs" in capsys.readouterr().out


def test_more_epochs_do_not_undo_an_end_at_the_last_step(particles, tmp_path, monkeypatch):
    """Patience was over at that very step: with more epochs at once, the run would end there."""
    scores = iter([9.0, 5.0, 6.0, 7.0])
    monkeypatch.setattr(
        Evaluator,
        "__call__",
        lambda self, sample: {
            "metric": "frechet_standin",
            "score": next(scores),
            "samples": 2,
            "reals": 2,
        },
    )
    run = sagan.Settings(
        data=str(particles),
        ngf=4,
        ndf=4,
        batch=27,
        epochs=3,
        patience=2,
        validate_every=50,
        sample_every=50,
        evaluate={"schedule": [[None, 1]]},
        machine={"folder": str(tmp_path / "run")},
    )
    ends = []
    for epochs in (3, 5):
        assert attempt.train(sagan, run.model_copy(update={"epochs": epochs}), {}).exit_code == 0
        done = json.loads((tmp_path / "run" / "DONE").read_text())
        ends.append((done["step"], done["early"]))
    assert ends == [(6, False), (6, True)]


@pytest.fixture
def troubled(particles, tmp_path, monkeypatch):
    """A run in which `d_loss_low` warns at every look, from the first one on."""
    monkeypatch.setattr(
        Evaluator,
        "__call__",
        lambda self, sample: {"metric": "frechet_standin", "score": 1.0, "samples": 2, "reals": 2},
    )
    monkeypatch.setattr(
        "distgan.training.checks.evaluate_rules",
        lambda rows, settings, values: [Finding("d_loss_low", "warning", 0.0, "D has won", "")],
    )

    def train(**section):
        run = sagan.Settings(
            data=str(particles),
            ngf=4,
            ndf=4,
            batch=27,
            epochs=3,
            validate_every=1,
            sample_every=50,
            evaluate={"schedule": [[None, 1]]},
            watch={"settle_epochs": 0, **section},
            machine={"folder": str(tmp_path / "run")},
        )
        assert attempt.train(sagan, run, {}).exit_code == 0
        return (tmp_path / "run" / "events.jsonl").read_text()

    return train


def test_a_rollback_with_nowhere_to_go_is_told_once_and_the_run_goes_on(troubled, capsys):
    events = troubled(on_trouble="rollback")
    assert (
        capsys.readouterr().out.count("there is nowhere to go back to") == 1
        and '"rollback"' not in events
        and '"done"' in events
    )


def test_a_rollback_with_a_move_out_of_a_settings_range_is_told_and_not_made(
    troubled, capsys, monkeypatch
):
    def late(rows, settings, values):
        found = [Finding("d_loss_low", "warning", 0.0, "D has won", "")]
        return found if rows[-1]["epoch"] >= 2 else []

    monkeypatch.setattr("distgan.training.checks.evaluate_rules", late)
    moves = {"d_loss_low": [{"setting": "real_label", "add": 0.3}]}
    events = troubled(on_trouble="rollback_adapt", max_rollbacks=1, moves=moves)
    said = capsys.readouterr().out
    assert said.count("rollback because of d_loss_low would set real_label to 1.2") == 2
    assert '"rollback"' not in events and '"done"' in events


def test_a_move_out_of_a_settings_range_is_told_and_not_made(troubled, capsys):
    events = troubled(
        on_trouble="adapt", moves={"d_loss_low": [{"setting": "real_label", "add": 0.3}]}
    )
    assert (
        "adapt because of d_loss_low would set real_label to 1.2" in capsys.readouterr().out
        and '"adapt"' not in events
        and '"done"' in events
    )
