"""`distgan evaluate` of images or vectors: of the samples of a run, or of two folders."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from distgan.commands import trained_run
from distgan.core import console
from distgan.core.arguments import Arguments, Option, one_of, several, whole
from distgan.core.errors import ConfigError
from distgan.report.score_tables import class_scores
from distgan.runs.folder import timestamp
from distgan.shards.format.sample_spec import UNITS

METRICS = ("frechet", "kernel", "manifold", "sliced", "nearest")
PUBLISHED = {"fid": "frechet", "kid": "kernel"}
MAX_SAMPLES = 2**19  # sums of more are not exact
OPTIONS = (
    whole(
        "n",
        "how many samples (default: as many as the run's own evaluations; all of FAKE)",
        2,
        MAX_SAMPLES,
    ),
    several(
        "metrics",
        "scores to compute; fid and kid are frechet and kernel with the published weights",
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
        "how images are resized for Inception; bilinear is pytorch-fid's",
        "bilinear",
        "clean",
        "tensorflow",
        "antialiased",
        default="bilinear",
    ),
)
_SCORES = ("precision", "recall", "density", "coverage", "sliced_wasserstein", "nearest")
Evaluation = Callable[[], tuple[Any, dict[str, Any] | None]]  # (ranks, result); collective


def of_run(checkpoint: Path, arguments: Arguments) -> Evaluation:
    """Check everything that needs no network; return the evaluation of a checkpoint's samples."""
    from distgan.data.own_dataset import open_data

    folder = checkpoint.parents[1]
    module, run = trained_run.settings(folder, arguments.device)
    if run.scored is None:
        remedy = "images drawn from noise are scored here"
        if hasattr(module.Recipe, "sample"):
            remedy = (
                "a recipe with `evaluate: api.Evaluate = api.Evaluate()` in its Settings is scored."
                f" To score this run: {console.command('generate', folder, 'OUT')}, then"
                f" {console.command('evaluate', '--real', run.data, '--fake', 'OUT/images')}"
            )
        raise ConfigError(
            f"{folder} is a run of {run.recipe}, which is judged by"
            f" {run.judged_by or 'no score of samples'}; {remedy}"
        )
    data = open_data(arguments.data or run.data)
    if run.label_column is not None:
        trained_run.require_classes(data, run, folder)
    inception = arguments.inception or run.scored.inception
    sha256 = arguments.inception_sha256 or run.scored.inception_sha256
    samples = arguments.n or run.scored.samples

    def evaluation() -> tuple[Any, dict[str, Any]]:
        from distgan.distributed.ranks import Ranks
        from distgan.outputs.image_results import RESULTS_NOISE, Drawing

        ranks = Ranks(run.machine, run.precision)
        recipe = ranks.on_all_ranks(lambda: trained_run.load(module, run, ranks, checkpoint))
        evaluator = _evaluator(
            ranks, data, samples, inception, sha256, arguments, arguments.against == "all", run.seed
        )
        scores = evaluator.measure(
            lambda numbers: recipe.sample(numbers, RESULTS_NOISE),
            Drawing.of(recipe).classes_beside(data, samples),
        )
        result = trained_run.describe(checkpoint, recipe) | {
            "noise": RESULTS_NOISE,
            "against": arguments.against,
        }
        return ranks, result | scores | _conditions(evaluator, ranks)

    return evaluation


def of_folders(arguments: Arguments) -> Evaluation:
    """Check both sets; return the evaluation of `fake` against `real`."""
    from distgan.evaluation.sets import opening
    from distgan.evaluation.sets.statistics_files import StatisticsFile

    real, fake = opening.open_real(arguments.real), opening.open_set(arguments.fake)
    if _of(real) != _of(fake):
        raise ConfigError(
            f"{real.name} holds {_of(real)}, {fake.name} {_of(fake)}; only samples of one kind and"
            " size compare"
        )
    samples = arguments.n or len(fake)
    if samples > len(fake):
        raise ConfigError(f"n: found {samples}, but {fake.name} holds {len(fake)}")
    if isinstance(real, StatisticsFile):
        arguments.path = real.path

    def evaluation() -> tuple[Any, dict[str, Any]]:
        from distgan.config.sections import Machine
        from distgan.distributed.ranks import Ranks

        ranks = Ranks(Machine(device=arguments.device))
        inception, sha256 = arguments.inception, arguments.inception_sha256
        evaluator = _evaluator(ranks, real, samples, inception, sha256, arguments)
        result = {"fake": fake.name, "fake_images": fake.fingerprint} | evaluator.compare(fake)
        return ranks, result | _conditions(evaluator, ranks)

    return evaluation


