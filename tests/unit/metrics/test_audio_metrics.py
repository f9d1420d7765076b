"""Measures of repaired sound.

Against formulas written out in NumPy and scipy, and on changes whose measure is known.
"""

import math

import numpy as np
import pytest
import scipy.signal
import torch

from distgan.metrics.audio import band_levels, band_names, log_spectral_distance, si_sdr, table
from distgan.metrics.stft import STFT_RESOLUTIONS
from distgan.shards.audio import speech

RATE = 16000


@pytest.fixture(scope="module")
def voice() -> torch.Tensor:
    """Two clips of 1 s of made speech, float64 [2, 16000], one softer."""
    clips = [speech.utterance(np.random.default_rng(k), RATE, 1.0, k) for k in range(2)]
    return torch.from_numpy(np.stack([clips[0], 0.2 * clips[1]])).double()


def noise(like: torch.Tensor, level: float) -> torch.Tensor:
    return level * torch.randn(
        like.shape, dtype=like.dtype, generator=torch.Generator().manual_seed(0)
    )


def test_si_sdr_is_the_formula(voice):
    """With the error made orthogonal to the target the ratio is known: -10 log10 of its share."""
    error = noise(voice, 1.0)
    error -= (error * voice).sum(1, keepdim=True) / voice.square().sum(1, keepdim=True) * voice
    error *= (voice.square().sum(1, keepdim=True) / error.square().sum(1, keepdim=True)).sqrt()
    for ratio in (-7.0, 0.0, 13.0):
        found = 0.3 * (voice + 10 ** (-ratio / 20) * error)
        np.testing.assert_allclose(si_sdr(found, voice), ratio, atol=1e-9)
        np.testing.assert_allclose(si_sdr(-found, voice), ratio, atol=1e-9)


def test_si_sdr_of_equal_and_of_silent_clips(voice):
    nothing = torch.zeros_like(voice)
    assert si_sdr(voice, voice).tolist() == [100, 100]
    assert si_sdr(voice, nothing).tolist() == [-100, -100] and si_sdr(nothing, voice).tolist() == [
        -100,
        -100,
    ]
    assert si_sdr(nothing, nothing).tolist() == [-100, -100]


def written_out(found: np.ndarray, target: np.ndarray, bins=slice(None)) -> float:
    """Log-spectral distance of one clip with scipy's STFT and loops."""
    size, hop = 512, 128
    shape = scipy.signal.get_window("hann", size)
    x, y = (
        [
            np.abs(np.fft.rfft(np.pad(z, size // 2)[k : k + size] * shape))
            for k in range(0, len(z) + 1, hop)
        ]
        for z in (found, target)
    )
    floor, powers = np.max(y) * 1e-4, [np.sum(frame**2) for frame in y]
    limit = np.quantile(powers, 0.95) * 1e-4
    values = [
        np.sqrt(
            np.mean(
                (20 * np.log10(np.maximum(a, floor)) - 20 * np.log10(np.maximum(b, floor)))[bins]
                ** 2
            )
        )
        for a, b, power in zip(x, y, powers, strict=True)
        if power >= limit
    ]
    assert 20 < len(values) <= len(powers)
    return float(np.mean(values))


def test_log_spectral_distance_is_the_formula(voice):
    found = voice + noise(voice, 0.005)
    due = [written_out(x, y) for x, y in zip(found.numpy(), voice.numpy(), strict=True)]
    np.testing.assert_allclose(log_spectral_distance(found, voice, RATE), due, rtol=1e-9)
    due = [
        written_out(x, y, slice(32, 64)) for x, y in zip(found.numpy(), voice.numpy(), strict=True)
    ]  # bins of 31.25 Hz
    np.testing.assert_allclose(
        log_spectral_distance(found, voice, RATE, 1000, 2000), due, rtol=1e-9
    )


def test_a_gain_is_a_distance_of_its_decibels():
    """On noise, which has nothing near the floor."""
    wave = noise(torch.zeros(2, RATE), 0.1)
    np.testing.assert_allclose(
        log_spectral_distance(0.5 * wave, wave, RATE), 20 * math.log10(2), atol=0.01
    )
    np.testing.assert_allclose(band_levels(0.5 * wave, wave, RATE), -20 * math.log10(2), atol=1e-4)
    assert log_spectral_distance(wave, wave, RATE).tolist() == [0, 0]


def test_a_lost_octave_is_seen_in_its_band(voice):
    filtered = torch.from_numpy(
        scipy.signal.sosfiltfilt(
            scipy.signal.butter(12, 4000, fs=RATE, output="sos"), voice.numpy()
        ).copy()
    )
    levels = band_levels(filtered, voice, RATE)
    assert band_names(RATE) == [
        "0-500 Hz",
        "500-1000 Hz",
        "1000-2000 Hz",
        "2000-4000 Hz",
        "4000-8000 Hz",
    ]
    assert (
        levels.shape == (2, 5) and (levels[:, :3].abs() < 0.1).all() and (levels[:, 4] < -10).all()
    )
    low, high = (
        log_spectral_distance(filtered, voice, RATE, *band) for band in ((0, 2000), (4500, 8000))
    )
    assert (low < 1).all() and (high > 5).all()


@pytest.mark.parametrize(
    ("hz", "band"),
    [(0, 0), (250, 0), (440, 0), (750, 1), (1500, 2), (3000, 3), (5000, 4), (7999, 4)],
)
def test_a_tone_is_heard_in_its_band(hz, band):
    wave = noise(torch.zeros(1, RATE), 0.01)
    levels = band_levels(
        wave + 0.5 * torch.cos(2 * torch.pi * hz * torch.arange(RATE) / RATE), wave, RATE
    )[0]
    assert levels.argmax() == band and levels[band] > 20


def test_pauses_do_not_count(voice):
    quiet = torch.cat([voice, torch.zeros_like(voice)], 1)
    error = torch.cat([noise(voice, 0.01), torch.zeros_like(voice)], 1)
    loud_pause = error + torch.cat(
        [torch.zeros_like(voice)[:, :1000], torch.zeros_like(voice), noise(voice, 0.05)[:, 1000:]],
        1,
    )
    a, b = (log_spectral_distance(quiet + e, quiet, RATE) for e in (error, loud_pause))
    np.testing.assert_allclose(a, b, rtol=0.02)


@pytest.mark.parametrize("frames", [1, 100, 600])
def test_short_and_silent_clips_have_finite_measures(frames):
    wave, nothing = noise(torch.zeros(1, frames), 0.1), torch.zeros(1, frames)
    for found, target in ((wave, nothing), (nothing, wave), (nothing, nothing)):
        for values in (
            log_spectral_distance(found, target, RATE),
            band_levels(found, target, RATE),
            si_sdr(found, target),
        ):
            assert torch.isfinite(values).all()
    assert log_spectral_distance(wave, nothing, RATE).item() == 0


def test_a_clip_does_not_depend_on_the_others(voice):
    found = voice + noise(voice, 0.01)
    together = table(found, voice, RATE, STFT_RESOLUTIONS)
    for i in range(2):
        alone = table(found[i : i + 1], voice[i : i + 1], RATE, STFT_RESOLUTIONS)
        assert alone.keys() == together.keys() == {"l1", "stft", "si_sdr", "lsd"}
        for name, value in alone.items():
            assert value.dtype == torch.float64 and value.item() == pytest.approx(
                together[name][i].item(), rel=1e-12
            )
