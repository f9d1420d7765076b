"""A network with its optimizer, schedule, clipping and moving average (EMA): one player of the
adversarial game. An engine carries out its updates on all ranks.
"""

import contextlib
import copy
import dataclasses
import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn

from distgan.data.loader import MicroBatch
from distgan.distributed.ranks import Ranks
from distgan.engine import factory
from distgan.engine.ddp import Log, MakeOptimizer, PrecisionWrapper
from distgan.engine.strength import Strength
from distgan.nn import normalization


@dataclasses.dataclass(frozen=True)
class UpdateTrace:
    """The losses of one update, kept on the device for `training/nonfinite.py`.

    They are read when the journal's numbers are fetched: nothing here waits for the device.
    """

    # 1.0 where a loss or the gradient was not finite, on any rank; 0.0 where only fp16's loss scale
    # was too high
    skipped: torch.Tensor
    losses: list[torch.Tensor]  # of this rank's micro-batches
    positions: list[np.ndarray]  # of their samples, in the endless stream


@dataclasses.dataclass(frozen=True)
class HalfLife:
    """A moving average whose decay is given in images (Karras et al. 2020, StyleGAN2).

    `images`: after so many the network of before counts half; early in training the half-life is at
    most `rampup` times the images so far (null: no ramp). `batch`: images of an update.
    """

    images: float
    rampup: float | None
    batch: int

    def decay(self, updates: torch.Tensor) -> torch.Tensor:
        """Return the decay of one update after so many updates."""
        half = torch.full_like(updates, self.images)
        if self.rampup is not None:
            half = (updates * self.batch * self.rampup).clamp_(1e-8, self.images)
        return 0.5 ** (self.batch / half)


