"""`distgan capacity --submit`: submit the widths as one array of Slurm, and a cheaper job after it
that evaluates them and writes the report.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from distgan.config.sections import Evaluate
from distgan.core import console
from distgan.core.arguments import Arguments
from distgan.core.errors import ConfigError
from distgan.core.files import disk_errors, remove
from distgan.launchers.executors import interface as executors
from distgan.launchers.runs import submit_warnings
from distgan.launchers.runs.plan import clear_end_markers, plan_run, runs_folder
from distgan.launchers.runs.selection import SelectedRun, inspect, with_accounting
from distgan.launchers.slurm import client, profiles, submission
from distgan.launchers.slurm.ledger import Ledger
from distgan.launchers.slurm.profiles import Resources
from distgan.launchers.slurm.submission import RunSpec

if TYPE_CHECKING:
    from distgan.launchers.capacity.command import Study

FINISH = ("-m", "distgan.launchers.capacity.slurm_finish")
PRESET = "capacity"


def submit(study: "Study", options: Arguments) -> int:
    """Submit the missing widths and the job after them. Return 0."""
    if options.task or options.report:
        raise ConfigError("--submit submits the whole study; leave --task and --report out")
    resources = profiles.chosen(options)
    planned = [
        plan_run(
            [PRESET, *study.settings, f"ngf={width}", f"ndf={width}"], resources, {"ngf": width}
        )
        for width in study.folders
    ]
    home = runs_folder(planned[0].run)
    ledger = Ledger(home)
    samples = options.n or (planned[0].run.scored or Evaluate()).samples
    with ledger.locked():
        rows, submissions = executors.query(ledger, exclusive=True, need_slurm=True)
        selected = with_accounting(
            [
                inspect(run.folder, submissions.get(run.spec.folder), rows, steps=run.steps)
                for run in planned
            ]
        )
        missing = [run for run, width in zip(planned, selected, strict=True) if _is_missing(width)]
        console.table(
            ("width", "state", "to do"),
            [
                (str(run.values["ngf"]), width.state.name, "submit" if run in missing else "leave")
                for run, width in zip(planned, selected, strict=True)
            ],
        )
        console.say(f"job         {resources.describe()}")
        for line in submit_warnings.collect(resources, missing):
            console.say(f"warning: {line}")
        if not missing:
            console.say(
                "nothing is missing, nothing was submitted. next: distgan status; the report:"
                " distgan capacity … --report"
            )
            return 0
        for run in missing:
            clear_end_markers(run)
        array = submission.submit(home, [[run.spec] for run in missing], resources)
        folder = home / "_capacity" / study.home.name
        previous = submissions.get(str(folder))
        if previous and previous.key in rows and rows[previous.key].active:
            client.cancel([previous.key])  # it would report without what is submitted now
        entries = [width.queue_entry for width in selected]
        active = [entry.key for entry in entries if entry and entry.active]
        jobs = [job for job in (array.job, *active) if job]
        last = _submit_finish(study, resources, samples, folder, jobs)
    console.say(
        f"submitted   job {array.job}: {len(missing)} widths; job {last} after it evaluates"
        f" {samples} images of each and writes {study.home}/capacity.md\nnext: distgan status"
    )
    return 0


def _is_missing(width: SelectedRun) -> bool:
    return width.state.missing or width.state.name in ("failed", "cancelled")


def _submit_finish(
    study: "Study", resources: Resources, samples: int, folder: Path, jobs: Sequence[str]
) -> str | None:
    """Submit the job that evaluates and reports after all of `jobs`; return its number."""
    home = folder.parents[1]
    one_process = resources.model_copy(
        update={
            "nodes": 1,
            "gpus": min(1, resources.gpus),
            "processes": 1,
            "pack": 1,
            "max_parallel": None,
            "program": (*FINISH, str(samples)),
        }
    )
    for name in ("DONE", "NO_RESTART"):
        with disk_errors(folder / name):
            remove(folder / name)
    words = [*study.settings, f"widths={','.join(map(str, study.folders))}"]
    if study.memory_gb:
        words.append(f"memory_gb={study.memory_gb}")
    dependency = ":".join(["afterany", *jobs])
    member = RunSpec(str(folder), tuple(words))
    return submission.submit(home, [[member]], one_process, dependency=dependency).job
