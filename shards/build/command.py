"""`distgan shard SOURCE OUT`: check a source, split it, and write its samples as shards.

    OUT/dataset.json                     source, options, format of a sample, counts, the samples
                                         left out and why, fingerprint of all splits
    OUT/train/train-000000.tar …         and index, manifest.json, SHA256SUMS: see
                                         distgan.shards.format.index and manifest
    OUT/validation/validation-000000.tar …

Nothing is written before the source is checked. dataset.json comes first, with "complete": false,
so a killed run can be run again: finished shards are kept, the others written, and the bytes are
those of a run that was never killed. The tasks of a job array (`--task K/N`) do the same, each with
its own shards, and `--finish` detects a lost task.
"""

import os
import re
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from distgan.config import image_sizes
from distgan.core import console
from distgan.core.arguments import Arguments, Command, Option, number, switch, whole
from distgan.core.errors import ConfigError, DataError
from distgan.core.worker_pool import default_workers
from distgan.shards.build.advice import is_address
from distgan.shards.build.plan import (
    ADDED_OPTIONS,
    Task,
    build,
    finish,
    missing,
    other_options,
    shard_files,
    table,
)
from distgan.shards.format.index import load_json
from distgan.shards.format.manifest import DATASET, VERSION, load_manifest
from distgan.shards.format.sample_spec import next_lines
from distgan.shards.sources._base import load_source, source_names

ARRAY = """
On a cluster, as a job array: tasks write different shards, in any order; the bytes are those of
one run.
  sbatch --array=0-7 --wrap 'the same command --task slurm'
  the same command --finish""".strip()
_TEMPORARY = ".tmp"


def main(argv: list[str]) -> int:
    """Run `distgan shard`; return 0 when the shards are complete.

    ConfigError for wrong options, DataError for unusable samples or shards.
    """
    if argv[:1] in ([], ["-h"], ["--help"]):
        console.say(_overview())
        return 0
    if argv[0].startswith("-"):  # no source yet: all faults of the line at once
        COMMAND.parse(argv)
    name = argv[0]
    module = load_source(name)
    args = command_of(name).parse(argv[1:])
    _keep_choices(module, args)
    source, task = module.Source(args), args.task
    options = {
        **source.options,
        "validation": args.validation,
        "per-shard": args.per_shard,
        "drop-unreadable": args.drop_unreadable,
        "drop-low-quality": args.drop_low_quality,
    }
    out = Path(args.words[0])
    line = console.command("shard", name, *args.line("task", "finish"))
    if _begun(out, name, options) and _is_complete(out, task):
        console.say(
            f"{out} is complete: {_counts(load_json(out / DATASET))}; every"
            f" shard{' of this task' if task else ''} was read and has its sha256"
        )
    elif args.finish:
        _report(out, finish(out, line))
    else:
        dataset = build(name, source, out, options, args.workers, task)
        if task:
            shards = shard_files(out, dataset)
            console.say(
                f"{out}: task {args.given['task'][0]} is done, {len(shards[task[0] :: task[1]])} of"
                f" {len(shards)} shards; after all tasks: {line} --finish"
            )
        else:
            _report(out, dataset)
    return 0


def _keep_choices(module: Any, args: Arguments) -> None:
    """Give options of module.KEPT that are not on the line the values of a set that was begun."""
    dataset = Path(args.words[0]) / DATASET
    recorded = {}
    if dataset.is_file():
        recorded = ADDED_OPTIONS | load_json(dataset).get("options", {})
    for option in getattr(module, "KEPT", ()):
        if getattr(args, option, None) is None:
            setattr(args, option, recorded.get(option))


def _exclusive(args: Arguments) -> Iterator[str]:
    if is_address(out := (args.words or [""])[-1]):
        yield f"{out} is an address; shards are written to a folder: write them, then copy it there"
    if args.task and args.finish:
        yield "--task, --finish: give one of them"


SIZES = textwrap.fill(
    "The commands that train are for --size N or WxH that distgan's recipes train on:"
    f" {image_sizes.RULE}. Images of any other size are for a recipe of your own.",
    100,
)
COMMAND = Command(
    "shard",
    "Check a source, split it into train and validation, and write both as verified WebDataset"
    " shards.",
    (
        number(
            "validation",
            "share of the samples for validation",
            1e-9,
            0.5,
            metavar="SHARE",
            default=0.1,
            allowed="more than 0, at most 0.5 of the samples",
        ),
        whole("per-shard", "samples in one tar", 1, default=1000),
        switch(
            "drop-unreadable",
            "leave out samples that cannot be read, instead of stopping; they are reported",
        ),
        switch(
            "drop-low-quality",
            "leave out samples that are unreadable or of low quality; they are reported with or"
            " without it",
        ),
        whole(
            "workers",
            "processes that make samples; the bytes do not depend on it",
            1,
            default=default_workers(),
        ),
        Option(
            "task",
            "write only the shards of task K of N, 0 <= K < N; slurm: of this task of a job array",
            "K/N",
            read=lambda text: parse_task(text, os.environ),
        ),
        switch(
            "finish",
            "write nothing but manifests, after all tasks; names what a lost task left out",
        ),
    ),
    ("SOURCE OUT", f"what to shard ({', '.join(source_names())}), and the folder to make"),
    least=2,
    most=2,
    check=_exclusive,
)


