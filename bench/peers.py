"""What the benchmarks share.

Test data from addresses, a clock for a tree of processes, loaders that may not be installed.
"""

import contextlib
import gc
import importlib
import importlib.metadata
import json
import re
import resource
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np

from distgan.core import console, rng
from distgan.core.worker_pool import default_workers, ordered_map
from distgan.shards.codecs import audio as audio_codec
from distgan.shards.codecs import image as image_codec
from distgan.shards.format.manifest import DATASET, write_manifest
from distgan.shards.format.writer import write_shard

SIZE, RATE = 64, 48000
BATCH, PER_SHARD = 64, 1000
IMAGE = {"kind": "image", "channels": 3, "size": SIZE}
PAIR = {"kind": "pair", "rate": RATE, "dtype": "int16", "length": RATE, "longest": RATE}
# Name here, module, package, what installs it. mosaicml-streaming 0.13 declares numpy < 2.2 and the
# clients of four clouds; it runs without.
EXTRA = "pip install -e '.[bench]'"
PEERS = [
    ("webdataset", "webdataset", "webdataset", EXTRA),
    ("litdata", "litdata", "litdata", EXTRA),
    (
        "mosaicml",
        "streaming",
        "mosaicml-streaming",
        f"{EXTRA} && pip install --no-deps mosaicml-streaming",
    ),
]


def image(i: int) -> bytes:
    """A PNG of 64x64, RGB, about 6.9 kB, as small photographs are.

    A smooth field of colour and the noise of a sensor.
    """
    generator = rng.numpy_generator(0, "bench/image", i)
    corners = np.linspace(0, 3, SIZE)
    weights = np.maximum(0, 1 - abs(corners[:, None] - np.arange(4)))
    field = np.einsum("ya,abc,xb->yxc", weights, generator.uniform(20, 235, (4, 4, 3)), weights)
    return image_codec.encode(
        np.clip(np.rint(field + generator.normal(0, 3, field.shape)), 0, 255).astype(np.uint8),
        "png",
    )[1]


