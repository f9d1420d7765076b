"""Pairs of detector pulses, digitised ones and those of an ideal chain: generated, or from arrays
or files of your own.

The generator is a gamma-ray detector in front of radioactive sources. One sample is 10 ns; values
are in units of the ADC's full scale.

- photons: lines of Ba-133, Cs-137 and Co-60; each leaves all of its energy in the crystal, or the
  recoil energy of one Compton scattering, whose angle follows Klein and Nishina; energy resolution
  4.7 % FWHM at 662 keV, proportional to the square root of the energy
- arrivals: Poisson, 300,000 per second, so pulses pile up; a record has at least one whose target
  peaks inside it, as after a trigger
- input: charge preamplifier (rise 30 ns, decay 1.8 us) with AC coupling (36 us), hence undershoot
  and a baseline that sags with the rate; series (white), 1/f and parallel (1/f^2) noise, pickup of
  0.2 to 1 MHz, an offset; an ADC of 12 bits that clips
- target: for each photon a semi-Gaussian pulse CR-RC^4 of 60 ns whose height is the energy; no
  noise, no tail

Source of the formulas: Knoll, "Radiation Detection and Measurement", chapters 2, 16 and 17. Record
i depends on the seed and i alone.

`--from` takes an .npz with the arrays `input` and `target` [n, length] (and `group` [n]: rows of
one group stay on one side of the split), or a folder with .npy arrays or sound files of the same
names in input/ and target/. Their values are written as float32, not scaled.

A sample is `key.input.wav`, `key.target.wav`, float32, and `key.json`: the photons (arrival in
samples, energy in keV) or the file's name.
"""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from distgan.core.arguments import Arguments, Option, number, whole
from distgan.core.errors import DataError
from distgan.core.rng import numpy_generator
from distgan.core.worker_pool import map_with_progress
from distgan.shards.audio.pairs import ARRAYS, SOUNDS, ArrayPairs, FilePairs, pair_sample
from distgan.shards.codecs import audio as audio_codec
from distgan.shards.sources._base import SampleIssue, SourceReport

EXAMPLES = [
    ("2000 generated records of 1024 samples", "distgan shard waveform OUT"),
    (
        "records with much noise, as used in docs/waveform.md",
        "distgan shard waveform OUT --n 440 --length 256 --noise 12",
    ),
    (
        "arrays of your own, sampled at 1 MHz",
        "distgan shard waveform OUT --from pairs.npz --rate 1000000",
    ),
]
RECIPE = "waveform"

LENGTHS = (128, 1 << 20)
RATES = (1, 1 << 29)  # a WAV header has 32 bits for the bytes per second
NOISES = (0, 100)
RATE_HZ = 100_000_000

# Ba-133, Cs-137, Co-60 (two lines): share of each
LINES_KEV = {356.0: 0.3, 661.7: 0.4, 1173.2: 0.15, 1332.5: 0.15}
ELECTRON_KEV = 510.999
FULL_ENERGY_SHARE = 0.45
RESOLUTION = 0.02  # standard deviation at 662 keV, relative
THRESHOLD_KEV = 5.0
FULL_SCALE_KEV = 2500.0

# Times in samples.
PHOTONS_PER_SAMPLE = 3e-3
RISE, DECAY, COUPLING = 3.0, 180.0, 3600.0
HISTORY = 3 * COUPLING  # earlier pulses have decayed to 5 % of an undershoot of 5 %
SHAPING, ORDER = 6.0, 4
PEAKING = ORDER * SHAPING
_PREAMPLIFIER_PEAK = (RISE / DECAY) ** (RISE / (DECAY - RISE)) * (1 - RISE / DECAY)

# In units of full scale.
NOISE = 0.01  # standard deviation of the white noise
PINK, BROWN, PICKUP = 0.7, 0.5, 0.5  # relative to it
OFFSET = 0.03
ADC_RANGE, ADC_BITS = (-0.25, 1.0), 12


OPTIONS = (
    whole("n", "generated records, training and validation together (default: 2000)", 2),
    whole("length", "samples in a generated record (default: 1024)", *LENGTHS),
    number("noise", "times as much noise and pickup in generated records (default: 1)", *NOISES),
    whole("seed", "another seed gives other records (default: 0)", 0),
    Option(
        "from",
        "pairs of your own: an .npz, or a folder with input/ and target/",
        "PATH",
        dest="pairs",
    ),
    whole(
        "rate",
        "samples per second, for the header of those pairs; nothing is resampled (default: that of"
        f" the files; {RATE_HZ} for arrays, which name none)",
        *RATES,
        metavar="HZ",
    ),
)


