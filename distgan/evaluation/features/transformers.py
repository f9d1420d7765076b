"""Vision transformers with published weights, from local files: DINOv2's ViT-L/14 for FD-DINOv2
(Stein et al. 2023), and the image tower of CLIP's ViT-L/14 at 336 pixels for CMMD (Jayasumana et
al. 2024). timm builds them and reads the files: `pip install 'distgan[transformers]'`.
"""

import hashlib
import warnings
from io import BufferedReader
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from distgan.core.errors import ConfigError, RunError
from distgan.core.reading import open_regular
from distgan.evaluation.features.inception import require_float32

IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CLIP = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


class Transformer(nn.Module):
    """A vision transformer up to the token of its class: float32 [batch, features].

    Images are resized to squares, bicubic and antialiased, and standardised as in training.
    """

    metric: str
    kernel: str
    about: str
    sha256: str
    architecture: str
    side: int
    scale: tuple[tuple[float, ...], tuple[float, ...]]
    width = 0  # of the projection after the last norm; 0 without one
    largest: float
    depth = 24
    mean: torch.Tensor
    sd: torch.Tensor

    def __init__(self, path: str):
        super().__init__()
        with _opened(Path(path).expanduser()) as file:
            self.digest = hashlib.file_digest(file, "sha256").hexdigest()
            if self.digest != self.sha256:
                raise RunError(
                    f"--weights {path}: SHA-256 is {self.digest}, that of {self.about} is"
                    f" {self.sha256}"
                )
            file.seek(0)
            self.net = self._load(file)
        self.preprocessing = f"antialiased bicubic {self.side}"
        self.label = f"{self.about}, weights {self.digest[:8]}"
        mean, sd = (torch.tensor(each)[:, None, None] for each in self.scale)
        self.register_buffer("mean", mean)
        self.register_buffer("sd", sd)
        self.requires_grad_(False).eval()

    def _load(self, file: BufferedReader) -> Any:
        try:
            import timm
            from timm.models.vision_transformer import checkpoint_filter_fn
        except ImportError:
            raise ConfigError(
                f"{self.about} needs timm: pip install 'distgan[transformers]'"
            ) from None
        net: Any = timm.create_model(
            self.architecture, img_size=self.side, num_classes=self.width, depth=self.depth
        )
        try:
            net.load_state_dict(checkpoint_filter_fn(self._read(file), net))
        except Exception as error:  # the bytes are those allowed, but may hold anything
            reason = str(error).splitlines()[0]
            raise RunError(f"--weights holds no weights of {self.about}: {reason}") from error
        return net

    def _read(self, file: BufferedReader) -> dict[str, torch.Tensor]:
        return torch.load(file, map_location="cpu", weights_only=True)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        require_float32(next(self.net.parameters()).dtype, images.device.type)
        x = images.float().expand(-1, 3, -1, -1).contiguous()
        size = (self.side, self.side)
        x = F.interpolate(x, size, mode="bicubic", align_corners=False, antialias=True)
        return self.net((x.clamp(0, 255) / 255 - self.mean) / self.sd)


class DinoV2(Transformer):
    metric, kernel = "fd_dinov2", "kernel_dinov2"
    about = "DINOv2 ViT-L/14, 1024 features"
    sha256 = "d5383ea8f4877b2472eb973e0fd72d557c7da5d3611bd527ceeb1d7162cbf428"
    architecture, side, scale = "vit_large_patch14_dinov2", 224, IMAGENET
    largest = 256.0  # a guess: normalised, but scaled


class Clip(Transformer):
    """Embeddings of length 1, as in CMMD."""

    metric, kernel = "frechet_clip", "kernel_clip"
    about = "CLIP ViT-L/14@336px, 768 features"
    sha256 = "3035c92b350959924f9f00213499208652fc7ea050643e8b385c2dac08641f02"
    architecture, side, scale = "vit_large_patch14_clip_quickgelu_336", 336, CLIP
    width, largest = 768, 2.0

    def _read(self, file: BufferedReader) -> dict[str, torch.Tensor]:
        """The published file is a program of TorchScript, of which the weights alone are used."""
        with warnings.catch_warnings():  # of torch.jit, that it is deprecated
            warnings.simplefilter("ignore", DeprecationWarning)
            return torch.jit.load(file, map_location="cpu").float().state_dict()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return F.normalize(super().forward(images), dim=1)


NETWORKS: dict[str, type[Transformer]] = {"dinov2": DinoV2, "clip": Clip}


def _opened(file: Path) -> BufferedReader:
    try:
        return open_regular(file, links=True)
    except OSError as error:
        raise RunError(f"--weights {file}: {error.strerror}") from error
