"""Measures of sound that follow a listening model, from packages of their own: PESQ, STOI and
ESTOI. Optional: pip install 'distgan[perceptual]'.

Each takes found and target, float [frames] of one clip, and gives (value, "") or (None, why there
is none): what cannot be measured is never a low score.
"""

import importlib
import warnings

import numpy as np

from distgan.core.errors import ConfigError
from distgan.shards.codecs import audio as audio_codec

PESQ_RATE = 16000  # wide-band; 8 kHz clips are taken narrow-band
PACKAGES = {"pesq": "pesq", "stoi": "pystoi", "estoi": "pystoi"}
NAMES = tuple(PACKAGES)
PLAIN = ("si_sdr", "lsd", "mcd", "stft", "l1", "bands", "frechet")  # measures that need no package
DNSMOS, GE2E = "dnsmos", "frechet_ge2e"
BY_NAME = (*NAMES, DNSMOS, GE2E)  # computed only if named
UNPAIRED = ("frechet", DNSMOS, GE2E)  # need no clean counterpart of equal length


def require(names: tuple[str, ...]) -> None:
    """ConfigError where a package is missing."""
    missing = sorted({PACKAGES[name] for name in names if not _there(PACKAGES[name])})
    if missing:
        raise ConfigError(
            f"metrics: {', '.join(name for name in names if PACKAGES[name] in missing)} need"
            f" {' and '.join(missing)}: pip install 'distgan[perceptual]' (pesq is compiled, so a C"
            " compiler must be there)"
        )


def measure(
    name: str, found: np.ndarray, target: np.ndarray, rate: int
) -> tuple[float | None, str]:
    """`pesq`: ITU-T P.862.2, MOS-LQO 1.0 to 4.64.

    At 8 kHz P.862.1. `stoi`, `estoi`: 0 to 1 (Taal et al. 2011; Jensen and Taal 2016).
    """
    if not np.any(target):
        return None, "the target is silent"
    if not np.any(found):
        return None, "it is silent"
    return (
        _pesq(found, target, rate)
        if name == "pesq"
        else _stoi(found, target, rate, name == "estoi")
    )


def _pesq(found: np.ndarray, target: np.ndarray, rate: int) -> tuple[float | None, str]:
    import pesq

    if rate not in (8000, PESQ_RATE):
        found, target = (audio_codec.resample(wave, rate, PESQ_RATE) for wave in (found, target))
    try:
        return (
            float(
                pesq.pesq(
                    min(rate, PESQ_RATE) if rate == 8000 else PESQ_RATE,
                    target,
                    found,
                    "nb" if rate == 8000 else "wb",
                )
            ),
            "",
        )
    except pesq.PesqError as error:  # no utterance, or a quarter of a second
        text = error.args[0] if error.args else type(error).__name__
        return None, f"PESQ: {text.decode() if isinstance(text, bytes) else text}"
    except ValueError as error:  # a NaN inside, of sound that is nearly silent
        return None, f"PESQ: {error}"


def _stoi(
    found: np.ndarray, target: np.ndarray, rate: int, extended: bool
) -> tuple[float | None, str]:
    import pystoi

    with warnings.catch_warnings():
        warnings.simplefilter(
            "error", RuntimeWarning
        )  # it warns, and returns 1e-5, where fewer than 30 frames are not silent
        try:
            value = float(
                pystoi.stoi(
                    target.astype(np.float64), found.astype(np.float64), rate, extended=extended
                )
            )
        except (
            RuntimeWarning,
            ValueError,
            IndexError,
        ) as error:  # a clip of a few samples has no frame
            return None, (
                "too short, fewer than 30 frames that are not silent"
                if "frames" in str(error) or isinstance(error, IndexError)
                else f"STOI: {error}"
            )
    return (value, "") if np.isfinite(value) else (None, "STOI is not finite")


def _there(package: str) -> bool:
    try:
        importlib.import_module(package)
    except ImportError:
        return False
    return True
