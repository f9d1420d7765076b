"""Results of an image recipe after training: image files, a table of them, and the score of exactly
these files.

    images/00000.png …   image i is drawn from noise (seed, i) by the generator in eval mode, its
                         average where there is one; PNG, or JPEG, by names of a pattern
    result.csv           id, file_name, critic_score, sha256: a row for each file; of conditional
                         networks the class as well; or columns of one's own
    result.json          the score against all images of the data set, held out or not; of
                         conditional networks that of each class as well
    grid.png             the first 64

All ranks generate images, rank 0 alone writes: the others may not see its disk. The files do not
depend on the number of ranks.
"""

import dataclasses
import hashlib
import inspect
import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch

from distgan.config.sections import ResultFiles
from distgan.core import console
from distgan.core.files import csv_text, disk_errors, make_folder, opener, write_atomic
from distgan.data import transforms
from distgan.data.dataset import Data
from distgan.data.labels import Labels
from distgan.distributed.map_over_ranks import CHUNK, map_over_ranks
from distgan.distributed.ranks import Ranks
from distgan.engine.player import Player
from distgan.evaluation.drawn import scored
from distgan.evaluation.features.choice import Choice
from distgan.evaluation.image_evaluator import Evaluator
from distgan.evaluation.image_scores import Classes
from distgan.outputs import image_grid
from distgan.shards.codecs import image as image_codec

# Not the noise of the evaluations that chose the checkpoint: it would flatter the score.
RESULTS_NOISE = "noise/results"
GOOD = 50.0  # a FID below this is called good (and no other metric is)
GRID = 64
ROUND = 64 * CHUNK  # images that rank 0 holds at once
Row = tuple[int | str, ...]  # of `Drawing.columns`
PLAIN = ResultFiles()


@dataclasses.dataclass(frozen=True)
class Drawing:
    """How images are drawn: `sample` and `classes_of` are those of a recipe, `D` judges each.

    With `labels`, the networks are given classes; `classes_of` says which, by (numbers, purpose).
    """

    sample: Callable[..., torch.Tensor]
    D: Player | None = None
    labels: Labels | None = None
    classes_of: Callable[[np.ndarray, str], np.ndarray] | None = None
    kind: str = "image"
    format: ResultFiles = PLAIN

    @classmethod
    def of(cls, recipe: Any, format: ResultFiles = PLAIN) -> Self:
        """Return how a recipe with `sample` draws."""
        chosen = getattr(recipe, "classes_of", None)
        labels = getattr(recipe, "labels", None) if chosen else None
        drawn = chosen if labels else None
        return cls(recipe.sample, recipe.players.get("D"), labels, drawn, recipe.run.kind, format)

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of result.csv, unless others are named."""
        return ("id", "file_name", *(["class"] if self.labels else []), "critic_score", "sha256")

    def classes(self, numbers: np.ndarray) -> np.ndarray | None:
        """Return int64 [n], the classes of these images; None without labels."""
        return self.classes_of(numbers, RESULTS_NOISE) if self.classes_of else None

    def class_name(self, one: Any) -> str:
        """Return the name of a class, or those of a mixture: `rose 0.71, lotus 0.29`."""
        assert self.labels is not None
        if np.ndim(one) == 0:
            return self.labels.names[one]
        parts = [f"{self.labels.names[k]} {one[k]:.2f}" for k in np.flatnonzero(one)]
        return ", ".join(parts)

    def classes_beside(self, data: Data, count: int) -> Classes | None:
        """Return the classes of all images of `data` and of the first `count` samples; None without
        labels.
        """
        drawn = self.classes(np.arange(count))
        if self.labels is None or drawn is None:
            return None
        real = np.concatenate([data.classes["train"], data.classes["validation"]])
        return Classes(self.labels.column, self.labels.names, real, drawn)

    def draw(self, numbers: np.ndarray) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return (uint8 [n, channels, height, width], or vectors [n, size]; the same as they are
        read from their files; D's scores of these [n]).
        """
        classes = self.classes(numbers)
        given = () if classes is None else (classes,)
        samples = self.sample(numbers, RESULTS_NOISE, *given)
        samples = scored(samples, numbers, self.kind)
        read = through_jpeg(samples, self.format.quality) if self.format.is_jpeg else samples
        return samples, read, _judge(self.D, read, classes)


