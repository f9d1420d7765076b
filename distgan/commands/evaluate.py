"""`distgan evaluate`: score generated images against real ones, or measure repaired sound.

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

SUMMARY = """Score the samples of a trained run (those that `distgan generate RUN` writes) or the
images of a folder against real images, beside the scores of real images against other real images
at the same sizes. For runs of waveform or timbre, or folders of sounds: measure every held-out
clip, repaired and before. The result does not depend on the number of processes."""
EXAMPLES = """examples:
  distgan evaluate runs/sagan/ngf32-5e6f7a8b --n 8189 --processes 2
  distgan evaluate runs/sagan/ngf32-5e6f7a8b@last --metrics frechet,kernel
  distgan evaluate --real data/flowers --fake runs/wgan_flowers/default-1a2b3c4d/results/images
  distgan evaluate --real CLEAN --fake REPAIRED --input DENOISED     sounds of the same names

docs/evaluation.md explains each number and when to trust it"""
SHARED = (
    Option(
        "real",
        "real images or clean sounds: a folder, a data set of shards, or a file of statistics"
        " (DATA/statistics/….safetensors)",
        "PATH",
    ),
    Option(
        "fake", "generated images or repaired sounds: a folder, or a data set of shards", "PATH"
    ),
    Option(
        "out",
        "file for the result (default: RUN/eval/asked/….json; none for two folders)",
        "FILE",
    ),
    *trained_run.OPTIONS,
)


def _check(arguments: Arguments) -> Iterator[str]:
    sets = [bool(arguments.real), bool(arguments.fake)]
    if sets != [not arguments.words] * 2:
        yield "RUN: give a run, or both --real and --fake"
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
        "[RUN[@best|@last|@STEP]]",
        "a run folder: its best checkpoint, or the last one, or the one of a step; or a checkpoint"
        " folder",
    ),
    most=1,
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
    is_sound = _concerns_sound(words, given.get("real", [""])[0])
    kind: Any = _evaluate_audio if is_sound else _evaluate_images
    arguments = replace(COMMAND, options=(*kind.OPTIONS, *SHARED)).parse(argv)
    checkpoint = trained_run.locate(arguments.words[0]) if arguments.words else None
    if checkpoint:
        evaluation = kind.of_run(checkpoint, arguments)
    else:
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


def _concerns_sound(words: list[str], real: str) -> bool:
    """Return True for a run of pairs, or if the folder `real` holds sound files."""
    from distgan.core.file_tree import find_files
    from distgan.shards.audio.pairs import SOUNDS

    if len(words) == 1:
        try:
            folder = trained_run.locate(words[0]).parents[1]
            return resolve_recipe(str(folder / "config.yaml"))[0].Settings.kind == "pair"
        except ConfigError:  # reported when the run is opened, after the options
            return False
    folder = Path(real).expanduser()
    if not real or not folder.is_dir() or (folder / "dataset.json").is_file():
        return False
    return bool(find_files(folder, SOUNDS)[0])


def _print(columns: tuple[str, ...], rows: list[tuple[Any, ...]], notes: list[str]) -> None:
    def text(cell: Any) -> str:
        return f"{cell:.4g}" if isinstance(cell, int | float) else cell or ""

    console.table(columns, [tuple(map(text, row)) for row in rows])
    for note in notes:
        console.say(note)
