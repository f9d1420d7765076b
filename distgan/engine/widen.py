"""A wider network from a narrower one's checkpoint: channels that both have are copied, the rest
stays as this run initialised it.

The grown network starts as the narrow one: weights that lead from a new channel into an old one
start at 0, so old channels compute what they did, and new ones, whose own weights are random, are
heard as training moves those zeros (a function-preserving start as in Net2Net, Chen et al. 2016,
with zeros where that copies channels, which would be alike for ever). It holds for chains of
convolutions, linear layers, normalisation by channel and self-attention. Where a network joins two
tensors before a layer, or normalises over channels, the copy is a start, no more.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional as F
from torch.nn.modules.conv import _ConvNd
from torch.nn.utils import parametrize

from distgan.core.errors import ConfigError
from distgan.engine.player import Player
from distgan.nn.image import SelfAttention2d
from distgan.nn.normalization import SpectralNorm

Tensors = dict[str, torch.Tensor]
# largest singular value of what is new in a spectrally normalised weight, in that of the old: else
# it would turn the old channels down
LOUDEST = 0.5
SHOWN = 12  # faults of one message


def widen(path: Path, players: dict[str, Player]) -> list[str]:
    """Copy what the intact checkpoint folder `path` holds into freshly initialised players of the
    same or greater widths, alike on every rank.

    Weights, buffers and averages; optimizers start anew. Returns the lines of a report.
    ConfigError, with all faults and before anything is changed, where the tensors are not those of
    the same network, narrower.
    """
    try:
        source = load_file(path / "networks.safetensors")
        states = torch.load(path / "training.pt", map_location="cpu", weights_only=True)
    except Exception as error:  # of many kinds: torch, safetensors and pickle have their own
        raise ConfigError(f"grow: checkpoint {path} cannot be read: {error}") from error
    narrow = {name: _sides(name, source, player) for name, player in players.items()}
    fresh = {
        name: {key: value.detach().cpu() for key, value in player.tensors().items()}
        for name, player in players.items()
    }
    faults = [line for name in players for line in _faults(name, narrow[name], fresh[name])]
    if faults:
        more = [f"  and {len(faults) - SHOWN} more"] * (len(faults) > SHOWN)
        raise ConfigError(
            "\n".join(
                [
                    f"grow: {path} does not hold this network in the same or smaller widths:",
                    *faults[:SHOWN],
                    *more,
                ]
            )
        )
    lines, copied, total = [], 0, 0
    for name, player in players.items():
        # The average goes on counting: from 0 it would have forgotten the narrow network after ten
        # updates.
        player.load(
            _widened(player.module, narrow[name], fresh[name]),
            {"optimizer": {}, "updates": states[name]["updates"], "skips": 0},
        )
        for key in (f"net.{key}" for key, _ in player.module.named_parameters()):
            lines.append(
                f"{name}.{key} {list(narrow[name][key].shape)} -> {list(fresh[name][key].shape)}"
            )
            copied, total = copied + narrow[name][key].numel(), total + fresh[name][key].numel()
    return [
        *lines,
        (
            f"{copied:,} of {total:,} weights ({copied / total:.0%}) are those of {path};"
            " optimizers start anew"
        ),
    ]


def _sides(name: str, source: Tensors, player: Player) -> Tensors:
    """The player's `net.*` and `ema.*` in a checkpoint.

    An average that it lacks starts as its network; one that this run does not keep is left.
    """
    mine = {
        key[len(name) + 1 :]: value for key, value in source.items() if key.startswith(f"{name}.")
    }
    net = {key: value for key, value in mine.items() if key.startswith("net.")}
    return (
        net
        if player.ema is player.module
        else {f"ema.{key[4:]}": value for key, value in net.items()} | mine
    )


def _faults(name: str, narrow: Tensors, fresh: Tensors) -> list[str]:
    """What keeps `narrow` from being copied into `fresh`, a line each.

    Averages have the faults of their networks.
    """
    lines = []
    for key in sorted(key for key in narrow.keys() | fresh.keys() if key.startswith("net.")):
        if key not in narrow or key not in fresh:
            lines.append(
                f"  {name}.{key}: only {'this run' if key in fresh else 'the checkpoint'} has it"
            )
            continue
        old, new = list(narrow[key].shape), list(fresh[key].shape)
        if len(old) != len(new) or old[2:] != new[2:]:
            lines.append(
                f"  {name}.{key}: {old} there, {new} here, which differ in more than widths"
            )
        elif any(there > here for there, here in zip(old, new, strict=True)):
            lines.append(f"  {name}.{key}: {old} there is wider than {new} here")
    return lines


@dataclass(frozen=True)
class _Kernel:
    """A weight that leads from channels to channels."""

    weight: str  # names in a state_dict
    vectors: tuple[str, str] | None  # u and v, under spectral normalisation
    out: int  # axis of the channels it leads to
    key: bool  # of a self-attention


def _kernels(net: nn.Module) -> list[_Kernel]:
    keys = {id(module.key) for module in net.modules() if isinstance(module, SelfAttention2d)}
    found = []
    for name, module in net.named_modules():
        if not isinstance(module, _ConvNd | nn.Linear) or getattr(module, "groups", 1) > 1:
            # a group of channels has weights of its own: none of them lead from new channels to old
            # ones
            continue
        weight, vectors = f"{name}.weight".lstrip("."), None
        if parametrize.is_parametrized(module, "weight"):
            list_of = module.parametrizations.weight
            at = f"{name}.parametrizations.weight".lstrip(".")
            weight = f"{at}.{'original' if hasattr(list_of, 'original') else 'original1'}"
            vectors = next(
                (
                    (f"{at}.{i}.u", f"{at}.{i}.v")
                    for i, norm in enumerate(list_of)
                    if isinstance(norm, SpectralNorm)
                ),
                None,
            )
        found.append(
            _Kernel(
                weight,
                vectors,
                1 if getattr(module, "transposed", False) else 0,
                id(module) in keys,
            )
        )
    return found


def _widened(net: nn.Module, narrow: Tensors, fresh: Tensors) -> Tensors:
    """All tensors of the grown player, of whose network `net` says which tensors are kernels."""
    grown = {key: value.clone() for key, value in fresh.items()}
    for side in dict.fromkeys(key[:4] for key in fresh):
        for kernel in _kernels(net):
            old, new = narrow[side + kernel.weight], grown[side + kernel.weight]
            _start(kernel, old, new)
            if kernel.vectors:
                u, v = (side + name for name in kernel.vectors)
                old, new = (
                    old.transpose(0, kernel.out),
                    new.transpose(0, kernel.out),
                )  # as spectral norm sees them: rows are output channels
                _quieten(old, new, narrow[u], narrow[v])
                # v runs over all axes of the weight but that of the output channels
                grown[v] = torch.zeros_like(new[0], memory_format=torch.contiguous_format)
                _copy(narrow[v].view(old.shape[1:]), grown[v])
                grown[v] = grown[v].flatten()
                grown[u].zero_()
    vectors = {
        side + kernel.vectors[1]
        for side in ("net.", "ema.")
        for kernel in _kernels(net)
        if kernel.vectors
    }
    for key in grown.keys() - vectors:
        _copy(narrow[key], grown[key])
    return grown


def _start(kernel: _Kernel, old: torch.Tensor, new: torch.Tensor) -> None:
    """Zero what leads from new channels to old ones."""
    into = new.narrow(kernel.out, 0, old.shape[kernel.out])
    into.narrow(
        1 - kernel.out,
        old.shape[1 - kernel.out],
        new.shape[1 - kernel.out] - old.shape[1 - kernel.out],
    ).zero_()
    if kernel.key:
        new[old.shape[0] :] = (
            0  # what new rows of the query meet: the weights of the attention are the old ones
        )


def _quieten(old: torch.Tensor, new: torch.Tensor, u: torch.Tensor, v: torch.Tensor) -> None:
    """Scale down what is new in a weight that will be divided by its largest singular value, so
    that this stays that of the old part.
    """
    rest = new.clone()
    rest[tuple(slice(size) for size in old.shape)] = 0
    matrix = rest.flatten(1)
    right = F.normalize(torch.ones_like(matrix[0]), dim=0)
    for _ in range(15):
        right = F.normalize(matrix.T @ F.normalize(matrix @ right, dim=0), dim=0)
    largest, before = float((matrix @ right).norm()), float(torch.vdot(u, old.flatten(1) @ v))
    new *= min(1.0, LOUDEST * before / largest) if largest else 1.0


def _copy(old: torch.Tensor, new: torch.Tensor) -> None:
    """Into the front of every axis."""
    new[tuple(slice(size) for size in old.shape)] = old
