"""From a drawing to a picture: a small pix2pix (Isola et al. 2017) on pairs of images.

    python examples/image_to_image.py [RUN]      a minute on one core

Outlines of discs, drawn as they are read, and the discs filled, the smaller the redder. Prints

    held-out pairs: mean absolute error 0.05; outlines, outputs, targets: runs/discs/pairs.png
"""

import colorsys
import sys
from functools import partial

import numpy as np
import torch
from torch import nn
from torch.nn.functional import silu

import distgan
from distgan import api


class Discs:
    # uint8 [2, 3, 32, 32]: outlines, and the filled discs
    def __init__(self, n=1000, first=0):
        self.n, self.first = n, first
        self.fingerprint = f"discs {first} to {first + n - 1}, version 1"

    validation = property(lambda self: Discs(100, first=10_000))  # what is held out

    def __len__(self):
        return self.n

    def __getitem__(self, i):
        draw = api.numpy_generator(0, "discs", self.first + i)
        y, x = np.mgrid[:32, :32]
        outline, filled = np.zeros((3, 32, 32)), np.full((3, 32, 32), 0.1)
        for _ in range(draw.integers(1, 3)):
            radius = draw.uniform(3, 10)
            down, right = draw.uniform(radius, 32 - radius, 2)
            distance = np.hypot(y - down, x - right) - radius
            outline[:, abs(distance) < 0.8] = 1
            colour = colorsys.hsv_to_rgb((radius - 3) / 10, 0.9, 0.9)
            filled[:, distance < 0] = np.array([colour]).T
        return (255 * np.stack([outline, filled])).astype(np.uint8)


class UNet(nn.Module):
    # images [n, 3, 32, 32] to images in [-1, 1], down to 4 pixels and back
    def __init__(self, width):
        super().__init__()
        down = [(3, width), (width, 2 * width), (2 * width, 4 * width)]
        up = [(4 * width, 2 * width), (4 * width, width), (2 * width, 3)]  # beside what came down
        self.down = nn.ModuleList(nn.Conv2d(a, b, 4, 2, 1) for a, b in down)
        self.up = nn.ModuleList(nn.ConvTranspose2d(a, b, 4, 2, 1) for a, b in up)
        self.last = nn.Conv2d(6, 3, 3, padding=1)

    def forward(self, x):
        kept = [x]
        for layer in self.down:
            kept.append(silu(layer(kept[-1])))
        y = kept.pop()
        for layer in self.up:
            y = torch.cat([silu(layer(y)), kept.pop()], 1)
        return self.last(y).tanh()


def critic(width):  # input beside target or output -> scores of patches
    sizes = [(6, width), (width, 2 * width), (2 * width, 1)]
    convs = [api.spectral_norm(nn.Conv2d(a, b, 4, 2, 1)) for a, b in sizes]
    return nn.Sequential(convs[0], nn.CELU(0.1), convs[1], nn.CELU(0.1), convs[2])


class Painter:
    class Settings(api.Run):
        kind = "image_pair"
        judged_by = "valid/l1"
        batch: int = 16
        epochs: api.Positive = 25
        width: int = 16
        lambda_l1: float = 100.0
        lr: float = 2e-3
        watch: api.Watch = api.Watch(unbounded=True, floored=True)

    def __init__(self, run, ranks, layout, shape):
        self.run, self.dtype = run, ranks.dtype
        adam = partial(torch.optim.Adam, lr=run.lr, betas=(0.5, 0.9))
        self.G = api.Player(ranks, UNet(run.width), adam, ema=0.99)
        self.D = api.Player(ranks, critic(run.width), adam)
        self.players = {"G": self.G, "D": self.D}

    def step(self, batches, now):
        d = self.D.update(self.d_loss, batches[0], now.epoch)
        return api.step_log(d=d, g=self.G.update(self.g_loss, batches[0], now.epoch))

    def d_loss(self, micro):
        given, target = api.to_unit(micro.real, self.dtype).unbind(1)
        both = [torch.cat([given, x], 1) for x in (target, self.G.generate(given))]
        return api.d_hinge(*self.D(torch.cat(both)).chunk(2)), {}

    def g_loss(self, micro):
        given, target = api.to_unit(micro.real, self.dtype).unbind(1)
        l1 = ((output := self.G(given)) - target).abs().mean()
        with self.D.frozen() as judge:
            adversarial = api.g_hinge(judge(torch.cat([given, output], 1)))
        return adversarial + self.run.lambda_l1 * l1, {"l1": l1}

    def repairer(self):
        return lambda x: api.repair(self.G, x)


if __name__ == "__main__":
    folder = sys.argv[1] if len(sys.argv) > 1 else "runs/discs"
    run = distgan.train(Painter, data=Discs(), machine={"folder": folder})
    pairs = torch.from_numpy(np.stack([Discs().validation[i] for i in range(8)]))
    (given, target), picture = api.to_unit(pairs).unbind(1), run.folder / "pairs.png"
    api.save_grid(picture, api.to_bytes(torch.cat([given, run.repair(given), target])))
    error = f"mean absolute error {run.best['score']:.2f}"
    print(f"held-out pairs: {error}; outlines, outputs, targets: {picture}")
