"""The order of the stream is a pure function of the position."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from distgan.data.order import Order, permutation


def test_epochs_and_seeds_are_shuffled_apart():
    a, b = permutation(100, 0, 0), permutation(100, 0, 1)
    assert sorted(a) == sorted(b) == list(range(100))
    assert not np.array_equal(a, b)
    assert not np.array_equal(a, permutation(100, 1, 0))


@given(st.lists(st.integers(1, 30), min_size=1, max_size=12), st.integers(0, 13), st.integers(0, 3))
def test_every_epoch_is_a_permutation_in_any_window(sizes, window, epoch):
    bounds = tuple(np.cumsum([0, *sizes]).tolist())
    assert sorted(permutation(bounds[-1], 5, epoch, window, bounds)) == list(range(bounds[-1]))


@given(st.lists(st.integers(1, 30), min_size=1, max_size=12), st.integers(1, 13))
def test_a_window_reads_few_shards_at_a_time(sizes, window):
    """Shard after shard is finished: while `window` of them are read, no other is touched."""
    bounds = tuple(np.cumsum([0, *sizes]).tolist())
    shards = (
        np.searchsorted(bounds, permutation(bounds[-1], 5, 0, window, bounds), side="right") - 1
    )
    runs = []
    for shard in shards.tolist():
        if not runs or shard not in runs[-1]:
            if not runs or len(runs[-1]) == window:
                runs.append(set())
            runs[-1].add(shard)
    assert sum(len(run) for run in runs) == len(sizes)


def test_windows_change_from_epoch_to_epoch():
    bounds = tuple(range(0, 101, 10))
    first = [set(permutation(100, 0, epoch, 2, bounds)[:20] // 10) for epoch in range(5)]
    assert len({frozenset(map(int, shards)) for shards in first}) > 1


@given(st.integers(1, 50), st.integers(0, 3), st.integers(0, 200), st.integers(1, 120))
def test_any_stretch_is_a_part_of_the_whole(n, seed, start, length):
    order = Order(n, seed)
    samples, address = order.locate(np.arange(start, start + length))
    whole = order.locate(np.arange(start + length))
    assert np.array_equal(samples, whole[0][start:]) and np.array_equal(address, whole[1][start:])
    assert np.array_equal(address, np.arange(start, start + length) // n * n + samples)
