"""`distgan generate`: write what the generator of a trained run generates, as files or as shards:
images or vectors from noise, or repaired sounds or images.
"""

import dataclasses
import hashlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from distgan.commands import _drawn_images, trained_run
from distgan.config.data_name import PASSED
from distgan.config.settings import Run
from distgan.core import console
from distgan.core.arguments import Arguments, Command, Option, one_of, whole
from distgan.core.errors import ConfigError
from distgan.recipes._catalog import Module

MAX_ITEMS = 1_000_000
MAX_COLUMNS = 1000  # of vectors, in result.csv; samples.npy has all
IMAGES_PER_SHARD = 256  # 16 of sounds; two shards or more are a data set
COMMAND = Command(
    "generate",
    """Write what the generator of a trained run generates. From noise (sagan, capacity, r3gan,
wgan_flowers): images/00000.png …, result.csv (a row for each, with D's score) and grid.png; of a
run of vectors (your own recipe) samples.npy, float32 [N, numbers], and the same in result.csv. Of
sounds (waveform, timbre) or of images (your own recipe of image pairs): the held-out inputs, or
files of your own, repaired: sounds/KEY.wav … or images/KEY.png …, and result.csv.

Item i depends on the run's seed and i alone, not on the number of processes, so a larger N adds
files and changes none. The same line again continues where it was interrupted, after it has
verified the files.""",
    (
        whole(
            "n",
            "how many (default: 64 images, 1,000 vectors, or all inputs); also count=N",
            1,
            MAX_ITEMS,
            also="count",
        ),
        Option("out", "folder to make, as OUT", "FOLDER"),
        one_of(
            "shards",
            "yes: WebDataset tars of 256 images or 16 sounds with an index instead of files; from"
            " two tars on a data set of their own",
            "no",
            "yes",
            default="no",
        ),
        Option(
            "from",
            "of sounds and image pairs: a folder of files to repair, at the run's rate or size,"
            " instead of what is held out",
            "FOLDER",
        ),
        *trained_run.OPTIONS,
        *(dataclasses.replace(option, group="images") for option in _drawn_images.OPTIONS),
    ),
    (
        "RUN[@best|@last|@epoch=N|@STEP] [OUT]",
        "a run folder (its best checkpoint, or the last one, or the one of a step), and the folder"
        " to make (default: RUN/generated-STEP)",
    ),
    least=1,
    most=2,
    epilog="""examples:
  distgan generate runs/wgan_flowers/default-1a2b3c4d flowers --n 8189 --processes 2
  distgan generate runs/wgan_flowers/conditionalTrue-4c5d6e7f --class rose --n 50
  distgan generate runs/sagan/conditionalTrue-5d6e7f8a --interpolate star,disc
  distgan generate runs/r3gan/default-7f8a9b0c typical --truncation 1.5
  distgan generate runs/sagan/ngf32-5e6f7a8b@last more --n 50000 --shards yes
  distgan generate runs/timbre/default-9c0d1e2f repaired --from ~/recordings""",
)


def main(argv: list[str]) -> int:
    """Run the command; return its exit code."""
    arguments = COMMAND.parse(argv)
    options, words = vars(arguments), arguments.words  # `from` is no name in Python
    out = options["out"]
    if len(words) == 2:
        if out:
            raise COMMAND.error(f"--out: {out}, but OUT is {words[1]}; name one folder to make")
        out = words[1]
    checkpoint = trained_run.locate(words[0])
    folder = checkpoint.parents[1]
    module, run = trained_run.settings(folder, options["device"])
    is_vector, from_noise = run.kind == "vector", run.kind in ("image", "vector")
    request = _drawn_images.requested(arguments, module, run, folder)
    usual = folder / "-".join(["generated", checkpoint.name, *request.words])[:200]
    target = Path(out).expanduser() if out else usual
    for name in ("from", "data"):
        if from_noise and options[name]:
            raise ConfigError(
                f"{name}={options[name]}: {run.recipe} draws samples from noise and needs no input"
            )
    shards = options["shards"] == "yes"
    if shards and is_vector:
        line = console.command("shard", "vectors", "OUT", "--from", target / "samples.npy")
        raise ConfigError(f"shards=yes: vectors are written as one array; then: {line}")
    if shards and options["from"]:
        raise ConfigError(
            "shards=yes: shards hold pairs of input and target, and files of your own have no"
            " target; leave it out"
        )
    from distgan.distributed import launch_line
    from distgan.outputs.folder import OutputFolder

    about = {
        "checkpoint_digest": trained_run.digest(checkpoint),
        "recipe": run.recipe,
        "step": int(checkpoint.name),
        "seed": run.seed,
        "of": "noise" if from_noise else _inputs(options["from"], options["data"] or run.data, run),
    } | request.about
    store = OutputFolder(target, about, shards)
    store.require_ours()
    launch_line.spread("generate", arguments)
    generate = partial(_vectors if is_vector else _images, request) if from_noise else _repaired
    text = f"{generate(module, run, checkpoint, arguments, store)}: {target}"
    if (target / "dataset.json").is_file():
        text += f"; next: {console.command('check', target)}"
    elif from_noise and not shards and not run.data.endswith(PASSED):
        fake = target / ("samples.npy" if is_vector else "images")
        # Samples of some classes compare with the real ones of these classes alone.
        compared = (words[0],) if request.names else (run.data, fake)
        text += f"; next: {console.command('evaluate', *compared)}"
    console.say(text)
    return 0


