"""`distgan evaluate` of images or vectors: of two sets, or of the samples of a run."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from distgan.commands import trained_run
from distgan.config.image_network import LITE0, default_network, require_lite0
from distgan.config.sections import Evaluate
from distgan.core import console
from distgan.core.arguments import Arguments, Option, one_of, several, whole
from distgan.core.errors import ConfigError
from distgan.report.judgement import score_table
from distgan.report.score_tables import class_scores
from distgan.runs.folder import timestamp
from distgan.shards.codecs.fitting import FITS, Resize
from distgan.shards.format.sample_spec import UNITS

METRICS = ("frechet", "kernel", "manifold", "sliced", "nearest")
PUBLISHED = {"fid": "frechet", "kid": "kernel", "inception_score": "inception_score"}
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
        "scores to compute; fid and kid are frechet and kernel with the published weights, which"
        " inception_score needs, too",
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
    one_of(
        "extractor",
        "network that images are scored through (default: that of the run; of folders lite0 where"
        " it is installed); dinov2 and clip with --weights",
        "lite0",
        "standin",
        "dinov2",
        "clip",
    ),
    Option("weights", "published weights of --extractor dinov2 or clip", "FILE"),
    Option(
        "inception",
        "pytorch-fid's Inception weights, in place of it (default: the run's evaluate.inception)",
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
    whole(
        "resize",
        "make the images of both sets squares of this size, as `distgan shard images` does:"
        " Lanczos, antialiased; needed for a folder of several sizes",
        8,
        4096,
        metavar="SIZE",
    ),
    one_of(
        "fit",
        "with --resize: crop, the largest centred square; squash, the whole image, whatever its"
        " aspect (default: crop)",
        *FITS,
    ),
    Option(
        "statistics",
        "where statistics of the real images are kept (default: beside a data set of shards; of"
        " folders and arrays ~/.cache/distgan/statistics)",
        "DIR",
    ),
)
Evaluation = Callable[[], tuple[Any, dict[str, Any] | None]]  # (ranks, result); collective


def of_run(checkpoint: Path, arguments: Arguments, real: str | None = None) -> Evaluation:
    """Check everything that needs no network; return the evaluation of a checkpoint's samples
    against the data set of the run, or against `real`.
    """
    from distgan.evaluation.sets.datasets import DatasetImages
    from distgan.evaluation.sets.statistics_files import StatisticsFile, UnverifiedMoments

    folder = checkpoint.parents[1]
    module, run = trained_run.settings(folder, arguments.device)
    if run.scored is None:
        raise ConfigError(_not_scored(folder, module, run))
    choice = _choice(arguments, run.scored)
    images, whole = _real(real, arguments) if real else (None, arguments.against == "all")
    data = None
    if images is None:
        from distgan.data.own_dataset import open_data

        data = open_data(arguments.data or run.data)
        if run.label_column is not None:
            trained_run.require_classes(data, run, folder)
        images = DatasetImages(data, data.folder, _resize(arguments))
        _keep_statistics(images, arguments)
    else:
        shape = trained_run.shape_of(run, folder)
        _require_alike(images, run.kind, shape[0] if run.kind == "vector" else None, str(folder))
    if isinstance(images, StatisticsFile):
        arguments.path = images.path
    samples = arguments.n or run.scored.samples

    def evaluation() -> tuple[Any, dict[str, Any]]:
        from distgan.distributed.ranks import Ranks
        from distgan.outputs.image_results import RESULTS_NOISE, Drawing

        ranks = Ranks(run.machine, run.precision)
        recipe = ranks.on_all_ranks(lambda: trained_run.load(module, run, ranks, checkpoint))

        def sample(numbers: Any) -> Any:
            return recipe.sample(numbers, RESULTS_NOISE)

        result = trained_run.describe(checkpoint, recipe) | {
            "noise": RESULTS_NOISE,
            "against": real or arguments.against,
        }
        if isinstance(images, UnverifiedMoments):
            drawn = _drawn(str(folder), samples, sample, arguments)
            return ranks, result | _unverified(ranks, images, drawn, choice)
        evaluator = _evaluator(ranks, images, samples, choice, arguments, whole, run.seed)
        classes = Drawing.of(recipe).classes_beside(data, samples) if data else None
        scores = evaluator.measure(sample, classes)
        return ranks, result | scores | _conditions(evaluator, ranks)

    return evaluation


def of_folders(arguments: Arguments) -> Evaluation:
    """Check both sets; return the evaluation of `fake` against `real`."""
    from distgan.evaluation.sets import opening
    from distgan.evaluation.sets.statistics_files import StatisticsFile, UnverifiedMoments

    choice = _choice(arguments)
    real, whole = _real(arguments.real, arguments)
    fake = opening.open_any(arguments.fake, _resize(arguments))
    unverified = UnverifiedMoments in (type(real), type(fake))
    files = [one for one in (real, fake) if isinstance(one, StatisticsFile)]
    if unverified and "vector" in (real.kind, fake.kind):
        raise ConfigError("a file .npz holds statistics of images; vectors cannot be compared with")
    if not unverified:
        _require_alike(real, fake.kind, _width(fake), fake.name)
    samples = 0 if isinstance(fake, UnverifiedMoments) else _samples(fake, arguments.n)
    if files and not unverified:
        arguments.path = files[0].path

    def evaluation() -> tuple[Any, dict[str, Any]]:
        from distgan.config.sections import Machine
        from distgan.distributed.ranks import Ranks

        ranks = Ranks(Machine(device=arguments.device))
        result = {"fake": fake.name, "fake_images": getattr(fake, "fingerprint", None)}
        if unverified:
            sides = _side(real, None), _side(fake, samples)
            return ranks, result | _unverified(ranks, *sides, choice)
        evaluator = _evaluator(ranks, real, samples, choice, arguments, whole)
        return ranks, result | evaluator.compare(fake) | _conditions(evaluator, ranks)

    return evaluation


def _not_scored(folder: Path, module: Any, run: Any) -> str:
    remedy = "images drawn from noise are scored here"
    if hasattr(module.Recipe, "sample"):
        remedy = (
            "a recipe with `evaluate: api.Evaluate = api.Evaluate()` in its Settings is scored."
            f" To score this run: {console.command('generate', folder, 'OUT')}, then"
            f" {console.command('evaluate', run.data, 'OUT/images')}"
        )
    return (
        f"{folder} is a run of {run.recipe}, which is judged by"
        f" {run.judge.label if run.judge else 'no score of samples'}; {remedy}"
    )


def _real(name: str, arguments: Arguments) -> tuple[Any, bool]:
    """Return (the real set of that name, whether all of it is compared with): of a run its data
    set, as --against says.
    """
    from distgan.evaluation.sets import opening

    whole = True
    if folder := trained_run.named_run(name):
        _, run = trained_run.settings(folder, arguments.device)
        console.say(f"{name} is a run: what is real is its data set {run.data}")
        name, whole = arguments.data or str(run.data), arguments.against == "all"
    images = opening.open_any(name, _resize(arguments))
    _keep_statistics(images, arguments)
    return images, whole


def _resize(arguments: Arguments) -> Resize | None:
    return Resize(arguments.resize, arguments.fit or "crop") if arguments.resize else None


def _keep_statistics(images: Any, arguments: Arguments) -> None:
    if arguments.statistics:
        images.statistics_folder = Path(arguments.statistics).expanduser()
    if arguments.resize and images.kind == "vector":
        raise ConfigError(f"resize: found {arguments.resize}, but {images.name} holds vectors")


def _require_alike(real: Any, kind: str, width: int | None, name: str) -> None:
    """ConfigError unless samples of this kind and, of vectors, this width compare with `real`."""
    ours = [(real.kind, _width(real)), (kind, width)]
    if ours[0] != ours[1]:
        held = [UNITS[kind] + (f" of {n} numbers" if n else "") for kind, n in ours]
        raise ConfigError(
            f"{real.name} holds {held[0]}, {name} {held[1]}; only samples of one kind and size"
            " compare"
        )


def _samples(fake: Any, n: int | None) -> int:
    """Return how many samples of a set are scored; moments are of all that were added up."""
    holds = getattr(fake, "key", {}).get("used", len(fake))
    if n is None or n == holds:
        return holds
    if n > holds or getattr(fake, "path", None) == "moments":
        raise ConfigError(f"n: found {n}, but {fake.name} holds {holds}")
    return n


def _width(images: Any) -> int | None:
    return images.decode([0]).shape[1] if images.kind == "vector" else None


def _side(images: Any, n: int | None) -> Any:
    """Return a set as a side of `unverified.compare`: `n` images drawn from it, or its file."""
    from distgan.evaluation.sets.image_set import drawn
    from distgan.evaluation.sets.statistics_files import StatisticsFile, UnverifiedMoments
    from distgan.evaluation.unverified import Images

    if isinstance(images, StatisticsFile | UnverifiedMoments):
        return images
    chosen = drawn(len(images), n or len(images), 0)
    return Images(images.name, len(chosen), lambda numbers: images.decode(chosen[numbers].tolist()))


def _drawn(name: str, n: int, sample: Any, arguments: Arguments) -> Any:
    from distgan.evaluation.drawn import scored
    from distgan.evaluation.sets.resizing import resized
    from distgan.evaluation.unverified import Images

    resize = _resize(arguments)

    def decode(numbers: Any) -> Any:
        images = scored(sample(numbers), numbers, "image")
        return resized(images, resize) if resize else images

    return Images(name, n, decode)


def _unverified(ranks: Any, real: Any, fake: Any, choice: Any) -> dict[str, Any]:
    from distgan.evaluation.unverified import compare

    result = compare(ranks, real, fake, choice)
    return result | {"processes": ranks.world_size, "seconds": {}, "time": timestamp()}


def _evaluator(
    ranks: Any,
    real: Any,
    samples: int,
    choice: Any,
    arguments: Arguments,
    whole: bool,
    seed: int = 0,
) -> Any:
    from distgan.evaluation.image_evaluator import Evaluator

    return ranks.on_all_ranks(
        lambda: Evaluator(
            ranks,
            real,
            samples,
            choice,
            whole,
            path=arguments.path,
            metrics=_metrics(arguments.metrics, choice),
            thorough=True,
            seed=seed,
            resize=_resize(arguments),
        )
    )


def _choice(arguments: Arguments, scored: Evaluate | None = None) -> Any:
    """Return the extractor that the line names, else that of the run, else the default."""
    from distgan.evaluation.features.choice import Choice

    inception, sha256 = arguments.inception, arguments.inception_sha256
    if scored and not arguments.extractor:
        inception, sha256 = inception or scored.inception, sha256 or scored.inception_sha256
    network = arguments.extractor or (scored.extractor if scored else default_network())
    choice = Choice(network, inception, sha256, arguments.preprocessing, arguments.weights)
    choice.require()
    if arguments.inception and (arguments.extractor or arguments.weights):
        raise ConfigError("--inception is an extractor of its own; leave --extractor out")
    if arguments.extractor == LITE0:
        require_lite0("--extractor lite0 is EfficientNet-Lite0")
    _metrics(arguments.metrics, choice)
    return choice


def _metrics(metrics: tuple[str, ...], choice: Any) -> tuple[str, ...]:
    """Return the metrics by their names in image_scores.

    ConfigError for fid and kid without the published weights.
    """
    published = [name for name in metrics if name in PUBLISHED]
    if published and (not choice.inception or choice.sha256):
        raise ConfigError(
            f"metrics: found {', '.join(published)}, but without the published Inception weights"
            " (--inception FILE) no score may be called so; allowed:"
            f" {', '.join(METRICS)}"
        )
    chosen = {PUBLISHED.get(name, name) for name in metrics} | {"frechet"}
    return tuple(name for name in (*METRICS, "inception_score") if name in chosen)


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
    whole = score_table(result)
    by_class = class_scores(result)
    return [whole] if by_class is None else [whole, by_class]
