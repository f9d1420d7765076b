"""`distgan evaluate` of sound: of the repaired clips of a run, or of folders of sound files."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from distgan import __version__
from distgan.commands import trained_run
from distgan.core import console
from distgan.core.arguments import Arguments, Option, several
from distgan.core.errors import ConfigError
from distgan.core.files import csv_text
from distgan.metrics.perceptual import BY_NAME, DNSMOS, GE2E, NAMES, PLAIN, UNPAIRED, require
from distgan.runs.folder import timestamp

OPTIONS = (
    several(
        "metrics",
        "measures; pesq, stoi and estoi need pip install 'distgan[perceptual]', dnsmos needs"
        " 'distgan[speech]', frechet_ge2e the file in Resemblyzer (docs/evaluation.md)",
        *PLAIN,
        *BY_NAME,
        default=PLAIN,
    ),
    Option("input", "the sounds before they were repaired", "FOLDER"),
    Option(
        "embedding",
        "a model of torchaudio for a Fréchet audio distance: wav2vec2_base, hubert_base, …",
        "MODEL",
    ),
    Option("embedding-weights", "its state dict, a local file", "FILE"),
    Option("embedding-sha256", "digest of that file", "SHA256", allowed="64 hexadecimal digits"),
)
EMBEDDING = ("embedding", "embedding_weights", "embedding_sha256")
Evaluation = Callable[[], tuple[Any, dict[str, Any] | None]]  # (ranks, result); collective


def of_run(checkpoint: Path, arguments: Arguments) -> Evaluation:
    """Check everything that needs no network; return the evaluation of the validation clips."""
    from distgan.data.own_dataset import open_data

    module, run = trained_run.settings(checkpoint.parents[1], arguments.device)
    data = open_data(arguments.data or run.data)
    data.require(run)
    metrics = suitable_metrics(arguments.metrics, data.rate, arguments.embedding)

    def evaluation() -> tuple[Any, dict[str, Any] | None]:
        from distgan.distributed.ranks import Ranks
        from distgan.evaluation.audio.sets import ValidationClips
        from distgan.metrics.stft import STFT_RESOLUTIONS

        ranks = Ranks(run.machine, run.precision)
        recipe = ranks.on_all_ranks(lambda: trained_run.load(module, run, ranks, checkpoint))
        resolutions = getattr(run, "stft_resolutions", STFT_RESOLUTIONS)
        clips = ranks.on_all_ranks(
            lambda: ValidationClips(data, recipe.repairer(), ranks.device, resolutions)
        )
        source = trained_run.describe(checkpoint, recipe) | {
            "recipe": run.recipe,
            "data": data.fingerprint,
            "seed": run.seed,
        }
        return ranks, _measure(ranks, clips, source, metrics, arguments)

    return evaluation


def of_folders(arguments: Arguments) -> Evaluation:
    """Check that the folders hold what the metrics need; return the evaluation of their clips."""
    from distgan.evaluation.audio.sets import Folders

    real, fake = Path(arguments.real).expanduser(), Path(arguments.fake).expanduser()
    clips = Folders(real, fake, Path(arguments.input).expanduser() if arguments.input else None)
    metrics = suitable_metrics(arguments.metrics, clips.rate, arguments.embedding)
    metrics = _comparable(metrics, clips, arguments)

    def evaluation() -> tuple[Any, dict[str, Any] | None]:
        from distgan.config.sections import Machine
        from distgan.distributed.ranks import Ranks

        ranks = Ranks(Machine(device=arguments.device))
        source = {"real": arguments.real, "fake": arguments.fake, "input": arguments.input}
        return ranks, _measure(ranks, clips, source | {"seed": 0}, metrics, arguments)

    return evaluation


def _comparable(metrics: tuple[str, ...], clips: Any, arguments: Arguments) -> tuple[str, ...]:
    """Return the metrics that these folders have what they need for.

    ConfigError for metrics that were named and are not available, and for clips of one
    name that differ in length.
    """
    from distgan.evaluation.audio.embeddings import RATE

    compared = [name for name in metrics if name not in UNPAIRED]
    hint = f"; --metrics {','.join(UNPAIRED[:1])} compares sets of any names and lengths"
    if compared and (reason := clips.unpaired()):
        if "metrics" in arguments.given:
            raise ConfigError(f"{', '.join(compared)} need pairs: {reason}{hint}")
        console.say(f"{reason}; {', '.join(compared)} are left out")
        metrics, compared = tuple(name for name in metrics if name in UNPAIRED), []
    if compared and (errors := clips.unequal()):
        raise ConfigError(
            f"clips that are compared must be aligned and of equal length{hint}:\n"
            + "\n".join(errors)
        )
    if compared and (lone := clips.lone()):
        console.say(
            f"{len(lone)} clips are not in all folders, and take part in Fréchet distances alone:"
            f" {', '.join(lone[:5])}{' …' if len(lone) > 5 else ''}"
        )
    if len(clips.rates) > 1:
        if compared or "frechet" in metrics:
            raise ConfigError(
                "the files have several rates; resample them to one first:\n"
                + "\n".join(f"  {rate} Hz: {path}" for rate, path in clips.rates.items())
            )
        clips.resample(RATE)
    return metrics


def suitable_metrics(metrics: tuple[str, ...], rate: int, embedding: str | None) -> tuple[str, ...]:
    """Return the metrics that are defined at a rate in Hz; ConfigError if a package is missing.

    Outside the rates of sound, bands in Hz and frames of milliseconds have no meaning: ConfigError
    for metrics that a user chose.
    """
    from distgan.evaluation.audio import dnsmos, ge2e
    from distgan.evaluation.audio.evaluator import ANY_RATE
    from distgan.shards.codecs.audio import SOUND_RATES

    require(tuple(name for name in metrics if name in NAMES))
    if DNSMOS in metrics:
        dnsmos.model()
    if GE2E in metrics:
        ge2e.weights()
    if SOUND_RATES[0] <= rate <= SOUND_RATES[1]:
        return metrics
    wrong = [name for name in metrics if name not in ANY_RATE]
    if embedding or wrong and tuple(metrics) != PLAIN:
        raise ConfigError(
            f"{', '.join(wrong) or 'embedding'}: made for sound, and these clips have {rate:,}"
            f" values a second; allowed for them: {', '.join(ANY_RATE)}"
        )
    console.say(f"{rate:,} values a second are no sound: {', '.join(wrong)} are left out")
    return ANY_RATE


def _measure(
    ranks: Any,
    clips: Any,
    source: dict[str, Any],
    metrics: tuple[str, ...],
    arguments: Arguments,
) -> dict[str, Any] | None:
    """Return the result on rank 0, None elsewhere. Collective."""
    from distgan.evaluation.audio.embeddings import Embedding
    from distgan.evaluation.audio.evaluator import score

    embedding = None
    if arguments.embedding:
        weights, sha256 = arguments.embedding_weights, arguments.embedding_sha256
        embedding = ranks.on_all_ranks(lambda: Embedding(arguments.embedding, weights, sha256))
    scores = score(ranks, clips, metrics, embedding, source["seed"])
    if not ranks.is_main:
        return None
    return source | {
        "kind": "sound",
        "rate": clips.rate,
        "samples": len(clips.keys),
        "metrics": list(metrics),
        "stft_resolutions": clips.resolutions,
        "embedding_sha256": embedding.digest if embedding else None,
        "distgan": __version__,
        "time": timestamp(),
        **scores,
    }


def identity(result: dict[str, Any], arguments: Arguments) -> list[Any]:
    """Return what names the file of a result: the same evaluation has the same file."""
    return [
        result["checkpoint_digest"],
        result["data"],
        result["metrics"],
        arguments.embedding,
        arguments.embedding_sha256,
    ]


def files(result: dict[str, Any]) -> dict[str, str]:
    """Return the files beside the result, by suffix: a table with a row for each clip."""
    cells = (
        [f"{value:.9g}" if isinstance(value, float) else value for value in clip.values()]
        for clip in result["clips"]
    )
    return {".csv": csv_text(result["clips"][0], cells)}


def tables(
    result: dict[str, Any],
) -> list[tuple[tuple[str, ...], list[tuple[Any, ...]], list[str]]]:
    """Return heads, rows and notes of the printed table: each mean beside that of the input."""
    means, distances, rows, notes = result["means"], result["distances"], [], []
    for name, mean in means.items():
        if name.startswith("target_"):
            notes.append(f"{name}, of the clean sounds: {_text(mean['mean'])}")
        elif not name.startswith("input_"):
            interval = "{:.4g} to {:.4g}".format(*mean["interval"]) if mean["interval"] else ""
            before = means.get(f"input_{name}", {}).get("mean")
            count = f"{mean['n']}" + (f", {mean['failed']} without" if mean["failed"] else "")
            rows.append((name, mean["mean"], interval or "no interval", before, count))
    for name, distance in distances.items():
        if not name.startswith("input_"):
            before = distances.get(f"input_{name}", {}).get("value")
            frames = f"{distance['frames']} and {distance['target_frames']} frames"
            rows.append((name, distance["value"], "", before, frames))
    if late := result["delay"]:
        notes.append(
            f"late by {late['samples']} samples against the clean sounds, in {late['clips']} of"
            f" {late['of']} clips: SI-SDR, L1 and the STFT distance count that as damage. Align the"
            " sounds first, if a constant delay is none"
        )
    heads = (f"{result['samples']} clips", "mean", "95 %", "input", "of")
    return [(heads, rows, notes)]


def _text(value: float | None) -> str:
    return "none" if value is None else f"{value:.4g}"
