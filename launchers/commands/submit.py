"""`distgan submit`: submit one run as a job of Slurm, or of this machine."""

import distgan.train as train
from distgan.core import console
from distgan.core.arguments import MANY, Command, switch
from distgan.core.errors import LaunchError
from distgan.launchers.executors import interface as executors
from distgan.launchers.runs import submit_warnings
from distgan.launchers.runs.plan import (
    PlannedRun,
    clear_end_markers,
    plan_run,
    runs_folder,
    snapshot_files,
)
from distgan.launchers.runs.selection import inspect, with_accounting
from distgan.launchers.slurm import client, profiles
from distgan.launchers.slurm.ledger import Ledger
from distgan.launchers.slurm.submission import RunSpec

EPILOG = """examples:
  distgan submit sagan data=data/particles --profile gpu             one GPU
  distgan submit run.yaml --profile gpu-node --nodes 2 --time 12h    two nodes of 8 GPUs
  distgan submit sagan data=data/particles --profile gpu --dry-run   check, and ask when it starts
  distgan submit sagan data=data/particles --here                    detached, on this machine

The number of nodes and GPUs does not change the result. No process has to stay alive:
`distgan status` shows progress, `distgan logs -f` the output, `distgan why` why a run ended. A job
that reaches its time limit saves and continues in the next one. The same line again submits the run
again only if it is not queued, running or done."""

COMMAND = Command(
    "submit",
    "Train one run as a job of Slurm. Submit and leave.",
    (
        switch("dry-run", "check everything and ask Slurm when it would start; submit nothing"),
        *executors.OPTIONS,
        *profiles.job_options(),
    ),
    train.COMMAND.words,
    least=1,
    most=MANY,
    settings=train.plan,
    epilog=EPILOG,
)


def main(argv: list[str]) -> int:
    options = COMMAND.parse(argv)
    executor, resources = executors.chosen(options)
    planned = plan_run(options.words, resources)
    home = runs_folder(planned.run)
    ledger = Ledger(home)
    with ledger.locked():
        need_slurm = not executor.is_local
        rows, submissions = executors.query(ledger, True, need_slurm, options.dry_run)
        (run,) = with_accounting(
            [
                inspect(
                    planned.folder, submissions.get(str(planned.folder)), rows, steps=planned.steps
                )
            ]
        )
        console.say(f"run         {planned.folder}\njob         {executor.describe(resources)}")
        if run.state.name == "uncertain":
            raise LaunchError(f"nothing was submitted: {run.state.why}; try again in a few minutes")
        if run.state.name == "unknown":
            raise LaunchError(
                f"nothing was submitted: how job {run.key} of this run ended is unknown"
                f" ({run.state.why}). `{console.command('why', planned.folder)}` shows what there"
                f" is; `{console.command('retry', planned.folder)}` submits it again"
            )
        if run.state.name in ("queued", "requeued", "held", "running", "stopping", "done"):
            verb = "report" if run.state.name == "done" else "status"
            console.say(
                f"it is {run.state.name}{f' as job {run.submitted.key}' if run.submitted else ''};"
                f" nothing was submitted. next: {console.command(verb, planned.folder)}"
            )
            return 0
        if not executor.is_local:
            _warn(resources, planned, options.dry_run)
        if options.dry_run:
            console.say(f"{executors.test(executor, resources, 1)}\nnothing was submitted")
            return 0
        clear_end_markers(planned)
        member = RunSpec(
            planned.spec.folder,
            snapshot_files(planned.spec.words, home / "_slurm" / "files"),
        )
        submitted = executor.submit(home, [[member]], resources)
    console.say(
        f"submitted   job {submitted.job}\nnext: {console.command('status', planned.folder.name)}"
    )
    return 0


def _warn(resources: profiles.Resources, planned: PlannedRun, dry_run: bool) -> None:
    """Print what would hurt the run on this cluster; without one a dry run prints nothing."""
    try:
        warnings = submit_warnings.collect(resources, [planned])
    except client.NoClusterError:
        if not dry_run:
            raise
        return
    for line in warnings:
        console.say(f"warning: {line}")
