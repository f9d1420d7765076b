"""`make demo`: the whole way on this machine, with the commands a user would type, printed before
each runs.
"""

import os
import shlex
import subprocess
import sys
import time
from pathlib import Path

import distgan

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
    """The commands, in order."""
    return [
        ["distgan", "shard", "particles", f"{folder}/particles"],
        [
            "accelerate",
            "launch",
            "--config_file",
            "configs/accelerate.yaml",
            "--main_process_port",
            "0",
            "--num_processes",
            "2",
            "distgan/train.py",
            "sagan",
            f"data={folder}/particles",
            f"machine.folder={folder}/run",
            *SETTINGS,
        ],
        ["distgan", "report", f"{folder}/run"],
    ]


def main(folder: Path = Path("demo")) -> int:
    """Run every step from the project's folder; the exit code of the first that fails."""
    root = Path(distgan.__file__).parents[1]
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}",
        "OMP_NUM_THREADS": "1",
    }
    began = time.monotonic()
    for step in steps(folder):
        print(f"\n$ {shlex.join(step)}", flush=True)
        code = subprocess.run(step, cwd=root, env=environment).returncode
        if code:
            return code
    minutes = (time.monotonic() - began) / 60
    print(
        f"\n{minutes:.1f} minutes. Open {root / folder / 'run' / 'report.html'} in a browser; the"
        f" newest sample grid is the last file in {folder}/run/samples.\nThe same again continues"
        f" or says that it is finished; `rm -r {folder}` starts over."
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
