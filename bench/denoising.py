"""What each embedded denoiser does to speech: `python -m bench.denoising [N]`, N clips of 3 s at 16
kHz for each row, no room.

SI-SDR (Le Roux et al. 2019) of the whole clip. Log-spectral distance and levels over the active
frames of 32 ms, every 8 ms: root mean square over frequency of the difference of log powers,
floored at -80 dB below the clip's largest, then the mean over frames.
"""

import itertools
import sys
import time

import numpy as np
import torch

from bench.alignment import RATE, corpus
from distgan.core.rng import numpy_generator
from distgan.shards.audio import degrade, denoise
from distgan.shards.audio.strength import Strength

CONDITIONS = (("pink", 10), ("pink", 0), ("babble", 5), ("white", 10))
BANDS_HZ = (0, 500, 1000, 2000, 4000, 8000)
FLOOR_DB, ACTIVE_DB = -80, -40
STRENGTHS = {
    "mild": Strength(-12, 0, 1, 0),
    "middle": Strength(-25, 2, 1.25, 0),
    "strong": Strength(-35, 4, 1.5, 0),
}


def si_sdr(x: np.ndarray, reference: np.ndarray) -> float:
    part = (x @ reference) / (reference @ reference) * reference
    return 10 * np.log10(np.sum(part**2) / np.sum((x - part) ** 2))


def power(x: np.ndarray) -> np.ndarray:
    """[frame, frequency]"""
    window = torch.hann_window(512, dtype=torch.float64)
    return (
        torch.stft(torch.from_numpy(x), 512, 128, window=window, return_complex=True)
        .abs()
        .square()
        .T.numpy()
    )


def damage(x: np.ndarray, reference: np.ndarray) -> list[float]:
    """SI-SDR, log-spectral distance, change of level in each band; dB."""
    x, reference = x.astype(np.float64), reference.astype(np.float64)
    one, due = power(x), power(reference)
    loud = due.sum(1) > due.sum(1).max() * 10 ** (ACTIVE_DB / 10)
    log_one, log_due = (
        10 * np.log10(np.maximum(p[loud], due.max() * 10 ** (FLOOR_DB / 10))) for p in (one, due)
    )
    f = np.arange(257) * RATE / 512
    bands = [(f >= low) & (f < high) for low, high in itertools.pairwise(BANDS_HZ)]
    return [
        si_sdr(x, reference),
        float(np.sqrt(np.square(log_one - log_due).mean(1)).mean()),
        *(
            float(10 * np.log10(one[loud][:, band].sum() / due[loud][:, band].sum()))
            for band in bands
        ),
    ]


def main(clips: int = 16) -> None:
    torch.set_num_threads(1)
    voices = corpus()
    print(
        "| noise | denoiser | SI-SDR | LSD | "
        + " | ".join(f"{a / 1000:g}-{b / 1000:g} kHz" for a, b in itertools.pairwise(BANDS_HZ))
        + " | ms per clip |"
    )
    print("|---" * (4 + len(BANDS_HZ)) + "|")
    for kind, snr_db in CONDITIONS:
        mixtures = []
        for i in range(clips):
            rng = numpy_generator(i, "bench/denoising")
            clean = voices[i % len(voices)][: 3 * RATE]
            mixtures.append(
                degrade.mix(clean, degrade.noise(kind, rng, len(clean), RATE, voices), snr_db, RATE)
            )
        noisy, clean = (
            torch.from_numpy(np.stack([getattr(m, name) for m in mixtures]))
            for name in ("noisy", "clean")
        )
        outputs = {"none": (noisy, 0.0)}
        for name, (label, strength) in itertools.product(("erb", "wiener"), STRENGTHS.items()):
            denoiser, began = denoise.load(name, RATE), time.process_time()
            outputs[f"{name}, {label}"] = (
                denoiser(noisy, clean, [strength] * clips),
                (time.process_time() - began) * 1e3 / clips,
            )
        for label, (output, ms) in outputs.items():
            figures = np.mean(
                [damage(x.numpy(), y.numpy()) for x, y in zip(output, clean, strict=True)], axis=0
            )
            print(
                f"| {kind} {snr_db} dB | {label} | "
                + " | ".join(f"{value:.1f}" for value in figures)
                + f" | {ms:.0f} |",
                flush=True,
            )


if __name__ == "__main__":
    main(*(int(text) for text in sys.argv[1:]))
