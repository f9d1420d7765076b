"""Delays against a slow reference, and on speech that was degraded and denoised."""

import math

import numpy as np
import pytest

from bench import alignment
from distgan.shards.audio import align
from distgan.shards.audio.pairs import correction


def sound(n, seed=0):
    """Noise with the spectrum of a low voice: falls by 12 dB an octave above 800 Hz."""
    white = np.random.default_rng(seed).standard_normal(n + 200)
    return np.convolve(white, 0.7 ** np.arange(100), "same")[100 : 100 + n]


def delayed(x, d):
    """x[n - d] by a sum of sinc functions, the definition of a band-limited delay."""
    at = np.arange(len(x))
    return np.sinc(at[:, None] - d - at) @ x


def slow(reference, observed, reach):
    """(lag, correlation with its sign) of the largest normalised dot product, lag by lag."""
    best = (0, 0.0)
    for d in range(-reach, reach + 1):
        start, stop = max(0, -d), min(len(reference), len(observed) - d)
        x, y = reference[start:stop], observed[start + d : stop + d]
        rho = x @ y / np.sqrt((x @ x) * (y @ y))
        best = (d, rho) if abs(rho) > abs(best[1]) else best
    return best


@pytest.mark.parametrize("seed", range(12))
def test_whole_delays_are_those_of_the_slow_reference(seed):
    rng = np.random.default_rng(seed)
    n, m, reach = rng.integers(600, 3000, 2).tolist() + [200]
    d, polarity = int(rng.integers(-reach, reach + 1)), int(rng.choice([-1, 1]))
    x = sound(6000, seed)
    reference, observed = x[1000 : 1000 + n], polarity * 0.3 * x[1000 - d : 1000 - d + m]
    observed = observed + 0.1 * sound(m, seed + 100)
    lag, rho = slow(reference, observed, reach)
    found = align.estimate(reference, observed, reach)
    assert lag == d and abs(found.samples - d) < 0.1 and found.polarity == np.sign(rho) == polarity
    assert found.agrees and abs(found.correlation - abs(rho)) < 0.03


@pytest.mark.parametrize("d", [-31.5, -3.14, -0.5, 0.25, 0.98, 17.75])
def test_fractions_of_a_sample(d):
    x = sound(3000)
    found = align.estimate(x[500:2500], delayed(x, d)[500:2500], 50)
    assert abs(found.samples - d) < 0.005 and found.correlation > 0.99 and found.drift == 0.0


def test_an_empty_top_of_the_band_does_not_pull():
    """A sound made at half the rate has nothing above: its hard ends must not speak instead."""
    low = np.sinc(np.arange(-100, 101) / 2) * np.hanning(201)
    x = np.convolve(np.random.default_rng(0).standard_normal(50000), low, "same")
    y = align.advance(x, -7.3)
    assert abs(align.estimate(x[1000:49000], y[1000:49000], 50).samples - 7.3) < 0.01
    noisy = y + np.random.default_rng(1).standard_normal(50000)
    for start in range(1000, 40000, 3000):
        assert (
            abs(
                align.estimate(x[start : start + 3000], noisy[start : start + 3000], 50).samples
                - 7.3
            )
            < 0.07
        )


@pytest.mark.parametrize("samples", [0.5, -0.5, 20.3, -20.3])
def test_advance_is_a_band_limited_shift(samples):
    x = np.pad(sound(800), 100)
    np.testing.assert_allclose(align.advance(x, samples), delayed(x, -samples), atol=0.02)
    assert align.advance(x.astype(np.float32), samples).dtype == np.float32


@pytest.mark.parametrize("samples", [0, 3, -3, 3.0, 10, -10, 99])
def test_whole_samples_move_exactly_and_nothing_comes_round(samples):
    x = np.arange(1, 11, dtype=np.float32)
    expected = [x[n + int(samples)] if 0 <= n + samples < 10 else 0 for n in range(10)]
    np.testing.assert_array_equal(align.advance(x, samples), expected)


