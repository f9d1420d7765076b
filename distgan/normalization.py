"""Normalisation whose result depends neither on how many ranks share a batch nor on how many micro-batches an update takes.

Both layers here change their state once per update of their own network (`begin_update` … `end_update`, called by the player), never
in a forward pass. Forward passes of a network while another one is updated leave no trace.
"""

import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrize

from distgan.ranks import Ranks

MOMENTUM = 0.1  # of running statistics, per update


class GroupBatchNorm2d(nn.Module):
    """Batch normalisation over fixed groups of the global batch (ghost batch normalisation, Hoffer et al. 2017).

    `group` neighbouring samples of the global batch share statistics, however many ranks hold them: a group inside one rank's batch needs no
    communication; one that spans ranks sums its moments among them, differentiably. Ranks hold neighbouring slices of a micro-batch,
    and `sharing.breakdown` sees to it that a micro-batch holds whole groups. Equals torch's BatchNorm2d where one group is one batch.
    """

    def __init__(self, channels: int, group: int, ranks: Ranks, eps: float = 1e-5):
        super().__init__()
        self.channels, self.group, self.eps, self._ranks = channels, group, eps, ranks
        self.weight, self.bias = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))
        # What the groups of an update add up to: means, variances, number of groups. Changed in place, so that CUDA graphs may hold.
        self.register_buffer("total", torch.zeros(2 * channels + 1), persistent=False)
        # Where one group's are written: beside them stands that it is one.
        self.register_buffer("blank", torch.cat([torch.zeros(2 * channels), torch.ones(1)]), persistent=False)
        self.counting = False

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x: [samples, channels, height, width] -> the same shape."""
        if not self.training:
            return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, False, 0.0, self.eps)
        if len(x) == self.group:
            return self._inside(x)
        if len(x) % self.group == 0:
            return torch.cat([self._inside(part) for part in x.split(self.group)])
        if x.is_cuda and self._ranks.machine.sync_batchnorm and len(x) * self._ranks.size == self.group:
            return self._synchronised(x)
        return self._across(x)

    def _inside(self, x):
        if not self.counting:
            return F.batch_norm(x, None, None, self.weight, self.bias, True, 1.0, self.eps)
        row = self.blank.clone()
        # With momentum 1 the "running" arguments receive this group's mean and unbiased variance.
        y = F.batch_norm(x, *row[:-1].split(self.channels), self.weight, self.bias, True, 1.0, self.eps)
        self.total.add_(row)  # `+=` would also set the buffer anew
        return y

    def _synchronised(self, x):
        """A group that is the whole micro-batch of all ranks, by the kernels of torch's SyncBatchNorm: what `_across` computes, faster on GPUs."""
        row = self.blank.clone()
        y = self._ranks.batch_norm(x, *row[:-1].split(self.channels), self.weight, self.bias, self.eps)
        if self.counting:
            self.total.add_(row)
        return y

    def _across(self, x):
        total = len(x) * self._ranks.size
        if total % self.group:
            raise RuntimeError(f"{len(x)} samples on each of {self._ranks.size} ranks are no whole number of groups of {self.group}")
        # Cut this rank's slice where groups end, and put each piece's moments into the row of its group: [groups, count | sum | sum of squares].
        start, pixels, dtype = self._ranks.rank * len(x), x[0, 0].numel(), self.weight.dtype
        cuts = [c - start for c in range(start - start % self.group + self.group, start + len(x), self.group)]
        first = start // self.group
        pieces = torch.tensor_split(x.to(dtype), cuts)  # bf16 and fp16 are too coarse for moments
        table = x.new_zeros(total // self.group, 2 * self.channels + 1, dtype=torch.float64)
        rows = []
        for piece in pieces:
            var, mean = (m.double() for m in torch.var_mean(piece, (0, 2, 3), correction=0))
            count = torch.full_like(mean[:1], len(piece) * pixels)
            rows.append(torch.cat([count, mean * count, (var + mean * mean) * count]))  # float64: no cancellation worth naming
        table = torch.cat([table[:first], torch.stack(rows), table[first + len(rows):]])
        table = self._ranks.sum(table)
        count, mean, square = table[:, :1], *(table[:, 1:] / table[:, :1]).split(self.channels, 1)
        var = (square - mean * mean).clamp_min(0)
        self._count(mean.sum(0).to(dtype), (var * count / (count - 1)).sum(0).to(dtype), len(table))
        scale = self.weight * (var + self.eps).rsqrt().to(dtype)  # [groups, channels]
        shift = self.bias - mean.to(dtype) * scale
        return torch.cat([piece * scale[first + i, :, None, None] + shift[first + i, :, None, None] for i, piece in enumerate(pieces)]).to(x.dtype)

    @torch.no_grad()
    def _count(self, mean, var, groups):
        if self.counting:
            self.total += torch.cat([mean, var, torch.full_like(mean[:1], groups)])


class SpectralNorm(nn.Module):
    """Parametrisation W / sigma(W) with u, v from power iteration (Miyato et al. 2018, eq. 6 and algorithm 1).

    torch's own iterates in every forward pass in training mode, so its weights would depend on the number of micro-batches.
    """

    def __init__(self, weight: torch.Tensor, eps: float = 1e-12):
        super().__init__()
        self.eps = eps
        matrix = weight.detach().flatten(1)
        self.register_buffer("u", F.normalize(torch.randn(matrix.shape[0]), dim=0, eps=eps))
        self.register_buffer("v", F.normalize(torch.randn(matrix.shape[1]), dim=0, eps=eps))
        self.iterate(weight, 15)

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        # Cloned, so that the next iteration does not change what this graph still needs. Never in bf16: sigma scales the whole layer.
        with torch.autocast(weight.device.type, enabled=False):
            return weight / torch.vdot(self.u.clone(), weight.flatten(1) @ self.v.clone())

    @torch.no_grad()
    def iterate(self, weight: torch.Tensor, times: int = 1) -> None:
        matrix = weight.flatten(1)
        for _ in range(times):
            self.u.copy_(F.normalize(matrix @ self.v, dim=0, eps=self.eps))
            self.v.copy_(F.normalize(matrix.T @ self.u, dim=0, eps=self.eps))


def spectral_norm(layer: nn.Module) -> nn.Module:
    """Divide the layer's weight by its largest singular value."""
    parametrize.register_parametrization(layer, "weight", SpectralNorm(layer.weight))
    return layer


def begin_update(net: nn.Module) -> None:
    """One power iteration, and start counting batch statistics."""
    norms = []
    for module in net.modules():
        if isinstance(module, parametrize.ParametrizationList):
            for norm in module:
                if isinstance(norm, SpectralNorm):
                    norm.iterate(module.original)
        elif isinstance(module, GroupBatchNorm2d):
            module.counting = True
            norms.append(module)
    if norms:
        torch._foreach_zero_([norm.total for norm in norms])


@torch.no_grad()
def end_update(net: nn.Module, ranks: Ranks, finite: torch.Tensor) -> None:
    """Move running statistics once by the mean over all groups of the update, the same on all ranks; leave them where `finite` is not 1.0."""
    norms = [module for module in net.modules() if isinstance(module, GroupBatchNorm2d)]
    for norm in norms:
        norm.counting = False
    if not norms:
        return
    # All layers in one piece: by themselves they would take longer than the rest of a small update.
    totals = ranks.mean(torch.cat([norm.total for norm in norms])).split([len(norm.total) for norm in norms])
    found = torch.cat([total[:-1] / total[-1] for total in totals])  # not a number where nothing was counted
    running = [statistic for norm in norms for statistic in (norm.running_mean, norm.running_var)]
    before = torch.cat(running)
    after = torch.where(finite.bool() & found.isfinite(), before.lerp(found, MOMENTUM), before)
    torch._foreach_copy_(running, after.split([len(statistic) for statistic in running]))
