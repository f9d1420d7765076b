"""Feature extractors of images, which give the scores their names: only the published Inception
weights may give `fid` and `kid`.

An extractor takes uint8 [batch, 1 or 3, height, width], or of vectors float32 [batch, d], and
returns float32 [batch, d]. It has
`metric` and `kernel`, the names of Fréchet and kernel distances on its features; `label`, its
description; `digest`, of its weights; `preprocessing`, one of `inception_input.METHODS` or "none";
`largest`, a power of two above every feature.
"""

import hashlib
import io
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval

from distgan.core import rng
from distgan.core.errors import ConfigError, RunError
from distgan.evaluation import inception_input

# pytorch-fid's pt_inception-2015-12-05-6726825d.pth, 95,628,359 bytes
INCEPTION_SHA256 = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"
STAND_IN = ("frechet_standin", "kernel_standin")


class StandIn(nn.Module):
    """A seeded random convolutional network: the means over space of its four layers.

    Returns float32 [batch, 480]. Distances rank generators of one project; they compare with no
    published number. Images must be of one size.
    """

    metric, kernel = STAND_IN
    label = "seeded random network, 4 layers, 480 features, version 1"
    preprocessing = "none"
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


class Vectors(nn.Module):
    """Cosines of vectors, of three wavelengths, along fixed directions (Rahimi and Recht 2007).

    Takes float32 [batch, d], standardises each column by `reals` [n, d], and returns float32
    [batch, 96]. Distances of the vectors themselves would see a mean and a covariance alone, not
    that the space between modes is filled, and of columns in several units the largest one.
    """

    metric, kernel = "frechet_vectors", "kernel_vectors"
    label = "cosines of standardised vectors, 96 features, version 1"
    preprocessing = "none"
    largest = 2.0

    def __init__(self, reals: np.ndarray):
        super().__init__()
        sd = reals.std(0, np.float64)
        scale = np.stack([reals.mean(0, np.float64), np.where(sd > 0, sd, 1)]).astype(np.float32)
        self.digest = hashlib.sha256(scale.tobytes()).hexdigest()
        frequencies = torch.tensor([1.0, 3.0, 10.0]).repeat(32) / reals.shape[1] ** 0.5
        waves = rng.normal(0, "features/vectors", 0, (reals.shape[1], 96)) * frequencies
        phases = 2 * torch.pi * rng.uniform(0, "features/vectors", np.arange(96))
        self.register_buffer("scale", torch.from_numpy(scale))
        self.register_buffer("waves", waves)
        self.register_buffer("phases", torch.from_numpy(phases).float())

    def forward(self, vectors: torch.Tensor) -> torch.Tensor:
        standard = (vectors.float() - self.scale[0]) / self.scale[1]
        return torch.cos(standard @ self.waves + self.phases)


class Inception(nn.Module):
    """pytorch-fid's InceptionV3 up to pool3: float32 [batch, 2048].

    The weights are a local file of a known SHA-256; nothing is downloaded. With `sha256`, other
    weights of the same shapes are allowed, and distances are called `frechet_standin`. Batch norm
    is folded into the convolutions and the layout is channels-last: 1.7 to 2 times as fast on CPUs,
    equal to 1e-5.
    """

    def __init__(self, path: str, sha256: str | None = None, preprocessing: str = "bilinear"):
        super().__init__()
        weights, self.digest = _weights(Path(path).expanduser(), sha256)
        self.preprocessing = preprocessing
        if self.digest == INCEPTION_SHA256:
            # Another preprocessing gives another number, so it is part of the name.
            suffix = "" if preprocessing == "bilinear" else f"_{preprocessing}"
            self.metric, self.kernel = f"fid{suffix}", f"kid{suffix}"
            self.label = f"pytorch-fid Inception pool3, weights {self.digest[:8]}"
            self.largest = 16.0
        else:
            self.metric, self.kernel = STAND_IN
            self.label = f"Inception pool3 with other weights, {self.digest[:8]}"
            self.largest = 256.0  # a guess: the range of other weights is unknown
        self.net = _network(weights, path)
        self.requires_grad_(False).eval()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        dtype, device = next(self.net.parameters()).dtype, images.device.type
        if dtype != torch.float32 or torch.is_autocast_enabled(device):
            name = "autocast" if dtype == torch.float32 else dtype
            raise ConfigError(
                f"features are computed in float32, found {name}: in bfloat16 the distance of a set"
                " from itself was 13"
            )
        x = inception_input.prepare(images, self.preprocessing).contiguous(
            memory_format=torch.channels_last
        )
        # Not TF32 either, which a run may ask for; and the same kernels every time.
        with torch.backends.cudnn.flags(
            enabled=True, benchmark=False, deterministic=True, allow_tf32=False
        ):
            return self.net(x)[:, :, 0, 0]


