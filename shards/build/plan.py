"""Which shard holds which samples; write those that are missing, by one program or by the tasks of
a job array; finish the set.

The plan is a pure function of the source and the options: shard k holds the same samples, made in
the same chunks of 16, whoever writes it. So several writers need no messages: a shard with an
index and the right sha256 is done, any other is written.
"""

import contextlib
import json
import os
from collections import Counter
from collections.abc import Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from distgan.core import console
from distgan.core.errors import DataError
from distgan.core.files import lock, write_atomic
from distgan.core.worker_pool import ordered_map
from distgan.shards.build.split import split
from distgan.shards.format.index import index_path, is_written, load_json
from distgan.shards.format.manifest import DATASET, VERSION, fingerprint, write_manifest
from distgan.shards.format.writer import (
    CHUNK_SAMPLES,
    KEY,
    Chunk,
    encode_chunk,
    file_system,
    remove_left_over,
    write_chunks,
)
from distgan.shards.sources._base import SourceReport

UNITS = {"image": "images", "pair": "pairs"}  # by the kind of sample, on the bar
SHOWN = 30  # findings in a message; dataset.json has all of them
DECIDES = (
    "sample",
    "samples",
    "left_out",
)  # of dataset.json, beside the options, which samples are in which shard
Task = tuple[int, int]  # number of this task, number of tasks


def build(
    name: str,
    source: Any,
    out: Path,
    options: dict[str, Any],
    workers: int,
    task: Task | None = None,
) -> dict[str, Any]:
    """SourceReport, split and write `source`, and return what dataset.json says; with a task, write only
    its shards and finish nothing.

    `options` decide the bytes (those of the source, and validation, per-shard, drop-unreadable,
    drop-low-quality). DataError, with nothing written, if samples cannot be read and are not to be
    dropped, and if a key is malformed or occurs twice.
    """
    check: SourceReport = source.check(workers)
    dropped = [f for f in check.issues if options["drop-low-quality"] or not f.usable]
    if dropped and not (options["drop-low-quality"] or options["drop-unreadable"]):
        raise DataError(
            f"{len(dropped)} of {len(source.keys)} samples cannot be read; nothing was"
            f" written\n{table(_plain(dropped))}\nrepair them, or leave them out with"
            " --drop-unreadable (--drop-low-quality: those of low quality too)"
        )
    absent = {finding.sample for finding in dropped}
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
        "samples": {part: len(numbers) for part, numbers in parts.items()},
        "left_out": _plain(dropped),
        "low_quality_kept": _plain(f for f in check.issues if f.sample not in absent),
        "notes": check.notes,
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
        out.mkdir(parents=True, exist_ok=True)
    with locked(out, alone=task is None):
        _begin(out, dataset, task)
        _write_missing(source, out, shards[task[0] :: task[1]] if task else shards, workers)
        return dataset if task else _complete(out, dataset)


def finish(out: Path, line: str) -> dict[str, Any]:
    """Complete a set whose shards were written by tasks, and return what dataset.json says.

    DataError if shards are missing or damaged, with the tasks that write them; `line` is the
    command line without --task and --finish.
    """
    if not (out / DATASET).is_file():
        raise DataError(
            f"{out} has no {DATASET}: no task has begun. Start them: {line} --task K/N, with K from"
            " 0 to N - 1"
        )
    with locked(out, alone=True):
        dataset = load_json(out / DATASET)
        shards = shard_files(out, dataset)
        if lost := missing(shards):
            numbers = [shards.index(shard) for shard in lost]
            tasks = _tasks(numbers, len(shards))
            more = ["  …"] if len(tasks) > SHOWN else []
            raise DataError(
                "\n".join(
                    [
                        (
                            f"{out}: {len(numbers)} of {len(shards)} shards are missing or damaged:"
                            f" {', '.join(map(str, numbers))}"
                        ),
                        (
                            "run again the tasks that write them (task k/N writes the shards s with"
                            " s mod N = k), for instance"
                        ),
                        *(f"  {line} --task {task}" for task in tasks[:SHOWN]),
                        *more,
                        f"or write all of them, and finish, with: {line}",
                    ]
                )
            )
        return _complete(out, dataset)


def _tasks(numbers: list[int], count: int) -> list[str]:
    """K/N that write the shards `numbers` of `count`.

    One where they are those of one lost task, else one for each.
    """
    for n in range(1, count):
        if list(range(numbers[0] % n, count, n)) == numbers:
            return [f"{numbers[0] % n}/{n}"]
    return [f"{number}/{count}" for number in numbers]


