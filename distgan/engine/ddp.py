"""One network and its optimizer, in one process or shared by DDP: forward, backward, reduce, clip,
step. `zero` does the same with DeepSpeed.

Nothing here waits for the device: whether a gradient is finite is decided on it, and the optimizer
steps, or does not, accordingly.
"""

import contextlib
import functools
import inspect
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn

from distgan.core.errors import LaunchError
from distgan.distributed.ranks import Ranks

Log = dict[str, torch.Tensor]
Loss = Callable[[], tuple[torch.Tensor, Log]]
SCALE_FLOOR = 1.0  # of float16's loss: below it, what is not finite is no matter of scale
MakeOptimizer = Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]


class PrecisionWrapper(nn.Module):
    """A network as it is called in training: autocast, memory format and torch.compile inside,
    outputs in the run's own type.

    Inside, not around the wrapped network: DeepSpeed switches an outer autocast off, and the bare
    network is called as often as the wrapped one.
    """

    def __init__(self, net: nn.Module, ranks: Ranks):
        super().__init__()
        self.net, self._dtype, self._autocast, self._device = (
            net,
            ranks.dtype,
            ranks.autocast,
            ranks.device.type,
        )
        mode = ranks.machine.compile
        # Not a submodule: its parameters are the network's, and would stand twice in every list.
        self._call = (torch.compile(net, mode=mode, dynamic=False) if mode else net,)
        self._last = ranks.machine.channels_last
        if self._last:
            net.to(memory_format=torch.channels_last)

    def forward(self, *args: torch.Tensor) -> torch.Tensor:
        return self._cast(self._call[0], args)

    def uncompiled(self, *args: torch.Tensor) -> torch.Tensor:
        """The same where it is to be differentiated twice, which torch refuses for what it
        compiled.
        """
        return self._cast(self.net, args)

    def _cast(
        self, call: Callable[..., torch.Tensor], args: tuple[torch.Tensor, ...]
    ) -> torch.Tensor:
        if self._last:
            args = tuple(
                x.contiguous(memory_format=torch.channels_last) if x.dim() == 4 else x for x in args
            )
        if self._autocast is None:
            return call(*args)
        with torch.autocast(self._device, self._autocast):
            out = call(*args)
        return out.to(self._dtype)


class Engine:
    """A network that takes updates on the mean loss over the global batch, in one process or in
    DDP.

    `optimizer` makes one of the network's parameters; `accumulation` micro-batches make an update.
    """

    def __init__(
        self, ranks: Ranks, net: nn.Module, optimizer: MakeOptimizer, *, accumulation: int
    ):
        self.ranks, self._accumulation = ranks, accumulation
        self.module = net.to(ranks.device, ranks.dtype)
        self.local = PrecisionWrapper(self.module, ranks)
        self.optimizer = _with_implementation(optimizer, ranks.machine.optimizer, ranks.device)(
            self.module.parameters()
        )
        self._wrapped = self._wrap()
        self._scaler = (
            torch.amp.GradScaler(ranks.device.type) if ranks.autocast is torch.float16 else None
        )
        self.overflow_expected: torch.Tensor | None = (
            # float16: 1.0 where the last step's loss scale could still fall, so that an overflow is
            # no bad number
            None
        )

    def _wrap(self) -> nn.Module:
        wrapped = self.ranks.wrap(self.local)
        if self.ranks.world_size > 1:
            # After its first backward pass DDP lays the gradients out anew, in the order in which
            # they came, and where a gradient lies decides in which order three ranks are added. The
            # first step of an attempt that goes on would round otherwise: that pass is taken here,
            # on nothing.
            usual, self.local._call = (
                self.local._call,
                (lambda: 0 * sum(p.sum() for p in self.module.parameters()),),
            )
            wrapped().backward()
            self.local._call = usual
            self.optimizer.zero_grad(set_to_none=True)
        return wrapped

    def __call__(self, *args: torch.Tensor) -> torch.Tensor:
        """Forward pass inside this network's own update; its gradients will be reduced."""
        return self._wrapped(*args)

    # ---- an update
    def begin(self) -> None:
        self.optimizer.zero_grad(set_to_none=True)
        if self.ranks.machine.compile:
            # outputs of the update before may be written over
            torch.compiler.cudagraph_mark_step_begin()

    def backward(self, loss_of: Loss, *, last: bool) -> Log:
        """Forward and backward of one micro-batch; with the last, gradients are the mean over
        micro-batches and ranks, after one reduction.

        All terms of a loss take part in the one backward pass: a second one would find DDP's
        reduction finished. Returns the log and `loss`.
        """
        with (
            contextlib.nullcontext() if last else self.ranks.no_sync(self._wrapped)
        ):  # which must hold the forward pass too
            loss, log = loss_of()
            mean = poison_gradient_if_nonfinite(
                loss / self._accumulation if self._accumulation > 1 else loss
            )
            self.ranks.backward(self._scaler.scale(mean) if self._scaler else mean)
        return {"loss": loss.detach(), **log}

    def step(self, clip: float | None) -> tuple[torch.Tensor, torch.Tensor]:
        """(norm of the whole gradient before clipping, 1.0 where it is finite and 0.0 where not):
        float32 scalars, equal on all ranks.

        A gradient that is not finite changes neither weights nor the optimizer's state. Every rank
        holds the same reduced gradient, so all skip.
        """
        if self._scaler:
            self._scaler.unscale_(self.optimizer)
        parameters = [p for p in self.module.parameters() if p.grad is not None]
        norm = nn.utils.get_total_norm([p.grad for p in parameters])
        if clip:
            nn.utils.clip_grads_with_norm_(parameters, clip, norm)
        finite = torch.isfinite(norm).to(torch.float32)
        step_where(self.optimizer, finite)
        if self._scaler:
            self.overflow_expected = (self._scaler._scale > SCALE_FLOOR).to(
                torch.float32
            )  # asked of the tensor: get_scale() would wait for the device
            self._scaler.update()
        return norm.float(), finite

    @torch.no_grad()
    def clamp(self, limit: float) -> None:
        """Every weight into [-limit, limit] (Arjovsky et al.

        2017, algorithm 1): the same on all ranks, whose weights are the same.
        """
        torch._foreach_clamp_min_(parameters := list(self.module.parameters()), -limit)
        torch._foreach_clamp_max_(parameters, limit)

    # ---- state
    def optimizer_state(self) -> dict[int, dict[str, Any]]:
        """Whole tensors by the number of the parameter, in torch's own form.

        It goes on under any engine and any number of ranks. Collective.
        """
        return self.optimizer.state_dict()["state"]

    def extra_state(self) -> dict[str, Any]:
        """The loss scale of float16."""
        return {"scaler": self._scaler.state_dict()} if self._scaler else {}

    def load(
        self,
        tensors: dict[str, torch.Tensor],
        optimizer_state: dict[int, dict[str, Any]],
        extra: dict[str, Any],
    ) -> None:
        self.module.load_state_dict(tensors)
        # The groups are this run's own: learning rates follow from the epoch, and how to go through
        # the weights may differ between machines.
        self.optimizer.load_state_dict(
            {"state": optimizer_state, "param_groups": self.optimizer.state_dict()["param_groups"]}
        )
        if self._scaler and "scaler" in extra:
            self._scaler.load_state_dict(extra["scaler"])


