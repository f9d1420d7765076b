"""Watch what torch does for a recipe: tensors that are read by the host, weights and buffers that
are written, layers whose output depends on how a batch is shared.
"""

import sys
from collections.abc import Callable, Collection, Iterable, Iterator
from types import FrameType
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd
from torch.nn.modules.instancenorm import _InstanceNorm
from torch.nn.utils.parametrizations import _SpectralNorm
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from distgan.engine.player import Player
from distgan.self_check.findings import Place, caller

Reporter = Callable[[Place, str], None]

_READS = {
    getattr(torch.Tensor, name): written
    for name, written in {
        "item": ".item()",
        "tolist": ".tolist()",
        "numpy": ".numpy()",
        "cpu": ".cpu()",
        "nonzero": ".nonzero()",
        "__float__": "float(tensor)",
        "__int__": "int(tensor)",
        "__index__": "int(tensor)",
        "__bool__": "bool(tensor)",
        "__array__": "numpy.asarray(tensor)",
        "__format__": "a formatted tensor",
        "__repr__": "a printed tensor",
    }.items()
}


class HostReads(TorchFunctionMode):
    """Tell of each value that a line of `files` fetches from the device."""

    def __init__(self, files: Collection[str], report: Reporter):
        super().__init__()
        self._files, self._report = files, report

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        what = _READS.get(func)
        if func is torch.Tensor.to and any(
            isinstance(arg, str | torch.device) and str(arg) == "cpu"
            for arg in (*args[1:], *(kwargs or {}).values())
        ):
            what = '.to("cpu")'
        if what and (place := caller(self._files, sys._getframe(1), outside="torch")):
            self._report(place, what)
        return func(*args, **(kwargs or {}))


class Held(NamedTuple):
    """A tensor of a network."""

    owner: str  # the player, or the recipe's attribute
    name: str
    kind: str  # weight, buffer
    table: dict[str, torch.Tensor | None]  # where its module keeps it
    key: str

    def __str__(self) -> str:
        return f"the {self.kind} {self.name} of {self.owner}"


def tensors_of(networks: dict[str, nn.Module]) -> list[Held]:
    """Return all weights, and all buffers but those of layers that are faults in themselves."""
    return [
        Held(owner, f"{path}.{key}".lstrip("."), kind, table, key)
        for owner, net in networks.items()
        for path, module in net.named_modules()
        for kind, table in (("weight", module._parameters), ("buffer", module._buffers))
        if kind == "weight" or fault_of(module) is None
        for key, value in table.items()
        if value is not None
    ]


class Writes(TorchDispatchMode):
    """Tell of each tensor of `held` that a line of `files` changes in place, by whatever way."""

    def __init__(
        self,
        files: Collection[str],
        held: Iterable[Held],
        report: Callable[[Place, Held], None],
    ):
        super().__init__()
        self._files, self._report = files, report
        self._held = {_storage(one.table[one.key]): one for one in held}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func._schema.is_mutable:
            for one in self._written(func._schema.arguments, args, kwargs):
                if place := caller(self._files, sys._getframe(1), outside="engine"):
                    self._report(place, one)
        return func(*args, **kwargs)

    def _written(self, schema: Any, args: Any, kwargs: Any) -> Iterator[Held]:
        for i, argument in enumerate(schema):
            if argument.alias_info is not None and argument.alias_info.is_write:
                value = args[i] if i < len(args) else kwargs.get(argument.name)
                for tensor in value if isinstance(value, list | tuple) else [value]:
                    if (one := self._held.get(_storage(tensor))) is not None:
                        yield one


def _storage(tensor: Any) -> int:
    """Return the address of a tensor's memory; 0 without one."""
    return tensor.untyped_storage().data_ptr() if isinstance(tensor, torch.Tensor) else 0


def fault_of(module: nn.Module) -> tuple[str, str] | None:
    """Return (cause, remedy) for a layer of torch that makes a step depend on how it is shared."""
    name = f"nn.{type(module).__name__}"
    if isinstance(module, _DropoutNd):
        return (
            (
                f"{name} draws its mask from torch's global random generator",
                "Give the network factors of micro.dropout(seed, purpose, size, rate, dtype)",
            )
            if module.p
            else None
        )
    recurrent = isinstance(module, nn.RNNBase | nn.MultiheadAttention) and module.dropout
    if recurrent or isinstance(module, nn.RReLU | nn.FractionalMaxPool2d):
        return (
            f"{name} draws from torch's global random generator",
            "Take a layer that draws nothing: nn.LeakyReLU, dropout=0",
        )
    if isinstance(module, _BatchNorm):
        return (
            f"{name} normalises over the samples that one process has at once",
            "Use nn.GroupNorm, or api.GroupBatchNorm2d(channels, layout.group, ranks) with a"
            " property `group` of Settings, the samples that share statistics (1 by default)",
        )
    if isinstance(module, _InstanceNorm) and module.track_running_stats:
        return (
            f"{name} with track_running_stats moves its statistics in each forward pass",
            "Leave track_running_stats out",
        )
    if isinstance(module, _SpectralNorm) or any(
        isinstance(hook, SpectralNorm) for hook in module._forward_pre_hooks.values()
    ):
        return (
            "torch's spectral_norm moves its vectors in each forward pass, which there are more"
            " of with more micro-batches",
            "Use api.spectral_norm(layer)",
        )
    return None


def called_wrapped(frame: FrameType | None) -> bool:
    """Return whether a network is called through its player, as in its own update."""
    while frame is not None and frame.f_code.co_name not in ("update", "step"):
        if frame.f_code is Player.__call__.__code__:
            return True
        frame = frame.f_back
    return False
