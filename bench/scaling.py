"""Images/s of two processes against one at the same global batch, beside what the machine itself
can give: `python -m bench.scaling --help`.

Real command lines on the CPU, one thread each; the rate is that of the journal after its first
third. The limit is two trainings that know nothing of each other, each at half the batch, at the
same time: what cores, clock and memory bus leave of twice one. Every round measures all three ways.
"""

import argparse
import json
import os
import re
import shlex
import statistics
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bench import peers
from bench.training import QUIET, write_images

TRAIN = Path(__file__).parents[1] / "distgan" / "train.py"
TORCHRUN = Path(sys.executable).with_name("torchrun")
BATCHES, ROUNDS, ASKED = (16, 32, 64, 128), 2, 1.8
IMAGES = 512  # of the data set
ONE, TWO, LIMIT = "one process", "two processes", "two at half the batch, alone"


@dataclass(frozen=True)
class Case:
    name: str
    settings: list[str]
    group: Callable[[int], int]  # of the global batch: samples that share batch-norm statistics
    images: int  # that one training sees: about a quarter of a minute of one process
    per_step: int = 1  # batches of reals in a step


SMALL = ["ngf=32", "ndf=32"]
CASES = [
    Case(
        "sagan, groups inside a process", ["sagan", *SMALL], lambda batch: min(16, batch // 2), 1200
    ),
    Case("sagan, groups across processes", ["sagan", *SMALL], lambda batch: batch, 1200),
    Case(
        "wgan_flowers, groups across processes",
        ["wgan_flowers", *SMALL],
        lambda batch: batch,
        6000,
        per_step=5,
    ),
]


def line(
    case: Case, batch: int, group: int, processes: int, data: Path, folder: Path, images: int
) -> list[str]:
    """The command that a user would type."""
    program = (
        [str(TORCHRUN), "--standalone", "--nproc-per-node", str(processes)]
        if processes > 1
        else [sys.executable]
    )
    return [
        *program,
        str(TRAIN),
        *case.settings,
        f"batch={batch}",
        f"bn_group={group}",
        f"data={data}",
        f"epochs={images / IMAGES}",
        "evaluate.samples=2",
        f"machine.folder={folder}",
        "machine.device=cpu",
        *QUIET,
    ]


def together(commands: list[list[str]]) -> None:
    """Run them at the same time, to the end."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    started = [
        subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        for command in commands
    ]
    for command, process in zip(commands, started, strict=True):
        output, _ = process.communicate()
        if process.returncode:
            raise RuntimeError(
                f"{shlex.join(command)} ended with {process.returncode}:\n{output[-2000:]}"
            )


def rate(folder: Path) -> float:
    """Images/s by the journal, from a third of the steps on."""
    rows = [json.loads(text) for text in (folder / "journal.jsonl").read_text().splitlines()]
    rows = [row for row in rows if "d/loss" in row]
    first, last = rows[len(rows) // 3], rows[-1]
    return (last["samples"] - first["samples"]) / (last["seconds"] - first["seconds"])


def ways(case: Case, batch: int, data: Path, folder: Path, images: int) -> dict[str, float]:
    """{way: images/s}, each started once."""
    group, half = case.group(batch), batch // 2
    together([line(case, batch, group, 1, data, folder / "one", images)])
    together([line(case, batch, group, 2, data, folder / "two", images)])
    halves = [folder / "half-0", folder / "half-1"]
    together([line(case, half, min(group, half), 1, data, one, images // 2) for one in halves])
    return {ONE: rate(folder / "one"), TWO: rate(folder / "two"), LIMIT: sum(map(rate, halves))}


def row(name: str, batch: int, rounds: list[dict[str, float]]) -> str:
    def ratio(way: str, base: str) -> float:
        return statistics.median(found[way] / found[base] for found in rounds)

    one, two = (statistics.median(found[way] for found in rounds) for way in (ONE, TWO))
    gain = ratio(TWO, ONE)
    return (
        f"| {name} | {batch} | {one:.1f} | {two:.1f} | {gain:.2f} | {ratio(LIMIT, ONE):.2f} |"
        f" {ratio(TWO, LIMIT):.2f} | {'reached' if gain >= ASKED else 'missed'} |"
    )


def main(
    quick: bool = False, only: str = "", rounds: int = ROUNDS, batches: tuple[int, ...] = BATCHES
) -> None:
    if quick:
        rounds, batches = 1, (16,)
    print(
        f"{os.cpu_count()} cores, load of the last minute {os.getloadavg()[0]:.2f}: on a busy"
        " machine the figures mean nothing",
        flush=True,
    )
    print(
        f"| | global batch | {ONE}, images/s | {TWO} | ratio | the machine's limit | of the limit |"
        f" {ASKED} |\n" + "|---" * 8 + "|",
        flush=True,
    )
    with peers.scratch() as scratch:
        data = write_images(scratch / "data", IMAGES)
        for case in (case for case in CASES if re.search(only, case.name)):
            for batch in batches:
                seen = (
                    6 * case.per_step * batch
                    if quick
                    else max(case.images, 12 * case.per_step * batch)
                )
                found = [
                    ways(case, batch, data, scratch / f"{CASES.index(case)}-{batch}-{turn}", seen)
                    for turn in range(rounds)
                ]
                print(row(case.name, batch, found), flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser("python -m bench.scaling", description=__doc__.splitlines()[0])
    parser.add_argument(
        "--quick", action="store_true", help="one batch, a few steps: to see that it works"
    )
    parser.add_argument(
        "--only",
        default="",
        metavar="PATTERN",
        help=f"of: {', '.join(case.name for case in CASES)}",
    )
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument(
        "--batches",
        type=lambda text: tuple(map(int, text.split(","))),
        default=BATCHES,
        metavar="16,32,…",
    )
    main(**vars(parser.parse_args()))
