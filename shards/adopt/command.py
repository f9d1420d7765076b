"""`distgan index FOLDER`: make tars from other programs (webdataset's ShardWriter, `tar cf`) a data
set, without changing them.

    FOLDER/train/*.tar, FOLDER/validation/*.tar     two folders, or
    FOLDER/*.tar                                    one folder: whole tars go to validation, chosen
                                                    by the hash of their names

Each tar gets an index beside it, each folder manifest.json and SHA256SUMS (see
distgan.shards.format.index and manifest). FOLDER/dataset.json describes a sample and lists the tars
for training. Running it again reads every tar and finds any that changed.
"""

import json
import re
import shlex
from collections.abc import Iterator
from contextlib import nullcontext
from itertools import islice
from pathlib import Path
from typing import Any

from distgan.config.data_name import folder_of_shards
from distgan.core import console
from distgan.core.arguments import Arguments, Command, Option
from distgan.core.errors import ConfigError, DataError
from distgan.core.files import write_atomic
from distgan.shards.adopt.infer import infer
from distgan.shards.adopt.labels import label_columns, places
from distgan.shards.build.advice import advice
from distgan.shards.build.split import rank
from distgan.shards.format.index import index_path, index_tar, load_json
from distgan.shards.format.manifest import (
    DATASET,
    MANIFEST,
    VERSION,
    fingerprint,
    load_manifest,
    parts_of,
    write_manifest,
)
from distgan.shards.format.reader import ShardSet, open_parts
from distgan.shards.format.sample_spec import UNITS, next_lines
from distgan.shards.format.tar_members import ODD

TRAIN, VALIDATION = ("train", "training"), ("validation", "val", "valid", "test")
SHARE = 0.1
# As dataset.json records them; one of a group replaces all of it.
OPTIONS = (("train", "validation"), ("image", "input", "target", "vector"), ("label",))
RECIPES = {"image": "sagan"}  # to name as the next command
Parts = dict[str, dict[str, Any]]


def _check(args: Arguments) -> Iterator[str]:
    alone = [args.image, args.vector, args.input or args.target]
    if (args.input is None) != (args.target is None) or len(alone) - alone.count(None) > 1:
        yield "name either --image, or both --input and --target, or --vector"


COMMAND = Command(
    "index",
    """Make tars that others wrote (webdataset's ShardWriter, tar --sort=name -cf) a data set to
train on. The tars are only read, and every byte of them: cut, damaged or unsafe ones are refused.
Running it again finds any that changed, and keeps the options that it was made with.""",
    (
        Option("train", f"the folder for training (default: {' or '.join(TRAIN)})", "NAME"),
        Option(
            "validation",
            f"the folder for validation (default: {', '.join(VALIDATION)}), or the share of the"
            f" tars of FOLDER itself, at most 0.5 (default: {SHARE}); 0 writes the index alone",
            "NAME|SHARE",
        ),
        Option("image", "the field that is the image (default: png, jpg, jpeg or npy)", "FIELD"),
        Option("vector", "the field that is a vector (default: npy, if it is float32)", "FIELD"),
        Option(
            "input",
            "the field that goes into the model, of sound or an image (default: input.wav, .flac,"
            " .png …)",
            "FIELD",
        ),
        Option("target", "the field that should come out (default: target.wav, .png …)", "FIELD"),
        Option(
            "label",
            "the fields that are labels, separated by commas: cls, or a key of a field of JSON, as"
            " json:species (default: cls, where it has classes)",
            "FIELD[:KEY]",
            allowed="FIELD or FIELD:KEY, separated by commas",
            read=places,
        ),
    ),
    ("FOLDER", "where the tars are, or the folders that hold them"),
    least=1,
    most=1,
    check=_check,
    epilog="""examples:
  distgan index tars                            tars/*.tar: a tenth of them for validation
  distgan index data                            data/train/*.tar and data/val/*.tar
  distgan index data --train a --validation b   the same with other names
  distgan index tars --image left.png           the field that is the image, of several
  distgan index tars --label json:species       what conditional networks are given
  distgan index tars --input noisy.wav --target clean.wav
  distgan index tars --input a.png --target b.png

then: distgan check FOLDER
then: distgan run --processes 2 sagan data=FOLDER""",
)


def main(argv: list[str]) -> int:
    """Run `distgan index`; return 0 when the folder is indexed and whole.

    ConfigError for wrong options, DataError for tars that cannot be indexed.
    """
    args = COMMAND.parse(argv)
    root = folder_of_shards(args.words[0])
    if kept := _as_before(root / DATASET, args):
        args = COMMAND.parse([*kept, *argv])
        console.say(f"{root} was indexed with {' '.join(kept)}, and is again; {DATASET} keeps it")
    if not root.is_dir():
        raise ConfigError(advice(args.words[0]))
    try:
        if not _verify_existing(root):
            adopt(root, args)
    except PermissionError as error:
        raise DataError(
            f"{error.filename} cannot be written, and the index goes beside the tars: make a folder"
            " of your own with links to them (ln -s) and index that"
        ) from error
    return 0


