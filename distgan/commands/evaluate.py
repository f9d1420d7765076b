"""`distgan evaluate`: how near a trained generator's samples, or a folder's images, come to real
ones, with what is needed to say so again.
"""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from distgan.commands import evaluate_audio
from distgan.commands import trained_run as trained
from distgan.core import console
from distgan.core.arguments import Arguments, Command, Option, one_of, several, whole
from distgan.core.errors import ConfigError, RunError
from distgan.core.files import write_atomic
from distgan.runs.folder import timestamp

METRICS = ("frechet", "kernel", "manifold", "sliced", "nearest")
PUBLISHED = {"fid": "frechet", "kid": "kernel"}
MOST = 2**19  # sums of more are not exact
SUMMARY = """Score the samples of a trained run (those that `distgan generate RUN` writes) or the
images of a folder against real images, beside what real images score against other real ones at
the same sizes. Of a run of waveform or timbre, or of folders of sounds: measure every held-out
clip, whole, repaired and as it was given. The result does not depend on the number of processes."""
EXAMPLES = """examples:
  distgan evaluate runs/sagan/ngf32-5e6f7a8b --n 8189 --processes 2
  distgan evaluate runs/sagan/ngf32-5e6f7a8b@last --metrics frechet,kernel
  distgan evaluate --real data/flowers --fake runs/wgan_flowers/default-1a2b3c4d/results/images
  distgan evaluate --real CLEAN --fake REPAIRED --input DENOISED     sounds of the same names

What each number is, and when to believe it: docs/evaluation.md"""
IMAGES = (
    whole(
        "n",
        "how many samples (default: as many as the run's own evaluations; all of FAKE)",
        2,
        MOST,
    ),
    several(
        "metrics",
        "distances to measure; fid and kid are frechet and kernel, with the published weights alone",
        *METRICS,
        *PUBLISHED,
        default=METRICS,
    ),
    one_of(
        "against",
        "the real images of a run: all, or those it trained on, as its own evaluations",
        "all",
        "train",
        default="train",
    ),
    one_of(
        "path",
        "features, or moments for sets that do not fit in memory (frechet and sliced alone)",
        "auto",
        "features",
        "moments",
        default="auto",
    ),
    Option(
        "inception",
        "pytorch-fid's Inception weights (default: the run's evaluate.inception); without them"
        " scores are called frechet_standin",
        "FILE",
    ),
    Option(
        "inception-sha256",
        "of other weights of that network",
        "SHA256",
        allowed="64 hexadecimal digits",
    ),
    one_of(
        "preprocessing",
        "how images are made ready for Inception; bilinear is pytorch-fid's",
        "bilinear",
        "clean",
        "tensorflow",
        "antialiased",
        default="bilinear",
    ),
)
SETS = (
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
    *trained.OPTIONS,
)


def _sets(arguments: Arguments) -> Iterator[str]:
    sets = [bool(arguments.real), bool(arguments.fake)]
    if sets != [not arguments.words] * 2:
        yield "RUN: give a run, or both --real and --fake"


COMMAND = Command(
    "evaluate",
    SUMMARY,
    (*IMAGES, *SETS, *(replace(one, group="sounds") for one in evaluate_audio.OPTIONS)),
    (
        "[RUN[@best|@last|@STEP]]",
        "a run folder: its best checkpoint, or the last one, or the one of a step; or a checkpoint"
        " folder",
    ),
    most=1,
    check=_sets,
    epilog=EXAMPLES,
)


def main(argv: list[str]) -> int:
    """Returns the exit code."""
    words, given = COMMAND.peek(argv)
    if evaluate_audio.is_meant(words, given.get("real", [""])[0]):
        options = (*SETS, *evaluate_audio.OPTIONS)
        return evaluate_audio.main(replace(COMMAND, options=options).parse(argv))
    arguments = replace(COMMAND, options=(*IMAGES, *SETS)).parse(argv)
    asked = vars(arguments)
    job = _of_run(arguments.words[0], asked) if arguments.words else _of_folders(asked)
    from distgan.distributed import launch_line

    launch_line.spread("evaluate", arguments)
    result = job()
    _tell(result)
    return 0


def _of_run(text: str, asked: dict[str, Any]):
    """What is to be done, after the checks that need no network."""
    from distgan.data.dataset import Data

    checkpoint = trained.locate(text)
    folder = checkpoint.parents[1]
    module, run = trained.settings(folder, asked["device"])
    if run.scored is None:
        raise ConfigError(
            f"{folder} is a run of {run.recipe}, which is judged by"
            f" {run.judged_by or 'no score of samples'}; images drawn from noise are scored here"
        )
    data = Data(asked["data"] or run.data)
    inception, sha256 = (
        asked["inception"] or run.scored.inception,
        asked["inception_sha256"] or run.scored.inception_sha256,
    )
    n = asked["n"] or run.scored.samples

    def work() -> dict[str, Any]:
        from distgan.distributed.ranks import Ranks
        from distgan.evaluation.image_evaluator import Evaluator
        from distgan.outputs.image_results import RESULTS_NOISE

        ranks = Ranks(run.machine, run.precision)
        recipe = ranks.on_all_ranks(lambda: trained.load(module, run, ranks, checkpoint))
        evaluator = ranks.on_all_ranks(
            lambda: Evaluator(
                ranks,
                data,
                n,
                inception,
                asked["against"] == "all",
                sha256=sha256,
                preprocessing=asked["preprocessing"],
                path=asked["path"],
                metrics=_named(asked["metrics"], inception, sha256),
                thorough=True,
                seed=run.seed,
            )
        )
        found = evaluator.measure(lambda numbers: recipe.sample(numbers, RESULTS_NOISE))
        about = json.loads((checkpoint / "checkpoint.json").read_text())
        player = recipe.players["G"]
        result = {
            "run": folder.name,
            "checkpoint": checkpoint.name,
            "step": int(checkpoint.name),
            "checkpoint_digest": about["digest"],
            "averaged": player.ema is not player.module,
            "noise": RESULTS_NOISE,
            "against": asked["against"],
        } | _whole(found, evaluator, ranks)
        out = (
            Path(asked["out"]).expanduser()
            if asked["out"]
            else folder / "eval" / "asked" / f"{checkpoint.name}-{_hash(result)}.json"
        )
        return _kept(ranks, result, out)

    return work


