"""`distgan sweep`: the runs of a sweep file, or of `key=a,b`, as arrays of Slurm. The file is what
is wanted: the same line again submits what is missing.
"""

import argparse
import hashlib
import json
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from distgan import recipes
from distgan.core import console
from distgan.core.errors import ConfigError, LaunchError, RunError
from distgan.launchers.runs import accounting as accounts
from distgan.launchers.runs import plan as plans
from distgan.launchers.runs import submit_warnings as cautions
from distgan.launchers.runs.plan import Planned
from distgan.launchers.runs.selection import Found, examine, known, with_accounting
from distgan.launchers.slurm import client as cluster
from distgan.launchers.slurm import profiles, submission
from distgan.launchers.slurm.ledger import Ledger
from distgan.launchers.sweeps import comparison
from distgan.launchers.sweeps import definition as grid
from distgan.runs import folder as runs

EPILOG = """examples:
  distgan sweep sagan data=data/particles ngf=64,96 seed=0,1,2 --profile gpu --max-parallel 4     6 runs, 4 at a time
  distgan sweep sweep.yaml                              a file; `distgan sweep --help-file` shows its keys
  distgan sweep sweep.yaml --dry-run                    the plan, what it may cost, and when Slurm would start it
  distgan sweep sweep.yaml --pack 4                     four small models beside each other in each job
  distgan sweep sweep.yaml --retry failed               submit again what failed, too
  distgan sweep NAME --report                           compare what there is, of a sweep by its name, or with its words or file again

Nothing has to stay alive. The same line again submits what is missing, leaves alone what is queued, running or done, and offers what failed."""
SHOWN = 24  # members that are listed one by one


@dataclass(frozen=True)
class Sweep:
    """A sweep whose every member was checked."""

    name: str
    asked: grid.Asked
    members: list[Planned]
    resources: profiles.Resources
    home: Path

    @property
    def folder(self) -> Path:
        return self.home / "_sweeps" / self.name


def main(argv: list[str]) -> int:
    if "--help-file" in argv:
        console.say(
            "What a sweep file asks for, all but `recipe` and one kind of members optional:\n"
            + grid.__doc__.partition("\n")[2]
        )
        return 0
    parser = argparse.ArgumentParser(
        prog="distgan sweep",
        description=__doc__.partition(": ")[2],
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "words",
        nargs="+",
        metavar="SWEEP.yaml|RECIPE|RUN.yaml key=value key=a,b …",
        help="`key=a,b` and `'key=range(3)'` make members, as many as there are combinations",
    )
    parser.add_argument(
        "--name", help="of the sweep (default: of its file, or made of its recipe and keys)"
    )
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="the plan alone: check everything, ask Slurm when it would start, submit nothing",
    )
    parser.add_argument(
        "--retry",
        action="append",
        default=[],
        choices=("failed", "cancelled", "stopped"),
        help="submit these again as well",
    )
    parser.add_argument(
        "--report",
        action="store_true",
        help="write and print the comparison of the members; submit nothing",
    )
    parser.add_argument(
        "--watch",
        action="store_true",
        help="stay, feed what limits of the cluster did not let in at once, and report at the end",
    )
    profiles.add_options(parser, many=True)
    options = parser.parse_intermixed_args(argv)
    if options.name and not _is_name(options.name):
        parser.error(
            f"--name: found {options.name!r}, allowed are letters, digits, _ - and ., at most 80"
        )
    if (
        options.report
        and len(options.words) == 1
        and (kept := comparison.known(Path("runs").resolve(), options.words[0]))[0]
    ):  # a sweep's name
        comparison.write(Path("runs").resolve() / "_sweeps" / options.words[0], *kept)
        return 0
    if (
        options.report
        and len(options.words) == 1
        and _is_name(options.words[0])
        and options.words[0] not in recipes.names()
        and not Path(options.words[0]).is_file()
    ):
        there = ", ".join(known(Path("runs").resolve()))
        raise RunError(
            f"no sweep in {Path('runs').resolve()} is called {options.words[0]}; "
            + (f"there are {there}" if there else "there is none")
            + ". A file or the words of a sweep will do, too"
        )
    sweep = plan(options)
    if options.report:
        comparison.write(
            sweep.folder,
            [str(one.folder) for one in sweep.members],
            [one.values for one in sweep.members],
        )
        return 0
    if sweep.asked.search:
        from distgan.launchers.sweeps import search

        return search.advance(sweep, watch=options.watch, dry_run=options.dry_run)
    code = reconcile(sweep, options.retry, options.dry_run)
    while options.watch and not options.dry_run:
        time.sleep(30)
        try:
            code, found_all = reconcile(sweep, [], False, quiet=True), look(sweep)
        except LaunchError as error:  # a controller that restarts, another distgan that submits
            console.say(f"warning: {error}; trying again")
            continue
        counts = Counter(one.state.name for one in found_all)
        console.say(
            f"{time.strftime('%H:%M:%S')} "
            f" {', '.join(f'{count} {name}' for name, count in counts.items())}"
        )
        if all(
            found.state.name in ("done", "failed", "cancelled", "stopped") for found in found_all
        ):
            comparison.write(
                sweep.folder,
                [str(one.folder) for one in sweep.members],
                [one.values for one in sweep.members],
            )
            return code
    return code


