"""Plan and check every member of a sweep before anything is submitted."""

import hashlib
import json
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

from distgan.core import console
from distgan.core.arguments import Arguments
from distgan.core.errors import ConfigError, LaunchError, RunError
from distgan.launchers.executors import interface as executors
from distgan.launchers.executors.interface import Executor
from distgan.launchers.runs.plan import PlannedRun, plan_run, runs_folder
from distgan.launchers.slurm import profiles
from distgan.launchers.sweeps import definition
from distgan.launchers.sweeps.definition import SweepDefinition


@dataclass(frozen=True)
class Sweep:
    """A sweep whose members were all checked."""

    name: str
    definition: SweepDefinition
    members: list[PlannedRun]
    resources: profiles.Resources
    home: Path
    executor: Executor

    @property
    def folder(self) -> Path:
        return self.home / "_sweeps" / self.name


def plan_sweep(options: Arguments) -> Sweep:
    """Read a sweep and check all members; raise one ConfigError with the faults of all."""
    parsed = definition.read(options.words)
    executor, resources = executors.chosen(options, parsed.slurm)
    name = options.name or _default_name(options.words, parsed)
    if parsed.search:
        first = plan_run([parsed.recipe, *parsed.words], resources)
        return Sweep(name, parsed, [], resources, runs_folder(first.run), executor)
    members, faults = plan_members(parsed, resources)
    if faults:
        raise ConfigError(
            "\n".join(
                [
                    (
                        f"{len(faults)} of {len(parsed.values)} members cannot be trained; nothing"
                        " was submitted:"
                    ),
                    *faults[:10],
                    *([f"  and {len(faults) - 10} more"] if len(faults) > 10 else []),
                ]
            )
        )
    twice = [
        folder
        for folder, count in Counter(member.spec.folder for member in members).items()
        if count > 1
    ]
    if twice:
        same = [member.values for member in members if member.spec.folder == twice[0]]
        raise ConfigError(
            f"{len(twice)} runs are in the sweep twice: {same[0]} and {same[1]} differ in no"
            " setting that is part of a run's identity"
        )
    return Sweep(name, parsed, members, resources, runs_folder(members[0].run), executor)


def plan_members(
    parsed: SweepDefinition, resources: profiles.Resources
) -> tuple[list[PlannedRun], list[str]]:
    """Return (all members, one text for each faulty member)."""
    planned: dict[int, PlannedRun] = {}
    faults = []
    sources = (
        {
            after: number
            for group in definition.chains(parsed.values, parsed.chain)
            for number, after in zip(group, group[1:], strict=False)
        }
        if parsed.chain
        else {}
    )
    order = (
        [number for group in definition.chains(parsed.values, parsed.chain) for number in group]
        if parsed.chain
        else range(len(parsed.values))
    )
    with console.bar("checking", len(parsed.values), "members") as bar:
        for number in order:
            values = parsed.values[number]
            words = definition.member_words(parsed, values)
            try:
                if number in sources and sources[number] in planned:
                    source = planned[sources[number]]
                    planned[number] = replace(
                        plan_run(
                            [*words, f"grow={source.folder}@best"],
                            resources,
                            values,
                            chain=_stand_in_digest(source),
                        ),
                        after=source.spec.folder,
                    )
                else:
                    planned[number] = plan_run(words, resources, values)
            except (ConfigError, LaunchError, RunError, ValueError) as error:
                faults.append(
                    f"  {', '.join(definition.to_words(values)) or 'the only member'}: "
                    + str(error).replace("\n", "\n    ")
                )
            bar.advance()
    return [planned[number] for number in sorted(planned)], faults


def _stand_in_digest(source: PlannedRun) -> str:
    """Return a stand-in for the digest of a checkpoint that is not written yet."""
    return hashlib.sha256(f"best of {source.folder.name}".encode()).hexdigest()


def _default_name(words: list[str], parsed: SweepDefinition) -> str:
    stem = Path(words[0]).stem
    if len(words) == 1 and Path(words[0]).suffix:
        return is_name(stem) and stem or "sweep"
    digest = hashlib.sha256(
        json.dumps(
            [parsed.recipe, parsed.words, parsed.values], sort_keys=True, default=str
        ).encode()
    ).hexdigest()[:6]
    keys = "-".join(key.rpartition(".")[2] for key in (parsed.values[0] if parsed.values else {}))
    return f"{stem}-{keys}-{digest}"[-80:] if keys else f"{stem}-{digest}"


def is_name(text: str) -> bool:
    return (
        0 < len(text) <= 80
        and text[0].isalnum()
        and all(sign.isascii() and (sign.isalnum() or sign in "._-") for sign in text)
    )
