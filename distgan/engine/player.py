"""One side of the game: a network with its optimizer, schedule, clipping and moving average. An
engine shares and reduces its updates.
"""

import contextlib
import copy
import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn

from distgan.data.loader import MicroBatch
from distgan.distributed.ranks import Ranks
from distgan.engine import factory
from distgan.engine.ddp import Log, MakeOptimizer
from distgan.nn import normalization


@dataclasses.dataclass(frozen=True)
class UpdateTrace:
    """The losses of one update, kept on the device for `training/nonfinite.py`.

    They are read when the journal's numbers are fetched: nothing here waits for the device.
    """

    # 1.0 where a loss or the gradient was not finite, on any rank; not where fp16's loss scale was
    # only too high
    skipped: torch.Tensor
    losses: list[torch.Tensor]  # of this rank's micro-batches
    positions: list[np.ndarray]  # of their samples, in the endless stream


class Player:
    def __init__(
        self,
        ranks: Ranks,
        net: nn.Module,
        optimizer: MakeOptimizer,
        *,
        clip: float | None = None,
        clamp: float | None = None,
        ema: float | None = None,
        schedule: Callable[[float], float] = lambda epoch: 1.0,
    ):
        """`clip`: largest gradient norm; `clamp`: largest weight, after each step (WGAN); `ema`:
        decay of the average of weights and buffers; `schedule`: epoch -> learning-rate factor.
        """
        self._ranks, self._clip, self._clamp, self._decay, self._schedule = (
            ranks,
            clip,
            clamp,
            ema,
            schedule,
        )
        net = net.to(ranks.device, ranks.dtype)
        self.ema = copy.deepcopy(net).requires_grad_(False).eval() if ema else net
        self.engine = factory.build(ranks, net, optimizer, accumulation=ranks.machine.accumulation)
        self.module = self.engine.module
        if clamp:
            self.engine.clamp(clamp)
        self._rates = [group["lr"] for group in self.engine.optimizer.param_groups]
        self._pairs = list(zip(_values(self.ema), _values(self.module), strict=True)) if ema else []
        self._norms = normalization.spectral_norms(self.ema) if ema else []
        # Counted on the device: nothing in a step waits for it.
        self.updates, self.skips = (
            torch.zeros((), device=ranks.device, dtype=torch.float64) for _ in range(2)
        )
        self.pending_traces: list[UpdateTrace] = []

    def __call__(self, *args: torch.Tensor) -> torch.Tensor:
        """The network, inside its own update."""
        return self.engine(*args)

    def forward_local(self, *args: torch.Tensor) -> torch.Tensor:
        """The same in the same precision, but starting no collective.

        For terms of its own loss beside the first, such as a gradient penalty.
        """
        return self.engine.local.uncompiled(*args)

    @torch.no_grad()
    def generate(self, *args: torch.Tensor) -> torch.Tensor:
        """Its output without gradient: what another player learns from."""
        return self.engine.local(*args)

    @contextlib.contextmanager
    def frozen(self):
        """`with D.frozen() as d:` gradients pass through `d` to its input but do not reach its
        weights, and no rank waits for another.
        """
        self.module.requires_grad_(False)
        try:
            yield self.engine.local
        finally:
            self.module.requires_grad_(True)

    def set_rates(self, lr: float | None = None, weight_decay: float | None = None) -> None:
        """Change the learning rate, before its schedule, or the weight decay from the next update
        on.
        """
        if lr is not None:
            self._rates = [lr] * len(self._rates)
        if weight_decay is not None:
            for group in self.engine.optimizer.param_groups:
                group["weight_decay"] = weight_decay

    def evaluating(self):
        """`with D.evaluating() as d:` the bare network in eval mode, without gradients and in full
        precision: safe on one rank alone.
        """
        return _evaluating(self.module)

    def evaluating_ema(self):
        """The same for the moving average; the network itself where there is none."""
        return _evaluating(self.ema)

    def update(
        self, loss_of: Callable[[Any], tuple[torch.Tensor, Log]], batch: list[Any], epoch: float
    ) -> Log:
        """One optimizer step on the mean loss over the global batch.

        `loss_of` takes one micro-batch of this rank and returns (mean loss over it, numbers to
        log). Gradients are averaged over micro-batches and ranks with one reduction. A loss that is
        not finite makes the gradient so; a gradient that is not finite skips the step: the reduced
        one is the same on all ranks, so all skip.
        Returns the logged means over this rank's micro-batches, plus `grad_norm`, `lr` and
        `skipped`.
        """
        factor = self._schedule(epoch)
        for group, rate in zip(self.engine.optimizer.param_groups, self._rates, strict=True):
            group["lr"] = rate * factor
        normalization.begin_update(self.module)
        self.engine.begin()
        logs = [
            self.engine.backward(partial(loss_of, micro), last=i == len(batch) - 1)
            for i, micro in enumerate(batch)
        ]
        settle = normalization.end_update(
            self.module, self._ranks
        )  # statistics travel while the optimizer works
        norm, finite = self.engine.step(self._clip)
        settle(finite)
        if self._clamp:
            self.engine.clamp(self._clamp)
        bad = (
            (1 - finite) * (1 - self.engine.overflow_expected)
            if self.engine.overflow_expected is not None
            else 1 - finite
        )
        self.skips.add_(bad).mul_(1 - finite)
        self._follow(finite)
        self.pending_traces.append(
            UpdateTrace(
                bad,
                [log["loss"] for log in logs],
                [micro.positions for micro in batch if isinstance(micro, MicroBatch)],
            )
        )
        means = (
            logs[0]
            if len(logs) == 1
            else {name: torch.stack([log[name] for log in logs]).mean() for name in logs[0]}
        )
        means = {name: value.detach() for name, value in means.items()}
        if (
            self.engine.overflow_expected is not None
            # the search for fp16's loss scale is no bad number: 0 stands for a norm that nobody knows
        ):
            norm = torch.where(
                (finite == 0) & (self.engine.overflow_expected == 1), torch.zeros_like(norm), norm
            )
        return means | {
            "grad_norm": norm,
            "lr": torch.full_like(norm, self._rates[0] * factor),
            "skipped": 1 - finite,
        }

    @torch.no_grad()
    def _follow(self, finite: torch.Tensor) -> None:
        """Count, and move the average: weights and running statistics alike, so that they belong
        together.

        The decay rises as min(decay, (1 + n) / (10 + n)) over the first updates (TensorFlow's
        ExponentialMovingAverage with num_updates): otherwise 0.9999 would keep the untrained
        network for ten thousand updates.
        """
        self.updates += finite
        if self._pairs:
            weight = (
                1 - ((1 + self.updates) / (10 + self.updates)).clamp_max(self._decay)
            ) * finite
            weight = weight.to(self._ranks.dtype)
            floating = [(mine, theirs) for mine, theirs in self._pairs if mine.is_floating_point()]
            _approach(*zip(*floating, strict=True), weight)
            for mine, theirs in self._pairs:
                if not mine.is_floating_point():
                    mine.copy_(theirs)
            for (
                norm,
                weight,
            ) in (
                self._norms
            ):  # an average has singular vectors of its own: the mean of unit vectors is none
                norm.iterate(weight)

    # ---- state
    def tensors(self) -> dict[str, torch.Tensor]:
        """Weights and buffers: `net.*`, and `ema.*` where there is an average."""
        state = {f"net.{name}": value for name, value in self.module.state_dict().items()}
        if self.ema is not self.module:
            state |= {f"ema.{name}": value for name, value in self.ema.state_dict().items()}
        return state

    def state(self) -> dict[str, Any]:
        """What is needed beside `tensors` to go on.

        Plain data and the optimizer's tensors, whole under any engine. Collective.
        """
        return {
            "optimizer": self.engine.optimizer_state(),
            "updates": int(self.updates),
            "skips": int(self.skips),
            **self.engine.extra_state(),
        }

    def load(self, tensors: dict[str, torch.Tensor], state: dict[str, Any]) -> None:
        if self.ema is not self.module:
            self.ema.load_state_dict(
                {name[4:]: value for name, value in tensors.items() if name.startswith("ema.")}
            )
        optimizer = state["optimizer"].get(
            "state", state["optimizer"]
        )  # until version 0.1 with its groups
        self.engine.load(
            {name[4:]: value for name, value in tensors.items() if name.startswith("net.")},
            optimizer,
            state,
        )
        self.updates.fill_(state["updates"])
        self.skips.fill_(state["skips"])


