"""`make demo`: the whole way on this machine. Every command is printed before it runs."""

import os
import shlex
import subprocess
import sys
import time
from pathlib import Path

from distgan.distributed import launch_line
from distgan.distributed.environment import CONFIGS

# Narrow networks and higher rates than sagan's 64 channels and 2e-4, so that minutes on two cores
# show something; batch-norm groups that lie inside a rank, which spares two processes a quarter of
# the step.
SETTINGS = [
    "ngf=32",
    "ndf=32",
    "g_lr=1e-3",
    "d_lr=1e-3",
    "bn_group=8",
    "epochs=130",
    "evaluate.schedule=[[null,10]]",
    "machine.checkpoint_every=10",
]


def steps(folder: Path) -> list[list[str]]:
    """Return the commands, in order."""
    return [
        ["distgan", "shard", "particles", f"{folder}/particles"],
        [
            "accelerate",
            "launch",
            "--config_file",
            _shown(CONFIGS / "accelerate.yaml"),
            "--main_process_port",
            "0",
            "--num_processes",
            "2",
            _shown(launch_line.TRAIN),
            "sagan",
            f"data={folder}/particles",
            f"machine.folder={folder}/run",
            *SETTINGS,
        ],
        ["distgan", "report", f"{folder}/run"],
    ]


def _shown(path: Path) -> str:
    """A path as it is typed: relative where it lies below the working directory."""
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


def main(folder: Path = Path("demo")) -> int:
    """Run every step in the working directory; return the exit code of the first that fails."""
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}",
        "OMP_NUM_THREADS": "1",
    }
    began = time.monotonic()
    for step in steps(folder):
        print(f"\n$ {shlex.join(step)}", flush=True)
        code = subprocess.run(step, env=environment).returncode
        if code:
            return code
    minutes = (time.monotonic() - began) / 60
    print(
        f"\n{minutes:.1f} minutes. Open {folder.absolute()}/run/report.html in a browser; the"
        f" newest sample grid is the last file in {folder}/run/samples.\nThe same again continues"
        f" or says that it is finished; `rm -r {folder}` starts over."
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
