"""Feature extractors. The names of scores come from here: only the published Inception weights may
give a score that name.

An extractor takes uint8 [batch, 1 or 3, height, width] and gives float32 [batch, d]. It has
`metric` and `kernel`, the names of Fréchet and kernel distances on its features; `label` for
people; `digest` of its weights; `preprocessing`, one of `resizing.WAYS` or "none"; `largest`, a
power of two that features stay below.
"""

import hashlib
import io
import warnings
from pathlib import Path
from unittest import mock

import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval

from distgan.core import rng
from distgan.core.errors import ConfigError, RunError
from distgan.evaluation import inception_input as resizing

# pytorch-fid's pt_inception-2015-12-05-6726825d.pth, 95,628,359 bytes
INCEPTION_SHA256 = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"
STAND_IN = ("frechet_standin", "kernel_standin")


class StandIn(nn.Module):
    """A seeded random convolutional network: distances on it tell nearer from farther, but compare
    with no published number.

    float32 [batch, 480]: the means over space of four layers. Images must be of one size.
    """

    (metric, kernel), label, preprocessing = (
        STAND_IN,
        "seeded random network, 4 layers, 480 features, version 1",
        "none",
    )
    largest = 16.0

    def __init__(self):
        super().__init__()
        widths = (3, 32, 64, 128, 256)
        self.layers = nn.ModuleList(
            nn.Conv2d(a, b, 3, 2, 1, bias=False) for a, b in zip(widths, widths[1:], strict=False)
        )
        for i, layer in enumerate(self.layers):
            weight = rng.normal(0, "features/standin", i, tuple(layer.weight.shape))
            layer.weight = nn.Parameter(weight * (2 / weight[0].numel()) ** 0.5)  # He et al. 2015
        self.digest = hashlib.sha256(
            b"".join(layer.weight.detach().numpy().tobytes() for layer in self.layers)
        ).hexdigest()
        self.requires_grad_(False).eval()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x = images.contiguous().float().div(127.5).sub(1).expand(-1, 3, -1, -1)
        means = []
        for layer in self.layers:
            x = F.leaky_relu(layer(x), 0.2)
            means.append(x.mean((2, 3)))
        return torch.cat(means, 1)


class Inception(nn.Module):
    """pytorch-fid's InceptionV3, pool3: float32 [batch, 2048]. The weights come from a local file
    of a known SHA-256, never from a download.

    `sha256`: of other weights in the same shapes, for tests and for networks of one's own;
    distances on them are called `frechet_standin`. Batch norm is folded into the convolutions and
    the layout is channels-last: 1.7 to 2 times as fast on CPUs, equal to 1e-5.
    """

    def __init__(self, path: str, sha256: str | None = None, preprocessing: str = "bilinear"):
        super().__init__()
        weights, self.digest = _weights(Path(path).expanduser(), sha256)
        published = self.digest == INCEPTION_SHA256
        named = (
            "" if preprocessing == "bilinear" else f"_{preprocessing}"
        )  # another preprocessing is another number
        self.metric, self.kernel = (f"fid{named}", f"kid{named}") if published else STAND_IN
        self.label = (
            f"pytorch-fid Inception pool3, weights {self.digest[:8]}"
            if published
            else f"Inception pool3 with other weights, {self.digest[:8]}"
        )
        self.preprocessing, self.largest = (
            preprocessing,
            (16.0 if published else 256.0),
        )  # of other weights nothing is known
        self.net = _network(weights, path)
        self.requires_grad_(False).eval()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        like = next(self.net.parameters())
        if like.dtype != torch.float32 or torch.is_autocast_enabled(images.device.type):
            raise ConfigError(
                "features are computed in float32, found"
                f" {'autocast' if like.dtype == torch.float32 else like.dtype}: in bfloat16 a set"
                " was at 13 from itself"
            )
        x = resizing.prepared(images, self.preprocessing).contiguous(
            memory_format=torch.channels_last
        )
        # Not TF32 either, which a run may ask for; and the same kernels every time.
        with torch.backends.cudnn.flags(
            enabled=True, benchmark=False, deterministic=True, allow_tf32=False
        ):
            return self.net(x)[0][:, :, 0, 0]


def _weights(file: Path, sha256: str | None) -> tuple[dict[str, torch.Tensor], str]:
    """(The state of pytorch-fid's network, SHA-256 of the file).

    RunError for another file than the one asked for.
    """
    try:
        data = file.read_bytes()
    except OSError as error:
        raise RunError(
            f"evaluate.inception={file}:"
            f" {'no such file' if isinstance(error, FileNotFoundError) else error.strerror}. Leave"
            " it out to score with the stand-in network (frechet_standin)"
        ) from error
    found, asked = hashlib.sha256(data).hexdigest(), (sha256 or INCEPTION_SHA256).lower()
    if found != asked:
        raise RunError(
            f"evaluate.inception={file}: SHA-256 is {found}, allowed is {asked} "
            + (
                "(evaluate.inception_sha256)"
                if sha256
                else (
                    "(pytorch-fid's pt_inception-2015-12-05-6726825d.pth): a score on other weights"
                    " is no FID. For weights of your own, give their SHA-256 as"
                    " evaluate.inception_sha256; scores are then called frechet_standin"
                )
            )
        )
    try:
        return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True), found
    except Exception as error:  # anything: the file is whole, but what is in it may be of any kind
        raise RunError(
            f"evaluate.inception={file} holds no weights that torch can load:"
            f" {str(error).splitlines()[0]}"
        ) from error


def _network(weights: dict[str, torch.Tensor], path: str) -> nn.Module:
    from pytorch_fid import inception

    # pytorch-fid can only download its weights; for the length of this call the download is this
    # file.
    with (
        mock.patch.object(inception, "load_state_dict_from_url", lambda *args, **kwargs: weights),
        warnings.catch_warnings(),
    ):
        warnings.filterwarnings(
            "ignore", module="torchvision"
        )  # pytorch-fid calls torchvision by names it has deprecated
        try:
            net = inception.InceptionV3(
                [inception.InceptionV3.BLOCK_INDEX_BY_DIM[2048]],
                resize_input=False,
                normalize_input=False,
            ).eval()
        except (RuntimeError, TypeError, AttributeError) as error:
            raise RunError(
                f"evaluate.inception={path} holds weights of another network:"
                f" {str(error).splitlines()[0]}"
            ) from error
    for module in net.modules():
        if hasattr(module, "conv") and hasattr(module, "bn"):
            module.conv, module.bn = (
                fuse_conv_bn_eval(module.conv.double(), module.bn.double()).float(),
                nn.Identity(),
            )
    return net.to(memory_format=torch.channels_last)


def extractor(
    inception: str | None, sha256: str | None = None, preprocessing: str = "bilinear"
) -> StandIn | Inception:
    """The network that `evaluate.inception` asks for."""
    return Inception(inception, sha256, preprocessing) if inception else StandIn()
