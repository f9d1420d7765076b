"""Normalisation whose result depends neither on how many ranks share a batch nor on how many
micro-batches an update takes.

Both layers here change their state once per update of their own network (`begin_update` …
`end_update`, called by the player), never in a forward pass. Forward passes of a network while
another one is updated leave no trace.
"""

from collections.abc import Callable, Sequence

import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrize

from distgan.distributed.ranks import Ranks

MOMENTUM = 0.1  # of running statistics, per update


class GroupBatchNorm2d(nn.Module):
    """Batch normalisation over fixed groups of the global batch (ghost batch normalisation, Hoffer
    et al. 2017).

    `group` neighbouring samples of the global batch share statistics, however many ranks hold them:
    a group inside one rank's batch needs no communication; one that spans ranks sums its moments
    among them, differentiably. Ranks hold neighbouring slices of a micro-batch, and
    `batch_layout.fit` sees to it that a micro-batch holds whole groups. Equals torch's BatchNorm2d
    where one group is one batch.
    """

    def __init__(self, channels: int, group: int, ranks: Ranks, eps: float = 1e-5):
        super().__init__()
        self.channels, self.group, self.eps, self._ranks = channels, group, eps, ranks
        self.weight, self.bias = (
            nn.Parameter(torch.ones(channels)),
            nn.Parameter(torch.zeros(channels)),
        )
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))
        # What the groups of an update add up to: means, variances, number of groups. Changed in
        # place, so that CUDA graphs may hold.
        self.register_buffer("total", torch.zeros(2 * channels + 1), persistent=False)
        # Where one group's are written: beside them stands that it is one.
        self.register_buffer(
            "blank", torch.cat([torch.zeros(2 * channels), torch.ones(1)]), persistent=False
        )
        self.counting = False

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x: [samples, channels, height, width] -> the same shape."""
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
        self.total.add_(row)  # `+=` would also set the buffer anew
        return y

    def _synchronised(self, x):
        """A group that is the whole micro-batch of all ranks, by the kernels of torch's
        SyncBatchNorm: what `_across` computes, faster on GPUs.
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
        # bf16 and fp16 are too coarse for moments
        y, mean, var = _Across.apply(
            x.to(self.weight.dtype), self.weight, self.bias, self._ranks, self.group, self.eps
        )
        if self.counting:
            self.total.add_(
                torch.cat([mean.sum(0), var.sum(0), torch.full_like(mean[0, :1], len(mean))])
            )
        return y.to(x.dtype)


class _Across(torch.autograd.Function):
    """Batch normalisation over groups that span ranks: one sum over ranks in each direction,
    elsewhere torch's fused kernels.

    Returns the normalised x and, for each group of the micro-batch of all ranks, mean and unbiased
    variance [groups, channels].
    """

    @staticmethod
    def forward(ctx, x, weight, bias, ranks, group, eps):
        # Cut this rank's slice where groups end; each piece's moments go into the row of its group:
        # [groups, mean | mean of squares].
        start, groups, channels = (
            ranks.rank * len(x),
            len(x) * ranks.world_size // group,
            x.shape[1],
        )
        first, pixels = start // group, x[0, 0].numel()
        pieces = torch.tensor_split(x, list(range((first + 1) * group - start, len(x), group)))
        table = x.new_zeros(
            groups, 2 * channels, dtype=torch.float64
        )  # float64: no cancellation worth naming
        for row, piece in zip(table[first:], pieces, strict=False):
            mean, var = (
                moment.double() for moment in torch.batch_norm_update_stats(piece, None, None, 0.0)
            )
            row.copy_(torch.cat([mean, var + mean * mean]).mul_(len(piece) / group))
        mean, square = ranks.all_reduce_sum(table).split(channels, 1)
        var = (square - mean * mean).clamp_min_(0)
        count = group * pixels
        mean, var, unbiased = (
            mean.to(x.dtype),
            var.to(x.dtype),
            (var * (count / max(count - 1, 1))).to(x.dtype),
        )
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
        table = x.new_zeros(
            len(mean), 2 * len(weight), dtype=torch.float64
        )  # [groups, sum of dy | sum of dy times normalised x]
        parts, here, inverse = [], range(first, first + len(sizes)), (var + eps).rsqrt()
        for group, piece, gradient in zip(here, x.split(sizes), dy.split(sizes), strict=True):
            # As if the statistics were constants: what they depend on follows below, when all
            # ranks' sums are known.
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
            )  # CUDA needs all four
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
        return _joined(dx), sum(d_weight), sum(d_bias), None, None, None


