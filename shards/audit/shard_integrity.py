"""Verify one shard: its size, sha256, index, and every member's bytes and header; read single
samples of shards that may be damaged, in chunks for worker processes.
"""

import contextlib
import functools
import os
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from tarfile import BLOCKSIZE, HeaderError, TarInfo
from typing import Any

import numpy as np

from distgan.core.errors import DataError
from distgan.core.files import crc32, sha256_of
from distgan.core.reading import open_regular, parse_json
from distgan.core.rng import numpy_generator
from distgan.shards.format.index import (
    describe_member,
    index_path,
    load_index,
    load_json,
    samples_of,
    split_member,
)
from distgan.shards.format.manifest import MANIFEST, load_manifest
from distgan.shards.format.tar_members import iter_members

_CHUNK_SAMPLES = 32  # samples that one worker examines at a time


@dataclass
class Shard:
    """The errors, keys and groups of one shard."""

    split: str
    path: Path
    errors: list[tuple[str, str, str]] = field(default_factory=list)  # check, key, detail
    keys: list[str] = field(default_factory=list)  # empty if the index cannot be used
    damaged: set[str] = field(default_factory=set)  # keys of samples that must not be decoded
    groups: dict[str, str] = field(default_factory=dict)  # group -> one of its keys
    members: int = 0
    bytes: int = 0


def examine_shard(item: tuple[str, Path, dict | None, list[str] | None]) -> Shard:
    """Examine (split, tar, its entry in the manifest, fields) to the end of the file."""
    split, path, listed, fields = item
    shard = Shard(split, path)
    try:
        shard.bytes = path.stat().st_size
        sha256 = sha256_of(path)
    except OSError as error:
        lost = f"; {listed['samples']} samples are lost" if listed else ""
        shard.errors.append(("shard", "", f"{error.strerror}{lost}"))
        return shard
    if listed and shard.bytes != listed["bytes"]:
        change = "truncated" if shard.bytes < listed["bytes"] else "longer than it was written"
        shard.errors.append(
            ("shard", "", f"{change}: {shard.bytes} bytes, expected {listed['bytes']}")
        )
    if listed and sha256 != listed["sha256"]:
        shard.errors.append(
            ("sha256", "", f"{sha256[:12]}, {MANIFEST} has {listed['sha256'][:12]}")
        )
    try:
        index = load_index(path)
        keys, _, _ = samples_of(path, index, fields)
    except DataError as error:
        shard.errors.append(("index", "", str(error)))
        return shard
    if listed and (
        index["hash_lfs"] != listed["sha256"]
        or index["filesize"] != listed["bytes"]
        or len(keys) != listed["samples"]
    ):
        shard.errors.append(
            (
                "index",
                "",
                f"{index_path(path).name} is stale or of another shard: sha256"
                f" {index['hash_lfs'][:12]}, {len(keys)} samples; {MANIFEST} has"
                f" {listed['sha256'][:12]}, {listed['samples']} samples",
            )
        )
        if index["hash_lfs"] != sha256:
            return shard  # the index does not describe these bytes
    elif not listed and index["hash_lfs"] != sha256:
        shard.errors.append(
            ("sha256", "", f"{sha256[:12]}, its index has {index['hash_lfs'][:12]}")
        )
    shard.keys = keys
    _examine_members(shard, index["files"], _unread(path))
    return shard


def _unread(path: Path) -> set[Any]:
    """Return where the members are that `distgan index` left out of the index."""
    others = load_json(index_path(path)).get("others")
    entries = others.values() if isinstance(others, dict) else ()
    offsets = [entry.get("offset") for entry in entries if isinstance(entry, dict)]
    return {offset for offset in offsets if isinstance(offset, int)}


