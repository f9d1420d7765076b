"""DNSMOS P.835 (Reddy et al. 2022): the opinions that listeners would give, without a reference.

The network is the one that the package speechmos carries: pip install 'distgan[speech]'. It is run
here and not by the package, whose code needs librosa.
"""

import importlib.util
from pathlib import Path

import numpy as np

from distgan.core.errors import ConfigError
from distgan.core.files import sha256_of
from distgan.shards.codecs import audio as audio_codec

RATE = 16000
COLUMNS = ("dnsmos", "dnsmos_sig", "dnsmos_bak")  # overall, speech signal, background
SHA256 = "269fbebdb513aa23cddfbb593542ecc540284a91849ac50516870e1ac78f6edd"
SECONDS = 9.01  # that the network hears at once
_FRAMES = int(SECONDS * RATE)
# what makes scores of the network's outputs: speech signal, background, overall
_POLYNOMIALS = (
    (-0.08397278, 1.22083953, 0.0052439),
    (-0.13166888, 1.60915514, -0.39604546),
    (-0.06766283, 1.11546468, 0.04602535),
)


def model() -> Path:
    """Return the file of the network; ConfigError where it is not installed."""
    found = importlib.util.find_spec("speechmos")
    if (
        found is None
        or not found.submodule_search_locations
        or importlib.util.find_spec("onnxruntime") is None
    ):
        raise ConfigError(
            "metrics: dnsmos needs speechmos and onnxruntime: pip install 'distgan[speech]'"
        )
    path = Path(found.submodule_search_locations[0]) / "dnsmos_models" / "sig_bak_ovr.onnx"
    if not path.is_file() or sha256_of(path) != SHA256:
        raise ConfigError(f"{path} is not the published network of DNSMOS ({SHA256})")
    return path


class Dnsmos:
    def __init__(self) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1  # the same bits anywhere
        self._session = onnxruntime.InferenceSession(
            str(model()), options, providers=["CPUExecutionProvider"]
        )

    def __call__(self, wave: np.ndarray, rate: int) -> tuple[dict[str, float], str]:
        """Return ({column: score from 1 to 5}, "") of float32 [frames], or ({}, why there is none).

        A shorter clip than 9.01 s is repeated; of a longer one the scores of windows of 9.01 s
        every second are averaged.
        """
        if not np.isfinite(wave).all():
            return {}, "it has values that are not finite"
        if not wave.any():
            return {}, "it is silent"
        sound = audio_codec.resample(wave, rate, RATE) if rate != RATE else wave
        sound = np.clip(sound, -1, 1)
        while len(sound) < _FRAMES:
            sound = np.concatenate([sound, sound])
        # the windows that the package takes, its roundings included
        starts = [
            second * RATE
            for second in range(int(len(sound) // RATE - SECONDS) + 1)
            if int((second + SECONDS) * RATE) - second * RATE == _FRAMES
        ]
        outputs = [
            self._session.run(None, {"input_1": sound[None, at : at + _FRAMES]})[0][0]
            for at in starts
        ]
        signal, background, overall = (
            float(np.mean([np.polyval(curve, output[k]) for output in outputs]))
            for k, curve in enumerate(_POLYNOMIALS)
        )
        return dict(zip(COLUMNS, (overall, signal, background), strict=True)), ""
