"""Whether the files are those that were written.

Every shard is examined to its end, and every damage is one finding.
"""

import json
import os
import shlex
from dataclasses import dataclass, field
from pathlib import Path
from tarfile import BLOCKSIZE, HeaderError, TarInfo
from typing import Any

from distgan.core import console
from distgan.core.errors import DataError
from distgan.core.files import crc32, sha256_of
from distgan.core.worker_pool import ordered_map
from distgan.shards.audit.findings import Checks, FileFindings, Finding
from distgan.shards.format.index import (
    describe_member,
    index_path,
    load_index,
    load_json,
    samples_of,
    split_member,
)
from distgan.shards.format.manifest import DATASET, MANIFEST, fingerprint, load_manifest, parts_of
from distgan.shards.format.sample_spec import sample_of
from distgan.shards.format.tar_members import iter_members

SUMS = "SHA256SUMS"
_TEMPORARY = ".tmp"
_Parts = dict[
    str, tuple[Path, list[str] | None]
]  # as distgan.shards.format.index.parts_of: split -> folder, tar files or None for all


@dataclass
class Shard:
    """What was found in one shard."""

    split: str
    path: Path
    errors: list[tuple[str, str, str]] = field(default_factory=list)  # check, key, what is wrong
    keys: list[str] = field(default_factory=list)  # empty if the index cannot be used
    damaged: set[str] = field(default_factory=set)  # keys of samples that must not be decoded
    groups: dict[str, str] = field(default_factory=dict)  # group -> one of its keys
    members: int = 0
    bytes: int = 0


@dataclass
class Integrity:
    dataset: dict[str, Any]
    shards: list[Shard]
    findings: list[Finding]
    files: int


def examine(root: Path, checks: Checks, workers: int) -> Integrity:
    """Read every byte of every shard. DataError only if there is nothing to examine."""
    findings = FileFindings(checks)
    dataset, parts = _dataset(root, findings)
    folders = list(dict.fromkeys(folder for folder, _ in parts.values()))
    if not dataset and not any((folder / MANIFEST).is_file() for folder in folders):
        if (root.resolve().parent / DATASET).is_file():
            raise DataError(
                f"{root} is one split of a data set; name the folder that holds both: distgan check"
                f" {shlex.quote(str(root.resolve().parent))}"
            )
        raise DataError(
            f"{root} holds no data set: no {DATASET}, no train/{MANIFEST}; make one with: distgan"
            f" shard SOURCE {shlex.quote(str(root))}, or, of tars that others made, with: distgan"
            f" index {shlex.quote(str(root))}"
        )
    manifests = {folder: _manifest(folder, findings) for folder in folders}
    if dataset.get("complete") is True and all(manifests.values()):
        _counts_and_fingerprint(dataset, parts, manifests, findings)
    shards = []
    items = _items(parts, manifests, findings)
    with console.bar("reading every byte", len(items), "shards") as bar:
        for shard in ordered_map(_examine_shard, items, workers):
            shards.append(shard)
            for check, key, detail in shard.errors:
                findings.add(check, shard.split, shard.path.name, key, detail)
            bar.advance()
    _both_sides(shards, findings)
    return Integrity(dataset, shards, findings.list, _files(root, manifests, findings))


def _items(
    parts: _Parts, manifests: dict[Path, dict | None], findings: "FileFindings"
) -> list[tuple[str, Path, dict | None, list[str] | None]]:
    """(split, tar, its entry in the manifest, fields) of every shard.

    Without a manifest, of what lies there.
    """
    items = []
    for split, (folder, names) in parts.items():
        if manifest := manifests[folder]:
            listed = {shard["file"]: shard for shard in manifest["shards"]}
            for name in listed if names is None else names:
                if name in listed:
                    items.append((split, folder / name, listed[name], manifest["fields"]))
                else:
                    findings.add(
                        "shard",
                        split,
                        name,
                        "",
                        f"{DATASET} lists it, {folder / MANIFEST} does not",
                    )
        else:
            items += [
                (split, path, None, None)
                for path in sorted(folder.glob("*.tar"))
                if names is None or path.name in names
            ]
    return items


def _dataset(root: Path, findings: FileFindings) -> tuple[dict[str, Any], _Parts]:
    """dataset.json, {} if it cannot be read; and where its splits are, or would usually be."""
    try:
        dataset = load_json(root / DATASET)
        parts = parts_of(dataset, root)
    except DataError as error:
        findings.add("dataset", "", "", "", str(error))
        return {}, parts_of({}, root)
    try:
        sample_of(dataset)
    except ValueError as error:
        findings.add("dataset", "", "", "", f"{root / DATASET} is damaged: {error}")
        dataset["sample"] = None
    if dataset.get("complete") is not True:
        findings.add(
            "dataset",
            "",
            "",
            "",
            f"{DATASET} says that it was never finished; run the `distgan shard` line again",
        )
    return dataset, parts


