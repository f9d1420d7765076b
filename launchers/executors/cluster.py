"""The executor Slurm: arrays through submitit."""

from pathlib import Path
from typing import Any

from distgan.launchers.slurm import submission
from distgan.launchers.slurm.ledger import Submission
from distgan.launchers.slurm.limits import read_limits, submit_limit
from distgan.launchers.slurm.profiles import Resources
from distgan.launchers.slurm.submission import RunSpec


class SlurmExecutor:
    """Submit to the cluster whose commands are on the path."""

    is_local = False

    def describe(self, resources: Resources) -> str:
        return resources.describe()

    def test(self, resources: Resources, count: int) -> str:
        most, _ = self.limits(resources)
        return f"Slurm       {submission.test_only(resources, min(count, most))}"

    def limits(self, resources: Resources) -> tuple[int, int | None]:
        most = read_limits(resources.partition).max_array
        return most, submit_limit(resources.account, resources.qos, resources.partition)

    def submit(
        self,
        home: Path,
        elements: list[list[RunSpec]],
        resources: Resources,
        dependency: str | None = None,
        cwd: str | None = None,
        **details: Any,
    ) -> Submission:
        return submission.submit(home, elements, resources, dependency, cwd, **details)
