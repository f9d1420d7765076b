"""Each rule raises on the journal it is made for, names the numbers and the moves, and is silent on
others. (The older rules: test_watch.py.)
"""

import math
import random
import time

import pytest
from journals import collapsed, journal, late, pairs, repaired

from distgan.monitor.decisions import evaluate_rules
from distgan.monitor.journal import epoch_means, gaps, recent, series
from distgan.monitor.settings import WAVEFORM, Watch
from distgan.monitor.signals import health_signals

REPAIRED = {
    "d_lr": 1e-4,
    "g_lr": 2e-4,
    "lambda_l1": 10.0,
    "real_label": 0.9,
    "fake_label": 0.1,
    "base_filters_d": 32,
    "num_layers_d": 3,
    "dropout_rate": 0.3,
    "weight_decay": 1e-5,
    "aug_noise_std": 0.02,
    "aug_scale_range": [0.9, 1.1],
    "aug_shift_range": 0.1,
}
FAILING = REPAIRED | {
    "d_lr": 2e-4,
    "g_lr": 1e-4,
    "lambda_l1": 100.0,
    "real_label": 1.0,
    "fake_label": 0.0,
    "base_filters_d": 64,
    "num_layers_d": 4,
    "aug_noise_std": 0.01,
    "aug_scale_range": [0.95, 1.05],
    "aug_shift_range": 0.05,
}


def found(rows, watch=WAVEFORM, values=REPAIRED):
    return {finding.rule: finding for finding in evaluate_rules(rows, watch, values)}


def level(rule, rows, watch=WAVEFORM, values=REPAIRED):
    finding = found(rows, watch, values).get(rule)
    return finding and finding.level


def warnings(rows, watch=WAVEFORM, values=REPAIRED):
    return {
        rule for rule, finding in found(rows, watch, values).items() if finding.level == "warning"
    }


# ---- the two runs of the documents
def test_the_run_that_failed_raises_collapse_stagnation_and_overfitting():
    said = found(collapsed(), values=FAILING)
    assert {"d_loss_low", "gan_loss_stagnant", "overfitting"} <= warnings(
        collapsed(), values=FAILING
    )
    assert "may have collapsed" in said["d_loss_low"].message and 3 < said["d_loss_low"].epoch < 6
    assert said["d_loss_low"].advice.startswith(
        "d_lr 2e-4→1e-4, lambda_l1 100→10, g_lr 1e-4→2e-4, real_label 1→0.9, fake_label 0→0.1; not"
        " in flight: base_filters_d 64→32, num_layers_d 4→3; "
    )
    assert said["overfitting"].advice.startswith(
        "dropout_rate 0.3→0.4, weight_decay 1e-5→5e-5, aug_noise_std 0.01→0.02, aug_scale_range"
        " [0.95, 1.05]→[0.85, 1.15], aug_shift_range 0.05→0.1; "
    )
    assert "stagnant" in said["gan_loss_stagnant"].message
    assert (
        "fluctuating by 9%" in said["validation_rising"].message
    )  # in force since it was above 10 %, until it is below 9.1 %


def test_the_repaired_run_raises_nothing():
    for epochs in (1, 3, 6, 10, 40):
        assert warnings(repaired(epochs)) == set()
    assert [
        signal.name for signal in health_signals(repaired(), WAVEFORM) if signal.ok is False
    ] == []


def test_the_moves_are_those_of_the_documents_from_the_repaired_settings():
    """Failing settings lead to the repaired ones, and those to the rows of the guide."""
    said = found(collapsed())
    assert said["d_loss_low"].advice.startswith(
        "d_lr 1e-4→5e-5, lambda_l1 10→5; not in flight: base_filters_d 32→24, num_layers_d 3→2; "
    )
    assert said["overfitting"].advice.startswith(
        "dropout_rate 0.3→0.4, weight_decay 1e-5→5e-5, aug_noise_std 0.02→0.03, aug_scale_range"
        " [0.9, 1.1]→[0.85, 1.15], aug_shift_range 0.1→0.15; "
    )


