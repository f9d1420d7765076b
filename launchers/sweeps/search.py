"""Search for settings by Optuna, in sweeps with a section `search`:

    search: {trials: 40, parallel: 8, startup: 8, prune: true, seed: 0,
             space: {g_lr: "loguniform(1e-5, 1e-3)", ngf: [32, 64]}}

The study is a journal file in the sweep's folder, so no process has to stay alive. Each call of
`distgan sweep FILE` reports the best scores of finished runs to Optuna, stops hopeless ones, and
submits as many new trials as `parallel` allows. A trial's run has the folder of its settings, like
any other run.
"""

import json
import math
import os
import time
from collections import Counter
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, field_validator

from distgan.config import loading
from distgan.config.sections import Section
from distgan.core import console
from distgan.core.errors import ConfigError, DistganError, LaunchError
from distgan.core.files import disk_errors, make_folder, touch, write_atomic
from distgan.launchers.executors import interface as executors
from distgan.launchers.runs.plan import PlannedRun, plan_run, snapshot_files
from distgan.launchers.runs.selection import SelectedRun, inspect, with_accounting
from distgan.launchers.slurm.ledger import Ledger
from distgan.launchers.slurm.submission import RunSpec
from distgan.launchers.sweeps import definition
from distgan.launchers.sweeps.members import Sweep
from distgan.monitor.journal import last_rows, score_key
from distgan.runs.folder import STOP

Count = Annotated[int, Field(gt=0, le=definition.MAX_MEMBERS)]


class Search(Section):
    """The section `search` of a sweep file."""

    trials: Count = Field(description="trials in all")
    parallel: Count = Field(4, description="trials at a time")
    startup: Count = Field(8, description="trials that are drawn before Optuna proposes or prunes")
    prune: bool = Field(True, description="stop trials that are worse than the median")
    seed: int = Field(0, ge=0, le=definition.MAX_MEMBERS, description="seed of Optuna's sampler")
    space: dict[str, Any] = Field(
        min_length=1,
        description="settings -> loguniform(LOW, HIGH), uniform(LOW, HIGH) or a list",
    )

    @field_validator("space")
    @classmethod
    def _comparable(cls, space):
        faults = []
        for key, value in space.items():
            if key in ("data", "target_gain") or key.startswith("evaluate."):
                faults.append(
                    f"{key} changes how the score is measured, so trials could not be compared;"
                    " put it into settings"
                )
            try:
                definition.parse_distribution(key, value)
            except ConfigError as error:
                faults.append(str(error))
        if faults:
            raise ValueError("; ".join(faults))
        return space


def advance(sweep: Sweep, watch: bool, dry_run: bool) -> int:
    """Report ended trials, prune, ask for new ones, submit. Return 0, or 2 if trials failed."""
    search = loading.validate(Search, sweep.definition.search or {}, what="search")
    while True:
        try:
            code, unfinished = _once(sweep, search, dry_run)
        except LaunchError as error:
            if not watch:
                raise
            console.say(f"warning: {error}; trying again")
            code, unfinished = 0, True
        if dry_run or not watch or not unfinished:
            return code
        time.sleep(30)


def study_of(sweep: Sweep, search: Search):
    """Open Optuna's study of a sweep, in RUNS/_sweeps/NAME/optuna.journal."""
    try:
        import optuna
        from optuna.storages import JournalStorage
        from optuna.storages.journal import JournalFileBackend
    except ImportError:
        raise ConfigError(
            "a sweep with `search` needs Optuna: pip install 'distgan[search]'; grid, cases and"
            " random need nothing"
        ) from None

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with disk_errors(sweep.folder):
        make_folder(sweep.folder)
    return optuna.create_study(
        storage=JournalStorage(JournalFileBackend(str(sweep.folder / "optuna.journal"))),
        study_name="sweep",
        direction="minimize",
        load_if_exists=True,
        sampler=optuna.samplers.TPESampler(seed=search.seed, n_startup_trials=search.startup),
        pruner=optuna.pruners.MedianPruner(n_startup_trials=search.startup, n_warmup_steps=0),
    )


def _once(sweep: Sweep, search: Search, dry_run: bool) -> tuple[int, bool]:
    """Return (exit code, whether anything is still to come)."""
    study, ledger = study_of(sweep, search), Ledger(sweep.home)
    with ledger.locked():
        running, members = _under_way(sweep, study, ledger, search.prune, dry_run)
        begun = len(study.get_trials(deepcopy=False))
        room = max(0, min(search.parallel - len(running), search.trials - begun))
        console.say(
            f"search {sweep.name}: {begun} of {search.trials} trials; {len(running)} under way;"
            f" to submit: {room}\njob         {sweep.executor.describe(sweep.resources)}"
        )
        if dry_run:
            console.say("nothing was submitted")
            return 0, False
        members += [
            member for member in (_ask(sweep, study, search) for _ in range(room)) if member
        ]
        members = members[: sweep.executor.limits(sweep.resources)[0]]
        if members:
            files = sweep.folder / "files"
            elements = [
                [RunSpec(member.folder, snapshot_files(member.words, files))] for member in members
            ]
            submitted = sweep.executor.submit(
                sweep.home, elements, sweep.resources, sweep=sweep.name
            )
            console.say(f"submitted   job {submitted.job}: {len(members)} trials")
        _write(sweep, study)
    failed = _show(sweep, study)
    return (2 if failed else 0), bool(running or members or room)