def _of_folders(asked: dict[str, Any]):
    from distgan.evaluation import image_sets

    inception, sha256 = asked["inception"], asked["inception_sha256"]
    real, fake = image_sets.open_real(asked["real"]), image_sets.open_set(asked["fake"])
    n = asked["n"] or len(fake)
    if n > len(fake):
        raise ConfigError(f"n: found {n}, but {fake.name} holds {len(fake)} images")
    path = asked["path"]
    if isinstance(real, image_sets.StatisticsFile):
        path = real.path

    def work() -> dict[str, Any]:
        from distgan.config.sections import Machine
        from distgan.distributed.ranks import Ranks
        from distgan.evaluation.image_evaluator import Evaluator

        ranks = Ranks(Machine(device=asked["device"]))
        evaluator = ranks.on_all_ranks(
            lambda: Evaluator(
                ranks,
                real,
                n,
                inception,
                True,
                sha256=sha256,
                preprocessing=asked["preprocessing"],
                path=path,
                metrics=_named(asked["metrics"], inception, sha256),
                thorough=True,
            )
        )
        result = {"fake": fake.name, "fake_images": fake.fingerprint} | _whole(
            evaluator.compare(fake), evaluator, ranks
        )
        return _kept(ranks, result, Path(asked["out"]).expanduser() if asked["out"] else None)

    return work


def _named(metrics: tuple[str, ...], inception: str | None, sha256: str | None) -> tuple[str, ...]:
    """As `scores` calls them; ConfigError for a name that the score could not have."""
    published = [name for name in metrics if name in PUBLISHED]
    if published and (not inception or sha256):
        raise ConfigError(
            f"metrics: found {', '.join(published)}, but without the published Inception weights"
            " (inception=FILE) no score may be called so; ask for"
            f" {', '.join(PUBLISHED[name] for name in published)}"
        )
    asked = {PUBLISHED.get(name, name) for name in metrics} | {"frechet"}
    return tuple(name for name in METRICS if name in asked)


def _whole(found: dict[str, Any], evaluator: Any, ranks: Any) -> dict[str, Any]:
    seconds = {name: round(value, 3) for name, value in evaluator.seconds.items()}
    return found | {"processes": ranks.world_size, "seconds": seconds, "time": timestamp()}


def _hash(result: dict[str, Any]) -> str:
    """Of what was asked, so that the same evaluation has the same file."""
    asked = [
        result.get(key) for key in ("checkpoint_digest", "against", "samples", "made_with")
    ] + sorted(result)
    return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:8]


def _kept(ranks: Any, result: dict[str, Any], out: Path | None) -> dict[str, Any]:
    def write() -> None:
        try:
            out.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RunError(
                f"cannot write {out}: {error.strerror}; name another file with out="
            ) from error
        write_atomic(out, json.dumps(result, indent=1))

    if out:
        ranks.on_rank_zero(write)
        result = result | {"file": str(out)}
    ranks.close()
    return result


def _tell(result: dict[str, Any]) -> None:
    """A table: every number, and both of the floor."""
    floor = result.get("floor") or {}
    real, generated = floor.get("real", {}), floor.get("generated", {})
    k, kernel = (
        floor.get("samples"),
        next(
            (
                key
                for key in result
                if key in ("kid", "kernel_standin")
                or key.startswith("kid_")
                and not key.endswith(("_sd", "_interval"))
            ),
            "",
        ),
    )
    names = [
        ("score", result["metric"]),
        (kernel, kernel),
        *(
            (name, name)
            for name in (
                "precision",
                "recall",
                "density",
                "coverage",
                "sliced_wasserstein",
                "nearest",
            )
        ),
    ]
    rows = [
        (
            label,
            _figure(result.get(name)),
            _figure(result.get(f"{name}_sd")),
            _figure(generated.get(name)),
            _figure(real.get(name)),
        )
        for name, label in names
        if name in result
    ]
    console.table(
        (
            f"{result['samples']} against {result['reals']} real",
            "value",
            "sd",
            f"{k} against {k}" if k else "",
            f"real, {k} against {k}" if k else "",
        ),
        rows,
    )
    made = result["made_with"]
    console.say(f"{made['extractor']}; preprocessing {made['preprocessing']}; {made['path']}")
    if result.get("score_at_infinity_by"):
        limit = result["score_at_infinity"]
        console.say(
            "of infinitely many samples:"
            f" {'' if limit is None else f'{limit:.4g}, '}{result['score_at_infinity_by']}"
        )
    if "file" in result:
        console.say(f"written: {result['file']}")


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"
