"""Start from the checkpoint of a narrower network: channels that both have are copied, the rest
stays as this run initialised it.

The wide network first computes what the narrow one did: weights that lead from a new channel into
an old one start at 0, so old channels are unchanged, and new ones, whose own weights are random,
take part as training moves those zeros (a function-preserving start as in Net2Net, Chen et al.
2016, which copies channels where this sets zeros; copies would stay equal for ever). This holds for
chains of convolutions, linear layers, normalisation by channel and self-attention. Where a network
joins two tensors before a layer, or normalises over channels, the function is not preserved.

The networks of `nn.image` also start from those for smaller images: what both have is copied, and
the layers nearest the image, which the smaller network has none of, stay as initialised.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
# Largest singular value of the new part of a spectrally normalised weight, relative to that of the
# old part: a larger one would scale the old channels down.
LARGEST_NEW = 0.5
EVENTS = {"grow": "grown", "fine_tune": "fine_tuned"}  # what a run records, by its setting
MAX_FAULTS = 12  # listed in one message
_LAYER = re.compile(r"((?:net|ema)\.layers\.)(\d+)\.")
_CONVOLUTION = re.compile(r"net\.layers\.\d+\.(?:parametrizations\.weight\.original|weight)")


def widen(path: Path, players: dict[str, Player], setting: str = "grow") -> list[str]:
    """Copy weights, buffers and averages of the checkpoint folder `path` into freshly initialised
    players of the same or greater widths, alike on every rank. Optimizers start anew.

    `setting` names the checkpoint: grow, or fine_tune, for which the widths must be equal. Returns
    the lines of a report. Raises ConfigError with all faults, before anything is changed, unless
    the checkpoint holds the same networks.
    """
    equal = setting == "fine_tune"
    try:
        source = load_file(path / "networks.safetensors")
        states = torch.load(path / "training.pt", map_location="cpu", weights_only=True)
    except Exception as error:  # torch, safetensors and pickle each raise their own kinds
        raise ConfigError(f"{setting}: checkpoint {path} cannot be read: {error}") from error
    fresh = {
        name: {key: value.detach().cpu() for key, value in player.tensors().items()}
        for name, player in players.items()
    }
    narrow, new, faults = {}, {}, []
    for name, player in players.items():
        narrow[name], new[name] = _sides(name, source, player), frozenset[str]()
        if not equal:
            narrow[name], new[name] = _at_this_size(player.module, narrow[name], fresh[name])
        known = {key: value for key, value in fresh[name].items() if key not in new[name]}
        faults += _faults(name, narrow[name], known, equal)
    if faults:
        widths = "these networks" if equal else "this network in the same or smaller widths"
        lines = [f"{setting}: {path} does not hold {widths}:"]
        lines += faults[:MAX_FAULTS]
        if len(faults) > MAX_FAULTS:
            lines.append(f"  and {len(faults) - MAX_FAULTS} more")
        raise ConfigError("\n".join(lines))
    lines, copied, total = [], 0, 0
    for name, player in players.items():
        # The average keeps its count of updates: from 0 it would forget the narrow network within
        # ten updates. New layers it must follow at once.
        updates = 0 if new[name] else states[name]["updates"]
        player.load(
            _widened(player.module, narrow[name], fresh[name], new[name]),
            {"optimizer": {}, "updates": updates, "skips": 0},
        )
        for key in (f"net.{key}" for key, _ in player.module.named_parameters()):
            was = narrow[name].get(key)
            before = "new" if was is None else list(was.shape)
            lines.append(f"{name}.{key} {before} -> {list(fresh[name][key].shape)}")
            copied += 0 if was is None else was.numel()
            total += fresh[name][key].numel()
    return [
        *lines,
        (
            f"{copied:,} of {total:,} weights ({copied / total:.0%}) are those of {path};"
            " optimizers start anew"
        ),
    ]


def _sides(name: str, source: Tensors, player: Player) -> Tensors:
    """Return the player's `net.*` and `ema.*` in a checkpoint.

    An average that the checkpoint lacks starts as its network; one that this run lacks is left out.
    """
    prefix = f"{name}."
    sides = {
        key.removeprefix(prefix): value for key, value in source.items() if key.startswith(prefix)
    }
    net = {key: value for key, value in sides.items() if key.startswith("net.")}
    if player.ema is player.module:
        return net
    return {f"ema.{key[4:]}": value for key, value in net.items()} | sides


def _at_this_size(net: nn.Module, smaller: Tensors, fresh: Tensors) -> tuple[Tensors, frozenset]:
    """Return the tensors of a network for smaller images by the names that they have in `net`, and
    the names of what is new in `net`: the layers nearest the image. All and none, if the network is
    for images of this size, or not of `nn.image`.
    """
    end = getattr(net, "image_end", None)
    last, here = (max(map(_layer, tensors), default=0) for tensors in (smaller, fresh))
    if end is None or _blocks(smaller) >= _blocks(fresh):
        return smaller, frozenset()
    shift, outermost = (0, last) if end == "last" else (here - last, 0)
    moved = {
        _LAYER.sub(lambda match: f"{match[1]}{int(match[2]) + shift}.", key): value
        for key, value in smaller.items()
        if _layer(key) != outermost
    }
    is_new = (lambda layer: layer >= last) if end == "last" else (lambda layer: layer <= shift)
    return moved, frozenset(key for key in fresh if _LAYER.match(key) and is_new(_layer(key)))


def _blocks(tensors: Tensors) -> int:
    """Return how many layers of the network are convolutions: one for each resolution, and one."""
    return sum(bool(_CONVOLUTION.fullmatch(key)) and tensors[key].ndim == 4 for key in tensors)


def _layer(key: str) -> int:
    """Return the number of the layer that has this tensor; -1 of no layer."""
    match = _LAYER.match(key)
    return int(match[2]) if match else -1


def _faults(name: str, narrow: Tensors, fresh: Tensors, equal: bool) -> list[str]:
    """Return a line for each tensor of `narrow` that cannot be copied into `fresh`; with `equal`,
    for each of another shape.

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
                f"  {name}.{key}: {old} there, {new} here: they differ in more than widths"
            )
        elif equal and old != new:
            lines.append(f"  {name}.{key}: {old} there, {new} here; grow=RUN starts wider networks")
        elif any(there > here for there, here in zip(old, new, strict=True)):
            lines.append(f"  {name}.{key}: {old} there is wider than {new} here")
    return lines


