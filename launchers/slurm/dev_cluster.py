"""`distgan dev-cluster`: a real Slurm on this machine, by the script slurm/dev-cluster."""

import runpy
from pathlib import Path

import distgan
from distgan.core.arguments import Command, Option, switch, whole

SCRIPT = Path(distgan.__file__).with_name("slurm") / "dev-cluster"


VERBS = ("up", "status", "down")
COMMAND = Command(
    "dev-cluster",
    """Start and stop a real Slurm on this machine: munge, slurmctld, four slurmd, and slurmdbd with
MariaDB where they are installed.""",
    (
        Option(
            "folder",
            "its folder (default: $DISTGAN_DEV_CLUSTER, or ~/.local/state/distgan-dev-cluster)",
            "FOLDER",
        ),
        switch("no-accounting", "without slurmdbd and MariaDB, hence without sacct"),
        whole("max-array-size", "Slurm's MaxArraySize", 1, default=1001),
    ),
    ("|".join(VERBS), "start it; list its daemons; stop it, and its jobs with it"),
    least=1,
    most=1,
    check=lambda options: (
        f"{word}: allowed: {', '.join(VERBS)}" for word in options.words if word not in VERBS
    ),
    epilog="example: distgan dev-cluster up",
)


def main(argv: list[str]) -> int:
    """Run the script, which is a program of its own and needs only the standard library."""
    options = COMMAND.parse(argv)
    runpy.run_path(str(SCRIPT))["main"](options.line(), "distgan dev-cluster")
    return 0
