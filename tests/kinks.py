"""How near the activations of a system of the matrix come to the kink of a ReLU in its 20 steps, for one seed after another.

    python tests/kinks.py sagan data/particles 0 40

prints, by seed, the smallest |x| / rms(x) of all inputs of ReLUs, in float64; the rms is that of the layer in one sample. A difference of rounding that is larger moves an activation across the
kink and changes a gradient by a jump, which is no fault: docs/equality.md. The matrix takes a seed whose smallest is well above float32's rounding.
"""

import sys

import torch
from matrix import STEPS, SYSTEMS
from torch import nn

from distgan.batches import Stream
from distgan.clock import Clock
from distgan.start import _Setup
from distgan.train import plan


def margin(system, data: str, seed: int) -> float:
    """The smallest |x| / rms(x) over all steps of a run of one process."""
    module, run, _ = plan([*system.words(), f"data={data}", f"seed={seed}", "precision=float64", "machine.device=cpu"])
    setup = _Setup(module, run)
    nearest = []

    def look(layer, args):
        x = args[0].detach().flatten(1).abs()
        ratio = x / x.square().mean(1, keepdim=True).sqrt()
        nearest.append(float(ratio[ratio > 0].min()))  # exactly 0 is what a dead channel gives, under every engine

    for player in setup.recipe.players.values():
        for layer in player.bare.modules():
            if isinstance(layer, nn.ReLU | nn.LeakyReLU):
                layer.register_forward_pre_hook(look)
    clock = Clock(setup.share.batch * setup.recipe.batches_per_step, len(setup.data.train))
    stream = iter(Stream(setup.data, run.seed, setup.share, 0, setup.ranks.device, resident_bytes=1 << 30))
    for step in range(STEPS):
        setup.recipe.step([next(stream) for _ in range(setup.recipe.batches_per_step)], clock.at(step))
    return min(nearest)


if __name__ == "__main__":
    torch.set_num_threads(1)
    chosen = next(system for system in SYSTEMS if system.name == sys.argv[1])
    for number in range(int(sys.argv[3]), int(sys.argv[4])):
        print(f"seed {number}: {margin(chosen, sys.argv[2], number):.1e}", flush=True)
