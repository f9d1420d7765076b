"""Measure repaired sound with all ranks: every rank measures some of the clips, rank 0 summarizes.

Every clip is measured whole and by itself, so its values, and every mean of them, are the same bits
at any number of processes. What cannot be measured of a clip has a reason instead of a value and
takes no part in means, which count their clips. What a measure needs is its own: most compare a
clip with its clean version, Fréchet distances compare sets of sounds, DNSMOS needs no other sound.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch

from distgan.core import console
from distgan.core.errors import DataError
from distgan.distributed.map_over_ranks import one_thread
from distgan.distributed.ranks import Ranks
from distgan.evaluation.audio.dnsmos import COLUMNS as DNSMOS_COLUMNS
from distgan.evaluation.audio.dnsmos import Dnsmos
from distgan.evaluation.audio.embeddings import Embedding
from distgan.evaluation.audio.ge2e import SpeakerEmbedding
from distgan.evaluation.audio.summary import summarize
from distgan.metrics import perceptual
from distgan.metrics.audio import (
    BANDS_HZ,
    band_levels,
    band_names,
    log_mel,
    log_spectral_distance,
    mel_cepstral_distortion,
    si_sdr,
)
from distgan.metrics.exact_sums import MOST, Sums
from distgan.metrics.perceptual import DNSMOS, GE2E, PLAIN, UNPAIRED
from distgan.metrics.stft import STFT_RESOLUTIONS, stft_distance
from distgan.shards.audio import align

ANY_RATE = ("si_sdr", "stft", "l1")  # do not depend on Hz or seconds
_REASON_BYTES = 320
_NO_SOUND = "no sound of this name"
_LATEST_S = 0.1  # a longer delay is no slip

Resolutions = tuple[tuple[int, int, int], ...]
Side = tuple[str, str]  # (space of features, output, target or input)


@dataclass(frozen=True)
class Clip:
    """Aligned sounds, float [frames] at full scale 1.

    The repaired sound, the clean one, and the one that was repaired; None where there is none.
    """

    output: torch.Tensor | None
    target: torch.Tensor | None
    input: torch.Tensor | None = None


class Clips(Protocol):
    """Clips by number, of one rate in Hz.

    `keys` names them; `snrs` has the signal-to-noise ratio in dB at which each was made, or None;
    `groups` the recording that it is a part of, or None.
    """

    rate: int
    paired: bool  # clips have an `input`
    resolutions: Resolutions  # of the STFT distance: [FFT, hop, window] in frames
    keys: Sequence[str]
    snrs: Sequence[float | None]
    groups: Sequence[str | None]

    def __getitem__(self, i: int) -> Clip: ...


def columns(rate: int, metrics: Sequence[str], paired: bool) -> list[str]:
    """Return the names of the values of a clip: of its output, then with `input_` of its input and
    with `target_` of its clean version, where a measure needs no other sound.

    `si_sdr_i` is the improvement of the output over the input.
    """
    alone = list(DNSMOS_COLUMNS) if DNSMOS in metrics else []
    names = _compared(rate, metrics) + alone
    after = [f"target_{name}" for name in alone]
    if not paired:
        return names + after
    improvement = ["si_sdr_i"] if "si_sdr" in names else []
    return names + improvement + [f"input_{name}" for name in names] + after


def _compared(rate: int, metrics: Sequence[str]) -> list[str]:
    names = [name for name in metrics if name not in ("bands", *UNPAIRED)]
    if "bands" in metrics:
        names += [f"{kind} {band}" for kind in ("level", "lsd") for band in band_names(rate)]
    return names


def measure(
    clip: Clip,
    rate: int,
    metrics: Sequence[str],
    resolutions: Resolutions = STFT_RESOLUTIONS,
    dnsmos: Dnsmos | None = None,
) -> tuple[dict[str, float], dict[str, str]]:
    """Return (values by the names of `columns`, NaN where there is none; the reasons for NaN).

    Without an input there are no values of it. `dnsmos` is for that measure.
    """
    values: dict[str, float] = {}
    reasons: dict[str, str] = {}
    sides = {"": clip.output, "input_": clip.input, "target_": clip.target}
    for prefix, wave in sides.items():
        of_side: dict[str, float] = {}
        why: dict[str, str] = {}
        if prefix == "input_" and wave is None:
            continue
        if prefix != "target_":
            of_side, why = _measure(wave, clip.target, rate, metrics, resolutions)
        if dnsmos:
            opinions, reason = (
                dnsmos(wave.float().numpy(), rate) if wave is not None else ({}, _NO_SOUND)
            )
            of_side |= dict.fromkeys(DNSMOS_COLUMNS, math.nan) | opinions
            why |= dict.fromkeys(DNSMOS_COLUMNS, reason) if reason else {}
        values |= {f"{prefix}{name}": value for name, value in of_side.items()}
        reasons |= {f"{prefix}{name}": text for name, text in why.items()}
    if "si_sdr" in metrics and clip.input is not None:
        values["si_sdr_i"] = values["si_sdr"] - values["input_si_sdr"]
    return values, reasons


def _delay(clip: Clip, rate: int) -> float:
    """Return by how many frames the output is late against its target, NaN where nobody can say."""
    if clip.output is None or clip.target is None:
        return math.nan
    if not (torch.isfinite(clip.output).all() and torch.isfinite(clip.target).all()):
        return math.nan
    pair = (clip.target.cpu().numpy(), clip.output.cpu().numpy())
    delay = align.pooled([pair], min(round(_LATEST_S * rate), len(clip.target) // 2))
    return delay.samples if delay.correlation >= align.MISMATCH else math.nan


def _measure(
    wave: torch.Tensor | None,
    target: torch.Tensor | None,
    rate: int,
    metrics: Sequence[str],
    resolutions: Resolutions,
) -> tuple[dict[str, float], dict[str, str]]:
    names, error = _compared(rate, metrics), ""
    if wave is None or target is None:
        return dict.fromkeys(names, math.nan), dict.fromkeys(names, _NO_SOUND)
    if not torch.isfinite(wave).all():
        error = "it has values that are not finite"
    elif not target.any():
        error = "the target is silent"
    if error:
        return dict.fromkeys(names, math.nan), dict.fromkeys(names, error)
    x, y = wave.double()[None], target.double()[None]
    formulas: dict[str, Callable[[], torch.Tensor]] = {
        "si_sdr": lambda: si_sdr(x, y),
        "lsd": lambda: log_spectral_distance(x, y, rate),
        "mcd": lambda: mel_cepstral_distortion(x, y, rate),
        "stft": lambda: stft_distance(x, y, resolutions),
        "l1": lambda: (x - y).abs().mean(1),
    }
    values: dict[str, float] = {}
    reasons: dict[str, str] = {}
    least = max(size for size, _, _ in resolutions) // 2
    for name in metrics:
        if name == "stft" and len(target) <= least:
            values[name] = math.nan
            reasons[name] = f"no more than {least} frames, half the largest FFT"
        elif name in formulas:
            values[name] = float(formulas[name]())
    for name in metrics:
        if name in perceptual.NAMES:
            value, reason = perceptual.measure(
                name, wave.float().numpy(), target.float().numpy(), rate
            )
            values[name] = math.nan if value is None else value
            if reason:
                reasons[name] = reason
    if "bands" in metrics:
        values |= _measure_bands(x, y, rate)
    return values, reasons


def _measure_bands(x: torch.Tensor, y: torch.Tensor, rate: int) -> dict[str, float]:
    bands = band_names(rate)
    levels = band_levels(x, y, rate)[0]
    values = {f"level {band}": float(level) for band, level in zip(bands, levels, strict=True)}
    edges = [*(edge for edge in BANDS_HZ if edge < rate / 2), rate / 2 + 1]
    return values | {
        f"lsd {band}": float(log_spectral_distance(x, y, rate, low, high))
        for band, low, high in zip(bands, edges, edges[1:], strict=False)
    }


def score(
    ranks: Ranks,
    clips: Clips,
    metrics: Sequence[str] = PLAIN,
    embedding: Embedding | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """Measure all clips; return `summary.summarize`, the same on every rank. Collective."""
    names = columns(clips.rate, metrics, clips.paired)
    spaces = ranks.on_all_ranks(lambda: _spaces(metrics, embedding))
    dnsmos = ranks.on_all_ranks(lambda: Dnsmos() if DNSMOS in metrics else None)
    sides = ("output", "target", "input") if clips.paired else ("output", "target")
    sums: dict[Side, Sums] = {}

    def local_rows() -> tuple[np.ndarray, torch.Tensor, torch.Tensor]:
        index = np.arange(ranks.rank, len(clips.keys), ranks.world_size)
        rows = np.full((len(index), len(names) + 1), math.nan)  # the delay last
        texts = np.zeros((len(index), _REASON_BYTES), np.uint8)
        for row, i in enumerate(index.tolist()):
            clip = clips[i]
            values, reasons = measure(clip, clips.rate, metrics, clips.resolutions, dnsmos)
            rows[row, :-1] = [values.get(name, math.nan) for name in names]
            if "si_sdr" in metrics:
                rows[row, -1] = _delay(clip, clips.rate)
            reasons |= {name: _NO_SOUND for name in names if name not in values}
            text = _describe(reasons).encode()[:_REASON_BYTES]
            texts[row, : len(text)] = np.frombuffer(text, np.uint8)
            for space, features in spaces.items():
                for side in sides:
                    if (wave := getattr(clip, side)) is not None:
                        frames = features(wave.cpu(), clips.rate)
                        _add_frames(sums, (space, side), frames, clips.keys[i])
            bar.advance(min(ranks.world_size, bar.total - bar.done))
        return index, torch.from_numpy(rows), torch.from_numpy(texts)

    with one_thread(), console.bar("measuring", len(clips.keys), "clips") as bar:
        # A damaged clip may reach one rank alone: on_all_ranks makes all of them raise.
        index, rows, texts = ranks.on_all_ranks(local_rows)
    values, reasons = (ranks.gather(index, part, len(clips.keys)) for part in (rows, texts))
    keys = [(space, side) for space in spaces for side in sides]
    total = {
        key: _sum_over_ranks(ranks, sums.get(key) or Sums(width), width)
        for key, width in zip(keys, _widths(ranks, sums, keys), strict=False)
    }

    def summary() -> dict[str, Any]:
        why = [bytes(row).rstrip(b"\0").decode(errors="replace") for row in reasons.numpy()]
        return summarize(clips, names, values.numpy(), why, total, seed)

    return ranks.on_rank_zero(summary)


def _spaces(
    metrics: Sequence[str], embedding: Embedding | None
) -> dict[str, Callable[[torch.Tensor, int], torch.Tensor]]:
    """Return what maps a clip to feature frames, by the name of the distance between them."""
    spaces: dict[str, Callable[[torch.Tensor, int], torch.Tensor]] = {}
    if "frechet" in metrics:
        spaces["frechet_logmel"] = log_mel
    if GE2E in metrics:
        spaces[GE2E] = SpeakerEmbedding()
    if embedding:
        spaces[embedding.name] = embedding
    return spaces


def _add_frames(sums: dict[Side, Sums], side: Side, frames: torch.Tensor, key: str) -> None:
    """Add the feature frames [n, d] of clip `key`, unless they hold values that are not finite."""
    if not torch.isfinite(frames).all():
        return
    total = sums.setdefault(side, Sums(frames.shape[1]))
    try:
        total.require(frames)  # at any count, so that errors do not depend on the number of ranks
        if total.n + len(frames) > MOST:
            total.n += len(frames)  # only counted: the distance then has no value
        else:
            total.add(frames)
    except ValueError as error:
        raise DataError(f"{key}: {side[0]}: {error}") from error


def _widths(ranks: Ranks, sums: dict[Side, Sums], keys: list[Side]) -> list[int]:
    """Return the feature dimensions of each side; ranks without clips do not know them."""
    local = torch.tensor([len(sums[key].parts[0]) if key in sums else 0 for key in keys] or [0])
    rows = ranks.gather(np.array([ranks.rank]), local[None], ranks.world_size)
    return ranks.on_rank_zero(lambda: rows.amax(0).tolist())


def _sum_over_ranks(ranks: Ranks, local: Sums, width: int) -> Sums:
    """Add the sums of all ranks: exact, so in any order (metrics/exact_sums.py)."""
    total = Sums(width)
    count = torch.tensor(float(local.n), dtype=torch.float64, device=ranks.device)
    total.n = int(ranks.all_reduce_sum(count))
    total.parts = [ranks.all_reduce_sum(part.to(ranks.device)).cpu() for part in local.parts]
    return total


def _describe(reasons: dict[str, str]) -> str:
    """Join reasons to `pesq, stoi: it is silent; …`."""
    names: dict[str, list[str]] = {}
    for name, reason in reasons.items():
        names.setdefault(reason, []).append(name)
    return "; ".join(
        f"{', '.join(some) if len(some) < 5 else f'{len(some)} measures'}: {reason}"
        for reason, some in names.items()
    )
