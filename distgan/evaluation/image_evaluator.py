"""Score images with all ranks: every rank computes some of the images, rank 0 the scores.

Sample i is generated from noise (seed, i), in chunks of fixed shape on one thread, so neither the
set of samples nor a score depends on the number of ranks, or of threads. Two paths: `features`
keeps a row for each image on rank 0, for every metric; `moments` adds up exact sums
(metrics/exact_sums.py) where the rows would not fit, which is enough for the Fréchet distance.
"""

import platform
import time
from typing import Any

import numpy as np
import torch

from distgan import __version__
from distgan.core import console
from distgan.core.errors import DataError, RunError
from distgan.data.dataset import Data
from distgan.distributed.map_over_ranks import CHUNK, one_thread
from distgan.distributed.ranks import Ranks
from distgan.evaluation import image_pairs
from distgan.evaluation.drawn import (
    NonFiniteSamples,
    Sample,
    require_same_generator,
    scored,
)
from distgan.evaluation.features.choice import Choice
from distgan.evaluation.features.transformers import Clip
from distgan.evaluation.image_pairs import disjoint_halves
from distgan.evaluation.image_scores import (
    CHEAP,
    Classes,
    SetStatistics,
    by_class,
    compare,
)
from distgan.evaluation.set_statistics import Computation
from distgan.evaluation.sets import statistics_cache
from distgan.evaluation.sets.datasets import DatasetImages
from distgan.evaluation.sets.image_set import ImageSet, drawn
from distgan.evaluation.sets.resizing import FILTERS, resized
from distgan.evaluation.sets.statistics_files import StatisticsFile
from distgan.evaluation.sets.traits import differences
from distgan.metrics import frechet, inception_score
from distgan.shards.codecs.fitting import Resize
from distgan.shards.format.sample_spec import UNITS

MAX_FEATURE_BYTES = 2**30  # above this, path=auto takes moments
# Vectors of the training split by which all are standardised, and at most so many numbers of them.
SCALED_BY, MOST_VALUES = 10_000, 2**26


