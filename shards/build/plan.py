"""Plan which shard holds which samples, write the missing shards, complete the data set.

The plan is a pure function of the source and the options: shard k holds the same samples, made in
the same chunks of 16, whichever process writes it. So several writers, such as the tasks of a job
array, need no communication: a shard with an index and the right sha256 is done, any other is
written.
"""

import contextlib
import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from distgan.core import console
from distgan.core.errors import DataError
from distgan.core.files import lock, make_folder, remove, write_atomic
from distgan.core.worker_pool import ordered_map
from distgan.shards.build.split import split
from distgan.shards.format.index import index_path, is_written, load_json
from distgan.shards.format.manifest import DATASET, VERSION, fingerprint, write_manifest
from distgan.shards.format.sample_spec import UNITS
from distgan.shards.format.writer import (
    CHUNK_SAMPLES,
    KEY,
    Chunk,
    encode_chunk,
    file_system,
    remove_left_over,
    write_chunks,
)
from distgan.shards.sources._base import SampleIssue, Shared, SourceReport

MAX_ROWS = 30  # of a table in a message; dataset.json has all of them
# the entries of dataset.json that, with the options, decide which samples are in which shard
PLAN_FIELDS = ("sample", "samples", "left_out")
# of options that were added: the value by which sets were made that do not record it
ADDED_OPTIONS = {"fit": "crop", "decoding": 1}
Task = tuple[int, int]  # number of this task, number of tasks


def build(
    name: str,
    source: Any,
    out: Path,
    options: dict[str, Any],
    workers: int,
    task: Task | None = None,
) -> dict[str, Any]:
    """Check, split and write `source`; return the contents of dataset.json.

    With a task, write only its shards and complete nothing. `options` decide the bytes (those of
    the source, and validation, per-shard, drop-unreadable, drop-low-quality). DataError, before
    anything is written, if samples cannot be read and are not to be dropped, and if a key is
    malformed or occurs twice.
    """
    if task and hasattr(source, "shared"):
        with file_system(out):
            make_folder(out)
        # its name: `_complete` deletes it
        source.shared = Shared(out / f"{DATASET}.tmp-check", source.options, task)
    check: SourceReport = source.check(workers)
    dropped = [f for f in check.issues if options["drop-low-quality"] or not f.usable]
    if dropped and not (options["drop-low-quality"] or options["drop-unreadable"]):
        raise DataError(
            f"{len(dropped)} of {len(source.keys)} samples cannot be read; nothing was"
            f" written\n{table(_plain(dropped))}\nrepair them, or leave them out with"
            " --drop-unreadable (--drop-low-quality: also those of low quality)"
        )
    absent = {issue.sample for issue in dropped}
    kept = [i for i in range(len(source.keys)) if i not in absent]
    _refuse_keys([source.keys[i] for i in kept])
    parts = split(
        [source.keys[i] for i in kept], [source.group(i) for i in kept], options["validation"]
    )
    dataset = {
        "version": VERSION,
        "source": name,
        "options": options,
        "origin": source.origin,
        "sample": source.sample,
        **({"labels": source.label_columns} if hasattr(source, "label_columns") else {}),
        "samples": {part: len(numbers) for part, numbers in parts.items()},
        "left_out": _plain(dropped),
        "low_quality_kept": _plain(f for f in check.issues if f.sample not in absent),
        "notes": check.notes + _label_notes(source, kept, parts),
        "complete": False,
        "fingerprint": None,
    }
    samples = [
        [kept[i] for i in numbers[start : start + options["per-shard"]]]
        for numbers in parts.values()
        for start in range(0, len(numbers), options["per-shard"])
    ]
    shards = list(zip(shard_files(out, dataset), samples, strict=True))
    with file_system(out):
        make_folder(out)
    with locked(out, alone=task is None):
        _begin(out, dataset, task)
        _write_missing(source, out, shards[task[0] :: task[1]] if task else shards, workers)
        return dataset if task else _complete(out, dataset)


def _label_notes(source: Any, kept: list[int], parts: dict[str, list[int]]) -> list[str]:
    """Return notes about classes without a sample in one of the parts."""
    notes: list[str] = []
    if not hasattr(source, "label_of"):
        return notes
    for name, entry in getattr(source, "label_columns", {}).items():
        for part, numbers in parts.items():
            present = {source.label_of(kept[i])[name] for i in numbers}
            classes = dict(zip(entry["values"], entry["names"], strict=True))
            if absent := [classes[value] for value in classes if value not in present]:
                notes.append(
                    f"classes of {name} without a sample in {part}: {len(absent)} of"
                    f" {len(classes)}, such as {absent[0]}"
                )
    return notes


