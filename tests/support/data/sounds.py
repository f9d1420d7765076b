"""Clips of made speech, with more and less noise, and folders of them."""

import math
from pathlib import Path

import numpy as np

from distgan.shards.audio import degrade, speech
from distgan.shards.codecs import audio as audio_codec

RATE = 16000


def made_voices() -> list[np.ndarray]:
    """Five clips of 0.7 to 1.1 s of made speech."""
    return [
        speech.utterance(np.random.default_rng(k), RATE, 0.7 + 0.1 * k, k).astype(np.float32)
        for k in range(5)
    ]


def noisy(wave: np.ndarray, level: float, k: int = 0) -> np.ndarray:
    return (wave + level * np.random.default_rng(k).standard_normal(len(wave))).astype(np.float32)


def measured_snr_db(mixture: degrade.Mixture, rate: int) -> float:
    """The ratio that `degrade.mix` sets, measured; ±inf where one side is silent."""
    power = degrade.active_power(mixture.clean, rate)
    mean_square = float(np.mean(np.square(mixture.noise, dtype=np.float64)))
    if min(power, mean_square) <= 1e-20:
        return math.inf if power > mean_square else -math.inf
    return 10 * math.log10(power / mean_square)


def voice_folders(folder: Path, voices: list[np.ndarray]) -> Path:
    """Folders `clean`, `repaired` and `denoised` of the same clips."""
    for name, level in (("clean", 0), ("repaired", 0.005), ("denoised", 0.02)):
        (folder / name).mkdir()
        for k, voice in enumerate(voices):
            (folder / name / f"{k}.wav").write_bytes(
                audio_codec.write_wav(noisy(voice, level, k), RATE)
            )
    return folder


def asked(folder, *more):
    return [
        "--real",
        str(folder / "clean"),
        "--fake",
        str(folder / "repaired"),
        "--input",
        str(folder / "denoised"),
        *more,
    ]