def _manifest(folder: Path, findings: FileFindings) -> dict[str, Any] | None:
    try:
        manifest = load_manifest(folder)
    except DataError as error:
        findings.add("manifest", folder.name, "", "", str(error))
        return None
    expected = {f"{shard['sha256']}  {shard['file']}" for shard in manifest["shards"]}
    try:
        found = set((folder / SUMS).read_text(errors="replace").splitlines())
    except OSError as error:
        findings.add("sums", folder.name, "", "", f"{folder / SUMS}: {error.strerror}")
        return manifest
    for line in sorted(expected ^ found):
        what = "has no line" if line in expected else f"has a line that {MANIFEST} has not:"
        findings.add("sums", folder.name, line[66:], "", f"{SUMS} {what} {line[:12]}…  {line[66:]}")
    return manifest


def _counts_and_fingerprint(
    dataset: dict[str, Any],
    parts: _Parts,
    manifests: dict[Path, dict | None],
    findings: FileFindings,
) -> None:
    stated: Any = dataset.get("samples")
    prints = []
    for split, (folder, names) in parts.items():
        shards = [
            shard
            for shard in manifests[folder]["shards"]
            if names is None or shard["file"] in names
        ]
        prints.append(fingerprint([shard["sha256"] for shard in shards]))
        count, due = (
            sum(shard["samples"] for shard in shards),
            (stated.get(split) if isinstance(stated, dict) else None),
        )
        if count != due:
            findings.add(
                "dataset", split, "", "", f"{due} samples in {DATASET}, {count} in {MANIFEST}"
            )
    if dataset.get("fingerprint") != fingerprint(prints):
        findings.add(
            "dataset",
            "",
            "",
            "",
            f"fingerprint {dataset.get('fingerprint')} in {DATASET}, {fingerprint(prints)} of the"
            " splits: they are of different runs",
        )


def _examine_shard(item: tuple[str, Path, dict | None, list[str] | None]) -> Shard:
    split, path, stated, fields = item
    shard = Shard(split, path)
    try:
        shard.bytes = path.stat().st_size
        sha256 = sha256_of(path)
    except OSError as error:
        lost = f"; {stated['samples']} samples are lost" if stated else ""
        shard.errors.append(("shard", "", f"{error.strerror}{lost}"))
        return shard
    if stated and shard.bytes != stated["bytes"]:
        change = "truncated" if shard.bytes < stated["bytes"] else "longer than it was written"
        shard.errors.append(
            ("shard", "", f"{change}: {shard.bytes} bytes, expected {stated['bytes']}")
        )
    if stated and sha256 != stated["sha256"]:
        shard.errors.append(
            ("sha256", "", f"{sha256[:12]}, {MANIFEST} has {stated['sha256'][:12]}")
        )
    try:
        index = load_index(path)
        keys, _, _ = samples_of(path, index, fields)
    except DataError as error:
        shard.errors.append(("index", "", str(error)))
        return shard
    if stated and (
        index["hash_lfs"] != stated["sha256"]
        or index["filesize"] != stated["bytes"]
        or len(keys) != stated["samples"]
    ):
        shard.errors.append(
            (
                "index",
                "",
                (
                    f"{index_path(path).name} is stale or of another shard: sha256"
                    f" {index['hash_lfs'][:12]}, {len(keys)} samples; {MANIFEST} has"
                    f" {stated['sha256'][:12]}, {stated['samples']} samples"
                ),
            )
        )
        if index["hash_lfs"] != sha256:
            return shard  # it says nothing about these bytes
    elif not stated and index["hash_lfs"] != sha256:
        shard.errors.append(
            ("sha256", "", f"{sha256[:12]}, its index has {index['hash_lfs'][:12]}")
        )
    shard.keys = keys
    _examine_members(shard, index["files"])
    return shard


