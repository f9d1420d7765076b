"""A look-alike of Oxford 102 Flowers in the official layout, drawn with NumPy: a species fixes
petals, shape and hue, every image differs.

python tests/programs/flowers.py FOLDER [SPECIES [OF EACH]]
"""

import sys
import tarfile
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.io import savemat


def flower(
    rng: np.random.Generator, species: int, height: int = 60, width: int = 80
) -> Image.Image:
    """One flower on a leafy background."""
    kind = np.random.default_rng(species)
    petals, sharpness, hue, core = (
        kind.integers(4, 15),
        kind.uniform(0.3, 2.5),
        kind.uniform(-0.45, 0.17),
        kind.uniform(0.12, 0.35),
    )
    down, right = np.mgrid[:height, :width].astype(float)
    leaves = Image.fromarray(rng.uniform(20, 110, (height // 10, width // 10)).astype(np.float32))
    image = (
        colour(rng.uniform(0.22, 0.38), 0.7)
        * np.asarray(leaves.resize((width, height), Image.Resampling.BICUBIC))[..., None]
    )
    x, y = right - width * rng.uniform(0.35, 0.65), down - height * rng.uniform(0.35, 0.65)
    radius, angle = np.hypot(x, y), np.arctan2(y, x) + rng.uniform(0, 7)
    edge = (
        height
        * rng.uniform(0.3, 0.48)
        * (0.45 + 0.55 * np.abs(np.cos(petals * angle / 2)) ** sharpness)
    )
    for inside, part in (
        (edge - radius, colour(hue % 1, 0.8)),
        (core * height * 0.3 - radius, colour(0.13, 0.9)),
    ):
        share = np.clip(inside / 1.5, 0, 1)[..., None]
        image = (
            image * (1 - share)
            + share * part * (150 + 90 * np.clip(radius / edge, 0, 1))[..., None]
        )
    return Image.fromarray(
        np.clip(image + 2 * rng.standard_normal(image.shape), 0, 255).astype(np.uint8)
    )


def colour(hue: float, saturation: float) -> np.ndarray:
    """Red, green, blue in 0..1 at full value."""
    place = (np.array([5, 3, 1]) + hue * 6) % 6
    return 1 - saturation * np.clip(np.minimum(place, 4 - place), 0, 1)


def look_alike(root: Path, species: int = 12, each: int = 4) -> Path:
    """root/flowers-102/{102flowers.tgz, jpg/, imagelabels.mat, setid.mat}.

    Of each species one image for train, one for val, the rest for test.
    """
    folder = root / "flowers-102"
    (folder / "jpg").mkdir(parents=True)
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(1, species + 1), each))
    sets: dict[str, list[int]] = {"trnid": [], "valid": [], "tstid": []}
    for number, label in enumerate(labels, 1):
        flower(np.random.default_rng([1, number]), label).save(
            folder / f"jpg/image_{number:05d}.jpg", quality=92
        )
        before = int((labels[: number - 1] == label).sum())
        sets[("trnid", "valid", "tstid")[min(before, 2)]].append(number)
    savemat(folder / "imagelabels.mat", {"labels": labels[None].astype(np.uint8)})
    savemat(
        folder / "setid.mat",
        {name: np.array([numbers], np.uint16) for name, numbers in sets.items()},
    )
    with tarfile.open(folder / "102flowers.tgz", "w:gz") as archive:
        archive.add(folder / "jpg", "jpg")
    return folder


if __name__ == "__main__":
    print(look_alike(Path(sys.argv[1]), *map(int, sys.argv[2:])))