def check_options(args: Arguments) -> Iterator[str]:
    """Yield the errors of options that do not fit together."""
    if args.pairs is None:
        if args.rate is not None:
            yield "--rate is for pairs of your own, given by --from"
        return
    for name in ("n", "length", "noise", "seed"):
        if getattr(args, name) is not None:
            yield f"--{name} is for generated records, not for those of --from"
    if not Path(args.pairs).exists():
        yield f"--from {args.pairs}: no such file or folder"


class Source:
    def __init__(self, args: Arguments):
        self.origin: dict[str, Any] = {"from": args.pairs} if args.pairs else {}
        self.pairs: FilePairs | ArrayPairs | None = None  # those of --from
        if args.pairs is None:
            self.n, self.length, self.seed = args.n or 2000, args.length or 1024, args.seed or 0
            self.noise = 1.0 if args.noise is None else args.noise
            self.options: dict[str, Any] = {"n": self.n, "length": self.length, "seed": self.seed}
            if self.noise != 1:
                self.options["noise"] = self.noise
            self.keys, self.rate = [f"{i:07d}" for i in range(self.n)], RATE_HZ
        else:
            path = Path(args.pairs)
            if path.is_dir():
                self.pairs = FilePairs.in_one_folder(path, (*ARRAYS, *SOUNDS))
            else:
                self.pairs = ArrayPairs(path)
            self.keys, self.rate = self.pairs.keys, args.rate or self.pairs.one_rate() or RATE_HZ
            self.options = {"from": self.pairs.contents(), "rate": self.rate}
        self.sample: dict[str, Any] = {}

    def check(self, workers: int) -> SourceReport:
        """Read every pair of --from; generated records are valid by construction."""
        if self.pairs is None:
            self.sample = pair_sample(self.rate, "wav", "float32", [self.length])
            return SourceReport()
        report = SourceReport(
            notes=[*self.pairs.notes, "values are written as float32, not scaled"]
        )
        lengths = []
        numbers = range(len(self.keys))
        results = map_with_progress("checking", self._inspect, numbers, workers, "pairs")
        for i, (length, error, quality_issue) in enumerate(results):
            if problem := error or quality_issue:
                issue = SampleIssue(i, self.pairs.names[i], problem, usable=not error)
                report.issues.append(issue)
            if not error:
                lengths.append(length)
        self.sample = pair_sample(self.rate, "wav", "float32", lengths)
        return report

    def _inspect(self, i: int) -> tuple[int, str, str]:
        """Return (length, error, quality issue) of a pair of --from."""
        assert self.pairs is not None
        try:
            source, target = self.pairs.load(i)
        except DataError as error:
            return 0, str(error), ""
        length = len(source)
        if length != len(target):
            return length, f"input has {length} samples, target {len(target)}", ""
        if not length:
            return 0, "empty", ""
        if not (np.isfinite(source).all() and np.isfinite(target).all()):
            return length, "has values that are not finite as float32", ""
        constant = [name for name, x in (("input", source), ("target", target)) if np.ptp(x) == 0]
        return length, "", ", ".join(f"{name} is constant" for name in constant)

    def group(self, i: int) -> str:
        return self.keys[i] if self.pairs is None else self.pairs.groups[i]

    def make(self, i: int) -> dict[str, Any]:
        if self.pairs is None:
            source, target, photons = record(
                numpy_generator(self.seed, "waveform", i), self.length, self.noise
            )
            entry: dict[str, Any] = {
                "group": self.group(i),
                "arrival_samples": [round(t, 3) for t, _ in photons],
                "energy_kev": [round(energy, 2) for _, energy in photons],
                "full_scale_kev": FULL_SCALE_KEV,
            }
        else:
            source, target = self.pairs.load(i)
            entry = {"group": self.group(i), "name": self.pairs.names[i]}
        return {
            "__key__": self.keys[i],
            "input.wav": audio_codec.write_wav(source, self.rate),
            "target.wav": audio_codec.write_wav(target, self.rate),
            "json": json.dumps(entry).encode(),
        }