# ---- D loss
def test_d_too_weak():
    rows = pairs(
        6,
        lambda e: 0.4 if e < 3 else 1.2,
        lambda e: 0.6 + 0.1 * math.sin(e),
        lambda e: 0.3,
        lambda e: 0.3,
    )
    said = found(rows)["d_loss_high"]
    assert (
        said.level == "warning"
        and "D loss 1.2" in said.message
        and "limit 1" in said.message
        and 3 < said.epoch < 4.5
    )
    assert said.advice.startswith("g_lr 2e-4→3e-4, lambda_l1 10→20; ")
    assert "d_loss_high" not in found(rows, Watch())  # off in sagan


def test_between_threshold_and_release_a_finding_stays_but_none_begins():
    def ends_at(value, before):
        return pairs(
            9,
            lambda e: before if 3 < e < 6 else value,
            lambda e: 0.6 + 0.1 * math.sin(e),
            lambda e: 0.3,
            lambda e: 0.3,
            noise=0.001,
        )

    for value, before, rule in ((0.95, 1.5, "d_loss_high"), (0.105, 0.02, "d_loss_low")):
        assert rule in found(ends_at(value, before)) and rule not in found(ends_at(value, value))
    assert found(ends_at(0.85, 1.5)) == found(ends_at(0.15, 0.02)) == {}


# ---- D(x), D(G(z))
def test_a_d_at_the_balance_of_its_labels_is_only_noted_while_the_score_improves():
    """With labels 0.9 and 0, a D that cannot tell the two apart says 0.45 of both, below the
    documents' 0.5.
    """
    end = {"d/real_prob": late(0.45, 0.66), "d/fake_prob": late(0.44, 0.32)}
    labels = {"real_label": 0.9, "fake_label": 0.0, "d_lr": 1e-4, "g_steps": 2}
    better, stuck = (
        journal(**end, score=lambda epoch: 1000 - epoch),
        journal(**end, score=lambda epoch: max(1000 - epoch, 700)),
    )
    assert level("real_prob_low", better, Watch(), labels) == "note"
    assert (
        "near 0.45" in found(better, Watch(), labels)["real_prob_low"].message
        and found(better, Watch(), labels)["real_prob_low"].advice == "no action needed"
    )
    said = found(stuck, Watch(), labels)["real_prob_low"]
    assert said.level == "warning" and said.advice.startswith("g_steps 2→1, d_lr 1e-4→2e-4; ")
    assert "let D catch up" in said.advice
    assert (
        level(
            "real_prob_low",
            journal(**end | {"d/real_prob": late(0.2, 0.66)}, score=lambda epoch: 1000 - epoch),
            Watch(),
            labels,
        )
        == "warning"
    )
    assert (
        level(
            "real_prob_low",
            [row for row in better if not any(key.startswith("eval") for key in row)],
            Watch(),
            labels,
        )
        == "warning"
    )


def test_generated_samples_taken_for_real_ones():
    rows = journal(noise=0.02, **{"d/fake_prob": late(0.7, 0.32), "d/real_prob": late(0.66, 0.66)})
    said = found(rows, Watch())["fake_prob_high"]
    assert said.level == "warning" and "let D catch up" in said.advice
    apart = {"d/fake_prob": late(0.65, 0.32), "d/real_prob": late(0.8, 0.66)}
    said = found(journal(noise=0.02, **apart), Watch())["fake_prob_high"]
    assert said.level == "note" and "no action needed while D(x) stays above" in said.advice


