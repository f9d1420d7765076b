"""The Inception Score against torch-fidelity's, and by hand."""

import pytest
import torch
from torch_fidelity.metric_isc import isc_features_to_metric

from distgan.metrics.inception_score import score


@pytest.mark.parametrize("n", [10, 57, 400])
def test_equals_torch_fidelitys(n):
    draw = torch.Generator().manual_seed(n)
    features = torch.randn(n, 64, generator=draw)
    weights = torch.randn(30, 64, generator=draw) / 4
    expected = isc_features_to_metric(
        features.double() @ weights.double().T, splits=10, shuffle=False
    )
    found = score(features, weights)
    assert found == pytest.approx(tuple(expected.values()), rel=1e-9)


def test_clear_samples_of_all_classes_score_their_number():
    features = torch.eye(4).repeat(10, 1) * 100
    assert score(features, torch.eye(4)) == pytest.approx((4, 0))
    assert score(torch.ones(40, 4), torch.eye(4)) == pytest.approx((1, 0))
