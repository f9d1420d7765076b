"""The manifest of a split, and the parts of a data set.

manifest.json     every shard of the split with its samples, bytes and sha256, the fields, and one
                  fingerprint of the whole
SHA256SUMS        for `sha256sum -c SHA256SUMS`
../dataset.json   what all splits were made from, written by distgan.shards.build and
                  distgan.shards.adopt
"""

import hashlib
import json
import os
import re
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from distgan.core.errors import DataError
from distgan.core.files import write_atomic
from distgan.shards.format.index import load_index, load_json, samples_of

MANIFEST = "manifest.json"
DATASET = "dataset.json"
VERSION = 1
_PART = re.compile(r"[^/\0]+")


def write_manifest(
    folder: Path,
    name: str,
    samples: int | None = None,
    pattern: str | None = None,
    fields: list[str] | None = None,
) -> dict[str, Any]:
    """List the committed shards of `folder` in manifest.json and SHA256SUMS; return the manifest.

    `pattern` selects the tars, by default `name-*.tar`; `fields` are those of every sample, by
    default those of the first. DataError if a shard has no valid index, a
    key occurs in two shards, or the number of samples is not `samples`.
    """
    shards: list[dict[str, Any]] = []
    seen: set[str] = set()
    for shard in sorted(folder.glob(pattern or f"{name}-*.tar")):
        index = load_index(shard)
        if shard.stat().st_size != index["filesize"]:
            raise DataError(
                f"{shard} has {shard.stat().st_size} bytes, its index says {index['filesize']}"
            )
        keys, fields, _ = samples_of(shard, index, fields)
        if repeated := seen.intersection(keys):
            raise DataError(f"{shard}: key {min(repeated)} occurs in an earlier shard too")
        seen.update(keys)
        shards.append(
            {
                "file": shard.name,
                "samples": len(keys),
                "bytes": index["filesize"],
                "sha256": index["hash_lfs"],
            }
        )
    if samples not in (None, len(seen)):
        raise DataError(f"{folder}: {len(seen)} samples are written, expected {samples}")
    manifest = {
        "version": VERSION,
        "name": name,
        "fields": fields,
        "samples": len(seen),
        "shards": shards,
        "fingerprint": fingerprint([shard["sha256"] for shard in shards]),
    }
    sums = "".join(f"{shard['sha256']}  {shard['file']}\n" for shard in shards)
    write_atomic(folder / "SHA256SUMS", sums, nullcontext)
    write_atomic(folder / MANIFEST, json.dumps(manifest, indent=1), nullcontext)
    return manifest


def load_manifest(folder: Path) -> dict[str, Any]:
    """Read the manifest of one split.

    DataError if it is missing, damaged, or names a file outside its folder.
    """
    path = folder / MANIFEST
    manifest = load_json(path)
    try:
        version, hashes = manifest["version"], [shard["sha256"] for shard in manifest["shards"]]
        names, counts = (
            [shard["file"] for shard in manifest["shards"]],
            [shard["samples"] for shard in manifest["shards"]],
        )
        sizes, fields = [shard["bytes"] for shard in manifest["shards"]], manifest["fields"]
        if version != VERSION:
            raise DataError(f"{path} has version {version}; this program reads version {VERSION}")
        if (
            not fields
            or {type(field) for field in fields} != {str}
            or not all(type(number) is int for number in counts + sizes)
        ):
            raise DataError(
                f"{path} is damaged: fields are not names, or samples or bytes are not integers"
            )
        if (
            manifest["fingerprint"] != fingerprint(hashes)
            or manifest["samples"] != sum(counts)
            or len(set(names)) != len(names)
        ):
            raise DataError(
                f"{path} is damaged: its fingerprint or number of samples does not fit its shards"
            )
        for name in names:
            if name != os.path.basename(name) or not name.endswith(".tar"):
                raise DataError(f"{path} names {name!r}; a shard is a .tar file of the same folder")
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{path} is not a manifest: {type(error).__name__} {error}") from error
    return manifest


def fingerprint(hashes: list[str]) -> str:
    """Return 16 hex digits that identify the contents of all shards in their order."""
    return hashlib.sha256("".join(hashes).encode()).hexdigest()[:16]


def set_fingerprint(dataset: dict[str, Any], prints: list[str]) -> str:
    """Return the fingerprint of a data set, of those of its splits.

    It includes how samples are decoded where dataset.json states that, and which were left out: of
    tars of others, whose samples depend on it.
    """
    sample, left_out = dataset.get("sample"), dataset.get("left_out")
    more = []
    if isinstance(sample, dict) and "decoding" in sample:
        more.append(json.dumps(sample, sort_keys=True))
    if dataset.get("source") == "index" and left_out:
        more.append(json.dumps(left_out, sort_keys=True))
    return fingerprint([*prints, *more])


def parts_of(dataset: dict[str, Any], root: Path) -> dict[str, tuple[Path, list[str] | None]]:
    """Return {"train": (folder, tar files or None for all), "validation": ...} of a dataset.json.

    DataError for a folder that is neither `root` nor directly in it, and for parts that share a
    shard.
    """
    parts = dataset.get("parts", {part: {"folder": part} for part in ("train", "validation")})
    try:
        listed = {
            part: (parts[part]["folder"], parts[part].get("shards"))
            for part in ("train", "validation")
        }
        for folder, shards in listed.values():
            if not _PART.fullmatch(folder) or folder == "..":
                raise DataError(
                    f"{root / DATASET} names the folder {folder!r}; allowed are one plain name"
                    " and '.'"
                )
            if shards is not None and (
                not isinstance(shards, list) or not all(isinstance(name, str) for name in shards)
            ):
                raise TypeError("shards is not a list of file names")
    except (KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"{root / DATASET} is damaged: parts: {type(error).__name__} {error}"
        ) from error
    (train, train_shards), (validation, validation_shards) = listed.values()
    if train == validation and (
        train_shards is None
        or validation_shards is None
        or set(train_shards) & set(validation_shards)
    ):
        raise DataError(
            f"{root / DATASET} is damaged: training and validation share shards of {train!r}"
        )
    return {part: (root / folder, shards) for part, (folder, shards) in listed.items()}
