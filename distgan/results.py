"""What an image recipe leaves when training is over: image files, a line for each, and the score of exactly these files.

    images/00000.png …   image i is drawn from noise (seed, i) by the generator in eval mode, its average where there is one
    result.csv           id, file_name, critic_score, sha256: a line for each file
    result.json          the score against all images of the data set, held out or not
    grid.png             the first 64

All ranks make images, rank 0 alone writes, as everywhere: the others may not see its disk. The files do not depend on the number of ranks.
"""

import csv
import hashlib
import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from distgan import console, pictures, runs, signals
from distgan.data import Data
from distgan.errors import RunError
from distgan.evaluator import CHUNK, Evaluator, deal
from distgan.player import Player
from distgan.ranks import Ranks

PURPOSE = "noise/results"  # not the noise of the evaluations that chose the checkpoint: it would flatter the score
COLUMNS = ("id", "file_name", "critic_score", "sha256")
GOOD = 50.0  # a FID below this is called good (and no other metric is)
GRID = 64
ROUND = 64 * CHUNK  # images that rank 0 holds at once
Draw = Callable[[np.ndarray, str], torch.Tensor]


def write(folder: Path, ranks: Ranks, data: Data, sample: Draw, D: Player, count: int, inception: str | None,
          sha256: str | None = None) -> dict[str, object]:
    """All of the above into an empty folder; `sample` is the recipe's, with the networks to judge loaded. Collective; every rank gets result.json."""
    evaluator = ranks.together(lambda: Evaluator(ranks, data, count, inception, whole=True, sha256=sha256))
    result = evaluator.score(write_images(folder, ranks, sample, D, count, evaluator.extract))
    result |= {"training": len(data.train), "held_out": len(data.validation), "real_halves": evaluator.floor()}
    if evaluator.metric == "fid":
        result |= {"good_below": GOOD, "good": result["score"] < GOOD}
    ranks.alone(lambda: runs.write(folder / "result.json", json.dumps(result, indent=1)))
    console.say(f"{count} images: {result['metric']} {result['score']:.4g} against all {result['reals']} real ones"
                + (f"; below {GOOD:g} is called good" if "good" in result else ""))
    return result


def write_images(folder: Path, ranks: Ranks, sample: Draw, D: Player, count: int,
                 extract: Callable[[torch.Tensor], torch.Tensor] | None = None) -> torch.Tensor | None:
    """images/, result.csv and grid.png into an empty folder. Collective; on rank 0 returns what `extract` says of the files, [count, d]."""
    def make(numbers: np.ndarray) -> tuple[torch.Tensor, ...]:
        images = signals.to_bytes(sample(numbers, PURPOSE))
        with D.judging() as critic:
            said = critic(signals.to_unit(images, next(critic.parameters()).dtype))
        return (images, said) if extract is None else (images, said, extract(images))

    def save(start: int, images: torch.Tensor, said: torch.Tensor) -> None:
        lines.extend(_save(folder / "images", start, images, said, len(str(count - 1))))
        if start == 0:
            pictures.save_grid(folder / "grid.png", images[:GRID])

    lines: list[tuple[int, str, str, str]] = []
    features = []
    with console.bar("generating", count, "images") as bar:
        for start in range(0, count, ROUND):
            made = deal(ranks, range(start, min(start + ROUND, count)), make, bar, columns=3 if extract else 2)
            ranks.alone(lambda start=start, made=made: save(start, *made[:2]))
            features += made[2:]
    ranks.alone(lambda: runs.write(folder / "result.csv", _table(lines)))
    return torch.cat(features) if features and ranks.first else None


def _save(folder: Path, start: int, images: torch.Tensor, said: torch.Tensor, digits: int) -> list[tuple[int, str, str, str]]:
    """uint8 [n, channels, height, width] -> PNG files, numbered from `start`, and their lines."""
    lines = []
    try:
        folder.mkdir(exist_ok=True)
        for i, (image, score) in enumerate(zip(images.permute(0, 2, 3, 1).numpy(), said.tolist(), strict=True), start):
            file, data = f"{i:0{max(digits, 5)}d}.png", _png(image)
            (folder / file).write_bytes(data)
            lines.append((i, f"images/{file}", f"{score:.9g}", hashlib.sha256(data).hexdigest()))
    except OSError as error:
        raise RunError(f"cannot write {folder}: {error.strerror}; make room or give access, and run the same line again") from error
    return lines


def _png(image: np.ndarray) -> bytes:
    """uint8 [height, width, 1 or 3]; PNG loses nothing, so a score of the pixels is one of the file."""
    out = io.BytesIO()
    Image.fromarray(image[:, :, 0] if image.shape[2] == 1 else image).save(out, format="PNG")
    return out.getvalue()


def _table(lines: list[tuple[int, str, str, str]]) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows(lines)
    return out.getvalue()