def command_of(name: str) -> Command:
    """Return the command line of `distgan shard NAME`."""
    module = load_source(name)
    shared = [
        replace(option, default=getattr(module, "VALIDATION", option.default))
        if option.name == "validation"
        else option
        for option in COMMAND.options
    ]
    examples = "\n".join(f"  {line}\n      {meaning}" for meaning, line in module.EXAMPLES)
    following = "\n".join(f"then: {command}" for command in _usual_next(module))
    following += f"\n\n{SIZES}" if _has_sizes(module) else ""
    check = getattr(module, "check_options", lambda args: ())
    return Command(
        f"shard {name}",
        _summary(module),
        (*module.OPTIONS, *shared),
        ("OUT", "folder to make, with train/ and validation/ in it"),
        least=1,
        most=1,
        check=lambda args: [*_exclusive(args), *check(args)],
        epilog=(
            f"examples:\n{examples}\n\nRunning the same line again finishes what was interrupted."
            f"\n{ARRAY}\n\n{following}"
        ),
    )


def _begun(out: Path, name: str, options: dict[str, Any]) -> bool:
    """Return whether `out` holds this data set, finished or not; ConfigError for anything else."""
    if out.exists() and not out.is_dir():
        raise ConfigError(f"{out} is a file; the shards need a folder")
    if not (out / DATASET).is_file():
        names = []
        if out.is_dir():
            names = sorted(path.name for path in out.iterdir() if _TEMPORARY not in path.name)
        if names:
            first = ", ".join(names[:3] + (["…"] if len(names) > 3 else []))
            raise ConfigError(
                f"{out} is not empty ({first}) and has no {DATASET}; choose a new folder"
            )
        return False
    existing = load_json(out / DATASET)
    if existing.get("version") != VERSION:
        raise ConfigError(
            f"{out / DATASET} has version {existing.get('version')}; this program continues version"
            f" {VERSION}; choose another folder"
        )
    recorded = existing.get("options", {})
    if existing.get("source") == name:
        differences = other_options(recorded, options)
    else:
        differences = [f"  source: {existing.get('source')} there, {name} now"]
    if differences:
        lines = [f"{out} was made with other options; nothing was overwritten", *differences]
        raise ConfigError("\n".join([*lines, "choose another folder, or delete this one"]))
    return True


def _is_complete(out: Path, task: Task | None) -> bool:
    """Return whether all shards (with a task, its own) are whole; reads every one of them."""
    dataset = load_json(out / DATASET)
    if not dataset["complete"]:
        return False
    try:
        for part in dataset["samples"]:
            load_manifest(out / part)
    except DataError:
        return False
    shards = shard_files(out, dataset)
    return not missing(shards[task[0] :: task[1]] if task else shards)


def parse_task(text: str, environment: Mapping[str, str]) -> Task:
    """Parse `3/8` as (3, 8), and `slurm` as the position of this task in its job array.

    ConfigError for anything else.
    """
    if text == "slurm":
        try:
            first, count, task_id = (
                int(environment[f"SLURM_ARRAY_TASK_{name}"]) for name in ("MIN", "COUNT", "ID")
            )
        except (KeyError, ValueError) as error:
            raise ConfigError(
                "--task slurm: this is not a task of a job array; start it with sbatch --array=0-7,"
                " or write --task K/N"
            ) from error
        number = task_id - first
    elif match := re.fullmatch(r"(\d+)/(\d+)", text):
        number, count = int(match[1]), int(match[2])
    else:
        raise ConfigError(f"--task {text}: K/N, such as 0/8, or slurm")
    if not 0 <= number < count:
        hint = ", without gaps: for some tasks of an array write --task K/N"
        raise ConfigError(
            f"--task {text}: task {number} of {count}; tasks are numbered from 0 to {count - 1}"
            + (hint if text == "slurm" else "")
        )
    return number, count


def _counts(dataset: dict[str, Any]) -> str:
    return ", ".join(f"{count} {part}" for part, count in dataset["samples"].items())


def _report(out: Path, dataset: dict[str, Any]) -> None:
    for note in dataset["notes"]:
        console.say(note)
    for title, findings in (
        ("left out", dataset["left_out"]),
        (
            "of low quality, kept (leave them out with --drop-low-quality)",
            dataset["low_quality_kept"],
        ),
    ):
        if findings:
            console.say(f"{len(findings)} {title}:\n{table(findings)}")
    console.say(f"{out}: {_counts(dataset)}; fingerprint {dataset['fingerprint']}")
    usual = load_source(dataset["source"]).RECIPE
    for line in next_lines(out, dataset["sample"], usual, list(dataset.get("labels", {}))):
        console.say(f"next: {line}")


def _overview() -> str:
    lines = [
        "usage: distgan shard SOURCE OUT [options]",
        "",
        "Check a source, split it into train and validation, and write both as verified"
        " WebDataset shards.",
        "",
        "sources (`distgan shard SOURCE --help` explains the options of one):",
    ]
    for name in source_names():
        module = load_source(name)
        lines += ["", f"  {name}: {_summary(module)}"] + [
            f"    {line}\n        {what}" for what, line in module.EXAMPLES
        ]
        lines += [f"    then: {command}" for command in _usual_next(module)]
    lines += ["", SIZES]
    return "\n".join(lines)


def _usual_next(module: Any) -> list[str]:
    """Return the next commands, for help: of images of a size that recipes train on."""
    kind = getattr(module, "KIND", "pair")
    sample = {"kind": "image", "size": 64} if _has_sizes(module) else {"kind": kind}
    return next_lines("OUT", sample, module.RECIPE)


def _has_sizes(module: Any) -> bool:
    """Return whether it makes images of a size to choose, for recipes of distgan."""
    return bool(module.RECIPE) and any(option.name == "size" for option in module.OPTIONS)


def _summary(module: Any) -> str:
    return module.__doc__.strip().partition("\n\n")[0].replace("\n", " ")