def record(
    rng: np.random.Generator, length: int, noise: float = 1.0
) -> tuple[np.ndarray, np.ndarray, list[tuple[float, float]]]:
    """Generate (input, target, photons): float32 [length] in units of full scale.

    Photons are (arrival in samples, energy in keV) of those that peak inside; `noise` is a factor
    on the noise and pickup of the electronics.
    """
    arrivals = np.empty(0)
    while not np.any((arrivals >= 0) & (arrivals < length - PEAKING)):
        arrivals = np.sort(
            rng.uniform(-HISTORY, length, rng.poisson(PHOTONS_PER_SAMPLE * (HISTORY + length)))
        )
    energies = np.array([deposit(rng) for _ in arrivals])
    since = np.arange(length) - arrivals[:, None]
    recent = arrivals > -10 * PEAKING  # the target of an earlier one is below 1e-11
    heights = energies[:, None] / FULL_SCALE_KEV
    # no matrix product: its last bits depend on the BLAS library
    target = (heights[recent] * shaped(since[recent])).sum(0)
    observed = digitised((heights * preamplified(since)).sum(0) + electronics(rng, length, noise))
    inside = [
        (float(t), float(energy))
        for t, energy in zip(arrivals, energies, strict=True)
        if 0 <= t + PEAKING < length
    ]
    return observed.astype(np.float32), target.astype(np.float32), inside


def deposit(rng: np.random.Generator) -> float:
    """Draw the energy in keV that one photon leaves in the crystal, as measured."""
    photon = float(rng.choice(list(LINES_KEV), p=list(LINES_KEV.values())))
    energy = photon if rng.random() < FULL_ENERGY_SHARE else compton(rng, photon)
    return max(energy + RESOLUTION * math.sqrt(662 * energy) * rng.standard_normal(), THRESHOLD_KEV)


def compton(rng: np.random.Generator, photon: float) -> float:
    """Draw the energy in keV of the electron struck by a photon.

    The angle is drawn by rejection from the cross section of Klein and Nishina.
    """
    while True:
        cosine = rng.uniform(-1, 1)
        # the scattered photon's share of the energy
        scattered = 1 / (1 + photon / ELECTRON_KEV * (1 - cosine))
        # at most 2, forwards
        if 2 * rng.random() < scattered**2 * (scattered + 1 / scattered - (1 - cosine**2)):
            return photon * (1 - scattered)


def preamplified(t: np.ndarray) -> np.ndarray:
    """Return the response at `t` samples after a unit charge, 0 before.

    Its peak is 1 without the AC coupling, which makes its integral zero.
    """
    t = np.maximum(t, 0)
    undershoot = np.exp(-t / COUPLING)
    slow, fast = (
        (COUPLING * np.exp(-t / tau) - tau * undershoot) / (COUPLING - tau) for tau in (DECAY, RISE)
    )
    return (slow - fast) / _PREAMPLIFIER_PEAK


def shaped(t: np.ndarray) -> np.ndarray:
    """Return the CR-RC^4 pulse at `t` samples after its photon, 0 before.

    Its peak is 1, PEAKING samples after the photon.
    """
    x = np.maximum(t, 0) / PEAKING
    return (x * np.exp(1 - x)) ** ORDER


def electronics(rng: np.random.Generator, length: int, strength: float) -> np.ndarray:
    """Draw noise and pickup of `strength`, plus an offset: float64 [length], of full scale.

    The strength varies by a factor of two each way.
    """
    noise = (
        rng.standard_normal(length)
        + PINK * _coloured(rng, length, 0.5)
        + BROWN * _coloured(rng, length, 1.0)
    )
    pickup = PICKUP * np.sin(
        2 * np.pi * (rng.uniform(0.002, 0.01) * np.arange(length) + rng.random())
    )
    return strength * NOISE * math.exp(rng.uniform(-0.7, 0.7)) * (noise + pickup) + rng.uniform(
        -OFFSET, OFFSET
    )


def _coloured(rng: np.random.Generator, length: int, slope: float) -> np.ndarray:
    """Draw noise with amplitude 1 / f^slope and a standard deviation of 1.

    Half of twice the length is returned, so that its ends do not meet.
    """
    spectrum = np.fft.rfft(rng.standard_normal(2 * length))
    spectrum[0] = 0
    spectrum[1:] /= np.arange(1, len(spectrum)) ** slope
    noise = np.fft.irfft(spectrum, 2 * length)
    return noise[:length] / noise.std()


def digitised(values: np.ndarray) -> np.ndarray:
    """Digitise with an ADC of 12 bits: clip to its range, round to its resolution."""
    low, high = ADC_RANGE
    step = (high - low) / 2**ADC_BITS
    return low + step * np.clip(np.rint((values - low) / step), 0, 2**ADC_BITS - 1)