# ---- GAN loss
def stagnant(epochs=12, d_loss=0.05, since=0, until=99, step=0.0, start=0):
    """Flat at 0.99 in the epochs `since` + 1 to `until`.

    `step` between neighbouring epochs. No GAN loss up to epoch `start`.
    """

    def gan(e):
        number = math.ceil(e - 1e-9)
        return (
            0.99
            + step * (number % 2)
            + (0.3 * math.sin(2 * number) if not since < number <= until else 0)
        )

    rows = pairs(epochs, lambda e: d_loss, gan, lambda e: 0.3, lambda e: 0.3, noise=0.001)
    for row in rows:
        if row["epoch"] <= start:
            row.pop("g/adversarial", None)
    return rows


def test_a_stagnant_gan_loss_is_told_after_three_changes_past_epoch_five():
    assert [
        epochs for epochs in range(4, 12) if "gan_loss_stagnant" in found(stagnant(epochs))
    ] == [8, 9, 10, 11]
    said = found(stagnant(9))["gan_loss_stagnant"]
    assert (
        said.level == "warning"
        and said.epoch == 5
        and "from 0.99 in epoch 5 to 0.99 in epoch 9" in said.message
        and "less than 0.01" in said.message
    )
    assert said.advice.startswith("d_lr 1e-4→5e-5")
    assert "gan_loss_stagnant" not in found(
        stagnant(9), WAVEFORM.model_copy(update={"stagnant_epochs": 5})
    )
    assert "gan_loss_stagnant" not in found(
        stagnant(9), Watch()
    )  # off in sagan, whose healthy G loss moves by as little


def test_a_gan_loss_that_moves_again_is_not_stagnant():
    assert "gan_loss_stagnant" not in found(
        stagnant(12, until=9)
    ) and "gan_loss_stagnant" not in found(stagnant(12, step=0.012))
    assert "gan_loss_stagnant" in found(stagnant(12, step=0.009))
    assert [
        epochs for epochs in range(8, 15) if "gan_loss_stagnant" in found(stagnant(epochs, since=8))
    ] == [
        12,
        13,
        14,
    ]  # epoch 9 changed from 8


def test_the_epochs_count_from_where_the_gan_loss_begins():
    assert [
        epochs
        for epochs in range(10, 17)
        if "gan_loss_stagnant" in found(stagnant(epochs, start=6))
    ] == [14, 15, 16]


def test_a_flat_gan_loss_with_a_healthy_d_is_a_balance():
    assert level("gan_loss_stagnant", stagnant(d_loss=0.4)) == "note"


# ---- pairs: training against validation
def gapped(gap, epochs=8):
    return pairs(
        epochs,
        lambda e: 0.4,
        lambda e: 0.6 + 0.1 * math.sin(e),
        lambda e: 0.3,
        lambda e: 0.3 + gap(e),
        noise=0.01,
    )


def test_overfitting_is_the_gap_between_validation_and_the_epoch_before_it():
    said = found(gapped(lambda e: 0.25 if e > 3 else 0.05))["overfitting"]
    assert (
        "validation L1 0.55 − training L1 0.3 = 0.25" in said.message and said.epoch == 5
    )  # the second of three validations
    assert "overfitting" not in found(gapped(lambda e: 0.19)) and "overfitting" not in found(
        gapped(lambda e: 0.6 if e == 5 else 0.05)
    )


def test_the_training_mean_is_that_of_the_last_epoch_only():
    rows = pairs(
        4,
        lambda e: 0.4,
        lambda e: 0.6,
        lambda e: math.ceil(e),
        lambda e: 0.0,
        noise=0,
        validate_every=2,
    )
    assert gaps(rows)[:, :2].tolist() == [[2, 2], [4, 4]]
    often = [{"step": step, "epoch": step / 10, "g/l1": float(step)} for step in range(1, 11)]
    often.insert(5, {"step": 5, "epoch": 0.5, "valid/l1": 9.0})
    assert gaps(
        [
            {"step": 0, "epoch": 0.0, "valid/l1": 9.0},
            *often,
            {"step": 10, "epoch": 1.0, "valid/l1": 9.0},
        ]
    ).tolist() == [[0.5, 3, 9], [1, 8, 9]]


