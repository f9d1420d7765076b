"""Whether float32's rounding moves an activation of a system of the matrix across the kink of a
ReLU in its 20 steps, for one seed after another.

    python tests/programs/find_seeds.py sagan data/particles 0 40 [key=value …]
    torchrun --nproc-per-node 3 tests/programs/find_seeds.py sagan …

takes every step in float64 and in float32, and prints, by seed, the first step in which an input of
a ReLU has another sign in the one than in the other, and the smallest |x| / rms(x) up to there
(rms: of the layer in one sample). Ranks round otherwise than one process does, most of all in
groups of batch norm that span them, so each number of processes is looked at by itself. A crossing
changes gradients by a jump, which is no fault: docs/equality.md. The matrix takes a seed without
any, in 1 and in 3 processes.
"""

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

import torch
from compare import STEPS, SYSTEMS
from torch import nn

from distgan.core.clock import Clock
from distgan.data.loader import Stream
from distgan.train import plan
from distgan.training.setup import TrainingSetup


class Watched:
    """A run whose inputs of ReLUs are kept, step by step."""

    def __init__(self, words, precision: str):
        module, run, _ = plan([*words, f"precision={precision}", "machine.device=cpu"])
        setup = TrainingSetup(module, run)
        self.ranks, self.recipe, self.inputs = setup.ranks, setup.recipe, []
        for player in self.recipe.players.values():
            for layer in player.module.modules():
                if isinstance(layer, nn.ReLU | nn.LeakyReLU):
                    layer.register_forward_pre_hook(
                        lambda layer, args: self.inputs.append(args[0].detach().clone())
                    )
        self.clock = Clock(
            setup.layout.batch * self.recipe.run.batches_per_step, len(setup.data.train)
        )
        self.stream = iter(
            Stream(
                setup.data,
                run.seed,
                setup.layout,
                setup.ranks.rank,
                setup.ranks.device,
                resident_bytes=1 << 30,
            )
        )

    def step(self, number: int) -> list[torch.Tensor]:
        self.inputs.clear()
        self.recipe.step(
            [next(self.stream) for _ in range(self.recipe.run.batches_per_step)],
            self.clock.at(number),
        )
        return self.inputs


def crossing(words) -> tuple[int | None, float]:
    """(the first step with a crossing on any rank, None if there is none.

    This rank's smallest |x| / rms(x) up to there).
    """
    runs, nearest = [Watched(words, "float64"), Watched(words, "float32")], 1.0
    for step in range(STEPS):
        crossed = False
        for exact, rounded in zip(*(run.step(step) for run in runs), strict=True):
            size = exact.flatten(1).abs()
            ratio = size / size.square().mean(1, keepdim=True).sqrt()
            nearest = min(
                nearest, float(ratio[ratio > 0].min())
            )  # 0 is what a dead channel gives, in any precision
            crossed |= not torch.equal(exact > 0, rounded > 0)
        if runs[0].ranks.any(crossed)[0]:
            return step + 1, nearest
    return None, nearest


if __name__ == "__main__":
    torch.set_num_threads(1)
    system = next(system for system in SYSTEMS if system.name == sys.argv[1])
    for seed in range(int(sys.argv[3]), int(sys.argv[4])):
        first, nearest = crossing(
            [*system.words(), f"data={sys.argv[2]}", *sys.argv[5:], f"seed={seed}"]
        )
        if os.environ.get("RANK", "0") == "0":
            print(
                f"seed {seed}: {f'crossed in step {first}' if first else 'none crossed'}, nearest"
                f" {nearest:.1e}",
                flush=True,
            )
