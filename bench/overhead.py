"""Steps of sagan through the trainer's own parts against a straight-line PyTorch loop with the same networks, data in memory.

The straight-line loop uses torch's BatchNorm2d and spectral_norm, shuffles with randperm, keeps no journal and decides nothing. CPU time of one process,
one thread, rounds interleaved; above 1.0 the trainer is slower.
"""

import copy
import statistics
import tempfile
import time

import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations, parametrize

from distgan import runfile, sharing, signals
from distgan.batches import Stream
from distgan.clock import Clock
from distgan.config import Machine
from distgan.data import Data
from distgan.nets_image import Discriminator64, Generator64
from distgan.normalization import GroupBatchNorm2d
from distgan.ranks import Ranks
from distgan.recipes import sagan
from shards import build

ROUNDS, STEPS, WIDTH, BATCH = 5, 10, 32, 16


def plain(net: nn.Module) -> nn.Module:
    """The same network with torch's own layers."""
    for name, child in net.named_children():
        if isinstance(child, GroupBatchNorm2d):
            setattr(net, name, nn.BatchNorm2d(child.channels))
        else:
            plain(child)
    if parametrize.is_parametrized(net, "weight"):
        parametrize.remove_parametrizations(net, "weight")
        parametrizations.spectral_norm(net)
    return net


def straight(G, D, images):
    """A GAN step as one would write it by hand."""
    average = copy.deepcopy(G)
    g_adam, d_adam = (torch.optim.Adam(net.parameters(), 2e-4, betas=(0.0, 0.9), weight_decay=1e-5) for net in (G, D))
    while True:
        real = images[torch.randperm(len(images))[:BATCH]].float().div(127.5).sub(1)
        real = torch.where((torch.rand(BATCH) < 0.5)[:, None, None, None], real.flip(3), real)
        real = torch.where((torch.rand(BATCH) < 0.5)[:, None, None, None], real.flip(2), real)
        with torch.no_grad():
            fake = G(torch.randn(BATCH, 128))
        d_adam.zero_grad()
        a, b = D(torch.cat([real, fake])).chunk(2)
        (0.5 * (F.binary_cross_entropy_with_logits(a, torch.full_like(a, 0.9)) + F.softplus(b).mean())).backward()
        nn.utils.clip_grad_norm_(D.parameters(), 1.0)
        d_adam.step()
        D.requires_grad_(False)
        g_adam.zero_grad()
        F.softplus(-D(G(torch.randn(BATCH, 128)))).mean().backward()
        nn.utils.clip_grad_norm_(G.parameters(), 1.0)
        g_adam.step()
        D.requires_grad_(True)
        with torch.no_grad():
            for mean, now in zip(average.state_dict().values(), G.state_dict().values(), strict=True):
                mean.lerp_(now, 1e-4) if mean.is_floating_point() else mean.copy_(now)
        yield


def trainer(data, ranks):
    run = runfile.settle(sagan.Settings, {"recipe": "sagan", "data": "-", "ngf": WIDTH, "ndf": WIDTH, "batch": BATCH})
    share = sharing.breakdown(BATCH, 1, 1, run.group)
    recipe = sagan.Recipe(run, ranks, share, data.shape)
    clock = Clock(BATCH, len(data.train))
    logs = []
    for step, batch in enumerate(Stream(data, 0, share, 0, ranks.device, resident_bytes=1 << 30)):
        logs.append(recipe.step([batch], clock.at(step)))
        ranks.any(False)
        if len(logs) == 20:
            torch.stack([torch.stack([v.double() for v in log.values()]) for log in logs]).tolist()
            logs = []
        yield


def main() -> None:
    torch.set_num_threads(1)
    ranks = Ranks(Machine(device="cpu"))
    with tempfile.TemporaryDirectory() as folder:
        build.main(["particles", f"{folder}/data"])
        data = Data(f"{folder}/data")
        images = data.decode(data.train, range(len(data.train)))
        assert torch.equal(signals.to_bytes(signals.to_unit(images)), images)
        ways = {"straight-line PyTorch": straight(plain(Generator64(128, WIDTH, 1, (16,), 8, BATCH, ranks)),
                                                  plain(Discriminator64(WIDTH, 1, (16,), 8)), images),
                "distgan": trainer(data, ranks)}
        times: dict[str, list[float]] = {name: [] for name in ways}
        for turn in range(ROUNDS + 1):
            for name, steps in ways.items():
                began = time.process_time()
                for _ in range(STEPS):
                    next(steps)
                if turn:  # the first round warms up
                    times[name].append((time.process_time() - began) / STEPS)
    base = statistics.median(times["straight-line PyTorch"])
    for name, values in times.items():
        middle = statistics.median(values)
        print(f"{name:24} {middle * 1e3:8.1f} ms CPU per step  [{min(values) * 1e3:.1f}..{max(values) * 1e3:.1f}]  "
              f"{base / middle:.3f} x the straight-line steps/s")
