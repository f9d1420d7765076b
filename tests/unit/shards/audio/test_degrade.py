"""Noises have their spectra, rooms their decay, mixtures the ratio asked for."""

import math

import numpy as np
import pytest
from sounds import measured_snr_db

from distgan.shards.audio import align, degrade

RATE = 16000


def rng(seed=0):
    return np.random.default_rng(seed)


def voices():
    """Loud and soft halves of noise: something with pauses."""
    return [
        (rng(i).standard_normal(9000 + 1000 * i) * np.repeat([0.3, 1e-4], 4500 + 500 * i)).astype(
            np.float32
        )
        for i in range(3)
    ]


@pytest.mark.parametrize("kind", degrade.NOISES)
def test_every_noise_has_one_type_and_one_level(kind):
    x = degrade.noise(kind, rng(), 20000, RATE, voices())
    assert x.dtype == np.float32 and x.shape == (20000,) and abs(np.sqrt(np.mean(x**2)) - 1) < 1e-3
    np.testing.assert_array_equal(x, degrade.noise(kind, rng(), 20000, RATE, voices()))
    assert not np.array_equal(x, degrade.noise(kind, rng(1), 20000, RATE, voices()))


def octaves(x):
    """Power in dB of neighbouring octaves from 125 Hz."""
    power, f = np.abs(np.fft.rfft(x)) ** 2, np.fft.rfftfreq(len(x), 1 / RATE)
    return [
        10 * math.log10(power[(f >= low) & (f < 2 * low)].sum())
        for low in (125, 250, 500, 1000, 2000, 4000)
    ]


def test_white_rises_by_3_db_an_octave_and_pink_stays():
    assert np.allclose(np.diff(octaves(degrade.noise("white", rng(), 2**18, RATE))), 3, atol=0.3)
    assert np.allclose(np.diff(octaves(degrade.noise("pink", rng(), 2**18, RATE))), 0, atol=0.3)


def test_hum_is_lines():
    x = degrade.noise("hum", rng(), RATE, RATE)
    power = np.abs(np.fft.rfft(x)) ** 2
    mains = min(degrade.HUM_HZ, key=lambda hz: -power[int(hz)])
    assert sum(power[int(k * mains)] for k in range(1, 8)) > 0.8 * power.sum()


def test_an_unknown_noise_names_those_there_are():
    with pytest.raises(ValueError, match="no noise 'brown'; there are: white, pink, babble, hum"):
        degrade.noise("brown", rng(), 10, RATE)


@pytest.mark.parametrize(("t60", "drr_db"), [(0.3, 6.0), (0.8, -12.0)])
def test_a_room_has_its_decay_and_its_direct_path(t60, drr_db):
    h = degrade.room(rng(), RATE, t60, drr_db).astype(np.float64)
    at = degrade.direct_path(h)
    assert at == 32 and h[at] == 1
    tail = h[at + 1 :]
    assert abs(-10 * math.log10(tail @ tail) - drr_db) < 0.01 and not tail[:30].any()
    left = 10 * np.log10(np.cumsum(tail[::-1] ** 2)[::-1])  # Schroeder's backward integration
    a, b = int(0.1 * t60 * RATE), int(0.5 * t60 * RATE)
    assert abs((left[a] - left[b]) / (b - a) * t60 * RATE - 60) < 3


def test_reverberation_adds_no_delay():
    x = rng().standard_normal(8000).astype(np.float32)
    wet = degrade.reverberate(x, degrade.room(rng(1), RATE, 0.4, -6.0))
    assert (
        wet.dtype == np.float32
        and wet.shape == x.shape
        and abs(align.estimate(x, wet, 500).samples) < 0.1
    )
    alone = np.zeros(100, np.float32)
    alone[40] = -0.5  # a measured response may be inverted and soft
    np.testing.assert_allclose(degrade.reverberate(x, alone), -x, atol=1e-5)


@pytest.mark.parametrize("snr_db", [-5, 0, 20])
def test_the_ratio_is_that_of_active_speech(snr_db):
    clean = np.concatenate([voices()[0], np.zeros(20000, np.float32)])
    room = degrade.room(rng(), RATE, 0.4, 0.0)
    mixture = degrade.mix(
        clean, degrade.noise("white", rng(), len(clean), RATE), snr_db, RATE, room
    )
    assert abs(measured_snr_db(mixture, RATE) - snr_db) < 0.01
    loud = clean[:4500].astype(np.float64)
    assert (
        abs(
            10 * math.log10(np.mean(loud**2) / np.mean((mixture.noise / mixture.gain) ** 2))
            - snr_db
        )
        < 0.3
    )
    np.testing.assert_allclose(
        mixture.noisy - mixture.noise, mixture.gain * degrade.reverberate(clean, room), atol=1e-6
    )


def test_peaks_are_brought_down_together():
    clean = (0.9 * np.sin(np.arange(4000))).astype(np.float32)
    mixture = degrade.mix(clean, degrade.noise("white", rng(), 4000, RATE), 0, RATE)
    peaks = [np.abs(x).max() for x in (mixture.noisy, mixture.clean, mixture.noise)]
    assert abs(max(peaks) - 1) < 1e-6 and mixture.gain < 1
    np.testing.assert_allclose(mixture.clean, clean * mixture.gain, rtol=1e-5)
    np.testing.assert_allclose(mixture.noisy, mixture.clean + mixture.noise, atol=1e-6)
    soft = degrade.mix(0.1 * clean, degrade.noise("white", rng(), 4000, RATE), 20, RATE)
    assert soft.gain == 1.0 and all(
        x.dtype == np.float32 for x in (soft.noisy, soft.clean, soft.noise)
    )


def test_silence_is_no_reason_to_fail():
    quiet = degrade.mix(
        np.zeros(4000, np.float32),
        degrade.noise("pink", rng(), 4000, RATE) * np.float32(0.01),
        10,
        RATE,
    )
    assert np.isfinite(quiet.noisy).all() and measured_snr_db(quiet, RATE) == -math.inf
    still = degrade.mix(voices()[0], np.zeros(9000, np.float32), 10, RATE)
    assert measured_snr_db(still, RATE) == math.inf and not still.noise.any()
