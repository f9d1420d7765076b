"""Speech that a denoiser has damaged, and the clean speech it was: clean -> room -> noise ->
denoiser -> aligned pair.

Each sample is one stretch of speech, in a room (for a share of the samples), with noise at a drawn
ratio, denoised with a drawn strength. What is not given as a folder is made: speech by espeak-ng
where it is installed, else by a formant synthesiser; white, pink and babble noise; Polack's impulse
responses. The default denoiser, erb, needs no weights: it does the kind of damage DeepFilterNet
does, and is not equivalent to it. Gain, polarity and cropping are augmentation, and belong to
training.

The denoiser's delay is pooled over up to 64 pairs before anything is written, as its latency is
constant. A pair whose own delay or polarity disagrees is moved by its own. A margin of --max-delay
is read on both sides and cut off afterwards, so both members are the same stretch of sound, whole:
nothing is padded or wrapped around. All stretches of a recording are one group. Sample i depends on
the options and i alone.

A sample is `key.input.wav` (denoised) and `key.target.wav` (clean), 16 bits, and `key.json`:
speech, noise, rir, snr_db, denoiser, strength, delay_samples, polarity, correlation; "doubt" where
the pair may be no good.
"""

import argparse
import json
import math
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from distgan.core import console
from distgan.core.errors import ConfigError, DataError
from distgan.core.file_tree import Contents, find_files, shown
from distgan.core.rng import numpy_generator
from distgan.core.worker_pool import ordered_map
from distgan.shards.audio import align, corpus, degrade, denoise, speech
from distgan.shards.audio.pairs import SILENT_PEAK, SOUNDS, correction, pair_sample
from distgan.shards.audio.strength import Strength, draw_strength
from distgan.shards.codecs import audio as audio_codec
from distgan.shards.sources._base import SampleIssue, SourceReport

EXAMPLES = [
    ("400 pairs of 4 s from synthetic speech, noise and rooms", "distgan shard timbre OUT"),
    (
        "from recordings, with the network itself at 48 kHz",
        "distgan shard timbre OUT --speech clean --noise noise --rirs rooms --rate 48000"
        " --denoiser deepfilternet --weights DeepFilterNet3",
    ),
]
RECIPE = "timbre"

RATES = (16000, 48000)
FOLDERS = {"speech": "clean speech", "noise": "noise", "rirs": "impulse responses"}
MADE = 400  # pairs of made speech
POOL = 64
BATCH = 16
DRIFT_SAMPLES = 1.0
SNR_DB = (-60.0, 100.0)


def add_options(parser: argparse.ArgumentParser) -> None:
    for name, what in FOLDERS.items():
        parser.add_argument(
            f"--{name}", metavar="FOLDER", help=f"{what}, sound files at any depth (default: made)"
        )
    parser.add_argument(
        "--n",
        type=int,
        help=(
            "pairs, training and validation together (default: each stretch of --speech once; 400"
            " without)"
        ),
    )
    parser.add_argument(
        "--seed",
        type=int,
        default=0,
        help="another seed draws other noise, rooms and strengths (default: %(default)s)",
    )
    parser.add_argument(
        "--voice",
        choices=("auto", "espeak", "formant"),
        help="of made speech (default: auto, espeak-ng where installed)",
    )
    parser.add_argument(
        "--rate",
        type=int,
        choices=RATES,
        default=RATES[0],
        metavar="HZ",
        help="16000 or 48000 (default: %(default)s)",
    )
    parser.add_argument(
        "--save-segment-length",
        type=float,
        default=4.0,
        metavar="SECONDS",
        help="length of a stored pair (default: %(default)s)",
    )
    parser.add_argument(
        "--segment-length",
        type=float,
        default=1.0,
        metavar="SECONDS",
        help="what training will cut out of it at random (default: %(default)s)",
    )
    parser.add_argument(
        "--snr",
        type=float,
        nargs=2,
        default=[-5.0, 20.0],
        metavar=("LOW", "HIGH"),
        help="speech to noise in dB, drawn evenly (default: -5 20)",
    )
    parser.add_argument(
        "--reverb",
        type=float,
        default=0.5,
        metavar="SHARE",
        help="of the samples that are in a room (default: %(default)s)",
    )
    parser.add_argument(
        "--denoiser", choices=denoise.NAMES, default=denoise.DEFAULT, help="default: %(default)s"
    )
    parser.add_argument(
        "--weights", metavar="PATH", help="of deepfilternet: the published zip, or its folder"
    )
    parser.add_argument(
        "--max-delay",
        type=float,
        default=0.1,
        metavar="SECONDS",
        help="delays that are looked for (default: %(default)s)",
    )