def _weights(file: Path, sha256: str | None) -> tuple[dict[str, torch.Tensor], str]:
    """Return (the state of pytorch-fid's network, SHA-256 of the file).

    RunError if the file has another SHA-256 than `sha256`, by default the published one.
    """
    try:
        data = file.read_bytes()
    except OSError as error:
        reason = "no such file" if isinstance(error, FileNotFoundError) else error.strerror
        raise RunError(
            f"evaluate.inception={file}: {reason}. Leave it out to score with the stand-in network"
            " (frechet_standin)"
        ) from error
    digest, allowed = hashlib.sha256(data).hexdigest(), (sha256 or INCEPTION_SHA256).lower()
    if digest != allowed:
        source = "(evaluate.inception_sha256)"
        if not sha256:
            source = (
                "(pytorch-fid's pt_inception-2015-12-05-6726825d.pth): a score on other weights is"
                " no FID. For weights of your own, give their SHA-256 as"
                " evaluate.inception_sha256; scores are then called frechet_standin"
            )
        raise RunError(
            f"evaluate.inception={file}: SHA-256 is {digest}, allowed is {allowed} {source}"
        )
    try:
        return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True), digest
    except Exception as error:  # the bytes are those allowed, but may hold anything
        raise RunError(
            f"evaluate.inception={file} holds no weights that torch can load:"
            f" {str(error).splitlines()[0]}"
        ) from error


def _network(weights: dict[str, torch.Tensor], path: str) -> nn.Module:
    """Build pytorch-fid's network up to pool3 from its blocks, as `fid_inception_v3` does.

    pytorch-fid's own constructor can only download its weights.
    """
    from pytorch_fid.inception import (
        FIDInceptionA,
        FIDInceptionC,
        FIDInceptionE_1,
        FIDInceptionE_2,
    )
    from torchvision.models import inception_v3

    net = inception_v3(num_classes=1008, aux_logits=False, weights=None, init_weights=False)
    blocks = {
        "Mixed_5b": FIDInceptionA(192, pool_features=32),
        "Mixed_5c": FIDInceptionA(256, pool_features=64),
        "Mixed_5d": FIDInceptionA(288, pool_features=64),
        "Mixed_6b": FIDInceptionC(768, channels_7x7=128),
        "Mixed_6c": FIDInceptionC(768, channels_7x7=160),
        "Mixed_6d": FIDInceptionC(768, channels_7x7=160),
        "Mixed_6e": FIDInceptionC(768, channels_7x7=192),
        "Mixed_7b": FIDInceptionE_1(1280),
        "Mixed_7c": FIDInceptionE_2(2048),
    }
    for name, block in blocks.items():
        setattr(net, name, block)
    try:
        net.load_state_dict(weights)
    except (RuntimeError, TypeError, AttributeError) as error:
        raise RunError(
            f"evaluate.inception={path} holds weights of another network:"
            f" {str(error).splitlines()[0]}"
        ) from error
    net.eval()
    for module in net.modules():
        if hasattr(module, "conv") and hasattr(module, "bn"):
            conv = fuse_conv_bn_eval(module.conv.double(), module.bn.double()).float()
            module.conv, module.bn = conv, nn.Identity()
    # pool3 is the last pooling, before the classifier.
    layers = [layer for name, layer in net.named_children() if name not in ("dropout", "fc")]
    return nn.Sequential(*layers).to(memory_format=torch.channels_last)


def extractor(
    inception: str | None,
    sha256: str | None = None,
    preprocessing: str = "bilinear",
    vectors: np.ndarray | None = None,
) -> StandIn | Inception | Vectors:
    """Return Inception with the weights of the file `inception`, or without one the stand-in; of
    `vectors`, real ones [n, d], their own.
    """
    if vectors is not None:
        return Vectors(vectors)
    return Inception(inception, sha256, preprocessing) if inception else StandIn()
