"""A GAN of your own that draws vectors of classes. docs/your-own-gan.md explains it."""

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
    label: str = api.Field("", description="column of labels; empty for the only one there is")
    latent: int = api.Field(4, gt=0, description="size of the noise, and of a class's vector")
    width: int = api.Field(64, gt=0, description="units of a hidden layer")
    gamma: float = api.Field(0.02, ge=0, description="weight of the penalties on D's gradient")
    g_lr: api.Positive = api.Field(2e-3, description="Adam learning rate of the generator")
    d_lr: api.Positive = api.Field(2e-3, description="Adam learning rate of the discriminator")
    evaluate: api.Evaluate = api.Evaluate()  # samples get a Fréchet distance
    watch: api.Watch = api.Watch(unbounded=True)  # what the monitor expects of these losses

    @property
    def label_column(self):  # with it, the networks are given classes
        return self.label


class OfClass(nn.Module):  # noise beside a vector of the class -> samples [n, …]
    def __init__(self, classes, latent, net):
        super().__init__()
        self.vectors, self.net = nn.Embedding(classes, latent), net

    def forward(self, noise, classes):
        return self.net(torch.cat([noise, self.vectors(classes)], 1))


class ByClass(nn.Sequential):  # layers with an output for each class: that of a sample's own [n]
    def forward(self, samples, classes):
        return super().forward(samples).gather(1, classes[:, None])[:, 0]


def mlp(*widths, kind=nn.Sequential):  # [n, widths[0]] -> [n, widths[-1]]
    layers = [layer for a, b in pairwise(widths) for layer in (nn.Linear(a, b), nn.CELU(0.05))]
    return kind(*layers[:-1])


class Recipe:  # the networks, and how they are trained against each other
    def __init__(self, run, ranks, layout, shape, labels):
        self.run, self.dtype, self.labels, (size,) = run, ranks.dtype, labels, shape
        hidden, adam = [run.width] * 3, partial(torch.optim.Adam, betas=(0.0, 0.9))
        G = OfClass(len(labels), run.latent, mlp(2 * run.latent, *hidden, size))
        D = mlp(size, *hidden, len(labels), kind=ByClass)
        self.G = api.Player(ranks, G, partial(adam, lr=run.g_lr), ema=0.99)  # averages its weights
        self.D = api.Player(ranks, D, partial(adam, lr=run.d_lr))
        self.players = {"G": self.G, "D": self.D}  # all that a checkpoint keeps

    def step(self, batches, now):  # one update of each; returns the numbers of the journal
        d = self.D.update(self.d_loss, batches[0], now.epoch)
        return api.step_log(d=d, g=self.G.update(self.g_loss, batches[0], now.epoch))

    def d_loss(self, micro):  # of this process' share of a batch: a mean, and numbers to log
        fake = self.G.generate(self.noise(micro, "noise/d"), micro.labels)
        vectors, critic = (micro.real.to(self.dtype), fake), self.D.forward_local
        real, fake = self.D(torch.cat(vectors), micro.labels.repeat(2)).chunk(2)
        slopes = [api.zero_centred_penalty(lambda x: critic(x, micro.labels), x) for x in vectors]
        loss = api.d_relativistic(real, fake) + self.run.gamma / 2 * sum(slopes)
        return loss, {"real_score": real.mean(), "fake_score": fake.mean()}

    def g_loss(self, micro):
        vectors = micro.real.to(self.dtype), self.G(self.noise(micro, "noise/g"), micro.labels)
        with self.D.frozen() as judge:  # gradients pass through D, not into its weights
            scores = judge(torch.cat(vectors), micro.labels.repeat(2))
        return api.g_relativistic(*scores.chunk(2)), {}

    def noise(self, micro, purpose):  # [n, latent], by place in the run: alike on all processes
        return micro.noise(self.run.seed, purpose, self.run.latent, self.run.batch).to(self.dtype)

    def classes_of(self, numbers, purpose="noise/sample"):  # [n], as often as in training
        return self.labels.draw(self.run.seed, purpose, numbers, "training")

    def sample(self, numbers, purpose="noise/sample", classes=None):  # i: by seed and i alone
        classes = self.classes_of(numbers, purpose) if classes is None else classes
        noise = self.run.seed, purpose, self.run.latent
        return api.sample_from_noise(self.G, numbers, *noise, classes)

    def show(self, data, path):  # samples, the same ones each time, over held-out vectors
        reals = next(data.chunks(data.validation, 1000))
        api.scatter(path, reals, self.sample(np.arange(len(reals)), "noise/grid").float().cpu())
