"""Images/s and memory of a step of `sagan` with each option that decides how it is computed:
`python -m bench.options --help`.

The recipe's own step and players, one process, images in memory; no loop and no run folder. The
first row of a width is the default that the others are compared with. On a GPU also the share of
the time in which it does nothing (1 - time that kernels and copies take, by the profiler, / time of
a step without profiler) and how often a step makes the host wait for it. Compiled rows come last;
when time is up they are left out.
"""

import argparse
import collections
import contextlib
import gc
import itertools
import re
import statistics
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from bench import training
from distgan.config import batch_layout, loading
from distgan.core.clock import Clock
from distgan.data import transforms
from distgan.data.loader import MicroBatch
from distgan.distributed.ranks import Ranks
from distgan.recipes import sagan

IMAGES = 1024
WIDTHS = {"cpu": (16, 32), "cuda": (64, 96, 128)}
STEPS, ROUNDS = {"cpu": 4, "cuda": 30}, 5
WARM_UP = {"cpu": 2, "cuda": 10}  # CUDA graphs are recorded in the first few
Step = Callable[[], None]


@dataclass(frozen=True)
class Option:
    name: str
    settings: list[str] = field(default_factory=list)
    cudnn_benchmark: bool = False

    @property
    def compiled(self) -> bool:
        return any(text.startswith("machine.compile") for text in self.settings)

    @property
    def on_gpus(self) -> bool:
        """Whether it means anything only there."""
        return self.cudnn_benchmark or TF32 in self.settings


CHANNELS_LAST, COMPILE, GRAPHS = (
    "machine.channels_last=true",
    "machine.compile=default",
    "machine.compile=reduce-overhead",
)
TF32, BF16, FP16 = (f"precision={name}" for name in ("tf32", "bf16", "fp16"))
DEFAULT = Option("float32 (default)")
OPTIONS = [
    DEFAULT,
    Option("optimizer=fused", ["machine.optimizer=fused"]),
    Option("optimizer=foreach", ["machine.optimizer=foreach"]),
    Option("optimizer=loop", ["machine.optimizer=loop"]),
    Option("channels_last", [CHANNELS_LAST]),
    Option("cudnn.benchmark (no setting)", [], True),
    Option("bn_group=8", ["bn_group=8"]),
    Option("bn_group=4", ["bn_group=4"]),
    Option("tf32", [TF32]),
    Option("tf32, channels_last", [TF32, CHANNELS_LAST]),
    Option("bf16", [BF16]),
    Option("bf16, channels_last", [BF16, CHANNELS_LAST]),
    Option("fp16", [FP16]),
    Option("fp16, channels_last", [FP16, CHANNELS_LAST]),
    Option("compile=default", [COMPILE]),
    Option("compile=reduce-overhead (CUDA graphs)", [GRAPHS]),
    Option("tf32, channels_last, reduce-overhead", [TF32, CHANNELS_LAST, GRAPHS]),
    Option("bf16, channels_last, compile=default", [BF16, CHANNELS_LAST, COMPILE]),
    Option("bf16, channels_last, reduce-overhead", [BF16, CHANNELS_LAST, GRAPHS]),
    Option("fp16, channels_last, reduce-overhead", [FP16, CHANNELS_LAST, GRAPHS]),
]


@dataclass(frozen=True)
class Figures:
    seconds: list[float]  # per step, of each round
    peak_bytes: int | None = None
    idle: float | None = None
    waits: collections.Counter = field(
        default_factory=collections.Counter
    )  # of one step: where the host waited for the GPU


def batches(images: torch.Tensor, batch: int) -> Iterator[list[MicroBatch]]:
    """Global batches of one micro-batch, as distgan.data.loader.Stream makes them of a set in
    memory, in shard order.
    """
    for number in itertools.count():
        positions = np.arange(number * batch, (number + 1) * batch)
        chosen = transforms.to_device_async(
            torch.from_numpy(positions % len(images)), images.device
        )
        yield [
            MicroBatch(
                images.index_select(0, chosen), positions, positions, slice(0, batch), number
            )
        ]


def prepared(option: Option, width: int, batch: int, device: str) -> tuple[Step, torch.device]:
    """What takes one step, and the device it takes it on."""
    run = loading.validate(
        sagan.Settings,
        {"recipe": "sagan", "data": "-"},
        [
            f"ngf={width}",
            f"ndf={width}",
            f"batch={batch}",
            f"machine.device={device}",
            *option.settings,
        ],
    )
    ranks = Ranks(run.machine, run.precision)
    torch.backends.cudnn.benchmark = option.cudnn_benchmark
    torch.manual_seed(0)
    recipe = sagan.Recipe(run, ranks, batch_layout.fit(batch, 1, 1, run.group), (3, 64, 64))
    images = torch.randint(256, (IMAGES, 3, 64, 64), dtype=torch.uint8).to(ranks.device)
    stream, now = batches(images, batch), Clock(batch, IMAGES)
    return lambda: recipe.step([next(stream)], now), ranks.device


def measure(option: Option, width: int, batch: int, device: str, quick: bool) -> Figures:
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    step, place = prepared(option, width, batch, device)
    steps, rounds, warm_up = (1, 1, 1) if quick else (STEPS[device], ROUNDS, WARM_UP[device])
    for _ in range(warm_up):
        step()
    seconds = []
    for _ in range(rounds):
        began = training.clock(place)
        for _ in range(steps):
            step()
        seconds.append((training.clock(place) - began) / steps)
    if device == "cpu":
        return Figures(seconds)
    peak = torch.cuda.max_memory_allocated()
    return Figures(seconds, peak, 1 - busy(step, 10) / statistics.median(seconds), waits(step))


