"""`make demo`: the whole way on this machine, on drawn shapes, a class for each.

Every command is printed before it runs.
"""

import os
import shlex
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from PIL import Image

from distgan.core.files import write_atomic
from distgan.distributed import launch_line
from distgan.distributed.environment import CONFIGS
from distgan.shards.codecs import image as image_codec

# Rates and widths for some thousand updates. Batches of 48 share out to 1, 2 and 3 processes, with
# groups of batch norm that lie inside a process, which spares two of them a quarter of a step.
SETTINGS = [
    "conditional=true",
    "label=shape",
    "loss=hinge",
    "attention=[]",
    "ngf=32",
    "ndf=32",
    "batch=48",
    "g_lr=1e-3",
    "d_lr=4e-4",
    "lr_every=22",
    "lr_factor=0.2",
    "ema=0.999",
    "hflip=0",
    "vflip=0",
    "epochs=30",
    "sample_every=5",
    "evaluate.schedule=[[null,5]]",
    "machine.checkpoint_every=5",
]
COLUMNS = 8  # of a sample grid
GROWTH = "growth.png"
# (row, column) of the sample grid: a ring, a square, a triangle, a plus, a crescent.
SHOWN = ((1, 0), (2, 7), (4, 4), (6, 1), (8, 5))


def steps(folder: Path, processes: int = 2, seed: int = 0) -> list[list[str]]:
    """Return the commands, in order."""
    return [
        ["distgan", "shard", "shapes", f"{folder}/shapes"],
        [
            "accelerate",
            "launch",
            "--config_file",
            _shown(CONFIGS / "accelerate.yaml"),
            "--main_process_port",
            "0",
            "--num_processes",
            str(processes),
            _shown(launch_line.TRAIN),
            "sagan",
            f"data={folder}/shapes",
            f"machine.folder={folder}/run",
            *SETTINGS,
            *([f"seed={seed}"] if seed else []),
        ],
        ["distgan", "report", f"{folder}/run"],
    ]


def _shown(path: Path) -> str:
    """A path as it is typed: relative where it lies below the working directory."""
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


def save_growth(run: Path) -> None:
    """Write what samples of the same noise looked like over the run: a column for each grid."""
    grids = []
    for path in sorted((run / "samples").glob("*.png")):
        with image_codec.opened(path, ("PNG",)) as image:
            grids.append(np.asarray(image))
    side = (grids[0].shape[1] - 1) // COLUMNS
    columns = [
        np.concatenate(
            [grid[y * side : (y + 1) * side, x * side : (x + 1) * side] for y, x in SHOWN]
        )
        for grid in grids
    ]
    picture = Image.fromarray(np.concatenate(columns, axis=1))
    picture = picture.resize((2 * picture.width, 2 * picture.height), Image.Resampling.NEAREST)
    write_atomic(run.parent / GROWTH, lambda file: picture.save(file, format="PNG"))


def main(folder: Path = Path("demo"), processes: int = 2, seed: int = 0) -> int:
    """Run every step in the working directory; return the exit code of the first that fails."""
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}",
        "OMP_NUM_THREADS": "1",
    }
    began = time.monotonic()
    for step in steps(folder, processes, seed):
        print(f"\n$ {shlex.join(step)}", flush=True)
        code = subprocess.run(step, env=environment).returncode
        if code:
            return code
    save_growth(folder / "run")
    minutes = (time.monotonic() - began) / 60
    print(
        f"\n{minutes:.1f} minutes. Open {folder.absolute()}/run/report.html in a browser; the"
        f" newest sample grid is the last file in {folder}/run/samples, and {folder}/{GROWTH} shows"
        " how samples of the same noise changed.\nThe same again continues or says that it is"
        f" finished; `rm -r {folder}` starts over."
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