def _examine_members(shard: Shard, files: dict[str, dict[str, Any]], unread: set[Any]) -> None:
    """Verify every member of the index, bytes and header; report members it does not list."""
    walked, stopped = _walk(shard.path)
    with open_regular(shard.path, links=True) as file:
        for member, entry in files.items():
            offset, size = entry["offset"], entry["size"]
            key, kind = split_member(member) or ("", "")
            header_size = min(offset, BLOCKSIZE)
            file.seek(offset - header_size)
            block = file.read(header_size + size)
            header, data = block[:header_size], block[header_size:]
            shard.members += 1
            detail = ""
            if len(data) != size:
                detail = f"only {len(data)} of {size} bytes are there"
            elif crc32(data) != entry["crc32"]:
                detail = "not what was written"
            if detail:
                shard.errors.append(
                    ("crc32", key, f"{member} at bytes {offset}..{offset + size}: {detail}")
                )
                shard.damaged.add(key)
            else:
                if kind == "json":
                    _note_group(shard, key, data)
                # these verify a part of a sound that is read without the rest
                blocks = entry.get("blocks")
                if blocks not in (None, describe_member(offset, member, data).get("blocks")):
                    shard.errors.append(
                        (
                            "index",
                            key,
                            f"checksums of the blocks of {member} are not those of its bytes",
                        )
                    )
                    shard.damaged.add(key)
            read = walked.get(offset)
            if len(header) == BLOCKSIZE and read != (member, size):
                if error := _header_error(header, size, read):
                    shard.errors.append(
                        ("header", key, f"header at byte {offset - BLOCKSIZE} of {member}: {error}")
                    )
    listed = {entry["offset"] for entry in files.values()} | unread
    for offset, (member, size) in walked.items():
        if offset not in listed and split_member(member):
            shard.errors.append(
                ("header", "", f"{member}, {size} bytes at byte {offset}, is not in the index")
            )
    if stopped and not shard.errors:
        shard.errors.append(("header", "", stopped))


def _walk(path: Path) -> tuple[dict[int, tuple[str, int]], str]:
    """Return {offset of the data: (name, size)} as tar reads it, and why it stopped early or ""."""
    walked: dict[int, tuple[str, int]] = {}
    try:
        for name, offset, data in iter_members(path):
            walked[offset] = (name, len(data))
    except DataError as error:
        return walked, str(error)
    return walked, ""


def _header_error(header: bytes, size: int, read: tuple[str, int] | None) -> str:
    """Describe the error of a header, or "".

    `read` is (name, size) as tar reads it; None if a damaged header before it hides it from tar.
    """
    if read is not None:
        return f"tar reads {read[0]!r}, {read[1]} bytes"
    try:
        info = TarInfo.frombuf(header, "utf-8", "surrogateescape")
    except HeaderError as error:
        return str(error)
    return f"{info.size} bytes, the index has {size}" if info.size != size else ""


def _note_group(shard: Shard, key: str, data: bytes) -> None:
    try:
        group = parse_json(data).get("group")
    except (ValueError, AttributeError):
        return
    if isinstance(group, str):
        shard.groups.setdefault(group, key)


@dataclass(frozen=True)
class Place:
    """The address of a sample; `number` counts within its shard."""

    split: str
    shard: Path
    number: int
    key: str

    def __str__(self) -> str:
        return f"{self.split}/{self.key}"


def places(shards: list[Shard], limit: int | None) -> list[Place]:
    """Return all undamaged samples.

    With `limit`, at most that many of each split, chosen at random, the same at every call.
    """
    by_split: dict[str, list[Place]] = {}
    for shard in shards:
        by_split.setdefault(shard.split, []).extend(
            Place(shard.split, shard.path, number, key)
            for number, key in enumerate(shard.keys)
            if key not in shard.damaged
        )
    chosen = []
    for split, samples in by_split.items():
        if limit is not None and limit < len(samples):
            generator = numpy_generator(0, f"audit/{split}")
            picked = generator.choice(len(samples), limit, replace=False)
            samples = [samples[i] for i in sorted(picked.tolist())]
        chosen += samples
    return chosen


def chunks(chosen: list[Place]) -> list[list[Place]]:
    return [
        chosen[start : start + _CHUNK_SAMPLES] for start in range(0, len(chosen), _CHUNK_SAMPLES)
    ]


def read(place: Place, only: Collection[str] | None = None) -> dict[str, bytes]:
    """Return {field: bytes} of one sample; `only` some fields."""
    fields, table = _table(place.shard)
    try:
        with open_regular(place.shard, links=True) as file:
            return {
                name: os.pread(file.fileno(), size, offset)
                for name, (offset, size) in zip(fields, table[place.number].tolist(), strict=True)
                if only is None or name in only
            }
    except OSError as error:
        raise DataError(
            f"{place.shard} could be read before, but not any more: {error.strerror}"
        ) from error


@functools.lru_cache(maxsize=4)
def _table(shard: Path) -> tuple[list[str], np.ndarray]:
    """Return the fields, and int64 [samples, fields, 2]: offset and size."""
    # of tars of others the manifest names `jpg|png`
    with contextlib.suppress(DataError):
        known = load_manifest(shard.parent)["fields"]
        _, fields, table = samples_of(shard, load_index(shard), known)
        return fields, table[..., :2]
    _, fields, table = samples_of(shard, load_index(shard))
    return fields, table[..., :2]
