"""Estimate the delay between two recordings, and remove it.

Generalised cross-correlation with phase transform, GCC-PHAT (Knapp and Carter 1976): all
frequencies have equal weight, so the peak is as narrow as the sampling allows, and heavy
reverberation or a strong low voice does not move it. The peak is the largest absolute value, so
inverted polarity is detected. Near the peak only frequencies with power in the reference are used:
elsewhere the phase is noise. Between samples the correlations are interpolated by windowed sinc
functions.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
from scipy.fft import irfft, next_fast_len, rfft

# A correlation below it: not the same utterance, or one so reverberant (direct path 9 dB and more
# below the rest) that it cannot be recognised. For different utterances of 2.5 s and more it stays
# below 0.15.
MISMATCH = 0.3
SILENCE = 1e-10  # RMS; full scale is 1
# a fraction of a sample below it is not corrected: whole samples move without interpolation
EXACT = 0.05

_REACH = 24  # samples on either side that the interpolation uses
_BAND_DB = -60  # of the strongest block of frequencies: blocks of the reference below it are empty
_BLOCKS = 256  # of the whole band
_FADE = 256  # samples
_STEPS = 16  # points per sample in the search for the peak, before the parabola
_FINE = np.arange(-_STEPS, _STEPS + 1) / _STEPS
_SLOPE = 0.2  # share of the band, at its top, with decreasing weight
_FLOOR = 1e-12  # of the largest cross spectrum: below it is rounding, not phase
_PIECE = 4096  # samples that a third needs to measure drift
_DRIFT = 256  # largest drift, in samples
# an overlap with less than this part of the energy is normalised by this part: one common sample
# correlates perfectly
_SLIVER = 0.1


@dataclass(frozen=True)
class Delay:
    """`observed[n] ~ polarity * reference[n - samples]`, up to gain, noise and echoes."""

    samples: float  # positive: observed is late
    polarity: int  # +1 or -1
    # |rho| at that delay, over the overlap: 0 nothing in common, 1 equal up to gain; below
    # MISMATCH, the delay is unknown
    correlation: float
    # the normalised cross-correlation has its largest absolute value within 1 sample of it
    agrees: bool
    # delay of the last third minus that of the first, in samples; 0.0 if the recordings are too
    # short or too noisy to measure it
    drift: float


UNKNOWN = Delay(0.0, 1, 0.0, False, 0.0)


def estimate(reference: np.ndarray, observed: np.ndarray, max_delay: int) -> Delay:
    """Estimate the delay of float [m] against float [n], within ±max_delay samples.

    Silence (or NaN) on either side has correlation 0.0.
    """
    if (correlations := _correlations(reference, observed, max_delay)) is None:
        return UNKNOWN
    delay = _delay(correlations, max_delay)
    return replace(delay, drift=_drift(reference, observed, round(delay.samples)))


def pooled(pairs: Iterable[tuple[np.ndarray, np.ndarray]], max_delay: int) -> Delay:
    """Estimate one delay for all (reference, observed) by the mean of their correlations.

    For a constant latency, such as a denoiser's, if single recordings are too noisy. `correlation`
    is the mean over the pairs at that delay; drift is not measured.
    """
    total: np.ndarray | float = 0.0
    count = 0
    for reference, observed in pairs:
        if (correlations := _correlations(reference, observed, max_delay)) is not None:
            total, count = total + correlations, count + 1
    return _delay(np.asarray(total) / count, max_delay) if count else UNKNOWN


def advance(x: np.ndarray, samples: float) -> np.ndarray:
    """Shift float [n] to be `samples` earlier: out[n] = x[n + samples], zeros beyond its end.

    Whole samples are moved exactly.
    """
    whole = round(samples)
    if samples != whole:
        x = _fraction(x, samples - whole)
    out = np.zeros_like(x)
    if abs(whole) < len(x):
        start, stop = max(0, -whole), len(x) - max(0, whole)
        out[start:stop] = x[start + whole : stop + whole]
    return out


def _fraction(x: np.ndarray, samples: float) -> np.ndarray:
    """Shift by less than a sample with a phase ramp, padded so that the ends do not meet."""
    n = next_fast_len(2 * len(x) + 2, real=True)
    ramp = np.exp(2j * np.pi * samples / n * np.arange(n // 2 + 1))
    return irfft(rfft(x.astype(np.float64), n) * ramp, n)[: len(x)].astype(x.dtype)


def _correlations(reference: np.ndarray, observed: np.ndarray, max_delay: int) -> np.ndarray | None:
    """Return [3, 2 * lags + 1] at lags ±(max_delay + _REACH); None if one side is silent.

    Rows: GCC-PHAT, the same with only the frequencies of the reference, and the normalised
    cross-correlation.
    """
    reference, observed = (np.asarray(x, np.float64) for x in (reference, observed))
    if min(len(reference), len(observed)) == 0:
        return None
    reference, observed = reference - reference.mean(), observed - observed.mean()
    # sums, not dot products, whose last bits depend on the number of threads
    energies = (np.sum(reference**2), np.sum(observed**2))
    if not all(
        energy > SILENCE**2 * len(x)
        for energy, x in zip(energies, (reference, observed), strict=True)
    ):
        return None
    lags = max_delay + _REACH
    n = next_fast_len(max(len(reference), len(observed), lags + 1) + lags, real=True)
    plain = irfft(rfft(observed, n) * np.conj(rfft(reference, n)), n)
    spectrum = rfft(_faded(reference), n)
    cross = rfft(_faded(observed), n) * np.conj(spectrum)
    size = np.abs(cross)
    # The interpolation is exact only below the Nyquist frequency, and the top of a band is usually
    # a filter's slope.
    slope = np.sin(np.pi / 2 * np.clip((1 - np.linspace(0, 1, len(cross))) / _SLOPE, 0, 1)) ** 2
    phases = slope * cross / (size + _FLOOR * size.max())
    phat, band = irfft(phases, n), irfft(phases * _occupied(spectrum), n)
    rows = np.stack([np.concatenate([c[-lags:], c[: lags + 1]]) for c in (phat, band, plain)])
    d = np.arange(-lags, lags + 1)
    norm = np.sqrt(
        _overlap_energy(reference, -d, len(observed)) * _overlap_energy(observed, d, len(reference))
    )
    rows[2] /= np.maximum(norm, _SLIVER * math.sqrt(energies[0] * energies[1]))
    return rows


def _faded(x: np.ndarray) -> np.ndarray:
    """Fade in and out: an abrupt end, at the same place in both recordings, fills empty bands."""
    n = min(_FADE, len(x) // 4)
    ramp = np.sin(np.pi / 2 * (np.arange(n) + 0.5) / max(n, 1)) ** 2
    x = x.copy()
    x[:n] *= ramp
    x[len(x) - n :] *= ramp[::-1]
    return x


def _occupied(spectrum: np.ndarray) -> np.ndarray:
    """Return bool for each frequency: there is power in its block."""
    power, width = np.square(np.abs(spectrum)), max(1, len(spectrum) // _BLOCKS)
    blocks = np.add.reduceat(power, np.arange(0, len(power), width))
    return np.repeat(blocks > blocks.max() * 10 ** (_BAND_DB / 10), width)[: len(power)]


def _overlap_energy(x: np.ndarray, shifts: np.ndarray, other: int) -> np.ndarray:
    """Return the energy of x[shift:shift + other], for each shift."""
    cumulated = np.concatenate([[0.0], np.cumsum(x * x)])
    return cumulated[np.clip(shifts + other, 0, len(x))] - cumulated[np.clip(shifts, 0, len(x))]


def _delay(correlations: np.ndarray, max_delay: int) -> Delay:
    """Return the delay at the peak of correlations, without its drift."""
    phat, band, plain = correlations
    at = _peak(band, max_delay, round(_peak(phat, max_delay)))
    rho = float(_interpolate(plain, np.array([at]), max_delay)[0])
    return Delay(
        at,
        1 if _interpolate(band, np.array([at]), max_delay)[0] >= 0 else -1,
        min(1.0, abs(rho)),
        abs(_peak(plain, max_delay) - at) <= 1,
        0.0,
    )


def _peak(correlation: np.ndarray, max_delay: int, whole: int | None = None) -> float:
    """Return the lag, between samples, of the largest absolute value within ±max_delay.

    With `whole`, of the largest within a sample of that lag.
    """
    if whole is None:
        whole = int(np.argmax(np.abs(correlation[_REACH : len(correlation) - _REACH]))) - max_delay
    values = np.abs(_interpolate(correlation, whole + _FINE, max_delay))
    best = min(max(int(np.argmax(values)), 1), len(values) - 2)
    before, top, after = values[best - 1 : best + 2]
    curvature = before - 2 * top + after
    offset = 0.5 * (before - after) / curvature / _STEPS if curvature < 0 else 0.0
    return float(whole + _FINE[best] + offset)


def _interpolate(correlation: np.ndarray, lags: np.ndarray, max_delay: int) -> np.ndarray:
    """Interpolate at `lags`, all within a sample of each other, by Hann-windowed sinc functions."""
    middle = round(float(lags.mean()))
    near = middle + np.arange(-_REACH + 1, _REACH)
    apart = lags[:, None] - near
    weights = np.sinc(apart) * np.cos(np.pi / 2 * np.clip(apart / _REACH, -1, 1)) ** 2
    return weights @ correlation[near + max_delay + _REACH]


def _drift(reference: np.ndarray, observed: np.ndarray, whole: int) -> float:
    """Return the delay of the last third minus that of the first, near a delay of `whole`."""
    start, stop = max(0, -whole), min(len(reference), len(observed) - whole)
    piece = (stop - start) // 3
    if piece < _PIECE:
        return 0.0
    delays = []
    for at in (start, stop - piece):
        correlations = _correlations(
            reference[at : at + piece], observed[at + whole : at + whole + piece], _DRIFT
        )
        delays.append(UNKNOWN if correlations is None else _delay(correlations, _DRIFT))
    first, last = delays
    if min(first.correlation, last.correlation) < MISMATCH:
        return 0.0
    return last.samples - first.samples