@pytest.mark.parametrize("d", [37, -37, 0, 12.4, -12.4])
def test_a_delay_is_taken_out_of_what_both_share(d):
    x = sound(4000)
    reference, observed = x[1000:2500], align.advance(x, -d)[1000:2500]
    moved = align.advance(observed, correction(align.Delay(d, 1, 1.0, True, 0.0)))
    shared = slice(max(0, math.ceil(-d)), min(1500, math.floor(1500 - d)))
    if d == round(d):
        np.testing.assert_array_equal(reference[shared], moved[shared])
    np.testing.assert_allclose(reference[240:-240], moved[240:-240], atol=0.03)


def test_a_delay_that_is_nearly_whole_moves_no_value():
    x = sound(2000)
    other = align.advance(x, correction(align.Delay(12.02, 1, 1.0, True, 0.0)))
    np.testing.assert_array_equal(other[:-12], x[12:])


@pytest.mark.parametrize(
    "nothing", [np.zeros(500), np.full(500, 0.1, np.float32), np.full(500, np.nan), np.zeros(0)]
)
def test_silence_correlates_with_nothing(nothing):
    assert (
        align.estimate(sound(500), nothing, 50)
        == align.estimate(nothing, sound(500), 50)
        == align.UNKNOWN
    )
    assert align.UNKNOWN.correlation == 0.0


@pytest.mark.parametrize("n", [1, 2, 5, 40])
def test_short_recordings_do_not_break(n):
    found = align.estimate(sound(n), sound(n, 1), 100)
    assert np.isfinite([found.samples, found.correlation]).all() and 0 <= found.correlation <= 1


def test_other_recordings_are_told_apart():
    found = [
        align.estimate(sound(16000, i), sound(16000, i + 50), 2000).correlation for i in range(5)
    ]
    assert max(found) < align.MISMATCH


def test_drift_is_the_last_third_minus_the_first():
    x = sound(30000)
    late = np.concatenate([align.advance(x, -5)[:15000], align.advance(x, -9.5)[15000:]])
    assert abs(align.estimate(x, late, 100).drift - 4.5) < 0.05
    assert abs(align.estimate(x, align.advance(x, -900.3), 1000).drift) < 0.05
    assert align.estimate(x[:12000], late[9000:21000], 100).drift == 0.0  # too short
    late[20000:] = sound(10000, 1)
    assert align.estimate(x, late, 100).drift == 0.0  # nothing of the recording in the last third


def test_pooled_finds_what_single_recordings_do_not_show():
    pairs = []
    for i in range(30):
        x = sound(1200, i)
        pairs.append(
            (
                x,
                -align.advance(x, -12.25)
                + 12 * np.random.default_rng(i + 100).standard_normal(1200),
            )
        )
    single = [abs(align.estimate(*pair, 300).samples - 12.25) < 1 for pair in pairs]
    found = align.pooled([*pairs, (np.zeros(1200), pairs[0][1])], 300)
    assert np.mean(single) < 0.6 and abs(found.samples - 12.25) < 0.5 and found.polarity == -1
    assert align.pooled([], 300) == align.UNKNOWN


@pytest.mark.gate
def test_speech_after_noise_room_and_denoiser():
    """A part of the table of bench/alignment.py."""
    voices = alignment.corpus()
    every = alignment.cases()
    some = [every[i] for i in np.random.default_rng(0).permutation(len(every))[:110]]
    outcomes = alignment.measure(some, 1, voices)
    assert all(abs(o.error) <= 1 and o.delay.polarity == o.case.polarity for o in outcomes)
    usual = [o for o in outcomes if o.case.room != "heavy"]
    assert np.mean([abs(o.error) <= 0.05 for o in usual]) >= 0.95
    assert (
        np.mean([o.delay.agrees for o in usual]) > 0.97
        and np.mean([o.delay.correlation >= align.MISMATCH for o in usual]) > 0.97
    )
    assert not all(
        o.delay.agrees for o in outcomes
    )  # in heavy reverberation the plain correlation is wrong, and it is told
    assert max(alignment.mismatched(20, voices)) < align.MISMATCH
