"""A GAN of your own that draws vectors from noise. docs/your-own-gan.md explains it."""

from functools import partial
from itertools import pairwise

import numpy as np
import torch
from torch import nn

from distgan import api


class Settings(api.Run):  # each is `name=value` on the command line; another value is another run
    kind = "vector"  # of sample in the data
    batch: int = api.Field(128, gt=0, description="vectors of an update, over all processes")
    epochs: api.Positive = api.Field(20, description="how far to train; more continues the run")
    latent: int = api.Field(4, gt=0, description="size of the noise vector")
    width: int = api.Field(64, gt=0, description="units of a hidden layer")
    gamma: float = api.Field(0.02, ge=0, description="weight of the penalties on D's gradient")
    g_lr: api.Positive = api.Field(2e-3, description="Adam learning rate of the generator")
    d_lr: api.Positive = api.Field(2e-3, description="Adam learning rate of the discriminator")
    evaluate: api.Evaluate = api.Evaluate()  # samples get a Fréchet distance
    watch: api.Watch = api.Watch(unbounded=True)  # what the monitor expects of these losses


def mlp(*widths):  # [n, widths[0]] -> [n, widths[-1]]
    layers = [layer for a, b in pairwise(widths) for layer in (nn.Linear(a, b), nn.CELU(0.05))]
    return nn.Sequential(*layers[:-1])


class Recipe:  # the networks, and how they are trained against each other
    def __init__(self, run, ranks, layout, shape):
        self.run, self.dtype, (size,) = run, ranks.dtype, shape
        hidden, adam = [run.width] * 3, partial(torch.optim.Adam, betas=(0.0, 0.9))
        G, D = mlp(run.latent, *hidden, size), mlp(size, *hidden, 1)
        self.G = api.Player(ranks, G, partial(adam, lr=run.g_lr), ema=0.99)  # averages its weights
        self.D = api.Player(ranks, D, partial(adam, lr=run.d_lr))
        self.players = {"G": self.G, "D": self.D}  # all that a checkpoint keeps

    def step(self, batches, now):  # one update of each; returns the numbers of the journal
        d = self.D.update(self.d_loss, batches[0], now.epoch)
        return api.step_log(d=d, g=self.G.update(self.g_loss, batches[0], now.epoch))

    def d_loss(self, micro):  # of this process' share of a batch: a mean, and numbers to log
        vectors = micro.real.to(self.dtype), self.G.generate(self.noise(micro, "noise/d"))
        real, fake = self.D(torch.cat(vectors)).flatten().chunk(2)
        slopes = [api.zero_centred_penalty(self.D.forward_local, x) for x in vectors]
        loss = api.d_relativistic(real, fake) + self.run.gamma / 2 * sum(slopes)
        return loss, {"real_score": real.mean(), "fake_score": fake.mean()}

    def g_loss(self, micro):
        fake = self.G(self.noise(micro, "noise/g"))
        with self.D.frozen() as judge:  # gradients pass through D, not into its weights
            scores = judge(torch.cat([micro.real.to(self.dtype), fake])).flatten()
        return api.g_relativistic(*scores.chunk(2)), {}

    def noise(self, micro, purpose):  # [n, latent], by place in the run: alike on all processes
        return micro.noise(self.run.seed, purpose, self.run.latent, self.run.batch).to(self.dtype)

    def sample(self, numbers, purpose="noise/sample"):  # vector i depends on the seed and i alone
        return api.sample_from_noise(self.G, numbers, self.run.seed, purpose, self.run.latent)

    def show(self, data, path):  # samples, the same ones each time, over held-out vectors
        reals = next(data.chunks(data.validation, 1000))
        api.scatter(path, reals, self.sample(np.arange(len(reals)), "noise/grid").float().cpu())
