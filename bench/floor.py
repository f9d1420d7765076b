"""How near a run's samples came to new real images: python -m bench.floor RUN NEW, RUN a run
folder, NEW a data set of images from the same source.

Prints the score of the untrained network and the best one, beside the floor: the score that as many
of NEW's images get, against the same training images and with the same extractor. `nearest` is the
median distance to the nearest training image, held-out images being 1 (features.nearest): copies
lie near 0. The gap of D is valid/overfit: 0 where D takes held-out images for training images, 1
where it takes them for samples.
"""

import argparse
from pathlib import Path

import torch

from distgan.config.sections import Evaluate
from distgan.core.errors import DistganError
from distgan.data.dataset import Data
from distgan.evaluation.features.choice import Choice
from distgan.metrics.frechet import distance as frechet
from distgan.metrics.manifold import nearest
from distgan.runs.history import read_history
from distgan.shards.format.reader import ShardSet

CHUNK = 16


def main() -> None:
    parser = argparse.ArgumentParser("python -m bench.floor", description=__doc__.splitlines()[0])
    parser.add_argument(
        "run", type=Path, help="run folder of a recipe that is scored with the Fréchet evaluator"
    )
    parser.add_argument(
        "new",
        type=Path,
        help="data set of images that the run has not seen, at least as many as it scores samples",
    )
    args = parser.parse_args()
    try:
        print("\n".join(table(args.run, args.new)))
    except DistganError as error:
        parser.exit(2, f"error: {error}\n")


def table(folder: Path, new: Path) -> list[str]:
    """Lines to print: of the untrained network, of the best checkpoint, of new reals."""
    run = read_history(folder)
    scores = sorted(
        (one for one in run.evaluations if one.get("samples")), key=lambda one: one["step"]
    )
    if not scores:
        raise DistganError(f"{folder} holds no evaluation of samples")
    first, best = scores[0], min(scores, key=lambda one: one["score"])
    weights = run.config["evaluate"]
    floor = reals(
        Data(run.config["data"]),
        Data(str(new)),
        best["samples"],
        Choice.of(Evaluate.model_validate({"extractor": "standin", **weights})),
    )
    gap = next(
        (row for row in run.rows if row["step"] == best["step"] and "valid/overfit" in row), {}
    )
    rows = [
        ("", best["metric"], "nearest", "gap of D", "diversity"),
        (
            f"untrained, step {first['step']}",
            _figure(first["score"]),
            _figure(first.get("nearest")),
            "",
            "",
        ),
        (
            f"best, epoch {best['epoch']:.0f}",
            _figure(best["score"]),
            _figure(best.get("nearest")),
            _figure(gap.get("valid/overfit")),
            _figure(gap.get("valid/diversity")),
        ),
        (
            f"{floor['samples']} new real images",
            _figure(floor["score"]),
            _figure(floor["nearest"]),
            "",
            "",
        ),
    ]
    lines = [
        "".join(f"{cell:<24}" if i == 0 else f"{cell:>17}" for i, cell in enumerate(row))
        for row in rows
    ]
    return [
        *lines,
        (
            f"best / untrained: 1/{first['score'] / best['score']:.0f}; best / floor:"
            f" {best['score'] / floor['score']:.2f}; {floor['reals']} training images;"
            f" {best['extractor']}"
        ),
    ]


@torch.no_grad()
def reals(old: Data, new: Data, samples: int, choice: Choice) -> dict[str, float]:
    """What the evaluator would say if `samples` images of `new`, of both its parts, were generated
    ones.
    """
    extract = choice.build()

    def features(data: Data, split: ShardSet) -> torch.Tensor:
        return torch.cat([extract(chunk) for chunk in data.chunks(split, CHUNK)])

    fresh = torch.cat([features(new, split) for split in (new.train, new.validation) if len(split)])
    if len(fresh) < samples:
        raise DistganError(
            f"the run scores {samples} samples, the new data set holds {len(fresh)} images; it"
            " takes as many, or more"
        )
    train = features(old, old.train)
    held_out = features(old, old.validation) if len(old.validation) else None
    fresh = fresh[:samples]
    return {
        "score": frechet(train, fresh),
        "nearest": nearest(fresh, train, held_out),
        "samples": samples,
        "reals": len(train),
    }


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}"


if __name__ == "__main__":
    main()