def busy(step: Step, steps: int) -> float:
    """Seconds of a step in which the GPU computes or copies, whatever the streams."""
    with torch.profiler.profile(
        activities=[torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
    ) as profile:
        for _ in range(steps):
            step()
        torch.cuda.synchronize()
    spans = sorted(
        (event.time_range.start, event.time_range.end)
        for event in profile.events()
        if event.device_type == torch.autograd.DeviceType.CUDA and not event.is_user_annotation
    )
    return union(spans) * 1e-6 / steps


def union(spans: list[tuple[float, float]]) -> float:
    """Length of what sorted intervals cover together."""
    total, end = 0.0, float("-inf")
    for first, last in spans:
        total += max(last - max(first, end), 0)
        end = max(end, last)
    return total


def waits(step: Step) -> collections.Counter:
    """File and line of every call of one step that waits for the GPU."""
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as found:
            warnings.simplefilter("always")
            step()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return collections.Counter(
        f"{Path(w.filename).name}:{w.lineno}"
        for w in found
        if "synchronizing CUDA operation" in str(w.message)
    )


def row(option: Option, width: int, batch: int, figures: Figures, default: float | None) -> str:
    middle = statistics.median(figures.seconds)
    cells = [
        str(width),
        option.name,
        (
            f"{batch / middle:.1f}"
            f" [{batch / max(figures.seconds):.1f}..{batch / min(figures.seconds):.1f}]"
        ),
        f"{default / middle:.2f}" if default else "–",
    ]
    cells += [
        "–" if figures.peak_bytes is None else f"{figures.peak_bytes / 1e6:.0f}",
        "–" if figures.idle is None else f"{100 * figures.idle:.0f}",
        "–" if figures.peak_bytes is None else str(figures.waits.total()),
    ]
    return "| " + " | ".join(cells) + " |"


@contextlib.contextmanager
def freed(device: str):
    """What a row leaves behind would count as memory of the next."""
    try:
        yield
    finally:
        torch.compiler.reset()
        gc.collect()
        if device == "cuda":
            torch.cuda.empty_cache()


def table(
    options: list[Option],
    widths: tuple[int, ...],
    batch: int,
    device: str,
    minutes: float,
    quick: bool,
) -> None:
    """Print a row as soon as it is measured, and at the end the fastest of each width."""
    speeds: dict[int, dict[str, float]] = {width: {} for width in widths}
    places: dict[str, collections.Counter] = {}
    end, longest = time.monotonic() + 60 * minutes, 0.0
    print(
        f"| ngf = ndf | option | images/s [min..max], batch {batch} | × default | peak MB | GPU"
        " idle % | waits per step |\n" + "|---" * 7 + "|",
        flush=True,
    )
    # A compiled row takes about a minute: the quick ones of all widths first.
    for option, width in sorted(
        itertools.product(options, widths), key=lambda pair: (pair[0].compiled, pair[1])
    ):
        began = time.monotonic()
        if began + (longest if option.compiled else 0) > end:
            print(
                f"| {width} | {option.name} | left out: {minutes:g} minutes are over | | | | |",
                flush=True,
            )
            continue
        with freed(device):
            try:
                figures = measure(option, width, batch, device, quick)
            except (
                Exception
            ) as error:  # one option that does not work here must not cost the others
                print(
                    f"| {width} | {option.name} | failed: {type(error).__name__}:"
                    f" {str(error).strip().splitlines()[0][:100]} | | | | |",
                    flush=True,
                )
                continue
        if option.compiled:
            longest = max(longest, time.monotonic() - began)
        speeds[width][option.name] = statistics.median(figures.seconds)
        places[option.name] = figures.waits
        print(row(option, width, batch, figures, speeds[width].get(DEFAULT.name)), flush=True)
    for width, found in speeds.items():
        if found:
            best = min(found, key=found.get)
            print(f"fastest at {width}: {best}, {batch / found[best]:.1f} images/s")
    for name, found in places.items():
        if found:
            print(
                f"{name} waits for the GPU in"
                f" {', '.join(f'{place} ({count})' for place, count in found.most_common())}"
            )


def main(
    quick: bool = False,
    only: str = "",
    device: str = "",
    widths: tuple[int, ...] = (),
    batch: int = 16,
    minutes: float = 7.0,
) -> None:
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    if device == "cpu":
        torch.set_num_threads(1)
    print(
        f"torch {torch.__version__},"
        f" {torch.cuda.get_device_name() if device == 'cuda' else 'CPU, one thread, CPU time'}",
        flush=True,
    )
    options = [
        option
        for option in OPTIONS
        if option is DEFAULT
        or re.search(only, option.name)
        and not (device == "cpu" and option.on_gpus)
        and not (quick and not only and option.compiled)
    ]
    table(options, (4,) if quick else widths or WIDTHS[device], batch, device, minutes, quick)


if __name__ == "__main__":
    parser = argparse.ArgumentParser("python -m bench.options", description=__doc__.splitlines()[0])
    parser.add_argument(
        "--quick", action="store_true", help="one step of small networks: to see that it works"
    )
    parser.add_argument(
        "--only",
        default="",
        metavar="PATTERN",
        help="options whose name matches, as in 'bf16|compile'; the default is always measured",
    )
    parser.add_argument(
        "--device", choices=tuple(WIDTHS), default="", help="default: a GPU where there is one"
    )
    parser.add_argument(
        "--widths",
        type=lambda text: tuple(map(int, text.split(","))),
        default=(),
        metavar="64,96,…",
    )
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--minutes", type=float, default=7.0, help="start no row after this")
    main(**vars(parser.parse_args()))
