"""Degrade clean recordings: noise, rooms and mixing. Every sound is a float32 array [n]."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.signal import fftconvolve

NOISES = ("white", "pink", "babble", "hum")
VOICES = 6  # talkers in babble
HUM_HZ = (50.0, 60.0)  # mains
ACTIVE_DB = -40.0  # frames this far below the loud ones are pauses
EARLY_S = 0.002  # nothing arrives between the direct path and this long after it

_FRAME_S = 0.02
_SILENCE = 1e-20  # power


def noise(
    kind: str, rng: np.random.Generator, n: int, rate: int, corpus: Sequence[np.ndarray] = ()
) -> np.ndarray:
    """Return one of NOISES, float32 [n] with an RMS of 1; `corpus` is the speech for babble."""
    if kind == "white":
        sound = rng.standard_normal(n)
    elif kind == "pink":  # power falls by 3 dB an octave
        spectrum = np.fft.rfft(rng.standard_normal(n))
        sound = np.fft.irfft(spectrum / np.sqrt(np.maximum(np.arange(len(spectrum)), 1)), n)
    elif kind == "babble":
        sound = np.zeros(n)
        for _ in range(VOICES):
            voice = corpus[int(rng.integers(len(corpus)))]
            start = rng.integers(len(voice))
            sound += _level(np.take(voice, np.arange(start, start + n), mode="wrap"))
    elif kind == "hum":  # the first harmonics of the mains, over a little broadband noise
        t = np.arange(n) / rate
        mains = rng.choice(HUM_HZ)
        sound = 0.2 * rng.standard_normal(n)
        for k in range(1, 8):
            sound += np.sin(2 * np.pi * (mains * k * t + rng.random())) / k
    else:
        raise ValueError(f"no noise {kind!r}; there are: {', '.join(NOISES)}")
    return _level(sound).astype(np.float32)


def room(rng: np.random.Generator, rate: int, t60: float, drr_db: float) -> np.ndarray:
    """Return an impulse response, float32: a direct path of 1, then decaying noise (Polack 1988).

    The noise falls by 60 dB in `t60` seconds; `drr_db` is the ratio of the energy of the direct
    path to that of all the rest. The direct path comes 2 ms after the start, as in a measured
    response.
    """
    at, n = round(EARLY_S * rate), round(t60 * rate)
    tail = rng.standard_normal(n) * 10 ** (-3 * np.arange(n) / n)
    tail[:at] = 0
    # a sum: the last bits of a dot product depend on the number of threads
    tail *= 10 ** (-drr_db / 20) / math.sqrt(float(np.sum(tail**2)) + _SILENCE)
    tail[0] = 1
    return np.concatenate([np.zeros(at), tail]).astype(np.float32)


def direct_path(response: np.ndarray) -> int:
    """Return the index of the direct path: the largest absolute value."""
    return int(np.argmax(np.abs(response)))


def reverberate(x: np.ndarray, response: np.ndarray) -> np.ndarray:
    """Convolve float32 [n] with `response`, cut to [n] so that the direct path adds no delay.

    The level of the direct sound is unchanged.
    """
    at = direct_path(response)
    gain = abs(float(response[at]))
    return (fftconvolve(x.astype(np.float64), response)[at : at + len(x)] / gain).astype(np.float32)


@dataclass(frozen=True)
class Mixture:
    """Noisy recording, clean target and added noise: float32 arrays [n] scaled by one gain."""

    noisy: np.ndarray
    clean: np.ndarray
    noise: np.ndarray
    gain: float  # 1.0, or less, so that the largest of the three peaks is 1


def mix(
    clean: np.ndarray,
    noise: np.ndarray,
    snr_db: float,
    rate: int,
    response: np.ndarray | None = None,
) -> Mixture:
    """Mix clean speech, in a room if `response` is given, with noise at a ratio of `snr_db`.

    The ratio is between the power of the dry speech while it is active and that of the noise over
    the whole clip: pauses in the speech do not lower the noise, a live room does not raise it. If
    speech or noise is silent, the noise is added unscaled.
    """
    power = active_power(clean, rate)
    mean_square = float(np.mean(np.square(noise, dtype=np.float64)))
    scale = (
        math.sqrt(power / mean_square / 10 ** (snr_db / 10))
        if min(power, mean_square) > _SILENCE
        else 1.0
    )
    added = (scale * noise).astype(np.float32)
    noisy = (clean if response is None else reverberate(clean, response)) + added
    gain = 1 / max(1.0, *(float(np.abs(x).max(initial=0)) for x in (noisy, clean, added)))
    noisy, clean, added = ((x * np.float32(gain)).astype(np.float32) for x in (noisy, clean, added))
    return Mixture(noisy, clean, added, gain)


def active_power(x: np.ndarray, rate: int) -> float:
    """Return the mean square over frames of 20 ms within 40 dB of their 95th percentile."""
    size = max(1, min(len(x), round(_FRAME_S * rate)))
    frames = np.square(x[: len(x) // size * size], dtype=np.float64).reshape(-1, size).mean(1)
    return (
        float(frames[frames >= np.quantile(frames, 0.95) * 10 ** (ACTIVE_DB / 10)].mean())
        if len(frames)
        else 0.0
    )


def _level(x: np.ndarray) -> np.ndarray:
    """Scale to an RMS of 1; silence is returned unchanged."""
    rms = math.sqrt(float(np.mean(np.square(x, dtype=np.float64))))
    return x / rms if rms > math.sqrt(_SILENCE) else x * 1.0
