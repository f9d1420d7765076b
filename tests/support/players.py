"""A small player that has taken three steps, and the state of a checkpoint of it."""

import torch
from torch import nn

from distgan.config.sections import Machine
from distgan.distributed.ranks import Ranks
from distgan.engine.player import Player

STATE = {"samples": 0, "epoch": 0.0, "best": None, "warned": []}


def players(seed=0):
    torch.manual_seed(seed)
    player = Player(
        Ranks(Machine(device="cpu")),
        nn.Linear(3, 2),
        lambda p: torch.optim.Adam(p, lr=0.1),
        ema=0.9,
    )
    for _ in range(3):
        player.update(lambda x: (player(x).square().mean(), {}), [torch.randn(4, 3)], 0.0)
    return {"G": player}