def poison_gradient_if_nonfinite(loss: torch.Tensor) -> torch.Tensor:
    """The same loss, to the bit, whose gradient is NaN where the loss is not finite.

    What one rank has met reaches all with the reduction.
    """
    return loss * (1 + 0 * loss.detach())


def step_where(optimizer: torch.optim.Optimizer, finite: torch.Tensor) -> None:
    """`optimizer.step()` if `finite` (a scalar on the device) is 1.0, else nothing, without asking
    the device which.

    Fused implementations take the flag themselves. For others everything is stepped and, where it
    should not have been, put back.
    """
    if getattr(optimizer, "_step_supports_amp_scaling", False):
        optimizer.grad_scale, optimizer.found_inf = None, 1 - finite
        optimizer.step()
        return
    if finite.device.type != "cpu":
        _step_and_put_back(optimizer, finite)
    elif finite:  # asking costs nothing here
        optimizer.step()


@torch.no_grad()
def _step_and_put_back(optimizer: torch.optim.Optimizer, finite: torch.Tensor) -> None:
    parameters = [
        p for group in optimizer.param_groups for p in group["params"] if p.grad is not None
    ]
    if not all(optimizer.state.get(p) for p in parameters):
        _make_state_or_put_back(optimizer, parameters, finite)
        return
    values = _stepped(optimizer, parameters)
    # In one piece: a few kernels, where each weight and each of its moments by itself would take
    # three.
    before = torch.cat([value.flatten() for value in values])
    optimizer.step()
    kept = torch.where(finite.bool(), torch.cat([value.flatten() for value in values]), before)
    torch._foreach_copy_(
        values,
        [
            part.view(value.shape)
            for part, value in zip(kept.split([v.numel() for v in values]), values, strict=True)
        ],
    )


def _make_state_or_put_back(
    optimizer: torch.optim.Optimizer, parameters: list[nn.Parameter], finite: torch.Tensor
) -> None:
    """The first step. State made in it starts at zero, which is what it goes back to."""
    before = {value: value.clone() for value in _stepped(optimizer, parameters)}
    optimizer.step()
    for value in _stepped(optimizer, parameters):
        value.copy_(torch.where(finite.bool(), value, before.get(value, torch.zeros_like(value))))


def _stepped(
    optimizer: torch.optim.Optimizer, parameters: list[nn.Parameter]
) -> list[torch.Tensor]:
    """What a step changes: weights and the optimizer's tensors."""
    return parameters + [
        value
        for p in parameters
        for value in optimizer.state.get(p, {}).values()
        if isinstance(value, torch.Tensor)
    ]


def _with_implementation(
    optimizer: MakeOptimizer, which: str, device: torch.device
) -> MakeOptimizer:
    """The same optimizer, going through the weights in the way asked for.

    One kernel for all (fused), for each operation (foreach), or for each tensor.
    """
    kind = optimizer.func if isinstance(optimizer, functools.partial) else optimizer
    known = inspect.signature(kind).parameters if inspect.isclass(kind) else {}
    name = {"auto": "fused", "loop": "foreach"}.get(which, which)
    options = {name: which != "loop"} if name in known else {}
    if not options and which != "auto":
        raise LaunchError(
            f"machine.optimizer={which}: {getattr(kind, '__name__', kind)} has no such"
            " implementation; machine.optimizer=auto takes what it has"
        )
    if device.type == "cuda" and "capturable" in known and not options.get("fused"):
        options["capturable"] = (
            True  # counts its steps on the device: else `step_where` would have to wait for it
        )
    return functools.partial(optimizer, **options)