@dataclass(frozen=True)
class _Kernel:
    """A weight between channels; names are those of a state_dict."""

    weight: str
    vectors: tuple[str, str] | None  # u and v, under spectral normalisation
    out: int  # axis of the output channels
    key: bool  # the key of a self-attention


def _kernels(net: nn.Module) -> list[_Kernel]:
    keys = {id(module.key) for module in net.modules() if isinstance(module, SelfAttention2d)}
    found = []
    for name, module in net.named_modules():
        if not isinstance(module, _ConvNd | nn.Linear) or getattr(module, "groups", 1) > 1:
            # The groups have separate weights, none of which lead from new channels to old ones.
            continue
        weight, vectors = f"{name}.weight".lstrip("."), None
        if parametrize.is_parametrized(module, "weight"):
            parametrizations: Any = module.parametrizations
            list_of = parametrizations.weight
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


def _widened(net: nn.Module, narrow: Tensors, fresh: Tensors, unchanged: frozenset) -> Tensors:
    """Return all tensors of the wide player; `net` is its network, in which kernels are found."""
    grown = {key: value.clone() for key, value in fresh.items()}
    for side in dict.fromkeys(key[:4] for key in fresh):
        for kernel in _kernels(net):
            if side + kernel.weight in unchanged:
                continue
            old, new = narrow[side + kernel.weight], grown[side + kernel.weight]
            _start(kernel, old, new)
            if kernel.vectors:
                u, v = (side + name for name in kernel.vectors)
                # As spectral norm takes them: rows are output channels.
                old, new = old.transpose(0, kernel.out), new.transpose(0, kernel.out)
                _scale_down_new(old, new, narrow[u], narrow[v])
                # v runs over all axes of the weight but that of the output channels.
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
    for key in grown.keys() - vectors - unchanged:
        _copy(narrow[key], grown[key])
    return grown


def _start(kernel: _Kernel, old: torch.Tensor, new: torch.Tensor) -> None:
    """Set weights from new channels to old ones to zero."""
    into = new.narrow(kernel.out, 0, old.shape[kernel.out])
    into.narrow(
        1 - kernel.out,
        old.shape[1 - kernel.out],
        new.shape[1 - kernel.out] - old.shape[1 - kernel.out],
    ).zero_()
    if kernel.key:
        # New rows of the query meet zeros: the attention's weights are the old ones.
        new[old.shape[0] :] = 0


def _scale_down_new(old: torch.Tensor, new: torch.Tensor, u: torch.Tensor, v: torch.Tensor) -> None:
    """Scale down the new part of a weight that will be divided by its largest singular value, so
    that this value stays that of the old part.
    """
    rest = new.clone()
    rest[tuple(slice(size) for size in old.shape)] = 0
    matrix = rest.flatten(1)
    right = F.normalize(torch.ones_like(matrix[0]), dim=0)
    for _ in range(15):
        right = F.normalize(matrix.T @ F.normalize(matrix @ right, dim=0), dim=0)
    largest, before = float((matrix @ right).norm()), float(torch.vdot(u, old.flatten(1) @ v))
    new *= min(1.0, LARGEST_NEW * before / largest) if largest else 1.0


def _copy(old: torch.Tensor, new: torch.Tensor) -> None:
    """Copy `old` into the front of every axis of `new`."""
    new[tuple(slice(size) for size in old.shape)] = old