def plan(options: argparse.Namespace) -> Sweep:
    """Read it and check every member, before anything is submitted.

    One ConfigError lists the faults of all members.
    """
    asked = grid.read(options.words)
    resources = profiles.chosen(options, asked.slurm)
    name = options.name or _name(options.words, asked)
    if asked.search:
        first = plans.plan([asked.recipe, *asked.words], resources)
        return Sweep(name, asked, [], resources, plans.home_of(first.run))
    members, faults = check(asked, resources)
    if faults:
        raise ConfigError(
            "\n".join(
                [
                    (
                        f"{len(faults)} of {len(asked.values)} members cannot be trained; nothing"
                        " was submitted:"
                    ),
                    *faults[:10],
                    *([f"  and {len(faults) - 10} more"] if len(faults) > 10 else []),
                ]
            )
        )
    twice = [
        folder
        for folder, count in Counter(one.member.folder for one in members).items()
        if count > 1
    ]
    if twice:
        same = [one.values for one in members if one.member.folder == twice[0]]
        raise ConfigError(
            f"{len(twice)} runs stand twice in the sweep: {same[0]} and {same[1]} differ in nothing"
            " that makes a run another one"
        )
    return Sweep(name, asked, members, resources, plans.home_of(members[0].run))


def check(asked: grid.Asked, resources: profiles.Resources) -> tuple[list[Planned], list[str]]:
    """(all members, a text for each that is wrong)."""
    found: dict[int, Planned] = {}
    faults = []
    before = (
        {
            after: number
            for group in grid.chains(asked.values, asked.chain)
            for number, after in zip(group, group[1:], strict=False)
        }
        if asked.chain
        else {}
    )
    order = (
        [number for group in grid.chains(asked.values, asked.chain) for number in group]
        if asked.chain
        else range(len(asked.values))
    )
    with console.bar("checking", len(asked.values), "members") as bar:
        for number in order:
            values = asked.values[number]
            words = [asked.recipe, *asked.words, *grid.words(values)]
            try:
                if number in before and before[number] in found:
                    source = found[before[number]]
                    found[number] = replace(
                        plans.plan(
                            [*words, f"grow={source.folder}@best"],
                            resources,
                            values,
                            chain=_after(source),
                        ),
                        after=source.member.folder,
                    )
                else:
                    found[number] = plans.plan(words, resources, values)
            except (ConfigError, LaunchError, ValueError) as error:
                faults.append(
                    f"  {', '.join(grid.words(values)) or 'the only member'}: "
                    + str(error).replace("\n", "\n    ")
                )
            bar.advance()
    return [found[number] for number in sorted(found)], faults


def _after(source: Planned) -> str:
    """What stands for the digest of a checkpoint that is not there yet: the run that will write it."""
    return hashlib.sha256(f"best of {source.folder.name}".encode()).hexdigest()


def _name(words: list[str], asked: grid.Asked) -> str:
    stem = Path(words[0]).stem
    if len(words) == 1 and Path(words[0]).suffix:
        return _is_name(stem) and stem or "sweep"
    digest = hashlib.sha256(
        json.dumps([asked.recipe, asked.words, asked.values], sort_keys=True, default=str).encode()
    ).hexdigest()[:6]
    keys = "-".join(key.rpartition(".")[2] for key in (asked.values[0] if asked.values else {}))
    return f"{stem}-{keys}-{digest}"[-80:] if keys else f"{stem}-{digest}"


