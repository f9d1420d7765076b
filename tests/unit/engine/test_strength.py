"""The strength of adaptive augmentation follows the signs of a discriminator."""

import pytest
import torch

from distgan.distributed.ranks import Ranks
from distgan.engine.strength import Strength

BATCH = 8


def run(strength, scores, updates, skipped=0.0):
    for _ in range(updates):
        strength.see(torch.full((BATCH,), scores))
        strength.settle(torch.tensor(skipped))
        strength.adjust(target=0.6, images=10 * BATCH, limit=0.8)
    return float(strength.value)


def test_it_rises_where_d_knows_its_reals_and_falls_where_it_does_not():
    strength = Strength(Ranks())
    assert abs(run(strength, 3.0, 4) - 0.4) < 1e-12
    assert abs(run(strength, 3.0, 9) - 0.8) < 1e-12  # the limit
    assert abs(run(strength, -0.1, 3) - 0.5) < 1e-12
    assert run(strength, -0.1, 9) == 0


def test_a_skipped_update_counts_for_nothing():
    strength = Strength(Ranks())
    run(strength, 3.0, 2)
    before = strength.state()
    run(strength, float("nan"), 2, skipped=1.0)
    assert strength.state() == before


class Other(Ranks):
    """One of two ranks, of which the other has counted `there`."""

    def __init__(self, rank, there):
        super().__init__()
        self.rank, self.there = rank, there

    def all_reduce_sum(self, x):
        return x + self.there


def test_what_two_ranks_saved_between_adjustments_goes_on_with_one_or_with_two():
    one = Strength(Ranks())
    one.see(torch.tensor([1.0, -2.0, 3.0, 4.0]))
    one.settle(torch.tensor(0.0))
    half = Strength(Other(0, torch.tensor([2.0, 2.0])))
    half.see(torch.tensor([1.0, -2.0]))
    half.settle(torch.tensor(0.0))
    assert half.state() == one.state() == {"strength": 0.0, "signs": 2.0, "images": 4.0}
    second = Strength(Other(1, torch.tensor([2.0, 4.0])))
    second.load(half.state())
    assert second.state() == half.state()  # the first rank holds the sums
    alone = Strength(Ranks())
    alone.load(half.state())
    alone.adjust(0.6, 40, 0.8)
    one.adjust(0.6, 40, 0.8)
    assert alone.state() == one.state()


def test_a_checkpoint_without_a_strength_begins_at_0():
    strength = Strength(Ranks())
    run(strength, 3.0, 2)
    strength.load({})
    assert strength.state() == {"strength": 0.0, "signs": 0.0, "images": 0.0}


@pytest.mark.parametrize("state", [[1.0], {"strength": "x"}, {"images": None}])
def test_a_damaged_state_is_one_error(state):
    with pytest.raises(ValueError, match="the strength of ada is"):
        Strength(Ranks()).load(state)
