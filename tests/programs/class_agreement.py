"""Do samples of a conditional network show the class that they were drawn for?

python tests/programs/class_agreement.py DATA COLUMN SAMPLES

DATA is a labelled data set, SAMPLES a folder of `distgan generate` (images and result.csv). A small
convolutional network learns the classes of DATA's training images; its accuracy on the held-out
ones is printed beside its agreement with the classes of the samples. `diversity` is the spread of
the samples of a class (root of the variance over images, averaged over pixels) divided by that of
as many training images of it.
"""

import csv
import json
import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.nn import functional

from distgan.data.dataset import Data
from distgan.shards.format.labels import labels_of, read_labels

EPOCHS, BATCH = 12, 64


def main(folder: str, name: str, samples: str) -> None:
    torch.manual_seed(0)
    data = Data(folder)
    entry = json.loads((Path(folder) / "dataset.json").read_text())
    column = labels_of(entry, data.train.fields)[name]
    train, held_out = (
        (data.resident(split, what), torch.from_numpy(read_labels(split, column)))
        for split, what in ((data.train, "training"), (data.validation, "held-out"))
    )
    net = classifier(train[0].shape[1], len(column.names))
    learn(net, *train)
    drawn, classes = read(Path(samples), list(column.names))
    print(f"accuracy on {len(held_out[0])} held-out images: {agreement(net, *held_out):.1%}")
    print(f"agreement on {len(drawn)} samples: {agreement(net, drawn, classes):.1%}")
    ratios = []
    for i, one in enumerate(column.names):
        fake = drawn[classes == i]
        if len(fake) < 2:
            continue
        real = train[0][train[1] == i][: len(fake)]
        ratios.append(spread(fake[: len(real)]) / spread(real))
        right = agreement(net, fake, classes[classes == i])
        print(f"  {one}: {len(fake)} samples, agreement {right:.1%}, diversity {ratios[-1]:.2f}")
    print(f"diversity within classes: mean {np.mean(ratios):.2f}, least {min(ratios):.2f}")


def read(folder: Path, names: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return uint8 [n, channels, height, width] and int64 [n] of a folder of samples."""
    with open(folder / "result.csv") as file:
        rows = list(csv.DictReader(file))
    images = [np.asarray(Image.open(folder / row["file_name"]).convert("RGB")) for row in rows]
    classes = torch.tensor([names.index(row["class"]) for row in rows])
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2), classes


def classifier(channels: int, classes: int) -> nn.Module:
    layers: list[nn.Module] = []
    for before, after in ((channels, 32), (32, 64), (64, 128)):
        layers += [nn.Conv2d(before, after, 3, 1, 1), nn.BatchNorm2d(after), nn.ReLU()]
        layers += [nn.MaxPool2d(2)]
    return nn.Sequential(*layers, nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(128, classes))


def scaled(images: torch.Tensor) -> torch.Tensor:
    return images.float() / 127.5 - 1


def learn(net: nn.Module, images: torch.Tensor, classes: torch.Tensor) -> None:
    steps = EPOCHS * (len(images) // BATCH)
    optimizer = torch.optim.Adam(net.parameters(), lr=2e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=steps)
    for step in range(steps):
        if step % (len(images) // BATCH) == 0:
            order = torch.randperm(len(images))
        at = order[(step % (len(images) // BATCH)) * BATCH :][:BATCH]
        optimizer.zero_grad()
        functional.cross_entropy(net(scaled(images[at])), classes[at]).backward()
        optimizer.step()
        schedule.step()


def agreement(net: nn.Module, images: torch.Tensor, classes: torch.Tensor) -> float:
    net.eval()
    with torch.no_grad():
        said = torch.cat([net(scaled(chunk)).argmax(1) for chunk in images.split(256)])
    return float((said == classes).double().mean())


def spread(images: torch.Tensor) -> float:
    return float(scaled(images).var(0).mean().sqrt())


if __name__ == "__main__":
    main(*sys.argv[1:])
