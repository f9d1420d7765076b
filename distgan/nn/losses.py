"""Adversarial losses: plain functions of logits, each with its source. `d_` is what the
discriminator minimises, `g_` the generator.
"""

from collections.abc import Callable
from typing import Literal, get_args

import torch
from torch.nn import functional as F

Mode = Literal["lsgan", "vanilla", "hinge", "wgan"]
MODES: tuple[Mode, ...] = get_args(Mode)


def d_vanilla(
    real: torch.Tensor, fake: torch.Tensor, real_label: float = 1.0, fake_label: float = 0.0
) -> torch.Tensor:
    """Mean of the two binary cross-entropies (Goodfellow et al. 2014, eq. 1), with soft labels
    (Salimans et al. 2016, 3.4).

    real, fake: logits of any shape. The mean of both halves, so that an undecided D stands at log 2
    = 0.693.
    """
    return 0.5 * (
        F.binary_cross_entropy_with_logits(real, torch.full_like(real, real_label))
        + F.binary_cross_entropy_with_logits(fake, torch.full_like(fake, fake_label))
    )


def g_vanilla(fake: torch.Tensor) -> torch.Tensor:
    """The non-saturating loss -log D(G(z)) (Goodfellow et al. 2014, section 3)."""
    return F.softplus(-fake).mean()


def d_hinge(real: torch.Tensor, fake: torch.Tensor) -> torch.Tensor:
    """Lim and Ye 2017; Miyato et al. 2018, eq. 16."""
    return F.relu(1 - real).mean() + F.relu(1 + fake).mean()


def g_hinge(fake: torch.Tensor) -> torch.Tensor:
    """-E[D(G(z))] (Miyato et al. 2018, eq. 17)."""
    return -fake.mean()


def d_wasserstein(real: torch.Tensor, fake: torch.Tensor) -> torch.Tensor:
    """-E[D(x)] + E[D(G(z))] (Arjovsky et al. 2017, eq. 2 and algorithm 1): minus the estimate of
    the Wasserstein distance, for an unbounded D.
    """
    return fake.mean() - real.mean()


def g_wasserstein(fake: torch.Tensor) -> torch.Tensor:
    """-E[D(G(z))] (Arjovsky et al. 2017, algorithm 1)."""
    return -fake.mean()


def d_lsgan(
    real: torch.Tensor, fake: torch.Tensor, real_label: float = 1.0, fake_label: float = 0.0
) -> torch.Tensor:
    """E[(D(x) - b)^2] + E[(D(G(z)) - a)^2] (Mao et al. 2017, eq. 2, without its factor 1/2): with
    labels 1 and 0 an undecided D stands at 0.5.
    """
    return (real - real_label).square().mean() + (fake - fake_label).square().mean()


def g_lsgan(fake: torch.Tensor, real_label: float = 1.0) -> torch.Tensor:
    """E[(D(G(z)) - c)^2] (ibid.), where c is D's label of reals."""
    return (fake - real_label).square().mean()


def d_adversarial(
    mode: Mode,
    real: torch.Tensor,
    fake: torch.Tensor,
    real_label: float = 1.0,
    fake_label: float = 0.0,
) -> torch.Tensor:
    """Return D's loss of one of MODES; only lsgan and vanilla have labels."""
    if mode in ("hinge", "wgan"):
        return {"hinge": d_hinge, "wgan": d_wasserstein}[mode](real, fake)
    return {"lsgan": d_lsgan, "vanilla": d_vanilla}[mode](real, fake, real_label, fake_label)


def g_adversarial(mode: Mode, fake: torch.Tensor, real_label: float = 1.0) -> torch.Tensor:
    """Return G's loss of one of MODES; only lsgan has a label."""
    if mode == "lsgan":
        return g_lsgan(fake, real_label)
    return {"vanilla": g_vanilla, "hinge": g_hinge, "wgan": g_wasserstein}[mode](fake)


def gradient_penalty(
    critic: Callable[[torch.Tensor], torch.Tensor],
    real: torch.Tensor,
    fake: torch.Tensor,
    share: torch.Tensor,
) -> torch.Tensor:
    """E[(|grad D(x)| - 1)^2] at points x between real and generated samples (Gulrajani et al. 2017,
    eq. 3 and algorithm 1).

    `share` [batch], in [0, 1): how much of each point is the real sample. `critic` gives one number
    per sample that depends on that sample alone (ibid., section 4). The result is one term of D's
    loss: it can be differentiated by D's weights.
    """
    share = share.reshape(-1, *[1] * (real.ndim - 1))
    between = (share * real + (1 - share) * fake).detach().requires_grad_()
    (slope,) = torch.autograd.grad(critic(between).sum(), between, create_graph=True)
    return (torch.linalg.vector_norm(slope.flatten(1), dim=1) - 1).square().mean()


def d_relativistic(real: torch.Tensor, fake: torch.Tensor) -> torch.Tensor:
    """Softplus of D(G(z)) - D(x) over pairs (Jolicoeur-Martineau 2019, relativistic pairing GAN;
    Huang et al. 2024, eq. 2 with f(t) = -log(1 + e^-t)).

    real, fake: [batch], sample i against sample i. An undecided D stands at log 2; a number added
    to all outputs changes nothing.
    """
    return F.softplus(fake - real).mean()


def g_relativistic(real: torch.Tensor, fake: torch.Tensor) -> torch.Tensor:
    """The same from G's side: softplus of D(x) - D(G(z)) (Huang et al. 2024, section 2)."""
    return F.softplus(real - fake).mean()


def zero_centred_penalty(
    critic: Callable[[torch.Tensor], torch.Tensor], samples: torch.Tensor
) -> torch.Tensor:
    """E[|grad D(x)|^2] at `samples`: R1 at reals, R2 at generated ones (Mescheder et al. 2018, eq.
    9 and 10); D's loss takes each times gamma / 2.

    `critic` gives one number per sample that depends on that sample alone. The result can be
    differentiated by D's weights.
    """
    samples = samples.detach().requires_grad_()
    (slope,) = torch.autograd.grad(critic(samples).sum(), samples, create_graph=True)
    return slope.square().flatten(1).sum(1).mean()
