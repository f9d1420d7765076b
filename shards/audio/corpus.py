"""What degraded speech is made from: stretches of speech, noises and rooms, from folders of sound
files or made.

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
LARGEST_ROOMS = 2**28  # values of all impulse responses together: every process holds them
ESPEAK_TOP_HZ = 11025
TAKES = 2  # stretches spoken by one synthetic speaker


class RecordedSpeech:
    """The stretches of a folder's recordings, one after the other.

    What lies `margin` frames before and after each is taken with it.
    """

    def __init__(
        self, folder: Path, files: list[str], rate: int, frames: int, margin: int, n: int | None
    ):
        self.folder, self.rate, self.wanted = folder, rate, frames + 2 * margin
        there, short = [], []
        for file in files:
            length, found = frames_and_rate(folder / file)
            count = (length * rate // found - 2 * margin) // frames if found else 0
            there += [(file, k * frames) for k in range(count)]
            if count < 1:
                short.append(file)
        self.notes = (
            [
                f"{len(short)} of {len(files)} recordings are unreadable or shorter than"
                f" {self.wanted / rate:g} s (a segment and twice --max-delay), left out:"
                f" {named(short)}"
            ]
            if short
            else []
        )
        if not there:
            raise ConfigError(f"--speech {folder}: {self.notes[0]}")
        n = n or len(there)
        self.segments = [there[i * len(there) // n] for i in range(n)]

    def take(self, i: int) -> np.ndarray:
        """float32 [frames + 2 margins]; DataError if the file has fewer."""
        file, first = self.segments[i]
        sound = read_span(self.folder / file, self.rate, first, self.wanted)
        if len(sound) != self.wanted:
            raise DataError(f"{self.folder / shown(file)} ends earlier than its header says")
        return sound


class MadeSpeech:
    """By espeak-ng, or by the formant synthesiser.

    A recording is what one speaker says, in TAKES stretches.
    """

    def __init__(self, voice: str, seed: int, rate: int, frames: int, margin: int, n: int):
        self.voice, self.seed, self.rate, self.wanted, self.notes = (
            voice,
            seed,
            rate,
            frames + 2 * margin,
            [],
        )
        self.segments = [(f"{voice}-{i // TAKES:05d}", i % TAKES * frames) for i in range(n)]

    def take(self, i: int) -> np.ndarray:
        return spoken(self.voice, self.seed, "speech", i, i // TAKES, self.rate, self.wanted)


class RecordedNoise:
    def __init__(self, folder: Path, files: list[str], rate: int):
        self.folder, self.files, self.rate = folder, files, rate

    def draw(self, rng: np.random.Generator, frames: int) -> tuple[str, np.ndarray]:
        """A stretch of a file, repeated where that is too short; DataError if it cannot be read."""
        file = self.files[rng.integers(len(self.files))]
        path = self.folder / file
        length, found = frames_and_rate(path)
        there = length * self.rate // found if found else 0
        sound = read_span(path, self.rate, int(rng.integers(max(1, there - frames + 1))), frames)
        if not len(sound) or not np.isfinite(sound).all():
            raise DataError(
                f"{self.folder / shown(file)} is empty, or has values that are not finite; take it"
                " out of the folder"
            )
        return shown(file), np.resize(sound, frames)


class MadeNoise:
    """One of NOISES. The voices of the babble are spoken once, and travel with the object."""

    def __init__(self, voice: str, seed: int, rate: int):
        self.rate = rate
        self.voices = [
            spoken(voice, seed, "babble", k, k, rate, round(BABBLE_S * rate))
            for k in range(BABBLE_VOICES)
        ]

    def draw(self, rng: np.random.Generator, frames: int) -> tuple[str, np.ndarray]:
        kind = NOISES[rng.integers(len(NOISES))]
        return kind, degrade.noise(kind, rng, frames, self.rate, self.voices)


def made_rooms(seed: int, rate: int) -> dict[str, np.ndarray]:
    """Polack's impulse responses."""
    draws = [numpy_generator(seed, "timbre/room", k) for k in range(ROOMS)]
    return {
        f"room-{k:02d}": degrade.room(
            rng, rate, rng.uniform(*ROOM_T60_S), rng.uniform(*ROOM_DRR_DB)
        )
        for k, rng in enumerate(draws)
    }


def recorded_rooms(folder: Path, files: list[str], rate: int) -> dict[str, np.ndarray]:
    """The impulse responses of a folder, all read at once; DataError for one that is none."""
    rooms, total = {}, 0
    with console.bar("reading", len(files), "impulse responses") as bar:
        for file in files:
            response, _ = audio_codec.load(folder / file, rate)
            if not np.isfinite(response).all() or not response.any():
                raise DataError(
                    f"{folder / shown(file)} is no impulse response: silent, or not finite; take it"
                    " out of the folder"
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


def voice_used(asked: str | None) -> str:
    """espeak or formant; not asked, or auto: espeak where it is installed."""
    return (
        asked if asked in ("espeak", "formant") else "espeak" if speech.espeak_path() else "formant"
    )


def voice_release(voice: str) -> str:
    """The voice with the release of its program, which decides what it says to the last bit."""
    if voice != "espeak":
        return voice
    told = subprocess.run(
        [str(speech.espeak_path()), "--version"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    ).stdout
    release = re.search(r"\d+(\.\d+)+\S*", told)
    return f"espeak {release.group() if release else 'of unknown release'}"


def spoken(
    voice: str, seed: int, purpose: str, i: int, speaker: int, rate: int, frames: int
) -> np.ndarray:
    """float32 [frames] of synthetic speech, the same for the same arguments."""
    say = speech.espeak_utterance if voice == "espeak" else speech.utterance
    return say(
        numpy_generator(seed, f"timbre/{purpose}", i),
        rate,
        frames / rate,
        key(seed, f"timbre/{purpose}/speaker", speaker),
    )
