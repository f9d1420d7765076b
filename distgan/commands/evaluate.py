"""`distgan evaluate`: score generated images against real images, or measure repaired sound.

Parse the line, choose images or sound, compute with all ranks, store the result, print a table.
"""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from distgan.commands import _evaluate_audio, _evaluate_images, trained_run
from distgan.core import console
from distgan.core.arguments import Arguments, Command, Option
from distgan.core.errors import ConfigError
from distgan.core.files import disk_errors, make_folder, write_atomic
from distgan.recipes._catalog import resolve_recipe

PICTURES = (".png", ".jpg", ".jpeg", ".webp")
SUMMARY = """Score the samples of a trained run (those that `distgan generate RUN` writes) or any
set of images against real images, beside the floor: the scores of real images against other real
images at the same sizes. For runs of waveform or timbre, or folders of sounds: measure every
held-out clip, repaired and before. The result does not depend on the number of processes."""
EXAMPLES = """examples:
  distgan evaluate runs/sagan/ngf32-5e6f7a8b --n 8189 --processes 2
  distgan evaluate runs/sagan/ngf32-5e6f7a8b@last --metrics frechet,kernel
  distgan evaluate photos generated                                  two folders, the real one first
  distgan evaluate data/flowers runs/wgan_flowers/default-1a2b3c4d/results/images
  distgan evaluate photos runs/sagan/ngf32-5e6f7a8b@last             other real images than its own
  distgan evaluate stats.npz generated --inception pt_inception.pth  statistics of pytorch-fid
  distgan evaluate CLEAN REPAIRED --input DENOISED                   sounds of the same names

docs/evaluation.md explains each number and when to trust it"""
SHARED = (
    Option("real", "the first of two sets, REAL", "PATH"),
    Option("fake", "the second of two sets, FAKE", "PATH"),
    Option(
        "out",
        "file for the result (default: RUN/eval/asked/….json; none for two folders)",
        "FILE",
    ),
    *trained_run.OPTIONS,
)


def _check(arguments: Arguments) -> Iterator[str]:
    named = (len(arguments.words), bool(arguments.real), bool(arguments.fake))
    if named not in ((1, False, False), (2, False, False), (0, True, True)):
        yield "RUN, or REAL FAKE: give a run; or two sets, the real one first; or --real and --fake"
    if getattr(arguments, "fit", None) and not arguments.resize:
        yield "--fit: belongs to --resize SIZE, which is missing"
    embedding = [getattr(arguments, name, None) for name in _evaluate_audio.EMBEDDING]
    if any(embedding) and not all(embedding):
        yield (
            "--embedding, --embedding-weights and --embedding-sha256 belong together: the model,"
            " its file, and the digest of the file"
        )


COMMAND = Command(
    "evaluate",
    SUMMARY,
    (
        *_evaluate_images.OPTIONS,
        *SHARED,
        *(replace(option, group="sounds") for option in _evaluate_audio.OPTIONS),
    ),
    (
        "RUN[@best|@last|@epoch=N|@STEP] | REAL FAKE",
        "a run: samples of its best checkpoint, or of the last one, or of a step, against its"
        " training data. Or two of: a folder of images or sounds, a data set of shards, an array"
        " .npy of vectors, a file of statistics (DATA/statistics/….safetensors, or .npz of"
        " pytorch-fid and clean-fid), a run (as REAL its data set, as FAKE its samples)",
    ),
    most=2,
    check=_check,
    epilog=EXAMPLES,
)


def main(argv: list[str]) -> int:
    """Run the command; return its exit code."""
    kind, result, written = _measured(argv)
    if result:
        for heads, rows, notes in kind.tables(result):
            _print(heads, rows, notes)
        if written:
            console.say(f"written: {', '.join(written)}")
    return 0


def measure(argv: list[str]) -> dict[str, Any]:
    """Return the result of the command, and print no table. Collective; every rank gets it."""
    return _measured(argv, everywhere=True)[1]