def _under_way(
    sweep: Sweep, study: Any, ledger: Ledger, prune: bool, dry_run: bool
) -> tuple[list[Any], list[RunSpec]]:
    """Return (trials that have not ended, specs of those to submit again); report ended ones to
    Optuna.
    """
    import optuna

    need_slurm = not sweep.executor.is_local
    rows, submissions = executors.query(ledger, exclusive=True, need_slurm=need_slurm)
    running, again = [], []
    for trial in study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.RUNNING,)):
        folder = Path(os.path.normpath(trial.user_attrs.get("run", "")))
        if not folder.is_relative_to(sweep.home):  # interrupted before it had a run, or edited
            study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
            continue
        (run,) = with_accounting([inspect(folder, submissions.get(str(folder)), rows)])
        if dry_run:
            continue
        if run.state.missing:  # its submission was refused, or it is lost
            again.append(_planned(sweep, trial.params).spec)
            running.append(trial)
        elif not _tell(study, trial, run, prune):
            running.append(trial)
    return running, again


def _planned(sweep: Sweep, values: dict[str, Any]) -> PlannedRun:
    words = [sweep.definition.recipe, *sweep.definition.words, *definition.to_words(values)]
    return plan_run(words, sweep.resources, values)


def _show(sweep: Sweep, study: Any) -> int:
    """Print how many trials are in each state, and the best; return how many have failed."""
    counts = Counter(trial.state.name.lower() for trial in study.get_trials(deepcopy=False))
    text = ", ".join(f"{count} {name}" for name, count in counts.items())
    if counts["complete"]:
        best = ", ".join(definition.to_words(study.best_params))
        text += f"; best so far {study.best_value:.4g} with {best}"
    console.say(text)
    console.say(
        "next: the same line again reports ended trials and submits further ones (--watch repeats"
        f" it); {console.command('status', sweep.name)}"
    )
    return counts["fail"]


def _tell(study: Any, trial: Any, run: SelectedRun, prune: bool) -> bool:
    """Report a trial to Optuna; return whether it has ended: done, failed, or pruned.

    Pruned: worse than the median of the others at as many samples seen.
    """
    import optuna

    live = optuna.trial.Trial(study, trial._trial_id)
    points = scores(run.folder)
    for samples, value in points:
        if samples not in trial.intermediate_values:
            live.report(value, samples)
    values = [value for _, value in points]  # only those at the journal's end
    recorded = (run.files.status.get("best") or {}).get("score")
    if isinstance(recorded, int | float):
        values.append(recorded)
    best = min(values, default=math.inf)
    if run.state.name == "done":
        if math.isfinite(best):
            study.tell(trial.number, best)
        else:
            study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
        return True
    if run.state.name in ("failed", "cancelled", "stopped", "unknown"):
        study.tell(
            trial.number,
            state=(
                optuna.trial.TrialState.PRUNED
                if run.files.refused and run.files.refused.startswith("pruned")
                else optuna.trial.TrialState.FAIL
            ),
        )
        return True
    if prune and points and run.state.name == "running" and live.should_prune():
        write_atomic(
            run.folder / "NO_RESTART",
            f"pruned: worse than the median of the other trials after {points[-1][0]:,} samples\n",
        )
        with disk_errors(run.folder / STOP):
            touch(run.folder / STOP)
        study.tell(trial.number, state=optuna.trial.TrialState.PRUNED)
        console.say(
            f"pruned      trial {trial.number}, {run.folder.name}: {points[-1][1]:.4g} after"
            f" {points[-1][0]:,} samples"
        )
        return True
    return False


def scores(folder: Path) -> list[tuple[int, float]]:
    """Return (samples seen, score) of a run's evaluations so far."""
    rows = last_rows(folder / "journal.jsonl")
    key = score_key(rows) or ""
    return [
        (int(row["samples"]), float(row[key]))
        for row in rows
        if isinstance(row.get(key), int | float)
    ]


def _ask(sweep: Sweep, study: Any, search: Search) -> RunSpec | None:
    """Return the run of a new trial; None if the sweep already has that run, or its settings are
    refused.
    """
    trial = study.ask()
    values = {}
    for key, value in search.space.items():
        kind, bounds = definition.parse_distribution(key, value)[1]
        values[key] = (
            trial.suggest_categorical(
                key,
                [
                    (
                        bound
                        if isinstance(bound, str | int | float | bool) or bound is None
                        else json.dumps(bound)
                    )
                    for bound in bounds
                ],
            )
            if kind == "choice"
            else trial.suggest_float(key, *bounds, log=kind == "loguniform")
        )
    try:
        planned = _planned(sweep, values)
    except DistganError as error:
        import optuna

        study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
        console.say(f"trial {trial.number} cannot be trained: {error}")
        return None
    trial.set_user_attr("run", planned.spec.folder)
    if (planned.folder / "DONE").exists() or any(
        other.user_attrs.get("run") == planned.spec.folder and other.number != trial.number
        for other in study.get_trials(deepcopy=False)
    ):
        return None  # reported at the next call, from that run
    return planned.spec


def _write(sweep: Sweep, study: Any) -> None:
    trials = [trial for trial in study.get_trials(deepcopy=False) if "run" in trial.user_attrs]
    write_atomic(
        sweep.folder / "members.json",
        json.dumps(
            {
                "recipe": sweep.definition.recipe,
                "words": sweep.definition.words,
                "chain": None,
                "resources": sweep.resources.model_dump(mode="json"),
                "runs": [trial.user_attrs["run"] for trial in trials],
                "values": [trial.params for trial in trials],
            }
        ),
    )