def test_validation_that_rises_or_fluctuates():
    def run(valid):
        return pairs(
            14, lambda e: 0.4, lambda e: 0.6 + 0.1 * math.sin(e), lambda e: 0.3, valid, noise=0.01
        )

    said = found(run(lambda e: 0.30 if e < 6 else 0.30 + 0.01 * (e - 6)))["validation_rising"]
    assert "rising, 23% above its lowest, 0.3" in said.message and 8 < said.epoch < 12
    assert (
        "fluctuating"
        in found(run(lambda e: 0.35 + 0.03 * (-1) ** int(e)))["validation_rising"].message
    )
    untrained = {
        "step": 0,
        "epoch": 0.0,
        "valid/l1": 0.1,
    }  # silence may be nearer to the target than what a young G says
    assert "validation_rising" not in found(
        [untrained, *run(lambda e: 0.3)], WAVEFORM.model_copy(update={"valid_window": 1})
    )
    for calm in (
        lambda e: 0.5 * math.exp(-e / 5),
        lambda e: 0.3 + 0.005 * (-1) ** int(e),
        lambda e: 0.5 if e == 9 else 0.3,
        lambda e: 0.5 * math.exp(-e / 5) * (1 + 0.1 * (-1) ** int(e)),
    ):  # the last one swings, but keeps reaching new lows
        assert "validation_rising" not in found(run(calm))


# ---- mode collapse
def diverse(value, validations=30, score=lambda i: 100 - i):
    return [
        {
            "step": 10 * i,
            "epoch": 10.0 * i,
            "valid/diversity": value(i),
            "eval/fid": float(score(i)),
        }
        for i in range(validations)
    ]


def test_diversity_that_falls_is_mode_collapse():
    values = {"d_lr": 2e-4, "g_lr": 2e-4}
    flat = {"score": lambda i: 100 - min(i, 20)}
    said = found(diverse(lambda i: 0.9 if i < 20 else 0.3, **flat), Watch(), values)
    assert (
        set(said) == {"mode_collapse"}
        and "diversity of samples 0.3" in said["mode_collapse"].message
        and said["mode_collapse"].epoch == 210
    )
    assert said["mode_collapse"].advice.startswith(
        "d_lr 2e-4→5e-5, g_lr 2e-4→1e-4; return to an earlier checkpoint"
    )
    never = found(diverse(lambda i: 0.06, **flat), Watch())  # came to life
    assert set(never) == {"mode_collapse"} and never["mode_collapse"].level == "warning"
    young = found(diverse(lambda i: 0.9 if i < 20 else 0.3), Watch(), values)["mode_collapse"]
    assert young.level == "note" and "the score still improves" in young.message
    for calm in (
        lambda i: 0.8,
        lambda i: min(0.05 + 0.03 * i, 0.9),  # a young G, still growing
        lambda i: 2.0 if i < 5 else 0.9,
        lambda i: 0.1 if i == 20 else 0.9,
    ):  # the noise of an untrained G; one bad validation
        assert found(diverse(calm), Watch()) == {}
    assert (
        found(diverse(lambda i: 0.02 * 1.2**i, validations=9), Watch()) == {}
    )  # below 0.2, but growing


def test_a_score_that_jumps_twice_in_a_row():
    assert (
        "fid jumped to 160"
        in found(diverse(lambda i: 0.9, score=lambda i: 160 if i > 27 else 200 - 5 * i), Watch())[
            "mode_collapse"
        ].message
    )
    assert "mode_collapse" in found(
        diverse(lambda i: 0.9, score=lambda i: max(300 - 15 * i, 4) + 10 * (i > 27)), Watch()
    )
    for calm in (
        lambda i: 160 if i == 29 else 200 - 5 * i,
        lambda i: 110 if i > 27 else 200 - 5 * i,
        lambda i: max(300 - 15 * i, 4) + 6 * (i > 27),
    ):  # 2.5 times the best, but 75^0.25 = 2.9 is a quarter of the way
        assert found(diverse(lambda i: 0.9, score=calm), Watch()) == {}


