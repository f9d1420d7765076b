"""A conditional DCGAN (Radford et al. 2016) on labelled images of 32 x 32 pixels.

    distgan shard shapes data/shapes --n 3000
    python examples/conditional_dcgan.py data/shapes shape [RUN]      a minute on one core

Its arguments are data, such as those of `distgan shard images OUT --from PHOTOS --size 32 --labels
folders`, and the column of labels that the networks are given. It prints

    a row for each of 10 classes: runs/dcgan/classes.png
    frechet_standin 2.6; of real images against others 0.64
"""

import sys
from functools import partial
from itertools import pairwise

import torch
from torch import nn

import distgan
from distgan import api


class Generator(nn.Module):
    # noise [n, latent] and classes [n] -> images [n, channels, 32, 32] in [-1, 1]
    def __init__(self, latent, width, channels, classes, norm):
        super().__init__()
        self.vectors = nn.Embedding(classes, latent)
        nn.init.normal_(self.vectors.weight, std=0.3)  # more than the noise, and it is ignored
        widths = [2 * latent, 4 * width, 2 * width, width]
        layers = [nn.Unflatten(1, (2 * latent, 1, 1))]
        for i, (a, b) in enumerate(pairwise(widths)):  # to 4x4, 8x8, 16x16
            up = nn.ConvTranspose2d(a, b, 4, 2 if i else 1, 1 if i else 0, bias=False)
            layers += [up, norm(b), nn.ReLU()]
        self.net = nn.Sequential(*layers, nn.ConvTranspose2d(width, channels, 4, 2, 1), nn.Tanh())

    def forward(self, noise, classes):
        return self.net(torch.cat([noise, self.vectors(classes)], 1))


class Discriminator(nn.Module):
    # images and classes -> scores [n], by the projection of Miyato and Koyama (2018)
    def __init__(self, width, channels, classes):
        super().__init__()
        sizes = [(channels, width), (width, 2 * width), (2 * width, 4 * width)]
        convs = [api.spectral_norm(nn.Conv2d(a, b, 4, 2, 1)) for a, b in sizes]
        self.net = nn.Sequential(*(part for conv in convs for part in (conv, nn.CELU(0.1))))
        self.score = api.spectral_norm(nn.Linear(4 * width, 1))
        self.vectors = api.spectral_norm(nn.Embedding(classes, 4 * width))

    def forward(self, images, classes):
        features = self.net(images).sum((2, 3))
        return self.score(features)[:, 0] + (self.vectors(classes) * features).sum(1)


class DCGAN:
    class Settings(api.Run):
        label: str = ""  # the column of labels; "": the only one
        batch: int = 32
        epochs: api.Positive = 12  # a beginning; 100 look better
        latent: int = 64
        width: int = 24
        lr: api.Positive = 5e-4
        evaluate: api.Evaluate = api.Evaluate()
        watch: api.Watch = api.Watch(unbounded=True, floored=True)

        label_column = property(lambda self: self.label)
        group = property(lambda self: 16)  # samples that share batch-norm statistics, anywhere

    def __init__(self, run, ranks, layout, shape, labels):
        self.run, self.dtype, self.labels, (channels, *size) = run, ranks.dtype, labels, shape
        if size != [32, 32]:
            raise api.ConfigError(f"data: images of {size[1]}x{size[0]}; shard them with --size 32")
        norm = partial(api.GroupBatchNorm2d, group=layout.group, ranks=ranks)
        G = Generator(run.latent, run.width, channels, len(labels), norm)
        D = Discriminator(run.width, channels, len(labels))
        adam = partial(torch.optim.Adam, lr=run.lr, betas=(0.0, 0.9))
        self.G = api.Player(ranks, G, adam, ema=0.995)
        self.D = api.Player(ranks, D, adam)
        self.players = {"G": self.G, "D": self.D}

    def step(self, batches, now):
        d = self.D.update(self.d_loss, batches[0], now.epoch)
        return api.step_log(d=d, g=self.G.update(self.g_loss, batches[0], now.epoch))

    def fakes(self, network, micro, purpose):
        noise = micro.noise(self.run.seed, purpose, self.run.latent, self.run.batch)
        return network(noise.to(self.dtype), micro.labels)

    def d_loss(self, micro):
        images = api.to_unit(micro.real, self.dtype), self.fakes(self.G.generate, micro, "noise/d")
        real, fake = self.D(torch.cat(images), micro.labels.repeat(2)).chunk(2)
        return api.d_hinge(real, fake), {"real_score": real.mean(), "fake_score": fake.mean()}

    def g_loss(self, micro):
        with self.D.frozen() as judge:
            return api.g_hinge(judge(self.fakes(self.G, micro, "noise/g"), micro.labels)), {}

    def classes_of(self, numbers, purpose="noise/sample"):
        return self.labels.draw(self.run.seed, purpose, numbers, "training")

    def sample(self, numbers, purpose="noise/sample", classes=None):
        given = self.classes_of(numbers, purpose) if classes is None else classes
        run = self.run
        return api.sample_from_noise(self.G, numbers, run.seed, purpose, run.latent, given)


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    data, column, folder = [*sys.argv[1:3], *sys.argv[3:], "runs/dcgan"][:3]
    run = distgan.train(DCGAN, data=data, label=column, machine={"folder": folder})
    rows = torch.cat([run.sample(8, classes=name) for name in run.classes])
    api.save_grid(run.folder / "classes.png", rows)
    scores = run.evaluate(n=500)
    floor = scores["floor"]["real"]["score"]
    print(f"a row for each of {len(run.classes)} classes: {run.folder / 'classes.png'}")
    print(f"{scores['metric']} {scores['score']:.3g}; of real images against others {floor:.3g}")