def write(
    folder: Path,
    ranks: Ranks,
    data: Data,
    drawing: Drawing,
    count: int,
    choice: Choice,
) -> dict[str, object]:
    """Write all of the above into an empty folder; return the content of result.json.

    The recipe's networks to score are loaded. Collective.
    """
    evaluator = ranks.on_all_ranks(lambda: Evaluator(ranks, data, count, choice, whole=True))
    features, rows = _write_files(folder, ranks, drawing, count, evaluator.extract)
    result = evaluator.score(features, drawing.classes_beside(data, count))
    result |= {
        "training": len(data.train),
        "held_out": len(data.validation),
        "real_halves": evaluator.real_halves(),
    }
    if drawing.format.is_jpeg:
        result |= {"jpeg_quality": drawing.format.quality}
    if evaluator.metric == "fid":
        result |= {"good_below": GOOD, "good": result["score"] < GOOD}
    text = table(drawing, rows, float(result["score"]))
    ranks.on_rank_zero(lambda: write_atomic(folder / "result.csv", text))
    ranks.on_rank_zero(lambda: write_atomic(folder / "result.json", json.dumps(result, indent=1)))
    console.say(
        f"{count} images: {result['metric']} {result['score']:.4g} against all {result['reals']}"
        " real samples" + (f"; below {GOOD:g} is called good" if "good" in result else "")
    )
    return result


def write_images(
    folder: Path,
    ranks: Ranks,
    drawing: Drawing,
    count: int,
    extract: Callable[[torch.Tensor], torch.Tensor] | None = None,
) -> torch.Tensor | None:
    """Write images/, result.csv and grid.png into an empty folder.

    Return `extract` of the images, [count, d], on rank 0; None elsewhere. Collective.
    """
    features, rows = _write_files(folder, ranks, drawing, count, extract)
    ranks.on_rank_zero(lambda: write_atomic(folder / "result.csv", csv_text(drawing.columns, rows)))
    return features


def table(drawing: Drawing, rows: list[Row], score: float) -> str:
    """Return result.csv: the usual columns of these rows, or those that its format names."""
    chosen = drawing.format.columns
    if chosen is None:
        return csv_text(drawing.columns, rows)
    lines = []
    for row in rows:
        cells = dict(zip(drawing.columns, row, strict=True))
        cells |= {"base_name": Path(str(cells["file_name"])).name, "score": f"{score:.9g}"}
        lines.append([cells[content] for content in chosen.values()])
    return csv_text(chosen, lines)


def _write_files(
    folder: Path,
    ranks: Ranks,
    drawing: Drawing,
    count: int,
    extract: Callable[[torch.Tensor], torch.Tensor] | None,
) -> tuple[torch.Tensor | None, list[Row]]:
    """Write images/ and grid.png; return `extract` of the images and the rows of the table, on rank
    0; None and no rows elsewhere. Collective.
    """
    rows: list[Row] = []
    features = []

    def write_round(start: int, images: torch.Tensor, scores: torch.Tensor) -> None:
        for row, data in files(drawing, start, images, scores, count):
            save(folder / str(row[1]), data)
            rows.append(row)
        if start == 0:
            image_grid.save_grid(folder / "grid.png", images[:GRID])

    with console.bar("generating", count, "images") as bar:
        for start, columns in rounds(ranks, drawing, range(count), bar, extract):
            ranks.on_rank_zero(partial(write_round, start, *columns[:2]))
            features += columns[2:]
    return torch.cat(features) if features and ranks.is_main else None, rows