def _inputs(folder: str | None, data_folder: str, run: Run) -> str:
    """Describe what to repair: files by their content and rate or size, or what is held out.

    ConfigError where the run could not train on the data set.
    """
    from distgan.commands import _repairs
    from distgan.core.file_tree import Contents, find_files
    from distgan.data.own_dataset import open_data
    from distgan.shards.audio.pairs import SOUNDS

    if folder and not Path(folder).expanduser().is_dir():
        raise ConfigError(f"from={folder}: no such folder")
    data = open_data(data_folder)
    data.require(run)
    if not folder:
        return f"held-out clips of data {data.fingerprint}"  # of images as well: older folders
    path = Path(folder).expanduser()
    if data.kind == "image_pair":
        return _repairs.inputs(data, path)
    contents = Contents(path, find_files(path, SOUNDS)[0], "recordings")
    return f"{contents} at {data.rate} Hz"


def _images(
    request: _drawn_images.Request,
    module: Module,
    run: Run,
    checkpoint: Path,
    arguments: Arguments,
    store: Any,
) -> str:
    from distgan.distributed.ranks import Ranks
    from distgan.outputs import image_grid, image_results

    ranks, count = Ranks(run.machine, run.precision), arguments.n or 64
    recipe = ranks.on_all_ranks(lambda: trained_run.load(module, run, ranks, checkpoint))
    size = IMAGES_PER_SHARD if store.shards else image_results.ROUND
    drawing = ranks.on_all_ranks(lambda: request.drawing(recipe))
    columns, multiple = drawing.columns, image_results.CHUNK
    first = ranks.on_rank_zero(lambda: store.begin(columns, size, multiple, count))

    def add(start: int, images: Any, scores: Any) -> None:
        files = image_results.files(drawing, start, images, scores, count)
        store.add([(row, {"png": data}) for row, data in files])

    def finish() -> None:
        if not store.shards:
            paths = sorted((store.target / "images").glob("*.png"))[: image_results.GRID]
            image_grid.save_grid(store.target / "grid.png", image_grid.load(paths))
        store.finish(["--image", "png"])

    with console.bar("generating", count, "images", start=min(first, count)) as bar:
        for start, tensors in image_results.rounds(
            ranks, drawing, range(first, count), bar, size=size
        ):
            ranks.on_rank_zero(partial(add, start, *tensors))
    ranks.on_rank_zero(finish)
    ranks.close()
    return f"{max(first, count)} images by {checkpoint}"


def _vectors(
    request: _drawn_images.Request,
    module: Module,
    run: Run,
    checkpoint: Path,
    arguments: Arguments,
    store: Any,
) -> str:
    import numpy as np

    from distgan.core.files import csv_text, write_atomic
    from distgan.distributed.ranks import Ranks
    from distgan.outputs import image_results

    ranks = Ranks(run.machine, run.precision)
    recipe = ranks.on_all_ranks(lambda: trained_run.load(module, run, ranks, checkpoint))
    drawing = ranks.on_all_ranks(lambda: request.drawing(recipe))
    # All anew, which takes less time than to verify them.
    count = ranks.on_rank_zero(lambda: store.begin_anew(arguments.n or 1000))
    parts: list[list[Any]] = []
    with console.bar("generating", count, "vectors") as bar:
        for _, tensors in image_results.rounds(ranks, drawing, range(count), bar):
            parts.append(tensors)

    def write() -> None:
        vectors, scores = (np.concatenate(column) for column in zip(*parts, strict=True))
        write_atomic(store.target / "samples.npy", lambda file: np.save(file, vectors))
        names = trained_run.columns_of(checkpoint.parents[1]) or range(vectors.shape[1])
        shown = [name if isinstance(name, str) else f"x{name}" for name in names][:MAX_COLUMNS]
        classes = drawing.classes(np.arange(count))
        rows = [
            (
                i,
                *(() if classes is None else (drawing.class_name(classes[i]),)),
                f"{scores[i]:.9g}",
                *(f"{value:.9g}" for value in vectors[i, : len(shown)].tolist()),
            )
            for i in range(count)
        ]
        heads = ("id", *(() if classes is None else ("class",)), "critic_score", *shown)
        write_atomic(store.target / "result.csv", csv_text(heads, rows))
        store.finish([])

    ranks.on_rank_zero(write)
    ranks.close()
    return f"{count} vectors by {checkpoint}"