def _approach(
    mine: tuple[torch.Tensor, ...], theirs: tuple[torch.Tensor, ...], weight: torch.Tensor
) -> None:
    """mine += weight * (theirs - mine)"""
    if weight.is_cuda:  # three kernels for all; on a CPU, one pass over each
        gaps = torch._foreach_sub(theirs, mine)
        torch._foreach_mul_(gaps, weight)
        torch._foreach_add_(mine, gaps)
    else:
        for one, other in zip(mine, theirs, strict=True):
            one.lerp_(other, weight)


def _values(net: nn.Module) -> list[torch.Tensor]:
    """Weights and buffers that are averaged: all of the state but the vectors of spectral norms."""
    vectors = {
        id(vector) for norm, _ in normalization.spectral_norms(net) for vector in (norm.u, norm.v)
    }
    return [value for value in net.state_dict(keep_vars=True).values() if id(value) not in vectors]


def merge_logs(logs: list[Log]) -> Log:
    """The numbers of a step of several updates: those of the last one, and how many were skipped."""
    return logs[-1] | {"skipped": torch.stack([log["skipped"] for log in logs]).sum()}


@contextlib.contextmanager
def _evaluating(net: nn.Module):
    was = net.training
    net.eval()
    try:
        with torch.no_grad():
            yield net
    finally:
        net.train(was)
