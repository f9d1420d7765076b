"""Networks of the timbre system.

A generator that repairs a waveform, and a discriminator that looks at spectrograms. No batch norm;
weight norm throughout.
"""

import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import weight_norm
from torch.nn.utils.parametrize import is_parametrized, remove_parametrizations

from distgan.nn.waveform import SLOPE, ConvDown1d, ExactConvTranspose1d

KERNEL, STRIDE = 4, 2  # of the convolutions that halve and double the number of spectrogram frames
LEAST_POWER = 1e-6  # of a bin of the spectrogram, at full scale 1
COMPRESSION = 0.3  # exponent of magnitudes that the network sees
LARGEST_GAIN = 3.0  # natural logarithm: 26 dB, up and down


class Repair(nn.Module):
    """Repairs a waveform in its spectrogram: [batch, frames] -> [batch, frames], for any number of
    frames.

    A U-Net over time whose channels are frequencies gives a gain and a turn of phase for every bin.
    Both start at none, so the untrained network gives back what it was given, to rounding. It works
    in the spectrogram because that was measured to learn faster than the waveform: docs/timbre.md.
    """

    window: torch.Tensor

    def __init__(self, width: int, size: int, hop: int):
        """`size`, `hop`: FFT and step of the spectrogram, in frames."""
        super().__init__()
        self.width, self.size, self.hop = width, size, hop
        self.register_buffer("window", torch.hann_window(size), persistent=False)
        bins = size // 2 + 1
        self.stem = weight_norm(nn.Conv1d(3 * bins, width, 3, padding=1))
        self.down = nn.ModuleList(
            [weight_norm(ConvDown1d(width, width, KERNEL, STRIDE)) for _ in range(2)]
        )
        self.middle = nn.Sequential(*[Residual(width, dilation) for dilation in (1, 3, 9)])
        self.up = nn.ModuleList(
            [ExactConvTranspose1d(width, width, KERNEL, STRIDE) for _ in range(2)]
        )
        for layer in self.up:
            weight_norm(layer.get_submodule("conv"))
        self.last = nn.Sequential(*[Residual(width, dilation) for dilation in (1, 3)])
        self.head = nn.Conv1d(
            width, 2 * bins, 1
        )  # starts at zero, which weight norm, a direction with a length, could not
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.get_parameter("bias"))

    def forward(self, waves: torch.Tensor) -> torch.Tensor:
        spectrum = torch.stft(
            waves, self.size, self.hop, window=self.window, pad_mode="constant", return_complex=True
        )
        x = F.silu(self.stem(_seen(spectrum)))
        skipped = []
        for layer in self.down:
            skipped.append(x)
            x = F.silu(layer(x))
        x = self.middle(x)
        for layer in self.up:
            before = skipped.pop()
            x = before + F.silu(layer(x, before.shape[2]))
        gain, turn = self.head(self.last(x)).to(waves.dtype).chunk(2, 1)
        gain = LARGEST_GAIN * torch.tanh(gain / LARGEST_GAIN)
        repaired = spectrum * torch.polar(gain.exp(), turn)
        return torch.istft(repaired, self.size, self.hop, window=self.window, length=waves.shape[1])

    def plain(self) -> "Repair":
        """A copy for inference whose weight norms are worked into ordinary weights: the same
        function, and nothing of torch's parametrizations in its state.

        Made anew: a deep copy would share the classes that torch makes for parametrized modules,
        and removing from the copy would break the original.
        """
        copy = Repair(self.width, self.size, self.hop).to(self.head.weight).train(self.training)
        copy.load_state_dict(self.state_dict())
        for module in list(copy.modules()):
            if is_parametrized(module):
                remove_parametrizations(module, "weight")
        return copy


def _seen(spectrum: torch.Tensor) -> torch.Tensor:
    """[batch, bins, frames] -> [batch, 3 bins, frames].

    Real and imaginary part with compressed magnitudes, and the logarithm of the power.
    """
    power = spectrum.real.square() + spectrum.imag.square() + LEAST_POWER
    squeeze = power.pow((COMPRESSION - 1) / 2)
    return torch.cat([spectrum.real * squeeze, spectrum.imag * squeeze, 0.25 * power.log() + 1], 1)


class Residual(nn.Module):
    """x + f(x) with a dilated convolution: [batch, width, frames] -> the same."""

    def __init__(self, width: int, dilation: int):
        super().__init__()
        self.wide = weight_norm(nn.Conv1d(width, width, 3, padding=dilation, dilation=dilation))
        self.narrow = weight_norm(nn.Conv1d(width, width, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.narrow(F.silu(self.wide(F.silu(x))))


class MultiResolutionDiscriminator(nn.Module):
    """A small convolutional discriminator on the spectrogram of each resolution (UnivNet, Jang et
    al. 2021, 2.2): [batch, frames] -> scores [batch, patches].

    A score is of a patch of time and frequency; the usual resolutions, whose hop is a fixed share
    of their FFT, give about as many patches each.
    """

    def __init__(self, width: int, resolutions: tuple[tuple[int, int, int], ...]):
        super().__init__()
        self.judges = nn.ModuleList(
            [SpectrogramDiscriminator(width, *resolution) for resolution in resolutions]
        )

    def forward(self, waves: torch.Tensor) -> torch.Tensor:
        return torch.cat([judge(waves) for judge in self.judges], 1)


class SpectrogramDiscriminator(nn.Module):
    """The discriminator of one resolution: [batch, frames] -> scores [batch, patches]."""

    window: torch.Tensor

    def __init__(self, width: int, size: int, hop: int, window: int):
        super().__init__()
        self.size, self.hop = size, hop
        self.register_buffer("window", torch.hann_window(window), persistent=False)
        widths = [1, width, 2 * width, 4 * width]
        self.layers = nn.ModuleList(
            [
                weight_norm(nn.Conv2d(a, b, 4, 2, 1))
                for a, b in zip(widths, widths[1:], strict=False)
            ]
        )
        self.layers.append(weight_norm(nn.Conv2d(widths[-1], widths[-1], 3, padding=1)))
        self.score = weight_norm(nn.Conv2d(widths[-1], 1, 3, padding=1))

    def forward(self, waves: torch.Tensor) -> torch.Tensor:
        spectrum = torch.stft(
            waves, self.size, self.hop, len(self.window), self.window, return_complex=True
        )
        x = (
            0.25 * (spectrum.real.square() + spectrum.imag.square() + LEAST_POWER).log()[:, None]
            + 1
        )
        for layer in self.layers:
            x = F.leaky_relu(layer(x), SLOPE)
        return self.score(x).flatten(1)
