"""`distgan generate`: what a trained run's generator makes, as files or as shards: images from
noise, or repaired sounds.
"""

import hashlib
import json
import shlex
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from distgan.commands import trained_run as trained
from distgan.config.settings import Run
from distgan.core import console
from distgan.core.arguments import Command, Option, one_of, whole
from distgan.core.errors import ConfigError

MOST = 1_000_000
IMAGES, SOUNDS = 256, 16  # in a shard; two shards or more are a data set
COMMAND = Command(
    "generate",
    """Write what the generator of a trained run makes. From noise (sagan, capacity, r3gan,
wgan_flowers): images/00000.png …, result.csv (a line for each, with D's score) and grid.png. Of
sounds (waveform, timbre): the held-out clips, or files of your own, repaired: sounds/KEY.wav … and
result.csv.

Item i depends on the run's seed and i alone, not on the number of processes, so a larger N adds
files and changes none. The same line again goes on where it was interrupted, and looks at what is
there first.""",
    (
        whole(
            "n",
            "how many (default: 64 images, or all sounds); also count=N",
            1,
            MOST,
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
            "of sounds: a folder of sound files to repair, resampled to the run's rate, instead of"
            " the held-out clips",
            "FOLDER",
        ),
        *trained.OPTIONS,
    ),
    (
        "RUN[@best|@last|@STEP] [OUT]",
        "a run folder (its best checkpoint, or the last one, or the one of a step), and the folder"
        " to make (default: RUN/generated-STEP)",
    ),
    least=1,
    most=2,
    epilog="""examples:
  distgan generate runs/wgan_flowers/default-1a2b3c4d flowers --n 8189 --processes 2
  distgan generate runs/sagan/ngf32-5e6f7a8b@last more --n 50000 --shards yes
  distgan generate runs/timbre/default-9c0d1e2f repaired --from ~/recordings""",
)


def main(argv: list[str]) -> int:
    """Returns the exit code."""
    arguments = COMMAND.parse(argv)
    asked, words = vars(arguments), arguments.words
    if len(words) == 2 and asked["out"]:
        raise COMMAND.error(
            f"--out: {asked['out']}, but OUT is {words[1]}; name one folder to make"
        )
    checkpoint = trained.locate(words[0])
    module, run = trained.settings(checkpoint.parents[1], asked["device"])
    out = words[1] if len(words) == 2 else asked["out"]
    target = (
        Path(out).expanduser() if out else checkpoint.parents[1] / f"generated-{checkpoint.name}"
    )
    images = module.Settings.kind == "image"
    if images and (wrong := [name for name in ("from", "data") if asked[name]]):
        raise ConfigError(
            f"{wrong[0]}={asked[wrong[0]]}: {run.recipe} draws images from noise and needs nothing"
            " to begin with"
        )
    from distgan.distributed import launch_line
    from distgan.outputs.folder import OutputFolder

    about = {
        "checkpoint_digest": json.loads((checkpoint / "checkpoint.json").read_text())["digest"],
        "recipe": run.recipe,
        "step": int(checkpoint.name),
        "seed": run.seed,
        "of": "noise" if images else _what(asked["from"], asked["data"] or run.data),
    }
    store = OutputFolder(target, about, asked["shards"] == "yes")
    store.require_ours()
    launch_line.spread("generate", arguments)
    made = (_images if images else _sounds)(module, run, checkpoint, asked, store)
    following = (
        ["check", str(target)]
        if (target / "dataset.json").is_file()
        else (
            ["evaluate", "--real", str(run.data), "--fake", str(target / "images")]
            if images and not store.shards
            else None
        )
    )
    console.say(
        f"{made}: {target}" + (f"; next: distgan {shlex.join(following)}" if following else "")
    )
    return 0


def _what(own: str | None, folder: str) -> str:
    """What is repaired: sound files by their content and the rate they are read at, or the held-out
    clips of a data set.
    """
    from distgan.core.file_tree import Contents, find_files
    from distgan.data.dataset import Data
    from distgan.shards.audio.pairs import SOUNDS

    if own and not Path(own).expanduser().is_dir():
        raise ConfigError(f"from={own}: no such folder")
    data = Data(folder)
    if not own:
        return f"held-out clips of data {data.fingerprint}"
    at = Path(own).expanduser()
    return f"{Contents(at, find_files(at, SOUNDS)[0], 'recordings')} at {data.sample.rate} Hz"


def _images(
    module: ModuleType, run: Run, checkpoint: Path, asked: dict[str, Any], store: Any
) -> str:
    from distgan.distributed.ranks import Ranks
    from distgan.outputs import image_grid as pictures
    from distgan.outputs import image_results as results

    ranks, count = Ranks(run.machine, run.precision), asked["n"] or 64
    recipe = ranks.on_all_ranks(lambda: trained.load(module, run, ranks, checkpoint))
    size = IMAGES if store.shards else results.ROUND
    first = ranks.on_rank_zero(lambda: store.begin(results.COLUMNS, size, results.CHUNK, count))

    def keep(start: int, images: Any, said: Any) -> None:
        store.add([(row, {"png": data}) for row, data in results.files(start, images, said, count)])

    def end() -> None:
        if not store.shards:
            pictures.save_grid(
                store.target / "grid.png",
                pictures.load(sorted((store.target / "images").glob("*.png"))[: results.GRID]),
            )
        store.finish(["--image", "png"])

    with console.bar("generating", count, "images", start=min(first, count)) as bar:
        for start, made in results.rounds(
            ranks, recipe.sample, recipe.players["D"], range(first, count), bar, size=size
        ):
            ranks.on_rank_zero(lambda start=start, made=made: keep(start, *made))
    ranks.on_rank_zero(end)
    ranks.close()
    return f"{max(first, count)} images by {checkpoint}"


