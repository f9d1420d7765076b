"""The largest relative difference of any loss in the first 20 steps: 2 and 3 processes against 1,
in float64 and float32.

The table of docs/equality.md. Not a speed: what rounding does to a GAN.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from distgan.shards.build import command as build_command

STEPS = 20
TRAIN = Path(__file__).parents[1] / "distgan" / "train.py"
CASES = [("float64", 16), ("float64", 64), ("float32", 4), ("float32", 16), ("float32", 64)]


def losses(
    data: str, folder: Path, precision: str, width: int, processes: int
) -> list[tuple[float, float]]:
    """(d/loss, g/loss) of the first steps, batch 12, sagan's own rates."""
    torchrun = [
        str(Path(sys.executable).with_name("torchrun")),
        "--standalone",
        "--nproc-per-node",
        str(processes),
    ]
    subprocess.run(
        [
            *(torchrun if processes > 1 else [sys.executable]),
            str(TRAIN),
            "sagan",
            f"data={data}",
            "batch=12",
            "epochs=0.85",
            f"ngf={width}",
            f"ndf={width}",
            f"precision={precision}",
            "evaluate.samples=16",
            f"machine.folder={folder}",
        ],
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    rows = [json.loads(text) for text in (folder / "journal.jsonl").read_text().splitlines()]
    return [(row["d/loss"], row["g/loss"]) for row in rows if "d/loss" in row][:STEPS]


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        build_command.main(["particles", f"{folder}/data"])
        print(
            "| precision | ngf = ndf | processes | step 1 | step 5 | step 10 | all 20 steps"
            " |\n|---|---|---|---|---|---|---|"
        )
        for precision, width in CASES:
            one, *others = (
                losses(
                    f"{folder}/data", Path(folder, f"{precision}-{width}-{n}"), precision, width, n
                )
                for n in (1, 2, 3)
            )
            for n, other in zip((2, 3), others, strict=True):
                gaps = [
                    max(abs(a - b) / abs(a) for a, b in zip(x, y, strict=True))
                    for x, y in zip(one, other, strict=True)
                ]
                shown = " | ".join(
                    f"{gap:.1e}" for gap in (gaps[0], max(gaps[:5]), max(gaps[:10]), max(gaps))
                )
                print(f"| {precision} | {width} | {n} | {shown} |", flush=True)
