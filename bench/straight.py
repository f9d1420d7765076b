"""GAN training as one writes it by hand in PyTorch, without a trainer: what bench/overhead.py
compares with.

One process, torch's own normalisation layers, all images on the device, random numbers drawn there,
nothing logged, nothing waits for the device. Each function is an endless loop that stops after
every step; `run` are the settings of the recipe of the same name.
"""

import copy
from collections.abc import Callable, Iterator

import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations, parametrize

from distgan.nn.normalization import GroupBatchNorm2d

Optimizer = Callable[..., torch.optim.Optimizer]


def plain(net: nn.Module) -> nn.Module:
    """Put torch's own layers into a network.

    Not into a copy of one: parametrised layers share their class with their copies.
    """
    for name, child in net.named_children():
        if isinstance(child, GroupBatchNorm2d):
            setattr(net, name, nn.BatchNorm2d(child.channels).to(child.weight))
        else:
            plain(child)
    if parametrize.is_parametrized(net, "weight"):
        parametrize.remove_parametrizations(net, "weight")
        parametrizations.spectral_norm(net)
    return net


def reals(images: torch.Tensor, batch: int) -> Iterator[torch.Tensor]:
    """Shuffled batches without end, in [-1, 1].

    Uint8 [n, channels, size, size] -> float [batch, channels, size, size].
    """
    while True:
        for chosen in torch.randperm(len(images), device=images.device)[
            : len(images) // batch * batch
        ].split(batch):
            yield images[chosen].float().div_(127.5).sub_(1)


def mirrored(x: torch.Tensor, axis: int) -> torch.Tensor:
    """Half of the images, along an axis."""
    chosen = torch.rand(len(x), 1, 1, 1, device=x.device) < 0.5
    return torch.where(chosen, x.flip(axis), x)


def sagan(run, G: nn.Module, D: nn.Module, images: torch.Tensor, make: Optimizer) -> Iterator[None]:
    """Label smoothing, gradient clipping, moving average; D sees reals and samples in one pass."""
    average = copy.deepcopy(G)
    to, source = (
        [x for x in net.state_dict().values() if x.is_floating_point()] for net in (average, G)
    )
    g_steps, d_steps = (
        make(net.parameters(), rate, betas=run.betas, weight_decay=run.weight_decay)
        for net, rate in ((G, run.g_lr), (D, run.d_lr))
    )
    for real in reals(images, run.batch):
        real = mirrored(mirrored(real, 3), 2)
        with torch.no_grad():
            fake = G(torch.randn(run.batch, run.latent, device=real.device))
        d_steps.zero_grad()
        a, b = D(torch.cat([real, fake])).chunk(2)
        (
            0.5
            * (
                F.binary_cross_entropy_with_logits(a, torch.full_like(a, run.real_label))
                + F.softplus(b).mean()
            )
        ).backward()
        nn.utils.clip_grad_norm_(D.parameters(), run.clip)
        d_steps.step()

        D.requires_grad_(False)
        g_steps.zero_grad()
        F.softplus(-D(G(torch.randn(run.batch, run.latent, device=real.device)))).mean().backward()
        nn.utils.clip_grad_norm_(G.parameters(), run.clip)
        g_steps.step()
        D.requires_grad_(True)
        torch._foreach_lerp_(to, source, 1 - run.ema)
        yield


def wgan_flowers(
    run, G: nn.Module, D: nn.Module, images: torch.Tensor, make: Optimizer
) -> Iterator[None]:
    """`n_critic` updates of the critic, each on fresh images and clipped, then one of the generator
    (Arjovsky et al. 2017, algorithm 1).
    """
    g_steps, d_steps = (
        make(net.parameters(), rate) for net, rate in ((G, run.g_lr), (D, run.d_lr))
    )
    weights = list(D.parameters())
    batches = reals(images, run.batch)
    while True:
        for _ in range(run.n_critic):
            real = mirrored(next(batches), 3)
            with torch.no_grad():
                fake = G(torch.randn(run.batch, run.latent, device=real.device))
            d_steps.zero_grad()
            (D(fake).mean() - D(real).mean()).backward()
            d_steps.step()
            with torch.no_grad():
                torch._foreach_clamp_min_(weights, -run.weight_clip)
                torch._foreach_clamp_max_(weights, run.weight_clip)

        D.requires_grad_(False)
        g_steps.zero_grad()
        (-D(G(torch.randn(run.batch, run.latent, device=real.device)))).mean().backward()
        g_steps.step()
        D.requires_grad_(True)
        yield
