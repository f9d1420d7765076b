"""Speech, noises and rooms for degraded speech, from folders of sound files or synthetic.

Speech has `segments` (recording, first frame), `take(i)` -> float32 [frames] and `notes`; noise
has `draw(rng, frames)` -> (name, float32 [frames]); rooms are a dict of impulse responses by name,
float32. All at one rate, mono.
"""

import re
import subprocess
from pathlib import Path

import numpy as np

from distgan.core import console
from distgan.core.errors import ConfigError, DataError
from distgan.core.file_tree import shown
from distgan.core.rng import key, numpy_generator
from distgan.shards.audio import degrade, speech
from distgan.shards.audio.pairs import frames_and_rate, named, read_span
from distgan.shards.codecs import audio as audio_codec

NOISES = ("white", "pink", "babble")
BABBLE_VOICES, BABBLE_S = 8, 4.0
ROOMS, ROOM_T60_S, ROOM_DRR_DB = 48, (0.15, 0.6), (-3.0, 9.0)
LARGEST_ROOMS = 2**28  # values of all impulse responses: every process holds them
ESPEAK_TOP_HZ = 11025
TAKES = 2  # segments spoken by one synthetic speaker


class RecordedSpeech:
    """Consecutive segments of a folder's recordings, each with `margin` frames on both sides."""

    def __init__(
        self, folder: Path, files: list[str], rate: int, frames: int, margin: int, n: int | None
    ):
        self.folder, self.rate, self.length = folder, rate, frames + 2 * margin
        segments: list[tuple[str, int]] = []
        short: list[str] = []
        self.notes: list[str] = []
        for file in files:
            file_frames, file_rate = frames_and_rate(folder / file)
            count = (file_frames * rate // file_rate - 2 * margin) // frames if file_rate else 0
            segments += [(file, k * frames) for k in range(count)]
            if count < 1:
                short.append(file)
        if short:
            self.notes.append(
                f"{len(short)} of {len(files)} recordings are unreadable or shorter than"
                f" {self.length / rate:g} s (a segment and twice --max-delay), left out:"
                f" {named(short)}"
            )
        if not segments:
            raise ConfigError(f"--speech {folder}: {self.notes[0]}")
        n = n or len(segments)
        self.segments = [segments[i * len(segments) // n] for i in range(n)]

    def take(self, i: int) -> np.ndarray:
        """Read segment i, float32 [frames + 2 margins]; DataError if the file has fewer."""
        file, first = self.segments[i]
        sound = read_span(self.folder / file, self.rate, first, self.length)
        if len(sound) != self.length:
            raise DataError(f"{self.folder / shown(file)} ends before the length in its header")
        return sound


class SyntheticSpeech:
    """Speech by espeak-ng or the formant synthesiser: each speaker speaks TAKES segments."""

    def __init__(self, voice: str, seed: int, rate: int, frames: int, margin: int, n: int):
        self.voice, self.seed, self.rate, self.length = voice, seed, rate, frames + 2 * margin
        self.notes: list[str] = []
        self.segments = [(f"{voice}-{i // TAKES:05d}", i % TAKES * frames) for i in range(n)]

    def take(self, i: int) -> np.ndarray:
        return spoken(self.voice, self.seed, "speech", i, i // TAKES, self.rate, self.length)


class RecordedNoise:
    def __init__(self, folder: Path, files: list[str], rate: int):
        self.folder, self.files, self.rate = folder, files, rate

    def draw(self, rng: np.random.Generator, frames: int) -> tuple[str, np.ndarray]:
        """Read a random segment of a random file, repeated if the file is too short.

        DataError if it cannot be read.
        """
        file = self.files[rng.integers(len(self.files))]
        path = self.folder / file
        file_frames, file_rate = frames_and_rate(path)
        available = file_frames * self.rate // file_rate if file_rate else 0
        first = int(rng.integers(max(1, available - frames + 1)))
        sound = read_span(path, self.rate, first, frames)
        if not len(sound) or not np.isfinite(sound).all():
            raise DataError(
                f"{self.folder / shown(file)} is empty, or has values that are not finite; remove"
                " it from the folder"
            )
        return shown(file), np.resize(sound, frames)


class SyntheticNoise:
    """Noise of a random kind of NOISES; the voices of the babble are synthesised once."""

    def __init__(self, voice: str, seed: int, rate: int):
        self.rate = rate
        self.voices = [
            spoken(voice, seed, "babble", k, k, rate, round(BABBLE_S * rate))
            for k in range(BABBLE_VOICES)
        ]

    def draw(self, rng: np.random.Generator, frames: int) -> tuple[str, np.ndarray]:
        kind = NOISES[rng.integers(len(NOISES))]
        return kind, degrade.noise(kind, rng, frames, self.rate, self.voices)


def synthetic_rooms(seed: int, rate: int) -> dict[str, np.ndarray]:
    """Draw synthetic impulse responses (Polack 1988)."""
    generators = [numpy_generator(seed, "timbre/room", k) for k in range(ROOMS)]
    return {
        f"room-{k:02d}": degrade.room(
            rng, rate, rng.uniform(*ROOM_T60_S), rng.uniform(*ROOM_DRR_DB)
        )
        for k, rng in enumerate(generators)
    }


def recorded_rooms(folder: Path, files: list[str], rate: int) -> dict[str, np.ndarray]:
    """Read all impulse responses of a folder; DataError for one that is silent or not finite."""
    rooms: dict[str, np.ndarray] = {}
    total = 0
    with console.bar("reading", len(files), "impulse responses") as bar:
        for file in files:
            response, _ = audio_codec.load(folder / file, rate)
            if not np.isfinite(response).all() or not response.any():
                raise DataError(
                    f"{folder / shown(file)} is not an impulse response: silent, or not finite;"
                    " remove it from the folder"
                )
            rooms[shown(file)] = response
            total += len(response)
            if total > LARGEST_ROOMS:
                raise ConfigError(
                    f"--rirs {folder}: more than {LARGEST_ROOMS / rate / 60:.0f} minutes; choose"
                    " fewer"
                )
            bar.advance()
    return rooms


def resolve_voice(option: str | None) -> str:
    """Return espeak or formant; for None and auto, espeak if it is installed."""
    if option in ("espeak", "formant"):
        return option
    return "espeak" if speech.espeak_path() else "formant"


def voice_release(voice: str) -> str:
    """Return the voice with the release of its program, which decides every bit of the sound."""
    if voice != "espeak":
        return voice
    output = subprocess.run(
        [str(speech.espeak_path()), "--version"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    ).stdout
    release = re.search(r"\d+(\.\d+)+\S*", output)
    return f"espeak {release.group() if release else 'of unknown release'}"


def spoken(
    voice: str, seed: int, purpose: str, i: int, speaker: int, rate: int, frames: int
) -> np.ndarray:
    """Synthesise float32 [frames] of speech, equal for equal arguments."""
    synthesise = speech.espeak_utterance if voice == "espeak" else speech.utterance
    return synthesise(
        numpy_generator(seed, f"timbre/{purpose}", i),
        rate,
        frames / rate,
        key(seed, f"timbre/{purpose}/speaker", speaker),
    )
