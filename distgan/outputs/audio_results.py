"""What people see and hear of repaired sound: spectrograms, sound files, a table of measures."""

import dataclasses
import re
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import torch

from distgan.core.files import csv_text, disk_errors, write_atomic
from distgan.data import transforms
from distgan.data.dataset import Data
from distgan.metrics.audio import band_levels, band_names, table
from distgan.outputs import signal_plots as figures
from distgan.shards.codecs import audio as audio_codec


@dataclasses.dataclass(frozen=True)
class Repaired:
    """A held-out pair and what was made of it; sounds are float32 [frames]."""

    key: str
    before: np.ndarray
    after: np.ndarray
    clean: np.ndarray
    measured: dict[
        str, float
        # SI-SDR in dB, say: `si_sdr`; of the input `input_si_sdr`; levels of bands `level 0-500 Hz`,
        # `input_level 0-500 Hz`
    ]

    @property
    def name(self) -> str:
        return file_name(self.key)


def file_name(key: str) -> str:
    """A key as part of a file's name."""
    return re.sub(r"[^A-Za-z0-9_-]+", "_", key)[:80]


def spread(there: int, wanted: int) -> list[int]:
    """`wanted` numbers, or all, spread evenly over range(there)."""
    wanted = min(there, wanted)
    return [k * there // wanted for k in range(wanted)]


@torch.no_grad()
def repaired(
    data: Data,
    i: int,
    repair: Callable[[torch.Tensor], torch.Tensor],
    resolutions: tuple[tuple[int, int, int], ...],
) -> Repaired:
    """Held-out pair i through a network in evaluation mode."""
    like = next(repair.parameters())
    given, target = transforms.to_waves(
        data.decode(data.validation, [i]).to(like.device), like.dtype
    ).unbind(1)
    found, rate, measured = repair(given), data.sample.rate, {}
    for prefix, wave in (("", found), ("input_", given)):
        measured |= {
            f"{prefix}{name}": value.item()
            for name, value in table(wave, target, rate, resolutions).items()
        }
        levels = band_levels(wave, target, rate)[0].tolist()
        measured |= {
            f"{prefix}level {name}": level
            for name, level in zip(band_names(rate), levels, strict=True)
        }
    return Repaired(
        data.validation.key(i),
        *(wave[0].float().cpu().numpy() for wave in (given, found, target)),
        measured,
    )


def draw(path: Path, pairs: list[Repaired], rate: int) -> None:
    """One row of spectrograms for each: denoised, repaired, clean."""

    def title(pair: Repaired, what: str, prefix: str) -> str:
        return (
            f"{what}  SI-SDR {pair.measured[f'{prefix}si_sdr']:.1f}  LSD"
            f" {pair.measured[f'{prefix}lsd']:.1f}"
        )

    figures.spectrograms(
        path,
        [
            [
                (title(pair, f"{pair.key} denoised", "input_"), pair.before),
                (title(pair, "repaired", ""), pair.after),
                ("clean", pair.clean),
            ]
            for pair in pairs
        ],
        rate,
    )


def write_sound(folder: Path, prefix: str, pairs: list[Repaired], rate: int) -> None:
    """PREFIX + KEY.before.wav, .after.wav and .clean.wav, 16 bits.

    What is beyond full scale is clipped. DiskError where one cannot be written.
    """
    for pair in pairs:
        for what, wave in (("before", pair.before), ("after", pair.after), ("clean", pair.clean)):
            path = folder / f"{prefix}{pair.name}.{what}.wav"
            samples = audio_codec.to_int16(np.nan_to_num(wave))
            with disk_errors(path):
                path.write_bytes(audio_codec.write_wav(samples, rate))


def write_table(path: Path, pairs: Iterable[Repaired]) -> None:
    """One line of measures for each, under a head."""
    columns: list[str] = []
    rows = []
    for pair in pairs:
        columns = columns or ["key", *pair.measured]
        rows.append([pair.key, *(f"{pair.measured[name]:.5g}" for name in columns[1:])])
    write_atomic(path, csv_text(columns, rows))
