"""Check what a recipe must have and return; name the line that does not."""

from typing import Any

import numpy as np
import torch

from distgan.data.dataset import Data
from distgan.engine.player import Player
from distgan.self_check.findings import Place, Refused, error

_LOSS = "Return (loss, numbers): a scalar tensor, the mean over the micro-batch, and a dict"
_LOG = "Return api.step_log(d=self.D.update(...), g=self.G.update(...))"


def place_of_function(function: Any) -> Place | None:
    """Return where a function, or the constructor of a class, begins."""
    function = getattr(function, "__init__", function) if isinstance(function, type) else function
    code = getattr(getattr(function, "__func__", function), "__code__", None)
    return (code.co_filename, code.co_firstlineno) if code else None


def check_players(recipe: Any, kind: Any) -> None:
    """Refuse a recipe without players, or with one that would not be saved."""
    place = place_of_function(kind)
    players = getattr(recipe, "players", None)
    if (
        not isinstance(players, dict)
        or not players
        or not all(isinstance(player, Player) for player in players.values())
    ):
        raise Refused(
            error(
                place,
                f"the recipe's players are {_said(players)}",
                'Set self.players = {"G": api.Player(...), "D": api.Player(...)}',
            )
        )
    if not callable(getattr(recipe, "step", None)):
        raise Refused(error(place, "the recipe has no step", "Define step(self, batches, now)"))
    for name, value in getattr(recipe, "__dict__", {}).items():
        if isinstance(value, Player) and value not in players.values():
            raise Refused(
                error(
                    place,
                    f"the player self.{name} is not in self.players: it would not be saved",
                    f"Add it: self.players[{name!r}] = self.{name}",
                )
            )


def check_loss(result: Any, place: Place | None) -> None:
    """Refuse what is no (scalar loss, dict of scalar tensors)."""
    if not isinstance(result, tuple) or len(result) != 2:
        raise Refused(error(place, f"the loss function returns {_said(result)}", _LOSS))
    loss, numbers = result
    if not isinstance(loss, torch.Tensor) or loss.dim():
        raise Refused(error(place, f"the loss is {_said(loss)}", _LOSS))
    if not loss.requires_grad:
        raise Refused(
            error(
                place,
                "the loss has no gradient: it does not depend on the player's weights",
                "Compute it from what the player returns, outside no_grad and detach",
            )
        )
    if not isinstance(numbers, dict):
        raise Refused(error(place, f"beside the loss is {_said(numbers)}", _LOSS))
    for name, value in numbers.items():
        if not isinstance(value, torch.Tensor) or value.dim():
            raise Refused(
                error(
                    place,
                    f"the number {name!r} beside the loss is {_said(value)}",
                    "Give scalar tensors, as in value.mean(); they stay on the device",
                )
            )


def check_step(log: Any, kind: Any) -> None:
    """Refuse what is no dict of scalar tensors named `player/number`."""
    place = place_of_function(kind.step)
    if not isinstance(log, dict) or not log:
        raise Refused(error(place, f"step returns {_said(log)}", _LOG))
    for name, value in log.items():
        if not isinstance(value, torch.Tensor) or value.dim():
            raise Refused(error(place, f"step returns {_said(value)} as {name!r}", _LOG))
        if "/" not in str(name):
            raise Refused(
                error(place, f"step returns the number {name!r}, which has no player", _LOG)
            )
    if not any(str(name).endswith("/loss") for name in log):
        raise Refused(error(place, "step returns no loss, as in 'd/loss'", _LOG))


def check_samples(images: Any, numbers: np.ndarray, data: Data, kind: Any) -> None:
    """Refuse what are no images or vectors of the data set's shape, as floats."""
    place, shape = place_of_function(kind.sample), (len(numbers), *data.shape)
    scale = " in [-1, 1]" if data.kind == "image" else ""
    wanted = f"Return floats {list(shape)}{scale} for {len(numbers)} numbers"
    if not isinstance(images, torch.Tensor) or tuple(images.shape) != shape:
        raise Refused(error(place, f"sample returns {_said(images)}", wanted))
    if not images.is_floating_point():
        raise Refused(error(place, f"sample returns {images.dtype}", wanted))


def check_repaired(output: Any, given: torch.Tensor, kind: Any) -> None:
    """Refuse what are no signals of the same length, as floats."""
    wanted = f"The function that it returns gives floats {list(given.shape)} for such signals"
    if (
        not isinstance(output, torch.Tensor)
        or output.shape != given.shape
        or not output.is_floating_point()
    ):
        place = place_of_function(kind.repairer)
        raise Refused(error(place, f"repairer makes {_said(output)} of signals", wanted))


def _said(value: Any) -> str:
    if isinstance(value, torch.Tensor):
        return f"a tensor of shape {list(value.shape)}" if value.dim() else "a scalar tensor"
    if value is None:
        return "nothing"
    name = type(value).__name__
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"
