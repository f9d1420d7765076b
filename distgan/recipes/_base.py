"""The interface of a recipe, and what several recipes need."""

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch

from distgan.config.batch_layout import BatchLayout
from distgan.config.settings import Run
from distgan.core import rng
from distgan.core.clock import Clock
from distgan.data.dataset import Data
from distgan.data.loader import MicroBatch
from distgan.data.transforms import to_bytes
from distgan.distributed.ranks import Ranks
from distgan.engine.player import Log, Player
from distgan.outputs.image_grid import save_grid

GRID = 64  # images of a sample grid


class Recipe(Protocol):
    """Networks that are trained against each other, and how.

    Made by `Recipe(run, ranks, layout, shape)` in the recipe's file, with the same weights on every
    rank. A recipe also draws samples (`DrawsSamples`) or repairs sounds (`Repairs`).
    """

    run: Run  # read anew in every step: `apply_settings` replaces it
    players: dict[str, Player]  # "G" and "D"; names in checkpoints begin with them

    def step(self, batches: list[list[MicroBatch]], now: Clock) -> Log:
        """Update the players once, or as often as the settings say. Collective.

        `batches` holds this rank's micro-batches of each global batch. Returns scalars on the
        device; names begin with `d/` or `g/`.
        """


@runtime_checkable
class Validates(Protocol):
    """A recipe with numbers of its own beside the score of samples."""

    def validate(self, data: Data) -> dict[str, float]:
        """Return `valid/*` over the whole validation split. Called on one rank."""


@runtime_checkable
class Shows(Protocol):
    """A recipe with pictures of its own; others that draw samples get a grid of them."""

    def show(self, data: Data, path: Path) -> None:
        """Write a picture of samples, the same ones each time. Called on one rank."""


class DrawsSamples(Recipe, Protocol):
    """A recipe that draws images from noise."""

    def sample(self, numbers: np.ndarray, purpose: str = "noise/sample") -> torch.Tensor:
        """Return images [n, channels, size, size] in [-1, 1]; image i depends on the seed and i."""


class Repairs(Recipe, Protocol):
    """A recipe that turns one sound into another."""

    def repairer(self) -> Callable[[torch.Tensor], torch.Tensor]:
        """Return the function [n, frames] -> [n, frames] of the averaged generator."""


@runtime_checkable
class WritesResults(Protocol):
    """A recipe that writes files when training has ended."""

    def results(self, data: Data, ranks: Ranks, folder: Path) -> None:
        """Write results of the best checkpoint's networks into `folder`. Collective."""


def build_recipe(
    module: Any, run: Run, ranks: Ranks, layout: BatchLayout, shape: tuple[int, ...]
) -> Any:
    """Return the module's recipe with its networks; Torch's generator is left as it was.

    The networks start with the same weights on all ranks, devices and world sizes. `shape` is that
    of a sample of the data set.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(rng.key(run.seed, "init"))
        return module.Recipe(run, ranks, layout, shape)


def apply_settings(recipe: Recipe, run: Run) -> None:
    """Take over settings that were changed in flight.

    A recipe reads its `run` anew in every step; rates and weight decay live in the optimizers. The
    rate of player G is the setting `g_lr`, that of D `d_lr`; `weight_decay`, where a recipe has it,
    holds for all.
    """
    recipe.run = run
    for name, player in recipe.players.items():
        player.set_rates(getattr(run, f"{name.lower()}_lr"), getattr(run, "weight_decay", None))


def show(recipe: Any, data: Data, path: Path) -> None:
    """Write a picture of the recipe's samples, the same ones each time."""
    if isinstance(recipe, Shows):
        recipe.show(data, path)
    elif hasattr(recipe, "sample"):
        save_grid(path, to_bytes(recipe.sample(np.arange(GRID), "noise/grid")))


def step_log(**logs: Log) -> Log:
    """Return the numbers of all players, each name with its player in front: `d/loss`."""
    return {
        f"{player}/{name}": value for player, log in logs.items() for name, value in log.items()
    }


def score_logs(loss: str, **scores: torch.Tensor) -> Log:
    """Return means of D's outputs, by name.

    Probabilities where `loss` makes them logits of such.
    """
    if loss == "vanilla":
        return {f"{name}_prob": score.sigmoid().mean() for name, score in scores.items()}
    return {f"{name}_score": score.mean() for name, score in scores.items()}


def lower_first(value: tuple[float, float]) -> tuple[float, float]:
    """Validate a range: ValueError unless its first number is the lower one."""
    if value[0] > value[1]:
        raise ValueError(f"the lower first, as in [{value[1]:g}, {value[0]:g}]")
    return value


def with_monitor_defaults(tree: Any, key: str, fields: Mapping[str, Any]) -> Any:
    """Return the settings `tree` with the thresholds of `watch` that follow from the loss (setting
    `key`) and its labels, except those that `tree` sets itself.

    hinge and wgan give D's loss and outputs no healthy range, but that of hinge is at least 0. The
    least binary cross-entropy under soft labels is the mean of their entropies; least squares can
    reach 0 whatever the labels.
    """
    if not isinstance(tree, dict) or not isinstance(own := tree.get("watch", {}), dict):
        return tree
    mode, *labels = (
        tree.get(name, fields[name].default) for name in (key, "real_label", "fake_label")
    )
    defaults: dict[str, Any] = {}
    if mode in ("hinge", "wgan"):
        defaults = {"unbounded": True, "floored": mode == "hinge"}
    elif mode == "lsgan":
        defaults = {"d_loss_floor": 0.0}
    elif mode == "vanilla" and all(
        isinstance(label, int | float) and 0 <= label <= 1 for label in labels
    ):
        terms = (p * math.log(p) for label in labels for p in (label, 1 - label) if p > 0)
        defaults = {"d_loss_floor": round(-sum(terms) / 2, 3)}
    return tree | {"watch": defaults | own}
