"""`distgan dev-cluster`: a real Slurm on this machine, by the script slurm/dev-cluster."""

import runpy
from pathlib import Path

import distgan

SCRIPT = Path(distgan.__file__).with_name("slurm") / "dev-cluster"


def main(argv: list[str]) -> int:
    """Run the script, which is a program of its own and needs only the standard library."""
    runpy.run_path(str(SCRIPT))["main"](argv, "distgan dev-cluster")
    return 0
