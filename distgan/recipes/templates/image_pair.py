"""A GAN of your own that turns one image into another. docs/your-own-gan.md explains it."""

from functools import partial
from itertools import pairwise

import torch
from torch import nn

from distgan import api


class Settings(api.Run):  # each is `name=value` on the command line; another value is another run
    kind = "image_pair"  # of sample in the data: input and target
    judged_by = "valid/l1"  # |output - target| of held-out pairs finds the best checkpoint
    batch: int = api.Field(8, gt=0, description="pairs of an update, over all processes")
    epochs: api.Positive = api.Field(100, description="how far to train; more continues the run")
    width: int = api.Field(16, gt=0, multiple_of=4, description="channels at half the size")
    lambda_l1: float = api.Field(100.0, ge=0, description="weight of |output - target|")
    hflip: api.Fraction = api.Field(0.5, description="chance of a mirror image, of both alike")
    g_lr: api.Positive = api.Field(2e-4, description="Adam learning rate of the generator")
    d_lr: api.Positive = api.Field(2e-4, description="Adam learning rate of the discriminator")
    watch: api.Watch = api.Watch(unbounded=True, floored=True)  # what the monitor expects of hinge


class Beside(nn.Sequential):  # x beside what the layers make of it
    def forward(self, x):
        return torch.cat([x, super().forward(x)], 1)


def unet(before, width, *rest):  # [n, before, h, w] -> [n, before + width, h, w]
    inner = [unet(width, *rest)] if rest else []
    up = nn.Conv2d(width + sum(rest[:1]), width, 3, 1, 1, bias=False)
    down = nn.Conv2d(before, width, 4, 2, 1)
    norm = nn.GroupNorm(4, width)
    return Beside(down, nn.SiLU(), *inner, up, norm, nn.SiLU(), nn.Upsample(scale_factor=2))


def critic(channels, widths):  # input beside target or output -> scores of patches
    convs = [nn.Conv2d(a, b, 4, 2, 1) for a, b in pairwise([2 * channels, *widths])]
    layers = [layer for conv in convs for layer in (api.spectral_norm(conv), nn.CELU(0.05))]
    return nn.Sequential(*layers, api.spectral_norm(nn.Conv2d(widths[-1], 1, 3, 1, 1, bias=False)))


class Recipe:  # the networks, and how they are trained against each other
    def __init__(self, run, ranks, layout, shape):
        self.run, self.dtype, (_, channels, *size) = run, ranks.dtype, shape
        if any(side % 8 for side in size):  # the networks halve three times
            raise api.ConfigError(f"data: {size[1]}x{size[0]} pixels; shard them with --size 64")
        widths = [run.width * 2**i for i in range(3)]
        adam = partial(torch.optim.Adam, betas=(0.5, 0.9))
        last = nn.Conv2d(channels + widths[0], channels, 3, 1, 1)
        G, D = nn.Sequential(unet(channels, *widths), last, nn.Tanh()), critic(channels, widths)
        self.G = api.Player(ranks, G, partial(adam, lr=run.g_lr), ema=0.99)  # averages its weights
        self.D = api.Player(ranks, D, partial(adam, lr=run.d_lr))
        self.players = {"G": self.G, "D": self.D}  # all that a checkpoint keeps

    def step(self, batches, now):  # one update of each; returns the numbers of the journal
        d = self.D.update(self.d_loss, batches[0], now.epoch)
        return api.step_log(d=d, g=self.G.update(self.g_loss, batches[0], now.epoch))

    def pair(self, micro):  # micro.real is [n, 2, channels, h, w]: input and target
        pairs = api.to_unit(micro.real, self.dtype)
        return api.flip(pairs, self.run.seed, micro.address, self.run.hflip, 0.0).unbind(1)

    def d_loss(self, micro):  # of this process' share of a batch: a mean, and numbers to log
        given, target = self.pair(micro)
        both = [torch.cat([given, x], 1) for x in (target, self.G.generate(given))]
        real, fake = self.D(torch.cat(both)).chunk(2)
        return api.d_hinge(real, fake), {"real_score": real.mean(), "fake_score": fake.mean()}

    def g_loss(self, micro):
        given, target = self.pair(micro)
        output = self.G(given)
        with self.D.frozen() as judge:  # gradients pass through D, not into its weights
            adversarial = api.g_hinge(judge(torch.cat([given, output], 1)))
        l1 = (output - target).abs().mean()
        return adversarial + self.run.lambda_l1 * l1, {"adversarial": adversarial, "l1": l1}

    def repairer(self):  # validates and generates: images [n, channels, h, w] -> the same
        return lambda x: api.repair(self.G, x)