def _joined(pieces: Sequence[torch.Tensor]) -> torch.Tensor:
    return pieces[0] if len(pieces) == 1 else torch.cat(pieces)


class SpectralNorm(nn.Module):
    """Parametrisation W / sigma(W) with u, v from power iteration (Miyato et al. 2018, eq. 6 and
    algorithm 1).

    torch's own iterates in every forward pass in training mode, so its weights would depend on the
    number of micro-batches. W's rows are output channels: axis `dim` of the weight.
    """

    def __init__(self, weight: torch.Tensor, dim: int = 0, eps: float = 1e-12):
        super().__init__()
        self.dim, self.eps = dim, eps
        matrix = self._matrix(weight.detach())
        self.register_buffer("u", F.normalize(torch.randn(matrix.shape[0]), dim=0, eps=eps))
        self.register_buffer("v", F.normalize(torch.randn(matrix.shape[1]), dim=0, eps=eps))
        self.iterate(weight, 15)

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        # Cloned, so that the next iteration does not change what this graph still needs. Never in
        # bf16: sigma scales the whole layer.
        with torch.autocast(weight.device.type, enabled=False):
            return weight / torch.vdot(self.u.clone(), self._matrix(weight) @ self.v.clone())

    @torch.no_grad()
    def iterate(self, weight: torch.Tensor, times: int = 1) -> None:
        matrix = self._matrix(weight)
        for _ in range(times):
            self.u.copy_(F.normalize(matrix @ self.v, dim=0, eps=self.eps))
            self.v.copy_(F.normalize(matrix.T @ self.u, dim=0, eps=self.eps))

    def _matrix(self, weight: torch.Tensor) -> torch.Tensor:
        return weight.transpose(0, self.dim).flatten(1)


def spectral_norm(layer: nn.Module) -> nn.Module:
    """Divide the layer's weight by its largest singular value."""
    parametrize.register_parametrization(
        layer,
        "weight",
        SpectralNorm(layer.weight, 1 if isinstance(layer, nn.ConvTranspose2d) else 0),
    )
    return layer


def spectral_norms(net: nn.Module) -> list[tuple[SpectralNorm, torch.Tensor]]:
    """(norm, the weight it divides) of all spectrally normalised layers."""
    return [
        (norm, module.original)
        for module in net.modules()
        if isinstance(module, parametrize.ParametrizationList)
        for norm in module
        if isinstance(norm, SpectralNorm)
    ]


def begin_update(net: nn.Module) -> None:
    """One power iteration, and start counting batch statistics."""
    for norm, weight in spectral_norms(net):
        norm.iterate(weight)
    norms = [module for module in net.modules() if isinstance(module, GroupBatchNorm2d)]
    for norm in norms:
        norm.counting = True
    if norms:
        torch._foreach_zero_([norm.total for norm in norms])


@torch.no_grad()
def end_update(net: nn.Module, ranks: Ranks) -> Callable[[torch.Tensor], None]:
    """Stop counting, and begin to take the mean over ranks; what is returned, called with `finite`,
    settles the running statistics.

    They move once, by the mean over all groups of the update, the same on all ranks; or not at all
    where `finite` is not 1.0.
    """
    norms = [module for module in net.modules() if isinstance(module, GroupBatchNorm2d)]
    for norm in norms:
        norm.counting = False
    # All layers in one piece: by themselves they would take longer than the rest of a small update.
    totals = (
        ranks.all_reduce_mean_async(torch.cat([norm.total for norm in norms])) if norms else None
    )

    @torch.no_grad()
    def settle(finite: torch.Tensor) -> None:
        if totals:
            found = torch.cat(
                [
                    total[:-1] / total[-1]
                    for total in totals().split([len(norm.total) for norm in norms])
                ]
            )
            running = [
                statistic for norm in norms for statistic in (norm.running_mean, norm.running_var)
            ]
            before = torch.cat(running)
            # Not a number where nothing was counted.
            after = torch.where(
                finite.bool() & found.isfinite(), before.lerp(found, MOMENTUM), before
            )
            torch._foreach_copy_(running, after.split([len(statistic) for statistic in running]))

    return settle
