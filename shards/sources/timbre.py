"""Speech that a denoiser has damaged, and the original clean speech: clean -> room -> noise ->
denoiser -> aligned pair.

Each sample is one segment of speech, in a room (for a share of the samples), with noise at a random
ratio, denoised with a random strength. Everything without a folder is synthetic: speech by
espeak-ng if it is installed, else by a formant synthesiser; white, pink and babble noise; Polack's
impulse responses. The denoiser is the published DeepFilterNet3 where the package that carries it is
installed; elsewhere erb, which needs no weights: it does the kind of damage DeepFilterNet does, and
is not equivalent to it. dataset.json says which, and a set is made with one. Gain, polarity and
cropping are augmentation, and belong to training.

The denoiser's delay is pooled over up to 64 pairs before anything is written, because its latency
is constant. A pair whose own delay or polarity disagrees is corrected by its own. A margin of
--max-delay is read on both sides and cut off afterwards, so both members are the same segment of
sound, complete: nothing is padded or wrapped around. All segments of a recording are one group.
Sample i depends on the options and i alone.

A sample is `key.input.wav` (denoised) and `key.target.wav` (clean), 16 bits, and `key.json`:
speech, noise, rir, snr_db, denoiser, strength (null of DeepFilterNet3, which has none),
delay_samples, polarity, correlation; "doubt" if the pair may be unusable.
"""

import json
import math
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from distgan.core import console
from distgan.core.arguments import Arguments
from distgan.core.errors import ConfigError, DataError
from distgan.core.file_tree import Contents, find_files, shown
from distgan.core.rng import numpy_generator
from distgan.core.worker_pool import map_with_progress, ordered_map
from distgan.shards.audio import align, corpus, deepfilter3, degrade, denoise, timbre_options
from distgan.shards.audio.pairs import SILENT_PEAK, SOUNDS, correction, pair_sample
from distgan.shards.audio.strength import Strength, draw_strength
from distgan.shards.codecs import audio as audio_codec
from distgan.shards.sources._base import SampleIssue, SourceReport

EXAMPLES = [
    ("400 pairs of 4 s from synthetic speech, noise and rooms", "distgan shard timbre OUT"),
    (
        "from recordings, by DeepFilterNet3 at its own 48 kHz",
        "distgan shard timbre OUT --speech clean --noise noise --rirs rooms --rate 48000"
        " --denoiser deepfilternet",
    ),
]
RECIPE = "timbre"
KEPT = ("denoiser",)

FOLDERS = timbre_options.FOLDERS
SYNTHETIC_PAIRS = 400
POOL = 64
BATCH = 16
DRIFT_SAMPLES = 1.0


OPTIONS = timbre_options.OPTIONS


@dataclass(frozen=True)
class Degraded:
    """One sample before the denoiser; arrays float32 [frames + 2 margins]."""

    mixture: degrade.Mixture
    strength: Strength
    record: dict[str, Any]


def _recorded(strength: Strength) -> dict[str, float]:
    return {name: round(value, 3) for name, value in asdict(strength).items() if name != "seed"}


