"""Find the tars of a folder: which are for training, which for validation."""

import re
from itertools import islice
from pathlib import Path
from typing import Any

from distgan.core import console
from distgan.core.errors import ConfigError, DataError
from distgan.shards.build.advice import advice
from distgan.shards.build.split import rank
from distgan.shards.format.index import index_path
from distgan.shards.format.manifest import DATASET, MANIFEST, load_manifest
from distgan.shards.format.reader import ShardSet
from distgan.shards.format.tar_members import ODD

TRAIN, VALIDATION = ("train", "training"), ("validation", "val", "valid", "test")
SHARE = 0.1
Parts = dict[str, dict[str, Any]]  # "parts" of dataset.json


def layout(root: Path, train: str | None, validation: str | None) -> Parts:
    """Return "parts" of dataset.json; empty if only the index is to be written.

    ConfigError for options that do not fit the folders, with the remedy.
    """
    share = _share(validation)
    flat = [path.name for path in sorted(root.glob("*.tar"))]
    inside = sorted(
        path.name for path in root.iterdir() if path.is_dir() and next(path.glob("*.tar"), None)
    )
    if train is validation is None and flat and set(inside) & {*TRAIN, *VALIDATION}:
        raise ConfigError(
            f"{root} has tars itself and in {', '.join(inside)}; name the folders with --train"
            f" and --validation, or give a share (--validation {SHARE}) to divide those of {root}"
            " itself"
        )
    if train is None and (share is not None or validation is None) and flat:
        return _divided(root, flat, SHARE if share is None else share)
    if share is not None:
        raise ConfigError(
            f"--validation {validation}: a share divides the tars of {root} itself, "
            + ("and --train names a folder" if train else _no_tars(root, inside))
        )
    chosen = {
        "train": train or _only(root, inside, TRAIN, "--train"),
        "validation": validation or _only(root, inside, VALIDATION, "--validation"),
    }
    for part, name in chosen.items():
        if name not in inside:
            raise ConfigError(f"--{part} {name}: {_no_tars(root, inside)}")
    if chosen["train"] == chosen["validation"]:
        raise ConfigError(
            f"--train and --validation are both {train}; the samples for validation must be others"
        )
    return {part: {"folder": name} for part, name in chosen.items()}


def _share(validation: str | None) -> float | None:
    """Parse `--validation` as a number; None if it is the name of a folder."""
    try:
        share = float(validation or "")
    except ValueError:
        return None
    if not 0 <= share <= 0.5:
        raise ConfigError(
            f"--validation {validation}: a share of the tars above 0, at most 0.5; 0 to write the"
            " index alone; or the name of a folder"
        )
    return share


def _divided(root: Path, names: list[str], share: float) -> Parts:
    if share == 0:
        return {}
    if len(names) < 2:
        raise ConfigError(
            f"{root} has one tar, {names[0]}, and whole tars go to validation. Move it to"
            f" {root}/train/ and put another into {root}/validation/; or pack it as two; or write"
            f" only the index: {console.command('index', root, '--validation', 0)}, which makes no"
            " data set"
        )
    held_out = set(sorted(names, key=rank)[: max(1, int(share * len(names) + 0.5))])
    return {
        "train": {"folder": ".", "shards": [name for name in names if name not in held_out]},
        "validation": {"folder": ".", "shards": [name for name in names if name in held_out]},
    }


def _only(root: Path, inside: list[str], usual: tuple[str, ...], option: str) -> str:
    candidates = [name for name in usual if name in inside]
    if len(candidates) == 1:
        return candidates[0]
    if candidates:
        raise ConfigError(
            f"{root} has {' and '.join(candidates)}; choose with {option} {candidates[0]}"
        )
    if not inside and not any(".tar" in path.name for path in islice(root.rglob("*"), 100_000)):
        raise ConfigError(advice(str(root)))
    hint = (
        f"; to hold out whole tars of one folder: {console.command('index', root / inside[0])}"
        if len(inside) == 1
        else ""
    )
    raise ConfigError(
        f"{_no_tars(root, inside)}; name it with {option} NAME (usual are {', '.join(usual)}){hint}"
    )


def _no_tars(root: Path, inside: list[str]) -> str:
    """Describe where `root` has tars, for the beginning of a message."""
    if inside:
        return f"{root} has tars in {', '.join(inside)}"
    if compressed := sorted(path.name for path in root.rglob("*.tar.*"))[:1]:
        return (
            f"{root} has no .tar files ({compressed[0]} is compressed and has no random access:"
            " uncompress it first)"
        )
    return f"{root} has no .tar files"


def tars_of(folder: Path) -> list[Path]:
    """Return the tars of a folder.

    DataError for names that manifest.json and SHA256SUMS cannot hold, and for a tar whose index
    would overwrite manifest.json or dataset.json.
    """
    tars = sorted(folder.glob("*.tar"))
    for tar in tars:
        if not re.fullmatch(rf"[^{ODD}\\\ud800-\udfff]+", tar.name) or index_path(tar).name in (
            MANIFEST,
            DATASET,
        ):
            raise DataError(
                f"{folder}: the name {tar.name!r} is not UTF-8, has a backslash or control"
                f" characters, or is that of {MANIFEST} or {DATASET}; give the tar another one"
            )
    return tars


def by_part(parts: Parts, tars: dict[str, list[Path]]) -> dict[str, list[Path]]:
    """Return the tars of each part, of those by folder; all of them where there are no parts."""
    if not parts:
        return {"all": [path for paths in tars.values() for path in paths]}
    chosen = {}
    for part, entry in parts.items():
        names = entry.get("shards")
        paths = tars[entry["folder"]]
        chosen[part] = [path for path in paths if names is None or path.name in names]
    return chosen


def require_listed(folder: Path, paths: list[Path]) -> None:
    """Raise DataError if a tar of an earlier manifest is missing: no set may shrink unnoticed."""
    if not (folder / MANIFEST).is_file():
        return
    listed = {shard["file"] for shard in load_manifest(folder)["shards"]}
    if missing := listed - {path.name for path in paths}:
        raise DataError(
            f"{folder / min(missing)} is missing ({len(missing)} of {len(listed)} tars that"
            f" {MANIFEST} lists); restore it, or delete {folder / MANIFEST} to accept the folder as"
            " it is"
        )


def require_disjoint(sets: dict[str, ShardSet]) -> None:
    """Raise DataError if both parts have the same shard, or samples with different fields."""
    train = {shard["sha256"]: shard["file"] for shard in sets["train"].shards}
    for shard in sets["validation"].shards:
        if shard["sha256"] in train:
            raise DataError(
                f"{sets['validation'].folder / shard['file']} is the same as"
                f" {sets['train'].folder / train[shard['sha256']]}; validation needs samples that"
                " are not trained on"
            )
    if sets["train"].fields != sets["validation"].fields:
        raise DataError(
            f"training samples have the fields {sets['train'].fields}, those for validation"
            f" {sets['validation'].fields}"
        )