@dataclass(frozen=True)
class Degraded:
    """One sample before the denoiser; arrays float32 [frames + 2 margins]."""

    mixture: degrade.Mixture
    strength: Strength
    about: dict[str, Any]


class Source:
    def __init__(self, args: argparse.Namespace):
        self.folders = {
            name: Path(getattr(args, name)) for name in FOLDERS if getattr(args, name) is not None
        }
        self.rate, self.seed, self.snr, self.reverb = (
            args.rate,
            args.seed,
            tuple(args.snr),
            args.reverb,
        )
        self.frames, self.margin = (
            round(args.save_segment_length * args.rate),
            round(args.max_delay * args.rate),
        )
        self.denoiser, self.weights = (
            args.denoiser,
            (None if args.weights is None else Path(args.weights)),
        )
        # Babble needs a voice, too.
        self.voice = (
            None if {"speech", "noise"} <= set(self.folders) else corpus.resolve_voice(args.voice)
        )
        self._check_options(args)
        self.speech = (
            corpus.RecordedSpeech(
                self.folders["speech"],
                self.files["speech"],
                self.rate,
                self.frames,
                self.margin,
                args.n,
            )
            if "speech" in self.folders
            else corpus.SyntheticSpeech(
                self.voice, self.seed, self.rate, self.frames, self.margin, args.n or MADE
            )
        )
        self.keys = [f"{i:07d}" for i in range(len(self.speech.segments))]
        self.contents = {
            name: Contents(folder, self.files[name]) for name, folder in self.folders.items()
        }
        self.options: dict[str, Any] = {
            "n": args.n,
            "seed": args.seed,
            "voice": self.voice and corpus.voice_release(self.voice),
            "rate": args.rate,
            "save-segment-length": args.save_segment_length,
            "segment-length": args.segment_length,
            "snr": list(args.snr),
            "reverb": args.reverb,
            "denoiser": args.denoiser,
            "max-delay": args.max_delay,
            "weights": self._weights_contents(),
            **{
                name: str(self.contents[name]) if name in self.folders else None for name in FOLDERS
            },
        }
        self.origin: dict[str, Any] = {name: str(folder) for name, folder in self.folders.items()}
        self.sample = pair_sample(
            self.rate, "wav", "int16", [self.frames], segment=round(args.segment_length * args.rate)
        )
        # Read or made once, by `check`, and taken along to the processes.
        self.noise: corpus.RecordedNoise | corpus.SyntheticNoise | None = None
        self.rooms: dict[str, np.ndarray] = {}
        self.latency = align.UNKNOWN

    def _check_options(self, args: argparse.Namespace) -> None:
        """All errors at once, before any work."""
        errors = []
        self.files = {}
        saved, segment = args.save_segment_length, args.segment_length
        least = 2 if "speech" in self.folders else corpus.TAKES + 1
        for ok, error in (
            (
                args.n is None or args.n >= least,
                f"--n {args.n}: at least {least} pairs, of two recordings: one to train on, one"
                " to validate",
            ),
            (args.seed >= 0, f"--seed {args.seed}: 0 or more"),
            (args.rate in RATES, f"--rate {args.rate}: {RATES[0]} or {RATES[1]}"),
            (0.1 <= segment <= 60, f"--segment-length {segment:g}: from 0.1 to 60 seconds"),
            (saved <= 600, f"--save-segment-length {saved:g}: at most 600 seconds"),
            (
                saved >= segment,
                f"--save-segment-length {saved:g} is shorter than --segment-length {segment:g},"
                " which is cut out of it",
            ),
            (
                0 < args.max_delay < segment / 2,
                f"--max-delay {args.max_delay:g}: more than 0, less than half of"
                f" --segment-length {segment:g}",
            ),
            (
                SNR_DB[0] <= self.snr[0] <= self.snr[1] <= SNR_DB[1],
                f"--snr {self.snr[0]:g} {self.snr[1]:g}: the lower first, from {SNR_DB[0]:g} to"
                f" {SNR_DB[1]:g} dB",
            ),
            (0 <= args.reverb <= 1, f"--reverb {args.reverb:g}: from 0 to 1"),
            (args.reverb > 0 or "rirs" not in self.folders, "--rirs is of no use with --reverb 0"),
            (
                args.voice is None or self.voice is not None,
                "--voice is for made speech and babble, not with --speech and --noise",
            ),
            (
                self.voice != "espeak" or speech.espeak_path(),
                "--voice espeak: espeak-ng is not installed; --voice formant needs nothing",
            ),
        ):
            if not ok:
                errors.append(error)
        for name, folder in self.folders.items():
            self.files[name] = find_files(folder, SOUNDS)[0]
            if not self.files[name]:
                errors.append(
                    f"--{name} {folder}:"
                    f" {'holds no sound files' if folder.is_dir() else 'no such folder'}"
                )
        try:
            _ = self._denoise
        except ConfigError as error:
            errors.append(str(error))
        if errors:
            raise ConfigError("\n".join(errors))

    @cached_property
    def _denoise(self) -> denoise.Denoiser:
        return denoise.load(self.denoiser, self.rate, self.weights)

    def __getstate__(self) -> dict[str, Any]:
        return {
            name: value for name, value in self.__dict__.items() if name != "_denoise"
        }  # each process loads its own

    def _weights_contents(self) -> str | None:
        if self.weights is None:
            return None
        if self.weights.is_dir():
            return str(
                Contents(self.weights, find_files(self.weights, (".ini", ".ckpt", ".best"))[0])
            )
        return str(Contents(self.weights.parent, [self.weights.name]))

    def check(self, workers: int) -> SourceReport:
        """Read or make noise and rooms, listen to every stretch of recorded speech, and measure the
        denoiser's latency.
        """
        self.rooms = (
            corpus.recorded_rooms(self.folders["rirs"], self.files["rirs"], self.rate)
            if "rirs" in self.folders
            else corpus.synthetic_rooms(self.seed, self.rate)
        )
        self.noise = (
            corpus.RecordedNoise(self.folders["noise"], self.files["noise"], self.rate)
            if "noise" in self.folders
            else corpus.SyntheticNoise(self.voice, self.seed, self.rate)
        )
        check = SourceReport(notes=list(self.speech.notes))
        if (
            "speech" not in self.folders
            and self.voice == "espeak"
            and self.rate > 2 * corpus.ESPEAK_TOP_HZ
        ):
            check.notes.append(
                f"espeak-ng's speech ends at {corpus.ESPEAK_TOP_HZ} Hz; above it there is noise"
                " alone"
            )
        if "speech" in self.folders:
            with console.bar("checking", len(self.keys), "stretches of speech") as bar:
                for i, (reason, usable) in enumerate(
                    ordered_map(self._inspect, range(len(self.keys)), workers)
                ):
                    if reason:
                        recording, first = self.speech.segments[i]
                        check.issues.append(
                            SampleIssue(
                                i, f"{shown(recording)} at {first / self.rate:g} s", reason, usable
                            )
                        )
                    bar.advance()
        poor = {finding.sample for finding in check.issues}
        fit = [i for i in range(len(self.keys)) if i not in poor]
        if fit:
            check.notes.append(
                self._measure_latency(
                    [fit[k * len(fit) // POOL] for k in range(POOL)] if len(fit) > POOL else fit,
                    workers,
                )
            )
        return check

    def _inspect(self, i: int) -> tuple[str, bool]:
        try:
            clean = self.speech.take(i)
        except DataError as error:
            return str(error), False
        if not np.isfinite(clean).all():
            return "has values that are not finite", False
        return (
            "silent"
            if np.abs(clean[self.margin : self.margin + self.frames]).max() < SILENT_PEAK
            else ""
        ), True

    def _measure_latency(self, numbers: list[int], workers: int) -> str:
        """Pool the delay over these samples; returns the sentence about it."""
        pairs = []
        with console.bar("measuring the denoiser's latency", len(numbers), "pairs") as bar:
            for some in ordered_map(
                self._denoised_pairs,
                [numbers[k : k + BATCH] for k in range(0, len(numbers), BATCH)],
                workers,
            ):
                pairs += some
                bar.advance(len(some))
        own = [align.estimate(clean, denoised, self.margin) for clean, denoised in pairs]
        self.latency = align.pooled(pairs, self.margin)
        if self.latency.correlation < align.MISMATCH:
            raise DataError(
                f"what the denoiser {self.denoiser} gives hardly correlates with the clean speech:"
                f" {self.latency.correlation:.2f} over {len(pairs)} pairs, below"
                f" {align.MISMATCH:g}; nothing was written. Look at --weights and --rate, or raise"
                " --snr"
            )
        agree, drift = (
            sum(not self._disagrees(delay) for delay in own),
            sum(abs(delay.drift) > DRIFT_SAMPLES for delay in own),
        )
        self.sample |= {
            "latency": {
                "samples": correction(self.latency),
                "polarity": self.latency.polarity,
                "pairs": len(pairs),
                "agree": agree,
            }
        }
        return (
            f"the denoiser {self.denoiser} is late by {correction(self.latency):g} samples,"
            f" polarity {self.latency.polarity:+d}, correlation {self.latency.correlation:.2f},"
            f" pooled over {len(pairs)} pairs: {agree} agree within 1 sample, {drift} drift by more"
            " than 1"
        )

    def _denoised_pairs(self, numbers: list[int]) -> list[tuple[np.ndarray, np.ndarray]]:
        samples = [self._degraded(i) for i in numbers]
        return [
            (sample.mixture.clean, denoised)
            for sample, denoised in zip(samples, self._denoised(samples), strict=True)
        ]

    def _disagrees(self, own: align.Delay) -> bool:
        return abs(own.samples - self.latency.samples) > 1 or own.polarity != self.latency.polarity

    def group(self, i: int) -> str:
        """The recording; of copies under several names, the first."""
        recording = self.speech.segments[i][0]
        return shown(
            self.contents["speech"].first(recording) if "speech" in self.contents else recording
        )

    def make(self, i: int) -> dict[str, Any]:
        return self.make_batch([i])[0]

    def make_batch(self, numbers: list[int]) -> list[dict[str, Any]]:
        """The samples of these numbers, denoised together."""
        samples = [self._degraded(i) for i in numbers]
        return [
            self._pair(i, sample, denoised)
            for i, sample, denoised in zip(numbers, samples, self._denoised(samples), strict=True)
        ]

    def _degraded(self, i: int) -> Degraded:
        rng = numpy_generator(self.seed, "timbre", i)
        snr = float(rng.uniform(*self.snr))
        noise_name, noise = self.noise.draw(rng, self.frames + 2 * self.margin)
        rir = (
            list(self.rooms)[rng.integers(len(self.rooms))] if rng.random() < self.reverb else None
        )
        strength = draw_strength(rng)
        mixture = degrade.mix(
            self.speech.take(i), noise, snr, self.rate, None if rir is None else self.rooms[rir]
        )
        about = {
            "group": self.group(i),
            "speech": shown(self.speech.segments[i][0]),
            "start_seconds": (self.speech.segments[i][1] + self.margin) / self.rate,
            "noise": noise_name,
            "rir": rir,
            "snr_db": round(snr, 3),
            "denoiser": self.denoiser,
            "strength": {
                name: round(value, 3) for name, value in asdict(strength).items() if name != "seed"
            },
        }
        return Degraded(mixture, strength, about)

    def _denoised(self, samples: list[Degraded]) -> np.ndarray:
        """float32 [len(samples), frames + 2 margins].

        The denoiser knows the speech in its room: it removes noise, not the room.
        """
        torch.set_num_threads(
            1
            # the bytes must not depend on the number of cores; and there is a process for each of them
        )
        noisy, wanted = (
            torch.from_numpy(np.stack(rows))
            for rows in (
                [s.mixture.noisy for s in samples],
                [s.mixture.noisy - s.mixture.noise for s in samples],
            )
        )
        return self._denoise(noisy, wanted, [s.strength for s in samples]).numpy()

    def _pair(self, i: int, sample: Degraded, denoised: np.ndarray) -> dict[str, Any]:
        """Both members aligned and cut to the same stretch; what is wrong with them is noted."""
        clean, doubts = sample.mixture.clean, []
        if not np.isfinite(denoised).all():
            denoised = np.nan_to_num(denoised, nan=0.0, posinf=0.0, neginf=0.0)
            doubts.append("the denoiser gave values that are not finite")
        own = align.estimate(clean, denoised, self.margin)
        matched = own.correlation >= align.MISMATCH
        by_itself = matched and self._disagrees(own)
        delay = own if by_itself else replace(self.latency, correlation=own.correlation)
        late, inside = correction(delay), slice(self.margin, self.margin + self.frames)
        denoised, clean = align.advance(denoised, late)[inside] * delay.polarity, clean[inside]
        for name, x in (("denoised", denoised), ("clean", clean)):
            if (peak := np.abs(x).max()) < SILENT_PEAK:
                doubts.append(
                    f"{name} speech is silent: peak {20 * math.log10(max(peak, 1e-10)):.0f} dB of"
                    " full scale"
                )
        if not matched:
            doubts.append(
                f"denoised and clean speech hardly correlate: {own.correlation:.2f}, below"
                f" {align.MISMATCH:g}"
            )
        if matched and abs(own.drift) > DRIFT_SAMPLES:
            doubts.append(f"delay drifts by {own.drift:.1f} samples")
        gain = 1 / max(1.0, np.abs(denoised).max(), np.abs(clean).max())
        about = sample.about | {
            "delay_samples": late,
            "delay_of": "pair" if by_itself else "pool",
            "polarity": delay.polarity,
            "correlation": round(own.correlation, 3),
            "gain": round(sample.mixture.gain * float(gain), 4),
        }
        if doubts:
            about["doubt"] = "; ".join(doubts)
        return {
            "__key__": self.keys[i],
            "input.wav": audio_codec.write_wav(audio_codec.to_int16(denoised * gain), self.rate),
            "target.wav": audio_codec.write_wav(audio_codec.to_int16(clean * gain), self.rate),
            "json": json.dumps(about).encode(),
        }
