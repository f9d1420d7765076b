"""Update one network in one process or under DDP: forward, backward, reduce, clip, step.

`deepspeed_zero` does the same with DeepSpeed. Nothing here waits for the device: whether a gradient
is finite is decided there, and with it whether the optimizer steps.
"""

import contextlib
import functools
import inspect
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import nn

from distgan.core.errors import LaunchError
from distgan.distributed.ranks import Ranks
from distgan.engine.guarded_step import step_where

Log = dict[str, torch.Tensor]
Loss = Callable[[], tuple[torch.Tensor, Log]]
SCALE_FLOOR = 1.0  # of float16's loss scale: at or below it an overflow has another cause
MakeOptimizer = Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]


class PrecisionWrapper(nn.Module):
    """Call a network as training does: under autocast, in its memory format, compiled.

    Outputs have the run's own type. This lies inside what DDP and DeepSpeed wrap: DeepSpeed
    switches an outer autocast off, and this is called without the wrapper just as often.
    """

    def __init__(self, net: nn.Module, ranks: Ranks):
        super().__init__()
        self.net = net
        self._dtype, self._autocast = ranks.dtype, ranks.autocast
        self._device = ranks.device.type
        mode = ranks.machine.compile
        # In a tuple, or it would be a submodule and its parameters would be listed twice.
        self._call = (torch.compile(net, mode=mode, dynamic=False) if mode else net,)
        self._channels_last = ranks.machine.channels_last
        if self._channels_last:
            net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, *args: torch.Tensor) -> torch.Tensor:
        return self._cast(self._call[0], args)

    def uncompiled(self, *args: torch.Tensor) -> torch.Tensor:
        """Call without torch.compile, which cannot be differentiated twice."""
        return self._cast(self.net, args)

    @contextlib.contextmanager
    def standing_in(self, function: Callable[[], torch.Tensor]) -> Iterator[None]:
        """Call `function` in place of the network within the block."""
        network, self._call = self._call, (function,)
        try:
            yield
        finally:
            self._call = network

    def _cast(
        self, call: Callable[..., torch.Tensor], args: tuple[torch.Tensor, ...]
    ) -> torch.Tensor:
        if self._channels_last:
            args = tuple(
                x.contiguous(memory_format=torch.channels_last) if x.dim() == 4 else x for x in args
            )
        if self._autocast is None:
            return call(*args)
        with torch.autocast(self._device, self._autocast):
            out = call(*args)
        return out.to(self._dtype)


