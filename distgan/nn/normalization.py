"""Normalise alike on any number of ranks and micro-batches: batch norm over fixed groups of the
global batch, and spectral norm.

Both layers change their state once per update of their own network (between `begin_update` and
`end_update`, which the player calls), never in a forward pass, so forward passes while another
network is updated leave no trace.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrize

from distgan.distributed.ranks import Ranks
from distgan.nn.class_vectors import class_vectors

MOMENTUM = 0.1  # of running statistics, per update


class GroupBatchNorm2d(nn.Module):
    """Batch normalisation over fixed groups of the global batch (ghost batch normalisation, Hoffer
    et al. 2017).

    `group` neighbouring samples of the global batch share statistics, however many ranks hold them.
    A group within one rank's batch needs no communication; the moments of a group that spans ranks
    are summed over them, differentiably. Ranks hold neighbouring slices of a micro-batch, and
    `batch_layout.fit` only allows micro-batches of whole groups. Equals torch's BatchNorm2d where
    one group is one batch.
    """

    weight: torch.Tensor
    bias: torch.Tensor
    running_mean: torch.Tensor
    running_var: torch.Tensor
    total: torch.Tensor
    blank: torch.Tensor

    def __init__(
        self, channels: int, group: int, ranks: Ranks, eps: float = 1e-5, affine: bool = True
    ):
        super().__init__()
        self.channels, self.group, self.eps, self._ranks = channels, group, eps, ranks
        self.affine = affine
        if affine:
            self.weight = nn.Parameter(torch.ones(channels))
            self.bias = nn.Parameter(torch.zeros(channels))
        else:
            self.register_buffer("weight", torch.ones(channels), persistent=False)
            self.register_buffer("bias", torch.zeros(channels), persistent=False)
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))
        # Sums over the groups of an update: means, variances, number of groups. Changed in place,
        # as
        # CUDA graphs need it.
        self.register_buffer("total", torch.zeros(2 * channels + 1), persistent=False)
        # The row of one group, before its mean and variance are written: its count is 1.
        blank = torch.cat([torch.zeros(2 * channels), torch.ones(1)])
        self.register_buffer("blank", blank, persistent=False)
        self.counting = False

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Normalise x [samples, channels, height, width], the samples of this rank."""
        if not self.training:
            return F.batch_norm(
                x, self.running_mean, self.running_var, self.weight, self.bias, False, 0.0, self.eps
            )
        if len(x) % self.group == 0:
            return _joined([self._inside(part) for part in x.split(self.group)])
        if (
            x.is_cuda
            and self._ranks.machine.sync_batchnorm
            and len(x) * self._ranks.world_size == self.group
        ):
            return self._synchronised(x)
        return self._across(x)

    def _inside(self, x):
        if not self.counting:
            return F.batch_norm(x, None, None, self.weight, self.bias, True, 1.0, self.eps)
        row = self.blank.clone()
        # With momentum 1 the "running" arguments receive this group's mean and unbiased variance.
        y = F.batch_norm(
            x, *row[:-1].split(self.channels), self.weight, self.bias, True, 1.0, self.eps
        )
        self.total.add_(row)  # `+=` would assign the buffer anew
        return y

    def _synchronised(self, x):
        """Normalise one group, the whole micro-batch of all ranks, by the kernels of torch's
        SyncBatchNorm: as `_across`, but faster on GPUs.
        """
        row = self.blank.clone()
        y = self._ranks.batch_norm(
            x, *row[:-1].split(self.channels), self.weight, self.bias, self.eps
        )
        if self.counting:
            self.total.add_(row)
        return y

    def _across(self, x):
        total = len(x) * self._ranks.world_size
        if total % self.group:
            raise RuntimeError(
                f"{len(x)} samples on each of {self._ranks.world_size} ranks are no whole number of"
                f" groups of {self.group}"
            )
        # bf16 and fp16 are too coarse for moments.
        y, mean, var = _Across.apply(
            x.to(self.weight.dtype), self.weight, self.bias, self._ranks, self.group, self.eps
        )
        if self.counting:
            self.total.add_(
                torch.cat([mean.sum(0), var.sum(0), torch.full_like(mean[0, :1], len(mean))])
            )
        return y.to(x.dtype)


