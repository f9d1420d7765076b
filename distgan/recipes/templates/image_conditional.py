"""A GAN of your own that draws images of classes. docs/your-own-gan.md explains it."""

from functools import partial
from itertools import pairwise

import torch
from torch import nn

from distgan import api


class Settings(api.Run):  # each is `name=value` on the command line; another value is another run
    batch: int = api.Field(16, gt=0, description="images of an update, over all processes")
    epochs: api.Positive = api.Field(60, description="how far to train; more continues the run")
    label: str = api.Field("", description="column of labels; empty for the only one there is")
    latent: int = api.Field(64, gt=0, description="size of the noise, and of a class's vector")
    width: int = api.Field(16, gt=0, multiple_of=4, description="channels at the full size")
    g_lr: api.Positive = api.Field(2e-4, description="Adam learning rate of the generator")
    d_lr: api.Positive = api.Field(4e-4, description="Adam learning rate of the discriminator")
    evaluate: api.Evaluate = api.Evaluate()  # samples get a Fréchet distance
    watch: api.Watch = api.Watch(unbounded=True, floored=True)  # what the monitor expects of hinge

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


def generator(latent, widths, channels):  # noise [n, latent] -> images [n, channels, size, size]
    layers = [nn.Unflatten(1, (latent, 1, 1)), nn.ConvTranspose2d(latent, widths[0], 4)]
    for before, after in pairwise([*widths, widths[-1]]):  # twice the size each
        layers += [nn.GroupNorm(4, before), nn.SiLU(), nn.Upsample(scale_factor=2)]
        layers += [nn.Conv2d(before, after, 3, padding=1)]
    layers += [nn.GroupNorm(4, widths[-1]), nn.SiLU(), nn.Conv2d(widths[-1], channels, 3, 1, 1)]
    return nn.Sequential(*layers, nn.Tanh())


def discriminator(widths, channels, classes):  # images [n, channels, size, size] -> scores [n]
    layers = []
    for before, after in pairwise([channels, *widths[::-1]]):  # half the size each, down to 4x4
        layers += [api.spectral_norm(nn.Conv2d(before, after, 4, 2, 1)), nn.CELU(0.05)]
    layers += [api.spectral_norm(nn.Conv2d(widths[0], classes, 4, bias=False)), nn.Flatten()]
    return ByClass(*layers)


class Recipe:  # the networks, and how they are trained against each other
    def __init__(self, run, ranks, layout, shape, labels):
        self.run, self.dtype, self.labels, (channels, size, _) = run, ranks.dtype, labels, shape
        if size < 8 or size & (size - 1):  # the networks double and halve, from and to 4x4
            raise api.ConfigError(f"data: images of {size}x{size}; shard them with --size 64")
        widths = [run.width * min(2**i, 8) for i in range(size.bit_length() - 3)][::-1]
        adam = partial(torch.optim.Adam, betas=(0.0, 0.9))
        G = OfClass(len(labels), run.latent, generator(2 * run.latent, widths, channels))
        D = discriminator(widths, channels, len(labels))
        self.G = api.Player(ranks, G, partial(adam, lr=run.g_lr), ema=0.999)  # averages its weights
        self.D = api.Player(ranks, D, partial(adam, lr=run.d_lr))
        self.players = {"G": self.G, "D": self.D}  # all that a checkpoint keeps

    def step(self, batches, now):  # one update of each; returns the numbers of the journal
        d = self.D.update(self.d_loss, batches[0], now.epoch)
        return api.step_log(d=d, g=self.G.update(self.g_loss, batches[0], now.epoch))

    def d_loss(self, micro):  # of this process' share of a batch: a mean, and numbers to log
        real = api.to_unit(micro.real, self.dtype)  # [n, channels, size, size] in [-1, 1]
        fake = self.G.generate(self.noise(micro, "noise/d"), micro.labels)  # no gradients for G
        real, fake = self.D(torch.cat([real, fake]), micro.labels.repeat(2)).chunk(2)
        return api.d_hinge(real, fake), {"real_score": real.mean(), "fake_score": fake.mean()}

    def g_loss(self, micro):
        fake = self.G(self.noise(micro, "noise/g"), micro.labels)
        with self.D.frozen() as judge:  # gradients pass through D, not into its weights
            return api.g_hinge(judge(fake, micro.labels)), {}

    def noise(self, micro, purpose):  # [n, latent], by place in the run: alike on all processes
        return micro.noise(self.run.seed, purpose, self.run.latent, self.run.batch).to(self.dtype)

    def classes_of(self, numbers, purpose="noise/sample"):  # [n], as often as in training
        return self.labels.draw(self.run.seed, purpose, numbers, "training")

    def sample(self, numbers, purpose="noise/sample", classes=None):  # i: by seed and i alone
        classes = self.classes_of(numbers, purpose) if classes is None else classes
        noise = self.run.seed, purpose, self.run.latent
        return api.sample_from_noise(self.G, numbers, *noise, classes)