class Engine:
    """A network that is updated on the mean loss over the global batch, in one process or by DDP.

    `optimizer` is called with the network's parameters; `accumulation` micro-batches are one
    update. `module` is the network itself; `local` calls it as training does, but without a
    collective.
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
        # float16: 1.0 where the last step's loss scale could still fall, so that an overflow is
        # part
        # of the search for it. None in other precisions.
        self.overflow_expected: torch.Tensor | None = None

    def _wrap(self) -> nn.Module:
        wrapped = self.ranks.wrap(self.local)
        if self.ranks.world_size > 1:
            # After its first backward pass DDP lays the gradients out anew, in the order in which
            # they came, and the place of a gradient decides in which order three ranks are added.
            # That pass is taken here, on zeros: otherwise the first step after a restart would
            # round differently from the same step of a run that was not interrupted.
            zero = torch.zeros(())
            with self.local.standing_in(
                lambda: 0 * sum((p.sum() for p in self.module.parameters()), zero)
            ):
                wrapped().backward()
            self.optimizer.zero_grad(set_to_none=True)
        return wrapped

    def __call__(self, *args: torch.Tensor) -> torch.Tensor:
        """Return the network's output within its own update; gradients will be reduced."""
        return self._wrapped(*args)

    # ---- an update
    def begin(self) -> None:
        """Clear the gradients of the update before."""
        self.optimizer.zero_grad(set_to_none=True)
        if self.ranks.machine.compile:
            # From here on outputs of the update before may be overwritten.
            torch.compiler.cudagraph_mark_step_begin()

    def backward(self, loss_of: Loss, *, last: bool) -> Log:
        """Run forward and backward of one micro-batch; return the log with `loss` added.

        After the last micro-batch, gradients are the mean over micro-batches and ranks, by one
        reduction. A loss has one backward pass for all its terms: in a second one DDP's reduction
        would be over.
        """
        # no_sync must enclose the forward pass too.
        with contextlib.nullcontext() if last else self.ranks.no_sync(self._wrapped):
            loss, log = loss_of()
            mean = poison_gradient_if_nonfinite(
                loss / self._accumulation if self._accumulation > 1 else loss
            )
            self.ranks.backward(self._scaler.scale(mean) if self._scaler else mean)
        return {"loss": loss.detach(), **log}

    def step(self, clip: float | None) -> tuple[torch.Tensor, torch.Tensor]:
        """Clip and step; return (norm of the whole gradient before clipping, 1.0 where it is finite
        and 0.0 where not): float32 scalars, equal on all ranks.

        A gradient that is not finite changes neither weights nor the optimizer's state. Every rank
        holds the same reduced gradient, so all ranks skip together.
        """
        if self._scaler:
            self._scaler.unscale_(self.optimizer)
        parameters = [p for p in self.module.parameters() if p.grad is not None]
        norm = nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
        if clip:
            nn.utils.clip_grads_with_norm_(parameters, clip, norm)
        finite = torch.isfinite(norm).to(torch.float32)
        step_where(self.optimizer, finite)
        if self._scaler:
            # The tensor itself: get_scale() would wait for the device.
            scale: Any = self._scaler._scale
            self.overflow_expected = (scale > SCALE_FLOOR).to(torch.float32)
            self._scaler.update()
        return norm.float(), finite

    @torch.no_grad()
    def clamp(self, limit: float) -> None:
        """Clamp every weight that trains to [-limit, limit] (Arjovsky et al. 2017, algorithm 1)."""
        parameters: list[torch.Tensor] = [p for p in self.module.parameters() if p.requires_grad]
        torch._foreach_clamp_min_(parameters, -limit)
        torch._foreach_clamp_max_(parameters, limit)

    # ---- state
    def optimizer_state(self) -> dict[int, dict[str, Any]]:
        """Return the optimizer's state by the number of the parameter, in torch's own form.

        Tensors are whole, so that any engine and any number of ranks can load them. Collective.
        """
        return self.optimizer.state_dict()["state"]

    def extra_state(self) -> dict[str, Any]:
        """Return the state of float16's loss scale; empty in other precisions."""
        return {"scaler": self._scaler.state_dict()} if self._scaler else {}

    def load(
        self,
        tensors: dict[str, torch.Tensor],
        optimizer_state: dict[int, dict[str, Any]],
        extra: dict[str, Any],
    ) -> None:
        """Load weights and buffers, the optimizer's state and `extra_state`."""
        self.module.load_state_dict(tensors)
        weights = [weight for group in self.optimizer.param_groups for weight in group["params"]]
        for number, kept in optimizer_state.items():
            for name, value in kept.items():
                if isinstance(value, torch.Tensor) and (
                    (value.ndim and value.shape != weights[number].shape)
                    or not value.isfinite().all()
                ):
                    raise ValueError(f"{name} of weight {number} in the optimizer's state")
        # Parameter groups are this process's own: learning rates follow from the epoch, and the
        # implementation (fused, foreach) may differ between machines.
        self.optimizer.load_state_dict(
            {"state": optimizer_state, "param_groups": self.optimizer.state_dict()["param_groups"]}
        )
        if self._scaler and "scaler" in extra:
            self._scaler.load_state_dict(extra["scaler"])


def poison_gradient_if_nonfinite(loss: torch.Tensor) -> torch.Tensor:
    """Return the same loss, to the bit, with a NaN gradient where the loss is not finite.

    The reduction carries it to all ranks.
    """
    return loss * (1 + 0 * loss.detach())


def _with_implementation(
    optimizer: MakeOptimizer, which: str, device: torch.device
) -> MakeOptimizer:
    """Return the same optimizer with its implementation set: one kernel for all weights (fused),
    for each operation (foreach), or for each tensor (loop).
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
        # Steps are counted on the device, or `step_where` would wait for it.
        options["capturable"] = True
    return functools.partial(optimizer, **options)