def pair(i: int) -> tuple[bytes, bytes]:
    """FLAC of 1 s at 48 kHz, noisy and clean, about 47 kB each.

    Bursts of low noise, as loud and as quiet as syllables, and hiss.
    """
    from scipy import signal  # here, so that processes that only write start sooner

    generator = rng.numpy_generator(0, "bench/pair", i)
    loud = np.repeat(generator.uniform(0, 1, 12) ** 2, RATE // 12)
    clean = signal.lfilter([1], [1, -1.6, 0.75], generator.normal(0, 1, RATE)) * loud
    clean *= 0.08 / abs(clean).max()
    noisy = clean + generator.normal(0, 0.0008, RATE)
    return audio_codec.write_flac(audio_codec.to_int16(noisy), RATE), audio_codec.write_flac(
        audio_codec.to_int16(clean), RATE
    )


def made(function: Callable, n: int, unit: str) -> list:
    """`function` of 0 … n-1, in as many processes as there are cores."""
    results = []
    with console.bar(f"making {unit}", n, unit) as bar:
        for one in ordered_map(function, range(n), default_workers() if n > 1000 else 1):
            results.append(one)
            bar.advance()
    return results


def raw(png: bytes) -> bytes:
    pixels = np.empty((SIZE, SIZE, 3), np.uint8)
    image_codec.decode(png, "png", pixels)
    return image_codec.encode(pixels, "raw")[1]


def wav(flacs: tuple[bytes, bytes]) -> tuple[bytes, bytes]:
    noisy, clean = (
        audio_codec.write_wav(audio_codec.read_flac(data)[0][:, 0], RATE) for data in flacs
    )
    return noisy, clean


def samples_of(
    fields: tuple[str, ...], payload: Iterable[tuple[bytes, ...]], prefix: str = "s"
) -> Iterator[dict]:
    for i, parts in enumerate(payload):
        yield {"__key__": f"{prefix}{i:06d}", **dict(zip(fields, parts, strict=True))}


def write_data(
    root: Path,
    about: dict,
    fields: tuple[str, ...],
    payload: list[tuple[bytes, ...]],
    per_shard: int = PER_SHARD,
) -> Path:
    """A data set as `distgan shard` makes it.

    All samples in train, a few of them again, under other keys, in validation.
    """
    for part, some, prefix in (("train", payload, "s"), ("validation", payload[:8], "v")):
        (root / part).mkdir(parents=True)
        samples = samples_of(fields, some, prefix)
        for number, start in enumerate(range(0, len(some), per_shard)):
            write_shard(
                root / part / f"{part}-{number:06d}.tar",
                [next(samples) for _ in some[start : start + per_shard]],
            )
        write_manifest(root / part, part, len(some))
    (root / DATASET).write_text(
        json.dumps({"version": 1, "source": "bench", "sample": about, "complete": True})
    )
    return root


def installed() -> set[str]:
    """The peers that can be compared with; of the others it is said what to install."""
    found = set()
    for name, module, package, line in PEERS:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                importlib.import_module(module)
        except ImportError as error:
            console.say(f"left out: {package} ({error}); to compare with it: {line}")
        else:
            console.say(f"compared with: {package} {importlib.metadata.version(package)}")
            found.add(name)
    return found


@contextlib.contextmanager
def scratch() -> Iterator[Path]:
    """A folder for the data of one benchmark, removed afterwards; $TMPDIR says where."""
    with tempfile.TemporaryDirectory(prefix="distgan-bench-") as folder:
        yield Path(folder)


def clocked(work: Callable[[], int]) -> tuple[float, float]:
    """(CPU, wall) microseconds per sample of `work`, which returns how many it did.

    CPU is user + system of this process and of those it started and saw end: the workers of a
    loader end with it, inside `work`.
    """
    gc.collect()  # what others left behind
    began, wall = _cpu(), time.perf_counter()
    n = work()
    return (_cpu() - began) / n * 1e6, (time.perf_counter() - wall) / n * 1e6


def _cpu() -> float:
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


class Rounds:
    """Ways of doing the same, each measured once in every round, so that a neighbour's noise falls
    on all of them.

    Of `ways`, {name: work for `clocked`}, those whose name matches the pattern `only`. A figure of
    a way that was not measured is None.
    """

    def __init__(self, label: str, ways: dict[str, Callable[[], int]], rounds: int, only: str = ""):
        ways = {name: way for name, way in ways.items() if re.search(only, name)}
        self.times: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
        gc.collect()
        # the data in memory and what is imported need not be looked through again and again, in one
        # way more often than in another
        gc.freeze()
        with console.bar(label, rounds * len(ways), "passes") as bar:
            for _ in range(rounds):
                for name, way in ways.items():
                    with warnings.catch_warnings():
                        warnings.simplefilter("ignore")
                        self.times[name].append(clocked(way))
                    bar.advance(note=name)
        gc.unfreeze()

    def cpu(self, name: str) -> float | None:
        return statistics.median(cpu for cpu, _ in self.times[name]) if name in self.times else None

    def cpu_ratio(self, name: str, base: str) -> float | None:
        """How many times the CPU time of `base`: the median of the ratios of each round."""
        return self._ratio(name, base, 0)

    def speed(self, name: str, base: str) -> float | None:
        """How many times the samples/s of `base`, likewise."""
        return self._ratio(base, name, 1)

    def _ratio(self, name: str, base: str, column: int) -> float | None:
        if name not in self.times or base not in self.times:
            return None
        return statistics.median(
            a[column] / b[column] for a, b in zip(self.times[name], self.times[base], strict=True)
        )

    def table(self, title: str, base: str) -> None:
        print(
            f"\n| {title} | CPU µs per sample [min..max] | samples/s | × CPU |\n|---|---|---|---|"
        )
        for name, values in self.times.items():
            cpus, wall = [cpu for cpu, _ in values], statistics.median(wall for _, wall in values)
            ratio = self.cpu_ratio(name, base)
            print(
                f"| {name} | {self.cpu(name):.1f} [{min(cpus):.1f}..{max(cpus):.1f}] |"
                f" {1e6 / wall:,.0f} | {f'{ratio:.2f}' if ratio else ''} |"
            )


def asked(what: str, value: float | None, limit: float, unit: str, least: bool = False) -> None:
    """`PNG, ours: 1.04 x the limit; asked: at most 1.06: reached`; nothing for what was not
    measured.
    """
    if value is not None:
        reached = value >= limit if least else value <= limit
        print(
            f"{what}: {value:.3g} {unit}; asked: at {'least' if least else 'most'} {limit:g}:"
            f" {'reached' if reached else 'MISSED'}"
        )
