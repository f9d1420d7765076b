"""`distgan index FOLDER`: make tars from other programs (webdataset's ShardWriter, `tar cf`) a data
set, without changing them.

    FOLDER/train/*.tar, FOLDER/validation/*.tar     two folders, or
    FOLDER/*.tar                                    one folder: whole tars go to validation, chosen
                                                    by the hash of their names

Each tar gets an index beside it, each folder manifest.json and SHA256SUMS (see
distgan.shards.format.index and manifest). FOLDER/dataset.json describes a sample and lists the tars
for training. Running it again reads the tars that are new, or of another size or time.
"""

import json
import shlex
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from distgan.config.data_name import folder_of_shards
from distgan.core import console
from distgan.core.arguments import Arguments, Command, Option, switch, whole
from distgan.core.errors import ConfigError, DataError
from distgan.core.files import write_atomic
from distgan.core.worker_pool import default_workers
from distgan.shards.adopt.choose import Choice, choose, combinations_of, link_tars, select
from distgan.shards.adopt.folders import (
    SHARE,
    TRAIN,
    VALIDATION,
    Parts,
    by_part,
    layout,
    require_disjoint,
    require_listed,
    tars_of,
)
from distgan.shards.adopt.infer import Combination, infer
from distgan.shards.adopt.labels import label_columns, places
from distgan.shards.adopt.scan import scan_all
from distgan.shards.build.advice import advice
from distgan.shards.format.index import load_json
from distgan.shards.format.manifest import (
    DATASET,
    MANIFEST,
    VERSION,
    parts_of,
    set_fingerprint,
    write_manifest,
)
from distgan.shards.format.reader import ShardSet, open_parts
from distgan.shards.format.sample_spec import UNITS, next_lines

# As dataset.json records them; one of a group replaces all of it.
OPTIONS = (
    ("train", "validation"),
    ("image", "input", "target", "vector"),
    ("fields",),
    ("label",),
    ("skip-broken",),
)
RECIPES = {"image": "sagan"}  # to name as the next command


def _check(args: Arguments) -> Iterator[str]:
    alone = [args.image, args.vector, args.input or args.target]
    if (args.input is None) != (args.target is None) or len(alone) - alone.count(None) > 1:
        yield "name either --image, or both --input and --target, or --vector"


COMMAND = Command(
    "index",
    """Make tars that others wrote (webdataset's ShardWriter, tar --sort=name -cf) a data set to
train on. The tars are only read, and every byte of them: cut, damaged or unsafe ones are refused.
Running it again reads new and changed ones, and keeps the options that it was made with.""",
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
        Option(
            "fields",
            "index these fields alone, separated by commas, as jpg,cls; a sample must have all of"
            " them (default: what is trained on, labels, and what all samples have)",
            "FIELD,…",
            read=lambda text: text.lower().split(","),
        ),
        switch(
            "skip-broken",
            "decode every image, and leave out samples that are damaged or lack a field; they are"
            " counted and listed in dataset.json",
        ),
        Option(
            "out",
            "make the data set in this folder, of links to the tars: nothing is written beside"
            " them",
            "FOLDER",
        ),
        switch("verify", "read tars again that have the size and time that they had"),
        whole("workers", "processes that read tars", 1, default=default_workers()),
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
  distgan index tars --fields jpg,cls --skip-broken
  distgan index /data/tars --out idx            the tars are read-only: links to them, in idx

then: distgan check FOLDER
then: distgan run --processes 2 sagan data=FOLDER""",
)


def main(argv: list[str]) -> int:
    """Run `distgan index`; return 0 when the folder is indexed and whole.

    ConfigError for wrong options, DataError for tars that cannot be indexed.
    """
    args = COMMAND.parse(argv)
    root = folder_of_shards(args.words[0])
    if args.out:
        if not root.is_dir():
            raise ConfigError(advice(args.words[0]))
        root, tars = Path(args.out), root
        link_tars(tars, root)
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
            f"{error.filename} cannot be written, and the index goes beside the tars; make the data"
            f" set elsewhere: {console.command('index', args.words[0], '--out', 'FOLDER')}"
        ) from error
    return 0


def _as_before(path: Path, args: Arguments) -> list[str]:
    """Return the options that `path`, a dataset.json, records and this line says nothing of."""
    if not path.is_file() or (about := load_json(path)).get("source") != "index":
        return []
    recorded = about.get("options")
    return [
        f"--{name}={recorded[name]}" if recorded[name] else f"--{name}"
        for group in OPTIONS
        if isinstance(recorded, dict) and not set(group) & args.given.keys()
        for name in group
        if isinstance(recorded.get(name), str)
    ]


def adopt(root: Path, args: Arguments) -> None:
    """Index every tar, write the manifests, examine every sample, and write dataset.json."""
    parts = layout(root, args.train, args.validation)
    folders = list(dict.fromkeys(part["folder"] for part in parts.values())) or ["."]
    tars = {folder: tars_of(root / folder) for folder in folders}
    for folder, paths in tars.items():
        require_listed(root / folder, paths)
    every = [path for paths in tars.values() for path in paths]
    read = scan_all(every, args.skip_broken, args.verify, args.workers)
    parts_tars = by_part(parts, tars)
    pair = (args.input, args.target) if args.input else None
    choice, samples = choose(
        combinations_of(parts_tars), args.fields, args.label, args.image, pair, args.vector
    )
    left_out = select(every, choice, args.skip_broken)
    manifests = {
        folder: write_manifest(
            root / folder,
            (root / folder).resolve().name,
            pattern="*.tar",
            fields=None if choice.is_strict else choice.fields,
        )
        for folder in folders
    }
    console.say(
        f"{root}: {len(every)} tars are whole; {read} were read, {len(every) - read} have the size"
        " and time that they had when they were indexed"
    )
    if not parts:
        console.say(
            f"{root}: {manifests['.']['samples']} samples, fields"
            f" {', '.join(manifests['.']['fields'])}; only the index was asked for"
        )
        return
    _describe(root, args, parts, choice, samples, left_out)


def _describe(
    root: Path,
    args: Arguments,
    parts: Parts,
    choice: Choice,
    samples: Sequence[Combination],
    left_out: list[dict[str, str]],
) -> None:
    """Write dataset.json, and report."""
    sets = {
        part: ShardSet(folder, shards=shards)
        for part, (folder, shards) in parts_of({"parts": parts}, root).items()
    }
    require_disjoint(sets)
    if args.skip_broken:
        samples = [one for one in samples if choice.is_whole(one)]
    sample, notes = infer(choice.role, choice.fields, samples)
    columns = label_columns(sets, args.label)
    names = [name for group in OPTIONS for name in group if name in args.given]
    options = {name: "".join(args.given[name][:1]) for name in names}
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
        "left_out": left_out,
        "low_quality_kept": [],
        "notes": [
            *notes,
            *choice.notes,
            *(f"labels: {len(one.values)} classes in {one.place}" for one in columns),
        ],
        "complete": True,
    }
    prints = [shard_set.fingerprint for shard_set in sets.values()]
    dataset["fingerprint"] = set_fingerprint(dataset, prints)
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
    if left_out := dataset["left_out"]:
        reasons = "\n".join(f"  {one['name']}: {one['reason']}" for one in left_out[:5])
        console.say(f"{len(left_out)} samples were left out; {DATASET} lists them:\n{reasons}")
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