class ConditionalBatchNorm2d(nn.Module):
    """Batch normalisation over groups, then a gain and an offset for each class and channel
    (Dumoulin et al. 2017; Miyato and Koyama 2018): x [samples, channels, height, width] and classes
    int64 [samples], or weights of them [samples, classes] -> the same shape as x.

    The statistics are those of a group, whatever its classes.
    """

    def __init__(self, channels: int, classes: int, group: int, ranks: Ranks):
        super().__init__()
        self.norm = GroupBatchNorm2d(channels, group, ranks, affine=False)
        self.gain = nn.Embedding(classes, channels)
        self.offset = nn.Embedding(classes, channels)
        nn.init.ones_(self.gain.weight)
        nn.init.zeros_(self.offset.weight)

    def forward(self, x: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
        layers = (self.gain, self.offset)
        gain, offset = (class_vectors(layer, classes)[:, :, None, None] for layer in layers)
        return torch.addcmul(offset.to(x.dtype), self.norm(x), gain.to(x.dtype))


class _Across(torch.autograd.Function):
    """Batch normalisation over groups that span ranks: torch's fused kernels, and one sum over
    ranks in each direction.

    Returns the normalised x, and mean and unbiased variance [groups, channels] of each group of the
    micro-batch of all ranks.
    """

    @staticmethod
    def forward(ctx, x, weight, bias, ranks, group, eps):
        # Cut this rank's slice where groups end; the moments of each piece go into the row of its
        # group: [groups, mean | mean of squares], in float64 against cancellation.
        start, channels = ranks.rank * len(x), x.shape[1]
        groups = len(x) * ranks.world_size // group
        first, pixels = start // group, x[0, 0].numel()
        pieces = torch.tensor_split(x, list(range((first + 1) * group - start, len(x), group)))
        table = x.new_zeros(groups, 2 * channels, dtype=torch.float64)
        for row, piece in zip(table[first:], pieces, strict=False):
            mean, var = (
                moment.double() for moment in torch.batch_norm_update_stats(piece, None, None, 0.0)
            )
            row.copy_(torch.cat([mean, var + mean * mean]).mul_(len(piece) / group))
        mean, square = ranks.all_reduce_sum(table).split(channels, 1)
        var = (square - mean * mean).clamp_min_(0)
        count = group * pixels
        unbiased = (var * (count / max(count - 1, 1))).to(x.dtype)
        mean, var = mean.to(x.dtype), var.to(x.dtype)
        y = _joined(
            [
                F.batch_norm(piece, mean[first + i], var[first + i], weight, bias, False, 0.0, eps)
                for i, piece in enumerate(pieces)
            ]
        )
        ctx.save_for_backward(x, weight, mean, var)
        ctx.shape = ranks, first, count, eps, [len(piece) for piece in pieces]
        ctx.mark_non_differentiable(mean, unbiased)
        return y, mean, unbiased

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, dy, *_):
        x, weight, mean, var = ctx.saved_tensors
        ranks, first, count, eps, sizes = ctx.shape
        # [groups, sum of dy | sum of dy times normalised x]
        table = x.new_zeros(len(mean), 2 * len(weight), dtype=torch.float64)
        parts, here, inverse = [], range(first, first + len(sizes)), (var + eps).rsqrt()
        for group, piece, gradient in zip(here, x.split(sizes), dy.split(sizes), strict=True):
            # The gradient with constant statistics; the rest needs the sums of all ranks and is
            # added below. CUDA needs all four statistics.
            dx, d_weight, d_bias = torch.ops.aten.native_batch_norm_backward(
                gradient,
                piece,
                weight,
                mean[group],
                var[group],
                mean[group],
                inverse[group],
                False,
                eps,
                [True, True, True],
            )
            parts.append((dx, d_weight, d_bias))
            table[group] = torch.cat([d_bias, d_weight])
        from_mean, from_scale = (
            (ranks.all_reduce_sum(table) / count).to(x.dtype).split(len(weight), 1)
        )
        slope = -weight * inverse * inverse * from_scale
        offset = -weight * inverse * from_mean - slope * mean
        for group, piece, (dx, _, _) in zip(here, x.split(sizes), parts, strict=True):
            dx.addcmul_(piece, slope[group, :, None, None]).add_(offset[group, :, None, None])
        dx, d_weight, d_bias = zip(*parts, strict=True)
        return _joined(list(dx)), sum(d_weight), sum(d_bias), None, None, None


