"""Plan and check every member of a sweep before anything is submitted."""

import argparse
import hashlib
import json
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

from distgan.core import console
from distgan.core.errors import ConfigError, LaunchError
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

    @property
    def folder(self) -> Path:
        return self.home / "_sweeps" / self.name


def plan_sweep(options: argparse.Namespace) -> Sweep:
    """Read a sweep and check all members; raise one ConfigError with the faults of all."""
    asked = definition.read(options.words)
    resources = profiles.chosen(options, asked.slurm)
    name = options.name or _default_name(options.words, asked)
    if asked.search:
        first = plan_run([asked.recipe, *asked.words], resources)
        return Sweep(name, asked, [], resources, runs_folder(first.run))
    members, faults = plan_members(asked, resources)
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
        folder for folder, count in Counter(one.spec.folder for one in members).items() if count > 1
    ]
    if twice:
        same = [one.values for one in members if one.spec.folder == twice[0]]
        raise ConfigError(
            f"{len(twice)} runs are in the sweep twice: {same[0]} and {same[1]} differ in no"
            " setting that is part of a run's identity"
        )
    return Sweep(name, asked, members, resources, runs_folder(members[0].run))


def plan_members(
    asked: SweepDefinition, resources: profiles.Resources
) -> tuple[list[PlannedRun], list[str]]:
    """Return (all members, one text for each faulty member)."""
    found: dict[int, PlannedRun] = {}
    faults = []
    before = (
        {
            after: number
            for group in definition.chains(asked.values, asked.chain)
            for number, after in zip(group, group[1:], strict=False)
        }
        if asked.chain
        else {}
    )
    order = (
        [number for group in definition.chains(asked.values, asked.chain) for number in group]
        if asked.chain
        else range(len(asked.values))
    )
    with console.bar("checking", len(asked.values), "members") as bar:
        for number in order:
            values = asked.values[number]
            words = [asked.recipe, *asked.words, *definition.to_words(values)]
            try:
                if number in before and before[number] in found:
                    source = found[before[number]]
                    found[number] = replace(
                        plan_run(
                            [*words, f"grow={source.folder}@best"],
                            resources,
                            values,
                            chain=_stand_in_digest(source),
                        ),
                        after=source.spec.folder,
                    )
                else:
                    found[number] = plan_run(words, resources, values)
            except (ConfigError, LaunchError, ValueError) as error:
                faults.append(
                    f"  {', '.join(definition.to_words(values)) or 'the only member'}: "
                    + str(error).replace("\n", "\n    ")
                )
            bar.advance()
    return [found[number] for number in sorted(found)], faults


def _stand_in_digest(source: PlannedRun) -> str:
    """Return a stand-in for the digest of a checkpoint that is not written yet."""
    return hashlib.sha256(f"best of {source.folder.name}".encode()).hexdigest()


def _default_name(words: list[str], asked: SweepDefinition) -> str:
    stem = Path(words[0]).stem
    if len(words) == 1 and Path(words[0]).suffix:
        return is_name(stem) and stem or "sweep"
    digest = hashlib.sha256(
        json.dumps([asked.recipe, asked.words, asked.values], sort_keys=True, default=str).encode()
    ).hexdigest()[:6]
    keys = "-".join(key.rpartition(".")[2] for key in (asked.values[0] if asked.values else {}))
    return f"{stem}-{keys}-{digest}"[-80:] if keys else f"{stem}-{digest}"


def is_name(text: str) -> bool:
    return (
        0 < len(text) <= 80
        and text[0].isalnum()
        and all(sign.isascii() and (sign.isalnum() or sign in "._-") for sign in text)
    )
