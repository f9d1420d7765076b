"""Feature extractors for Fréchet distances. The name of a score comes from here: only pytorch-fid's own weights may be called FID."""

import hashlib
import warnings
from pathlib import Path
from unittest import mock

import torch
from torch import nn
from torch.nn import functional as F

from distgan import draws
from distgan.errors import RunError

# pytorch-fid's pt_inception-2015-12-05-6726825d.pth, 95,628,359 bytes
INCEPTION_SHA256 = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"


class StandIn(nn.Module):
    """A seeded random convolutional network: distances on it tell nearer from farther, but compare with no published number.

    uint8 [batch, 1 or 3, height, width] -> float32 [batch, 480]: the means over space of four layers.
    """

    metric, label = "frechet_standin", "seeded random network, 4 layers, 480 features, version 1"

    def __init__(self):
        super().__init__()
        widths = (3, 32, 64, 128, 256)
        self.layers = nn.ModuleList(nn.Conv2d(a, b, 3, 2, 1, bias=False) for a, b in zip(widths, widths[1:], strict=False))
        for i, layer in enumerate(self.layers):
            weight = draws.normal(0, "features/standin", i, tuple(layer.weight.shape))
            layer.weight = nn.Parameter(weight * (2 / weight[0].numel()) ** 0.5)  # He et al. 2015
        self.requires_grad_(False).eval()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x = images.float().div(127.5).sub(1).expand(-1, 3, -1, -1)
        means = []
        for layer in self.layers:
            x = F.leaky_relu(layer(x), 0.2)
            means.append(x.mean((2, 3)))
        return torch.cat(means, 1)


class Inception(nn.Module):
    """pytorch-fid's InceptionV3, pool3: uint8 [batch, 1 or 3, height, width] -> float32 [batch, 2048].

    Gray images are repeated to three channels. The weights come from a local file whose SHA-256 must be the published one.
    """

    metric, label = "fid", f"pytorch-fid Inception pool3, weights {INCEPTION_SHA256[:8]}"

    def __init__(self, path: str):
        super().__init__()
        from pytorch_fid import inception

        file = Path(path).expanduser()
        if not file.is_file():
            raise RunError(f"evaluate.inception={path}: no such file. Leave it out to score with the stand-in network (frechet_standin)")
        with open(file, "rb") as stream:
            found = hashlib.file_digest(stream, "sha256").hexdigest()
        if found != INCEPTION_SHA256:
            raise RunError(f"evaluate.inception={path}: SHA-256 is {found}, allowed is {INCEPTION_SHA256} "
                           "(pytorch-fid's pt_inception-2015-12-05-6726825d.pth): a score on other weights is no FID")
        weights = torch.load(file, map_location="cpu", weights_only=True)
        # pytorch-fid can only download its weights; for the length of this call the download is this file.
        with mock.patch.object(inception, "load_state_dict_from_url", lambda *args, **kwargs: weights), warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="torchvision")  # pytorch-fid calls torchvision by names it has deprecated
            self.net = inception.InceptionV3([inception.InceptionV3.BLOCK_INDEX_BY_DIM[2048]])
        self.requires_grad_(False).eval()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x = images.float().div(255).expand(-1, 3, -1, -1)
        return self.net(x)[0][:, :, 0, 0]


def extractor(inception: str | None) -> StandIn | Inception:
    """The network that `evaluate.inception` asks for."""
    return Inception(inception) if inception else StandIn()


def frechet(a: torch.Tensor, b: torch.Tensor) -> float:
    """Fréchet distance between Gaussians fitted to features a [n, d] and b [m, d] (Dowson and Landau 1982; Heusel et al. 2017, eq. 6).

    tr sqrt(S1 S2) is the sum of the singular values of A B^T, with A, B the centred features / sqrt(n - 1): no matrix square root, exact also
    for fewer samples than dimensions, never complex. Computed in float64. Raises ValueError for fewer than 2 rows or non-finite features.
    """
    a, b = a.double(), b.double()
    if min(len(a), len(b)) < 2 or a.shape[1] != b.shape[1]:
        raise ValueError(f"a Fréchet distance needs two sets of at least 2 rows of equal width, found {tuple(a.shape)} and {tuple(b.shape)}")
    if not (torch.isfinite(a).all() and torch.isfinite(b).all()):
        raise ValueError("features are not finite: the generator or an image is broken")
    shift = a.mean(0) - b.mean(0)
    a, b = ((x - x.mean(0)) / (len(x) - 1) ** 0.5 for x in (a, b))
    variances = a.square().sum() + b.square().sum()
    # R of a QR decomposition has the same singular products, with at most d rows.
    a, b = (torch.linalg.qr(x, mode="r").R if len(x) > x.shape[1] else x for x in (a, b))
    cross = torch.linalg.svdvals(a @ b.T).sum()
    return max(float(shift.square().sum() + variances - 2 * cross), 0.0)


def nearest(samples: torch.Tensor, train: torch.Tensor, held_out: torch.Tensor | None) -> float | None:
    """Do samples lie nearer to the training images than unseen images do? Features [n, d], [m, d] and [k, d].

    The median distance from a sample to its nearest training image, divided by the median from a held-out image to its own: 1 for samples as far from
    them as unseen reals, towards 0 for copies, above 1 for samples that look like nothing there. None without held-out images, or if those are copies.
    """
    usual = _to_nearest(held_out, train) if held_out is not None else 0.0
    return _to_nearest(samples, train) / usual if usual else None


def _to_nearest(a: torch.Tensor, b: torch.Tensor, rows: int = 512) -> float:
    """The median over `a` of the Euclidean distance to the nearest of `b`, in float64: in float32 a copy would lie at 1e-3 of the features' size."""
    b = b.double()
    return float(torch.cat([torch.cdist(part.double(), b).min(1).values for part in a.split(rows)]).median())
