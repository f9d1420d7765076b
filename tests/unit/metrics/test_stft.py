"""The multi-resolution STFT loss, against auraloss, by hand, and sample by sample."""

import auraloss
import numpy as np
import pytest
import scipy.signal
import torch

from distgan.metrics.stft import SILENT_RMS, STFT_RESOLUTIONS, stft_distance


def waves(
    n: int, frames: int = 6000, dtype=torch.float64, level: float = 0.1
) -> tuple[torch.Tensor, torch.Tensor]:
    """Coloured noise, and the same with some more noise.

    [n, frames] each, of very different levels.
    """
    torch.manual_seed(n)
    target = torch.randn(n, frames, dtype=dtype).cumsum(1)
    target = (
        level
        * (target - target.mean(1, keepdim=True))
        / target.std(1, keepdim=True)
        * torch.logspace(-1, 0, n, dtype=dtype)[:, None]
    )
    return target + 0.03 * torch.randn(n, frames, dtype=dtype), target


@pytest.mark.parametrize("frames", [2100, 6000, 16001])
def test_a_batch_of_one_is_what_auraloss_says(frames):
    found, target = waves(1, frames)
    fft, hop, window = zip(*STFT_RESOLUTIONS, strict=True)
    theirs = auraloss.freq.MultiResolutionSTFTLoss(list(fft), list(hop), list(window)).double()
    ours = stft_distance(found, target).item()
    assert ours == pytest.approx(
        theirs(found[:, None], target[:, None]).item(), rel=2e-8
    )  # their window is float32


def test_by_hand():
    """Yamamoto et al. 2020, eq. 4 and 5, with scipy's STFT."""
    found, target = waves(1, 3000)
    size, hop, window = 256, 64, 256
    both = []
    for x in (found, target):
        padded = np.pad(x[0].numpy(), size // 2, mode="reflect")
        shape = scipy.signal.get_window("hann", window)
        frames = [padded[k : k + size] * shape for k in range(0, len(padded) - size + 1, hop)]
        both.append(np.maximum(np.abs(np.fft.rfft(frames)), 1e-4))
    x, y = both
    due = (
        np.sqrt(((y - x) ** 2).sum()) / np.sqrt((y**2).sum()) + np.abs(np.log(x) - np.log(y)).mean()
    )
    assert stft_distance(found, target, ((size, hop, window),)).item() == pytest.approx(
        due, rel=1e-10
    )


def test_a_sample_does_not_depend_on_the_others():
    """Which auraloss's does: there one norm is taken over the whole batch."""
    found, target = waves(6)
    together = stft_distance(found, target)
    one_by_one = torch.cat([stft_distance(found[i : i + 1], target[i : i + 1]) for i in range(6)])
    torch.testing.assert_close(together, one_by_one, rtol=1e-12, atol=0)
    assert together.std() > 0.1, "samples that are alike would prove nothing"
    theirs = auraloss.freq.MultiResolutionSTFTLoss().double()
    assert abs(theirs(found[:, None], target[:, None]).item() - one_by_one.mean().item()) > 0.01


def test_the_mean_gradient_is_that_of_any_micro_batches():
    found, target = waves(6)
    gradients = []
    for parts in (1, 2, 3):
        x = found.clone().requires_grad_()
        for some, other in zip(x.chunk(parts), target.chunk(parts), strict=True):
            (stft_distance(some, other).mean() / parts).backward()
        gradients.append(x.grad)
    for other in gradients[1:]:
        torch.testing.assert_close(gradients[0], other, rtol=1e-9, atol=1e-14)


def test_its_gradient_is_that_of_finite_differences():
    found, target = waves(2, 400)
    resolutions = ((256, 64, 256), (128, 50, 100))
    assert torch.autograd.gradcheck(
        lambda x: stft_distance(x, target, resolutions),
        found.requires_grad_(),
        eps=1e-8,
        atol=1e-4,
        rtol=1e-3,
        nondet_tol=0,
        fast_mode=True,
    )


def test_equal_signals_are_at_zero_and_so_is_the_gradient():
    _, target = waves(2)
    found = target.clone().requires_grad_()
    distance = stft_distance(found, target)
    distance.sum().backward()
    assert not distance.any() and not found.grad.any()


def test_a_silent_target_leaves_the_others_something():
    """Pauses in clean speech are silent, and what is left of noise there is not.

    Without a floor such a sample would be 1,000 times the others.
    """
    found, target = waves(2)
    target[0] = 0
    found[0] = SILENT_RMS * torch.randn(6000, dtype=torch.float64)
    found.requires_grad_()
    distance = stft_distance(found, target)
    distance.sum().backward()
    assert 0.5 < distance[0] < 8 and torch.isfinite(found.grad).all()
    auraloss_convergence = auraloss.freq.MultiResolutionSTFTLoss(w_log_mag=0.0).double()(
        found[:1, None], target[:1, None]
    )
    assert auraloss_convergence > 100


def test_float32_is_near_float64():
    found, target = waves(4)
    single = stft_distance(found.float(), target.float())
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), stft_distance(found, target), rtol=1e-5, atol=0)
