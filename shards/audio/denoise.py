"""Denoisers behind one interface.

    deepfilternet   the published DeepFilterNet3, the default where its package is installed:
                    shards/audio/deepfilter3.py; with weights of the user's own, deepfilter.py
    erb             the default elsewhere. Uses the clean speech, which the builder of a data set
                    has: real gains in 32 bands of the ERB scale, frames of 20 ms every 10 ms,
                    jitter on the gains, half per-bin gains below 5 kHz. The kind of damage
                    DeepFilterNet does (Schröter et al. 2022), not its output
    wiener          blind: decision-directed Wiener gains (Ephraim and Malah 1984)

All take a batch of float32 [B, T] on any device and return the same, without delay; a row of the
result depends on that row alone.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from distgan.core.errors import ConfigError
from distgan.core.rng import numpy_generator
from distgan.shards.audio import deepfilter3
from distgan.shards.audio.strength import Strength

NAMES = ("erb", "wiener", "deepfilternet")

LEAST_RATE = 8000  # Hz
BANDS = 32
# below it, gains of bands and of bins are averaged: DeepFilterNet's second stage works there
MIXED_HZ = 5000.0
SMOOTHING = 0.98  # of the a-priori SNR from frame to frame
LEAST_PRIOR_DB = -25.0
# noise power: this quantile over time of the smoothed power, times the ratio of the mean to it
QUANTILE, BIAS = 0.15, 1.6


class Denoiser(Protocol):
    """A denoiser for sound of `rate` Hz; `name` is one of NAMES."""

    name: str
    rate: int

    def __call__(
        self,
        noisy: Tensor,
        clean: Tensor,
        strengths: Sequence[Strength],
        lengths: Sequence[int] | None = None,
    ) -> Tensor:
        """Denoise float32 [B, T] without delay.

        Rows shorter than T are padded with zeros; `lengths` are their lengths.
        """
        ...


def default(weights: Path | None = None) -> str:
    """Return the name of the denoiser of this machine, or of the one that takes weights."""
    return "deepfilternet" if weights or deepfilter3.is_installed() else "erb"


def load(name: str, rate: int, weights: Path | None = None) -> Denoiser:
    """Load the denoiser of that name for sound of `rate` Hz.

    `weights` are a user's own for deepfilternet. ConfigError names everything that is missing.
    """
    if name == "deepfilternet":
        if weights is None:
            return deepfilter3.DeepFilterNet3(rate)
        from distgan.shards.audio import deepfilter

        return deepfilter.load(rate, weights)
    if name not in NAMES:
        raise ConfigError(f"no denoiser {name!r}; there are: {', '.join(NAMES)}")
    if rate < LEAST_RATE:
        raise ConfigError(f"rate {rate} Hz: the denoiser {name} needs at least {LEAST_RATE} Hz")
    if weights is not None:
        raise ConfigError(
            f"the denoiser {name} takes no weights, but {weights} is given; leave them out, or use"
            " deepfilternet"
        )
    return Erb(rate) if name == "erb" else Wiener(rate)


class Erb:
    name = "erb"

    def __init__(self, rate: int):
        self.rate, self.hop = rate, round(0.01 * rate)
        self.edges = erb_edges(rate, 2 * self.hop)

    @torch.no_grad()
    def __call__(
        self,
        noisy: Tensor,
        clean: Tensor,
        strengths: Sequence[Strength],
        lengths: Sequence[int] | None = None,
    ) -> Tensor:
        size = 2 * self.hop
        window = torch.hann_window(size, device=noisy.device).sqrt()
        spectrum, target = (_stft(x, size, self.hop, window) for x in (noisy, clean))
        power = target.abs().square()
        over = _column([s.oversubtract for s in strengths], noisy)
        removed = over * (spectrum - target).abs().square()
        widths = torch.tensor(np.diff(self.edges), device=noisy.device)
        # [band, bin], the mean over each band
        bands = torch.zeros(len(widths), spectrum.shape[-2], device=noisy.device)
        bands[
            torch.arange(len(widths), device=noisy.device).repeat_interleave(widths),
            torch.arange(spectrum.shape[-2]),
        ] = 1
        power_of_band, removed_of_band = (bands @ x for x in (power, removed))
        gains = (power_of_band / (power_of_band + removed_of_band + 1e-12)).sqrt() * self._jitter(
            strengths, spectrum.shape[-1]
        ).to(noisy)
        gains = gains.repeat_interleave(widths, -2)
        mixed = int(MIXED_HZ / self.rate * size)
        gains[:, :mixed] = 0.5 * (
            gains[:, :mixed] + (power / (power + removed + 1e-12)).sqrt()[:, :mixed]
        )
        gains = torch.minimum(
            torch.maximum(gains, _floor(strengths, noisy)), torch.ones_like(gains)
        )
        return torch.istft(spectrum * gains, size, self.hop, window=window, length=noisy.shape[-1])

    def _jitter(self, strengths: Sequence[Strength], frames: int) -> Tensor:
        """Draw factors [B, band, frame], frame by frame: a longer row begins with the same ones."""
        rows = [
            s.jitter_db
            * numpy_generator(s.seed, "denoise/jitter")
            .standard_normal((frames, len(self.edges) - 1))
            .T
            for s in strengths
        ]
        return 10 ** (torch.from_numpy(np.stack(rows)) / 20)


class Wiener:
    name = "wiener"

    def __init__(self, rate: int):
        self.rate, self.hop = rate, round(0.008 * rate)

    @torch.no_grad()
    def __call__(
        self,
        noisy: Tensor,
        clean: Tensor,
        strengths: Sequence[Strength],
        lengths: Sequence[int] | None = None,
    ) -> Tensor:
        """Denoise without using `clean`."""
        size = 4 * self.hop
        window = torch.hann_window(size, device=noisy.device)
        spectrum = _stft(noisy, size, self.hop, window)
        posterior = spectrum.abs().square()
        posterior = posterior / self._noise(
            posterior, strengths, lengths or [noisy.shape[-1]] * len(noisy)
        )
        least, floor = 10 ** (LEAST_PRIOR_DB / 10), _floor(strengths, noisy)[..., 0]
        gains, last = torch.empty_like(posterior), torch.ones_like(posterior[..., 0])
        for t in range(posterior.shape[-1]):
            now = posterior[..., t]
            prior = (SMOOTHING * last + (1 - SMOOTHING) * (now - 1).clamp_min(0)).clamp_min(least)
            gain = torch.maximum(prior / (1 + prior), floor)
            gains[..., t], last = gain, gain.square() * now
        return torch.istft(spectrum * gains, size, self.hop, window=window, length=noisy.shape[-1])

    def _noise(
        self, power: Tensor, strengths: Sequence[Strength], lengths: Sequence[int]
    ) -> Tensor:
        """Estimate the noise power [B, bin, 1] from the frames inside each row."""
        rows = []
        for row, strength, length in zip(power, strengths, lengths, strict=True):
            inside = row[:, : max(1, length // self.hop)]
            smooth = torch.nn.functional.avg_pool1d(inside[None], 9, 1, 4, count_include_pad=False)[
                0
            ]
            rows.append(
                torch.quantile(smooth, QUANTILE, dim=-1, keepdim=True)
                * (BIAS * strength.oversubtract)
            )
        return torch.stack(rows) + 1e-12


def erb_edges(rate: int, size: int, bands: int = BANDS, least: int = 2) -> np.ndarray:
    """Return the first bins of bands of equal width on the ERB scale, and the end.

    Glasberg and Moore 1990; each band has at least `least` bins.
    """
    scale = 24.7 * 9.265
    hz = scale * np.expm1(np.linspace(0, math.log1p(rate / 2 / scale), bands + 1))
    edges = [0]
    for i in range(1, bands):
        edges.append(
            min(
                max(edges[-1] + least, round(hz[i] / rate * size)),
                size // 2 + 1 - least * (bands - i),
            )
        )
    return np.array([*edges, size // 2 + 1])


def _stft(x: Tensor, size: int, hop: int, window: Tensor) -> Tensor:
    # Zeros before, because reflection would need more samples than a short recording has, and
    # after, so that the last sample lies in as many frames as if the row were longer.
    return torch.stft(
        torch.nn.functional.pad(x, (0, size)),
        size,
        hop,
        window=window,
        center=True,
        pad_mode="constant",
        return_complex=True,
    )


def _column(values: list[float], like: Tensor) -> Tensor:
    """Return [B] as a tensor [B, 1, 1] like `like`."""
    return torch.tensor(values, dtype=like.dtype, device=like.device)[:, None, None]


def _floor(strengths: Sequence[Strength], like: Tensor) -> Tensor:
    return _column([10 ** (s.floor_db / 20) for s in strengths], like)