class Player:
    """A network in training; `module` is the network, `ema` its average, or `module` without
    one.
    """

    def __init__(
        self,
        ranks: Ranks,
        net: nn.Module,
        optimizer: MakeOptimizer,
        *,
        clip: float | None = None,
        clamp: float | None = None,
        ema: float | HalfLife | None = None,
        schedule: Callable[[float], float] = lambda epoch: 1.0,
        extra: Strength | None = None,
    ):
        """Move `net` to the device and wrap it for the run's engine.

        Weights that require no gradient stay as they are, and so do the vectors of their spectral
        norms.

        `clip`: largest gradient norm; `clamp`: largest weight, after each step (WGAN); `ema`: decay
        of the average of weights and buffers, by update or in images; `schedule`: epoch ->
        learning-rate factor; `extra`: what is saved and loaded with the player.
        """
        self._ranks, self._clip, self._clamp = ranks, clip, clamp
        self._decay, self._schedule, self._extra = ema, schedule, extra
        net = net.to(ranks.device, ranks.dtype)
        self.ema = _copied(net).requires_grad_(False).eval() if ema else net
        self.engine = factory.build(ranks, net, optimizer, accumulation=ranks.machine.accumulation)
        self.module = self.engine.module
        if clamp:
            self.engine.clamp(clamp)
        self._rates = [group["lr"] for group in self.engine.optimizer.param_groups]
        self._pairs = list(zip(_values(self.ema), _values(self.module), strict=True)) if ema else []
        self._norms = normalization.spectral_norms(self.ema) if ema else []
        # Counted on the device, so that no step waits for it.
        self.updates, self.skips = (
            torch.zeros((), device=ranks.device, dtype=torch.float64) for _ in range(2)
        )
        self.pending_traces: list[UpdateTrace] = []

    def __call__(self, *args: torch.Tensor) -> torch.Tensor:
        """Return the network's output within its own update."""
        return self.engine(*args)

    def forward_local(self, *args: torch.Tensor) -> torch.Tensor:
        """Return the output for a further term of the network's own loss, such as a gradient
        penalty: in the same precision, and without a collective.
        """
        return self.engine.local.uncompiled(*args)

    @torch.no_grad()
    def generate(self, *args: torch.Tensor) -> torch.Tensor:
        """Return the output without gradient, for another player to learn from."""
        return self.engine.local(*args)

    @contextlib.contextmanager
    def frozen(self) -> Iterator[PrecisionWrapper]:
        """Yield the network so that gradients reach its input but not its weights.

        `with D.frozen() as discriminator:`; starts no collective.
        """
        trained = [weight for weight in self.module.parameters() if weight.requires_grad]
        self.module.requires_grad_(False)
        try:
            yield self.engine.local
        finally:
            for weight in trained:
                weight.requires_grad_(True)

    def set_rates(self, lr: float | None = None, weight_decay: float | None = None) -> None:
        """Change the learning rate (before the schedule) or the weight decay from the next
        update.
        """
        if lr is not None:
            self._rates = [lr] * len(self._rates)
        if weight_decay is not None:
            for group in self.engine.optimizer.param_groups:
                group["weight_decay"] = weight_decay

    def evaluating(self) -> contextlib.AbstractContextManager[nn.Module]:
        """Yield the network in eval mode, without gradients and in full precision.

        Starts no collective, so that one rank may do it alone.
        """
        return _evaluating(self.module)

    def evaluating_ema(self) -> contextlib.AbstractContextManager[nn.Module]:
        """Yield the moving average in the same way; the network itself where there is none."""
        return _evaluating(self.ema)

    def update(
        self, loss_of: Callable[[Any], tuple[torch.Tensor, Log]], batch: list[Any], epoch: float
    ) -> Log:
        """Take one optimizer step on the mean loss over the global batch. Collective.

        `loss_of` takes one micro-batch of this rank and returns (mean loss over it, numbers to
        log). Gradients are averaged over micro-batches and ranks with one reduction. A loss that is
        not finite makes the gradient so, and then all ranks skip the step.
        Returns means over this rank's micro-batches: the logged numbers and `loss`, and beside them
        `grad_norm`, `lr` and `skipped`.
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
        # Batch statistics are reduced while the optimizer works.
        settle = normalization.end_update(self.module, self._ranks)
        norm, finite = self.engine.step(self._clip)
        settle(finite)
        if self._clamp:
            self.engine.clamp(self._clamp)
        bad, searching = 1 - finite, self.engine.overflow_expected
        if searching is not None:
            # An overflow in the search for fp16's loss scale is no bad number; 0 is written for its
            # unknown norm.
            norm = torch.where((finite == 0) & (searching == 1), torch.zeros_like(norm), norm)
            bad = bad * (1 - searching)
        self.skips.add_(bad).mul_(1 - finite)
        self._update_ema(finite)
        losses = [log["loss"] for log in logs]
        positions = [micro.positions for micro in batch if isinstance(micro, MicroBatch)]
        self.pending_traces.append(UpdateTrace(bad, losses, positions))
        means = logs[0]
        if len(logs) > 1:
            means = {name: torch.stack([log[name] for log in logs]).mean() for name in logs[0]}
        means = {name: value.detach() for name, value in means.items()}
        return means | {
            "grad_norm": norm,
            "lr": torch.full_like(norm, self._rates[0] * factor),
            "skipped": 1 - finite,
        }

    @torch.no_grad()
    def _update_ema(self, finite: torch.Tensor) -> None:
        """Count the update and move the average: weights and running statistics with one decay.

        The decay rises as min(decay, (1 + n) / (10 + n)) over the first updates (TensorFlow's
        ExponentialMovingAverage with num_updates): otherwise 0.9999 would keep the untrained
        network for ten thousand updates. A `HalfLife` has a ramp of its own.
        """
        self.updates += finite
        if self._decay is not None:
            weight = (1 - self._decay_after(self.updates)) * finite
            weight = weight.to(self._ranks.dtype)
            floating = [pair for pair in self._pairs if pair[0].is_floating_point()]
            averages, values = zip(*floating, strict=True)
            _approach(averages, values, weight)
            for average, value in self._pairs:
                if not average.is_floating_point():
                    average.copy_(value)
            # The average has singular vectors of its own: a mean of unit vectors is no unit vector.
            for norm, matrix in self._norms:
                norm.iterate(matrix)

    def _decay_after(self, updates: torch.Tensor) -> torch.Tensor:
        if isinstance(self._decay, HalfLife):
            return self._decay.decay(updates)
        return ((1 + updates) / (10 + updates)).clamp_max(self._decay or 0.0)

    def initial_share(self) -> float:
        """Return the share in the average, 0 to 1, of the network that training began with."""
        if self._decay is None:
            return 0.0
        first = min(int(self.updates), 10**6)  # of more updates it is less
        updates = torch.arange(1, first + 1, dtype=torch.float64)
        return float(self._decay_after(updates).log().sum().exp())

    @property
    def half_life(self) -> float:
        """Updates after which the network of before counts half in the average."""
        if isinstance(self._decay, HalfLife):
            return self._decay.images / self._decay.batch
        return math.log(0.5) / math.log(self._decay) if self._decay else 0.0

    # ---- state
    def tensors(self) -> dict[str, torch.Tensor]:
        """Return weights and buffers: `net.*`, and `ema.*` where there is an average."""
        state = {f"net.{name}": value for name, value in self.module.state_dict().items()}
        if self.ema is not self.module:
            state |= {f"ema.{name}": value for name, value in self.ema.state_dict().items()}
        return state

    def state(self) -> dict[str, Any]:
        """Return what `load` needs beside `tensors`: plain data and the optimizer's whole tensors.

        Collective: under DeepSpeed each rank holds a part of them.
        """
        return {
            "optimizer": self.engine.optimizer_state(),
            "updates": int(self.updates),
            "skips": int(self.skips),
            **self.engine.extra_state(),
            **({"extra": self._extra.state()} if self._extra else {}),
        }

    def load(self, tensors: dict[str, torch.Tensor], state: dict[str, Any]) -> None:
        """Go on from what `tensors` and `state` returned, under any engine and any number of
        ranks.
        """
        if self.ema is not self.module:
            self.ema.load_state_dict(
                {name[4:]: value for name, value in tensors.items() if name.startswith("ema.")}
            )
        for name in ("updates", "skips"):
            if type(state[name]) is not int or state[name] < 0:
                raise ValueError(f"{name} is {state[name]!r}, and no count")
        # Checkpoints of version 0.1 hold the optimizer's groups as well.
        optimizer = state["optimizer"].get("state", state["optimizer"])
        self.engine.load(
            {name[4:]: value for name, value in tensors.items() if name.startswith("net.")},
            optimizer,
            state,
        )
        self.updates.fill_(state["updates"])
        self.skips.fill_(state["skips"])
        if self._extra:
            self._extra.load(state.get("extra", {}))  # earlier checkpoints have none


def _copied(net: nn.Module) -> nn.Module:
    """Return a deep copy of a network.

    Torch copies only leaves. What else hangs on a module is what the hook of `nn.utils.weight_norm`
    computes anew in each forward pass: it is cut off the weights that it came from.
    """
    for module in net.modules():
        for name, value in vars(module).items():
            if isinstance(value, torch.Tensor):
                vars(module)[name] = value.detach()
    return copy.deepcopy(net)


def _approach(
    averages: tuple[torch.Tensor, ...], values: tuple[torch.Tensor, ...], weight: torch.Tensor
) -> None:
    """Compute averages += weight * (values - averages) in place."""
    if weight.is_cuda:  # three kernels for all; on a CPU, one pass over each
        gaps = torch._foreach_sub(values, averages)
        torch._foreach_mul_(gaps, weight)
        torch._foreach_add_(averages, gaps)
    else:
        for average, value in zip(averages, values, strict=True):
            average.lerp_(value, weight)


def _values(net: nn.Module) -> list[torch.Tensor]:
    """Return what is averaged: weights and buffers, without the vectors of spectral norms."""
    vectors = {
        id(vector) for norm, _ in normalization.spectral_norms(net) for vector in (norm.u, norm.v)
    }
    return [value for value in net.state_dict(keep_vars=True).values() if id(value) not in vectors]


def merge_logs(logs: list[Log]) -> Log:
    """Return the log of a step's last update, with `skipped` summed over all its updates."""
    return logs[-1] | {"skipped": torch.stack([log["skipped"] for log in logs]).sum()}


@contextlib.contextmanager
def _evaluating(net: nn.Module) -> Iterator[nn.Module]:
    training = net.training
    net.eval()
    try:
        with torch.no_grad():
            yield net
    finally:
        net.train(training)
