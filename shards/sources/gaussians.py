"""Points of two coordinates around places on a ring: a set on which to see whether a GAN covers
every mode.

The places are at a distance of 2 from 0, equally apart; a point lies around one of them, with a
standard deviation of 0.05. The column of labels is `mode`. Point i depends on the seed and i alone.
"""

import json
import math
from typing import Any

import numpy as np

from distgan.core.arguments import Arguments, whole
from distgan.core.rng import numpy_generator
from distgan.shards.codecs import array
from distgan.shards.sources._base import SourceReport

EXAMPLES = [
    ("10,000 points around 8 places", "distgan shard gaussians OUT"),
    ("other numbers of both", "distgan shard gaussians OUT --n 2000 --modes 25"),
]
RECIPE, KIND = None, "vector"

RADIUS, SD = 2.0, 0.05
OPTIONS = (
    whole("n", "points, training and validation together", 2, default=10000),
    whole("modes", "places around which they lie", 2, 1000, default=8),
    whole("seed", "another seed makes other points", 0, default=0),
)


class Source:
    def __init__(self, args: Arguments):
        self.seed, self.modes = args.seed, args.modes
        self.options: dict[str, Any] = {"n": args.n, "modes": args.modes, "seed": args.seed}
        self.origin: dict[str, Any] = {}
        self.sample: dict[str, Any] = {"kind": "vector", "size": 2, "field": "npy"}
        values = list(range(args.modes))
        mode = {"field": "json", "key": "mode", "values": values, "names": list(map(str, values))}
        self.label_columns: dict[str, dict[str, Any]] = {"mode": mode}
        self.keys = [f"{i:07d}" for i in range(args.n)]

    def check(self, workers: int) -> SourceReport:
        """Return an empty report: every point is valid by construction."""
        return SourceReport()

    def group(self, i: int) -> str:
        return self.keys[i]

    def make(self, i: int) -> dict[str, Any]:
        mode, values = point(numpy_generator(self.seed, "gaussians", i), self.modes)
        text = json.dumps({"mode": mode})
        return {"__key__": self.keys[i], "npy": array.encode(values), "json": text.encode()}


def point(rng: np.random.Generator, modes: int) -> tuple[int, np.ndarray]:
    """Draw one point: its mode, and float32 [2]."""
    mode = int(rng.integers(modes))
    angle = 2 * math.pi * mode / modes
    place = RADIUS * np.array([math.cos(angle), math.sin(angle)])
    return mode, (place + SD * rng.standard_normal(2)).astype(np.float32)