def _joined(pieces: list[torch.Tensor]) -> torch.Tensor:
    return pieces[0] if len(pieces) == 1 else torch.cat(pieces)


class SpectralNorm(nn.Module):
    """The parametrisation W / sigma(W) with u, v from power iteration (Miyato et al. 2018, eq. 6
    and algorithm 1).

    torch's own iterates in every forward pass in training mode, so that its weights depend on the
    number of micro-batches. The rows of W are output channels: axis `dim` of the weight.
    """

    u: torch.Tensor
    v: torch.Tensor

    def __init__(self, weight: torch.Tensor, dim: int = 0, eps: float = 1e-12):
        super().__init__()
        self.dim, self.eps = dim, eps
        matrix = self._matrix(weight.detach())
        self.register_buffer("u", F.normalize(torch.randn(matrix.shape[0]), dim=0, eps=eps))
        self.register_buffer("v", F.normalize(torch.randn(matrix.shape[1]), dim=0, eps=eps))
        self.iterate(weight, 15)

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        # Cloned, since this graph still needs them after the next iteration. Never in bf16: sigma
        # scales the whole layer.
        with torch.autocast(weight.device.type, enabled=False):
            return weight / torch.vdot(self.u.clone(), self._matrix(weight) @ self.v.clone())

    @torch.no_grad()
    def iterate(self, weight: torch.Tensor, times: int = 1) -> None:
        """Take steps of the power iteration: u and v approach the largest singular vectors."""
        matrix = self._matrix(weight)
        for _ in range(times):
            self.u.copy_(F.normalize(matrix @ self.v, dim=0, eps=self.eps))
            self.v.copy_(F.normalize(matrix.T @ self.u, dim=0, eps=self.eps))

    def _matrix(self, weight: torch.Tensor) -> torch.Tensor:
        return weight.transpose(0, self.dim).flatten(1)


def spectral_norm(layer: Any) -> Any:
    """Divide the layer's weight by its largest singular value; return the layer."""
    dim = 1 if isinstance(layer, nn.ConvTranspose2d) else 0
    parametrize.register_parametrization(layer, "weight", SpectralNorm(layer.weight, dim))
    return layer


def spectral_norms(net: nn.Module) -> list[tuple[SpectralNorm, torch.Tensor]]:
    """Return (norm, the weight that it divides) of all spectrally normalised layers."""
    return [
        (norm, module.original)
        for module in net.modules()
        if isinstance(module, parametrize.ParametrizationList)
        for norm in module
        if isinstance(norm, SpectralNorm)
    ]


def begin_update(net: nn.Module) -> None:
    """Take one power iteration and start to count batch statistics.

    The norm of a weight that does not train stays as it is: its layer is a fixed function.
    """
    for norm, weight in spectral_norms(net):
        if weight.requires_grad:
            norm.iterate(weight)
    norms = [module for module in net.modules() if isinstance(module, GroupBatchNorm2d)]
    for layer in norms:
        layer.counting = True
    if norms:
        torch._foreach_zero_([layer.total for layer in norms])


@torch.no_grad()
def end_update(net: nn.Module, ranks: Ranks) -> Callable[[torch.Tensor], None]:
    """Stop counting and start to reduce; return `settle(finite)`, which moves running statistics.

    They move once, by the mean over all groups of the update, equal on all ranks; not at all where
    `finite` is not 1.0.
    """
    norms = [module for module in net.modules() if isinstance(module, GroupBatchNorm2d)]
    for norm in norms:
        norm.counting = False
    if not norms:
        return lambda finite: None
    # All layers in one reduction: one each would take longer than the rest of a small update.
    totals = ranks.all_reduce_mean_async(torch.cat([norm.total for norm in norms]))

    @torch.no_grad()
    def settle(finite: torch.Tensor) -> None:
        layers = totals().split([len(norm.total) for norm in norms])
        # NaN where nothing was counted.
        batch = torch.cat([total[:-1] / total[-1] for total in layers])
        running = [value for norm in norms for value in (norm.running_mean, norm.running_var)]
        before = torch.cat(running)
        after = torch.where(finite.bool() & batch.isfinite(), before.lerp(batch, MOMENTUM), before)
        torch._foreach_copy_(running, after.split([len(value) for value in running]))

    return settle
