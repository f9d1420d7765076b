"""Every schedule is a pure function of the samples seen."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from distgan.config.sections import Evaluate
from distgan.core.clock import Clock, cosine_restarts, step_decay

SIZES = {"per_step": st.integers(1, 40), "train": st.integers(1, 60)}


@given(
    **SIZES,
    every=st.floats(0.05, 5),
    start=st.floats(0, 4),
    length=st.one_of(st.none(), st.floats(0, 6)),
)
def test_due_is_brute_force(per_step, train, every, start, length):
    """Step by step, look at each sample that the step took.

    Was it the last of a period, inside (start, end]?
    """
    end = None if length is None else start + length
    period = max(round(every * train), 1)
    first, last = round(start * train), math.inf if end is None else round(end * train)
    for step in range(1, 60):
        took = range((step - 1) * per_step + 1, step * per_step + 1)
        wanted = any(sample % period == 0 and first < sample <= last for sample in took)
        assert Clock(per_step, train, step).due(every, start, end) == wanted


@given(**SIZES, every=st.integers(1, 4), then=st.integers(1, 4), until=st.integers(1, 6))
def test_due_in_follows_one_part_after_the_other(per_step, train, every, then, until):
    wanted = {
        math.ceil(epoch * train / per_step)
        for epoch in range(1, 4000)
        if epoch % (every if epoch <= until else then) == 0
    }
    found = {
        step
        for step in range(1, 100)
        if Clock(per_step, train, step).due_in(((until, every), (None, then)))
    }
    assert found == {step for step in wanted if step < 100}


def test_the_schedule_of_sagan_on_the_demo_set():
    """297 images, batch 16: each evaluation comes in the step that completes its epoch, not a step
    earlier or later.
    """
    schedule, clock = Evaluate().schedule, Clock(16, 297)
    steps = [step for step in range(1, clock.steps(1000) + 1) if clock.at(step).due_in(schedule)]
    epochs = [*range(10, 201, 10), *range(220, 801, 20), *range(850, 1001, 50)]
    assert steps == [math.ceil(epoch * 297 / 16) for epoch in epochs]
    assert [math.floor(clock.at(step).epoch) for step in steps] == epochs
    assert len(epochs) == 20 + 30 + 4


@given(**SIZES, epochs=st.floats(1e-6, 100))
def test_steps_are_enough_and_no_more(per_step, train, epochs):
    clock = Clock(per_step, train)
    n, asked = clock.steps(epochs), epochs * train
    assert n >= 1
    assert n * per_step >= asked - 1e-6
    assert n == 1 or (n - 1) * per_step < asked + 1e-6


@given(**SIZES, epochs=st.integers(1, 1000))
def test_whole_epochs_are_exact(per_step, train, epochs):
    assert Clock(per_step, train).steps(epochs) == max(-(-epochs * train // per_step), 1)


@pytest.mark.parametrize(
    ("train", "epochs", "steps"), [(30, 0.1, 3), (5, 0.5, 3), (297, 1 / 3, 99), (10, 1e-9, 1)]
)
def test_parts_of_epochs_are_rounded_up_and_rounding_errors_are_not(train, epochs, steps):
    assert Clock(1, train).steps(epochs) == steps


@pytest.mark.parametrize(
    ("first", "factor", "least"), [(10, 1, 0.0), (10, 2, 0.01), (7, 3, 0.25), (1, 1, 0.0)]
)
@pytest.mark.parametrize("steps", [1, 18, 61])  # an epoch
def test_cosine_restarts_are_torchs(first, factor, least, steps):
    """By its two ways of stepping: once an epoch, and with parts of epochs."""
    rate = 2e-4
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=rate)
    make = torch.optim.lr_scheduler.CosineAnnealingWarmRestarts
    schedule = make(optimizer, T_0=first, T_mult=factor, eta_min=least * rate)
    optimizer.step()
    for step in range(400 * (1 if steps == 1 else 10)):
        now = Clock(16, 16 * steps, step)
        if steps > 1:
            schedule.step(now.epoch)
        found = rate * cosine_restarts(now.epoch, first, factor, least)
        assert found == pytest.approx(schedule.get_last_lr()[0], rel=1e-9, abs=1e-15)
        if steps == 1:
            schedule.step()


def test_cosine_restarts_begin_anew_at_whole_epochs_and_are_a_function_of_the_epoch():
    for epoch in (0, 5, 15, 35):
        assert cosine_restarts(epoch, 5, 2) == 1.0
    assert cosine_restarts(10, 5, 2, 0.2) == pytest.approx(0.6)  # in the middle of the second
    assert cosine_restarts(1e9, 1e-3) <= 1 and cosine_restarts(1e9, 1e-3, 2) <= 1
    # Reached by other batches, or after a resume: the same samples are the same rate to the bit.
    one, other = Clock(24, 297, 990), Clock(8, 297, 2970)
    assert cosine_restarts(one.epoch, 10, 2) == cosine_restarts(other.epoch, 10, 2)


def test_step_decay_is_torchs_step_lr():
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, step_size=7, gamma=0.5)
    for epoch in range(40):
        assert (
            step_decay(epoch, 7, 0.5)
            == step_decay(epoch + 0.99, 7, 0.5)
            == pytest.approx(schedule.get_last_lr()[0], rel=1e-12)
        )
        optimizer.step()
        schedule.step()
    assert step_decay(1000, None, 0.5) == 1.0
