"""A seeded random network, for machines without the weights of a trained one."""

import hashlib

import torch
from torch import nn
from torch.nn import functional as F

from distgan.core import rng

STAND_IN = ("frechet_standin", "kernel_standin")


class StandIn(nn.Module):
    """A seeded random convolutional network: the means over space of its four layers.

    Returns float32 [batch, 480]. Distances rank generators of one project; they compare with no
    published number. Images must be of one size.
    """

    metric, kernel = STAND_IN
    label = "seeded random network, 4 layers, 480 features, version 1"
    preprocessing = "none"
    largest = 16.0

    def __init__(self):
        super().__init__()
        widths = (3, 32, 64, 128, 256)
        self.layers = nn.ModuleList(
            nn.Conv2d(a, b, 3, 2, 1, bias=False) for a, b in zip(widths, widths[1:], strict=False)
        )
        for i, layer in enumerate(self.layers):
            weight = rng.normal(0, "features/standin", i, tuple(layer.weight.shape))
            layer.weight = nn.Parameter(weight * (2 / weight[0].numel()) ** 0.5)  # He et al. 2015
        self.digest = hashlib.sha256(
            b"".join(layer.weight.detach().numpy().tobytes() for layer in self.layers)
        ).hexdigest()
        self.requires_grad_(False).eval()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x = images.contiguous().float().div(127.5).sub(1).expand(-1, 3, -1, -1)
        means = []
        for layer in self.layers:
            x = F.leaky_relu(layer(x), 0.2)
            means.append(x.mean((2, 3)))
        return torch.cat(means, 1)
