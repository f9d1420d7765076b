"""Features of vectors: cosines along fixed directions."""

import hashlib

import numpy as np
import torch
from torch import nn

from distgan.core import rng


class Vectors(nn.Module):
    """Cosines of vectors, of three wavelengths, along fixed directions (Rahimi and Recht 2007).

    Takes float32 [batch, d], standardises each column by `reals` [n, d], and returns float32
    [batch, 96]. Distances of the vectors themselves would see a mean and a covariance alone, not
    that the space between modes is filled, and of columns in several units the largest one.
    """

    metric, kernel = "frechet_vectors", "kernel_vectors"
    label = "cosines of standardised vectors, 96 features, version 1"
    preprocessing = "none"
    largest = 2.0
    scale: torch.Tensor
    waves: torch.Tensor
    phases: torch.Tensor

    def __init__(self, reals: np.ndarray):
        super().__init__()
        sd = reals.std(0, np.float64)
        scale = np.stack([reals.mean(0, np.float64), np.where(sd > 0, sd, 1)]).astype(np.float32)
        self.digest = hashlib.sha256(scale.tobytes()).hexdigest()
        frequencies = torch.tensor([1.0, 3.0, 10.0]).repeat(32) / reals.shape[1] ** 0.5
        waves = rng.normal(0, "features/vectors", 0, (reals.shape[1], 96)) * frequencies
        phases = 2 * torch.pi * rng.uniform(0, "features/vectors", np.arange(96))
        self.register_buffer("scale", torch.from_numpy(scale))
        self.register_buffer("waves", waves)
        self.register_buffer("phases", torch.from_numpy(phases).float())

    def forward(self, vectors: torch.Tensor) -> torch.Tensor:
        standard = (vectors.float() - self.scale[0]) / self.scale[1]
        return torch.cos(standard @ self.waves + self.phases)
