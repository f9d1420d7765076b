"""Verify the files of a data set: every byte of every shard, one finding for each damage."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distgan.core import console
from distgan.core.errors import DataError
from distgan.core.reading import read_bytes
from distgan.core.worker_pool import map_with_progress
from distgan.shards.audit.findings import Checks, FileFindings, Finding
from distgan.shards.audit.shard_integrity import Shard, examine_shard
from distgan.shards.build.advice import advice
from distgan.shards.format.index import index_path, load_json
from distgan.shards.format.manifest import (
    DATASET,
    MANIFEST,
    fingerprint,
    load_manifest,
    parts_of,
    set_fingerprint,
)
from distgan.shards.format.sample_spec import sample_of

SUMS = "SHA256SUMS"
_TEMPORARY = ".tmp"
# as manifest.parts_of: split -> folder, tar files or None for all
_Parts = dict[str, tuple[Path, list[str] | None]]
_Manifests = dict[Path, dict[str, Any] | None]


@dataclass
class Integrity:
    """The result: dataset.json ({} if unreadable), shards, findings, and the number of files."""

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
                f"{root} is one split of a data set; name the folder that holds both:"
                f" {console.command('check', root.resolve().parent)}"
            )
        raise DataError(advice(str(root)))
    manifests = {folder: _manifest(folder, findings) for folder in folders}
    if dataset.get("complete") is True and all(manifests.values()):
        _counts_and_fingerprint(dataset, parts, manifests, findings)
    shards = []
    items = _items(parts, manifests, findings)
    for shard in map_with_progress("reading every byte", examine_shard, items, workers, "shards"):
        shards.append(shard)
        for check, key, detail in shard.errors:
            findings.add(check, shard.split, shard.path.name, key, detail)
    _report_overlap(shards, findings)
    return Integrity(dataset, shards, findings.list, _files(root, manifests, findings))


def _items(
    parts: _Parts, manifests: _Manifests, findings: FileFindings
) -> list[tuple[str, Path, dict | None, list[str] | None]]:
    """Return (split, tar, its entry in the manifest, fields) of every shard.

    Without a manifest: of every tar in the folder, with None for entry and fields.
    """
    items: list[tuple[str, Path, dict | None, list[str] | None]] = []
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
    """Return dataset.json ({} if it cannot be read), and the folders of its splits."""
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
            f"{DATASET} says that it is unfinished; run the `distgan shard` command again",
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
        lines = set(read_bytes(folder / SUMS, links=True).decode(errors="replace").splitlines())
    except OSError as error:
        findings.add("sums", folder.name, "", "", f"{folder / SUMS}: {error.strerror}")
        return manifest
    for line in sorted(expected ^ lines):
        change = "lacks the line" if line in expected else f"has a line that {MANIFEST} has not:"
        findings.add(
            "sums", folder.name, line[66:], "", f"{SUMS} {change} {line[:12]}…  {line[66:]}"
        )
    return manifest


def _counts_and_fingerprint(
    dataset: dict[str, Any],
    parts: _Parts,
    manifests: _Manifests,
    findings: FileFindings,
) -> None:
    counts: Any = dataset.get("samples")
    prints = []
    for split, (folder, names) in parts.items():
        listed = (manifests[folder] or {})["shards"]
        shards = [shard for shard in listed if names is None or shard["file"] in names]
        prints.append(fingerprint([shard["sha256"] for shard in shards]))
        count = sum(shard["samples"] for shard in shards)
        expected = counts.get(split) if isinstance(counts, dict) else None
        if count != expected:
            findings.add(
                "dataset", split, "", "", f"{expected} samples in {DATASET}, {count} in {MANIFEST}"
            )
    whole = set_fingerprint(dataset, prints)
    if dataset.get("fingerprint") != whole:
        findings.add(
            "dataset",
            "",
            "",
            "",
            f"fingerprint {dataset.get('fingerprint')} in {DATASET}, {whole} of the"
            " splits: they are of different runs",
        )


def _report_overlap(shards: list[Shard], findings: FileFindings) -> None:
    """Report keys and groups that occur in both splits."""
    shard_of_key: dict[str, str] = {}
    groups: dict[str, tuple[str, str]] = {}
    for shard in shards:
        if shard.split == "train":
            shard_of_key |= dict.fromkeys(shard.keys, shard.path.name)
            groups |= {group: (shard.path.name, key) for group, key in shard.groups.items()}
    reported: set[str] = set()
    for shard in shards:
        if shard.split == "train":
            continue
        for key in shard.keys:
            if key in shard_of_key:
                findings.add(
                    "key-repeated",
                    shard.split,
                    shard.path.name,
                    key,
                    f"also in train, {shard_of_key[key]}",
                )
        for group, key in shard.groups.items():
            if group in groups and group not in reported:
                reported.add(group)
                findings.add(
                    "group-leak",
                    shard.split,
                    shard.path.name,
                    key,
                    f"group {group!r} is also in train: {groups[group][1]}",
                )


def _files(root: Path, manifests: _Manifests, findings: FileFindings) -> int:
    """Report leftover and unexpected files; return the number of files."""
    count = 0
    for folder in dict.fromkeys([root, *manifests]):
        expected = _expected(manifests.get(folder)) | ({DATASET} if folder == root else set())
        for name in sorted(os.listdir(folder)) if folder.is_dir() else []:
            if (folder / name).is_dir() or name.startswith("."):
                continue
            count += 1
            split = "" if folder == root else folder.name
            if _TEMPORARY in name:
                size = (folder / name).stat().st_size
                findings.add(
                    "left-over",
                    split,
                    name,
                    "",
                    f"{size} bytes that a killed writer left; may be deleted",
                )
            elif name not in expected and (folder == root or manifests[folder]):
                findings.add("stray", split, name, "", f"{name} is not part of the data")
    return count


def _expected(manifest: dict[str, Any] | None) -> set[str]:
    tars = {shard["file"] for shard in manifest["shards"]} if manifest else set()
    indexes = {index_path(Path(tar)).name for tar in tars}
    # generated.json: by `distgan generate --shards yes`
    return tars | indexes | {MANIFEST, SUMS, "generated.json"}
