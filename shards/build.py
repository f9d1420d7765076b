"""`distgan shard SOURCE OUT`: check a source, split it, and write its samples as shards.

    OUT/dataset.json                     source, options, sample kind, counts, what was left out and why, fingerprint over all splits
    OUT/train/train-000000.tar …         and index, manifest.json, SHA256SUMS: see shards.index
    OUT/validation/validation-000000.tar …

Nothing is written before the source is checked. dataset.json comes first, with "complete": false, so a run that was killed can be run
again: shards that are whole are kept, the others written, the bytes are those of a run that was never killed.
"""

import argparse
import contextlib
import fcntl
import json
import os
import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from distgan import console
from distgan.errors import ConfigError, DataError, DistganError
from shards import sources
from shards.index import DATASET, VERSION, commit, fingerprint, is_written, load_json, load_manifest, write_manifest
from shards.parallel import default_workers, ordered_map
from shards.sources import Check, Finding
from shards.split import split
from shards.writer import write_shard

SHOWN = 30  # findings on the terminal; dataset.json has all of them
_TEMPORARY = ".tmp"


def main(argv: list[str]) -> int:
    """`distgan shard`: 0 when the shards are complete; ConfigError and DataError for what the user must change."""
    if not argv or argv[0] in ("-h", "--help"):
        console.say(_overview())
        return 0
    name = argv[0]
    module = sources.load(name)
    args = _parser(name, module).parse_args(argv[1:])
    _check_options(args)
    source = module.Source(args)
    options = {**source.options, "validation": args.validation, "per-shard": args.per_shard, "drop-low-quality": args.drop_low_quality}
    out = Path(args.out)
    if _begun(out, name, options) and _is_complete(out):
        console.say(f"{out} is complete: {_counts(load_json(out / DATASET))}; every shard was read and has its sha256")
        return 0
    build(name, source, out, options, args.workers)
    return 0


def build(name: str, source: Any, out: Path, options: dict[str, Any], workers: int) -> dict[str, Any]:
    """Check, split and write `source`, and return what dataset.json says.

    `options` decide the bytes (those of the source, and validation, per-shard, drop-low-quality). DataError if the source has samples that
    cannot be read and drop-low-quality is off; then nothing is written.
    """
    check: Check = source.check(workers)
    left_out = [finding for finding in check.findings if options["drop-low-quality"] or not finding.usable]
    if left_out and not options["drop-low-quality"]:
        raise DataError(f"{len(left_out)} of {len(source.keys)} samples cannot be read; nothing was written\n{_table(left_out)}\n"
                        "repair them, or leave them (and all of low quality) out with --drop-low-quality")
    absent = {finding.sample for finding in left_out}
    kept = [i for i in range(len(source.keys)) if i not in absent]
    parts = split([source.keys[i] for i in kept], [source.group(i) for i in kept], options["validation"])
    dataset = {"version": VERSION, "source": name, "options": options, "origin": source.origin, "sample": source.sample,
               "samples": {part: len(numbers) for part, numbers in parts.items()},
               "left_out": _plain(left_out), "low_quality_kept": _plain(f for f in check.findings if f.sample not in absent),
               "notes": check.notes, "complete": False, "fingerprint": None}
    out.mkdir(parents=True, exist_ok=True)
    with _alone(out):
        _commit_dataset(out, dataset)
        prints = [_write_split(source, out / part, [kept[i] for i in numbers], options["per-shard"], workers)["fingerprint"]
                  for part, numbers in parts.items()]
        dataset |= {"complete": True, "fingerprint": fingerprint(prints)}
        _commit_dataset(out, dataset)
    _report(out, dataset, check.findings, absent)
    return dataset


def _write_split(source: Any, folder: Path, numbers: list[int], per_shard: int, workers: int) -> dict[str, Any]:
    """Write those shards of one split that are not whole yet, and return the manifest."""
    folder.mkdir(exist_ok=True)
    for left_over in folder.glob(f"*{_TEMPORARY}*"):
        left_over.unlink()
    name = folder.name
    shards = [(folder / f"{name}-{start // per_shard:06d}.tar", numbers[start:start + per_shard])
              for start in range(0, len(numbers), per_shard)]
    missing = [(shard, samples) for shard, samples in shards if not is_written(shard)]
    todo = [i for _, samples in missing for i in samples]
    if len(missing) < len(shards):
        console.say(f"{folder}: {len(shards) - len(missing)} of {len(shards)} shards are whole already, kept")
    unit = "images" if source.sample["kind"] == "image" else "samples"
    with console.bar(f"sharding {name}", len(numbers), unit, start=len(numbers) - len(todo)) as bar, \
            contextlib.closing(_counted(ordered_map(source.make, todo, workers), bar)) as made:
        for shard, samples in missing:
            write_shard(shard, islice(made, len(samples)))
    return write_manifest(folder, name, len(numbers))


def _counted(made: Iterator[dict], bar: console.Bar) -> Iterator[dict]:
    for sample in made:
        bar.advance()
        yield sample