def finish(out: Path, line: str) -> dict[str, Any]:
    """Complete a set whose shards were written by tasks; return the contents of dataset.json.

    DataError if shards are missing or damaged, with the tasks that write them; `line` is the
    command line without --task and --finish.
    """
    if not (out / DATASET).is_file():
        raise DataError(
            f"{out} has no {DATASET}: no task has started. Run: {line} --task K/N, with K from"
            " 0 to N - 1"
        )
    with locked(out, alone=True):
        dataset = load_json(out / DATASET)
        shards = shard_files(out, dataset)
        if lost := missing(shards):
            numbers = [shards.index(shard) for shard in lost]
            tasks = _tasks(numbers, len(shards))
            lines = [
                f"{out}: {len(numbers)} of {len(shards)} shards are missing or damaged:"
                f" {', '.join(map(str, numbers))}",
                "run again the tasks that write them (task k/N writes the shards s with"
                " s mod N = k), for instance",
                *(f"  {line} --task {task}" for task in tasks[:MAX_ROWS]),
                *(["  …"] if len(tasks) > MAX_ROWS else []),
                f"or write all of them, and finish, with: {line}",
            ]
            raise DataError("\n".join(lines))
        return _complete(out, dataset)


def _tasks(numbers: list[int], count: int) -> list[str]:
    """Return the tasks K/N that write the shards `numbers` of `count`.

    One if they are those of one lost task, else one for each.
    """
    for n in range(1, count):
        if list(range(numbers[0] % n, count, n)) == numbers:
            return [f"{numbers[0] % n}/{n}"]
    return [f"{number}/{count}" for number in numbers]


