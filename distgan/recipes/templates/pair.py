"""A GAN of your own that turns one signal into another. docs/your-own-gan.md explains it."""

from functools import partial

import torch
from torch import nn

from distgan import api


class Settings(api.Run):  # each is `name=value` on the command line; another value is another run
    kind = "pair"  # of sample in the data
    judged_by = "valid/l1"  # |output - target| of held-out pairs finds the best checkpoint
    batch: int = api.Field(8, gt=0, description="pairs of an update, over all processes")
    epochs: api.Positive = api.Field(20, description="how far to train; more continues the run")
    validate_every: api.Positive = api.Field(1, description="epochs between two validations")
    segment: int | None = api.Field(None, gt=0, description="frames of training windows, or null")
    gain: api.Positive = api.Field(8.0, description="factor that brings the signals near 1")
    width: int = api.Field(32, gt=0, description="channels of both networks")
    lambda_l1: float = api.Field(10.0, ge=0, description="weight of |output - target|")
    g_lr: api.Positive = api.Field(4e-4, description="Adam learning rate of the generator")
    d_lr: api.Positive = api.Field(2e-4, description="Adam learning rate of the discriminator")
    watch: api.Watch = api.Watch(unbounded=True, floored=True)  # what the monitor expects of hinge

    @property
    def crop(self):  # frames of training windows: clips of unequal length need it
        return self.segment


def generator(width):  # input [n, 1, frames] -> output [n, 1, frames], of any length
    layers = [nn.Conv1d(1, width, 7, padding=3)]
    for i in range(6):  # in the end an output sees 200 frames on each side
        layers += [nn.SiLU(), nn.Conv1d(width, width, 7, 1, 3 * 2**i, 2**i)]
    return nn.Sequential(*layers, nn.SiLU(), nn.Conv1d(width, 1, 7, padding=3))


def discriminator(width):  # input beside target or output, [n, 2, frames] -> scores [n, 1, pieces]
    layers = [nn.Conv1d(2, width, 8, 2, 4)]
    for _ in range(2):  # half as many frames each
        layers += [nn.CELU(0.05), api.spectral_norm(nn.Conv1d(width, width, 8, 2, 4))]
    return nn.Sequential(*layers, nn.CELU(0.05), nn.Conv1d(width, 1, 3, padding=1, bias=False))


class Recipe:  # the networks, and how they are trained against each other
    def __init__(self, run, ranks, layout, shape):
        self.run, self.dtype, adam = run, ranks.dtype, partial(torch.optim.Adam, betas=(0.5, 0.9))
        self.G = api.Player(ranks, generator(run.width), partial(adam, lr=run.g_lr), ema=0.99)
        self.D = api.Player(ranks, discriminator(run.width), partial(adam, lr=run.d_lr))
        self.players = {"G": self.G, "D": self.D}  # all that a checkpoint keeps

    def step(self, batches, now):  # one update of each; returns the numbers of the journal
        d = self.D.update(self.d_loss, batches[0], now.epoch)
        return api.step_log(d=d, g=self.G.update(self.g_loss, batches[0], now.epoch))

    def d_loss(self, micro):  # of this process' share of a batch: a mean, and numbers to log
        given, target = (api.to_waves(micro.real, self.dtype) * self.run.gain).chunk(2, 1)
        both = [torch.cat([given, x], 1) for x in (target, self.G.generate(given))]
        real, fake = self.D(torch.cat(both)).chunk(2)
        return api.d_hinge(real, fake), {"real_score": real.mean(), "fake_score": fake.mean()}

    def g_loss(self, micro):
        given, target = (api.to_waves(micro.real, self.dtype) * self.run.gain).chunk(2, 1)
        output = self.G(given)
        with self.D.frozen() as judge:  # gradients pass through D, not into its weights
            adversarial = api.g_hinge(judge(torch.cat([given, output], 1)))
        l1 = (output - target).abs().mean()
        return adversarial + self.run.lambda_l1 * l1, {"adversarial": adversarial, "l1": l1}

    def repairer(self):  # what validates, generates and evaluates: signals [n, frames] -> the same
        return lambda x: api.repair(self.G, x * self.run.gain) / self.run.gain
