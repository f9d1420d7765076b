"""`distgan capacity --submit`.

The widths as one array of Slurm, and a cheaper job after it that evaluates them and writes the one
report.
"""

import argparse
from pathlib import Path
from typing import Any

import distgan
from distgan.core import console
from distgan.core.errors import ConfigError
from distgan.launchers.runs import plan as plans
from distgan.launchers.runs import submit_warnings as cautions
from distgan.launchers.runs.selection import examine, with_accounting
from distgan.launchers.slurm import client as cluster
from distgan.launchers.slurm import profiles, submission
from distgan.launchers.slurm.ledger import Ledger
from distgan.launchers.slurm.submission import Member

END = "distgan/launchers/capacity/slurm_finish.py"
PRESET = "capacity"


def submit(study: Any, options: argparse.Namespace) -> int:
    """Submit the widths that are missing and the job after them.

    The same line again submits what is still missing. 0.
    """
    if options.task or options.report:
        raise ConfigError("--submit submits the whole study; leave --task and --report out")
    resources = profiles.chosen(options)
    planned = [
        plans.plan(
            [PRESET, *study.settings, f"ngf={width}", f"ndf={width}"], resources, {"ngf": width}
        )
        for width in study.folders
    ]
    home = plans.home_of(planned[0].run)
    ledger = Ledger(home)
    samples = options.n or planned[0].run.scored.samples
    with ledger.locked():
        rows, places = ledger.ask(alone=True)
        found = with_accounting(
            [
                examine(one.folder, places.get(one.member.folder), rows, steps=one.steps)
                for one in planned
            ]
        )
        missing = [
            one
            for one, state in zip(planned, found, strict=True)
            if state.state.missing or state.state.name in ("failed", "cancelled")
        ]
        console.table(
            ("width", "state", "to do"),
            [
                (str(one.values["ngf"]), state.state.name, "submit" if one in missing else "leave")
                for one, state in zip(planned, found, strict=True)
            ],
        )
        console.say(f"job         {resources.describe()}")
        for line in cautions.of(resources, missing):
            console.say(f"warning: {line}")
        if not missing:
            console.say(
                "nothing is missing, nothing was submitted. next: distgan status; the report:"
                " distgan capacity … --report"
            )
            return 0
        for one in missing:
            plans.reopen(one)
        array = submission.submit(home, [[one.member] for one in missing], resources)
        after = resources.model_copy(
            update={
                "nodes": 1,
                "gpus": min(1, resources.gpus),
                "processes": 1,
                "pack": 1,
                "max_parallel": None,
                "program": (str(_code(home) / END), str(samples)),
            }
        )
        end = home / "_capacity" / planned[0].folder.parent.name
        before = places.get(str(end))
        if (
            before and before.key and rows.get(before.key) and rows[before.key].active
        ):  # it would report without what is submitted now
            cluster.cancel([before.key])
        others = [state.place.key for state in found if state.row and state.row.active]
        (end / "DONE").unlink(missing_ok=True)
        (end / "NO_RESTART").unlink(missing_ok=True)
        words = [
            *study.settings,
            f"widths={','.join(map(str, study.folders))}",
            *([f"memory_gb={study.memory_gb}"] if study.memory_gb else []),
        ]
        last = submission.submit(
            home,
            [[Member(str(end), tuple(words))]],
            after,
            dependency=":".join(["afterany", array.job, *others]),
        )
    console.say(
        f"submitted   job {array.job}: {len(missing)} widths; job {last.job} after it evaluates"
        f" {samples} images of each and writes {planned[0].folder.parent}/capacity.md\nnext:"
        " distgan status"
    )
    return 0


def _code(home: Path) -> Path:
    from distgan.launchers.slurm import snapshot

    return snapshot.take(home / "_code") or Path(distgan.__file__).parents[1]
