"""Which faults of images a score sees: python -m bench.degradations [--extractors lite0,standin]

For each set of real images and each feature extractor: n images with a fault against n others
without, as deviations from n faultless ones against the same n. The figure is the difference of the
mean kernel (or Fréchet) distances over DRAWS disjoint draws, divided by its standard deviation over
them: above 3 a fault is seen. `copies`: n/2 of the images are the reals themselves; the column has
`nearest`, 1 for unseen images. Photographs are patches of those that scikit-image and scikit-learn
ship (`pip install scikit-image scikit-learn`); `particles` and `shapes` are the project's own sets.
"""

import argparse
import functools
import io
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageFilter

from bench import weights
from distgan.data.dataset import Data
from distgan.evaluation.features.choice import Choice
from distgan.metrics import frechet, kernel, manifold

SIDE = 64
PHOTOGRAPHS = {
    "skimage": ("astronaut.png", "chelsea.png", "coffee.png", "motorcycle_left.png", "rocket.jpg"),
    "sklearn": ("china.jpg", "flower.jpg"),
}
Fault = Callable[[np.ndarray, np.random.Generator], np.ndarray]


# ---- faults: uint8 [height, width, 3] -> the same
def _noise(sd: float, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return (image + rng.normal(0, sd, image.shape)).round().clip(0, 255).astype(np.uint8)


def _jpeg(quality: int, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file))


