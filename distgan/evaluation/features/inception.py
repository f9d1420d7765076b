"""pytorch-fid's InceptionV3: only the published weights may give `fid` and `kid`."""

import hashlib
import io
from pathlib import Path

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from distgan.core.errors import ConfigError, RunError
from distgan.evaluation.features import inception_input
from distgan.evaluation.features.stand_in import STAND_IN

# pytorch-fid's pt_inception-2015-12-05-6726825d.pth, 95,628,359 bytes
INCEPTION_SHA256 = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"


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
        self.classifier = weights["fc.weight"] if self.digest == INCEPTION_SHA256 else None
        self.net = _network(weights, path)
        self.requires_grad_(False).eval()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        require_float32(next(self.net.parameters()).dtype, images.device.type)
        x = inception_input.prepare(images, self.preprocessing).contiguous(
            memory_format=torch.channels_last
        )
        # Not TF32 either, which a run may ask for; and the same kernels every time.
        with torch.backends.cudnn.flags(
            enabled=True, benchmark=False, deterministic=True, allow_tf32=False
        ):
            return self.net(x)[:, :, 0, 0]


def require_float32(dtype: torch.dtype, device: str) -> None:
    """ConfigError unless a network computes in float32."""
    if dtype != torch.float32 or torch.is_autocast_enabled(device):
        name = "autocast" if dtype == torch.float32 else dtype
        raise ConfigError(
            f"features are computed in float32, found {name}: in bfloat16 the distance of a set"
            " from itself was 13"
        )


def _weights(file: Path, sha256: str | None) -> tuple[dict[str, torch.Tensor], str]:
    """Return (the state of pytorch-fid's network, SHA-256 of the file).

    RunError if the file has another SHA-256 than `sha256`, by default the published one.
    """
    try:
        data = file.read_bytes()
    except OSError as error:
        reason = "no such file" if isinstance(error, FileNotFoundError) else error.strerror
        raise RunError(
            f"evaluate.inception={file}: {reason}. Leave it out to score with another network"
            " (evaluate.extractor)"
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
    network = nn.Sequential(*layers)
    return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
