"""Plan runs, checked as far as a login node can: settings, batch and processes, engine, data, and
each run's folder.
"""

import contextlib
import hashlib
import os
import re
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

import distgan.train as train
from distgan.config import batch_layout
from distgan.config.settings import Run
from distgan.core.clock import Clock
from distgan.core.errors import ConfigError, RunError
from distgan.core.files import (
    disk_errors,
    make_folder,
    only_owner_writes,
    opened_folder,
    remove,
    write_atomic,
)
from distgan.distributed.environment import resolve_engine
from distgan.launchers.runs.state import read_run_files
from distgan.launchers.slurm.profiles import Resources
from distgan.launchers.slurm.submission import RunSpec
from distgan.recipes._catalog import resolve_recipe
from distgan.runs.folder import STOP
from distgan.runs.resolve import folder_of, require_code, resolve, versions
from distgan.self_check import first_start


@dataclass(frozen=True)
class PlannedRun:
    """One checked run. `values`: the settings in which it differs from its siblings; `after`: the
    folder of the run that it grows from, in a sweep with a chain; `steps`: its length.
    """

    run: Run
    spec: RunSpec
    values: dict[str, Any] = field(default_factory=dict)
    after: str | None = None
    steps: int | None = None  # how far it goes

    @property
    def folder(self) -> Path:
        return Path(self.spec.folder)


@lru_cache(maxsize=64)
def _data(folder: str):
    from distgan.data.own_dataset import open_data

    return open_data(folder)


def plan_run(
    words: list[str],
    resources: Resources,
    values: dict[str, Any] | None = None,
    chain: str | None = None,
    folder: Path | None = None,
) -> PlannedRun:
    """Plan one run from the arguments of `distgan train`, for nodes x processes.

    Raise ConfigError, DataError, LaunchError or RunError before anything is written. `chain`: a
    stand-in for the digest of the checkpoint that it grows from, which is not trained yet.
    """
    module, run, _ = train.plan(words)
    if run.machine.folder:
        raise ConfigError(
            "machine.folder: a submitted run has the folder of its identity; choose machine.runs or"
            " experiment instead"
        )
    data = _data(run.data)
    version, start, _ = resolve(run, data.fingerprint_for(run), chain)
    run = versions(run)[version]
    batch_layout.fit(
        run.batch,
        resources.per_node * resources.nodes,
        run.machine.accumulation,
        run.group,
        run.group_of,
    )
    resolve_engine(run.machine, run.precision)
    data.require(run)
    if run.starts_from and start is None:
        from distgan.runs.locate import start_digest

        start = start_digest(run)
    home = folder or folder_of(run, run.identity(data.fingerprint_for(run), start))
    require_code(run, getattr(module, "code", None), home)
    first_start.inspect_once(module, run, data)
    with disk_errors(home, error=RunError), contextlib.suppress(FileNotFoundError):
        with opened_folder(home):  # or the link of another user would choose the folder
            pass
    steps = make_clock(run, len(data.train)).steps(run.epochs)
    return PlannedRun(run, RunSpec(str(home.resolve()), tuple(words)), values or {}, steps=steps)


def make_clock(run: Run, samples: int) -> Clock:
    """Return the clock of a run on `samples` training samples."""
    return Clock(run.batch * run.batches_per_step, samples)


def snapshot_files(words: tuple[str, ...], folder: Path) -> tuple[str, ...]:
    """Copy the run file and the code of a recipe of one's own into `folder`; return the words with
    these copies: the files may be edited or deleted before their job starts.
    """
    path = Path(words[0])
    module, tree = resolve_recipe(words[0])
    recipe = words[0]
    if code := getattr(module, "code", None):
        with disk_errors(folder):
            make_folder(folder)
            recipe = str(code.copy_to(folder))
    if path.suffix not in (".yaml", ".yml") or not path.is_file():
        return (recipe, *words[1:])
    data = path.read_bytes()
    if code:
        data = yaml.safe_dump({**tree, "recipe": recipe}, sort_keys=False).encode()
    stem = re.sub(r"(-[0-9a-f]{12}(-[0-9]+)?)+$", "", path.stem)[:60]  # not of a copy's copy
    name = f"{stem}-{hashlib.sha256(data).hexdigest()[:12]}-{os.getuid()}{path.suffix}"
    copy = folder.resolve() / name
    with disk_errors(copy):
        make_folder(folder)
    with only_owner_writes():
        write_atomic(copy, data)  # whole at any time: jobs that are starting may be reading it
    return (str(copy), *words[1:])


def runs_folder(run: Run) -> Path:
    """Return the folder of runs."""
    return Path(run.machine.runs).expanduser().resolve()


def clear_end_markers(planned: PlannedRun) -> None:
    """Remove the files that mark a run as ended, before it is submitted again."""
    for name in (
        "NO_RESTART",
        STOP,
        *(("DONE",) if read_run_files(planned.folder, planned.steps).shorter else ()),
    ):
        with disk_errors(planned.folder / name):
            remove(planned.folder / name)
