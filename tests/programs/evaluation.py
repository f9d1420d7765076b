"""Started by test_evaluate.py with several processes: both paths of the evaluator over 1,003 images
of one generator, and a part of a data set; rank 0 writes the results.

python tests/programs/evaluation.py DATA RESULT [COUNT INCEPTION SHA256]
"""

import json
import sys

import torch

from distgan.config.sections import Machine
from distgan.core import console, rng
from distgan.data.dataset import Data
from distgan.distributed.ranks import Ranks, exit_process
from distgan.evaluation.features.choice import Choice
from distgan.evaluation.image_evaluator import Evaluator
from distgan.evaluation.image_scores import METRICS
from distgan.evaluation.sets.datasets import DatasetImages
from distgan.nn.image import Generator

COUNT = 1003


def results(
    folder: str, count: int = COUNT, inception: str | None = None, sha256: str | None = None
) -> list[dict]:
    ranks = Ranks(Machine(device="cpu"))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        generator = Generator(8, 4, 1, (), 8, 1, ranks).eval()

    def sample(numbers):
        return generator(rng.normal_each(0, "noise/test", numbers, (8,)))

    found = []
    for path in ("features", "moments"):
        evaluator = Evaluator(
            ranks,
            Data(folder),
            count,
            Choice(inception=inception, sha256=sha256),
            path=path,
            metrics=METRICS,
            thorough=True,
        )
        found.append(evaluator.measure(sample))
        found[-1]["made_with"].pop("reals_in")
    if not inception:
        images = DatasetImages(Data(folder), folder)
        evaluator = Evaluator(ranks, images, 41, Choice(), metrics=METRICS, thorough=True)
        found.append(evaluator.compare(images))  # 41 drawn of 60
        found[-1]["made_with"].pop("reals_in")
    ranks.close()
    return found


if __name__ == "__main__":
    said = results(sys.argv[1], *map(int, sys.argv[3:4]), *sys.argv[4:])
    if console.TALKS:
        with open(sys.argv[2], "w") as file:
            json.dump(said, file)
    exit_process(0)
