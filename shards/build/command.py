"""`distgan shard SOURCE OUT`: check a source, split it, and write its samples as shards.

    OUT/dataset.json                     source, options, sample kind, counts, what was left out and
                                         why, fingerprint over all splits
    OUT/train/train-000000.tar …         and index, manifest.json, SHA256SUMS: see distgan.shards.format.index
    OUT/validation/validation-000000.tar …

Nothing is written before the source is checked. dataset.json comes first, with "complete": false,
so a run that was killed can be run again: shards that are whole are kept, the others written, the
bytes are those of a run that was never killed. The tasks of a job array (`--task K/N`) do the same,
each with its own shards, and `--finish` notices a task that was lost.
"""

import argparse
import os
import re
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from distgan.core import console
from distgan.core.errors import ConfigError, DataError, DistganError
from distgan.core.worker_pool import default_workers
from distgan.shards.build.plan import Task, build, finish, missing, shard_files, table
from distgan.shards.format.index import load_json
from distgan.shards.format.manifest import DATASET, VERSION, load_manifest
from distgan.shards.sources._base import load_source, source_names

ARRAY = """
On a cluster, as a job array: the tasks write different shards, in any order, and the bytes are those of one run.
  sbatch --array=0-7 --wrap 'the same line --task slurm'
  the same line --finish""".strip()
_TEMPORARY = ".tmp"


def main(argv: list[str]) -> int:
    """`distgan shard`: 0 when the shards are complete; ConfigError and DataError for what the user
    must change.
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
            mine, every = shard_files(out, dataset)[task[0] :: task[1]], shard_files(out, dataset)
            console.say(
                f"{out}: task {args.task} is done, {len(mine)} of {len(every)} shards; after all"
                f" tasks: {line} --finish"
            )
        else:
            _report(out, dataset)
    return 0


def _begun(out: Path, name: str, options: dict[str, Any]) -> bool:
    """Whether `out` holds this very dataset, finished or not.

    ConfigError if it holds anything else.
    """
    if out.exists() and not out.is_dir():
        raise ConfigError(f"{out} is a file; the shards need a folder")
    if not (out / DATASET).is_file():
        found = (
            sorted(path.name for path in out.iterdir() if _TEMPORARY not in path.name)
            if out.is_dir()
            else []
        )
        if found:
            some = ", ".join(found[:3] + ["…"] * (len(found) > 3))
            raise ConfigError(
                f"{out} is not empty ({some}) and has no {DATASET}; choose a new folder"
            )
        return False
    there = load_json(out / DATASET)
    if there.get("version") != VERSION:
        raise ConfigError(
            f"{out / DATASET} has version {there.get('version')}; this program continues version"
            f" {VERSION}; choose another folder"
        )
    differ = (
        []
        if there.get("source") == name
        else [f"  source: {there.get('source')} there, {name} now"]
    )
    before = there.get("options", {})
    differ += [
        f"  --{option}: {before.get(option)} there, {options.get(option)} now"
        for option in dict.fromkeys([*options, *before])
        if not differ and before.get(option) != options.get(option)
    ]
    if differ:
        raise ConfigError(
            "\n".join(
                [
                    f"{out} was made with other options; nothing was overwritten",
                    *differ,
                    "choose another folder, or delete this one",
                ]
            )
        )
    return True


def _is_complete(out: Path, task: Task | None) -> bool:
    """Reads every shard, with a task its own: what is found damaged is written again."""
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
    """`3/8` -> (3, 8); `slurm` -> the place of this task in its job array. ConfigError for anything
    else.
    """
    if text == "slurm":
        try:
            first, count, mine = (
                int(environment[f"SLURM_ARRAY_TASK_{name}"]) for name in ("MIN", "COUNT", "ID")
            )
        except (KeyError, ValueError) as error:
            raise ConfigError(
                "--task slurm: this is not a task of a job array; start it with sbatch --array=0-7,"
                " or write --task K/N"
            ) from error
        number = mine - first
    elif found := re.fullmatch(r"(\d+)/(\d+)", text):
        number, count = int(found[1]), int(found[2])
    else:
        raise ConfigError(f"--task {text}: K/N, such as 0/8, or slurm")
    if not 0 <= number < count:
        raise ConfigError(
            f"--task {text}: task {number} of {count}; tasks are numbered from 0 to {count - 1}"
            + (
                ", without gaps: for some tasks of an array write --task K/N"
                if text == "slurm"
                else ""
            )
        )
    return number, count


def _line(argv: list[str]) -> str:
    """The command line for the whole set: without --task and --finish."""
    words = [
        word
        for before, word in zip(["", *argv], argv, strict=False)
        if word not in ("--finish", "--task")
        and before != "--task"
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
        (
            "Check a source, split it into train and validation, and write both as verified"
            " WebDataset shards."
        ),
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
    check = f"distgan check {shlex.quote(out)}"
    return (
        [check, f"distgan run --processes 2 {module.RECIPE} {shlex.quote(f'data={out}')}"]
        if module.RECIPE
        else [check]
    )


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
        help=(
            "leave out samples that are unreadable or of low quality; they are reported with or"
            " without it"
        ),
    )
    parser.add_argument(
        "--workers",
        type=int,
        default=default_workers(),
        metavar="N",
        help=(
            "processes that make samples; the bytes do not depend on it (default here: %(default)s)"
        ),
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


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except DistganError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