def _of(images: Any) -> str:
    size = f" of {images.decode([0]).shape[1]} numbers" if images.kind == "vector" else ""
    return f"{UNITS[images.kind]}{size}"


def _evaluator(
    ranks: Any,
    real: Any,
    samples: int,
    inception: str | None,
    sha256: str | None,
    arguments: Arguments,
    whole: bool = True,
    seed: int = 0,
) -> Any:
    from distgan.evaluation.image_evaluator import Evaluator

    return ranks.on_all_ranks(
        lambda: Evaluator(
            ranks,
            real,
            samples,
            inception,
            whole,
            sha256=sha256,
            preprocessing=arguments.preprocessing,
            path=arguments.path,
            metrics=_metrics(arguments.metrics, inception, sha256),
            thorough=True,
            seed=seed,
        )
    )


def _metrics(
    metrics: tuple[str, ...], inception: str | None, sha256: str | None
) -> tuple[str, ...]:
    """Return the metrics by their names in image_scores.

    ConfigError for fid and kid without the published weights.
    """
    published = [name for name in metrics if name in PUBLISHED]
    if published and (not inception or sha256):
        raise ConfigError(
            f"metrics: found {', '.join(published)}, but without the published Inception weights"
            " (--inception FILE) no score may be called so; allowed:"
            f" {', '.join(PUBLISHED[name] for name in published)}"
        )
    chosen = {PUBLISHED.get(name, name) for name in metrics} | {"frechet"}
    return tuple(name for name in METRICS if name in chosen)


def _conditions(evaluator: Any, ranks: Any) -> dict[str, Any]:
    seconds = {name: round(value, 3) for name, value in evaluator.seconds.items()}
    return {"processes": ranks.world_size, "seconds": seconds, "time": timestamp()}


def identity(result: dict[str, Any], arguments: Arguments) -> list[Any]:
    """Return what names the file of a result: the same evaluation has the same file."""
    keys = ("checkpoint_digest", "against", "samples", "made_with")
    return [result.get(key) for key in keys] + sorted(result)


def files(result: dict[str, Any]) -> dict[str, str]:
    """Return the files beside the result, by suffix."""
    return {}


def tables(
    result: dict[str, Any],
) -> list[tuple[tuple[str, ...], list[tuple[Any, ...]], list[str]]]:
    """Return heads, rows and notes of each printed table: the scores, each beside its floor; of
    conditional networks also those of each class.
    """
    whole = _table(result)
    by_class = class_scores(result)
    return [whole] if by_class is None else [whole, by_class]


def _table(
    result: dict[str, Any],
) -> tuple[tuple[str, ...], list[tuple[Any, ...]], list[str]]:
    floor = result.get("floor") or {}
    real, generated, size = floor.get("real", {}), floor.get("generated", {}), floor.get("samples")
    labels = {"score": result["metric"]}
    for key in result:
        if key.startswith(("kid", "kernel_")) and not key.endswith(("_sd", "_interval")):
            labels[key] = key
    labels |= {name: name for name in _SCORES if name in result}
    rows = [
        (label, result[name], result.get(f"{name}_sd"), generated.get(name), real.get(name))
        for name, label in labels.items()
    ]
    heads = (f"{result['samples']} samples, {result['reals']} real ones", "score", "sd")
    if size:
        heads += (f"at equal sizes, {size} and {size}", f"floor: {size} and {size} real")
    else:
        heads += ("", "")
    made_with = result["made_with"]
    notes = [
        f"{made_with['extractor']}; preprocessing {made_with['preprocessing']}; {made_with['path']}"
    ]
    if size:
        notes.append(
            "floor: what real ones score against other real ones; samples are as good where the"
            " column before it is equal"
        )
    if result.get("score_at_infinity_by"):
        limit, method = result["score_at_infinity"], result["score_at_infinity_by"]
        value = "" if limit is None else f"{limit:.4g}, "
        notes.append(f"limit for infinitely many samples: {value}{method}")
    return heads, rows, notes
