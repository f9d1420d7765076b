"""Choose a feature extractor, which gives the scores their names.

An extractor takes uint8 [batch, 1 or 3, height, width], or of vectors float32 [batch, d], and
returns float32 [batch, features]. It has `metric` and `kernel`, the names of Fréchet and kernel
distances on its features; `label`, its description; `digest`, of its weights; `preprocessing`, how
images are resized, or "none"; `largest`, a power of two above every feature.
"""

from dataclasses import dataclass

import numpy as np

from distgan.config.image_network import LITE0, STAND_IN
from distgan.config.sections import Evaluate
from distgan.core.errors import ConfigError
from distgan.evaluation.features.inception import Inception
from distgan.evaluation.features.lite0 import Lite0
from distgan.evaluation.features.stand_in import StandIn
from distgan.evaluation.features.transformers import NETWORKS, Transformer
from distgan.evaluation.features.vectors import Vectors

Extractor = StandIn | Lite0 | Inception | Transformer | Vectors


@dataclass(frozen=True)
class Choice:
    """A choice of features: those of `network`, lite0, standin, or dinov2 or clip with the file
    `weights`, unless `inception` names a file of weights, of the SHA-256 `sha256` where they are
    not the published ones.
    """

    network: str = STAND_IN
    inception: str | None = None
    sha256: str | None = None
    preprocessing: str = "bilinear"
    weights: str | None = None

    @classmethod
    def of(cls, settings: Evaluate) -> "Choice":
        """Return what a run has chosen."""
        return cls(settings.extractor, settings.inception, settings.inception_sha256)

    def require(self) -> None:
        """ConfigError unless a file of weights and the network belong together."""
        if self.network in NETWORKS and not self.weights:
            raise ConfigError(
                f"--extractor {self.network} needs --weights FILE, the published file of"
                f" {NETWORKS[self.network].about}; nothing is downloaded"
            )
        if self.weights and self.network not in NETWORKS:
            raise ConfigError("--weights FILE goes with --extractor dinov2 or clip")

    def build(self, vectors: np.ndarray | None = None) -> Extractor:
        """Return the extractor; of `vectors` [n, d], real ones, their own.

        RunError, ConfigError.
        """
        if vectors is not None:
            if self.inception:
                raise ConfigError(
                    f"inception is {self.inception}, but vectors have features of their own; leave"
                    " it out"
                )
            return Vectors(vectors)
        if self.inception:
            return Inception(self.inception, self.sha256, self.preprocessing)
        self.require()
        if self.network in NETWORKS and self.weights:
            return NETWORKS[self.network](self.weights)
        return Lite0() if self.network == LITE0 else StandIn()