def _examine_members(shard: Shard, files: dict[str, dict[str, Any]]) -> None:
    """Every member that the index names.

    Its bytes by crc32, its header by what tar reads there; then members that the index does not
    name.
    """
    walked, stopped = _walk(shard.path)
    with open(shard.path, "rb") as file:
        for member, entry in files.items():
            offset, size = entry["offset"], entry["size"]
            key, kind = split_member(member)
            before = min(offset, BLOCKSIZE)
            file.seek(offset - before)
            block = file.read(before + size)
            header, data = block[:before], block[before:]
            shard.members += 1
            if len(data) != size or crc32(data) != entry["crc32"]:
                what = (
                    f"only {len(data)} of {size} bytes are there"
                    if len(data) != size
                    else "not what was written"
                )
                shard.errors.append(
                    ("crc32", key, f"{member} at bytes {offset}..{offset + size}: {what}")
                )
                shard.damaged.add(key)
            else:
                if kind == "json":
                    _note_group(shard, key, data)
                # By these a part of a sound is checked without reading all of it.
                if entry.get("blocks") not in (
                    None,
                    describe_member(offset, member, data).get("blocks"),
                ):
                    shard.errors.append(
                        (
                            "index",
                            key,
                            f"checksums of the blocks of {member} are not those of its bytes",
                        )
                    )
                    shard.damaged.add(key)
            if (
                len(header) == BLOCKSIZE
                and walked.get(offset) != (member, size)
                and (wrong := _header_error(header, size, walked.get(offset)))
            ):
                shard.errors.append(
                    ("header", key, f"header at byte {offset - BLOCKSIZE} of {member}: {wrong}")
                )
    named = {entry["offset"] for entry in files.values()}
    for offset, (member, size) in walked.items():
        if offset not in named and split_member(member):
            shard.errors.append(
                ("header", "", f"{member}, {size} bytes at byte {offset}, is not in the index")
            )
    if stopped and not shard.errors:
        shard.errors.append(("header", "", stopped))


def _walk(path: Path) -> tuple[dict[int, tuple[str, int]], str]:
    """{offset of the data: (name, size)} of all files that tar finds, and why it stopped early, or
    "".
    """
    walked: dict[int, tuple[str, int]] = {}
    try:
        for name, offset, data in iter_members(path):
            walked[offset] = (name, len(data))
    except DataError as error:
        return walked, str(error)
    return walked, ""


def _header_error(header: bytes, size: int, read: tuple[str, int] | None) -> str:
    """What is wrong with one header.

    As tar has read it, or, where a damaged one before it hides it from tar, read on its own.
    """
    if read is not None:
        return f"tar reads {read[0]!r}, {read[1]} bytes"
    try:
        found = TarInfo.frombuf(header, "utf-8", "surrogateescape")
    except HeaderError as error:
        return str(error)
    return f"{found.size} bytes, the index has {size}" if found.size != size else ""


def _note_group(shard: Shard, key: str, data: bytes) -> None:
    try:
        group = json.loads(data).get("group")
    except (ValueError, AttributeError):
        return
    if isinstance(group, str):
        shard.groups.setdefault(group, key)


def _both_sides(shards: list[Shard], findings: FileFindings) -> None:
    """Keys and groups that occur in both splits."""
    places: dict[str, str] = {}
    groups: dict[str, tuple[str, str]] = {}
    for shard in shards:
        if shard.split == "train":
            places |= dict.fromkeys(shard.keys, shard.path.name)
            groups |= {group: (shard.path.name, key) for group, key in shard.groups.items()}
    told: set[str] = set()
    for shard in shards:
        if shard.split == "train":
            continue
        for key in shard.keys:
            if key in places:
                findings.add(
                    "key-repeated",
                    shard.split,
                    shard.path.name,
                    key,
                    f"also in train, {places[key]}",
                )
        for group, key in shard.groups.items():
            if group in groups and group not in told:
                told.add(group)
                findings.add(
                    "group-leak",
                    shard.split,
                    shard.path.name,
                    key,
                    f"group {group!r} is in train too: {groups[group][1]}",
                )


def _files(root: Path, manifests: dict[Path, dict | None], findings: FileFindings) -> int:
    """Temporary files of killed writers, and files that no one expects.

    Returns the number of files.
    """
    count = 0
    for folder in dict.fromkeys([root, *manifests]):
        expected = _expected(manifests.get(folder)) | ({DATASET} if folder == root else set())
        for name in sorted(os.listdir(folder)) if folder.is_dir() else []:
            if (folder / name).is_dir() or name.startswith("."):
                continue
            count += 1
            split = "" if folder == root else folder.name
            if _TEMPORARY in name:
                findings.add(
                    "left-over",
                    split,
                    name,
                    "",
                    f"{(folder / name).stat().st_size} bytes that a killed writer left; may be"
                    " deleted",
                )
            elif name not in expected and (folder == root or manifests[folder]):
                findings.add("stray", split, name, "", f"{name} is not part of the data")
    return count


def _expected(manifest: dict[str, Any] | None) -> set[str]:
    tars = {shard["file"] for shard in manifest["shards"]} if manifest else set()
    return (
        tars | {index_path(Path(tar)).name for tar in tars} | {MANIFEST, SUMS, "generated.json"}
    )  # the last by `distgan generate --shards yes`
