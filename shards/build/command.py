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

import argparse
import os
import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from distgan.core import console
from distgan.core.errors import ConfigError, DataError
from distgan.core.worker_pool import default_workers
from distgan.shards.build.plan import Task, build, finish, missing, shard_files, table
from distgan.shards.format.index import load_json
from distgan.shards.format.manifest import DATASET, VERSION, load_manifest
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
    if not argv or argv[0] in ("-h", "--help"):
        console.say(_overview())
        return 0
    name = argv[0]
    module = load_source(name)
    args = _parser(name, module).parse_args(argv[1:])
    task = _check_options(args)
    source = module.Source(args)
    options = {
        **source.options,
        "validation": args.validation,
        "per-shard": args.per_shard,
        "drop-unreadable": args.drop_unreadable,
        "drop-low-quality": args.drop_low_quality,
    }
    out, line = Path(args.out), _line(argv)
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
                f"{out}: task {args.task} is done, {len(shards[task[0] :: task[1]])} of"
                f" {len(shards)} shards; after all tasks: {line} --finish"
            )
        else:
            _report(out, dataset)
    return 0


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
        differences = [
            f"  --{option}: {recorded.get(option)} there, {options.get(option)} now"
            for option in dict.fromkeys([*options, *recorded])
            if recorded.get(option) != options.get(option)
        ]
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


def _check_options(args: argparse.Namespace) -> Task | None:
    errors: list[str] = []
    task = None
    if not 0 < args.validation <= 0.5:
        errors.append(f"--validation {args.validation:g}: more than 0, at most 0.5 of the samples")
    if args.per_shard < 1:
        errors.append(f"--per-shard {args.per_shard}: at least 1 sample")
    if args.workers < 1:
        errors.append(f"--workers {args.workers}: at least 1 process")
    try:
        task = None if args.task is None else parse_task(args.task, os.environ)
    except ConfigError as error:
        errors.append(str(error))
    if errors:
        raise ConfigError("\n".join(errors))
    return task


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


def _line(argv: list[str]) -> str:
    """Return the command line for the whole set: without --task and --finish."""
    words = [
        word
        for previous, word in zip(["", *argv], argv, strict=False)
        if word not in ("--finish", "--task")
        and previous != "--task"
        and not word.startswith("--task=")
    ]
    return f"distgan shard {shlex.join(words)}"


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
    for command in _next_commands(load_source(dataset["source"]), str(out)):
        console.say(f"next: {command}")


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
        lines += [f"    then: {command}" for command in _next_commands(module, "OUT")]
    return "\n".join(lines)


def _next_commands(module: Any, out: str) -> list[str]:
    commands = [f"distgan check {shlex.quote(out)}"]
    if module.RECIPE:
        data = shlex.quote(f"data={out}")
        commands.append(f"distgan run --processes 2 {module.RECIPE} {data}")
    return commands


def _summary(module: Any) -> str:
    return module.__doc__.strip().partition("\n\n")[0].replace("\n", " ")


def _parser(name: str, module: Any) -> argparse.ArgumentParser:
    examples = "\n".join(f"  {line}\n      {what}" for what, line in module.EXAMPLES)
    parser = argparse.ArgumentParser(
        f"distgan shard {name}",
        description=_summary(module),
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=(
            f"examples:\n{examples}\n\nRunning the same line again finishes what was"
            f" interrupted.\n{ARRAY}\n\n"
        )
        + "\n".join(f"then: {command}" for command in _next_commands(module, "OUT")),
    )
    parser.add_argument(
        "out", metavar="OUT", help="folder to make, with train/ and validation/ in it"
    )
    module.add_options(parser)
    parser.add_argument(
        "--validation",
        type=float,
        default=getattr(module, "VALIDATION", 0.1),
        metavar="SHARE",
        help="share of the samples for validation, at most 0.5 (default: %(default)s)",
    )
    parser.add_argument(
        "--per-shard",
        type=int,
        default=1000,
        metavar="N",
        help="samples in one tar (default: %(default)s)",
    )
    parser.add_argument(
        "--drop-unreadable",
        action="store_true",
        help="leave out samples that cannot be read, instead of stopping; they are reported",
    )
    parser.add_argument(
        "--drop-low-quality",
        action="store_true",
        help="also leave out samples of low quality, which are always reported",
    )
    parser.add_argument(
        "--workers",
        type=int,
        default=default_workers(),
        metavar="N",
        help="processes; the bytes do not depend on their number (default here: %(default)s)",
    )
    part = parser.add_mutually_exclusive_group()
    part.add_argument(
        "--task",
        metavar="K/N",
        help="write only the shards of task K of N, 0 <= K < N; slurm: of this task of a job array",
    )
    part.add_argument(
        "--finish",
        action="store_true",
        help="write nothing but manifests, after all tasks; names what a lost task left out",
    )
    return parser