def _as_before(path: Path, args: Arguments) -> list[str]:
    """Return the options that `path`, a dataset.json, records and this line says nothing of."""
    if not path.is_file() or (about := load_json(path)).get("source") != "index":
        return []
    recorded = about.get("options")
    return [
        f"--{name}={recorded[name]}"
        for group in OPTIONS
        if isinstance(recorded, dict) and not set(group) & args.given.keys()
        for name in group
        if isinstance(recorded.get(name), str)
    ]


def adopt(root: Path, args: Arguments) -> None:
    """Index every tar, write the manifests, examine every sample, and write dataset.json."""
    parts = _layout(root, args.train, args.validation)
    folders = list(dict.fromkeys(part["folder"] for part in parts.values())) or ["."]
    tars = {folder: _tars(root / folder) for folder in folders}
    known = sum(path.with_suffix(".json").exists() for paths in tars.values() for path in paths)
    with console.bar(f"indexing {root}", sum(map(len, tars.values())), "tars") as bar:
        for folder, paths in tars.items():
            _require_listed(root / folder, paths)
            for path in paths:
                index_tar(path)
                bar.advance()
    manifests = {
        folder: write_manifest(root / folder, (root / folder).resolve().name, pattern="*.tar")
        for folder in folders
    }
    total = sum(len(paths) for paths in tars.values())
    console.say(
        f"{root}: {total} tars are whole; {total - known} were indexed, {known} had their index and"
        " are unchanged"
    )
    if not parts:
        console.say(
            f"{root}: {manifests['.']['samples']} samples, fields"
            f" {', '.join(manifests['.']['fields'])}; only the index was asked for"
        )
        return
    sets = {
        part: ShardSet(folder, shards=shards)
        for part, (folder, shards) in parts_of({"parts": parts}, root).items()
    }
    _require_disjoint(sets)
    pair = (args.input, args.target) if args.input else None
    sample, errors = infer(sets, args.image, pair, args.vector)
    columns = label_columns(sets, args.label)
    names = [name for group in OPTIONS for name in group if name in args.given]
    options = {name: args.given[name][0] for name in names}
    labels = {"labels": {column.name: column.entry() for column in columns}} if columns else {}
    dataset = {
        "version": VERSION,
        "source": "index",
        "options": options,
        "origin": {},
        "sample": sample,
        **labels,
        "parts": parts,
        "samples": {part: len(shard_set) for part, shard_set in sets.items()},
        "left_out": [],
        "low_quality_kept": [],
        "notes": errors + [f"labels: {len(one.values)} classes in {one.place}" for one in columns],
        "complete": True,
        "fingerprint": fingerprint([shard_set.fingerprint for shard_set in sets.values()]),
    }
    write_atomic(root / DATASET, json.dumps(dataset, indent=1) + "\n", nullcontext)
    _report(root, dataset)


def _verify_existing(root: Path) -> bool:
    """Verify `root` if `distgan shard` made it or it is one split of a data set; False if not."""
    own, parent = root / DATASET, root.resolve().parent / DATASET
    if own.is_file() and load_json(own).get("source") != "index":
        if not load_json(own).get("complete"):
            raise DataError(f"{root} is unfinished; run its `distgan shard` command again")
        sets = open_parts(root, "sha256")
        console.say(
            f"{root} was made by `distgan shard` and is indexed; every shard was read and has its"
            " sha256: " + ", ".join(f"{len(shard_set)} {part}" for part, shard_set in sets.items())
        )
        return True
    if not own.is_file() and parent.is_file() and (root / MANIFEST).is_file():
        shard_set = ShardSet(root, "sha256")
        console.say(
            f"{root} is one split of {root.resolve().parent} and is indexed; every shard was read"
            f" and has its sha256: {len(shard_set)} samples"
        )
        return True
    return False


def _layout(root: Path, train: str | None, validation: str | None) -> Parts:
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


def _tars(folder: Path) -> list[Path]:
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


def _require_listed(folder: Path, paths: list[Path]) -> None:
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


def _require_disjoint(sets: dict[str, ShardSet]) -> None:
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


def _report(root: Path, dataset: dict[str, Any]) -> None:
    sample, counts = dataset["sample"], dataset["samples"]
    details = ", ".join(
        f"{name} {value}"
        for name, value in sample.items()
        if name not in ("kind", "fields") and value is not None
    )
    kind = f"{sample['kind']} ({details})" if details else sample["kind"]
    console.say(
        f"{root}: {counts['train']} train, {counts['validation']} validation, kind {kind};"
        f" fingerprint {dataset['fingerprint']}"
    )
    for note in dataset["notes"]:
        console.say(note)
    if sample["kind"] == "image" and not sample["size"]:
        folders = dict.fromkeys(part["folder"] for part in dataset["parts"].values())
        tars = " ".join(f"{shlex.quote(str(root / folder))}/*.tar" for folder in folders)
        console.say(
            f"next: unpack them and make images of one size\n  mkdir unpacked && for tar in {tars};"
            ' do tar xf "$tar" -C unpacked; done\n  distgan shard images OUT --from unpacked'
            " --size 64"
        )
    elif sample["kind"] in UNITS:
        usual, columns = RECIPES.get(sample["kind"]), list(dataset.get("labels", {}))
        for line in next_lines(root, sample, usual, columns):
            console.say(f"next: {line}")
    else:
        console.say("next: distgan index --help")
