"""The table of health signals: values and ranges, not only names."""

import pytest
from journals import journal

from distgan.monitor.settings import Watch
from distgan.monitor.signals import health_signals


def signals(rows, **settings):
    return {signal.name: signal for signal in health_signals(rows, Watch(**settings))}


def test_lines_that_are_not_finite_are_counted_in_the_window_and_no_further():
    rows = [{"step": i, "epoch": i / 10, "seconds": i, "d/loss": 0.6} for i in range(1, 31)]
    for i in (4, 5, 30):  # of 30 lines; the last 25 begin with the sixth
        rows[i - 1]["d/loss"] = None
    signal = signals(rows)["lines with NaN or infinity"]
    assert (signal.value, signal.ok, signal.meaning) == (1.0, False, "of the last 25")
    rows[5]["d/loss"] = None  # the sixth
    assert signals(rows)["lines with NaN or infinity"].value == 2.0
    assert signals([])["lines with NaN or infinity"].value is None


@pytest.mark.parametrize(("strong", "low"), [(0.1, 0.425), (None, 0.325)])
def test_the_healthy_d_loss_begins_above_its_floor(strong, low):
    signal = signals(journal(), d_loss_strong=strong, d_loss_floor=0.325)["D loss"]
    assert signal.low == pytest.approx(low) and signal.high is None and signal.ok


def test_epochs_without_a_better_score_count_from_the_best_one():
    rows = journal(score=lambda epoch: abs(epoch - 99) + 50)  # evaluated at 9, 19, … 399
    signal = signals(rows)["epochs without a better score"]
    assert (signal.value, signal.high, signal.ok) == (300.0, 100.0, False)
    assert signals(rows, score_flat_epochs=400)["epochs without a better score"].ok


def test_a_ratio_of_losses_needs_both_windows():
    rows = [row for row in journal() if "d/loss" in row]
    assert signals(rows)["G loss / D loss"].value == pytest.approx(1.1 / 0.65, rel=0.1)
    for row in rows[10:]:
        del row["g/loss"]
    assert signals(rows)["G loss / D loss"].ok is None


def test_now_is_the_last_value_scheduled_or_not():
    ends = [{"step": 18 * i, "epoch": float(i), "valid/diversity": 0.7} for i in range(401, 404)]
    last = {"step": 7300, "epoch": 405.5, "valid/diversity": 0.42, "unscheduled": True}
    found = signals([*journal(), *ends, last])["diversity of samples"]
    assert (found.now, found.value) == (0.42, 0.7)