def rounds(
    ranks: Ranks,
    drawing: Drawing,
    numbers: range,
    bar: console.Bar,
    extract: Callable[[torch.Tensor], torch.Tensor] | None = None,
    size: int = ROUND,
) -> Iterator[tuple[int, list[torch.Tensor]]]:
    """Generate the images of these numbers, `size` at a time.

    Yield (number of the first, [uint8 [n, channels, height, width], D's scores [n], with `extract`
    its features]) on rank 0; elsewhere the tensors are empty. Collective. `numbers` begins at a
    multiple of CHUNK, so that an image is always generated among the same others.
    """

    def generate(chunk: np.ndarray) -> tuple[torch.Tensor, ...]:
        images, read, scores = drawing.draw(chunk)
        return (images, scores) if extract is None else (images, scores, extract(read))

    columns = 3 if extract else 2
    for start in range(numbers.start, numbers.stop, size):
        part = range(start, min(start + size, numbers.stop))
        yield start, map_over_ranks(ranks, part, generate, bar, columns)


def _judge(D: Player | None, images: torch.Tensor, classes: np.ndarray | None) -> torch.Tensor:
    """Return D's score of each image or vector [n], the mean where it gives several; NaN without a
    D, and of one that judges an image beside something else than its class.
    """
    parameters = inspect.signature(D.module.forward).parameters.values() if D else ()
    needed = [one for one in parameters if one.default is one.empty and one.kind != one.VAR_KEYWORD]
    if D is None or len(needed) not in (1, 1 if classes is None else 2):
        return torch.full((len(images),), torch.nan, device=images.device)
    with D.evaluating() as critic:
        given = () if classes is None else (torch.from_numpy(classes).to(images.device),)
        dtype = next(critic.parameters()).dtype
        is_image = images.dtype == torch.uint8
        scores = critic(transforms.to_unit(images, dtype) if is_image else images.to(dtype), *given)
    if not isinstance(scores, torch.Tensor):  # one of several scales, or of features
        scores = torch.cat([score.reshape(len(images), -1) for score in scores], 1)
    return scores.reshape(len(images), -1).mean(1)


def files(
    drawing: Drawing, start: int, images: torch.Tensor, scores: torch.Tensor, count: int
) -> Iterator[tuple[Row, bytes]]:
    """Yield the row and the bytes of each file, numbered from `start`, of `count` in all."""
    payload = "jpeg" if drawing.format.is_jpeg else "png"
    classes = drawing.classes(np.arange(start, start + len(images)))
    for i, (image, score) in enumerate(
        zip(images.permute(0, 2, 3, 1).numpy(), scores.tolist(), strict=True), start
    ):
        pixels = image[:, :, 0] if image.shape[2] == 1 else image
        _, data = image_codec.encode(pixels, payload, drawing.format.quality)
        name = f"images/{drawing.format.name(i, count)}"
        named: tuple[str, ...] = ()
        if drawing.labels and classes is not None:
            named = (drawing.class_name(classes[i - start]),)
        yield (i, name, *named, f"{score:.9g}", hashlib.sha256(data).hexdigest()), data


def save(path: Path, data: bytes) -> None:
    """Write a file and the folder it is in; DiskError."""
    with disk_errors(path, "make room or give access, and run the same line again"):
        make_folder(path.parent)
        with open(path, "wb", opener=opener) as file:
            file.write(data)


def through_jpeg(images: torch.Tensor, quality: int) -> torch.Tensor:
    """Return uint8 [n, channels, height, width] as they are read from JPEG files of them."""
    read = np.empty((len(images), *images.shape[2:], images.shape[1]), np.uint8)
    for out, image in zip(read, images.permute(0, 2, 3, 1).cpu().numpy(), strict=True):
        pixels = image[:, :, 0] if image.shape[2] == 1 else image
        image_codec.decode(image_codec.encode(pixels, "jpeg", quality)[1], "jpg", out)
    return torch.from_numpy(read).permute(0, 3, 1, 2).contiguous().to(images.device)
