"""Submit the missing members of a sweep and leave the others alone."""

import itertools
import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from distgan.core import console
from distgan.core.files import disk_errors, make_folder, write_atomic
from distgan.launchers.executors import interface as executors
from distgan.launchers.runs import submit_warnings
from distgan.launchers.runs.accounting import estimate
from distgan.launchers.runs.plan import clear_end_markers, snapshot_files
from distgan.launchers.runs.selection import (
    SelectedRun,
    inspect,
    read_sweeps,
    with_accounting,
)
from distgan.launchers.slurm import client
from distgan.launchers.slurm.ledger import Ledger, anchor
from distgan.launchers.slurm.submission import RunSpec
from distgan.launchers.sweeps.members import Sweep

SHOWN = 24  # members that are listed run by run


def select_members(
    sweep: Sweep, exclusive: bool = False, dry_run: bool = False
) -> list[SelectedRun]:
    """Return the members with their states, by one call of squeue. `exclusive`: under the lock of
    the ledger. Without a cluster a `dry_run` goes by the files alone.
    """
    need_slurm = exclusive and not sweep.executor.is_local
    rows, submissions = executors.query(Ledger(sweep.home), exclusive, need_slurm, dry_run)
    numbers, _ = numbering(sweep)
    return with_accounting(
        [
            inspect(
                member.folder,
                submissions.get(member.spec.folder),
                rows,
                sweep.name,
                number,
                member.steps,
            )
            for number, member in zip(numbers, sweep.members, strict=True)
        ]
    )


def numbering(sweep: Sweep) -> tuple[list[int], dict[str, int]]:
    """Return (the numbers of the members, as in SWEEP:NUMBER; runs that were members, with theirs).

    A run keeps its number for ever: an edited sweep must not let SWEEP:2 be another run.
    """
    known = read_sweeps(sweep.home).get(sweep.name, {})
    before = {anchor(sweep.home, run): number for run, number in known.get("dropped", {}).items()}
    before |= dict(zip(known.get("runs", []), known.get("numbers", []), strict=True))
    free, numbers = itertools.count(max(before.values(), default=-1) + 1), list[int]()
    for member in sweep.members:
        number = before.pop(member.spec.folder, None)
        numbers.append(next(free) if number is None else number)
    return numbers, before


# ---- submitting
def reconcile(
    sweep: Sweep, retry: Iterable[str], dry_run: bool, quiet: bool = False, prune: bool = False
) -> int:
    """Submit missing members; with `prune` cancel what is no longer a member. Return 0, or 2 if
    members failed and were not retried.
    """
    ledger = Ledger(sweep.home)
    with ledger.locked():
        selected = select_members(sweep, exclusive=True, dry_run=dry_run)
        wanted = [
            index
            for index, run in enumerate(selected)
            if run.state.missing or run.state.name in retry
        ]
        if not quiet:
            _show(sweep, selected, set(wanted))
        for why, count in Counter(
            run.state.why for run in selected if run.state.name == "uncertain"
        ).items():
            console.say(f"{count} members are uncertain and left alone: {why}")
        if not quiet:
            _drop(sweep, ledger, prune, dry_run)
        if dry_run:
            if wanted:
                console.say(executors.test(sweep.executor, sweep.resources, len(wanted)))
            console.say("nothing was submitted")
            return 0
        write(sweep)
        if wanted:
            _submit(sweep, wanted, selected)
    failed = [
        run
        for run in selected
        if run.state.name in ("failed", "cancelled", "unknown", "held")
        and run.state.name not in retry
    ]
    if failed and not quiet:
        counts = Counter(run.state.name for run in failed)
        again = next((name for name in counts if name != "held"), None)
        console.say(
            f"{', '.join(f'{count} {name}' for name, count in counts.items())}: "
            f"`{console.command('why', f'{sweep.name}:{failed[0].index}')}` says why"
            + (f"; --retry {again} submits them again" if again else "")
        )
    if not quiet:
        console.say(
            f"next: {console.command('status', sweep.name)}"
            if any(run.state.name != "done" for run in selected)
            else f"all done. next: {console.command('sweep', sweep.name, '--report')}"
        )
    return 2 if failed else 0


