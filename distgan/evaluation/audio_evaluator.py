"""Score repaired sound with all ranks: clips are dealt out one by one, numbers come back with the
clips', one process computes.

Every clip is measured whole and by itself, so its numbers, and every mean of them, are the same
bits at any number of processes. What cannot be measured of a clip has a reason instead of a number
and takes no part in means, which say how many clips they are of.
"""

import contextlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch

from distgan.core import console, rng
from distgan.core.errors import DataError
from distgan.distributed.ranks import Ranks
from distgan.evaluation.audio_embeddings import SCALE, Embedding
from distgan.metrics import frechet, perceptual
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
from distgan.metrics.stft import STFT_RESOLUTIONS, stft_distance

PLAIN = ("si_sdr", "lsd", "mcd", "stft", "l1", "bands", "frechet")
METRICS = (*PLAIN, *perceptual.NAMES)
ANY_RATE = ("si_sdr", "stft", "l1")  # know no Hz and no seconds
HIGHER = ("si_sdr", "si_sdr_i", "pesq", "stoi", "estoi")  # is better; of all others, lower
SNR_EDGES_DB = (0, 5, 10, 15, 20)
RESAMPLES = 1000  # of the bootstrap
_WHY_BYTES = 320


Resolutions = tuple[tuple[int, int, int], ...]


@dataclass(frozen=True)
class Clip:
    """Aligned sounds, float [frames] at full scale 1.

    What is judged, what it should be, and what it was made of, if anything.
    """

    found: torch.Tensor
    target: torch.Tensor
    given: torch.Tensor | None = None


class Clips(Protocol):
    """Clips by number, of one rate in Hz.

    `keys` names them; `snrs` has the signal-to-noise ratio in dB at which each was made, or None.
    """

    rate: int
    paired: bool  # clips have `given`
    resolutions: Resolutions  # of the STFT distance: [FFT, hop, window] in frames
    keys: Sequence[str]
    snrs: Sequence[float | None]

    def __getitem__(self, i: int) -> Clip: ...


def columns(rate: int, asked: Sequence[str], paired: bool) -> list[str]:
    """Names of the numbers of a clip.

    Those of what is judged, then, with `input_`, those of its input; `si_sdr_i` is the improvement
    over it.
    """
    own = [name for name in asked if name not in ("bands", "frechet")]
    if "bands" in asked:
        own += [f"{what} {band}" for what in ("level", "lsd") for band in band_names(rate)]
    improved = ["si_sdr_i"] if paired and "si_sdr" in own else []
    return own + (improved + [f"input_{name}" for name in own] if paired else [])


def measure(
    clip: Clip, rate: int, asked: Sequence[str], resolutions: Resolutions = STFT_RESOLUTIONS
) -> tuple[dict[str, float], dict[str, str]]:
    """(numbers by `columns`' names, NaN where there is none; why there is none)."""
    values, why = _measured(clip.found, clip.target, rate, asked, resolutions)
    if clip.given is not None:
        theirs, their_why = _measured(clip.given, clip.target, rate, asked, resolutions)
        if "si_sdr" in asked:
            values["si_sdr_i"] = values["si_sdr"] - theirs["si_sdr"]
        values |= {f"input_{name}": value for name, value in theirs.items()}
        why |= {f"input_{name}": reason for name, reason in their_why.items()}
    return values, why


def _measured(
    found: torch.Tensor,
    target: torch.Tensor,
    rate: int,
    asked: Sequence[str],
    resolutions: Resolutions,
) -> tuple[dict[str, float], dict[str, str]]:
    names = columns(rate, asked, False)
    fault = (
        "it has values that are not finite"
        if not torch.isfinite(found).all()
        else "the target is silent"
        if not target.any()
        else ""
    )
    if fault:
        return dict.fromkeys(names, math.nan), dict.fromkeys(names, fault)
    x, y = found.double()[None], target.double()[None]
    formulas = {
        "si_sdr": lambda: si_sdr(x, y),
        "lsd": lambda: log_spectral_distance(x, y, rate),
        "mcd": lambda: mel_cepstral_distortion(x, y, rate),
        "stft": lambda: stft_distance(x, y, resolutions),
        "l1": lambda: (x - y).abs().mean(1),
    }
    values, why, least = {}, {}, max(size for size, _, _ in resolutions) // 2
    for name in (name for name in asked if name in formulas):
        if name == "stft" and len(target) <= least:
            values[name], why[name] = math.nan, f"no more than {least} frames, half the largest FFT"
        else:
            values[name] = float(formulas[name]())
    for name in (name for name in asked if name in perceptual.NAMES):
        value, reason = perceptual.measure(
            name, found.float().numpy(), target.float().numpy(), rate
        )
        values[name] = math.nan if value is None else value
        why |= {name: reason} if reason else {}
    if "bands" in asked:
        bands = band_names(rate)
        values |= {
            f"level {band}": float(level)
            for band, level in zip(bands, band_levels(x, y, rate)[0], strict=True)
        }
        edges = [*(edge for edge in BANDS_HZ if edge < rate / 2), rate / 2 + 1]
        values |= {
            f"lsd {band}": float(log_spectral_distance(x, y, rate, low, high))
            for band, low, high in zip(bands, edges, edges[1:], strict=False)
        }
    return values, why


