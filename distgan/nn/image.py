"""DCGAN's generator and discriminator for images of any size that can be halved down to a small
grid, with optional self-attention and classes.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from distgan.config import image_sizes
from distgan.distributed.ranks import Ranks
from distgan.nn.class_vectors import class_vectors
from distgan.nn.normalization import ConditionalBatchNorm2d, GroupBatchNorm2d, spectral_norm

WIDEST = 8  # times the channels at half the size of the image


class SelfAttention2d(nn.Module):
    """Self-attention over positions with a learned residual weight that starts at 0 (Zhang et al.
    2019, SAGAN, eq. 1-3).

    x: [batch, channels, height, width] -> the same shape. Query and key have channels // reduction
    channels. No biases: the softmax cancels the key's, so its gradient would be rounding noise that
    Adam blows up to full steps.
    """

    def __init__(self, channels: int, reduction: int = 8, norm=lambda layer: layer):
        super().__init__()
        inner = max(channels // reduction, 1)
        self.query, self.key, self.value = (
            norm(nn.Conv2d(channels, c, 1, bias=False)) for c in (inner, inner, channels)
        )
        self.gamma = nn.Parameter(torch.zeros(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        query, key, value = (
            layer(x).flatten(2).transpose(1, 2) for layer in (self.query, self.key, self.value)
        )
        # Written out: values are wider than keys, so torch's fused kernels do not apply, and its
        # general one is slower than this.
        # SAGAN does not scale by 1/sqrt(d). [batch, to, from]
        weights = torch.softmax(query @ key.transpose(1, 2), dim=2)
        return x + self.gamma * (weights @ value).transpose(1, 2).reshape(x.shape)


class Generator(nn.Module):
    """DCGAN's generator (Radford et al. 2016): noise [batch, latent] -> images [batch, channels,
    height, width] in [-1, 1].

    `width` is the number of channels at half the size of the image; each half of that has twice as
    many, at most 8 times. `spectral`: spectral norm throughout. With `classes`, batch norm is
    conditional, and the network takes classes int64 [batch] beside the noise, or weights of them
    [batch, classes].
    """

    image_end = "last"  # of `layers`; those of a network for larger images follow there

    def __init__(
        self,
        latent: int,
        width: int,
        channels: int,
        attention: tuple[int, ...],
        reduction: int,
        group: int,
        ranks: Ranks,
        *,
        spectral: bool = False,
        size: Sequence[int] = (64, 64),
        classes: int = 0,
    ):
        super().__init__()
        sides = resolutions(size)
        widths = [width * min(sides[-1] // side, WIDEST) for side in sides]
        layers: list[nn.Module] = [
            nn.ConvTranspose2d(latent, widths[0], image_sizes.grid(*size), 1, 0, bias=False)
        ]
        for i, (here, side) in enumerate(zip(widths, sides, strict=True)):
            norm = (
                ConditionalBatchNorm2d(here, classes, group, ranks)
                if classes
                else GroupBatchNorm2d(here, group, ranks)
            )
            layers += [norm, nn.ReLU(inplace=True)]
            layers += [SelfAttention2d(here, reduction)] if side in attention else []
            last = side == sides[-1]
            layers += [nn.ConvTranspose2d(here, (*widths, channels)[i + 1], 4, 2, 1, bias=last)]
        self.layers = nn.Sequential(*layers, nn.Tanh())
        self.apply(dcgan_init)
        if spectral:
            _spectral_norms(self)

    def forward(self, noise: torch.Tensor, classes: torch.Tensor | None = None) -> torch.Tensor:
        x = noise[:, :, None, None]
        for layer in self.layers:
            x = layer(x, classes) if isinstance(layer, ConditionalBatchNorm2d) else layer(x)
        return x


class Discriminator(nn.Module):
    """The generator's mirror image, with LeakyReLU(0.2) and without a last sigmoid: images [batch,
    channels, height, width] -> logits [batch].

    `spectral`: spectral normalisation of every convolution; `norm`: channels -> a layer after each
    but the first and the last (DCGAN, section 3). `offset`: the last convolution has a bias. A
    Wasserstein loss does not depend on it, so its gradient would be rounding noise that RMSprop and
    Adam blow up to full steps.

    With `classes`, the network takes classes int64 [batch] beside the images, and adds the inner
    product of the last features, summed over places, with a vector of the class (the projection of
    Miyato and Koyama 2018, eq. 3).
    """

    image_end = "first"

    def __init__(
        self,
        width: int,
        channels: int,
        attention: tuple[int, ...],
        reduction: int,
        *,
        spectral: bool = True,
        norm: Callable[[int], nn.Module] | None = None,
        offset: bool = True,
        size: Sequence[int] = (64, 64),
        classes: int = 0,
    ):
        super().__init__()
        layers: list[nn.Module] = []
        self.block_ends: list[int] = []
        sides = resolutions(size)
        before = channels
        for side in reversed(sides):
            here = width * min(sides[-1] // side, WIDEST)
            follows = [norm(here)] if norm and side < sides[-1] else []
            layers += [
                nn.Conv2d(before, here, 4, 2, 1, bias=not follows),
                *follows,
                nn.LeakyReLU(0.2, inplace=True),
            ]
            layers += [SelfAttention2d(here, reduction)] if side in attention else []
            self.block_ends.append(len(layers))
            before = here
        grid = image_sizes.grid(*size)
        self.layers = nn.Sequential(*layers, nn.Conv2d(before, 1, grid, bias=offset))
        self.projection = nn.Embedding(classes, before) if classes else None
        self.apply(dcgan_init)
        if spectral:
            _spectral_norms(self)

    def forward(self, images: torch.Tensor, classes: torch.Tensor | None = None) -> torch.Tensor:
        *body, head = self.layers
        for layer in body:
            images = layer(images)
        logits = head(images).flatten()
        if self.projection is None:
            return logits
        return logits + (class_vectors(self.projection, classes) * images.sum((2, 3))).sum(1)


def resolutions(size: Sequence[int]) -> list[int]:
    """Return the shorter sides at which networks for images of (height, width) have layers: 4, 8,
    16 and 32 for 64x64.
    """
    return [4 << i for i in range(image_sizes.doublings(*size))]


def freeze_blocks(D: Any, blocks: int) -> Any:
    """Fix the weights of a discriminator's first blocks, those nearest the image (FreezeD, Mo et
    al. 2020), one for each resolution; return it. `D.block_ends`: how many of `D.layers` are up to
    the end of each block.
    """
    if blocks:
        D.layers[: D.block_ends[blocks - 1]].requires_grad_(False)
    return D


def _spectral_norms(net: nn.Module) -> None:
    projection = getattr(net, "projection", None)
    for module in list(net.modules()):
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d) or module is projection:
            spectral_norm(module)


def dcgan_init(module: nn.Module) -> None:
    """Draw weights of convolutions and of vectors of classes from N(0, 0.02), batch-norm weights
    from N(1, 0.02); biases are 0 (Radford et al. 2016, section 4).
    """
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Embedding):
        nn.init.normal_(module.weight, 0.0, 0.02)
    elif isinstance(module, GroupBatchNorm2d) and module.affine:
        nn.init.normal_(module.weight, 1.0, 0.02)
    elif isinstance(module, ConditionalBatchNorm2d):  # after its parts
        nn.init.normal_(module.gain.weight, 1.0, 0.02)
        nn.init.zeros_(module.offset.weight)
    if isinstance(bias := getattr(module, "bias", None), torch.Tensor):
        nn.init.zeros_(bias)
