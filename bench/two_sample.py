"""Can a small network tell samples from real images? python -m bench.two_sample REALS FAKES …

A classifier two-sample test (Lopez-Paz and Oquab 2017). REALS and each of FAKES: a data set of
shards or a folder of images of one size. Half of n images of each train the classifier, the others
test it. The network: four convolutions 3 x 3 of 32, 64, 128 and 128 channels with batch norm, leaky
ReLU and average pooling by 2, mean and maximum over positions, one linear layer; Adam, 1e-3 falling
to 0 by a cosine, 30 epochs in batches of 64, horizontal flips, cross-entropy. The figure: the area
under the ROC curve on the test halves, as mean and range over seeds, each with halves of its own:
0.5 where no difference is seen, 1 where every image is recognised. The control: n other real images
in place of samples.
"""

import argparse
import math

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from distgan.evaluation.sets.arrays import ArrayVectors
from distgan.evaluation.sets.image_set import drawn
from distgan.evaluation.sets.opening import open_set

WIDTHS = (32, 64, 128, 128)
EPOCHS, BATCH, RATE = 30, 64, 1e-3


def images(name: str, n: int, skip: int = 0) -> torch.Tensor | None:
    """Return n images in [-1, 1] of a set, a seeded draw, or None if there are too few."""
    found = open_set(name)
    if isinstance(found, ArrayVectors):
        raise SystemExit(f"{name}: vectors, images are needed")
    if len(found) < n + skip:
        return None
    pixels = found.decode(drawn(len(found), n + skip, seed=0)[skip:].tolist())
    return pixels.expand(-1, 3, -1, -1).float() / 127.5 - 1


class Classifier(nn.Module):
    """Return a logit for each image of [n, 3, height, width]."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for before, after in zip((3, *WIDTHS), WIDTHS, strict=False):
            layers += [nn.Conv2d(before, after, 3, 1, 1), nn.BatchNorm2d(after)]
            layers += [nn.LeakyReLU(0.2), nn.AvgPool2d(2)]
        self.body = nn.Sequential(*layers)
        self.head = nn.Linear(2 * WIDTHS[-1], 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        maps = self.body(x)
        return self.head(torch.cat((maps.mean((2, 3)), maps.amax((2, 3))), 1))[:, 0]


def area(real: np.ndarray, fake: np.ndarray) -> float:
    """Return the area under the ROC curve: how often a real image has the larger score."""
    order = np.sort(fake)
    below = np.searchsorted(order, real, "left") + np.searchsorted(order, real, "right")
    return float(below.mean() / (2 * len(fake)))


def tell_apart(real: torch.Tensor, fake: torch.Tensor, seed: int) -> float:
    """Return the area under the ROC curve on the halves that were not trained on."""
    torch.manual_seed(seed)
    halves = [
        part[torch.randperm(len(part))].split(math.ceil(len(part) / 2)) for part in (real, fake)
    ]
    (real_train, real_test), (fake_train, fake_test) = halves
    x = torch.cat((real_train, fake_train))
    y = torch.cat((torch.ones(len(real_train)), torch.zeros(len(fake_train))))
    net, steps = Classifier(), EPOCHS * (len(x) // BATCH)
    optimizer = torch.optim.Adam(net.parameters(), lr=RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(EPOCHS):
        for batch in torch.randperm(len(x))[: len(x) // BATCH * BATCH].split(BATCH):
            seen = x[batch]
            flip = torch.rand(len(seen)) < 0.5
            seen[flip] = seen[flip].flip(3)
            optimizer.zero_grad()
            functional.binary_cross_entropy_with_logits(net(seen), y[batch]).backward()
            optimizer.step()
            schedule.step()
    net.eval()
    with torch.no_grad():
        scores = [torch.cat([net(b) for b in t.split(256)]).numpy() for t in (real_test, fake_test)]
    return area(*scores)


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench.two_sample", description=__doc__)
    parser.add_argument("real")
    parser.add_argument("fake", nargs="+")
    parser.add_argument("--n", type=int, default=1000)
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    real = images(options.real, options.n)
    if real is None:
        raise SystemExit(f"{options.real}: fewer than {options.n} images")
    sets = {"control": images(options.real, options.n, skip=options.n)}
    sets |= {name: images(name, options.n) for name in options.fake}
    for name, other in sets.items():
        if other is None:
            wanted = 2 * options.n if name == "control" else options.n
            print(f"{name}: fewer than {wanted} images")
            continue
        areas = [tell_apart(real, other, seed) for seed in range(options.seeds)]
        spread = f"{min(areas):.3f} to {max(areas):.3f}, {len(areas)} seeds"
        print(f"{name}: {np.mean(areas):.3f} ({spread})", flush=True)


if __name__ == "__main__":
    main()
