"""The share of training time that checkpoints take at one a minute: `sagan` at half
of its width, one process.

The trainer's loop runs whole and saves every few steps, as often as needed for a median; what is
held up is from the end of the step before to the beginning of the next, as the journal's
`time/save_s`.
"""

import statistics
import time

import torch

from bench import peers, training
from distgan.recipes._catalog import resolve_recipe

SETTINGS = ["ngf=32", "ndf=32"]
ASKED = 0.02  # of training time
EVERY_S = 60.0


def main(quick: bool = False, only: str = "") -> None:
    with peers.scratch() as folder:
        training.write_images(folder / "data", 64 if quick else 512)
        module, _ = resolve_recipe("sagan")
        saves = 2 if quick else 15
        loop = training.loop(
            module, [*SETTINGS, "machine.flush_steps=4"], folder / "data", folder / "run", 4 * saves
        )
        seconds: list[float] = []
        before = time.perf_counter()
        paused = [0.0]

        def save_now_and_then(step: int) -> None:
            if step % 4 == 0 and step:
                began = time.perf_counter()
                loop.save(loop.clock.at(step))
                seconds.append(time.perf_counter() - began)
                paused[0] += seconds[-1]

        training.before_each_step(loop.recipe, save_now_and_then)
        loop.train()
        steps = (time.perf_counter() - before - paused[0]) / (4 * saves)
        size = sum(
            path.stat().st_size
            for path in sorted((folder / "run/checkpoints").glob("0*"))[-1].iterdir()
        )
        loop.folder.close()
    middle = statistics.median(seconds)
    share = middle / EVERY_S
    threads = torch.get_num_threads()
    print(
        f"\nsagan {' '.join(SETTINGS)}: {size / 1e6:.1f} MB; a save holds up training for"
        f" {middle * 1e3:.0f} ms [{min(seconds) * 1e3:.0f}..{max(seconds) * 1e3:.0f}], a step takes"
        f" {steps * 1e3:.0f} ms ({threads} threads)"
    )
    peers.asked("time in saves, at one a minute", share, ASKED, "of training time")
