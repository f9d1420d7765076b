"""One side of the game: a network with its optimizer, schedule, clipping and moving average. Hides how an update is shared and reduced."""

import contextlib
import copy
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn

from distgan import normalization
from distgan.ranks import Ranks

Log = dict[str, torch.Tensor]


class Player:
    def __init__(self, ranks: Ranks, net: nn.Module, optimizer: Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer], *,
                 clip: float | None = None, clamp: float | None = None, ema: float | None = None, schedule: Callable[[float], float] = lambda epoch: 1.0):
        """`clip`: largest gradient norm; `clamp`: largest weight, after each step (WGAN); `ema`: decay of the average of weights and buffers; `schedule`: epoch -> learning-rate factor."""
        self._ranks, self._clip, self._clamp, self._decay, self._schedule = ranks, clip, clamp, ema, schedule
        self.net = ranks.wrap(net)
        self.bare = ranks.bare(self.net)
        self.optimizer = optimizer(self.bare.parameters())
        self._limit_weights()
        self._rates = [group["lr"] for group in self.optimizer.param_groups]
        self.average = copy.deepcopy(self.bare).requires_grad_(False).eval() if ema else self.bare
        self.updates = 0
        self.skips = 0  # updates in a row, up to the last one, whose gradient was not finite

    def __call__(self, *args: torch.Tensor) -> torch.Tensor:
        """The network, inside its own update."""
        return self.net(*args)

    def inside(self, *args: torch.Tensor) -> torch.Tensor:
        """The same, but starting no collective: for terms of its own loss beside the first, such as a gradient penalty."""
        return self.bare(*args)

    @torch.no_grad()
    def fakes(self, *args: torch.Tensor) -> torch.Tensor:
        """Its output without gradient: what another player learns from."""
        return self.bare(*args)

    @contextlib.contextmanager
    def frozen(self):
        """`with D.frozen() as d:` gradients pass through `d` to its input but do not reach its weights, and no rank waits for another."""
        self.bare.requires_grad_(False)
        try:
            yield self.bare
        finally:
            self.bare.requires_grad_(True)

    def judging(self):
        """`with D.judging() as d:` the bare network in eval mode, without gradients: safe on one rank alone."""
        return _evaluating(self.bare)

    def averaged(self):
        """The same for the moving average; the network itself where there is none."""
        return _evaluating(self.average)

    def update(self, loss_of: Callable[[Any], tuple[torch.Tensor, Log]], batch: list[Any], epoch: float) -> Log:
        """One optimizer step on the mean loss over the global batch.

        `loss_of` takes one micro-batch of this rank and returns (mean loss over it, numbers to log). Gradients are averaged over micro-batches and
        ranks with one reduction. A gradient norm that is not finite skips the step: the reduced gradient is the same on all ranks, so all skip.
        Returns the logged means over this rank's micro-batches, plus `grad_norm`, `lr` and `skipped`.
        """
        factor = self._schedule(epoch)
        for group, rate in zip(self.optimizer.param_groups, self._rates, strict=True):
            group["lr"] = rate * factor
        self.optimizer.zero_grad(set_to_none=True)
        normalization.begin_update(self.bare)
        logs: list[Log] = []
        for i, micro in enumerate(batch):
            with contextlib.nullcontext() if i == len(batch) - 1 else self._ranks.no_sync(self.net):
                loss, log = loss_of(micro)
                (loss / len(batch)).backward()
            logs.append({"loss": loss, **log})
        norm = nn.utils.clip_grad_norm_(self.bare.parameters(), self._clip or float("inf"))
        finite = bool(torch.isfinite(norm))
        self.skips = 0 if finite else self.skips + 1
        normalization.end_update(self.bare, self._ranks, keep=finite)
        if finite:
            self.optimizer.step()
            self._limit_weights()
            self.updates += 1
            self._follow()
        means = {name: torch.stack([log[name].detach() for log in logs]).mean() for name in logs[0]}
        return means | {"grad_norm": norm, "lr": norm.new_tensor(self._rates[0] * factor), "skipped": norm.new_tensor(float(not finite))}

    @torch.no_grad()
    def _limit_weights(self):
        """Every weight into [-clamp, clamp] (Arjovsky et al. 2017, algorithm 1)."""
        if self._clamp:
            for p in self.bare.parameters():
                p.clamp_(-self._clamp, self._clamp)

    @torch.no_grad()
    def _follow(self):
        """Move the average: weights and running statistics alike, so that they belong together.

        The decay rises as min(decay, (1 + n) / (10 + n)) over the first updates (TensorFlow's ExponentialMovingAverage with num_updates):
        otherwise 0.9999 would keep the untrained network for ten thousand updates.
        """
        if self.average is self.bare:
            return
        weight = 1 - min(self._decay, (1 + self.updates) / (10 + self.updates))
        mine, theirs = self.average.state_dict(), self.bare.state_dict()
        for name, value in theirs.items():
            if value.is_floating_point():
                mine[name].lerp_(value, weight)
            else:
                mine[name].copy_(value)

    # ---- state
    def tensors(self) -> dict[str, torch.Tensor]:
        """Weights and buffers: `net.*`, and `ema.*` where there is an average."""
        state = {f"net.{name}": value for name, value in self.bare.state_dict().items()}
        if self.average is not self.bare:
            state |= {f"ema.{name}": value for name, value in self.average.state_dict().items()}
        return state

    def state(self) -> dict[str, Any]:
        """What is needed beside `tensors` to go on: plain data and the optimizer's tensors."""
        return {"optimizer": self.optimizer.state_dict(), "updates": self.updates, "skips": self.skips}

    def load(self, tensors: dict[str, torch.Tensor], state: dict[str, Any]) -> None:
        self.bare.load_state_dict({name[4:]: value for name, value in tensors.items() if name.startswith("net.")})
        if self.average is not self.bare:
            self.average.load_state_dict({name[4:]: value for name, value in tensors.items() if name.startswith("ema.")})
        self.optimizer.load_state_dict(state["optimizer"])
        self.updates, self.skips = state["updates"], state["skips"]


def last(logs: list[Log]) -> Log:
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