def _measured(argv: list[str], everywhere: bool = False) -> tuple[Any, Any, list[str]]:
    """Compute and store a result. Return (the module of its kind, the result on rank 0 or
    `everywhere`, the files written). Collective.
    """
    words, given = COMMAND.peek(argv)
    pair = words if len(words) > 1 else [given.get(name, [""])[0] for name in ("real", "fake")]
    is_sound = _concerns_sound(words, *pair[:2])
    kind: Any = _evaluate_audio if is_sound else _evaluate_images
    arguments = replace(COMMAND, options=(*kind.OPTIONS, *SHARED)).parse(argv)
    real, fake = (None, words[0]) if len(words) == 1 else pair
    checkpoint = None
    if trained_run.named_run(fake) or real is None and not _is_set(fake):
        checkpoint = trained_run.locate(fake)
    if real is None and checkpoint:
        evaluation = kind.of_run(checkpoint, arguments)
    elif real is None:
        raise ConfigError(
            f"{fake} is no run; to compare two sets name both, the real one first:"
            f" {console.command('evaluate', 'REAL', fake)}"
        )
    elif is_sound and (checkpoint or trained_run.named_run(real)):
        raise ConfigError(
            "a run of sounds is measured on its held-out clips: distgan evaluate RUN. For other"
            " recordings repair them first: distgan generate RUN OUT --from FOLDER"
        )
    elif checkpoint:
        evaluation = _evaluate_images.of_run(checkpoint, arguments, real)
    else:
        arguments.real, arguments.fake = real, fake
        evaluation = kind.of_folders(arguments)
    from distgan.distributed import launch_line

    launch_line.spread("evaluate", arguments)
    ranks, result = evaluation()
    written = ranks.on_rank_zero(lambda: _store(kind, arguments, checkpoint, result))
    if everywhere:
        result = ranks.on_rank_zero(lambda: result)
    ranks.close()
    return kind, result, written


def _store(
    kind: Any, arguments: Arguments, checkpoint: Path | None, result: dict[str, Any]
) -> list[str]:
    """Write a result into its run folder, or to --out; return the files."""
    if arguments.out:
        out = Path(arguments.out).expanduser()
    elif checkpoint:
        identity = json.dumps(kind.identity(result, arguments), sort_keys=True)
        digest = hashlib.sha256(identity.encode()).hexdigest()[:8]
        folder = checkpoint.parents[1] / "eval" / "asked"
        out = folder / f"{checkpoint.name}-{digest}.json"
    else:
        return []
    with disk_errors(out, "name another file with --out"):
        make_folder(out.parent)
    files = {".json": json.dumps(result, indent=1)} | kind.files(result)
    paths = [out if suffix == ".json" else out.with_suffix(suffix) for suffix in files]
    for path, text in zip(paths, files.values(), strict=True):
        write_atomic(path, text)
    return [str(path) for path in paths]


def _is_set(text: str) -> bool:
    """Return True for a file, and for a folder with something in it that is no part of a run."""
    path = Path(text).expanduser()
    return path.is_file() or path.is_dir() and not (path / "config.yaml").is_file()


def _concerns_sound(words: list[str], real: str, fake: str) -> bool:
    """Return True for a run of pairs, or if the folder `real` holds sound files."""
    from distgan.core.file_tree import find_files
    from distgan.shards.audio.pairs import SOUNDS

    for text in words if len(words) == 1 else (real, fake):
        if run := text and trained_run.named_run(text):
            try:
                return resolve_recipe(str(run / "config.yaml"))[0].Settings.kind == "pair"
            except ConfigError:  # reported when the run is opened, after the options
                return False
    folder = Path(real).expanduser()
    if not real or not folder.is_dir() or (folder / "dataset.json").is_file():
        return False
    sounds, others = find_files(folder, SOUNDS)
    pictures = sum(n for suffix, n in others.items() if suffix in PICTURES)
    if sounds and pictures:
        console.say(
            f"{real} holds sounds ({len(sounds)}) and pictures ({pictures}): the sounds are"
            " compared. For the pictures name a folder of them alone"
        )
    return bool(sounds)


def _print(columns: tuple[str, ...], rows: list[tuple[Any, ...]], notes: list[str]) -> None:
    def text(cell: Any) -> str:
        return f"{cell:.4g}" if isinstance(cell, int | float) else cell or ""

    console.table(columns, [tuple(map(text, row)) for row in rows])
    for note in notes:
        console.say(note)
