"""Noise that samples are drawn from."""

import numpy as np
import pytest
import torch
from scipy import stats

from distgan.core import rng
from distgan.recipes._noise import truncated


@pytest.mark.parametrize("limit", [0.01, 0.5, 2.0])
def test_cut_noise_has_the_distribution_of_noise_drawn_again_until_it_is_inside(limit):
    noise = rng.normal(0, "noise/test", 0, (20_000,))
    cut = truncated(noise, limit)
    assert cut.dtype == noise.dtype and cut.abs().max() <= limit
    expected = stats.truncnorm(-limit, limit)
    assert stats.kstest(cut.double().numpy(), expected.cdf).pvalue > 0.01
    assert torch.equal(cut.argsort(), noise.argsort()) or limit < 0.1  # which rounds


def test_a_value_depends_on_no_other_and_a_far_limit_changes_nothing():
    noise = rng.normal_each(0, "noise/test", np.arange(8), (16,))
    assert torch.equal(truncated(noise, 0.7)[3:5], truncated(noise[3:5], 0.7))
    assert torch.allclose(truncated(noise, 10.0), noise, atol=1e-6)
    assert truncated(torch.tensor([-40.0, 0.0, 40.0]), 1.5).tolist() == [-1.5, 0.0, 1.5]
