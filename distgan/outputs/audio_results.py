"""Results of repaired sound for people: spectrograms, sound files, a table of measures."""

import dataclasses
import re
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch

from distgan.core.files import csv_text, disk_errors, opener, write_atomic
from distgan.data import transforms
from distgan.data.dataset import Data
from distgan.metrics.audio import band_levels, band_names, table
from distgan.outputs import signal_plots
from distgan.shards.codecs import audio as audio_codec


@dataclasses.dataclass(frozen=True)
class Repaired:
    """A held-out pair and the repaired sound; sounds are float32 [frames].

    `measured` has the measures of `metrics.audio.table` by name, with `input_` those of the input,
    and the levels of bands as `level 0-500 Hz`.
    """

    key: str
    before: np.ndarray
    after: np.ndarray
    clean: np.ndarray
    measured: dict[str, float]

    @property
    def name(self) -> str:
        return file_name(self.key)


def file_name(key: str) -> str:
    """Return a key as part of the name of a file."""
    return re.sub(r"[^A-Za-z0-9_-]+", "_", key)[:80]


def spread(total: int, count: int) -> list[int]:
    """Return `count` numbers, or all, spaced evenly over range(total)."""
    count = min(total, count)
    return [k * total // count for k in range(count)]


@torch.no_grad()
def repaired(
    data: Data,
    i: int,
    repair: torch.nn.Module,
    resolutions: tuple[tuple[int, int, int], ...],
) -> Repaired:
    """Repair and measure held-out pair i by a network in evaluation mode."""
    weight = next(repair.parameters())
    source, target = transforms.to_waves(
        data.decode(data.validation, [i]).to(weight.device), weight.dtype
    ).unbind(1)
    output, rate = repair(source), data.rate
    measured: dict[str, float] = {}
    for prefix, wave in (("", output), ("input_", source)):
        measured |= {
            f"{prefix}{name}": value.item()
            for name, value in table(wave, target, rate, resolutions).items()
        }
        levels = band_levels(wave, target, rate)[0].tolist()
        measured |= {
            f"{prefix}level {name}": level
            for name, level in zip(band_names(rate), levels, strict=True)
        }
    before, after, clean = (wave[0].float().cpu().numpy() for wave in (source, output, target))
    return Repaired(data.validation.key(i), before, after, clean, measured)


def draw(path: Path, pairs: list[Repaired], rate: int) -> None:
    """Plot one row of spectrograms for each pair: denoised, repaired, clean."""

    def title(pair: Repaired, name: str, prefix: str) -> str:
        return (
            f"{name}  SI-SDR {pair.measured[f'{prefix}si_sdr']:.1f}  LSD"
            f" {pair.measured[f'{prefix}lsd']:.1f}"
        )

    signal_plots.spectrograms(
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
    """Write PREFIX + KEY.before.wav, .after.wav and .clean.wav, 16 bits, clipped at full scale.

    DiskError if one cannot be written.
    """
    for pair in pairs:
        for version, wave in (
            ("before", pair.before),
            ("after", pair.after),
            ("clean", pair.clean),
        ):
            path = folder / f"{prefix}{pair.name}.{version}.wav"
            samples = audio_codec.to_int16(np.nan_to_num(wave))
            with disk_errors(path), open(path, "wb", opener=opener) as file:
                file.write(audio_codec.write_wav(samples, rate))


def write_table(path: Path, pairs: Iterable[Repaired]) -> None:
    """Write one row of measures for each pair as CSV."""
    columns: list[str] = []
    rows = []
    for pair in pairs:
        columns = columns or ["key", *pair.measured]
        rows.append([pair.key, *(f"{pair.measured[name]:.5g}" for name in columns[1:])])
    write_atomic(path, csv_text(columns, rows))
