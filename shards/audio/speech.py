"""Synthetic speech: a formant synthesiser in NumPy, and espeak-ng if it is installed.

The synthesiser is a source-filter model (Fant 1960) with cascaded formants (Klatt 1980): harmonics
of a voice and shaped noise through resonances that move from syllable to syllable. Vowels are those
of Peterson and Barney (1952, men). It has the spectrum and the rhythm of speech, but no words.
"""

import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from distgan.core.errors import ConfigError, DataError
from distgan.core.rng import numpy_generator
from distgan.shards.codecs import audio as audio_codec

# Formants 1 to 3 in Hz of: heed, hid, head, had, hod, hawed, hood, who'd, hud, heard.
VOWELS = np.array(
    [
        [270, 2290, 3010],
        [390, 1990, 2550],
        [530, 1840, 2480],
        [660, 1720, 2410],
        [730, 1090, 2440],
        [570, 840, 2410],
        [440, 1020, 2240],
        [300, 870, 2240],
        [640, 1190, 2390],
        [490, 1350, 1690],
    ],
    float,
)
# Middle and width in Hz of the noise of: s, sh, f, h.
FRICATIVES = np.array([[6500, 1800], [3500, 1400], [5200, 3000], [1500, 700]], float)
NASAL = (280.0, 1100.0, 2200.0)
CONSONANTS = {"fricative": 0.25, "voiced fricative": 0.1, "stop": 0.3, "nasal": 0.15, "none": 0.2}

FRAMES = 200  # control frames per second
PEAK = 0.5
_WINDOW, _HOP = 512, 128
_HIGHEST = 0.48  # of the rate

VOICES = (
    "en-us",
    "en-gb",
    "en-gb-scotland",
    "en-us+f3",
    "en-gb+f4",
    "en-us+m3",
    "en-gb+m7",
    "en-gb-x-rp+f2",
)
TEXTS = (
    "The kettle began to sing before the rain had stopped.",
    "Nobody asked the lighthouse keeper why he painted the door yellow.",
    "Six small boats waited in the fog for the morning tide.",
    "She counted the measures twice and then played from memory.",
    "Please leave the heavy boxes beside the workshop window.",
    "A quiet voice on the radio read the names of distant harbours.",
    "The old clock strikes four whenever it should strike five.",
    "We followed the river as far as the second wooden bridge.",
    "Fresh bread, sharp cheese and a pear make a good supper.",
    "Their youngest daughter measures the snow with a long ruler.",
    "The train was late, so we taught each other songs on the platform.",
    "Check the gauge, close the valve, and write the pressure down.",
)
RATES_WPM = (130, 200)
ESPEAK_TIMEOUT_S = 60


@dataclass(frozen=True)
class _Voice:
    f0: float  # Hz
    tract: float  # formants are this many times those of the table
    breath: float  # share of noise in the voice
    tilt: float  # the k-th harmonic leaves the glottis with 1 / k^tilt


def _voice(speaker: int) -> _Voice:
    rng = numpy_generator(speaker, "speech/voice")
    female = rng.random() < 0.5
    return _Voice(
        rng.uniform(165, 240) if female else rng.uniform(85, 140),
        rng.uniform(1.1, 1.22) if female else rng.uniform(0.94, 1.06),
        rng.uniform(0.01, 0.05),
        rng.uniform(0.9, 1.5),
    )


