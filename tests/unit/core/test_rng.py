"""Every random number has an address, and nothing else decides it."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from distgan.core import rng


def test_an_address_has_one_key_and_each_its_own():
    addresses = [
        *itertools.product((0, 1, 2**70), ("noise/g", "noise/d", "noise"), (0, 1, 11)),
        (0, "noise/g", 1, 1),
        (0, "noise/g"),
        (0, "a", 11, 1),
    ]
    keys = [rng.key(*address) for address in addresses]
    assert keys == [rng.key(*address) for address in addresses]
    assert len(set(keys)) == len(keys)
    assert all(0 <= key < 2**63 for key in keys)


def test_numbers_do_not_change_between_versions():
    """A run that is continued with a newer program must see the numbers that it would have seen."""
    assert rng.key(0, "noise/g", 5) == 3983062481752019306
    assert rng.uniform(0, "flip", np.array([3]))[0] == pytest.approx(
        np.float64(0.8992420127613019), abs=0
    )
    assert rng.numpy_generator(0, "order", 1).permutation(8).tolist() == [4, 6, 5, 0, 3, 7, 2, 1]


def different(a, b):
    return abs(np.corrcoef(np.ravel(a), np.ravel(b))[0, 1]) < 0.05


@pytest.mark.parametrize("other", [(1, "flip", 0), (0, "flop", 0), (0, "flip", 1)])
def test_addresses_are_independent(other):
    """Another seed, purpose or index.

    No correlation among 10,000 numbers (a chance one is below 0.05 in all but 6 of ten million
    cases).
    """
    index = np.arange(10_000)
    seed, purpose, salt = other
    assert different(rng.uniform(0, "flip", index), rng.uniform(seed, purpose, index, salt))
    assert different(
        rng.normal(0, "flip", 0, (10_000,)), rng.normal(seed, purpose, salt, (10_000,))
    )
    first, second = rng.numpy_generator(0, "flip", 0), rng.numpy_generator(seed, purpose, salt)
    assert different(first.random(10_000), second.random(10_000))


def test_neighbouring_indices_are_independent():
    numbers = rng.uniform(0, "flip", np.arange(10_001))
    assert different(numbers[1:], numbers[:-1])


@pytest.mark.parametrize("start", [0, 10**12, 2**62])
def test_uniform_is_uniform(start):
    numbers = np.sort(rng.uniform(7, "test", start + np.arange(100_000)))
    assert 0 <= numbers[0] and numbers[-1] < 1
    assert abs(numbers.mean() - 0.5) < 5 / (12 * 100_000) ** 0.5  # five standard errors
    steps = np.arange(1, 100_001) / 100_000
    assert (
        np.abs(numbers - steps).max() < 2.0 / 100_000**0.5
    )  # Kolmogorov-Smirnov; 2.0 is exceeded once in 1,500


@given(
    st.lists(st.integers(0, 2**63 - 1), min_size=1, max_size=30),
    st.integers(0, 2**40),
    st.integers(0, 9),
)
def test_a_rank_draws_the_numbers_of_the_whole(index, seed, salt):
    index = np.array(index)
    whole = rng.uniform(seed, "flip", index, salt)
    for part in (slice(None, None, 2), slice(1, None, 2), slice(len(index) // 2, None)):
        np.testing.assert_array_equal(rng.uniform(seed, "flip", index[part], salt), whole[part])
    np.testing.assert_array_equal(
        [rng.uniform(seed, "flip", np.array([i]), salt)[0] for i in index], whole
    )


def test_normal_depends_on_nothing_but_its_address():
    first = rng.normal(3, "noise/g", 5, (16, 128))
    assert first.dtype == torch.float32 and first.shape == (16, 128)
    torch.manual_seed(99)
    torch.randn(7)
    usual = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        again = rng.normal(3, "noise/g", 5, (16, 128))
    finally:
        torch.set_default_dtype(usual)
    assert torch.equal(first, again) and again.dtype == torch.float32
    assert abs(first.mean()) < 0.1 and abs(first.std() - 1) < 0.1


def test_drawing_leaves_the_generators_of_others_alone():
    torch.manual_seed(1)
    np.random.seed(1)
    before, numpy_before = torch.get_rng_state(), np.random.get_state()[1].copy()
    rng.normal(0, "x", 0, (3,))
    rng.uniform(0, "x", np.arange(3))
    rng.numpy_generator(0, "x").random()
    assert torch.equal(torch.get_rng_state(), before)
    np.testing.assert_array_equal(np.random.get_state()[1], numpy_before)