def _repaired(module: Module, run: Run, checkpoint: Path, arguments: Arguments, store: Any) -> str:
    import numpy as np

    from distgan.commands import _repairs
    from distgan.data.own_dataset import open_data
    from distgan.distributed.ranks import Ranks

    source = vars(arguments)["from"]
    ranks = Ranks(run.machine, run.precision)
    data = ranks.on_all_ranks(lambda: open_data(arguments.data or run.data))
    recipe = ranks.on_all_ranks(lambda: trained_run.load(module, run, ranks, checkpoint))
    kind = _repairs.Images if run.kind == "image_pair" else _repairs.Sounds
    folder = Path(source).expanduser() if source else None
    clips = ranks.on_all_ranks(lambda: kind(data, recipe.repairer(), ranks.device, folder))
    count = min(arguments.n or len(clips.keys), len(clips.keys))
    columns, files_per_clip = ("id", "file_name", "key", "sha256"), 2 if store.shards else 1
    first = ranks.on_rank_zero(lambda: store.begin(columns, kind.per_shard, 1, count))

    def repaired(index: np.ndarray) -> list[bytes]:
        files = []
        for i in index.tolist():
            files += clips.files(i, files_per_clip)
            bar.advance(min(ranks.world_size, bar.total - bar.done))
        return files

    def add(numbers: range, files: list[bytes]) -> None:
        store.add(list(_rows(numbers, clips, files, files_per_clip, bool(source))))

    with console.bar("repairing", count, kind.unit, start=min(first, count)) as bar:
        for start in range(first, count, kind.per_shard):
            numbers = range(start, min(start + kind.per_shard, count))
            index = np.arange(start + ranks.rank, numbers.stop, ranks.world_size)
            files = ranks.on_all_ranks(partial(repaired, index))
            slots = ((index - start)[:, None] * files_per_clip + np.arange(files_per_clip)).ravel()
            gathered = _gather_files(ranks, slots, files, len(numbers) * files_per_clip)
            ranks.on_rank_zero(partial(add, numbers, gathered))
    fields = ("--input", f"input.{kind.extension}", "--target", f"target.{kind.extension}")
    ranks.on_rank_zero(lambda: store.finish(list(fields)))
    ranks.close()
    return f"{max(first, count)} {kind.unit} by {checkpoint}"


def _rows(
    numbers: range, clips: Any, files: list[bytes], files_per_clip: int, keep_names: bool
) -> Iterator[tuple[tuple[Any, ...], dict[str, bytes]]]:
    """Yield (row, members) of each clip.

    With `keep_names`, files have the names of their inputs, so that both can be compared; else a
    number goes before a name that is safe anywhere.
    """
    from distgan.core.file_tree import shown
    from distgan.outputs.audio_results import file_name

    keys, extension = [shown(key) for key in clips.keys], clips.extension
    # Not a.wav and a.flac, nor what a table of files cannot hold.
    usable = len(set(keys)) == len(keys) and all(key.isprintable() for key in keys)
    suffixes = [f"input.{extension}", f"target.{extension}"] if files_per_clip == 2 else [extension]
    for k, i in enumerate(numbers):
        parts = files[k * files_per_clip : (k + 1) * files_per_clip]
        name = keys[i] if keep_names and usable else f"{i:05d}-{file_name(keys[i])}"
        row = (
            i,
            f"{clips.folder}/{name}.{extension}",
            keys[i],
            hashlib.sha256(parts[0]).hexdigest(),
        )
        yield row, dict(zip(suffixes, parts, strict=True))


def _gather_files(ranks: Any, index: Any, files: list[bytes], total: int) -> list[bytes]:
    """Gather files numbered by `index`: those of 0 to total - 1 on rank 0, none elsewhere.

    Collective.
    """
    import numpy as np
    import torch

    sizes = torch.tensor([len(file) for file in files], dtype=torch.int64)[:, None]
    lengths = ranks.gather(index, sizes, total)
    longest = ranks.on_rank_zero(lambda: int(lengths.max()))
    rows = np.zeros((len(files), longest), np.uint8)
    for row, file in zip(rows, files, strict=True):
        row[: len(file)] = np.frombuffer(file, np.uint8)
    gathered = ranks.gather(index, torch.from_numpy(rows), total)
    return [
        row[:length].numpy().tobytes()
        for row, length in zip(gathered, lengths.flatten().tolist(), strict=True)
    ]
