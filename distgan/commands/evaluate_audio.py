"""`distgan evaluate` of sound.

How near repaired clips come to clean ones, clip by clip, by signal-to-noise ratio and on the whole.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

from distgan import __version__
from distgan.core import console
from distgan.core.arguments import Arguments, Option, several
from distgan.core.errors import ConfigError, DiskError
from distgan.core.files import csv_text, write_atomic
from distgan.metrics.perceptual import NAMES, PLAIN, require
from distgan.runs.folder import timestamp

EMBEDDING = ("embedding", "embedding_weights", "embedding_sha256")
OPTIONS = (
    several(
        "metrics",
        "measures; pesq, stoi and estoi need pip install 'distgan[perceptual]'",
        *PLAIN,
        *NAMES,
        default=PLAIN,
    ),
    Option("input", "the sounds before they were repaired", "FOLDER"),
    Option(
        "embedding",
        "a model of torchaudio for a Fréchet audio distance: wav2vec2_base, hubert_base, …",
        "MODEL",
    ),
    Option("embedding-weights", "its state dict, a local file", "FILE"),
    Option("embedding-sha256", "what that file must be", "SHA256", allowed="64 hexadecimal digits"),
)


def is_meant(words: list[str], real: str) -> bool:
    """Whether a line of `distgan evaluate` is about sound.

    A run of pairs, or folders that hold sound files. False where the run is none: its options are
    read first.
    """
    if len(words) == 1:
        from distgan.commands import trained_run as trained
        from distgan.recipes._catalog import resolve_recipe

        try:
            module, _ = resolve_recipe(str(trained.locate(words[0]).parents[1] / "config.yaml"))
        except ConfigError:
            return False
        return module.Settings.kind == "pair"
    from distgan.core.file_tree import find_files
    from distgan.shards.audio.pairs import SOUNDS

    folder = Path(real).expanduser()
    return (
        bool(real)
        and folder.is_dir()
        and not (folder / "dataset.json").is_file()
        and bool(find_files(folder, SOUNDS)[0])
    )


def main(arguments: Arguments) -> int:
    """Returns the exit code."""
    asked = vars(arguments)
    require(tuple(name for name in asked["metrics"] if name in NAMES))
    given = [asked[name] for name in EMBEDDING]
    if any(given) and not all(given):
        raise ConfigError(
            "embedding, embedding_weights and embedding_sha256 belong together: the model, its"
            " file, and what the file must be"
        )
    job = _of_run(arguments.words[0], asked) if arguments.words else _of_folders(asked)
    from distgan.distributed import launch_line

    launch_line.spread("evaluate", arguments)
    _tell(job())
    return 0


def _suited(metrics: tuple[str, ...], rate: int, embedding: str | None) -> tuple[str, ...]:
    """What can be measured at this rate.

    Where it is not one of sound, bands in Hz and frames of milliseconds mean nothing.
    """
    from distgan.evaluation.audio_evaluator import ANY_RATE
    from distgan.shards.codecs.audio import SOUND_RATES

    if SOUND_RATES[0] <= rate <= SOUND_RATES[1]:
        return metrics
    wrong = [name for name in metrics if name not in ANY_RATE]
    if embedding or wrong and tuple(metrics) != PLAIN:
        raise ConfigError(
            f"{', '.join(wrong) or 'embedding'}: made for sound, and these clips have {rate:,}"
            f" values a second; of them {', '.join(ANY_RATE)} can be measured"
        )
    console.say(f"{rate:,} values a second are no sound: {', '.join(wrong)} are left out")
    return ANY_RATE


def _of_run(text: str, asked: dict[str, Any]):
    from distgan.commands import trained_run as trained
    from distgan.data.dataset import Data

    checkpoint = trained.locate(text)
    folder = checkpoint.parents[1]
    module, run = trained.settings(folder, asked["device"])
    data = Data(asked["data"] or run.data)
    data.require(run.recipe, run.kind, run.crop)
    asked = asked | {"metrics": _suited(asked["metrics"], data.sample.rate, asked["embedding"])}

    def work() -> dict[str, Any]:
        from distgan.distributed.ranks import Ranks
        from distgan.evaluation.audio_sets import ValidationClips
        from distgan.metrics.stft import STFT_RESOLUTIONS

        ranks = Ranks(run.machine, run.precision)
        recipe = ranks.on_all_ranks(lambda: trained.load(module, run, ranks, checkpoint))
        clips = ranks.on_all_ranks(
            lambda: ValidationClips(
                data,
                recipe.repairer(),
                ranks.device,
                getattr(run, "stft_resolutions", STFT_RESOLUTIONS),
            )
        )
        player = recipe.players["G"]
        about = {
            "run": folder.name,
            "recipe": run.recipe,
            "checkpoint": checkpoint.name,
            "step": int(checkpoint.name),
            "checkpoint_digest": json.loads((checkpoint / "checkpoint.json").read_text())["digest"],
            "averaged": player.ema is not player.module,
            "data": data.fingerprint,
            "seed": run.seed,
        }
        out = (
            Path(asked["out"]).expanduser()
            if asked["out"]
            else folder / "eval" / "asked" / f"{checkpoint.name}-{_hash(about, asked)}.json"
        )
        return _scored(ranks, clips, about, asked, out)

    return work


def _of_folders(asked: dict[str, Any]):
    if not (asked["real"] and asked["fake"]):
        raise ConfigError(
            "distgan evaluate takes a RUN, or both --real and --fake; `distgan evaluate --help`"
            " shows how"
        )
    from distgan.evaluation.audio_sets import PairedFolders

    real, fake, given = (
        Path(asked[name]).expanduser() if asked[name] else None
        for name in ("real", "fake", "input")
    )
    clips = PairedFolders(real, fake, given)
    asked = asked | {"metrics": _suited(asked["metrics"], clips.rate, asked["embedding"])}

    def work() -> dict[str, Any]:
        from distgan.config.sections import Machine
        from distgan.distributed.ranks import Ranks

        about = {"real": asked["real"], "fake": asked["fake"], "input": asked["input"], "seed": 0}
        return _scored(
            Ranks(Machine(device=asked["device"])),
            clips,
            about,
            asked,
            Path(asked["out"]).expanduser() if asked["out"] else None,
        )

    return work


def _scored(
    ranks: Any, clips: Any, about: dict[str, Any], asked: dict[str, Any], out: Path | None
) -> dict[str, Any]:
    from distgan.evaluation.audio_embeddings import Embedding
    from distgan.evaluation.audio_evaluator import score

    embedding = (
        ranks.on_all_ranks(lambda: Embedding(*(asked[name] for name in EMBEDDING)))
        if asked["embedding"]
        else None
    )
    found = score(ranks, clips, asked["metrics"], embedding, about["seed"])

    def keep() -> None:
        result = (
            about
            | {
                "kind": "sound",
                "rate": clips.rate,
                "samples": len(clips.keys),
                "metrics": list(asked["metrics"]),
                "stft_resolutions": clips.resolutions,
                "embedding_sha256": embedding.digest if embedding else None,
                "distgan": __version__,
                "time": timestamp(),
            }
            | found
        )
        try:
            out.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DiskError(
                f"cannot write {out}: {error.strerror}; name another file with out="
            ) from error
        write_atomic(out, json.dumps(result, indent=1))
        write_atomic(out.with_suffix(".csv"), _table(found["clips"]))

    if out:
        ranks.on_rank_zero(keep)
    ranks.close()
    return {**(found or {}), "samples": len(clips.keys), "file": str(out) if out else None}


def _table(rows: list[dict[str, Any]]) -> str:
    cells = (
        [f"{value:.9g}" if isinstance(value, float) else value for value in row.values()]
        for row in rows
    )
    return csv_text(rows[0], cells)


def _hash(about: dict[str, Any], asked: dict[str, Any]) -> str:
    """Of what was asked, so that the same evaluation has the same file."""
    what = [
        about["checkpoint_digest"],
        about["data"],
        asked["metrics"],
        asked["embedding"],
        asked["embedding_sha256"],
    ]
    return hashlib.sha256(json.dumps(what).encode()).hexdigest()[:8]


def _tell(result: dict[str, Any]) -> None:
    """Means beside those of the input, and how many clips have none."""
    means = result.get("means")
    if not means:  # another rank than the first
        return
    rows = []
    for name, of in means.items():
        if not name.startswith("input_"):
            low, high = of["interval"] or (None, None)
            rows.append(
                (
                    name,
                    _figure(of["mean"]),
                    f"{_figure(low)} to {_figure(high)}" if of["interval"] else "",
                    _figure(means.get(f"input_{name}", {}).get("mean")),
                    f"{of['n']}" + (f", {of['failed']} without" if of["failed"] else ""),
                )
            )
    for name, of in result["distances"].items():
        if not name.startswith("input_"):
            rows.append(
                (
                    name,
                    _figure(of["value"]),
                    "",
                    _figure(result["distances"].get(f"input_{name}", {}).get("value")),
                    f"{of['frames']} frames",
                )
            )
    console.table((f"{result['samples']} clips", "mean", "95 %", "input", "of"), rows)
    if result["file"]:
        console.say(
            f"written: {result['file']}, and every clip in"
            f" {Path(result['file']).with_suffix('.csv')}"
        )


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"
