"""Embed speech by who speaks, for a Fréchet distance: the GE2E network (Wan et al. 2018) whose
weights the package Resemblyzer carries. Only its file is read: its code needs librosa.
"""

import hashlib
import importlib.util
import io
import math
from pathlib import Path

import torch
from torch import nn

from distgan.core.errors import ConfigError
from distgan.metrics.perceptual import GE2E
from distgan.shards.codecs import audio as audio_codec

RATE = 16000
SHA256 = "39373b86598fa3da9fcddee6142382efe09777e8d37dc9c0561f41f0070f134e"
_FFT, _HOP, _BANDS = 400, 160, 40
_FRAMES = 160  # of a window, 1.6 s
_STEP = 77  # frames between two windows
_COVERED = 0.75  # of the last window, or it is left out
_LEAST_DB = -30.0  # softer sound is raised to this root mean square


def weights() -> Path:
    """Return the file of the weights; ConfigError where it is not installed."""
    found = importlib.util.find_spec("resemblyzer")
    places = (found and found.submodule_search_locations) or []
    files = [file for place in places if (file := Path(place) / "pretrained.pt").is_file()]
    if not files:
        raise ConfigError(
            f"metrics: {GE2E} needs the weights in Resemblyzer: pip install --no-deps"
            " Resemblyzer==0.1.4"
        )
    return files[0]


class SpeakerEmbedding:
    """Map a clip [frames] at a rate in Hz to float32 [windows, 256], of length 1, none below 0.

    As Resemblyzer's `embed_utterance(…, return_partials=True)`, pauses left in.
    """

    name = GE2E

    def __init__(self) -> None:
        from torchaudio.functional import melscale_fbanks

        data = weights().read_bytes()
        digest = hashlib.sha256(data).hexdigest()
        if digest != SHA256:
            raise ConfigError(f"{weights()}: SHA-256 is {digest}, expected is {SHA256}")
        state = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)["model_state"]
        self._lstm, self._linear = nn.LSTM(_BANDS, 256, 3, batch_first=True), nn.Linear(256, 256)
        net = nn.ModuleDict({"lstm": self._lstm, "linear": self._linear})
        net.load_state_dict({name: state[name] for name in net.state_dict()})
        net.eval().requires_grad_(False)
        self._banks = melscale_fbanks(
            _FFT // 2 + 1, 0.0, RATE / 2, _BANDS, RATE, norm="slaney", mel_scale="slaney"
        )
        self._window = torch.hann_window(_FFT)

    @torch.no_grad()
    def __call__(self, wave: torch.Tensor, rate: int) -> torch.Tensor:
        sound = wave.float()
        if rate != RATE:
            sound = torch.from_numpy(audio_codec.resample(sound.numpy(), rate, RATE))
        level = 10 * math.log10(float(sound.double().square().mean()) + 1e-20)
        if -150 < level < _LEAST_DB:
            sound = sound * 10 ** ((_LEAST_DB - level) / 20)
        frames = math.ceil((len(sound) + 1) / _HOP)
        starts = list(range(0, max(1, frames - _FRAMES + _STEP + 1), _STEP))
        if len(starts) > 1 and len(sound) / _HOP - starts[-1] < _COVERED * _FRAMES:
            starts.pop()
        end = (starts[-1] + _FRAMES) * _HOP
        mel = self.mel(nn.functional.pad(sound, (0, max(0, end - len(sound)))))
        windows = torch.stack([mel[start : start + _FRAMES] for start in starts])
        raw = self._linear(self._lstm(windows)[1][0][-1]).relu()
        return raw / raw.norm(dim=1, keepdim=True).clamp_min(1e-12)

    def mel(self, sound: torch.Tensor) -> torch.Tensor:
        """Return the power [frames, bands] in mel bands, as librosa's `melspectrogram`."""
        spectrum = torch.stft(
            sound, _FFT, _HOP, window=self._window, pad_mode="constant", return_complex=True
        )
        return spectrum.abs().square().T @ self._banks