def _is_name(text: str) -> bool:
    return (
        0 < len(text) <= 80
        and text[0].isalnum()
        and all(sign.isascii() and (sign.isalnum() or sign in "._-") for sign in text)
    )


def look(sweep: Sweep, alone: bool = False) -> list[Found]:
    """The members with their states: one call of squeue. `alone`: under the ledger's lock."""
    rows, places = Ledger(sweep.home).ask(alone)
    return with_accounting(
        [
            examine(one.folder, places.get(one.member.folder), rows, sweep.name, index, one.steps)
            for index, one in enumerate(sweep.members)
        ]
    )


# ---- submitting
def reconcile(sweep: Sweep, retry: Iterable[str], dry_run: bool, quiet: bool = False) -> int:
    """Submit what is missing. Exit code 0; 2 where members failed and were not asked for again."""
    ledger = Ledger(sweep.home)
    with ledger.locked():
        found = look(sweep, alone=True)
        wanted = [
            index for index, one in enumerate(found) if one.state.missing or one.state.name in retry
        ]
        if not quiet:
            _show(sweep, found, set(wanted))
        for why, count in Counter(
            one.state.why for one in found if one.state.name == "uncertain"
        ).items():
            console.say(
                f"{count} members are left alone, since it is not certain what they do: {why}"
            )
        if dry_run:
            if wanted:
                console.say(
                    "Slurm says:"
                    f" {submission.test_only(sweep.resources, min(len(wanted), cluster.facts().max_array))}"
                )
            console.say("nothing was submitted")
            return 0
        before = set(
            comparison.known(sweep.home, sweep.name)[0]
            if (sweep.folder / "members.json").exists()
            else ()
        )
        if gone := before - {one.member.folder for one in sweep.members}:
            console.say(
                f"{len(gone)} runs were members of {sweep.name} before and are no longer; they are"
                " left alone (distgan cancel takes a run by its name)"
            )
        write(sweep)
        if wanted:
            _submit(sweep, wanted, found)
    failed = [
        one
        for one in found
        if one.state.name in ("failed", "cancelled") and one.state.name not in retry
    ]
    if failed and not quiet:
        console.say(
            f"{len(failed)} failed or were cancelled: `distgan why {sweep.name}:{failed[0].index}`"
            " says why; --retry failed submits them again"
        )
    if not quiet:
        console.say(
            f"next: distgan status {sweep.name}"
            if any(one.state.name != "done" for one in found)
            else f"all done. next: distgan sweep {sweep.name} --report"
        )
    return 2 if failed else 0


def _submit(sweep: Sweep, wanted: list[int], found: list[Found]) -> None:
    facts = cluster.facts(sweep.resources.partition, sweep.resources.account)
    for line in cautions.of(sweep.resources, [sweep.members[index] for index in wanted]):
        console.say(f"warning: {line}")
    room = len(wanted)
    if facts.max_submit is not None:
        room = max(0, facts.max_submit - sum(row.active for row in cluster.queue().values()))
    stages = _stages(sweep, wanted, found)
    left, count = 0, 0
    for depth, stage in enumerate(stages):
        pack = sweep.resources.pack if sweep.asked.chain is None else 1
        elements = [stage[at : at + pack] for at in range(0, len(stage), pack)]
        fits, room = elements[:room], max(0, room - len(elements))
        left += len(elements) - len(fits)
        for part in (
            [fits[at : at + facts.max_array] for at in range(0, len(fits), facts.max_array)]
            if depth == 0
            else [[element] for element in fits]
        ):
            one = _array(
                sweep,
                part,
                None if depth == 0 else _dependency(sweep, part[0][0]),
                after=count if depth == 0 else 0,
            )
            count = one if sweep.resources.max_parallel and depth == 0 else 0
    if left:
        console.say(
            f"{left} jobs wait: this user may have {facts.max_submit} in the queue; the same line"
            " again submits further ones (--watch does so by itself)"
        )


