"""How far a repaired recording is from the clean one: numbers per clip, for people and tables.
Losses are in `losses`.

All take found, target: float32 or float64 [batch, frames] at full scale 1, aligned, and give
float64 [batch]; each number depends on its own clip alone. Conventions differ from paper to paper,
so each function states its own; compare only numbers made with the same.
"""

import functools
import math

import torch

from distgan.metrics.stft import stft_distance

FLOOR_DB = -80.0  # of the target's loudest bin: what lies below in a spectrogram counts as this
# frames this far below the target's 95th percentile are pauses (shards/sound/degrade.py has the
# same)
ACTIVE_DB = -40.0
FRAME_S = 0.032  # of a spectrogram, every quarter of it
BANDS_HZ = (0, 500, 1000, 2000, 4000, 8000, 16000, 24000)
MEL_BANDS = 40  # of the mel-cepstral distortion, triangles up to half the rate, in HTK's mel
CEPSTRA = 13  # its coefficients: 1 to 13
LOG_MEL_BANDS = 64  # of `log_mel`
LOG_MEL_LEAST = 1e-10
_LEAST = 1e-20  # energy


def si_sdr(found: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Scale-invariant signal-to-distortion ratio in dB, higher is better (Le Roux et al. 2019, eq.
    3-5); neither mean is taken out.

    Within ±100 dB: 100 of equal clips, -100 where either is silent. A wrong sign changes nothing; a
    delay of one sample at 16 kHz leaves about 7 dB of speech, so align first.
    """
    found, target = found.double(), target.double()
    scale = (found * target).sum(1, keepdim=True) / target.square().sum(1, keepdim=True).clamp_min(
        _LEAST
    )
    wanted = (scale * target).square().sum(1)
    return (10 * torch.log10(wanted / ((found - scale * target).square().sum(1) + _LEAST))).clamp(
        -100, 100
    )


def log_spectral_distance(
    found: torch.Tensor,
    target: torch.Tensor,
    rate: int,
    low_hz: float = 0.0,
    high_hz: float = math.inf,
) -> torch.Tensor:
    """Root mean square over bins, then mean over active frames, of the difference of power spectra
    in dB; lower is better.

    Hann windows of 32 ms every 8 ms; 20 log10 of magnitudes, of which both are at least FLOOR_DB of
    the target's largest; levels are not matched, so a gain of 6 dB is a distance of 6 dB. Frames
    are active by the target alone. With `low_hz` and `high_hz`, over the bins from one to the
    other. 0 of a silent target.
    """
    x, y, active = _decibels(found, target, rate)
    bins = _bins(rate, low_hz, high_hz)
    return _mean_active((x - y)[:, bins].square().mean(1).sqrt(), active)


def mel_cepstral_distortion(
    found: torch.Tensor, target: torch.Tensor, rate: int, coefficients: int = CEPSTRA
) -> torch.Tensor:
    """Mel-cepstral distortion in dB, lower is better (Kubichek 1993): 10 / ln 10 sqrt(2 sum over k
    = 1 … `coefficients` of (c_k - c'_k)^2), mean over active frames.

    c_k are the coefficients of the cosine series ln A(w) = c_0 + sum c_k cos(k w) of the amplitude
    in MEL_BANDS bands, at least FLOOR_DB of the target's largest. c_0, the level, is left out, so a
    gain changes nothing above the floor. No time warping: clips are aligned. 0 of a silent target.
    """
    banks = _mel(rate, MEL_BANDS).to(found.device)
    x, y = (
        torch.matmul(_spectrogram(signal, rate).square().mT, banks).sqrt()
        for signal in (found, target)
    )  # [batch, frames, bands]
    floor = (y.amax((1, 2), keepdim=True) * 10 ** (FLOOR_DB / 20)).clamp_min(_LEAST)
    difference = x.maximum(floor).log() - y.maximum(floor).log()
    centres = (
        (torch.arange(MEL_BANDS, dtype=torch.float64, device=found.device) + 0.5)
        * math.pi
        / MEL_BANDS
    )
    waves = (
        torch.cos(
            torch.arange(1, coefficients + 1, dtype=torch.float64, device=found.device)[:, None]
            * centres
        )
        * 2
        / MEL_BANDS
    )
    distortion = 10 / math.log(10) * (2 * torch.matmul(difference, waves.T).square().sum(2)).sqrt()
    return _mean_active(distortion, _decibels(found, target, rate)[2])


def log_mel(signal: torch.Tensor, rate: int) -> torch.Tensor:
    """log10 of the power in LOG_MEL_BANDS mel bands, at least LOG_MEL_LEAST.

    Float64 [frames, bands] of one clip [frames], every half window of 32 ms.
    """
    power = _spectrogram(signal[None], rate)[0, :, ::2].square().mT @ _mel(rate, LOG_MEL_BANDS).to(
        signal.device
    )
    return power.clamp_min(LOG_MEL_LEAST).log10()


@functools.cache
def _mel(rate: int, bands: int) -> torch.Tensor:
    """Weights of power, float64 [bins, bands]: triangles of height 1 that are even in HTK's mel
    (2595 log10(1 + f / 700)) from 0 to half the rate.

    Where bins lie farther apart than triangles are wide, a band takes the bin nearest to its
    centre: else it would hold nothing whatever is heard.
    """
    bins = torch.arange(_size(rate) // 2 + 1, dtype=torch.float64) * rate / _size(rate)
    top = 2595 * math.log10(1 + rate / 2 / 700)
    edges = 700 * (10 ** (torch.linspace(0, top, bands + 2, dtype=torch.float64) / 2595) - 1)
    low, centre, high = edges[:-2], edges[1:-1], edges[2:]
    weights = torch.minimum(
        (bins[:, None] - low) / (centre - low), (high - bins[:, None]) / (high - centre)
    ).clamp_min(0)
    for band in torch.nonzero(weights.sum(0) == 0).flatten().tolist():
        weights[(bins - centre[band]).abs().argmin(), band] = 1
    return weights


def band_levels(
    found: torch.Tensor, target: torch.Tensor, rate: int, bands_hz: tuple[float, ...] = BANDS_HZ
) -> torch.Tensor:
    """Level of each band against the target's, in dB, over active frames.

    [batch, bands below half the rate]; 0 is right, below 0 too soft.
    """
    _, _, active = _decibels(found, target, rate)
    powers = [_spectrogram(signal, rate).square() * active[:, None] for signal in (found, target)]
    edges = [edge for edge in bands_hz if edge < rate / 2] + [rate / 2 + 1]
    rows = []
    for low, high in zip(edges, edges[1:], strict=False):
        x, y = (power[:, _bins(rate, low, high)].sum((1, 2)) for power in powers)
        rows.append(10 * torch.log10((x + _LEAST) / (y + _LEAST)))
    return torch.stack(rows, 1)


def band_names(rate: int, bands_hz: tuple[float, ...] = BANDS_HZ) -> list[str]:
    """`0-500 Hz` and so on, as `band_levels` has them."""
    edges = [edge for edge in bands_hz if edge < rate / 2] + [rate // 2]
    return [f"{low}-{high} Hz" for low, high in zip(edges, edges[1:], strict=False)]


def table(
    found: torch.Tensor,
    target: torch.Tensor,
    rate: int,
    resolutions: tuple[tuple[int, int, int], ...],
) -> dict[str, torch.Tensor]:
    """The usual set: `l1`, `stft` (the loss as a distance, lower is better), `si_sdr`, `lsd`."""
    found, target = found.double(), target.double()
    return {
        "l1": (found - target).abs().mean(1),
        "stft": stft_distance(found, target, resolutions),
        "si_sdr": si_sdr(found, target),
        "lsd": log_spectral_distance(found, target, rate),
    }


def _spectrogram(signal: torch.Tensor, rate: int) -> torch.Tensor:
    """Magnitudes float64 [batch, bins, frames].

    Zeros before and after, so that a clip may be shorter than a window.
    """
    size = _size(rate)
    window = torch.hann_window(size, dtype=torch.float64, device=signal.device)
    return torch.stft(
        signal.double(), size, size // 4, window=window, pad_mode="constant", return_complex=True
    ).abs()


def _decibels(
    found: torch.Tensor, target: torch.Tensor, rate: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Both spectrograms in dB above the floor, and which frames are active, [batch, frames] of 0
    and 1.
    """
    x, y = _spectrogram(found, rate), _spectrogram(target, rate)
    floor = (y.amax((1, 2), keepdim=True) * 10 ** (FLOOR_DB / 20)).clamp_min(_LEAST)
    power = y.square().sum(1)
    limit = torch.quantile(power, 0.95, dim=1, keepdim=True) * 10 ** (ACTIVE_DB / 10)
    active = ((power >= limit) & (power > _LEAST)).double()
    return 20 * torch.log10(x.maximum(floor)), 20 * torch.log10(y.maximum(floor)), active


def _mean_active(values: torch.Tensor, active: torch.Tensor) -> torch.Tensor:
    return (values * active).sum(1) / active.sum(1).clamp_min(1)


def _size(rate: int) -> int:
    """Frames of a window: a multiple of 4 near FRAME_S."""
    return max(4, 4 * round(FRAME_S * rate / 4))


def _bins(rate: int, low_hz: float, high_hz: float) -> torch.Tensor:
    """Numbers of the bins in [low_hz, high_hz)."""
    centres = torch.arange(_size(rate) // 2 + 1) * rate / _size(rate)
    return torch.nonzero((centres >= low_hz) & (centres < high_hz)).flatten()