def utterance(rng: np.random.Generator, rate: int, seconds: float, speaker: int) -> np.ndarray:
    """Synthesise syllables: float32 [seconds * rate], peak 0.5; `speaker` decides the voice."""
    voice = _voice(speaker)
    n, frames = round(seconds * rate), max(1, round(seconds * FRAMES))
    score = _syllables(rng, frames, max(5, rate // 2000))
    formants = _smooth(score.formants, 6) * voice.tract
    voiced, hiss = _smooth(score.voiced, 3), _smooth(score.hiss, 1)
    number = np.arange(formants.shape[1])
    widths = (60 + 40 * number + 0.8 * number**2) * (1 + 3 * voice.breath)
    sound = _harmonics(rng, voice, formants, widths, voiced, n, rate)
    sound = sound / (np.abs(sound).max(initial=0) + 1e-9)
    sound += (
        0.6
        / (_WINDOW / _HOP * 0.375)
        * _noises(rng, voice, formants, widths, voiced, hiss, score.noise, n, rate)
    )
    return (PEAK * sound / (np.abs(sound).max(initial=0) + 1e-9)).astype(np.float32)


@dataclass
class _Score:
    """The controls of the synthesiser for each frame."""

    formants: np.ndarray  # [frames, formants], Hz
    voiced: np.ndarray  # [frames], amplitude of the voice
    hiss: np.ndarray  # [frames], amplitude of the consonants' noise
    noise: np.ndarray  # [frames, 2], its middle and width, Hz


def _syllables(rng: np.random.Generator, frames: int, formants: int) -> _Score:
    """Draw a score of consonants and vowels in turn, with occasional pauses."""
    score = _Score(
        np.tile(500.0 + 1000 * np.arange(formants), (frames, 1)),
        np.zeros(frames),
        np.zeros(frames),
        np.tile(FRICATIVES[0], (frames, 1)),
    )
    at = int(rng.uniform(0.03, 0.15) * FRAMES)
    while at < frames:
        consonant = str(rng.choice(list(CONSONANTS), p=list(CONSONANTS.values())))
        end = at + int(rng.uniform(0.05, 0.11) * FRAMES)
        articulation = FRICATIVES[rng.integers(len(FRICATIVES))]
        if consonant.endswith("fricative"):
            score.hiss[at:end], score.noise[at:end] = rng.uniform(0.4, 1.0), articulation
            score.voiced[at:end] = 0.3 * consonant.startswith("voiced")
        elif consonant == "stop":  # closed, then a burst of 15 ms
            score.hiss[end - 4 : end - 1] = 1.5
            score.noise[at:end] = articulation * [rng.uniform(0.3, 0.8), 1.5]
        elif consonant == "nasal":
            score.voiced[at:end], score.formants[at:end, :3] = 0.45, NASAL
        at = end if consonant != "none" else at
        vowel = VOWELS[rng.integers(len(VOWELS))]
        glide = VOWELS[rng.integers(len(VOWELS))] if rng.random() < 0.3 else vowel
        length = int(rng.uniform(0.08, 0.22) * FRAMES)
        way = np.linspace(0, 1, length)[: max(0, frames - at), None]
        score.formants[at : at + length, :3] = vowel + (glide - vowel) * way
        score.voiced[at : at + length] = rng.uniform(0.7, 1.0)
        at += length
        if rng.random() < 0.15:
            at += int(rng.uniform(0.1, 0.3) * FRAMES)
    return score


def _harmonics(
    rng: np.random.Generator,
    voice: _Voice,
    formants: np.ndarray,
    widths: np.ndarray,
    voiced: np.ndarray,
    n: int,
    rate: int,
):
    """Return the voice, [n]: each harmonic with gain and phase of the formants at its frequency."""
    frames = len(voiced)
    t = np.arange(frames) / FRAMES
    melody = -0.12 * t / t[-1] if frames > 1 else np.zeros(1)
    melody = melody + 0.10 * np.sin(
        2 * np.pi * rng.uniform(0.3, 0.9) * t + rng.uniform(0, 2 * np.pi)
    )
    # slow movement, and jitter
    melody += 0.18 * _smooth(rng.standard_normal(frames), 12) + 0.008 * rng.standard_normal(frames)
    f0 = voice.f0 * np.exp(melody)
    k = np.arange(1, int(rate * _HIGHEST / f0.min()) + 1)
    f = f0[:, None] * k
    gains = (
        _resonances(f, formants, widths) * voiced[:, None] / k**voice.tilt * (f < rate * _HIGHEST)
    )
    at = np.arange(n) * FRAMES / rate
    phase = 2 * np.pi * np.cumsum(np.interp(at, np.arange(frames), f0)) / rate
    sound = np.zeros(n)
    for j in range(len(k)):
        gain = np.interp(at, np.arange(frames), np.abs(gains[:, j]))
        shift = np.interp(at, np.arange(frames), np.unwrap(np.angle(gains[:, j])))
        sound += gain * np.cos(k[j] * phase + shift)
    return sound


def _noises(
    rng: np.random.Generator,
    voice: _Voice,
    formants: np.ndarray,
    widths: np.ndarray,
    voiced: np.ndarray,
    hiss: np.ndarray,
    noise: np.ndarray,
    n: int,
    rate: int,
) -> np.ndarray:
    """Return breath through the formants plus the noise of consonants, [n].

    White noise is shaped window by window, overlapped and added.
    """
    starts = np.arange(0, n + _WINDOW, _HOP)
    frame = np.clip((starts - _WINDOW / 2) * FRAMES / rate, 0, len(voiced) - 1).astype(int)
    f = np.fft.rfftfreq(_WINDOW, 1 / rate)
    breath = (
        2
        * voice.breath
        * voiced[frame, None]
        * np.abs(_resonances(np.tile(f, (len(frame), 1)), formants[frame], widths))
    )
    burst = (
        0.25 * hiss[frame, None] * np.exp(-0.5 * ((f - noise[frame, :1]) / noise[frame, 1:]) ** 2)
    )
    window = np.hanning(_WINDOW + 1)[:-1]
    white = rng.standard_normal(n + 2 * _WINDOW)
    pieces = (
        np.fft.irfft(
            np.fft.rfft(white[starts[:, None] + np.arange(_WINDOW)] * window) * (breath + burst)
        )
        * window
    )
    sound = np.zeros(n + 2 * _WINDOW)
    for start, piece in zip(starts, pieces, strict=True):
        sound[start : start + _WINDOW] += piece
    return sound[_WINDOW : _WINDOW + n]


def _resonances(f: np.ndarray, formants: np.ndarray, widths: np.ndarray) -> np.ndarray:
    """Return the complex gain at f [frames, m] of cascaded second-order resonators; 1 at 0 Hz.

    `formants` [frames, formants] are their frequencies in Hz, `widths` [formants] their bandwidths.
    """
    s, gain = 2j * np.pi * f, np.ones(f.shape, complex)
    for i in range(formants.shape[1]):
        w, b = 2 * np.pi * formants[:, i, None], 2 * np.pi * widths[i]
        gain *= (w * w + b * b / 4) / ((s + b / 2) ** 2 + w * w)
    return gain


def _smooth(x: np.ndarray, reach: int) -> np.ndarray:
    """Average over ±reach frames with a Hann window, along the first axis; the ends are held."""
    weights = np.hanning(2 * reach + 3)[1:-1]
    weights /= weights.sum()
    padded = np.pad(x, [(reach, reach)] + [(0, 0)] * (x.ndim - 1), mode="edge")
    return sum(weight * padded[k : k + len(x)] for k, weight in enumerate(weights))


def espeak_path() -> str | None:
    """Return the path of the espeak-ng program, or None."""
    return shutil.which("espeak-ng")


def espeak(text: str, voice: str, rate_wpm: int) -> tuple[np.ndarray, int]:
    """Speak `text`; return (float32 [n], rate in Hz, 22050), equal for one version of the program.

    The band ends at 11 kHz.
    """
    if not (program := espeak_path()):
        raise ConfigError(
            "espeak-ng is not installed. Install it (Debian, Ubuntu: apt-get install espeak-ng), or"
            " use the synthesiser"
        )
    with tempfile.TemporaryDirectory() as folder:
        # To a file: on standard output the header of the WAV states 2 GB.
        path = Path(folder, "speech.wav")
        done = subprocess.run(
            [program, "-v", voice, "-s", str(rate_wpm), "-w", str(path), "--", text],
            capture_output=True,
            text=True,
            timeout=ESPEAK_TIMEOUT_S,
            check=False,
        )
        if done.returncode or not path.is_file():
            raise DataError(
                f"espeak-ng wrote no sound with the voice {voice!r}:"
                f" {done.stderr.strip() or f'exit code {done.returncode}'}"
            )
        return audio_codec.load(path)


def espeak_utterance(
    rng: np.random.Generator, rate: int, seconds: float, speaker: int
) -> np.ndarray:
    """Speak TEXTS in random order at a random speed: float32 [seconds * rate], peak 0.5.

    Speakers beyond len(VOICES) repeat.
    """
    n, order = round(seconds * rate), rng.permutation(len(TEXTS))
    speed = int(rng.integers(*RATES_WPM))
    spoken = np.zeros(0, np.float32)
    while len(spoken) < n:
        sound, sound_rate = espeak(TEXTS[order[0]], VOICES[speaker % len(VOICES)], speed)
        if sound_rate != rate:
            sound = audio_codec.resample(sound, sound_rate, rate)
        spoken = np.concatenate([spoken, sound])
        order = np.roll(order, -1)
    return PEAK * spoken[:n] / max(float(np.abs(spoken[:n]).max(initial=0)), 1e-9)