# ---- all rules
def test_single_noisy_lines_raise_nothing():
    rows, draw = repaired(12), random.Random(2)
    for row in draw.sample([row for row in rows if "seconds" in row], 12):
        row |= {"d/loss": 9.0, "g/adversarial": 50.0, "g/l1": 3.0, "g/loss": 80.0}
    for row in [row for row in rows if "valid/l1" in row][4::5]:
        row["valid/l1"] = 2.0
    assert warnings(rows) == set()


OFF = {
    "d_loss_strong": "d_loss_low",
    "d_loss_weak": "d_loss_high",
    "stagnant_change": "gan_loss_stagnant",
    "gap_high": "overfitting",
    "valid_rise": "validation_rising",
    "real_prob_low": "real_prob_low",
    "real_prob_high": "d_too_strong",
    "fake_prob_low": "d_too_strong",
    "fake_prob_high": "fake_prob_high",
    "g_loss_growth": "g_loss_exploding",
    "overfit_high": "d_overfitting",
    "score_flat_epochs": "score_flat",
    "nonfinite_lines": "nonfinite",
    "grad_growth": "gradients_exploding",
    "nearest_low": "copies",
    "critic_growth": "critic_drift",
}


def measured(at, key, value):
    return [at | {"step": i, "epoch": i / 10, key: value(i / 400)} for i in range(400)]


@pytest.mark.parametrize("threshold", OFF)
def test_null_switches_a_rule_off(threshold):
    rows = {
        "d_loss_weak": pairs(6, lambda e: 1.2, lambda e: 0.6, lambda e: 0.3, lambda e: 0.3),
        "real_prob_low": journal(**{"d/real_prob": late(0.2, 0.66)}),
        "fake_prob_high": journal(**{"d/fake_prob": late(0.9, 0.32)}),
        "g_loss_growth": journal(**{"g/loss": late(30, 1.1)}),
        "overfit_high": journal(**{"valid/overfit": late(0.9, 0.1)}),
        "score_flat_epochs": journal(score=lambda epoch: 5.0),
        "nonfinite_lines": [{"step": 1, "epoch": 0.1, "d/loss": None}],
        "grad_growth": measured({"seconds": 1.0}, "d/grad_norm", late(50, 1)),
        "nearest_low": measured({}, "valid/nearest", late(0.4, 1)),
        "critic_growth": measured({"seconds": 1.0}, "d/wasserstein", late(50, 1)),
    }.get(threshold)
    if OFF[threshold] == "d_too_strong":
        rows = journal(
            noise=0.02, **{"d/real_prob": late(0.95, 0.66), "d/fake_prob": late(0.01, 0.32)}
        )
    on = WAVEFORM.model_copy(update={"unbounded": threshold == "critic_growth"})
    off = on.model_copy(update={threshold: None})
    assert OFF[threshold] in found(rows or collapsed(14), on) and OFF[threshold] not in found(
        rows or collapsed(14), off
    )
    assert health_signals(rows or collapsed(14), off)  # and the table of signals goes without


def test_mode_collapse_has_three_switches():
    rows, off = (
        diverse(lambda i: 0.9 if i < 15 else 0.1, score=lambda i: 160 if i > 27 else 200 - 5 * i),
        {"diversity_fall": None, "diversity_low": None},
    )
    assert (
        "mode_collapse" in found(rows, Watch(**off))
        and found(rows, Watch(**off, score_jump=None)) == {}
    )


