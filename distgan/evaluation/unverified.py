"""Fréchet distance to the mean and covariance of a file of pytorch-fid or clean-fid, which does not
say what it was computed from.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from distgan.core.errors import DataError
from distgan.distributed.ranks import Ranks
from distgan.evaluation.features.choice import Choice
from distgan.evaluation.image_scores import SetStatistics
from distgan.evaluation.set_statistics import Computation
from distgan.evaluation.sets import statistics_cache
from distgan.evaluation.sets.statistics_files import UNVERIFIED, StatisticsFile, UnverifiedMoments
from distgan.metrics import frechet

METRIC = "frechet_unverified"
INCEPTION_WIDTH = 2048
MAX_ROWS_BYTES = 2**30  # of features that are kept as rows; above this they are added up


@dataclass
class Images:
    """Images to compute moments of; `decode(numbers)`: uint8 [k, channels, height, width]."""

    name: str
    n: int
    decode: Callable[[np.ndarray], torch.Tensor]


Side = UnverifiedMoments | StatisticsFile | Images


def compare(ranks: Ranks, real: Side, fake: Side, choice: Choice) -> dict[str, Any]:
    """Return the Fréchet distance, where one side at least is unverified, and what is not known.

    `choice`: of the feature extractor. DataError for other features. Collective.
    """
    files = [side for side in (real, fake) if isinstance(side, UnverifiedMoments)]
    others = [side for side in (real, fake) if not isinstance(side, UnverifiedMoments)]
    found = {id(side): side.moments for side in files}  # of all on rank 0
    about: dict[str, Any] = {"extractor": None}
    for side in others:
        moments, about = _moments(ranks, side, files[0], choice)
        if moments is not None:
            found[id(side)] = moments
    if len({file.width for file in files}) > 1:
        raise DataError(" and ".join(f"{one.name} holds {one.width} features" for one in files))

    def distance() -> float:
        try:
            return frechet.of_moments(found[id(real)], found[id(fake)])
        except ValueError as error:
            raise DataError(f"{real.name} and {fake.name}: {error}") from error

    score = ranks.on_rank_zero(distance)
    sizes = (
        [
            None if isinstance(side, UnverifiedMoments) else found[id(side)].n
            for side in (real, fake)
        ]
        if ranks.is_main
        else []
    )
    reals, samples = ranks.on_rank_zero(lambda: sizes)
    names = " and ".join(file.name for file in files)
    return {
        "metric": METRIC,
        "score": score,
        "floor": None,
        "reals": reals,
        "samples": samples,
        "extractor": about["extractor"],
        "warning": f"NOT VERIFIED: {names}: {UNVERIFIED}",
        "reasons": dict.fromkeys(("floor", "score_sd"), f"needs the images behind {names}"),
        "made_with": about | {"real": real.name, "fake": fake.name},
    }


def _moments(
    ranks: Ranks, side: StatisticsFile | Images, file: UnverifiedMoments, choice: Choice
) -> tuple[frechet.Moments | None, dict[str, Any]]:
    """Return (moments on rank 0, None elsewhere; what they were computed with). Collective."""
    if isinstance(side, StatisticsFile):
        statistics = SetStatistics(len(side), side.training)
        _, arrays = statistics_cache.open_user_file(side.file)
        statistics.load(arrays)
        width = len(_of(statistics).mean)
        about = side.key
    else:
        extract = ranks.on_all_ranks(lambda: choice.build().to(ranks.device))
        zeros = torch.zeros(1, 3, 32, 32, dtype=torch.uint8, device=ranks.device)
        width = extract(zeros).shape[1]
        about = {
            "extractor": extract.label,
            "weights_sha256": extract.digest,
            "preprocessing": extract.preprocessing,
        }
    if width != file.width:
        remedy = "only files of the same features can be compared"
        if file.width == INCEPTION_WIDTH:
            remedy = "2048 are those of Inception: give its weights with --inception FILE"
        raise DataError(
            f"{file.name} holds the moments of {file.width} features, but {side.name} has {width}"
            f" ({about['extractor']}); {remedy}"
        )
    if isinstance(side, Images):
        groups = np.zeros(side.n, np.int64) if 4 * width * side.n > MAX_ROWS_BYTES else None
        statistics = Computation(ranks, extract, width, "images")(
            f"images of {side.name}", side.n, side.decode, side.n, groups
        )
    return (_of(statistics) if ranks.is_main else None), about


def _of(statistics: SetStatistics) -> frechet.Moments:
    if statistics.moments is not None:
        return statistics.moments["all"]
    return frechet.moments(statistics.rows)
