"""The synthesiser speaks with a voice; espeak-ng where it is installed."""

import numpy as np
import pytest

from distgan.core.errors import ConfigError, DataError
from distgan.shards.audio import speech

needs_espeak = pytest.mark.skipif(
    speech.espeak_path() is None, reason="espeak-ng is not installed: speech from it is not tested"
)


def utterance(seed=0, speaker=0, rate=16000, seconds=1.5):
    return speech.utterance(np.random.default_rng(seed), rate, seconds, speaker)


def melody(x, rate):
    """Median pitch in Hz of voiced frames, from their autocorrelation between 70 and 300 Hz."""
    found = []
    for at in range(0, len(x) - 1024, 512):
        frame = x[at : at + 1024] * np.hanning(1024)
        c = np.fft.irfft(np.abs(np.fft.rfft(frame, 4096)) ** 2)[:1024]
        lag = rate // 300 + int(np.argmax(c[rate // 300 : rate // 70]))
        if c[0] > 0.1 and c[lag] > 0.4 * c[0]:
            found.append(rate / lag)
    return float(np.median(found))


@pytest.mark.parametrize(
    ("rate", "seconds"), [(16000, 1.0), (48000, 0.5), (8000, 0.3), (22050, 1.01)]
)
def test_length_type_and_peak(rate, seconds):
    x = utterance(rate=rate, seconds=seconds)
    assert (
        x.dtype == np.float32
        and x.shape == (round(rate * seconds),)
        and abs(np.abs(x).max() - speech.PEAK) < 1e-3
    )


def test_the_same_address_says_the_same():
    np.testing.assert_array_equal(utterance(3), utterance(3))
    assert not np.allclose(utterance(3), utterance(4))
    assert not np.allclose(utterance(3, speaker=1), utterance(3, speaker=2))


@pytest.mark.parametrize("speaker", range(6))
def test_a_speaker_keeps_the_pitch(speaker):
    due = speech._voice(speaker).f0
    assert all(
        abs(np.log2(melody(utterance(seed, speaker, seconds=2.5), 16000) / due)) < 0.35
        for seed in (1, 2)
    )


def test_it_has_pauses_formants_and_a_falling_spectrum():
    x = utterance(seconds=4.0)
    frames = np.sqrt(np.mean(x[: len(x) // 320 * 320].reshape(-1, 320) ** 2, 1))
    assert frames.min() < 0.02 * np.quantile(frames, 0.95)
    power, f = np.abs(np.fft.rfft(x)) ** 2, np.fft.rfftfreq(len(x), 1 / 16000)
    assert (
        power[f < 1000].sum()
        > 3 * power[(f >= 1000) & (f < 4000)].sum()
        > 3 * power[f >= 4000].sum()
    )


def test_resonators_peak_at_their_formants():
    f = np.arange(0, 4000.0)[None]
    gain = np.abs(
        speech._resonances(f, np.array([[500.0, 1500.0, 2500.0]]), np.array([60.0, 80.0, 100.0]))
    )[0]
    assert gain[0] == pytest.approx(1)
    peaks = [int(i) for i in range(1, 3999) if gain[i] > gain[i - 1] and gain[i] > gain[i + 1]]
    np.testing.assert_allclose(peaks, [500, 1500, 2500], atol=10)


@needs_espeak
@pytest.mark.parametrize("voice", speech.VOICES)
def test_every_voice_speaks(voice):
    x, rate = speech.espeak("Seven.", voice, 160)
    assert rate == 22050 and x.dtype == np.float32 and len(x) > 4000 and np.abs(x).max() > 0.05


@needs_espeak
def test_espeak_repeats_itself_and_reads_no_options_from_a_text():
    text = "-w /tmp/elsewhere.wav"
    np.testing.assert_array_equal(
        speech.espeak(text, "en-us", 160)[0], speech.espeak(text, "en-us", 160)[0]
    )
    assert len(speech.espeak("one two three four", "en-us", 100)[0]) > 1.3 * len(
        speech.espeak("one two three four", "en-us", 180)[0]
    )


@needs_espeak
def test_espeak_utterances_have_the_length_asked_for():
    one, other = (
        speech.espeak_utterance(np.random.default_rng(seed), 16000, 5.0, 1) for seed in (0, 1)
    )
    assert (
        one.shape == other.shape == (80000,)
        and one.dtype == np.float32
        and abs(np.abs(one).max() - speech.PEAK) < 1e-3
    )
    assert not np.allclose(one, other)


@needs_espeak
def test_an_unknown_voice_is_named():
    with pytest.raises(DataError, match="with the voice 'nosuch'"):
        speech.espeak("Seven.", "nosuch", 160)


def test_without_espeak_it_says_how_to_get_it(monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert speech.espeak_path() is None
    with pytest.raises(ConfigError, match="apt-get install espeak-ng"):
        speech.espeak("Seven.", "en-us", 160)


def test_a_shorter_vocal_tract_has_higher_formants(monkeypatch):
    """Log frequency, weighted with power, between the first formants and the third.

    The same words and the same pitch.
    """

    def middle(tract):
        monkeypatch.setattr(
            speech, "_voice", lambda speaker: speech._Voice(100.0, tract, 0.01, 1.0)
        )
        power, f = (
            np.abs(np.fft.rfft(utterance(1, seconds=3.0))) ** 2,
            np.fft.rfftfreq(48000, 1 / 16000),
        )
        inside = (f > 250) & (f < 4000)
        return np.average(np.log(f[inside]), weights=power[inside])

    assert 0.5 < (middle(1.2) - middle(1.0)) / np.log(1.2) < 1.5