def _drop(sweep: Sweep, ledger: Ledger, prune: bool, dry_run: bool) -> None:
    """Name the runs that are no longer members, and with `prune` cancel those under way."""
    _, dropped = numbering(sweep)
    if not dropped:
        return
    need_slurm = not sweep.executor.is_local
    rows, submissions = executors.query(ledger, True, need_slurm, dry_run)
    runs = [
        inspect(Path(run), submissions.get(run), rows, sweep.name, number)
        for run, number in sorted(dropped.items(), key=lambda pair: pair[1])
    ]
    active = [run for run in runs if run.queue_entry and run.queue_entry.active]
    console.say(f"{len(runs)} runs are no longer members of {sweep.name}:")
    for run in (active + [run for run in runs if run not in active])[:SHOWN]:
        console.say(f"  {sweep.name}:{run.index} {run.folder.name} is {run.state.name}")
    if active and not prune:
        console.say("  what is under way goes on; --prune cancels it")
    if active and prune and dry_run:
        console.say(f"  {len(active)} would be cancelled")
    elif active and prune:
        members = {member.spec.folder for member in sweep.members}
        sweeps = read_sweeps(sweep.home)
        elsewhere = {
            run: name for name, one in sweeps.items() if name != sweep.name for run in one["runs"]
        }
        for key in dict.fromkeys(run.key for run in active if run.key):
            submitted = next(run.submitted for run in active if run.key == key)
            folders = submitted.submission.members[submitted.element] if submitted else []
            if shared := members.intersection(folders):
                console.say(f"  job {key} goes on: it also trains {Path(min(shared)).name}")
                continue
            if shared := elsewhere.keys() & folders:
                console.say(
                    f"  job {key} goes on: sweep {elsewhere[min(shared)]} has this run, too"
                )
                continue
            words = executors.cancel(ledger.home, [submitted] if submitted else []).get(key)
            console.say(f"  job {key} was {f'NOT cancelled: {words}' if words else 'cancelled'}")
            if submitted and not words:
                ledger.append(
                    {"state": "cancelled", "id": submitted.submission.id, "runs": folders}
                )


def _submit(sweep: Sweep, wanted: list[int], selected: list[SelectedRun]) -> None:
    most, limit = sweep.executor.limits(sweep.resources)
    if not sweep.executor.is_local:
        chosen = [sweep.members[index] for index in wanted]
        for line in submit_warnings.collect(sweep.resources, chosen):
            console.say(f"warning: {line}")
    room = len(wanted)
    if limit is not None:
        room = max(0, limit - sum(row.active for row in client.queue().values()))
    stages = _stages(sweep, wanted, selected)
    unsubmitted, previous = 0, ""
    for depth, stage in enumerate(stages):
        pack = sweep.resources.pack if sweep.definition.chain is None else 1
        elements = [stage[start : start + pack] for start in range(0, len(stage), pack)]
        fits, room = elements[:room], max(0, room - len(elements))
        unsubmitted += len(elements) - len(fits)
        for part in (
            [fits[start : start + most] for start in range(0, len(fits), most)]
            if depth == 0
            else [[element] for element in fits]
        ):
            job = _array(
                sweep,
                part,
                None if depth == 0 else _dependency(sweep, part[0][0]),
                after=previous if depth == 0 else "",
            )
            previous = job if sweep.resources.max_parallel and depth == 0 else ""
    if unsubmitted:
        console.say(
            f"{unsubmitted} jobs are not submitted yet: the limit is {limit} at a time."
            " Run the same line again later, or use --watch"
        )


def _stages(sweep: Sweep, wanted: list[int], selected: list[SelectedRun]) -> list[list[int]]:
    """Group members by how many others they wait for; those that wait for none come first.

    Members whose source will not come are held back with a message.
    """
    by_folder = {member.spec.folder: index for index, member in enumerate(sweep.members)}

    def depth(index: int) -> int | None:
        source = by_folder.get(sweep.members[index].after or "")
        if source is None or selected[source].state.name == "done":
            return 0
        if source in wanted:
            levels = depth(source)
            return None if levels is None else levels + 1
        return 1 if (entry := selected[source].queue_entry) and entry.active else None

    stages: dict[int, list[int]] = {0: []}
    for index in wanted:
        level = depth(index)
        if level is None:
            source = selected[by_folder[sweep.members[index].after or ""]]
            console.say(
                f"member {index} is held back: it grows from member {source.index}, which is"
                f" {source.state.name}; retry that one first (--retry {source.state.name})"
            )
        else:
            stages.setdefault(level, []).append(index)
    return [stages[level] for level in sorted(stages)]