def shard_files(out: Path, dataset: dict[str, Any]) -> list[Path]:
    """Return every tar of the set by its number: first those of train, then validation."""
    per_shard = dataset["options"]["per-shard"]
    return [
        out / part / f"{part}-{k:06d}.tar"
        for part, count in dataset["samples"].items()
        for k in range(-(-count // per_shard))
    ]


def missing(shards: list[Path]) -> list[Path]:
    """Return the shards that do not exist with the sha256 of their index; reads every byte."""
    indexed = [shard for shard in shards if index_path(shard).exists()]
    whole = set()
    if indexed:
        with console.bar("verifying", len(indexed), "shards") as bar:
            for shard in indexed:
                if is_written(shard):
                    whole.add(shard)
                bar.advance()
    return [shard for shard in shards if shard not in whole]


@contextlib.contextmanager
def locked(out: Path, alone: bool) -> Iterator[None]:
    """Lock the folder: shared for tasks, exclusive (`alone`) for a whole run and --finish.

    The lock ends with the process, so a killed one blocks nobody. It only prevents duplicate work:
    the bytes are right without it, on file systems that have no locks.
    """
    folder = os.open(out, os.O_RDONLY)
    busy = DataError(
        f"another process is writing into {out}; wait for it, or stop it and run it again"
    )
    try:
        lock(folder, busy, shared=not alone)
        yield
    finally:
        os.close(folder)


def _begin(out: Path, dataset: dict[str, Any], task: Task | None) -> None:
    """Write dataset.json and the folders, or check that the existing ones have the same plan."""
    if task:  # of several that start at once, the first decides what the set is
        _commit_dataset(out, dataset, replace=False)
    existing = load_json(out / DATASET) if (out / DATASET).is_file() else None
    if existing:
        if differences := other_options(existing.get("options", {}), dataset["options"]):
            lines = [f"{out} was begun by another task, with other options", *differences]
            raise DataError("\n".join([*lines, "run this task again: it takes those of the set"]))
        plans = zip(PLAN_FIELDS, _plan(dataset), _plan(existing), strict=True)
        if differences := [name for name, current, recorded in plans if current != recorded]:
            raise DataError(
                f"{out / DATASET} was written for other samples: {' and '.join(differences)}"
                " differ, though the options are the same. Use the same version of this program and"
                " its libraries as before, choose another folder, or delete this one"
            )
    with file_system(out):
        if not (existing and task and not existing["complete"]):
            _commit_dataset(out, dataset)
        for part in dataset["samples"]:
            make_folder(out / part)


def _plan(dataset: dict[str, Any]) -> tuple:
    return (
        dataset["sample"],
        dataset["samples"],
        [finding["name"] for finding in dataset["left_out"]],
    )


def _write_missing(
    source: Any, out: Path, shards: list[tuple[Path, list[int]]], workers: int
) -> None:
    """Write the shards that are not whole yet, with one pool of workers."""
    lost = set(missing([shard for shard, _ in shards]))
    todo = [(shard, samples) for shard, samples in shards if shard in lost]
    if len(todo) < len(shards):
        console.say(
            f"{out}: {len(shards) - len(todo)} of {len(shards)} shards are already whole, kept"
        )
    chunks = [
        samples[start : start + CHUNK_SAMPLES]
        for _, samples in todo
        for start in range(0, len(samples), CHUNK_SAMPLES)
    ]
    total = sum(len(samples) for _, samples in shards)
    remaining = sum(len(samples) for _, samples in todo)
    with (
        console.bar(
            "sharding", total, UNITS.get(source.sample["kind"], "samples"), start=total - remaining
        ) as bar,
        contextlib.closing(
            ordered_map(partial(_make, source), chunks, workers, chunk_size=1)
        ) as made,
    ):
        counted = _counted(made, bar)
        for shard, samples in todo:
            remove_left_over(shard)
            write_chunks(shard, islice(counted, -(-len(samples) // CHUNK_SAMPLES)))


def _make(source: Any, samples: list[int]) -> Chunk:
    """Make one chunk in a worker; a source with `make_batch` always gets the same batches."""
    made = (
        source.make_batch(samples)
        if hasattr(source, "make_batch")
        else [source.make(i) for i in samples]
    )
    for i, sample in zip(samples, made, strict=True):
        if sample["__key__"] != source.keys[i]:
            raise DataError(
                f"sample {i} was made with the key {sample['__key__']!r}, expected"
                f" {source.keys[i]!r}"
            )
    return encode_chunk(made)


def _counted(made: Iterator[Chunk], bar: console.Bar) -> Iterator[Chunk]:
    for chunk in made:
        bar.advance(len(chunk.keys))
        yield chunk


def _complete(out: Path, dataset: dict[str, Any]) -> dict[str, Any]:
    """Write the manifests, complete dataset.json, and delete files that killed writers left."""
    with file_system(out):
        for left_over in (
            *out.glob(f"{DATASET}.tmp*"),
            *(path for part in dataset["samples"] for path in (out / part).glob("*.tmp*")),
        ):
            remove(left_over)
        prints = [
            write_manifest(out / part, part, count)["fingerprint"]
            for part, count in dataset["samples"].items()
        ]
        dataset = dataset | {"complete": True, "fingerprint": fingerprint(prints)}
        _commit_dataset(out, dataset)
    return dataset


def other_options(recorded: dict[str, Any], options: dict[str, Any]) -> list[str]:
    """Return a line for each option that differs from what a data set records."""
    added = {name: value for name, value in ADDED_OPTIONS.items() if name in options}
    recorded = added | recorded
    return [
        f"  --{option}: {recorded.get(option)} there, {options.get(option)} now"
        for option in dict.fromkeys([*options, *recorded])
        if recorded.get(option) != options.get(option)
    ]


def _commit_dataset(out: Path, dataset: dict[str, Any], replace: bool = True) -> None:
    text = json.dumps(dataset, indent=1) + "\n"
    write_atomic(out / DATASET, text, file_system, replace=replace)


def _refuse_keys(keys: list[str]) -> None:
    seen: set[str] = set()
    for key in keys:
        if not KEY.fullmatch(key) or key in seen:
            raise DataError(
                f"key {key!r} of the source {'occurs twice' if key in seen else 'is malformed'};"
                " nothing was written"
            )
        seen.add(key)


def _plain(issues: Iterable[SampleIssue]) -> list[dict[str, str]]:
    return [{"name": issue.name, "reason": issue.reason} for issue in issues]


def table(findings: list[dict[str, str]]) -> str:
    """Format one line for each {"name", "reason"}, for a message."""
    counts = Counter((finding["name"], finding["reason"]) for finding in findings)
    rows = list(counts.items())  # the pieces of one recording are one line
    width = min(60, max(len(name) for (name, _), _ in rows))
    lines = [
        f"  {name:<{width}}  {reason}{f' ({times} pieces)' if times > 1 else ''}"
        for (name, reason), times in rows[:MAX_ROWS]
    ]
    if len(rows) > MAX_ROWS:
        lines.append(f"  … and {len(rows) - MAX_ROWS} more")
    return "\n".join(lines)
