"""Networks for 1-D signals: [batch, channels, frames], of any length. Nothing in them mixes
samples, and nothing draws random numbers.
"""

import torch
from torch import nn
from torch.nn import functional as F

SLOPE = 0.2


class ConvDown1d(nn.Conv1d):
    """A convolution that gives ceil(frames / stride) frames, whatever the kernel.

    Zeros are put at both ends, max(0, kernel - stride) // 2 of them at the front.
    """

    def __init__(self, before: int, after: int, kernel: int, stride: int, *, bias: bool = True):
        super().__init__(before, after, kernel, stride, bias=bias)
        self.front = max(0, kernel - stride) // 2

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        kernel, stride, frames = self.kernel_size[0], self.stride[0], x.shape[2]
        last = (
            -(-frames // stride) * stride - stride
        )  # where the last kernel begins, counted from the padded front
        return super().forward(F.pad(x, (self.front, max(0, last + kernel - frames - self.front))))


class ExactConvTranspose1d(nn.Module):
    """A transposed convolution whose output is as long as asked for, whatever the kernel, the
    stride and the length.

    A plain one gives (frames - 1) * stride + kernel frames, of which max(0, kernel - stride) are
    overlap, to be trimmed at the ends (half of it, rounded down, at the front): frames * stride
    remain. Where kernel < stride there is nothing to trim, and stride - kernel frames, which the
    kernel does not reach, are added at the end: they hold the bias, as those between any two
    kernels do. What is then more than asked for is cut at the end.
    """

    def __init__(self, before: int, after: int, kernel: int, stride: int):
        super().__init__()
        self.stride, self.trim = stride, max(0, kernel - stride)
        self.conv = nn.ConvTranspose1d(
            before, after, kernel, stride, output_padding=max(0, stride - kernel)
        )

    def forward(self, x: torch.Tensor, frames: int) -> torch.Tensor:
        """x: [batch, before, n] -> [batch, after, frames].

        Any length of which n is the stride-th part, rounded up.
        """
        most = x.shape[2] * self.stride
        if not most - self.stride < frames <= most:
            raise ValueError(
                f"{frames} frames out of {x.shape[2]} at stride {self.stride}:"
                f" {most - self.stride + 1} to {most} are possible"
            )
        return self.conv(x).narrow(2, self.trim // 2, frames)


class Generator1d(nn.Module):
    """U-Net over time (Isola et al. 2017, section 3.2.1, in one dimension): [batch, 1, frames] ->
    [batch, 1, frames], without a last activation.

    `num_layers` convolutions make the signal shorter by `stride` each; as many make it longer
    again, and see what the encoder had at that length. Channels double from `base_filters` up to 8
    times as many. The last convolution sees the input itself. No normalisation: the height of a
    pulse is what matters.
    """

    def __init__(self, base_filters: int, num_layers: int, kernel: int, stride: int):
        super().__init__()
        widths = [base_filters * min(2**i, 8) for i in range(num_layers)]
        ups = [*widths[-2::-1], base_filters]
        self.down = nn.ModuleList(
            [
                ConvDown1d(before, after, kernel, stride)
                for before, after in zip([1, *widths[:-1]], widths, strict=True)
            ]
        )
        seen = [widths[-1], *(up + skip for up, skip in zip(ups, widths[-2::-1], strict=False))]
        self.up = nn.ModuleList(
            [
                ExactConvTranspose1d(before, after, kernel, stride)
                for before, after in zip(seen, ups, strict=True)
            ]
        )
        self.bend = nn.LeakyReLU(SLOPE)
        self.last = nn.Conv1d(base_filters + 1, 1, 7, padding=3)
        self.dropped = ups[
            : num_layers
            // 2
            # channels of each layer that takes part in dropout: the first half of the decoder's
            # (pix2pix: three of eight)
        ]

    def forward(self, x: torch.Tensor, keep: torch.Tensor | None = None) -> torch.Tensor:
        """`keep` [batch, sum(dropped)].

        Factors of the decoder's channels, 0 or 1 / (1 - rate); None: as in evaluation.
        """
        skipped = [x]
        for layer in self.down:
            skipped.append(self.bend(layer(skipped[-1])))
        x = skipped.pop()
        kept = [] if keep is None else list(keep.split(self.dropped, 1))
        for layer in self.up:
            before = skipped.pop()
            x = self.bend(layer(x, before.shape[2]))
            if kept:
                x = x * kept.pop(0)[:, :, None]
            x = torch.cat([x, before], 1)
        return self.last(x)


class Discriminator1d(nn.Module):
    """PatchGAN in one dimension (Isola et al. 2017, section 3.2.2): signals [batch, channels,
    frames] -> scores [batch, patches].

    `num_layers` convolutions of kernel 4 and stride 2, channels doubling from `base_filters` up to
    8 times as many, instance normalisation after all but the first; then one score for each
    position left. `start`: what it says of everything before it has learned. `offset`: the last
    convolution has a bias; a Wasserstein loss does not depend on it, so its gradient would be
    rounding noise that Adam blows up to full steps.
    """

    def __init__(
        self,
        channels: int,
        base_filters: int,
        num_layers: int,
        start: float = 0.0,
        *,
        offset: bool = True,
    ):
        super().__init__()
        widths = [base_filters * min(2**i, 8) for i in range(num_layers)]
        layers: list[nn.Module] = []
        for i, (before, after) in enumerate(zip([channels, *widths[:-1]], widths, strict=True)):
            # A bias before the normalisation would be taken out by it again.
            layers += [
                ConvDown1d(before, after, 4, 2, bias=not i),
                *([nn.GroupNorm(after, after)] if i else []),
                nn.LeakyReLU(SLOPE),
            ]
        self.layers = nn.Sequential(*layers, nn.Conv1d(widths[-1], 1, 3, padding=1, bias=offset))
        if offset:
            nn.init.constant_(self.layers[-1].get_parameter("bias"), start)

    def forward(self, signals: torch.Tensor) -> torch.Tensor:
        return self.layers(signals).flatten(1)
