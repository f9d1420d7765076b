"""The distance of two signals' spectrograms: a metric of repaired sound, and a loss."""

import torch

STFT_RESOLUTIONS = (
    (1024, 120, 600),
    (2048, 240, 1200),
    (512, 50, 240),
)  # (FFT, hop, window) in frames (Yamamoto et al. 2020, table 1)
# -60 dB of full scale: a target that is softer counts as this loud, or what is left of noise in its
# pauses would be all that counts
SILENT_RMS = 1e-3
_LEAST_POWER = 1e-8  # of one bin of a spectrogram


def stft_distance(
    found: torch.Tensor,
    target: torch.Tensor,
    resolutions: tuple[tuple[int, int, int], ...] = STFT_RESOLUTIONS,
) -> torch.Tensor:
    """Mean over resolutions of spectral convergence plus mean |log magnitude ratio| (Yamamoto et
    al. 2020, eq. 3-6): [batch], 0 where equal.

    found, target: float32 or float64 [batch, frames], full scale 1, more frames than half the
    largest FFT. Each sample has its own spectral convergence (its norms are taken over that sample
    alone), so the value of a sample depends on nothing else in the batch.
    """
    return torch.stack(
        [_one_stft_distance(found, target, *resolution) for resolution in resolutions]
    ).mean(0)


def _one_stft_distance(
    found: torch.Tensor, target: torch.Tensor, size: int, hop: int, window: int
) -> torch.Tensor:
    shape = torch.hann_window(window, dtype=target.dtype, device=target.device)
    x, y = (_magnitudes(signal, size, hop, shape) for signal in (found, target))
    least = SILENT_RMS * shape.square().sum().sqrt() * (y[0].numel() ** 0.5)
    convergence = torch.linalg.vector_norm(y - x, dim=(1, 2)) / torch.linalg.vector_norm(
        y, dim=(1, 2)
    ).maximum(least)
    return convergence + (x.log() - y.log()).abs().mean((1, 2))


def _magnitudes(signal: torch.Tensor, size: int, hop: int, window: torch.Tensor) -> torch.Tensor:
    """[batch, frames] -> [batch, bins, frames of the spectrogram]."""
    spectrum = torch.stft(signal, size, hop, len(window), window, return_complex=True)
    # Not abs(), whose gradient is unbounded near zero; below the least power there is none.
    return (spectrum.real.square() + spectrum.imag.square()).clamp_min(_LEAST_POWER).sqrt()
