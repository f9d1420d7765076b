"""Networks for 64x64 images: DCGAN's generator and discriminator, with optional self-attention."""

from collections.abc import Callable

import torch
from torch import nn

from distgan.distributed.ranks import Ranks
from distgan.nn.normalization import GroupBatchNorm2d, spectral_norm


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


class Generator64(nn.Module):
    """DCGAN's generator (Radford et al. 2016): noise [batch, latent] -> images [batch, channels,
    64, 64] in [-1, 1]. `spectral`: spectral norm throughout.
    """

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
    ):
        super().__init__()
        widths = [width * 8, width * 4, width * 2, width]
        layers: list[nn.Module] = [nn.ConvTranspose2d(latent, widths[0], 4, 1, 0, bias=False)]
        for i, (here, size) in enumerate(zip(widths, (4, 8, 16, 32), strict=True)):
            layers += [GroupBatchNorm2d(here, group, ranks), nn.ReLU(inplace=True)]
            layers += [SelfAttention2d(here, reduction)] if size in attention else []
            layers += [nn.ConvTranspose2d(here, (*widths, channels)[i + 1], 4, 2, 1, bias=i == 3)]
        self.layers = nn.Sequential(*layers, nn.Tanh())
        self.apply(dcgan_init)
        if spectral:
            _spectral_norms(self)

    def forward(self, noise: torch.Tensor) -> torch.Tensor:
        return self.layers(noise[:, :, None, None])


class Discriminator64(nn.Module):
    """The generator's mirror image, with LeakyReLU(0.2) and without a last sigmoid: images [batch,
    channels, 64, 64] -> logits [batch].

    `spectral`: spectral normalisation of every convolution; `norm`: channels -> a layer after each
    but the first and the last (DCGAN, section 3). `offset`: the last convolution has a bias. A
    Wasserstein loss does not depend on it, so its gradient would be rounding noise that RMSprop and
    Adam blow up to full steps.
    """

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
    ):
        super().__init__()
        layers: list[nn.Module] = []
        before = channels
        for here, size in zip(
            (width, width * 2, width * 4, width * 8), (32, 16, 8, 4), strict=True
        ):
            follows = [norm(here)] if norm and size < 32 else []
            layers += [
                nn.Conv2d(before, here, 4, 2, 1, bias=not follows),
                *follows,
                nn.LeakyReLU(0.2, inplace=True),
            ]
            layers += [SelfAttention2d(here, reduction)] if size in attention else []
            before = here
        self.layers = nn.Sequential(*layers, nn.Conv2d(before, 1, 4, bias=offset))
        self.apply(dcgan_init)
        if spectral:
            _spectral_norms(self)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.layers(images).flatten()


def _spectral_norms(net: nn.Module) -> None:
    for module in list(net.modules()):
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            spectral_norm(module)


def dcgan_init(module: nn.Module) -> None:
    """Draw convolution weights from N(0, 0.02), batch-norm weights from N(1, 0.02); biases are 0
    (Radford et al. 2016, section 4).
    """
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
        nn.init.normal_(module.weight, 0.0, 0.02)
    elif isinstance(module, GroupBatchNorm2d):
        nn.init.normal_(module.weight, 1.0, 0.02)
    if isinstance(bias := getattr(module, "bias", None), torch.Tensor):
        nn.init.zeros_(bias)
