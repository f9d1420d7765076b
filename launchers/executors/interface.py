"""Define executors of submitted runs, choose the one that a command line asks for, and read the
queues of all executors that a ledger names as one.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol

from distgan.core.arguments import Arguments, switch, whole
from distgan.core.errors import ConfigError
from distgan.launchers.executors import cluster, local
from distgan.launchers.slurm import client, profiles
from distgan.launchers.slurm.ledger import LastSubmission, Ledger, Submission
from distgan.launchers.slurm.profiles import Resources
from distgan.launchers.slurm.submission import RunSpec


class Executor(Protocol):
    """Executes elements: lists of runs that are trained beside each other, as one job each."""

    is_local: bool

    def describe(self, resources: Resources) -> str:
        """Return in one line what the jobs use."""

    def test(self, resources: Resources, count: int) -> str:
        """Return when `count` jobs would start; LaunchError if they would be refused."""

    def limits(self, resources: Resources) -> tuple[int, int | None]:
        """Return (the most jobs of one submission, how many this user may have; None: any)."""

    def submit(
        self,
        home: Path,
        elements: list[list[RunSpec]],
        resources: Resources,
        dependency: str | None = None,
        cwd: str | None = None,
        **details: Any,
    ) -> Submission:
        """Record a submission in the ledger, then submit it; LaunchError if it is refused.

        `dependency` is sbatch's; `afterok:KEY` is understood by all. `cwd`: what relative paths in
        the words refer to. `details` are kept in the ledger, such as the sweep.
        """


OPTIONS = (
    switch("here", "as processes of this machine instead of jobs of Slurm; --gpus names devices"),
    whole(
        "parallel", "with --here, without GPUs: runs at a time (default: 1)", 1, 4096, metavar="N"
    ),
)


def chosen(options: Arguments, base: dict[str, Any] | None = None) -> tuple[Executor, Resources]:
    """Return the executor that a command line asks for, and what each job may use.

    `base`: the section `slurm` of a sweep file. Of it this machine takes what is not Slurm's:
    processes, cpus, the number of GPUs, budgets.
    """
    if not options.here:
        if options.parallel:
            raise ConfigError("--parallel belongs to --here; jobs of Slurm have --max-parallel")
        return cluster.SlurmExecutor(), profiles.chosen(options, base)
    base = {key: value for key, value in (base or {}).items() if key in local.KEYS}
    plain = Arguments(**{**vars(options), "gpus": None})
    resources = profiles.chosen(plain, base)
    return local.choose(options.gpus, options.parallel, resources)


def of(home: Path, submission: Submission) -> Executor:
    """Return the executor of an earlier submission, for submitting its runs again."""
    if submission.is_local:
        return local.LocalExecutor(local.read_slots(home, submission))
    return cluster.SlurmExecutor()


def test(executor: Executor, resources: Resources, count: int) -> str:
    """Return when `count` jobs would start, for a dry run: without a cluster that is not known.

    LaunchError if they would be refused.
    """
    try:
        return executor.test(resources, count)
    except client.NoClusterError as error:
        return f"Slurm       not asked: {error}"


def query(
    ledger: Ledger, exclusive: bool = False, need_slurm: bool = False, dry_run: bool = False
) -> tuple[dict[str, client.QueueEntry], dict[str, LastSubmission]]:
    """Return (the jobs of all who submitted from here, the last submission of each run).

    One call of squeue, then `Ledger.resolve_pending`. `exclusive`: this process holds the ledger's
    lock. Slurm is left out before the first submission to it, and where it is not on this machine
    unless `need_slurm`. A `dry_run` leaves it out where there is no cluster, too.
    """
    submissions, cancelled = ledger.read()
    rows, asked = local.queue(ledger.home, submissions, cancelled), True
    users = {submission.user for submission in submissions if not submission.is_local}
    if need_slurm or users:
        try:
            rows |= client.queue(users)
        except client.NoClusterError:
            if not dry_run and (need_slurm or client.is_available()):
                raise
            asked = False
    ledger.resolve_pending(rows, exclusive, asked)
    last = ledger.last_submissions()
    if not asked:
        slurm = [one for one in last.values() if one.key and not one.submission.is_local]
        rows |= {one.key or "": _not_asked(one) for one in slurm}
    return rows, last


def _not_asked(run: LastSubmission) -> client.QueueEntry:
    why = "there is no Slurm here to ask whether its job still waits"
    submission = run.submission
    return client.QueueEntry(
        run.key or "", "NOT_ASKED", why, submission.name, "", "", "N/A", submission.user
    )


def cancel(ledger: Path, runs: Iterable[LastSubmission]) -> dict[str, str]:
    """End the jobs of these runs; return why those that go on were not ended, by key."""
    jobs: Sequence[LastSubmission] = [run for run in runs if run.key]
    refused = local.cancel(ledger, [run for run in jobs if run.submission.is_local])
    if keys := dict.fromkeys(run.key for run in jobs if not run.submission.is_local):
        refused |= client.cancel(key for key in keys if key)
    return refused