def _begun(out: Path, name: str, options: dict[str, Any]) -> bool:
    """Whether `out` holds this very dataset, finished or not; ConfigError if it holds anything else."""
    if out.exists() and not out.is_dir():
        raise ConfigError(f"{out} is a file; the shards need a folder")
    if not (out / DATASET).is_file():
        found = sorted(path.name for path in out.iterdir() if _TEMPORARY not in path.name) if out.is_dir() else []
        if found:
            some = ", ".join(found[:3] + ["…"] * (len(found) > 3))
            raise ConfigError(f"{out} is not empty ({some}) and has no {DATASET}; choose a new folder")
        return False
    there = load_json(out / DATASET)
    if there.get("version") != VERSION:
        raise ConfigError(f"{out / DATASET} has version {there.get('version')}; this program continues version {VERSION}; "
                          "choose another folder")
    differ = [] if there.get("source") == name else [f"  source: {there.get('source')} there, {name} now"]
    before = there.get("options", {})
    differ += [f"  --{option}: {before.get(option)} there, {options.get(option)} now"
               for option in dict.fromkeys([*options, *before]) if not differ and before.get(option) != options.get(option)]
    if differ:
        raise ConfigError("\n".join([f"{out} was made with other options; nothing was overwritten", *differ,
                                     "choose another folder, or delete this one"]))
    return True


def _is_complete(out: Path) -> bool:
    """Reads every shard: what is found damaged is written again."""
    dataset = load_json(out / DATASET)
    if not dataset["complete"]:
        return False
    try:
        manifests = {part: load_manifest(out / part) for part in dataset["samples"]}
    except DataError:
        return False
    with console.bar("verifying", sum(len(manifest["shards"]) for manifest in manifests.values()), "shards") as bar:
        for part, manifest in manifests.items():
            for shard in manifest["shards"]:
                if not is_written(out / part / shard["file"]):
                    return False
                bar.advance()
    return True


@contextlib.contextmanager
def _alone(out: Path) -> Iterator[None]:
    """One writer at a time. The lock ends with the process, so a killed one blocks nobody."""
    folder = os.open(out, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(folder)
        raise DataError(f"another process is writing into {out}; wait for it, or stop it and run this line again") from error
    except OSError:
        pass  # a file system without locks
    try:
        yield
    finally:
        os.close(folder)


def _commit_dataset(out: Path, dataset: dict[str, Any]) -> None:
    commit(out / DATASET, (json.dumps(dataset, indent=1) + "\n").encode())


def _check_options(args: argparse.Namespace) -> None:
    faults = []
    if not 0 < args.validation <= 0.5:
        faults.append(f"--validation {args.validation:g}: more than 0, at most 0.5 of the samples")
    if args.per_shard < 1:
        faults.append(f"--per-shard {args.per_shard}: at least 1 sample")
    if args.workers < 1:
        faults.append(f"--workers {args.workers}: at least 1 process")
    if faults:
        raise ConfigError("\n".join(faults))


def _plain(findings) -> list[dict[str, str]]:
    return [{"name": finding.name, "reason": finding.reason} for finding in findings]


def _table(findings: list[Finding]) -> str:
    width = min(60, max(len(finding.name) for finding in findings))
    lines = [f"  {finding.name:<{width}}  {finding.reason}" for finding in findings[:SHOWN]]
    if len(findings) > SHOWN:
        lines.append(f"  … and {len(findings) - SHOWN} more")
    return "\n".join(lines)


def _counts(dataset: dict[str, Any]) -> str:
    return ", ".join(f"{count} {part}" for part, count in dataset["samples"].items())


def _report(out: Path, dataset: dict[str, Any], findings: list[Finding], absent: set[int]) -> None:
    for note in dataset["notes"]:
        console.say(note)
    for title, some in (("left out", [f for f in findings if f.sample in absent]),
                        ("of low quality, kept (leave them out with --drop-low-quality)", [f for f in findings if f.sample not in absent])):
        if some:
            console.say(f"{len(some)} {title}:\n{_table(some)}")
    console.say(f"{out}: {_counts(dataset)}; fingerprint {dataset['fingerprint']}")
    console.say(f"next: {_next_command(sources.load(dataset['source']), str(out))}")


def _overview() -> str:
    lines = ["usage: distgan shard SOURCE OUT [options]", "",
             "Check a source, split it into train and validation, and write both as verified WebDataset shards.", "",
             "sources (`distgan shard SOURCE --help` explains the options of one):"]
    for name in sources.names():
        module = sources.load(name)
        lines += ["", f"  {name}: {_summary(module)}"] + [f"    {line}\n        {what}" for what, line in module.EXAMPLES]
        lines.append(f"    then: {_next_command(module, 'OUT')}")
    return "\n".join(lines)


def _next_command(module: Any, out: str) -> str:
    return f"distgan run --processes 2 {module.RECIPE} data={out}"


def _summary(module: Any) -> str:
    return module.__doc__.strip().partition("\n\n")[0].replace("\n", " ")


def _parser(name: str, module: Any) -> argparse.ArgumentParser:
    examples = "\n".join(f"  {line}\n      {what}" for what, line in module.EXAMPLES)
    parser = argparse.ArgumentParser(f"distgan shard {name}", description=_summary(module), allow_abbrev=False,
                                     formatter_class=argparse.RawDescriptionHelpFormatter,
                                     epilog=f"examples:\n{examples}\n\nRunning the same line again finishes what was interrupted.\n"
                                            f"then: {_next_command(module, 'OUT')}")
    parser.add_argument("out", metavar="OUT", help="folder to make, with train/ and validation/ in it")
    module.add_options(parser)
    parser.add_argument("--validation", type=float, default=0.1, metavar="SHARE",
                        help="share of the samples for validation, at most 0.5 (default: %(default)s)")
    parser.add_argument("--per-shard", type=int, default=1000, metavar="N", help="samples in one tar (default: %(default)s)")
    parser.add_argument("--drop-low-quality", action="store_true",
                        help="leave out samples that are unreadable or of low quality; they are reported with or without it")
    parser.add_argument("--workers", type=int, default=default_workers(), metavar="N",
                        help="processes that make samples; the bytes do not depend on it (default here: %(default)s)")
    return parser


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except DistganError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
