"""Inception Score (Salimans et al. 2016): are samples of clear classes, and of many? It compares
with no real images, so it sees neither copies nor a class that is missing within a class.

    exp of the mean over samples of KL(p(class | sample) || p(class)), in each of 10 parts of them

Classes are those of the network's own classifier, without its bias, as in the original code.
"""

import torch

PARTS = 10


def score(features: torch.Tensor, weights: torch.Tensor) -> tuple[float, float]:
    """Return (mean, deviation) over 10 parts, for features [n >= 10, d] in random order and the
    weights [classes, d] of the last layer.
    """
    n, found = len(features), []
    for i in range(PARTS):
        part = features[i * n // PARTS : (i + 1) * n // PARTS].double()
        logs = torch.log_softmax(part @ weights.double().T, 1)
        marginal = logs.exp().mean(0, keepdim=True).log()
        found.append(float((logs.exp() * (logs - marginal)).sum(1).mean().exp()))
    values = torch.tensor(found, dtype=torch.float64)
    return float(values.mean()), float(values.std(correction=0))