def _dependency(sweep: Sweep, index: int) -> str | None:
    """Return sbatch's dependency on the run that a member grows from."""
    submitted = Ledger(sweep.home).last_submissions().get(sweep.members[index].after or "")
    return f"afterok:{submitted.key}" if submitted and submitted.key else None


def _array(sweep: Sweep, part: list[list[int]], dependency: str | None, after: str = "") -> str:
    """Submit one array; return its job.

    `after`: an array that must end first, if the number of jobs at a time is limited and there are
    several arrays.
    """
    for element in part:
        for index in element:
            clear_end_markers(sweep.members[index])
    resources = (
        sweep.resources
        if sweep.definition.chain is None
        else sweep.resources.model_copy(update={"pack": 1})
    )
    elements = [
        [
            RunSpec(
                sweep.members[i].spec.folder,
                snapshot_files(sweep.members[i].spec.words, sweep.folder / "files"),
            )
            for i in element
        ]
        for element in part
    ]
    submitted = sweep.executor.submit(
        sweep.home,
        elements,
        resources,
        sweep=sweep.name,
        dependency=dependency or (f"afterany:{after}" if after else None),
    )
    console.say(
        f"submitted   job {submitted.job}: {sum(map(len, elements))} runs in {len(elements)}"
        f" job{'s' * (len(elements) > 1)}" + (f", {dependency}" if dependency else "")
    )
    return submitted.job or ""


def write(sweep: Sweep) -> None:
    """Write members.json, by which other verbs know the sweep by its name."""
    with disk_errors(sweep.folder):
        make_folder(sweep.folder)
    numbers, dropped = numbering(sweep)
    write_atomic(
        sweep.folder / "members.json",
        json.dumps(
            {
                "recipe": sweep.definition.recipe,
                "words": sweep.definition.words,
                "chain": sweep.definition.chain,
                "resources": sweep.resources.model_dump(mode="json"),
                "runs": [member.spec.folder for member in sweep.members],
                "values": [member.values for member in sweep.members],
                "numbers": numbers,
                "dropped": dropped,
                "epochs": [member.run.epochs for member in sweep.members],
            }
        ),
    )


def _show(sweep: Sweep, selected: list[SelectedRun], wanted: set[int]) -> None:
    """Print members and states, what will be submitted, and what that may cost."""
    parsed = sweep.definition
    recipes = dict.fromkeys(member.values.get("recipe", parsed.recipe) for member in sweep.members)
    console.say(
        f"sweep {sweep.name}: {len(selected)} runs of {', '.join(recipes)}\njob        "
        f" {sweep.executor.describe(sweep.resources)}\n"
    )
    keys = [*dict.fromkeys(key for member in sweep.members for key in member.values)]
    rows = [
        (
            str(run.index),
            *(str(sweep.members[index].values.get(key, "–")) for key in keys),
            run.state.name,
            (
                "submit"
                if index in wanted
                else {
                    "done": "–",
                    "failed": "leave (--retry failed)",
                    "cancelled": "leave (--retry cancelled)",
                    "stopped": "leave (--retry stopped)",
                    "unknown": "leave (--retry unknown)",
                    "held": f"leave (scontrol release {run.key})",
                }.get(run.state.name, "leave")
            ),
        )
        for index, run in enumerate(selected[:SHOWN])
    ]
    console.table(("", *keys, "state", "to do"), rows)
    if len(selected) > SHOWN:
        console.say(f"… and {len(selected) - SHOWN} more")
    states = Counter(run.state.name for run in selected)
    console.say(
        f"\n{', '.join(f'{count} {state}' for state, count in states.items())}; to submit:"
        f" {len(wanted)}"
    )
    finished = [run.folder for run in selected if run.state.name == "done"]
    if wanted and (finished or not sweep.executor.is_local):  # here no time limit bounds it
        console.say(f"cost        {estimate(sweep.resources, finished, len(wanted))}")