class Evaluator:
    """Score samples against the training images of a data set, or with `whole` against all images.

    `choice`: of the feature extractor. `path`: features, moments or
    auto. `metrics`: from image_scores.METRICS. `thorough`: standard deviations and limits, too, and
    sets that are too small for a Fréchet distance. `resize`: of samples, as of the sets.
    """

    def __init__(
        self,
        ranks: Ranks,
        data: Data | ImageSet,
        samples: int,
        choice: Choice,
        whole: bool = False,
        *,
        path: str = "features",
        metrics: tuple[str, ...] = CHEAP,
        thorough: bool = False,
        seed: int = 0,
        resize: Resize | None = None,
    ):
        self._resize = resize
        self._ranks, self._samples, self._seed = ranks, samples, seed
        self._metrics, self._thorough = metrics, thorough
        self._images: ImageSet = (
            DatasetImages(data, data.folder) if isinstance(data, Data) else data
        )
        self.reals = len(self._images) if whole else self._images.training
        if (used := getattr(self._images, "used", None)) is not None:  # by a file of moments
            self.reals = used
        if min(self.reals, samples) < (1 if thorough else 2):
            part = "" if whole else "the training split of "
            raise DataError(
                f"{part}{self._images.name} holds {self.reals}"
                f" image{'' if self.reals == 1 else 's'} to compare {samples} with, and a Fréchet"
                " distance needs at least 2 on either side; shard more images, or evaluate more"
                " samples"
            )
        like, vectors = torch.zeros(1, 3, 32, 32, dtype=torch.uint8), None
        if self._images.kind == "vector":
            count = min(SCALED_BY, max(2, MOST_VALUES // self._images.decode([0]).numel()))
            like = self._images.decode(range(min(self._images.training, count)))
            vectors = like.numpy()
        self._unit = UNITS[self._images.kind]
        self.extract = choice.build(vectors).to(ranks.device)
        self._width = self.extract(like[:1].to(ranks.device)).shape[1]
        self._compute = Computation(ranks, self.extract, self._width, self._unit)
        self.path = path
        if path == "auto":
            feature_bytes = 4 * self._width * (len(self._images) + samples)
            self.path = "moments" if feature_bytes > MAX_FEATURE_BYTES else "features"
        self._real: SetStatistics | None = None
        self.seconds = self._compute.seconds

    @property
    def metric(self) -> str:
        """The name of the score: `fid` with Inception's published weights, else `frechet_…`."""
        return self.extract.metric

    def __call__(self, sample: Sample) -> dict[str, Any]:
        """Score `sample(numbers [n]) -> images [n, channels, size, size] in [-1, 1]`.

        Samples that are not finite have the score NaN, which the journal and `watch` report.
        Collective; every rank gets the result.
        """
        try:
            return self.measure(sample)
        except NonFiniteSamples as error:
            return {
                "metric": self.metric,
                "score": float("nan"),
                "nearest": None,
                "samples": self._samples,
                "reals": self.reals,
                "extractor": self.extract.label,
                "note": str(error),
            }

    def measure(self, sample: Sample, classes: Classes | None = None) -> dict[str, Any]:
        """Score samples; with `classes`, and `path` features, those of each class as well.

        NonFiniteSamples if they are not finite. Collective.
        """
        self.load_reference()
        require_same_generator(self._ranks, sample, self._images.kind)
        statistics = self._compute(
            "samples",
            self._samples,
            lambda numbers: self._seen(scored(sample(numbers), numbers, self._images.kind)),
            0,
            self._groups(self._samples),
        )
        return self._result(statistics, classes)

    def _seen(self, images: torch.Tensor) -> torch.Tensor:
        return resized(images, self._resize) if self._resize else images

    def compare(self, images: ImageSet) -> dict[str, Any]:
        """Score images drawn from another set instead of generated samples. Collective."""
        self.load_reference()
        chosen = drawn(len(images), self._samples, self._seed)
        if isinstance(images, StatisticsFile):
            statistics = self._load(images, chosen)
        else:
            statistics = self._compute(
                f"images of {images.name}",
                self._samples,
                lambda numbers: images.decode(chosen[numbers].tolist()),
                self._samples,
                self._groups(self._samples),
            )
        result = self._result(statistics)
        result["made_with"]["draw"] |= {"samples_from": len(images)}
        return result | {"notes": differences(self._images.traits, images.traits)}

    def _load(self, images: StatisticsFile, chosen: np.ndarray) -> SetStatistics:
        """Read statistics of samples; RunError unless they were made as those of the reals."""
        statistics = SetStatistics(self._samples, self._samples)
        of_set = ("images", "n", "training", "used", "floor")
        key = self._reference_key() | {k: images.key[k] for k in of_set if k in images.key}

        def read() -> None:
            arrays = statistics_cache.read(images.file, key)
            if arrays is None:
                raise RunError(f"{images.file} is damaged")
            statistics.load(arrays)
            rows = torch.from_numpy(chosen)
            if statistics.features is not None:
                statistics.features = statistics.features[rows]
            if statistics.projections is not None:
                statistics.projections = statistics.projections[rows]

        self._ranks.on_rank_zero(read)
        return statistics

    def score(
        self, features: torch.Tensor | None, classes: Classes | None = None
    ) -> dict[str, Any]:
        """Score precomputed features [n, d], held by rank 0; other ranks pass None. Collective."""
        n = 0 if features is None else len(features)
        return self._result(SetStatistics(n, 0, features), classes)

    def provenance(self) -> dict[str, Any]:
        """Return everything that a score depends on except the samples."""
        return self._reference_key() | {
            "path": self.path,
            "reals_in": self._images.name,
            "reals_used": self.reals,
            "seed": self._seed,
            "draw": {"seed": self._seed, "samples": self._samples, "samples_from": None},
            "versions": {
                "distgan": __version__,
                "torch": torch.__version__,
                "python": platform.python_version(),
            },
        }

    def real_halves(self) -> dict[str, Any]:
        """Score one half of the real images, drawn at random, against the other. Collective."""
        real = self.load_reference()
        first, second = disjoint_halves(self.reals, self.reals)

        def distance() -> float | None:
            if len(first) < 2:
                return None
            return frechet.distance(real.rows[first], real.rows[second])

        return {"score": self._ranks.on_rank_zero(distance), "reals": [len(first)] * 2}

    # ---- on rank 0
    def _result(self, fake: SetStatistics, classes: Classes | None = None) -> dict[str, Any]:
        real, began = self.load_reference(), time.perf_counter()
        metrics = tuple(
            name for name in self._metrics if name != "sliced" or fake.projections is not None
        )
        if isinstance(self.extract, Clip):
            metrics += ("cmmd",)

        names = (self.extract.metric, self.extract.kernel)

        def work() -> dict[str, Any]:
            with one_thread():
                scores = compare(
                    real,
                    fake,
                    metrics,
                    names,
                    self.reals,
                    self._seed,
                    self._thorough,
                    pairs,
                    classes,
                )
                if classes is not None and fake.features is not None:
                    scores["by_class"] = by_class(real, fake, classes, metrics, names, self.reals)
            return scores | self._inception_score(fake) | {"samples": fake.n}

        if self._thorough:  # many images take minutes
            console.say(f"comparing {self.reals} real {self._unit} with {self._samples}")
        pairs = image_pairs.compute(
            self._ranks,
            real.features,
            real.training,
            fake.features,
            metrics,
            self.reals,
            self._thorough,
        )
        result = self._ranks.on_rank_zero(work)
        self.seconds["scores"] = time.perf_counter() - began
        return result | {
            "reals": self.reals,
            "extractor": self.extract.label,
            "made_with": self.provenance(),
        }

    def _inception_score(self, fake: SetStatistics) -> dict[str, Any]:
        """Return the Inception Score, if it is requested and the features are Inception's."""
        weights = getattr(self.extract, "classifier", None)
        if "inception_score" not in self._metrics or weights is None or fake.features is None:
            return {}
        mean, sd = None, None
        if fake.n >= inception_score.PARTS:
            with one_thread():
                mean, sd = inception_score.score(fake.features, weights)
        return {"inception_score": mean, "inception_score_sd": sd}

    # ---- on all ranks
    def load_reference(self) -> SetStatistics:
        """Return the statistics of the real images: from their file, or computed and stored.

        Once: the images do not change during a run. Collective.
        """
        if self._real is not None:
            return self._real
        began, images, key = time.perf_counter(), self._images, self._reference_key()
        file = getattr(images, "file", None)
        if file is None:
            file = statistics_cache.cache_path(images.statistics_folder, self.path, key)
        reference = SetStatistics(len(images), images.training)

        def read() -> bool:  # the arrays stay on rank 0
            arrays = statistics_cache.read(file, key)
            if arrays is not None:
                reference.load(arrays)
            return arrays is not None

        if not self._ranks.on_rank_zero(read):
            reference = self._compute(
                f"real {self._unit}",
                len(images),
                lambda numbers: images.decode(numbers.tolist()),
                images.training,
                self._groups(len(images), real=True),
            )
            self._ranks.on_rank_zero(lambda: statistics_cache.write(file, key, reference.arrays()))
        self._real = reference
        self.seconds["reals"] = time.perf_counter() - began
        return reference

    def _reference_key(self) -> dict[str, Any]:
        """Return everything that the statistics of the real images depend on."""
        key = {
            "images": self._images.fingerprint,
            "n": len(self._images),
            "training": self._images.training,
            "extractor": self.extract.label,
            "weights_sha256": self.extract.digest,
            "preprocessing": self.extract.preprocessing,
            "arithmetic": (
                f"float32 on {self._ranks.device.type}, chunks of {CHUNK}, torch"
                f" {torch.__version__.partition('+')[0]}"
            ),
        }
        if self._resize:
            key["resized"] = f"{self._resize.size}, {FILTERS[self._resize.fit]}"
        if self.path == "moments":
            key |= {"used": self.reals, "floor": min(self.reals // 2, self._samples)}
        return key

    def _groups(self, n: int, real: bool = False) -> np.ndarray | None:
        """Return [n]: the number of the sums to which each image is added; None for rows.

        1 and 2 are the halves of the floor, 3 is not used.
        """
        if self.path != "moments":
            return None
        first, second = disjoint_halves(self.reals, self._samples)
        groups = np.zeros(n, np.int64)
        if real:
            groups[first.numpy()], groups[second.numpy()], groups[self.reals :] = 1, 2, 3
        else:
            groups[: len(first)] = 1
        return groups
