"""Each rule raises on the journal it is made for, and on no other."""

import json
import math

import pytest
from journals import journal, late

from distgan.core.errors import RunError
from distgan.monitor.decisions import evaluate_rules
from distgan.monitor.journal import read_journal, series
from distgan.monitor.settings import Watch
from distgan.monitor.signals import health_signals


def late_flat(epoch):
    """A score that improves until epoch 330."""
    return 500.0 - min(epoch, 330)


def rules(rows, settings=None):
    return {finding.rule: finding for finding in evaluate_rules(rows, settings or Watch())}


def test_a_healthy_journal_raises_nothing():
    assert evaluate_rules(journal(), Watch()) == []
    assert all(signal.ok for signal in health_signals(journal(), Watch()))


@pytest.mark.parametrize(
    "rows",
    [
        [],
        journal(lines=1),
        journal(lines=24, **{"d/loss": lambda t: 0.0, "g/loss": lambda t: 99.0}),
    ],
)
def test_a_short_journal_raises_nothing(rows):
    assert evaluate_rules(rows, Watch()) == []
    assert {
        signal.ok
        for signal in health_signals(rows, Watch())
        if "/" not in signal.name and signal.name.startswith(("D", "G"))
    } == {None}


def test_an_unbounded_critic_is_not_judged_by_its_losses():
    """A Wasserstein critic's loss is minus a distance of any scale, and G's may have any sign."""
    rows = journal(**{"d/loss": lambda t: -20 - 300 * t, "g/loss": lambda t: 0.01 + 400 * t})
    for row in rows:
        row.pop("d/real_prob", None), row.pop("d/fake_prob", None)
    assert set(rules(rows)) == {"d_loss_low", "g_loss_exploding"}
    assert evaluate_rules(rows, Watch(unbounded=True)) == []
    assert [
        signal.name for signal in health_signals(rows, Watch(unbounded=True)) if not signal.ok
    ] == []
    assert set(rules(journal(**{"valid/overfit": late(0.9, 0.1)}), Watch(unbounded=True))) == {
        "d_overfitting"
    }


def test_single_noisy_steps_raise_nothing():
    rows = journal()
    for row in [row for row in rows if "d/loss" in row][-40::8]:
        row |= {"d/loss": 0.0, "d/real_prob": 1.0, "d/fake_prob": 0.0, "g/loss": 500.0}
    assert evaluate_rules(rows, Watch()) == []


def test_d_loss_to_zero_says_collapsed_and_train_d_less():
    found = rules(journal(score=late_flat, **{"d/loss": late(0.01, 0.65)}))
    assert set(found) == {"d_loss_low"}
    finding = found["d_loss_low"]
    assert (
        finding.level == "warning"
        and "may have collapsed" in finding.message
        and "train D less" in finding.advice
    )
    assert 240 < finding.epoch < 300
    assert "(median of 25 lines), limit 0.1: the disc" in finding.message  # and no other limit
    assert finding.message.count("0.1") == 1 and "0.05" not in finding.message
    strong = rules(journal(score=late_flat, **{"d/loss": late(0.08, 0.65)}))["d_loss_low"]
    assert "D too strong" in strong.message and "collapsed" not in strong.message


def test_a_strong_d_is_a_note_while_the_score_improves():
    strong = {"d/real_prob": late(0.84, 0.66), "d/fake_prob": late(0.04, 0.32)}
    for rule, ramps in (("d_loss_low", {"d/loss": late(0.01, 0.65)}), ("d_too_strong", strong)):
        found = rules(journal(noise=0.02, **ramps))
        assert [(name, one.level) for name, one in found.items()] == [(rule, "note")]
        message = found[rule].message
        assert message.endswith(": D is strong; but the score still improves")
        assert found[rule].advice == "none while the score improves"  # no alarm without an action
        assert rules(journal(noise=0.02, score=late_flat, **ramps))[rule].level == "warning"
        unscored = [row for row in journal(noise=0.02, **ramps) if "valid/overfit" not in row]
        assert rules(unscored)[rule].level == "warning"


def test_a_d_without_a_gradient_has_until_the_next_evaluation():
    levels = {}
    for best in (379, 389, 399):
        score = lambda epoch, best=best: 500.0 - min(epoch, best)  # noqa: E731
        rows = journal(score=score, **{"d/loss": late(0.01, 0.65)})
        assert rules(rows)["d_loss_low"].level == "note"
        for row in rows:
            row["d/grad_norm"] = 1.0 if row["epoch"] < 300 else 0.0
        levels[best] = rules(rows)["d_loss_low"].level
        assert "D's gradient is 0" in rules(rows)["d_loss_low"].message
    assert levels == {379: "warning", 389: "warning", 399: "note"}


def test_label_smoothing_lifts_the_limits_of_the_d_loss():
    rows = journal(noise=0.02, **{"d/loss": late(0.33, 0.65)})
    assert evaluate_rules(rows, Watch()) == []
    assert set(rules(rows, Watch(d_loss_floor=0.325))) == {"d_loss_low"}