def score(
    ranks: Ranks,
    clips: Clips,
    asked: Sequence[str] = PLAIN,
    embedding: Embedding | None = None,
    seed: int = 0,
) -> dict[str, Any] | None:
    """{"clips": one mapping for each, "means": …, "conditions": …, "distances": …} on rank 0,
    elsewhere None. Collective.

    A mean is {"mean", "sd", "interval", "n", "failed"}: of the n clips that have a value;
    `interval` holds the mean of new clips with 95 %, by the bootstrap over clips.
    """
    names = columns(clips.rate, asked, clips.paired)
    spaces = ({"logmel": log_mel} if "frechet" in asked else {}) | (
        {embedding.name: embedding} if embedding else {}
    )
    sides = ("found", "target", *(["given"] if clips.paired else []))
    sums: dict[tuple[str, str], Sums] = {}

    def mine() -> tuple[np.ndarray, torch.Tensor, torch.Tensor]:
        index = np.arange(ranks.rank, len(clips.keys), ranks.world_size)
        values, reasons = (
            np.full((len(index), len(names)), math.nan),
            np.zeros((len(index), _WHY_BYTES), np.uint8),
        )
        for row, i in enumerate(index.tolist()):
            clip = clips[i]
            found, why = measure(clip, clips.rate, asked, clips.resolutions)
            values[row] = [found[name] for name in names]
            text = _in_words(why).encode()[:_WHY_BYTES]
            reasons[row, : len(text)] = np.frombuffer(text, np.uint8)
            for space, rows_of in spaces.items():
                for side in sides:
                    _count(
                        sums,
                        space,
                        side,
                        rows_of(getattr(clip, side).cpu(), clips.rate),
                        clips.keys[i],
                    )
            bar.advance(min(ranks.world_size, bar.total - bar.done))
        return index, torch.from_numpy(values), torch.from_numpy(reasons)

    with _one_thread(), console.bar("measuring", len(clips.keys), "clips") as bar:
        index, values, reasons = ranks.on_all_ranks(
            mine
        )  # a damaged clip meets one rank alone: all must leave together
    values, reasons = (ranks.gather(index, rows, len(clips.keys)) for rows in (values, reasons))
    whole = {
        key: _over_ranks(ranks, sums.get(key), width)
        for key, width in _widths(ranks, sums, spaces, sides).items()
    }
    return ranks.on_rank_zero(
        lambda: _put_together(clips, names, values.numpy(), reasons.numpy(), whole, seed)
    )


def _count(
    sums: dict[tuple[str, str], Sums], space: str, side: str, rows: torch.Tensor, key: str
) -> None:
    """Frames of a clip with values that are not finite count in no distance.

    Its own row tells of them.
    """
    if not torch.isfinite(rows).all():
        return
    whole = sums.setdefault((space, side), Sums(rows.shape[1]))
    try:
        whole.require(
            rows
        )  # whatever the count, or what a rank objects to would depend on how many there are
        if whole.n + len(rows) > MOST:  # counted alone: the distance has no value then
            whole.n += len(rows)
        else:
            whole.add(rows)
    except ValueError as error:
        raise DataError(f"{key}: {space}: {error}") from error


def _widths(
    ranks: Ranks, sums: dict[tuple[str, str], Sums], spaces: dict[str, Any], sides: Sequence[str]
) -> dict[tuple[str, str], int]:
    """Dimensions of each space: a rank that was dealt no clip does not know them."""
    keys = [(space, side) for space in spaces for side in sides]
    found = torch.tensor([len(sums[key].parts[0]) if key in sums else 0 for key in keys] or [0])
    rows = ranks.gather(np.array([ranks.rank]), found[None], ranks.world_size)
    widths = ranks.on_rank_zero(lambda: rows.amax(0).tolist())
    return dict(zip(keys, widths, strict=False))


