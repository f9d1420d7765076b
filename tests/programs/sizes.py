"""Three steps of image recipes at several sizes, on all ranks against one process, in one launch:
`torchrun --nproc-per-node 2 tests/programs/sizes.py FOLDER…`, each the folder of a data set of
images. The last line is JSON: {"recipe at WIDTHxHEIGHT xCHANNELS": null or what differs}.
"""

import json
import os
import sys
from pathlib import Path

import torch

from distgan.config import batch_layout
from distgan.data.dataset import Data
from distgan.distributed.ranks import Ranks, exit_process
from distgan.self_check import comparison
from distgan.train import plan

SMALL = ("ngf=4", "ndf=4", "latent=8", "batch=4", "epochs=1", "precision=float64")
RECIPES = {
    "sagan": ("bn_group=2",),
    "r3gan": ("blocks=1",),
    "wgan_flowers": ("bn_group=2", "n_critic=1", "spectral_norm=[D]"),
}


def compare(recipe: str, folder: Path | str, *more: str) -> tuple[str, str | None]:
    """Return (which recipe and images, None where the steps are those of one process)."""
    words = [recipe, f"data={folder}", "machine.device=cpu", *SMALL, *RECIPES[recipe], *more]
    module, run, _ = plan(words)
    ranks, data = Ranks(run.machine, run.precision), Data(run.data)
    data.require(run)
    layout = batch_layout.fit(
        run.batch, ranks.world_size, run.machine.accumulation, run.group, run.group_of
    )
    report = comparison.check(module, run, ranks, data, layout)
    channels, height, width = data.shape
    name = f"{recipe} at {width}x{height} x{channels}"
    apart = max(row.apart for row in report.rows if "/" in row.what)
    return name, None if report.holds and apart < 1e-9 else report.verdict()


def main(*folders: str) -> None:
    torch.set_num_threads(1)
    results = dict(compare(recipe, folder) for folder in folders for recipe in RECIPES)
    if os.environ.get("RANK", "0") == "0":
        print(json.dumps(results), flush=True)
    exit_process(0)


if __name__ == "__main__":
    main(*sys.argv[1:])
