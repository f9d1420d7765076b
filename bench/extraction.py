"""Features of images: images per CPU second against pytorch-fid as shipped (batch 50), on one
thread and the same seeded weights.

distgan: channels-last, batch norm folded into the convolutions, chunks of 16. Limit: 1.7 times the
speed, features equal within 1e-4. Then the whole way, from PNG files to a distance, by both
programs: python -c "from bench import extraction; extraction.files(600)" took minutes and is not
part of `make bench`, which does 30 + 30.
"""

import contextlib
import io
import tempfile
import warnings
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from PIL import Image

from bench import weights
from bench.frechet import _clock
from distgan.evaluation.features.inception import Inception
from distgan.metrics import frechet

COUNT = 100


def main(quick: bool = False, only: str = "") -> None:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        file = Path(folder) / "weights.pth"
        ours, theirs = networks(file, weights.write(file))
        images = _images(8 if quick else COUNT, 0)
        batch, size = (4, 4) if quick else (50, 16)
        slow, expected = _clock(
            lambda: torch.cat(
                [theirs(part.float() / 255)[0].flatten(1) for part in images.split(batch)]
            ),
            measured=2,
        )
        fast, found = _clock(
            lambda: torch.cat([ours(part) for part in images.split(size)]), measured=2
        )
        n = len(images)
        print(
            f"{n} images of 64 x 64: distgan {n / fast:.2f} images/CPU s, pytorch-fid"
            f" {n / slow:.2f}: {slow / fast:.2f} times (limit 1.7)"
        )
        print(
            f"  features differ by {float((found - expected).abs().max()):.1e} at most (limit"
            f" 1e-4), their mean is {float(expected.mean()):.2f}"
        )
    files(4 if quick else 30)


def files(n: int) -> tuple[float, float, float]:
    """(distgan's distance, pytorch-fid's, the exact one of pytorch-fid's features) of the same 2 n
    PNG files, with the same weights; prints both and their CPU seconds.
    """
    from pytorch_fid import fid_score, inception

    from distgan.config.sections import Machine
    from distgan.distributed.ranks import Ranks
    from distgan.evaluation.features.choice import Choice
    from distgan.evaluation.image_evaluator import Evaluator
    from distgan.evaluation.sets.folders import FolderImages

    with tempfile.TemporaryDirectory() as folder:
        root, file = Path(folder), Path(folder) / "weights.pth"
        digest = weights.write(file)
        for name, seed in (("a", 1), ("b", 2)):
            (root / name).mkdir()
            for i, image in enumerate(_images(n, seed)):
                Image.fromarray(image.permute(1, 2, 0).numpy()).save(root / name / f"{i:05d}.png")
        real, fake = FolderImages(root / "a"), FolderImages(root / "b")
        mine, found = _clock(
            lambda: Evaluator(
                Ranks(Machine(device="cpu")), real, n, Choice("standin", str(file), digest), True
            ).compare(fake)["score"],
            measured=1,
        )
        with (
            _their_download(file),
            warnings.catch_warnings(),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            warnings.simplefilter("ignore")
            net = inception.InceptionV3([3])
            # What fid_score.calculate_fid_given_paths does, with the features at hand afterwards.
            theirs, sets = _clock(
                lambda: [
                    fid_score.get_activations(
                        sorted((root / name).glob("*.png")), net, min(n, 50), 2048, "cpu", 0
                    )
                    for name in "ab"
                ],
                measured=1,
            )
            root_s, expected = _clock(
                lambda: fid_score.calculate_frechet_distance(
                    *(part for x in sets for part in (x.mean(0), np.cov(x, rowvar=False)))
                ),
                measured=1,
            )
    exact = frechet.distance(*map(torch.from_numpy, sets))
    print(
        f"{n} + {n} PNG files: distgan {found:.9f} in {mine:.0f} CPU s, pytorch-fid {expected:.9f}"
        f" in {theirs + root_s:.0f} CPU s; relative difference {abs(found / expected - 1):.1e}"
    )
    print(
        f"  pytorch-fid's features without the error of its square root: {exact:.9f}; relative"
        f" difference {abs(found / exact - 1):.1e}"
    )
    return found, float(expected), exact


def _images(n: int, seed: int) -> torch.Tensor:
    """uint8 [n, 3, 64, 64]: patches of random colours, smaller and brighter for a larger seed."""
    small = np.random.default_rng(seed).uniform(
        40 * seed, 255, (n, 3, 8 << seed // 2, 8 << seed // 2)
    )
    return (
        torch.nn.functional.interpolate(torch.from_numpy(small).float(), size=64, mode="bilinear")
        .round()
        .to(torch.uint8)
    )


def networks(file: Path, digest: str) -> tuple[Inception, torch.nn.Module]:
    """(Ours, pytorch-fid's) with the weights in a file."""
    from pytorch_fid import inception

    with _their_download(file), warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="torchvision")
        return Inception(str(file), digest), inception.InceptionV3([3]).eval()


@contextlib.contextmanager
def _their_download(file: Path):
    from pytorch_fid import inception

    with mock.patch.object(
        inception,
        "load_state_dict_from_url",
        lambda *args, **kwargs: torch.load(file, weights_only=True),
    ):
        yield