def shard_files(out: Path, dataset: dict[str, Any]) -> list[Path]:
    """Every tar of the set; its place in the list is its number: those of train come first, then
    those of validation.
    """
    per_shard = dataset["options"]["per-shard"]
    return [
        out / part / f"{part}-{k:06d}.tar"
        for part, count in dataset["samples"].items()
        for k in range(-(-count // per_shard))
    ]


def missing(shards: list[Path]) -> list[Path]:
    """Those that are not there with the sha256 of their index. Reads every byte."""
    begun = [shard for shard in shards if index_path(shard).exists()]
    whole = set()
    if begun:
        with console.bar("verifying", len(begun), "shards") as bar:
            for shard in begun:
                if is_written(shard):
                    whole.add(shard)
                bar.advance()
    return [shard for shard in shards if shard not in whole]


@contextlib.contextmanager
def locked(out: Path, alone: bool) -> Iterator[None]:
    """Tasks share the folder, a whole run and --finish have it alone. The lock ends with the
    process, so a killed one blocks nobody.

    It spares people a surprise and is not needed for right bytes: some file systems know no locks
    between machines, or none.
    """
    folder = os.open(out, os.O_RDONLY)
    busy = DataError(
        f"another process is writing into {out}; wait for it, or stop it and run this line again"
    )
    try:
        lock(folder, busy, shared=not alone)
        yield
    finally:
        os.close(folder)


def _begin(out: Path, dataset: dict[str, Any], task: Task | None) -> None:
    """Write dataset.json and the folders, or check that what is there was planned alike.

    Then the shards fit together.
    """
    there = load_json(out / DATASET) if (out / DATASET).is_file() else None
    if there and (
        differ := [
            name
            for name, mine, theirs in zip(DECIDES, _decides(dataset), _decides(there), strict=True)
            if mine != theirs
        ]
    ):
        raise DataError(
            f"{out / DATASET} was written for other samples: {' and '.join(differ)} differ, though"
            " the options are the same. Use the same version of this program and its libraries as"
            " before, choose another folder, or delete this one"
        )
    with file_system(out):
        if not (there and task and not there["complete"]):
            _commit_dataset(out, dataset)
        for part in dataset["samples"]:
            (out / part).mkdir(exist_ok=True)


def _decides(dataset: dict[str, Any]) -> tuple:
    return (
        dataset["sample"],
        dataset["samples"],
        [finding["name"] for finding in dataset["left_out"]],
    )


def _write_missing(
    source: Any, out: Path, shards: list[tuple[Path, list[int]]], workers: int
) -> None:
    """Write those of the shards that are not whole yet, through one pool of workers."""
    lost = set(missing([shard for shard, _ in shards]))
    todo = [(shard, samples) for shard, samples in shards if shard in lost]
    if len(todo) < len(shards):
        console.say(
            f"{out}: {len(shards) - len(todo)} of {len(shards)} shards are whole already, kept"
        )
    chunks = [
        samples[start : start + CHUNK_SAMPLES]
        for _, samples in todo
        for start in range(0, len(samples), CHUNK_SAMPLES)
    ]
    total, left = (sum(len(samples) for _, samples in some) for some in (shards, todo))
    with (
        console.bar(
            "sharding", total, UNITS.get(source.sample["kind"], "samples"), start=total - left
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
    """Runs in a worker. A source that makes batches always gets the same ones."""
    made = (
        source.make_batch(samples)
        if hasattr(source, "make_batch")
        else [source.make(i) for i in samples]
    )
    for i, sample in zip(samples, made, strict=True):
        if sample["__key__"] != source.keys[i]:
            raise DataError(
                f"sample {i} was made with the key {sample['__key__']!r}; the source announced"
                f" {source.keys[i]!r}"
            )
    return encode_chunk(made)


def _counted(made: Iterator[Chunk], bar: console.Bar) -> Iterator[Chunk]:
    for chunk in made:
        bar.advance(len(chunk.keys))
        yield chunk


def _complete(out: Path, dataset: dict[str, Any]) -> dict[str, Any]:
    """All shards are whole: write the manifests and complete dataset.json; nothing that killed
    writers left stays.
    """
    with file_system(out):
        for left_over in (
            *out.glob(f"{DATASET}.tmp*"),
            *(path for part in dataset["samples"] for path in (out / part).glob("*.tmp*")),
        ):
            left_over.unlink(missing_ok=True)
        prints = [
            write_manifest(out / part, part, count)["fingerprint"]
            for part, count in dataset["samples"].items()
        ]
        dataset = dataset | {"complete": True, "fingerprint": fingerprint(prints)}
        _commit_dataset(out, dataset)
    return dataset


def _commit_dataset(out: Path, dataset: dict[str, Any]) -> None:
    write_atomic(out / DATASET, json.dumps(dataset, indent=1) + "\n", file_system)


def _refuse_keys(keys: list[str]) -> None:
    seen: set[str] = set()
    for key in keys:
        if not KEY.fullmatch(key) or key in seen:
            raise DataError(
                f"key {key!r} of the source {'occurs twice' if key in seen else 'is malformed'};"
                " nothing was written"
            )
        seen.add(key)


def _plain(findings) -> list[dict[str, str]]:
    return [{"name": finding.name, "reason": finding.reason} for finding in findings]


def table(findings: list[dict[str, str]]) -> str:
    """One line for each {"name", "reason"}, for a message."""
    rows = list(
        Counter((finding["name"], finding["reason"]) for finding in findings).items()
    )  # the pieces of one recording are one line
    width = min(60, max(len(name) for (name, _), _ in rows))
    lines = [
        f"  {name:<{width}}  {reason}{f' ({times} pieces)' if times > 1 else ''}"
        for (name, reason), times in rows[:SHOWN]
    ]
    return "\n".join(
        [*lines, *([f"  … and {len(rows) - SHOWN} more"] if len(rows) > SHOWN else [])]
    )