def _over_ranks(ranks: Ranks, mine: Sums | None, width: int) -> Sums:
    """Exact, so in any order: see `metrics.sums`."""
    mine, whole = mine or Sums(width), Sums(width)
    whole.n = int(
        ranks.all_reduce_sum(torch.tensor(float(mine.n), dtype=torch.float64, device=ranks.device))
    )
    whole.parts = [ranks.all_reduce_sum(part.to(ranks.device)).cpu() for part in mine.parts]
    return whole


def _put_together(
    clips: Clips,
    names: list[str],
    values: np.ndarray,
    reasons: np.ndarray,
    whole: dict[tuple[str, str], Sums],
    seed: int,
) -> dict[str, Any]:
    told = [bytes(row).rstrip(b"\0").decode(errors="replace") for row in reasons]
    conditions = {_band(snr) for snr in clips.snrs if snr is not None}
    of = {
        name: np.array([snr is not None and _band(snr) == name for snr in clips.snrs])
        for name in sorted(conditions, key=_BANDS.index)
    }
    distances = {}
    for space in dict.fromkeys(space for space, _ in whole):
        for side, prefix in (("found", ""), ("given", "input_")):
            if (space, side) in whole:
                name = f"{prefix}frechet_{space}" if space == "logmel" else f"{prefix}{space}"
                distances[name] = _distance(
                    whole[space, side], whole[space, "target"], 1.0 if space == "logmel" else SCALE
                )
    return {
        "clips": [
            {
                "key": clips.keys[i],
                "snr_db": clips.snrs[i],
                **{
                    name: None if math.isnan(v) else v
                    for name, v in zip(names, row.tolist(), strict=True)
                },
                "why": told[i],
            }
            for i, row in enumerate(values)
        ],
        "means": _means(names, values, seed),
        "conditions": {name: _means(names, values[rows], seed) for name, rows in of.items()},
        "distances": distances,
    }


def _distance(a: Sums, b: Sums, scale: float) -> dict[str, Any]:
    if max(a.n, b.n) > MOST:
        return {
            "value": None,
            "frames": a.n,
            "why": f"more than {MOST:,} frames: sums would not be exact any more",
        }
    if min(a.n, b.n) < 2:
        return {"value": None, "frames": a.n, "why": "fewer than 2 frames"}
    return {"value": frechet.of_moments(a.moments(), b.moments()) / scale**2, "frames": a.n}


def _means(names: list[str], values: np.ndarray, seed: int) -> dict[str, Any]:
    """Of each column, over the clips that have it."""
    found = {}
    for name, column in zip(names, values.T, strict=True):
        there = column[~np.isnan(column)]
        n = len(there)
        about: dict[str, Any] = {
            "mean": None,
            "sd": None,
            "interval": None,
            "n": n,
            "failed": len(column) - n,
        }
        if n:
            about["mean"] = math.fsum(there.tolist()) / n
        if n > 1:
            about["sd"] = float(there.std(ddof=1))
            drawn = there[
                rng.numpy_generator(seed, "metrics/clips", n).integers(0, n, (RESAMPLES, n))
            ].mean(1)
            about["interval"] = np.quantile(drawn, [0.025, 0.975]).tolist()
        found[name] = about
    return found


_BANDS = [
    f"below {SNR_EDGES_DB[0]} dB",
    *(f"{low} to {high} dB" for low, high in zip(SNR_EDGES_DB, SNR_EDGES_DB[1:], strict=False)),
    f"{SNR_EDGES_DB[-1]} dB and more",
]


def _band(snr: float) -> str:
    return _BANDS[int(np.searchsorted(SNR_EDGES_DB, snr, side="right"))]


def _in_words(why: dict[str, str]) -> str:
    """`pesq, stoi: it is silent; …`"""
    names: dict[str, list[str]] = {}
    for name, reason in why.items():
        names.setdefault(reason, []).append(name)
    return "; ".join(
        f"{', '.join(some) if len(some) < 5 else f'{len(some)} measures'}: {reason}"
        for reason, some in names.items()
    )


@contextlib.contextmanager
def _one_thread():
    """The bits of a sum depend on how many threads share it."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
