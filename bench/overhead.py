"""Steps/s of `sagan` and `wgan_flowers` through the trainer's loop against straight-line PyTorch
with the same networks, data in memory.

The trainer runs whole, stream, checks of what is due, players, flags, journal and run folder, but
for validations, scores and checkpoints. What it is compared with is bench/straight.py. CPU: time of
one process and one thread. GPU: wall time, the device waited for at both ends of a round. Rounds
are interleaved.
"""

import argparse
import re
import statistics
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import torch

from bench import peers, straight, training
from distgan.recipes._catalog import resolve_recipe

ASKED = 0.97
OURS, DEFAULT = "distgan", "straight-line PyTorch"
# Settings, steps of a round, rounds: on a CPU small enough for minutes, on a GPU as the recipes
# have them.
SIZES = {
    "cpu": {
        "sagan": (["ngf=32", "ndf=32"], 10, 7),
        "wgan_flowers": (["ngf=32", "ndf=32", "batch=32"], 4, 7),
    },
    "cuda": {"sagan": ([], 100, 9), "wgan_flowers": ([], 20, 9)},
}
QUICK = (["ngf=4", "ndf=4", "batch=4"], 2, 2)
# Torch's default, and the fastest it has: so that the choice of an implementation is not what is
# compared.
OPTIMIZERS = {
    "sagan": {
        DEFAULT: torch.optim.Adam,
        f"{DEFAULT}, fused Adam": partial(torch.optim.Adam, fused=True),
    },
    "wgan_flowers": {
        DEFAULT: torch.optim.RMSprop,
        f"{DEFAULT}, foreach RMSprop": partial(torch.optim.RMSprop, foreach=True),
    },
}


class Turns:
    """Seconds per step of the trainer and of others: each time the trainer has taken `steps` steps,
    each of the others takes as many.

    So the trainer's loop is the one that users run, and no other process or thread disturbs it.
    """

    def __init__(self, others: dict[str, Iterator[None]], steps: int, device: torch.device):
        self._others, self._steps, self._device = others, steps, device
        self.seconds: dict[str, list[float]] = {OURS: [], **{name: [] for name in others}}

    def before(self, step: int) -> None:
        """To be called ahead of each of the trainer's steps."""
        if step % self._steps:
            return
        if step:
            self._took(OURS)
        for name, steps in self._others.items():
            self._began = training.clock(self._device)
            for _ in range(self._steps):
                next(steps)
            self._took(name)
        self._began = training.clock(self._device)

    def _took(self, name: str) -> None:
        self.seconds[name].append((training.clock(self._device) - self._began) / self._steps)

    def rounds(self, name: str) -> list[float]:
        """Without what warmed up: the trainer's first round, and the first of the others, which
        came ahead of it, and the one after.
        """
        return self.seconds[name][1 if name == OURS else 2 :]


def measure(
    system: str, device: str, settings: list[str], steps: int, rounds: int, folder: Path
) -> dict[str, list[float]]:
    """{way: seconds per step of each round}"""
    module, _ = resolve_recipe(system)
    settings = [
        *settings,
        f"machine.device={device}",
        f"machine.flush_steps={min(steps, 20)}",
        "machine.resident_mb=100000",
    ]
    loop = training.loop(
        module, settings, folder / "data", folder / system, (rounds + 1) * steps + 1
    )
    images = (
        loop.data.decode(loop.data.train, range(len(loop.data.train)))
        .contiguous()
        .to(loop.ranks.device)
    )

    def by_hand(make):
        players = module.Recipe(loop.run, loop.ranks, loop.layout, loop.data.shape).players
        G, D = (straight.plain(players[name].module) for name in ("G", "D"))
        return getattr(straight, system)(loop.run, G, D, images, make)

    turns = Turns(
        {name: by_hand(make) for name, make in OPTIMIZERS[system].items()}, steps, loop.ranks.device
    )
    training.before_each_step(loop.recipe, turns.before)
    loop.train()
    loop.folder.close()
    return {name: turns.rounds(name) for name in turns.seconds}


def report(system: str, device: str, settings: list[str], seconds: dict[str, list[float]]) -> None:
    ratios = {
        name: statistics.median(
            theirs / ours for theirs, ours in zip(values, seconds[OURS], strict=True)
        )
        for name, values in seconds.items()
    }
    kind = "CPU" if device == "cpu" else "wall"
    print(
        f"\n| {system} {' '.join(settings)}, {device} | {kind} ms per step [min..max] | distgan's"
        " steps/s, relative |\n|---|---|---|"
    )
    for name, values in seconds.items():
        print(
            f"| {name} | {statistics.median(values) * 1e3:.2f}"
            f" [{min(values) * 1e3:.2f}..{max(values) * 1e3:.2f}] | {ratios[name]:.3f} |"
        )
    for name in list(ratios)[1:]:
        peers.asked(
            f"{system}, {device}: distgan against {name}",
            ratios[name],
            ASKED,
            "x its steps/s",
            least=True,
        )
    sys.stdout.flush()


def main(quick: bool = False, only: str = "") -> None:
    """Each device in a process of its own: a process group is made once, for one device."""
    for device in ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]:
        subprocess.run(
            [
                sys.executable,
                "-m",
                "bench.overhead",
                "--device",
                device,
                "--only",
                only,
                *(["--quick"] if quick else []),
            ],
            check=True,
        )


def on(device: str, quick: bool, only: str) -> None:
    torch.set_num_threads(1)
    with peers.scratch() as folder:
        training.write_images(folder / "data", 64 if quick else 2048)
        for system in (name for name in SIZES[device] if re.search(only, name)):
            settings, steps, rounds = QUICK if quick else SIZES[device][system]
            report(
                system, device, settings, measure(system, device, settings, steps, rounds, folder)
            )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        "python -m bench.overhead", description=__doc__.splitlines()[0]
    )
    parser.add_argument(
        "--device", choices=tuple(SIZES), help="default: the CPU, and a GPU where there is one"
    )
    parser.add_argument(
        "--quick", action="store_true", help="a few steps of small networks: to see that it works"
    )
    parser.add_argument("--only", default="", metavar="PATTERN", help="sagan or wgan_flowers")
    asked = parser.parse_args()
    on(asked.device, asked.quick, asked.only) if asked.device else main(asked.quick, asked.only)