class Source:
    def __init__(self, args: Arguments):
        self.folders = {
            name: Path(getattr(args, name)) for name in FOLDERS if getattr(args, name) is not None
        }
        self.rate, self.seed, self.snr, self.reverb = args.rate, args.seed, args.snr, args.reverb
        self.frames = round(args.save_segment_length * args.rate)
        self.margin = round(args.max_delay * args.rate)
        self.weights = None if args.weights is None else Path(args.weights)
        self.denoiser = args.denoiser or denoise.default(self.weights)
        # babble needs a voice, too
        needs_voice = not {"speech", "noise"} <= set(self.folders)
        self.voice = corpus.resolve_voice(args.voice) if needs_voice else None
        self.files: dict[str, list[str]] = {}
        self._check_options(args)
        self.speech = self._open_speech(args.n)
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
            "denoiser": self.denoiser,
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
        # read or made once, by `check`, and pickled to the processes
        self.noise: Any = None
        self.rooms: dict[str, np.ndarray] = {}
        self.latency = align.UNKNOWN

    def _check_options(self, args: Arguments) -> None:
        """Find the files and load the denoiser; raise ConfigError with all errors at once."""
        errors = timbre_options.option_errors(args, self.folders, self.voice)
        for name, folder in self.folders.items():
            self.files[name] = find_files(folder, SOUNDS)[0]
            if not self.files[name]:
                problem = "has no sound files" if folder.is_dir() else "no such folder"
                errors.append(f"--{name} {folder}: {problem}")
        try:
            _ = self._denoise
        except ConfigError as error:
            errors.append(str(error))
        if errors:
            raise ConfigError("\n".join(errors))

    def _open_speech(self, n: int | None) -> corpus.RecordedSpeech | corpus.SyntheticSpeech:
        if "speech" not in self.folders:
            return corpus.SyntheticSpeech(
                str(self.voice),
                self.seed,
                self.rate,
                self.frames,
                self.margin,
                n or SYNTHETIC_PAIRS,
            )
        return corpus.RecordedSpeech(
            self.folders["speech"], self.files["speech"], self.rate, self.frames, self.margin, n
        )

    @cached_property
    def _denoise(self) -> denoise.Denoiser:
        return denoise.load(self.denoiser, self.rate, self.weights)

    def __getstate__(self) -> dict[str, Any]:
        # each process loads its own denoiser
        return {name: value for name, value in self.__dict__.items() if name != "_denoise"}

    @property
    def _is_published(self) -> bool:
        return self.denoiser == "deepfilternet" and self.weights is None

    def _weights_contents(self) -> str | None:
        if self.weights is None:
            return deepfilter3.release() if self._is_published else None
        if self.weights.is_dir():
            files = find_files(self.weights, (".ini", ".ckpt", ".best"))[0]
            return str(Contents(self.weights, files))
        return str(Contents(self.weights.parent, [self.weights.name]))

    def check(self, workers: int) -> SourceReport:
        """Load noise and rooms, examine recorded speech, and measure the denoiser's latency."""
        if "rirs" in self.folders:
            self.rooms = corpus.recorded_rooms(self.folders["rirs"], self.files["rirs"], self.rate)
        else:
            self.rooms = corpus.synthetic_rooms(self.seed, self.rate)
        if "noise" in self.folders:
            self.noise = corpus.RecordedNoise(self.folders["noise"], self.files["noise"], self.rate)
        else:
            self.noise = corpus.SyntheticNoise(str(self.voice), self.seed, self.rate)
        report = SourceReport(notes=list(self.speech.notes))
        synthetic = "speech" not in self.folders
        if synthetic and self.voice == "espeak" and self.rate > 2 * corpus.ESPEAK_TOP_HZ:
            report.notes.append(
                f"espeak-ng's speech ends at {corpus.ESPEAK_TOP_HZ} Hz; above it is only noise"
            )
        if not synthetic:
            self._inspect_speech(report, workers)
        poor = {issue.sample for issue in report.issues}
        good = [i for i in range(len(self.keys)) if i not in poor]
        if len(good) > POOL:
            good = [good[k * len(good) // POOL] for k in range(POOL)]
        if good:
            report.notes.append(self._measure_latency(good, workers))
        return report

    def _inspect_speech(self, report: SourceReport, workers: int) -> None:
        numbers = range(len(self.keys))
        results = map_with_progress("checking", self._inspect, numbers, workers, "segments")
        for i, (reason, usable) in enumerate(results):
            if reason:
                recording, first = self.speech.segments[i]
                name = f"{shown(recording)} at {first / self.rate:g} s"
                report.issues.append(SampleIssue(i, name, reason, usable))

    def _inspect(self, i: int) -> tuple[str, bool]:
        """Return (error or quality issue, usable) of a segment of recorded speech."""
        try:
            clean = self.speech.take(i)
        except DataError as error:
            return str(error), False
        if not np.isfinite(clean).all():
            return "has values that are not finite", False
        peak = np.abs(clean[self.margin : self.margin + self.frames]).max()
        return "silent" if peak < SILENT_PEAK else "", True

    def _measure_latency(self, numbers: list[int], workers: int) -> str:
        """Pool the delay over these samples; return a note about it."""
        pairs: list[tuple[np.ndarray, np.ndarray]] = []
        batches = [numbers[k : k + BATCH] for k in range(0, len(numbers), BATCH)]
        with console.bar("measuring the denoiser's latency", len(numbers), "pairs") as bar:
            for batch in ordered_map(self._denoised_pairs, batches, workers):
                pairs += batch
                bar.advance(len(batch))
        delays = [align.estimate(clean, denoised, self.margin) for clean, denoised in pairs]
        self.latency = align.pooled(pairs, self.margin)
        if self.latency.correlation < align.MISMATCH:
            raise DataError(
                f"the output of the denoiser {self.denoiser} does not correlate with the clean"
                f" speech: {self.latency.correlation:.2f} over {len(pairs)} pairs, below"
                f" {align.MISMATCH:g}; nothing was written. Check --weights and --rate, or raise"
                " --snr"
            )
        agree = sum(not self._disagrees(delay) for delay in delays)
        drift = sum(abs(delay.drift) > DRIFT_SAMPLES for delay in delays)
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
        """Return the recording; the first of copies under several names."""
        recording = self.speech.segments[i][0]
        if "speech" in self.contents:
            recording = self.contents["speech"].first(recording)
        return shown(recording)

    def make(self, i: int) -> dict[str, Any]:
        return self.make_batch([i])[0]

    def make_batch(self, numbers: list[int]) -> list[dict[str, Any]]:
        """Make these samples, denoised together."""
        samples = [self._degraded(i) for i in numbers]
        return [
            self._pair(i, sample, denoised)
            for i, sample, denoised in zip(numbers, samples, self._denoised(samples), strict=True)
        ]

    def _degraded(self, i: int) -> Degraded:
        rng = numpy_generator(self.seed, "timbre", i)
        snr = float(rng.uniform(*self.snr))
        noise_name, noise = self.noise.draw(rng, self.frames + 2 * self.margin)
        rir = None
        if rng.random() < self.reverb:
            rir = list(self.rooms)[rng.integers(len(self.rooms))]
        strength = draw_strength(rng)
        room = None if rir is None else self.rooms[rir]
        mixture = degrade.mix(self.speech.take(i), noise, snr, self.rate, room)
        recording, first = self.speech.segments[i]
        record = {
            "group": self.group(i),
            "speech": shown(recording),
            "start_seconds": (first + self.margin) / self.rate,
            "noise": noise_name,
            "rir": rir,
            "snr_db": round(snr, 3),
            "denoiser": self.denoiser,
            "strength": None if self._is_published else _recorded(strength),
        }
        return Degraded(mixture, strength, record)

    def _denoised(self, samples: list[Degraded]) -> np.ndarray:
        """Denoise the mixtures: float32 [len(samples), frames + 2 margins].

        The denoiser gets the speech in its room as clean: it removes noise, not the room.
        """
        # the bytes must not depend on the number of cores; and each core has its own process
        torch.set_num_threads(1)
        noisy = torch.from_numpy(np.stack([s.mixture.noisy for s in samples]))
        clean = torch.from_numpy(np.stack([s.mixture.noisy - s.mixture.noise for s in samples]))
        return self._denoise(noisy, clean, [s.strength for s in samples]).numpy()

    def _pair(self, i: int, sample: Degraded, denoised: np.ndarray) -> dict[str, Any]:
        """Align both members, cut them to the same segment, and record doubts about them."""
        clean, doubts = sample.mixture.clean, []
        if not np.isfinite(denoised).all():
            denoised = np.nan_to_num(denoised, nan=0.0, posinf=0.0, neginf=0.0)
            doubts.append("the denoiser gave values that are not finite")
        own = align.estimate(clean, denoised, self.margin)
        matched = own.correlation >= align.MISMATCH
        uses_own = matched and self._disagrees(own)
        delay = own if uses_own else replace(self.latency, correlation=own.correlation)
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
        record = sample.record | {
            "delay_samples": late,
            "delay_of": "pair" if uses_own else "pool",
            "polarity": delay.polarity,
            "correlation": round(own.correlation, 3),
            "gain": round(sample.mixture.gain * float(gain), 4),
        }
        if doubts:
            record["doubt"] = "; ".join(doubts)
        return {
            "__key__": self.keys[i],
            "input.wav": audio_codec.write_wav(audio_codec.to_int16(denoised * gain), self.rate),
            "target.wav": audio_codec.write_wav(audio_codec.to_int16(clean * gain), self.rate),
            "json": json.dumps(record).encode(),
        }
