"""How exactly shards/sound/align.py finds the delay of degraded and denoised speech: `python -m
bench.alignment [REPEATS]`, 360 pairs each.

Clips of 2.5 to 4 s at 16 kHz, a part of speech that goes on at both ends -> room -> noise ->
denoiser -> a fractional delay within ±2,000 samples, half of them inverted; searched within ±2,400.
Every combination of denoiser, noise, SNR, room and polarity occurs REPEATS times. All rows but the
last three are of no and moderate reverberation. Speech: half from the synthesiser, half from
espeak-ng where it is installed.
"""

import itertools
import os
import sys
import time
from dataclasses import dataclass

import numpy as np
import torch

from distgan.core.console import bar
from distgan.core.rng import numpy_generator
from distgan.shards.audio import align, degrade, denoise, speech
from distgan.shards.audio.strength import draw_strength

RATE, REACH, SEARCH = 16000, 2000, 2400
SECONDS = (2.5, 4.0)
DENOISERS = ("none", "erb", "wiener")
SNRS = (-5, 0, 5, 10, 20)
# T60 in s and direct-to-reverberant ratio in dB.
ROOMS = {"no": None, "moderate": ((0.15, 0.5), (0, 9)), "heavy": ((0.5, 1.0), (-12, -3))}
VOICES = 12  # utterances of each kind that clips are cut from
FAILURE = 20  # samples: further away, another peak was taken


@dataclass(frozen=True)
class Case:
    denoiser: str
    noise: str
    snr_db: int
    room: str
    polarity: int


@dataclass(frozen=True)
class Outcome:
    case: Case
    error: float  # samples
    delay: align.Delay
    cpu_ms: float


def cases() -> list[Case]:
    return [
        Case(*values)
        for values in itertools.product(DENOISERS, degrade.NOISES, SNRS, ROOMS, (1, -1))
    ]


def corpus() -> list[np.ndarray]:
    """Utterances longer than any clip."""
    voices = [
        speech.utterance(numpy_generator(i, "bench/synthesiser"), RATE, SECONDS[1] + 1, i)
        for i in range(VOICES)
    ]
    if speech.espeak_path():
        voices += [
            speech.espeak_utterance(numpy_generator(i, "bench/espeak"), RATE, SECONDS[1] + 1, i)
            for i in range(VOICES)
        ]
    return voices


def pair(
    case: Case, rng: np.random.Generator, voices: list[np.ndarray]
) -> tuple[np.ndarray, np.ndarray, float]:
    """(clean clip, what became of it, delay in samples)."""
    n = round(rng.uniform(*SECONDS) * RATE)
    voice = voices[rng.integers(len(voices))]
    start = rng.integers(len(voice) - n)
    t60, drr = ROOMS[case.room] or ((0, 0), (0, 0))
    response = (
        degrade.room(rng, RATE, rng.uniform(*t60), rng.uniform(*drr)) if ROOMS[case.room] else None
    )
    noise = degrade.noise(case.noise, rng, n, RATE, voices)
    mixture = degrade.mix(voice[start : start + n], noise, case.snr_db, RATE, response)
    noisy = mixture.noisy
    if case.denoiser != "none":
        rows = (torch.from_numpy(x)[None] for x in (mixture.noisy, mixture.clean))
        noisy = denoise.load(case.denoiser, RATE)(*rows, [draw_strength(rng)])[0].numpy()
    delay = rng.uniform(-REACH, REACH)
    return mixture.clean, case.polarity * align.advance(noisy, -delay), delay


def measure(some: list[Case], repeats: int, voices: list[np.ndarray]) -> list[Outcome]:
    outcomes = []
    with bar("alignment", len(some) * repeats, "pairs") as progress:
        for i, case in enumerate(some * repeats):
            clean, observed, truth = pair(case, numpy_generator(i, "bench/pair"), voices)
            began = time.process_time()
            found = align.estimate(clean, observed, SEARCH)
            outcomes.append(
                Outcome(case, found.samples - truth, found, (time.process_time() - began) * 1e3)
            )
            progress.advance()
    return outcomes


def mismatched(n: int, voices: list[np.ndarray]) -> list[float]:
    """Correlations of pairs whose members are of different utterances."""
    found = []
    for i in range(n):
        rng = numpy_generator(i, "bench/mismatched")
        one, other = rng.choice(len(voices), 2, replace=False)
        case = Case("none", "pink", 10, "no", 1)
        clean, observed = pair(case, rng, [voices[one]])[0], pair(case, rng, [voices[other]])[1]
        found.append(align.estimate(clean, observed, SEARCH).correlation)
    return found


def row(label: str, some: list[Outcome]) -> str:
    errors = np.abs([outcome.error for outcome in some])
    percent = [
        100 * float(np.mean(values))
        for values in (
            errors > FAILURE,
            errors <= 1,
            errors <= 0.05,
            [o.delay.polarity == o.case.polarity for o in some],
            [o.delay.agrees for o in some],
            [o.delay.correlation < align.MISMATCH for o in some],
            [abs(o.delay.drift) > 1 for o in some],
        )
    ]
    middle, high = np.quantile(errors, [0.5, 0.95])
    return (
        " | ".join(
            [
                f"| {label}",
                str(len(some)),
                *(f"{p:.1f}" for p in percent[:3]),
                f"{middle:.4f}",
                f"{high:.4f}",
                *(f"{p:.1f}" for p in percent[3:]),
            ]
        )
        + " |"
    )


def main(repeats: int = 4) -> None:
    torch.set_num_threads(1)
    voices = corpus()
    print(
        (
            "espeak-ng and the synthesiser"
            if speech.espeak_path()
            else "the synthesiser alone (espeak-ng is not installed)"
        ),
        flush=True,
    )
    outcomes = measure(cases(), repeats, voices)
    heads = (
        "pairs",
        "n",
        "> 20 samples %",
        "<= 1 %",
        "<= 0.05 %",
        "median error",
        "95th percentile",
        "polarity right %",
        "plain correlation agrees %",
        "reported as mismatch %",
        "reported as drift %",
    )
    print("| " + " | ".join(heads) + " |\n|" + "---|" * len(heads))
    usual = [outcome for outcome in outcomes if outcome.case.room != "heavy"]
    for denoiser, noise in itertools.product(DENOISERS, degrade.NOISES):
        print(
            row(
                f"{denoiser}, {noise}",
                [o for o in usual if (o.case.denoiser, o.case.noise) == (denoiser, noise)],
            )
        )
    for snr_db in SNRS:
        print(row(f"{snr_db} dB", [o for o in usual if o.case.snr_db == snr_db]))
    for polarity, label in ((1, "as it was"), (-1, "inverted")):
        print(row(label, [o for o in usual if o.case.polarity == polarity]))
    print(row("**all of these**", usual))
    for room in ROOMS:
        print(row(f"{room} reverberation", [o for o in outcomes if o.case.room == room]))
    other = mismatched(len(outcomes) // 4, voices)
    print(
        f"\n{len(other)} mismatched pairs: {100 * np.mean(np.array(other) < align.MISMATCH):.1f} %"
        f" reported; largest correlation {max(other):.3f}, smallest of the matched"
        f" {min(o.delay.correlation for o in outcomes):.3f}"
    )
    print(
        f"{np.median([o.cpu_ms for o in outcomes]):.1f} ms of CPU per pair, median,"
        f" {os.cpu_count()} cores"
    )


if __name__ == "__main__":
    main(*(int(text) for text in sys.argv[1:]))
