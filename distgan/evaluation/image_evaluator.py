"""Score images with all ranks: their numbers are dealt out, rows come back with their numbers, one
process computes, all get the result.

Sample i is generated from noise (seed, i), in chunks of fixed shape on one thread, so neither the
set of samples nor any of its numbers depends on the number of ranks, or of threads. Two paths:
`features` keeps a row of each image on rank 0, for every metric; `moments` adds up exact sums
(metrics/sums.py) where the rows would not fit, which is enough for the Fréchet distance.
"""

import contextlib
import platform
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch

from distgan import __version__
from distgan.core import console
from distgan.core.errors import DataError, LaunchError, RunError
from distgan.data import transforms
from distgan.data.dataset import Data
from distgan.distributed.ranks import Ranks
from distgan.evaluation import statistics_cache as reals
from distgan.evaluation.image_features import extractor
from distgan.evaluation.image_scores import CHEAP, Known, compare, halves
from distgan.evaluation.image_sets import ImageSet, Shards
from distgan.metrics import frechet
from distgan.metrics.exact_sums import Sums
from distgan.metrics.sliced import DIRECTIONS, Projections

# samples per forward pass, the last one filled up: a fixed shape gives the same bits for the same
# sample
CHUNK = 16
ROUND = 64 * CHUNK  # images whose rows travel at once
FAR = 30.0  # samples are in [-1, 1], about; what lies so far out is in another range
LARGE = 2**30  # bytes of features from which the moments path is taken
Sample = Callable[[np.ndarray], torch.Tensor]


class NotFinite(RunError):
    """A generator drew something that is no image."""