def _blur(sigma: float, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return np.asarray(Image.fromarray(image).filter(ImageFilter.GaussianBlur(sigma)))


def _shuffled(parts: int, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Exchange the tiles of a grid of parts x parts."""
    h, w = (side // parts for side in image.shape[:2])
    tiles = image.reshape(parts, h, parts, w, 3).swapaxes(1, 2).reshape(parts**2, h, w, 3)
    order = np.arange(parts**2)
    while (order == np.arange(parts**2)).all():
        order = rng.permutation(parts**2)
    return tiles[order].reshape(parts, parts, h, w, 3).swapaxes(1, 2).reshape(image.shape)


def _paler(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return (128 + 0.8 * (image - 128.0)).round().astype(np.uint8)


def _none(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return image


FAULTS: dict[str, Fault] = {
    "noise, sd 8": functools.partial(_noise, 8),
    "noise, sd 30": functools.partial(_noise, 30),
    "JPEG 75": functools.partial(_jpeg, 75),
    "JPEG 20": functools.partial(_jpeg, 20),
    "blur, sigma 1": functools.partial(_blur, 1),
    "blur, sigma 3": functools.partial(_blur, 3),
    "quarters shuffled": functools.partial(_shuffled, 2),
    "8 x 8 tiles shuffled": functools.partial(_shuffled, 8),
    "contrast 0.8": _paler,
}


# ---- sets: images [n, height, width, 3] and their groups [n], modes that a generator can lose
def photographs(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return patches of 64 x 64, of squares of 64 to 192 pixels of photographs."""
    photos = []
    for package, names in PHOTOGRAPHS.items():
        spec = find_spec(package)
        if spec is None or spec.origin is None:
            raise SystemExit("pip install scikit-image scikit-learn: their photographs are needed")
        folder = "data" if package == "skimage" else "datasets/images"
        photos += [Image.open(Path(spec.origin).parent / folder / name) for name in names]
    rng = np.random.default_rng(seed)
    images, groups = [], rng.integers(0, len(photos), n)
    for group in groups:
        photo = photos[group].convert("RGB")
        side = int(rng.integers(SIDE, 192))
        x, y = (int(rng.integers(0, size - side + 1)) for size in photo.size)
        box = (x, y, x + side, y + side)
        images.append(np.asarray(photo.resize((SIDE, SIDE), Image.Resampling.BOX, box=box)))
    return np.stack(images), groups


def drawn(source: str, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Return images of one of the project's own sources, grouped by colour or brightness."""
    with tempfile.TemporaryDirectory() as folder:
        options = [f"{folder}/set", "--n", str(n), "--validation", "0.01"]
        line = [sys.executable, "-m", "distgan", "shard", source, *options]
        subprocess.run(line, check=True, stdout=subprocess.DEVNULL)
        data = Data(f"{folder}/set")
        images = data.resident(data.train, "images").permute(0, 2, 3, 1).expand(-1, -1, -1, 3)
    images = images.numpy().copy()
    bright = images.mean((1, 2, 3))
    return images, (bright > np.median(bright)).astype(int)


# ---- scores
def extractors(names: list[str]) -> Iterator[tuple[str, torch.nn.Module]]:
    for name in names:
        if name == "inception":
            with tempfile.TemporaryDirectory() as folder:
                file = Path(folder) / "weights.pth"
                digest = weights.write(file)
                yield (
                    "inception (seeded weights)",
                    Choice(inception=str(file), sha256=digest).build(),
                )
        else:
            yield name, Choice(name).build()


@torch.no_grad()
def features(extract: torch.nn.Module, images: np.ndarray) -> torch.Tensor:
    batches = torch.from_numpy(images).permute(0, 3, 1, 2).split(16)
    return torch.cat([extract(batch) for batch in batches])


def table(
    extract: torch.nn.Module, images: np.ndarray, groups: np.ndarray, n: int, draws: int
) -> dict[str, tuple[float, float, float]]:
    """Return {fault: (deviations of the kernel distance, of the Fréchet distance, `nearest`)}."""
    plain = features(extract, images)
    halves = [(2 * i * n, (2 * i + 1) * n, (2 * i + 2) * n) for i in range(draws)]
    rng = np.random.default_rng(1)
    kept = np.unique(groups)[::2]  # half of the modes

    def fakes(name: str, middle: int, end: int, start: int) -> torch.Tensor:
        if name == "half of the modes":
            some = plain[middle:end][torch.from_numpy(np.isin(groups[middle:end], kept))]
            return some.repeat(3, 1)[:n] if len(some) * 3 >= n else some
        if name == "copies":
            return torch.cat([plain[start : start + n // 2], plain[middle : middle + n - n // 2]])
        fault = FAULTS.get(name, _none)
        return features(extract, np.stack([fault(one, rng) for one in images[middle:end]]))

    found = {}
    for name in ("none", *FAULTS, "half of the modes", "copies"):
        values = []
        for start, middle, end in halves:
            reals = plain[start:middle]
            some = plain[middle:end] if name == "none" else fakes(name, middle, end, start)
            near = manifold.nearest(some, reals, plain[middle:end])
            values.append((kernel.distance(reals, some).value, frechet.distance(reals, some), near))
        found[name] = np.array(values)
    null = found.pop("none")
    result = {}
    for name, values in found.items():
        deviation = np.sqrt(values[:, :2].var(0, ddof=1) + null[:, :2].var(0, ddof=1))
        seen = (values[:, :2].mean(0) - null[:, :2].mean(0)) / deviation
        result[name] = (float(seen[0]), float(seen[1]), float(np.median(values[:, 2])))
    return result


def main() -> None:
    parser = argparse.ArgumentParser("python -m bench.degradations", description=__doc__)
    parser.add_argument("--extractors", default="lite0,standin,inception")
    parser.add_argument("--sets", default="photographs,particles,shapes")
    parser.add_argument("--n", type=int, default=300)
    parser.add_argument("--draws", type=int, default=4)
    args = parser.parse_args()
    torch.set_num_threads(1)
    for name in args.sets.split(","):
        count = 2 * args.n * args.draws
        images, groups = (
            photographs(count) if name == "photographs" else drawn(name, int(count * 1.02) + 2)
        )
        for label, extract in extractors(args.extractors.split(",")):
            print(f"\n{name}, n = {args.n}, {label}: deviations from faultless images", flush=True)
            print(f"| {'fault':22} | {'kernel':>8} | {'Fréchet':>8} | {'nearest':>8} |")
            for fault, row in table(extract, images, groups, args.n, args.draws).items():
                print(f"| {fault:22} | {row[0]:8.1f} | {row[1]:8.1f} | {row[2]:8.2f} |", flush=True)


if __name__ == "__main__":
    main()
