"""The table of docs/evaluation.md, of which faults a score sees, on few images of a few colours."""

import numpy as np
import pytest

from bench import degradations
from distgan.evaluation.features.choice import Choice


def images(n):
    """Images [n, 32, 32, 3] of two kinds: a bright square on the left or on the right."""
    rng = np.random.default_rng(0)
    out, groups = rng.normal(90, 4, (n, 32, 32, 3)), rng.integers(0, 2, n)
    for image, group in zip(out, groups, strict=True):
        y, x = rng.integers(2, 18), rng.integers(0, 6) + 16 * group
        image[y : y + 10, x : x + 10] += rng.uniform(40, 120, 3)
    return out.clip(0, 255).astype(np.uint8), groups


def test_faults_change_images_and_nothing_else():
    one, rng = images(1)[0][0], np.random.default_rng(1)
    for name, fault in degradations.FAULTS.items():
        changed = fault(one, rng)
        assert (changed.shape, changed.dtype) == (one.shape, one.dtype), name
        assert not np.array_equal(changed, one), name
    for parts in (2, 8):
        mixed = degradations._shuffled(parts, one, rng)
        assert np.array_equal(np.sort(mixed.ravel()), np.sort(one.ravel()))


@pytest.mark.gate
def test_lite0_sees_noise_and_what_lies_in_wrong_places():
    found = degradations.table(Choice("lite0").build(), *images(320), 40, 4)
    for name in ("noise, sd 30", "quarters shuffled", "8 x 8 tiles shuffled"):
        assert found[name][0] > 3, name
    assert found["copies"][2] == 0  # `nearest`