class Evaluator:
    """Scores samples against the training images; with `whole`, against all images of the data set,
    held out or not.

    `inception`, `sha256`, `preprocessing`: see features.py. `path`: features, moments or auto.
    `metrics`: of `scores.METRICS`. `thorough`: deviations and limits, too.
    """

    def __init__(
        self,
        ranks: Ranks,
        data: Data | ImageSet,
        samples: int,
        inception: str | None,
        whole: bool = False,
        *,
        sha256: str | None = None,
        preprocessing: str = "bilinear",
        path: str = "features",
        metrics: tuple[str, ...] = CHEAP,
        thorough: bool = False,
        seed: int = 0,
    ):
        self._ranks, self._samples, self._metrics, self._thorough, self._seed = (
            ranks,
            samples,
            metrics,
            thorough,
            seed,
        )
        self._images = Shards(data, data.folder) if isinstance(data, Data) else data
        self.reals = len(self._images) if whole else self._images.training
        what = "the data set" if whole else "the training split"
        if self.reals < 2:
            raise DataError(
                f"{what} holds {self.reals} image{'s' if self.reals != 1 else ''}, a Fréchet"
                " distance needs at least 2; shard more images"
            )
        if samples < 2:
            raise DataError(f"a Fréchet distance needs at least 2 images to score, found {samples}")
        self.extract = extractor(inception, sha256, preprocessing).to(ranks.device)
        self._project = Projections()
        width = self.extract(
            torch.zeros(1, 3, 32, 32, dtype=torch.uint8, device=ranks.device)
        ).shape[1]
        self.path = (
            path
            if path != "auto"
            else "moments"
            if 4 * width * (len(self._images) + samples) > LARGE
            else "features"
        )
        self._width = width
        self._real: Known | None = None
        self.seconds: dict[str, float] = {}

    @property
    def metric(self) -> str:
        """`fid` with Inception's weights, else `frechet_standin`."""
        return self.extract.metric

    def __call__(self, sample: Sample) -> dict[str, Any]:
        """`sample(numbers [n])` -> images [n, channels, size, size] in [-1, 1]. Every rank calls
        this and gets the result.

        A generator whose samples are not finite has the score NaN, of which the journal and `watch`
        then speak.
        """
        try:
            return self.measure(sample)
        except NotFinite as error:
            return {
                "metric": self.metric,
                "score": float("nan"),
                "nearest": None,
                "samples": self._samples,
                "reals": self.reals,
                "extractor": self.extract.label,
                "note": str(error),
            }

    def measure(self, sample: Sample) -> dict[str, Any]:
        """The same, where samples that are not finite are an error."""
        self.look_at_reals()
        self._same_generator(sample)
        return self._result(
            self._look(
                "samples",
                self._samples,
                lambda numbers: _bytes(sample(numbers), numbers),
                0,
                self._groups(self._samples),
            )
        )

    def compare(self, images: ImageSet) -> dict[str, Any]:
        """What is found of the first images of another set, instead of samples."""
        self.look_at_reals()
        return self._result(
            self._look(
                f"images of {images.name}",
                self._samples,
                lambda numbers: images.decode(numbers.tolist()),
                self._samples,
                self._groups(self._samples),
            )
        )

    def score(self, features: torch.Tensor | None) -> dict[str, Any]:
        """What is found of samples by their features [n, d], which rank 0 holds.

        Every rank calls this and gets the result.
        """
        self.look_at_reals()
        return self._result(Known(len(features) if features is not None else 0, 0, features))

    def provenance(self) -> dict[str, Any]:
        """What a score depends on, beside the samples."""
        return self._about() | {
            "path": self.path,
            "reals_in": self._images.name,
            "reals_used": self.reals,
            "seed": self._seed,
            "versions": {
                "distgan": __version__,
                "torch": torch.__version__,
                "python": platform.python_version(),
            },
        }

    def floor(self) -> dict[str, Any]:
        """What real images score against real images.

        Of two halves, dealt out alternately, so of half as many as there are.
        """
        self.look_at_reals()
        score = self._ranks.on_rank_zero(
            lambda: (
                frechet.distance(
                    self._real.features[: self.reals : 2], self._real.features[1 : self.reals : 2]
                )
                if self.reals >= 4
                else None
            )
        )
        return {"score": score, "reals": [self.reals - self.reals // 2, self.reals // 2]}

    # ---- one process
    def _result(self, fake: Known) -> dict[str, Any]:
        began, metrics = (
            time.perf_counter(),
            tuple(one for one in self._metrics if one != "sliced" or fake.projections is not None),
        )

        def work() -> dict[str, Any]:
            with one_thread():
                return compare(
                    self._real,
                    fake,
                    metrics,
                    (self.extract.metric, self.extract.kernel),
                    self.reals,
                    self._seed,
                    self._thorough,
                ) | {"samples": fake.n}

        if self._thorough:
            console.say(
                f"comparing {self.reals} real images with {self._samples}"
            )  # minutes, for many
        found = self._ranks.on_rank_zero(work)
        self.seconds["scores"] = time.perf_counter() - began
        return found | {
            "reals": self.reals,
            "extractor": self.extract.label,
            "made_with": self.provenance(),
        }

    # ---- all ranks
    def look_at_reals(self) -> None:
        """Once: the images do not change during a run. From the file beside them, where one fits."""
        if self._real is not None:
            return
        began, images = time.perf_counter(), self._images
        about = self._about()
        file, kept = (
            getattr(images, "file", None) or reals.path_of(images.where, self.path, about),
            Known(len(images), images.training),
        )

        def read() -> bool:  # what is read stays on rank 0
            arrays = reals.read(file, about)
            if arrays is not None:
                kept.load(arrays)
            return arrays is not None

        if not self._ranks.on_rank_zero(read):
            kept = self._look(
                "real images",
                len(images),
                lambda numbers: images.decode(numbers.tolist()),
                images.training,
                self._groups(len(images), real=True),
            )
            self._ranks.on_rank_zero(lambda: reals.write(file, about, kept.arrays()))
        self._real = kept
        self.seconds["reals"] = time.perf_counter() - began

    def _about(self) -> dict[str, Any]:
        """What features of the real images depend on, or their moments."""
        about = {
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
        return about | (
            {"used": self.reals, "floor": min(self.reals // 2, self._samples)}
            if self.path == "moments"
            else {}
        )

    def _groups(self, n: int, real: bool = False) -> np.ndarray:
        """[n]: the sums to which an image is added.

        1 and 2 are the halves of the floor, 3 is not used.
        """
        first, second = halves(self.reals, self._samples)
        groups = np.zeros(n, np.int64)
        if not real:
            groups[: len(first)] = 1
        else:
            groups[first.numpy()], groups[second.numpy()], groups[self.reals :] = 1, 2, 3
        return groups

    def _look(
        self,
        label: str,
        total: int,
        images: Callable[[np.ndarray], torch.Tensor],
        training: int,
        groups: np.ndarray,
    ) -> Known:
        """Features, or moments, and projections of images 0 … total - 1."""
        began = time.perf_counter()
        spent = {"images": 0.0}
        sums = (
            [
                Sums(self._width, self.extract.largest)
                for _ in range(4 if groups.max() == 3 else groups.max() + 1)
            ]
            if self.path == "moments"
            else []
        )

        def work(numbers: np.ndarray) -> tuple[torch.Tensor, ...]:
            started = time.perf_counter()
            batch = images(numbers).to(self._ranks.device)
            spent["images"] += time.perf_counter() - started
            return self.extract(batch), self._project(batch)

        def absorb(numbers: np.ndarray, rows: torch.Tensor) -> None:
            for group in np.unique(groups[numbers]):
                try:
                    sums[group].add(rows[torch.from_numpy(groups[numbers] == group)])
                except ValueError as error:
                    raise RunError(str(error)) from error

        widths = (DIRECTIONS,) if sums else (self._width, DIRECTIONS)
        kept = [torch.empty(total, width) for width in widths] if self._ranks.is_main else []
        with console.bar(f"{'moments' if sums else 'features'} of {label}", total, "images") as bar:
            for start in range(0, total, ROUND):
                stop = min(start + ROUND, total)
                found = deal(
                    self._ranks,
                    range(start, stop),
                    work,
                    bar,
                    len(widths),
                    absorb if sums else None,
                )
                self._ranks.on_rank_zero(
                    lambda start=start, stop=stop, found=found: _keep(kept, start, stop, found)
                )
        for one in sums:
            one.parts = [self._ranks.all_reduce_sum_cpu(part) for part in one.parts]
            one.n = int(self._ranks.all_reduce_sum_cpu(torch.tensor([one.n], dtype=torch.float64)))
        self.seconds |= {
            "images" if label == "samples" else f"decoding {label}": spent["images"],
            label: time.perf_counter() - began,
        }
        known = Known(total, training, *([None] if sums else []), *kept)
        if sums and self._ranks.is_main:
            known.moments = {
                name: one.moments()
                for name, one in zip(("first", "second"), sums[1:3], strict=False)
                if one.n > 1
            }
            for part in sums[1:3]:
                sums[0] += part
            known.moments["all"] = sums[0].moments()
        return known

    def _same_generator(self, sample: Sample) -> None:
        """LaunchError unless all ranks draw what rank 0 draws.

        Weights, running statistics and mode of their generators are then equal.
        """
        if self._ranks.world_size == 1:
            return

        def draw() -> torch.Tensor:
            with one_thread(), torch.no_grad():
                return _bytes(sample(np.arange(CHUNK)), np.arange(CHUNK)).cpu()

        mine = self._ranks.on_all_ranks(draw)  # on one rank alone it may not be finite
        theirs = self._ranks.on_rank_zero(lambda: mine)
        apart = int((mine.int() - theirs.int()).abs().max())
        allowed = (
            0 if self._ranks.device.type == "cpu" else 2
        )  # two kinds of GPU may round to different levels

        def agree() -> None:
            if apart > allowed:
                raise LaunchError(
                    f"draws other samples than rank 0, up to {apart} grey levels apart: its"
                    " generator's weights or running statistics differ, so a score would be of no"
                    " generator"
                )

        self._ranks.on_all_ranks(agree)


def _keep(kept: list[torch.Tensor], start: int, stop: int, found: list[torch.Tensor]) -> None:
    """Exactly the rows that are due, or RuntimeError.

    Told to all ranks, as whoever keeps them is one of them.
    """
    for whole, rows in zip(kept, found, strict=True):
        if len(rows) != stop - start:
            raise RuntimeError(f"{len(rows)} rows gathered for {stop - start} images")
        whole[start:stop] = rows


def _bytes(images: torch.Tensor, numbers: np.ndarray) -> torch.Tensor:
    """Of samples in [-1, 1], what a PNG file would hold. NotFinite, or RunError for another range."""
    if not torch.isfinite(images).all():
        raise NotFinite(
            f"samples {numbers[0]} to {numbers[-1]} are not finite: the generator is broken. An"
            " earlier checkpoint may not be: RUN@STEP"
        )
    if (far := float(images.abs().max())) > FAR:
        raise RunError(f"samples reach {far:.3g}, expected are values in [-1, 1]")
    return transforms.to_bytes(images)


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """More threads cut a sum in other places.

    Features move by 1e-4, and a score would depend on OMP_NUM_THREADS. More processes do not.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@torch.no_grad()
def deal(
    ranks: Ranks,
    numbers: range,
    work: Callable[[np.ndarray], tuple[torch.Tensor, ...]],
    bar: console.Bar,
    columns: int = 1,
    absorb: Callable[[np.ndarray, torch.Tensor], None] | None = None,
) -> list[torch.Tensor | None]:
    """`work([CHUNK])` -> `columns` tensors [CHUNK, d], called by all ranks until every number has
    had its turn.

    On rank 0, all rows of each of the tensors, in order; elsewhere None. With `absorb` there is one
    tensor more, the first, whose rows stay where they were computed: `absorb` takes them with their
    numbers. `bar` counts on.
    """

    def mine() -> tuple[np.ndarray, list[torch.Tensor]]:
        found, parts = [np.zeros(0, np.int64)], [[] for _ in range(columns)]
        for start in range(
            numbers.start + ranks.rank * CHUNK, numbers.stop, ranks.world_size * CHUNK
        ):
            chunk = np.arange(start, min(start + CHUNK, numbers.stop))
            rows = [each[: len(chunk)].cpu() for each in work(np.resize(chunk, CHUNK))]
            if absorb:
                absorb(chunk, rows.pop(0))
            for part, each in zip(parts, rows, strict=True):
                part.append(each)
            found.append(chunk - numbers.start)
            bar.advance(min(len(chunk) * ranks.world_size, bar.total - bar.done))
        return np.concatenate(found), [
            torch.cat(rows) if rows else torch.zeros(0) for rows in parts
        ]

    # What goes wrong may meet one rank alone, a damaged image that was dealt to it: all of them
    # must leave together.
    with one_thread():
        index, parts = ranks.on_all_ranks(mine)
    return [ranks.gather(index, rows, len(numbers)) for rows in parts]
