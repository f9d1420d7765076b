"""Three steps of every system on all ranks against one process, one after the other in one launch:
`torchrun --nproc-per-node 2 tests/programs/systems.py ddp DATA…` or `… zero2 DATA…`, DATA the
folders of compare.TRAIN in its order.

DDP in float64, with and without accumulation; DeepSpeed ZeRO 0, 1 and 2 in float32. The last line
is JSON: {"system, words": [verdict or null, largest difference of a loss or gradient norm]}.
tests/process/quick/test_two_ranks.py reads it.
"""

import json
import os
import sys
from pathlib import Path
from unittest.mock import patch

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

import numpy as np
import torch
from compare import FROZEN, SYSTEMS, TEMPLATES, TRAIN, System

from distgan.config import batch_layout
from distgan.data.dataset import Data
from distgan.data.loader import Stream
from distgan.distributed.ranks import Ranks, exit_process
from distgan.self_check import comparison
from distgan.train import plan

CELLS = {
    "ddp": [("precision=float64", f"machine.accumulation={n}") for n in (1, 2)],
    **{
        f"zero{n}": [("precision=float32", "machine.engine=deepspeed", f"machine.zero_stage={n}")]
        for n in (0, 1, 2)
    },
    "alone": [("precision=float64", f"machine.accumulation={n}") for n in (2, 4)],
}


# At the rates of its template, 1e-3, Adam's first steps make 1e-4 of float32's rounding in gradient
# norms of the small networks of vectors (in float64, at those rates, below 1e-9); at those of
# images, 1e-7.
IN_FLOAT32 = {"gaussians": ("g_lr=2e-4", "d_lr=2e-4")}
DEALT, DEALT_BY_PLACE = "sagan, classes", "labels by place in the batch of a rank"


def label_by_place(stream: Stream, address: np.ndarray) -> torch.Tensor:
    """Give a sample the label of its place on its rank, in place of that of its number."""
    return torch.arange(len(address)) % 10


def systems_of(kind: str) -> tuple[System, ...]:
    """Return the systems of a launch: of ZeRO 2, which `make test` has beside DDP, without what
    `distgan new` writes; of the gate's, with those that have fixed blocks.
    """
    return {"ddp": (*SYSTEMS, *TEMPLATES), "zero2": SYSTEMS}.get(
        kind, (*SYSTEMS, *FROZEN, *TEMPLATES)
    )


def report(system: System, folder: Path | str, words: tuple[str, ...]) -> comparison.Report:
    """Compare three steps of one system, in this process or in all of the launch."""
    module, run, _ = plan(
        [*system.words(3), f"data={folder}", "machine.device=cpu", "machine.timeout_s=60", *words]
    )
    ranks = Ranks(run.machine, run.precision)
    layout = batch_layout.fit(
        run.batch, ranks.world_size, run.machine.accumulation, run.group, run.group_of
    )
    data = Data(run.data)
    data.require(run)
    return comparison.check(module, run, ranks, data, layout)


def numbers_apart(checked: comparison.Report) -> float:
    """The largest relative difference of any loss or gradient norm in the three steps."""
    return max(row.apart for row in checked.rows if "/" in row.what)


def main(kind: str, *folders: str) -> None:
    torch.set_num_threads(1)
    data, results = dict(zip(TRAIN, folders, strict=True)), {}
    for words in CELLS[kind]:
        for system in systems_of(kind):
            rates = IN_FLOAT32.get(system.data, ()) if "precision=float32" in words else ()
            checked = report(system, data[system.data], (*words, *rates))
            results[f"{system.name}, {words[-1]}"] = (
                None if checked.holds else checked.verdict(),
                numbers_apart(checked),
            )
    if kind == "ddp":
        system = next(system for system in SYSTEMS if system.name == DEALT)
        with patch.object(Stream, "_labels", label_by_place):
            checked = report(system, data[system.data], CELLS[kind][0])
        results[DEALT_BY_PLACE] = (checked.verdict() if not checked.holds else None, 0.0)
    if os.environ.get("RANK", "0") == "0":
        print(json.dumps(results), flush=True)
    exit_process(0)


if __name__ == "__main__":
    main(*sys.argv[1:])