def _sounds(
    module: ModuleType, run: Run, checkpoint: Path, asked: dict[str, Any], store: Any
) -> str:
    import numpy as np

    from distgan.data.dataset import Data
    from distgan.distributed.ranks import Ranks
    from distgan.evaluation import audio_sets
    from distgan.metrics.stft import STFT_RESOLUTIONS
    from distgan.shards.codecs import audio as audio_codec

    ranks = Ranks(run.machine, run.precision)
    data = ranks.on_all_ranks(lambda: Data(asked["data"] or run.data))
    recipe = ranks.on_all_ranks(lambda: trained.load(module, run, ranks, checkpoint))
    repair = recipe.repairer()
    sounds = ranks.on_all_ranks(
        lambda: (
            audio_sets.FolderClips(
                Path(asked["from"]).expanduser(), data.sample.rate, repair, ranks.device
            )
            if asked["from"]
            else audio_sets.ValidationClips(data, repair, ranks.device, STFT_RESOLUTIONS)
        )
    )
    if store.shards and asked["from"]:
        raise ConfigError(
            "shards=yes: shards hold pairs of what was made and what it should be, and files of"
            " your own have no such target; leave it out"
        )
    count = min(asked["n"] or len(sounds.keys), len(sounds.keys))
    first = ranks.on_rank_zero(
        lambda: store.begin(("id", "file_name", "key", "sha256"), SOUNDS, 1, count)
    )

    def of(index: np.ndarray) -> list[bytes]:
        found = []
        for i in index.tolist():
            clip = sounds[i]
            both = [clip.output] + ([clip.target] if store.shards else [])
            found += [audio_codec.write_wav(wave.numpy(), sounds.rate) for wave in both]
            bar.advance(min(ranks.world_size, bar.total - bar.done))
        return found

    with console.bar("repairing", count, "clips", start=min(first, count)) as bar:
        for start in range(first, count, SOUNDS):
            some = range(start, min(start + SOUNDS, count))
            index = np.arange(some.start + ranks.rank, some.stop, ranks.world_size)
            blobs = ranks.on_all_ranks(lambda index=index: of(index))
            per = 2 if store.shards else 1
            places = ((index - some.start)[:, None] * per + np.arange(per)).ravel()
            whole = _to_the_first(ranks, places, blobs, len(some) * per)
            ranks.on_rank_zero(
                lambda some=some, whole=whole, per=per: store.add(
                    list(_rows(some, sounds.keys, whole, per, bool(asked["from"])))
                )
            )
    ranks.on_rank_zero(lambda: store.finish(["--input", "input.wav", "--target", "target.wav"]))
    ranks.close()
    return f"{max(first, count)} clips by {checkpoint}"


def _rows(
    numbers: range, keys: list[str], blobs: list[bytes], per: int, named: bool
) -> Iterator[tuple[tuple[Any, ...], dict[str, bytes]]]:
    """`named`: files keep the names of what they were made of, so that both can be compared.

    Else a number goes before a name that is safe anywhere.
    """
    from distgan.outputs.audio_results import file_name

    twice = len(set(keys)) < len(keys)  # a.wav and a.flac

    for k, i in enumerate(numbers):
        members = dict(
            zip(
                ("input.wav", "target.wav") if per == 2 else ("wav",),
                blobs[k * per : (k + 1) * per],
                strict=True,
            )
        )
        name = keys[i] if named and not twice else f"{i:05d}-{file_name(keys[i])}"
        yield (
            (
                i,
                f"sounds/{name}.wav",
                keys[i],
                hashlib.sha256(blobs[k * per]).hexdigest(),
            ),
            members,
        )


def _to_the_first(ranks: Any, index: Any, blobs: list[bytes], total: int) -> list[bytes] | None:
    """Bytes numbered by `index` from all ranks -> on rank 0 those of 0..total-1 in order, elsewhere
    None. Collective.
    """
    import numpy as np
    import torch

    lengths = ranks.gather(
        index,
        torch.tensor([[len(blob)] for blob in blobs], dtype=torch.int64).reshape(len(blobs), 1),
        total,
    )
    longest = ranks.on_rank_zero(lambda: int(lengths.max()))
    rows = np.zeros((len(blobs), longest), np.uint8)
    for row, blob in zip(rows, blobs, strict=True):
        row[: len(blob)] = np.frombuffer(blob, np.uint8)
    whole = ranks.gather(index, torch.from_numpy(rows), total)
    return (
        None
        if whole is None
        else [
            row[:length].numpy().tobytes()
            for row, length in zip(whole, lengths[:, 0].tolist(), strict=True)
        ]
    )