def test_d_too_strong_needs_both_probabilities():
    assert set(
        rules(
            journal(
                noise=0.02, **{"d/real_prob": late(0.95, 0.66), "d/fake_prob": late(0.01, 0.32)}
            )
        )
    ) == {"d_too_strong"}
    assert evaluate_rules(journal(noise=0.02, **{"d/real_prob": late(0.95, 0.66)}), Watch()) == []


def test_real_images_taken_for_generated_ones():
    assert set(rules(journal(**{"d/real_prob": late(0.4, 0.66)}))) == {"real_prob_low"}


def test_a_finding_ends_only_past_its_threshold():
    dip = {"d/real_prob": lambda t: 0.66 if t < 0.4 else 0.45 if t < 0.6 else 0.53}
    assert set(rules(journal(noise=0.0, **dip))) == {"real_prob_low"}
    back = {"d/real_prob": lambda t: 0.66 if t < 0.4 else 0.45 if t < 0.6 else 0.6}
    assert evaluate_rules(journal(noise=0.0, **back), Watch()) == []


def test_g_loss_exploding():
    found = rules(
        journal(**{"g/loss": lambda t: 1.1 if t < 0.5 else 1.1 * math.exp(8 * (t - 0.5))})
    )
    assert (
        set(found) == {"g_loss_exploding"} and "learning rate" in found["g_loss_exploding"].message
    )


def test_an_explosion_does_not_become_the_new_normal():
    assert "g_loss_exploding" in rules(
        journal(
            lines=2000, score=lambda epoch: 3000 - epoch, **{"g/loss": late(30, 1.1, start=0.1)}
        )
    )


def test_flat_score_after_a_hundred_epochs():
    def flattening(epoch):
        return max(200 - epoch, 60)

    assert evaluate_rules(journal(lines=230, score=flattening), Watch()) == []
    found = rules(journal(lines=400, score=flattening))
    assert set(found) == {"score_flat"}
    assert found["score_flat"].epoch == pytest.approx(149)
    assert "frechet_standin flat" in found["score_flat"].message and "FID" not in str(found)
    assert "stop early" in found["score_flat"].advice


def test_two_evaluations_are_too_few_to_call_a_score_flat():
    rows = [{"step": i, "epoch": 200.0 * i, "eval/fid": 9.0} for i in range(4)]
    assert evaluate_rules(rows[:3], Watch()) == [] and set(rules(rows)) == {"score_flat"}


def test_a_score_that_falls_slowly_is_not_flat():
    assert evaluate_rules(journal(lines=2000, score=lambda epoch: 100 - epoch / 50), Watch()) == []


def test_d_overfitting_on_held_out_images():
    assert set(rules(journal(**{"valid/overfit": late(0.9, 0.1)}))) == {"d_overfitting"}


def test_numbers_that_are_not_finite():
    rows = journal()
    rows[-5]["g/grad_norm"] = math.inf
    assert rules(rows)["nonfinite"].level == "note"
    for row in rows[-4:]:
        row["d/loss"] = math.nan
    found = rules(rows)
    assert (
        set(found) == {"nonfinite"}
        and found["nonfinite"].level == "warning"
        and "d/loss, g/grad_norm" in found["nonfinite"].message
    )
    assert rules([{"step": 1, "epoch": 0.1, "d/loss": None}])["nonfinite"].level == "warning"


def test_findings_do_not_change_when_the_journal_goes_on():
    rows = journal(**{"d/loss": late(0.01, 0.65, start=0.3)})
    since = {
        finding.epoch for end in (200, 300, 400) for finding in evaluate_rules(rows[:end], Watch())
    }
    assert len(since) == 1


def test_unknown_thresholds_are_refused_and_all_are_described():
    with pytest.raises(ValueError, match="score_flat_epoch"):
        Watch(score_flat_epoch=3)
    assert all(field.description for field in Watch.model_fields.values())


def test_a_torn_last_line_is_left_out(tmp_path):
    rows, path = journal(lines=30), tmp_path / "journal.jsonl"
    text = "".join(json.dumps(row) + "\n" for row in rows)
    for tail in ("", '{"step": 900, "epo', '{"step": 900}\n', "\0\0\0\0", "\n\n"):
        path.write_text(text + tail)
        assert read_journal(path) == rows
    assert read_journal(tmp_path / "none.jsonl") == []


def test_damage_in_the_middle_is_an_error_with_its_line(tmp_path):
    path = tmp_path / "journal.jsonl"
    path.write_text('{"step": 1, "epoch": 0.1}\n{"step": 2, "ep\n{"step": 3, "epoch": 0.3}\n')
    with pytest.raises(RunError, match="line 2"):
        read_journal(path)


def test_lines_written_again_after_a_resume_replace_the_earlier_ones(tmp_path):
    path = tmp_path / "journal.jsonl"
    path.write_text(
        "".join(
            json.dumps({"step": step, "epoch": step / 18, "d/loss": float(attempt)}) + "\n"
            for attempt, steps in enumerate((range(1, 51), range(31, 41)))
            for step in steps
        )
    )
    table = series(read_journal(path), "d/loss")
    assert len(table) == 40 and table[29, 1] == 0 and table[30, 1] == 1