def _stages(sweep: Sweep, wanted: list[int], found: list[Found]) -> list[list[int]]:
    """Members by how many others they wait for.

    The first are those that wait for none. Those whose source will not come are held back, and
    told.
    """
    by_folder = {one.member.folder: index for index, one in enumerate(sweep.members)}

    def depth(index: int) -> int | None:
        source = by_folder.get(sweep.members[index].after or "")
        if source is None or found[source].state.name == "done":
            return 0
        if source in wanted:
            before = depth(source)
            return None if before is None else before + 1
        return 1 if found[source].row and found[source].row.active else None

    stages: dict[int, list[int]] = {0: []}
    for index in wanted:
        level = depth(index)
        if level is None:
            source = found[by_folder[sweep.members[index].after]]
            console.say(
                f"member {index} waits: it grows from member {source.index}, which is"
                f" {source.state.name}; submit that one again first (--retry {source.state.name})"
            )
        else:
            stages.setdefault(level, []).append(index)
    return [stages[level] for level in sorted(stages)]


def _dependency(sweep: Sweep, index: int) -> str | None:
    """The job of the run that a member grows from."""
    place = Ledger(sweep.home).places().get(sweep.members[index].after or "")
    return f"afterok:{place.key}" if place and place.key else None


def _array(sweep: Sweep, part: list[list[int]], dependency: str | None, after: int = 0) -> int:
    """One sbatch; `after`: an array that must have ended, where only so many jobs may run at a time
    and there are several arrays. Returns its number.
    """
    for element in part:
        for index in element:
            plans.reopen(sweep.members[index])
    resources = (
        sweep.resources
        if sweep.asked.chain is None
        else sweep.resources.model_copy(update={"pack": 1})
    )
    elements = [
        [
            submission.Member(
                sweep.members[i].member.folder,
                plans.kept(sweep.members[i].member.words, sweep.folder / "files"),
            )
            for i in element
        ]
        for element in part
    ]
    one = submission.submit(
        sweep.home,
        elements,
        resources,
        sweep=sweep.name,
        dependency=dependency or (f"afterany:{after}" if after else None),
    )
    console.say(
        f"submitted   job {one.job}: {sum(map(len, elements))} runs in {len(elements)}"
        f" job{'s' * (len(elements) > 1)}" + (f", {dependency}" if dependency else "")
    )
    return int(one.job)


def write(sweep: Sweep) -> None:
    """Keep what was asked beside the runs, so that status and the others know the sweep by its
    name.
    """
    sweep.folder.mkdir(parents=True, exist_ok=True)
    runs.write(
        sweep.folder / "members.json",
        json.dumps(
            {
                "recipe": sweep.asked.recipe,
                "words": sweep.asked.words,
                "chain": sweep.asked.chain,
                "resources": sweep.resources.model_dump(mode="json"),
                "runs": [one.member.folder for one in sweep.members],
                "values": [one.values for one in sweep.members],
                "epochs": [one.run.epochs for one in sweep.members],
            }
        ),
    )


# ---- showing
def _show(sweep: Sweep, found: list[Found], wanted: set[int]) -> None:
    """The plan, before anything is done."""
    console.say(
        f"sweep {sweep.name}: {len(found)} runs of {sweep.asked.recipe}\njob        "
        f" {sweep.resources.describe()}\n"
    )
    keys = [*dict.fromkeys(key for one in sweep.members for key in one.values)]
    rows = [
        (
            str(index),
            *(str(sweep.members[index].values.get(key, "–")) for key in keys),
            one.state.name,
            (
                "submit"
                if index in wanted
                else {
                    "done": "–",
                    "failed": "offered: --retry failed",
                    "cancelled": "offered: --retry cancelled",
                    "stopped": "offered: --retry stopped",
                }.get(one.state.name, "leave")
            ),
        )
        for index, one in enumerate(found[:SHOWN])
    ]
    console.table(("", *keys, "state", "to do"), rows)
    if len(found) > SHOWN:
        console.say(f"… and {len(found) - SHOWN} more")
    states = Counter(one.state.name for one in found)
    console.say(
        f"\n{', '.join(f'{count} {state}' for state, count in states.items())}; to submit:"
        f" {len(wanted)}"
    )
    finished = [one.folder for one in found if one.state.name == "done"]
    if wanted:
        console.say(f"cost        {accounts.estimate(sweep.resources, finished, len(wanted))}")


def options_of(words: list[str], **more: Any) -> argparse.Namespace:
    """As if given on the command line, for other verbs that make a sweep."""
    empty = dict.fromkeys(
        (
            "name",
            "profile",
            "partition",
            "account",
            "time",
            "nodes",
            "gpus",
            "processes",
            "cpus",
            "mem_gb",
            "max_parallel",
            "pack",
        )
    )
    return argparse.Namespace(**{**empty, "set": [], "words": words, **more})
