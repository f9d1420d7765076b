"""A GAN of your own: square images from noise, hinge loss. docs/your-own-gan.md explains it."""

from functools import partial

import torch
from torch import nn

from distgan import api


class Settings(api.Run):
    """Each is `name=value` on the command line. `batch` is that of all processes together."""

    batch: int = api.Field(16, gt=0)
    epochs: api.Positive = 20
    latent: int = api.Field(64, gt=0)
    width: int = api.Field(32, gt=0, multiple_of=4)
    g_lr: api.Positive = 2e-4
    d_lr: api.Positive = 2e-4
    evaluate: api.Evaluate = api.Evaluate()  # samples get a Fréchet distance
    watch: api.Watch = api.Watch(unbounded=True, floored=True)  # of a hinge loss


def generator(latent, width, channels, size):
    """[n, latent] -> [n, channels, size, size]. BatchNorm2d would make samples depend on ranks."""
    layers = [nn.Unflatten(1, (latent, 1, 1)), nn.ConvTranspose2d(latent, width, 4), nn.ReLU()]
    for _ in range(size.bit_length() - 3):  # from 4x4, doubled up to size
        layers += [nn.Upsample(scale_factor=2), nn.Conv2d(width, width, 3, padding=1)]
        layers += [nn.GroupNorm(4, width), nn.ReLU()]
    return nn.Sequential(*layers, nn.Conv2d(width, channels, 3, padding=1), nn.Tanh())


def discriminator(width, channels, size):
    """[n, channels, size, size] -> [n, 1, 1, 1]"""
    layers = [nn.Conv2d(channels, width, 3, padding=1)]
    for _ in range(size.bit_length() - 3):  # halved down to 4x4
        layers += [nn.LeakyReLU(0.2), api.spectral_norm(nn.Conv2d(width, width, 4, 2, 1))]
    return nn.Sequential(*layers, nn.LeakyReLU(0.2), api.spectral_norm(nn.Conv2d(width, 1, 4)))


class Recipe:
    def __init__(self, run, ranks, layout, shape):
        self.run, self.dtype, (channels, size, _) = run, ranks.dtype, shape
        adam = partial(torch.optim.Adam, betas=(0.0, 0.9))
        G = generator(run.latent, run.width, channels, size)
        D = discriminator(run.width, channels, size)
        self.G = api.Player(ranks, G, partial(adam, lr=run.g_lr), ema=0.999)
        self.D = api.Player(ranks, D, partial(adam, lr=run.d_lr))
        self.players = {"G": self.G, "D": self.D}

    def step(self, batches, now):  # returns the numbers of the journal
        d = self.D.update(self.d_loss, batches[0], now.epoch)
        return api.step_log(d=d, g=self.G.update(self.g_loss, batches[0], now.epoch))

    def d_loss(self, micro):
        fake = self.G.generate(self.noise(micro, "noise/d"))  # no gradients for G
        real = api.to_unit(micro.real, self.dtype)  # [n, channels, size, size] in [-1, 1]
        real, fake = self.D(torch.cat([real, fake])).chunk(2)
        return api.d_hinge(real, fake), {"real_score": real.mean(), "fake_score": fake.mean()}

    def g_loss(self, micro):
        with self.D.frozen() as judge:  # gradients pass through D, not into its weights
            return api.g_hinge(judge(self.G(self.noise(micro, "noise/g")))), {}

    def noise(self, micro, purpose):  # [n, latent], from the samples' places in the run
        return micro.noise(self.run.seed, purpose, self.run.latent, self.run.batch).to(self.dtype)

    def sample(self, numbers, purpose="noise/sample"):  # image i depends on the seed and i alone
        return api.sample_from_noise(self.G, numbers, self.run.seed, purpose, self.run.latent)
