"""Vectors of classes: one for each, or mixtures of them."""

import torch
from torch import nn


def class_vectors(embedding: nn.Embedding, classes: torch.Tensor | None) -> torch.Tensor:
    """Return the vectors of classes int64 [n], or, by their weights [n, classes], mixtures:
    [n, entries].
    """
    assert classes is not None
    if classes.ndim == 1:
        return embedding(classes)
    return classes.to(embedding.weight.dtype) @ embedding.weight
