"""The engine of a run: one process or DDP (`ddp`), or DeepSpeed (`deepspeed_zero`)."""

from torch import nn

from distgan.distributed.ranks import Ranks
from distgan.engine.ddp import Engine, MakeOptimizer


def build(ranks: Ranks, net: nn.Module, optimizer: MakeOptimizer, *, accumulation: int) -> Engine:
    """Return the engine that `ranks` was started with, around one network."""
    if ranks.engine_choice.engine == "deepspeed":
        from distgan.engine.deepspeed_zero import Zero

        return Zero(ranks, net, optimizer, accumulation=accumulation)
    return Engine(ranks, net, optimizer, accumulation=accumulation)
