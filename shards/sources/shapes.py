"""Coloured shapes on dark grounds: labelled images of ten shapes in six colours, drawn with NumPy.

A set to try conditional networks on: each image has one shape, of a place, size, angle, shade and
ground of its own. The columns of labels are `shape` and `colour`. Image i depends on the seed and i
alone.
"""

import colorsys
import json
import math
from typing import Any

import numpy as np

from distgan.core.arguments import Arguments, whole
from distgan.core.rng import numpy_generator
from distgan.shards.codecs import image as image_codec
from distgan.shards.sources._base import SourceReport

EXAMPLES = [
    ("5,000 images of 32 x 32", "distgan shard shapes OUT"),
    ("fewer of them, and larger", "distgan shard shapes OUT --n 1000 --size 64"),
]
RECIPE = "sagan"

SHAPES = (
    "disc",
    "ring",
    "square",
    "frame",
    "triangle",
    "star",
    "plus",
    "bar",
    "crescent",
    "dots",
)
COLOURS = ("red", "yellow", "green", "cyan", "blue", "magenta")  # 60 degrees apart, from 0
SIZES = (16, 1024)
FINER = 4  # points on a side of a pixel
NOISE_LEVELS = 3.0

OPTIONS = (
    whole("n", "images, training and validation together", 2, default=5000),
    whole("size", "width and height in pixels", *SIZES, default=32),
    whole("seed", "another seed makes other images", 0, default=0),
    image_codec.PAYLOAD,
)


class Source:
    def __init__(self, args: Arguments):
        self.seed, self.size, self.payload = args.seed, args.size, args.payload
        self.options: dict[str, Any] = {
            "n": args.n,
            "size": args.size,
            "seed": args.seed,
            "payload": args.payload,
        }
        self.origin: dict[str, Any] = {}
        self.sample: dict[str, Any] = {
            "kind": "image",
            "channels": 3,
            "size": args.size,
            "field": image_codec.FIELDS[args.payload],
        }
        self.label_columns: dict[str, dict[str, Any]] = {
            column: {"field": "json", "key": column, "values": list(names), "names": list(names)}
            for column, names in (("shape", SHAPES), ("colour", COLOURS))
        }
        self.keys = [f"{i:07d}" for i in range(args.n)]

    def check(self, workers: int) -> SourceReport:
        """Return an empty report: every image is valid by construction."""
        return SourceReport()

    def group(self, i: int) -> str:
        return self.keys[i]

    def make(self, i: int) -> dict[str, Any]:
        shape, colour, pixels = picture(numpy_generator(self.seed, "shapes", i), self.size)
        field, data = image_codec.encode(pixels, self.payload)
        return {
            "__key__": self.keys[i],
            field: data,
            "json": json.dumps({"shape": shape, "colour": colour}).encode(),
        }


def picture(rng: np.random.Generator, size: int) -> tuple[str, str, np.ndarray]:
    """Draw one image: its shape, its colour, and uint8 [size, size, 3]."""
    shape, hue = SHAPES[rng.integers(len(SHAPES))], int(rng.integers(len(COLOURS)))
    radius = rng.uniform(0.24, 0.4)
    x, y = rng.uniform(radius, 1 - radius, 2)
    angle = rng.uniform(-math.pi / 8, math.pi / 8)
    inside = _coverage(shape, size, x, y, radius, angle)[..., None]
    ink = np.array(
        colorsys.hsv_to_rgb(
            (hue / 6 + rng.uniform(-0.03, 0.03)) % 1, rng.uniform(0.6, 1), rng.uniform(0.7, 1)
        )
    )
    down, right = np.mgrid[:size, :size] / size - 0.5
    slope = rng.uniform(-0.15, 0.15, (2, 3))
    ground = rng.uniform(0.1, 0.3, 3) + down[..., None] * slope[0] + right[..., None] * slope[1]
    levels = 255 * (inside * ink + (1 - inside) * ground)
    levels = levels + NOISE_LEVELS * rng.standard_normal(levels.shape)
    return shape, COLOURS[hue], np.clip(np.rint(levels), 0, 255).astype(np.uint8)


def _coverage(shape: str, size: int, x: float, y: float, radius: float, angle: float) -> np.ndarray:
    """Return the share of each pixel that the shape covers: [size, size] in [0, 1].

    x, y and radius are relative to the size, the angle is in rad.
    """
    places = (np.arange(size * FINER) + 0.5) / (size * FINER)
    down, right = (places[:, None] - y) / radius, (places[None] - x) / radius
    u = right * math.cos(angle) + down * math.sin(angle)
    v = down * math.cos(angle) - right * math.sin(angle)
    return _is_inside(shape, u, v).reshape(size, FINER, size, FINER).mean((1, 3))


def _is_inside(shape: str, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Return whether points (right, down), in radii from the middle, are inside: bool."""
    r, widest = np.hypot(u, v), np.maximum(abs(u), abs(v))
    if shape == "disc":
        return r < 0.95
    if shape == "ring":
        return (r < 0.95) & (r > 0.55)
    if shape == "square":
        return widest < 0.8
    if shape == "frame":
        return (widest < 0.8) & (widest > 0.45)
    if shape == "triangle":
        return (v < 0.55) & (v - math.sqrt(3) * abs(u) > -1.05)
    if shape == "star":
        return _is_in_star(u, v)
    if shape == "plus":
        return (np.minimum(abs(u), abs(v)) < 0.28) & (widest < 0.95)
    if shape == "bar":
        return (abs(u) < 0.95) & (abs(v) < 0.28)
    if shape == "crescent":
        return (r < 0.95) & (np.hypot(u - 0.5, v) > 0.8)
    return np.hypot(abs(u) - 0.55, v) < 0.4  # dots


def _is_in_star(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Return whether points are inside a star of five rays, the first of which points up."""
    step = 2 * math.pi / 5
    # The angle from the nearest ray: each half of a ray is bounded by one straight line.
    theta = abs((np.arctan2(u, -v) + step / 2) % step - step / 2)
    r = np.hypot(u, v)
    outer, inner = (0.0, 1.0), (0.42 * math.sin(step / 2), 0.42 * math.cos(step / 2))
    across, along = r * np.sin(theta), r * np.cos(theta)
    return (inner[0] - outer[0]) * (along - outer[1]) < (inner[1] - outer[1]) * (across - outer[0])
