"""The parallel map. In a file of its own: the spawned processes import it to find its functions."""

import os
import signal

import pytest

from distgan.errors import DataError
from shards.parallel import ordered_map


def double(item: int) -> int:
    return 2 * item


def fail_at_7(item: int) -> int:
    if item == 7:
        raise DataError("item 7 is bad")
    return item


def die_at_7(item: int) -> int:
    if item == 7:
        os.kill(os.getpid(), signal.SIGKILL)
    return item


def test_parallel_results_are_in_order_and_failures_come_through():
    assert list(ordered_map(double, range(500), 2)) == list(range(0, 1000, 2))
    with pytest.raises(DataError, match="item 7 is bad"):
        list(ordered_map(fail_at_7, range(40), 2))
    with pytest.raises(DataError, match="a worker process was killed"):
        list(ordered_map(die_at_7, range(40), 2))
