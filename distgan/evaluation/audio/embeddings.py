"""Embed sound for a Fréchet audio distance (FAD, Kilgour et al. 2019) by torchaudio's speech
models, with weights from a local file.
"""

import hashlib
import io
from pathlib import Path

import torch

from distgan.core.errors import ConfigError
from distgan.shards.codecs import audio as audio_codec

MODELS = (
    "wav2vec2_base",
    "wav2vec2_large",
    "hubert_base",
    "hubert_large",
    "wavlm_base",
    "wavlm_large",
)
RATE = 16000
SCALE = 2.0**-4  # a power of two: exact, and keeps embeddings below 256 in the range of exact sums
_LEAST_FRAMES = 400  # the first convolutions' reach at 16 kHz


class Embedding:
    """Map a clip [frames] at a rate in Hz to float32 [n, d], one row for each 20 ms.

    The rows are the output of the last layer times SCALE; distances are divided by SCALE^2.
    `weights` is a state dict of the pipeline's model, as torchaudio publishes it, `sha256` its
    digest. Nobody publishes digests of these files, so the first eight digits are part of the name:
    two numbers compare if the names are equal.
    """

    def __init__(self, model: str, weights: str, sha256: str):
        from torchaudio import models

        if model not in MODELS:
            raise ConfigError(f"embedding: found {model!r}, allowed: {', '.join(MODELS)}")
        path = Path(weights).expanduser()
        try:
            data = path.read_bytes()
        except OSError as error:
            raise ConfigError(
                f"embedding_weights={weights}: {error.strerror}. torchaudio.pipelines names the"
                " file of each model"
            ) from error
        digest = hashlib.sha256(data).hexdigest()
        if digest != sha256.lower():
            raise ConfigError(
                f"embedding_weights={weights}: SHA-256 is {digest}, expected is {sha256}"
            )
        self.name, self.digest = f"fad_{model}_{digest[:8]}", digest
        self._net = getattr(models, model)()
        try:
            self._net.load_state_dict(
                torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
            )
        except Exception as error:  # another file may hold anything
            raise ConfigError(
                f"embedding_weights={weights}: no weights of {model}: {str(error).splitlines()[0]}"
            ) from error
        self._net.eval().requires_grad_(False)

    @torch.no_grad()
    def __call__(self, wave: torch.Tensor, rate: int) -> torch.Tensor:
        sound = wave.float()
        if rate != RATE:
            sound = torch.from_numpy(audio_codec.resample(sound.numpy(), rate, RATE))
        sound = torch.nn.functional.pad(sound, (0, max(0, _LEAST_FRAMES - len(sound))))
        return self._net.extract_features(sound[None])[0][-1][0] * SCALE