def test_growth_is_told_from_the_first_quarter_on_and_not_of_a_spike_or_of_a_level():
    """With windows of 25 lines, a quarter holds two of them from line 125 on."""

    def told(value, lines=400):
        rows = measured({"seconds": 1.0}, "g/grad_norm", lambda t: value(round(t * 400)))[:lines]
        return "gradients_exploding" in found(rows)

    assert [n for n in (110, 124, 125, 140) if told(lambda i: 1e3 if i > 60 else 1.0, n)] == [
        125,
        140,
    ]
    assert told(lambda i: 11.0 if i > 380 else 1.0) and not told(lambda i: 9.0 if i > 380 else 1.0)
    assert not told(lambda i: 1e9 if i % 40 == 0 or i > 390 else 1.0)  # fewer than half a window
    assert not told(lambda i: 1e3 if i > 60 else 1.0)  # what the first quarter knew


def test_an_unbounded_critic_is_judged_by_what_has_a_scale():
    wild = collapsed(14)
    assert set(found(wild, WAVEFORM.model_copy(update={"unbounded": True}))) == {
        "overfitting",
        "validation_rising",
    }


def test_a_validation_or_score_that_is_never_finite_is_a_warning_however_seldom_it_is_taken():
    lines = []
    for step in range(1, 401):
        lines.append(
            {"step": step, "epoch": step / 100, "seconds": 0.1 * step, "d/loss": 0.5, "g/loss": 1.0}
        )
        if step % 100 == 0:
            lines.append(
                {
                    "step": step,
                    "epoch": step / 100,
                    "valid/l1": None if step > 100 else 0.3,
                    "valid/d_loss": 0.5,
                }
            )
            lines.append({"step": step, "epoch": step / 100, "eval/l1": None})
    found = {one.rule: one for one in evaluate_rules(lines, Watch(), {})}["nonfinite"]
    assert found.level == "warning" and "the last 3 of eval/l1, valid/l1" in found.message
    fewer = [row for row in lines if row["step"] <= 200]
    assert all(
        one.level == "note" for one in evaluate_rules(fewer, Watch(), {}) if one.rule == "nonfinite"
    )


def test_what_was_changed_in_flight_is_no_number_that_is_not_finite():
    rows = repaired()
    rows.append(
        {
            "step": rows[-1]["step"],
            "epoch": 10.0,
            "adapt/aug_scale_range": [0.85, 1.15],
            "adapt/name": "x",
        }
    )
    assert "nonfinite" not in found(rows)


# ---- long journals
def test_a_run_that_keeps_little_is_judged_as_one_that_reads_all():
    rows = repaired(400)  # 8000 training lines
    assert recent(recent(rows[:7000]) + rows[7000:]) == recent(rows)
    kept = []
    for at in range(0, len(rows), 37):
        kept = recent(kept + rows[at : at + 37])
    assert kept == recent(rows) and evaluate_rules(kept, WAVEFORM, REPAIRED) == evaluate_rules(
        rows, WAVEFORM, REPAIRED
    )
    assert (
        5000 < len([row for row in kept if "seconds" in row]) < 5100
        and sum("valid/l1" in row for row in kept) == 400
    )


def test_epochs_longer_than_what_is_kept_are_still_seen():
    rows = pairs(
        10, lambda e: 0.05, lambda e: 0.99, lambda e: 0.3, lambda e: 0.3, lines=2000, noise=0.001
    )
    assert "gan_loss_stagnant" in found(rows)


def test_checking_a_long_journal_takes_less_than_half_a_second():
    rows = journal(lines=37_000, epochs_per_line=1 / 18, **{"d/loss": late(0.01, 0.65)})
    evaluate_rules(rows, Watch())
    began = time.process_time()
    assert "d_loss_low" in found(rows, Watch())
    assert time.process_time() - began < 0.5


def test_means_over_epochs():
    table = series(
        [{"step": step, "epoch": round(step / 3, 6), "d/loss": float(step)} for step in range(9)],
        "d/loss",
    )
    assert epoch_means(table, 8 / 3).tolist() == [
        [1, 2],
        [2, 5],
    ]  # steps 1 to 3, 4 to 6; epoch 3 is not over, step 0 belongs to none
    assert epoch_means(table[:0], 1.0).shape == (0, 2)
