"""A mixture of eight Gaussians in two dimensions: does a GAN find all modes?

    python examples/gaussians.py [FOLDER]      half a minute on one core

Data that live in memory, networks of a few lines, R3GAN's loss (Huang et al. 2024), a plot. Prints

    mode 0: 10.5% of the samples, mode 1: …
    8 of 8 modes, 85% of the samples within 3 standard deviations of one; see gaussians.png
"""

import sys
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import nn

import distgan
from distgan import api

MODES, SD = 8, 0.05
ANGLES = np.arange(MODES) * 2 * np.pi / MODES
CENTRES = 2 * np.stack([np.cos(ANGLES), np.sin(ANGLES)], 1)


class Ring:
    """A data set of one's own: its length, its items, and a word that changes with them."""

    fingerprint = f"ring of {MODES} Gaussians, sd {SD}, version 1"

    def __len__(self):
        return 10_000

    def __getitem__(self, i):  # float32 [2]
        noise = api.numpy_generator(0, "ring", i).normal(0, SD, 2)
        return (CENTRES[i % MODES] + noise).astype(np.float32)


def mlp(*widths):
    layers = []
    for before, after in zip(widths, widths[1:], strict=False):
        layers += [nn.Linear(before, after), nn.SiLU()]
    return nn.Sequential(*layers[:-1])


class Toy:
    class Settings(api.Run):
        kind = "vector"
        batch: int = 128
        epochs: api.Positive = 40
        latent: int = 8
        width: int = 64
        gamma: float = 0.3
        lr: float = 3e-3
        evaluate: api.Evaluate = api.Evaluate()
        watch: api.Watch = api.Watch(unbounded=True)

    def __init__(self, run, ranks, layout, shape):
        self.run, self.dtype = run, ranks.dtype
        adam = partial(torch.optim.Adam, lr=run.lr, betas=(0.0, 0.9))
        hidden = [run.width] * 3
        self.G = api.Player(ranks, mlp(run.latent, *hidden, *shape), adam, ema=0.99)
        self.D = api.Player(ranks, mlp(*shape, *hidden, 1), adam)
        self.players = {"G": self.G, "D": self.D}

    def step(self, batches, now):
        d = self.D.update(self.d_loss, batches[0], now.epoch)
        return api.step_log(d=d, g=self.G.update(self.g_loss, batches[0], now.epoch))

    def d_loss(self, micro):
        points = micro.real.to(self.dtype), self.G.generate(self.noise(micro, "noise/d"))
        real, fake = self.D(torch.cat(points)).flatten().chunk(2)
        slopes = [api.zero_centred_penalty(self.D.forward_local, x) for x in points]
        return api.d_relativistic(real, fake) + self.run.gamma / 2 * sum(slopes), {}

    def g_loss(self, micro):
        fake = self.G(self.noise(micro, "noise/g"))
        with self.D.frozen() as judge:
            scores = judge(torch.cat([micro.real.to(self.dtype), fake])).flatten()
        return api.g_relativistic(*scores.chunk(2)), {}

    def noise(self, micro, purpose):
        return micro.noise(self.run.seed, purpose, self.run.latent, self.run.batch).to(self.dtype)

    def sample(self, numbers, purpose="noise/sample"):
        return api.sample_from_noise(self.G, numbers, self.run.seed, purpose, self.run.latent)


if __name__ == "__main__":
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else ".")
    data = Ring()
    run = distgan.train(Toy, data=data, machine={"folder": str(folder / "gaussians")})
    samples = run.sample(2000).numpy()
    distances = np.linalg.norm(samples[:, None] - CENTRES, axis=2)
    nearest, near = distances.argmin(1), distances.min(1) < 3 * SD
    shares = np.bincount(nearest[near], minlength=MODES) / len(samples)
    print(", ".join(f"mode {i}: {share:.1%} of the samples" for i, share in enumerate(shares)))
    reals = np.stack([data[i] for i in range(2000)])
    api.scatter(folder / "gaussians.png", torch.from_numpy(reals), torch.from_numpy(samples))
    print(
        f"{(shares > 0.5 / MODES).sum()} of {MODES} modes, {near.mean():.0%} of the samples within"
        f" 3 standard deviations of one; see {folder / 'gaussians.png'}"
    )
