"""The interface of a recipe, and what several recipes need."""

import inspect
import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch

from distgan.config.batch_layout import BatchLayout
from distgan.config.settings import Run
from distgan.core import rng
from distgan.core.clock import Clock
from distgan.core.errors import ConfigError
from distgan.data.dataset import Data
from distgan.data.labels import Labels
from distgan.data.loader import MicroBatch
from distgan.data.transforms import to_bytes, to_unit, to_waves
from distgan.distributed.ranks import Ranks
from distgan.engine.player import Log, Player
from distgan.outputs.image_grid import COLUMNS, save_grid
from distgan.outputs.signal_plots import overlay
from distgan.recipes._pair_settings import beside_trivial

GRID = 64  # images of a sample grid
SHOWN = 4  # held-out pairs of signals in a picture; COLUMNS of images


class Recipe(Protocol):
    """Networks that are trained against each other, and how.

    Made by `Recipe(run, ranks, layout, shape)` in the recipe's file, with the same weights on every
    rank; with `labels=` beside it where `Settings.label_column` names a column of labels. A recipe
    also draws samples (`DrawsSamples`) or repairs sounds (`Repairs`).
    """

    run: Run  # read anew in every step: `apply_settings` replaces it
    # By name, which is in checkpoints and settings: the rate of player X is the setting `x_lr`.
    # Usually "G" and "D"; the monitor's rules read the numbers of these two.
    players: dict[str, Player]

    def step(self, batches: list[list[MicroBatch]], now: Clock) -> Log:
        """Update the players once, or as often as the settings say. Collective.

        `batches` holds this rank's micro-batches of each global batch. Return scalars on the
        device, the same names in every step, as `step_log` makes them: `d/loss`.
        """


@runtime_checkable
class Validates(Protocol):
    """A recipe with numbers of its own beside the score of samples.

    Others get `valid/diversity` of samples, or of repairs `valid/l1` and `beside_trivial`.
    """

    def validate(self, data: Data) -> dict[str, float]:
        """Return `valid/*` over the whole validation split. Called on one rank."""


@runtime_checkable
class Shows(Protocol):
    """A recipe with pictures of its own.

    Others that draw images get a grid of them, those that repair sounds held-out pairs, and those
    that draw vectors none.
    """

    def show(self, data: Data, path: Path) -> None:
        """Write a picture of samples, the same ones each time. Called on one rank."""


class DrawsSamples(Recipe, Protocol):
    """A recipe that draws images or vectors from noise."""

    def sample(self, numbers: np.ndarray, purpose: str = "noise/sample") -> torch.Tensor:
        """Return images [n, channels, height, width] in [-1, 1], or vectors [n, size].

        Sample i depends on the seed and i alone.
        """


@runtime_checkable
class DrawsByClass(Protocol):
    """A recipe whose networks are given classes where `labels` is not None: `sample` takes them as
    a third argument, int64 [n].
    """

    labels: Labels | None

    def sample(
        self, numbers: np.ndarray, purpose: str = "noise/sample", classes: np.ndarray | None = None
    ) -> torch.Tensor:
        """Return images as `DrawsSamples` does, of these classes; by default of `classes_of`."""

    def classes_of(self, numbers: np.ndarray, purpose: str = "noise/sample") -> np.ndarray:
        """Return int64 [n], the classes of the samples `numbers`, as `Labels.draw` gives them."""


class Repairs(Recipe, Protocol):
    """A recipe that turns one sound into another, or one image."""

    def repairer(self) -> Callable[[torch.Tensor], torch.Tensor]:
        """Return the function [n, frames] -> [n, frames] of the averaged generator, in the units of
        the data, on the generator's device; of images [n, channels, height, width] in [-1, 1].
        """


@runtime_checkable
class WritesResults(Protocol):
    """A recipe that writes files when training has ended."""

    def results(self, data: Data, ranks: Ranks, folder: Path) -> None:
        """Write results of the best checkpoint's networks into `folder`. Collective."""


def build_recipe(
    module: Any,
    run: Run,
    ranks: Ranks,
    layout: BatchLayout,
    shape: tuple[int, ...],
    labels: Labels | None = None,
) -> Any:
    """Return the module's recipe with its networks; Torch's generator is left as it was.

    The networks start with the same weights on all ranks, devices and world sizes. `shape` is that
    of a sample of the data set, `labels` its classes where the settings ask for them.
    """
    given = {} if run.label_column is None else {"labels": labels}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(rng.key(run.seed, "init"))
        recipe = module.Recipe(run, ranks, layout, shape, **given)
    if run.scored:
        require_method(recipe, run, "sample", "; or leave `evaluate` out of its Settings")
    if run.judge and not hasattr(recipe, "repairer"):
        require_method(recipe, run, "validate", f", which returns {run.judge.terms[0][1]!r}")
    return recipe


def require_method(recipe: Any, run: Run, name: str, more: str = "") -> None:
    """Raise ConfigError unless the recipe has a method that its use requires."""
    if not hasattr(recipe, name):
        raise ConfigError(
            f"the recipe {run.recipe} has no method `{name}`; give its class Recipe one{more}"
        )


def apply_settings(recipe: Recipe, run: Run) -> None:
    """Take over settings that were changed in flight.

    A recipe reads its `run` anew in every step; rates and weight decay live in the optimizers. The
    rate of player G is the setting `g_lr`, that of D `d_lr`; `weight_decay` holds for all. A player
    without such a setting keeps what its optimizer has.
    """
    recipe.run = run
    for name, player in recipe.players.items():
        player.set_rates(
            getattr(run, f"{name.lower()}_lr", None), getattr(run, "weight_decay", None)
        )


def show(recipe: Any, data: Data, path: Path) -> None:
    """Write a picture of the recipe's samples, the same ones each time."""
    if isinstance(recipe, Shows):
        recipe.show(data, path)
    elif hasattr(recipe, "sample") and data.kind == "image":
        save_grid(path, to_bytes(_grid(recipe)))
    elif hasattr(recipe, "repairer") and data.kind == "image_pair":
        given, target, output = next(_repairs(recipe, data, COLUMNS))
        rows = torch.from_numpy(np.concatenate([given, output, target]))
        save_grid(path, to_bytes(rows), columns=len(given))
    elif hasattr(recipe, "repairer"):
        given, target, output = next(_repairs(recipe, data, SHOWN))
        keys = map(data.validation.key, range(len(given)))
        overlay(path, list(zip(keys, given, target, output, strict=True)), data.rate)


def show_reals(recipe: Any, data: Data, path: Path) -> None:
    """Write a picture of training images beside which samples are judged: as many, and in the same
    rows of classes, as the grid of `show`. Nothing for recipes with another picture.
    """
    if isinstance(recipe, Shows) or not hasattr(recipe, "sample") or data.kind != "image":
        return
    labels = getattr(recipe, "labels", None) if isinstance(recipe, DrawsByClass) else None
    if labels is None:
        numbers = _evenly(np.arange(len(data.train)), GRID)
    else:
        of = data.classes["train"]
        rows = [_evenly(np.flatnonzero(of == one), COLUMNS) for one in labels.shown()]
        numbers = np.concatenate(rows)
    save_grid(path, data.decode(data.train, numbers))


def _evenly(numbers: np.ndarray, count: int) -> np.ndarray:
    """Return `count` of the numbers, from all parts of them; of fewer, some twice."""
    return numbers[np.linspace(0, len(numbers) - 1, count).round().astype(int)]


def _grid(recipe: Any) -> torch.Tensor:
    """Return the images of a sample grid; of conditional networks a row for each class that is
    shown, with the same noise along a column.
    """
    if not isinstance(recipe, DrawsByClass) or recipe.labels is None:
        return recipe.sample(np.arange(GRID), "noise/grid")
    columns = np.arange(COLUMNS)
    rows = [np.full(COLUMNS, one, np.int64) for one in recipe.labels.shown()]
    return torch.cat([recipe.sample(columns, "noise/grid", classes) for classes in rows])


def validate(recipe: Any, data: Data) -> dict[str, float]:
    """Return the recipe's numbers over the validation split.

    Of one without any that draws samples: their diversity. Of one that repairs: the mean absolute
    difference of output and target, and what is in `beside_trivial`, each pair of equal weight; of
    images the peak signal-to-noise ratio in dB, too.
    """
    if isinstance(recipe, Validates):
        return recipe.validate(data)
    if data.kind in ("image", "vector") and _draws(recipe):
        return {"valid/diversity": diversity(data, recipe.sample)}
    if not hasattr(recipe, "repairer"):
        return {}
    sums: dict[str, float] = {}
    for given, target, output in _repairs(recipe, data):
        axes = tuple(range(1, target.ndim))
        trivial = beside_trivial(*(torch.from_numpy(x) for x in (output, target, given)))
        found = {"l1": np.abs(output - target).mean(axes).sum()}
        found |= {name: float(value) * len(output) for name, value in trivial.items()}
        if data.kind == "image_pair":  # values are in [-1, 1]
            squares = np.square(output - target).mean(axes)
            found["psnr"] = (10 * np.log10(4 / squares.clip(1e-12))).sum()
        for name, value in found.items():
            sums[f"valid/{name}"] = sums.get(f"valid/{name}", 0.0) + float(value)
    return {name: value / len(data.validation) for name, value in sums.items()}


def _draws(recipe: Any) -> bool:
    """Return True for a recipe whose `sample` is that of `DrawsSamples`."""
    try:
        inspect.signature(recipe.sample).bind(np.arange(1), "noise/grid")
    except (AttributeError, TypeError):
        return False
    return True


def diversity(data: Data, draw: Callable[[np.ndarray, str], torch.Tensor]) -> float:
    """How much samples of fixed noise differ among each other, beside as many training images: 1 as
    much as those do, towards 0 a collapse.

    The root of the variance over samples, averaged over pixels and channels, or over the numbers of
    vectors, of up to 64 samples, divided by that of reals.
    """
    n = min(GRID, len(data.train))
    real = torch.cat(list(data.chunks(data.train, n, limit=n)))
    fake = draw(np.arange(n), "noise/grid")
    if data.kind == "image":
        real, fake = to_unit(real), to_unit(to_bytes(fake))
    else:  # columns of a table have scales of their own
        scale = real.std(0)
        scale = torch.where(scale > 0, scale, torch.ones_like(scale))
        real, fake = real / scale, fake / scale
    return _spread(fake) / max(_spread(real), 1e-6)


def _spread(images: torch.Tensor) -> float:
    return float(images.var(0).mean().sqrt())


def _repairs(
    recipe: Repairs, data: Data, limit: int | None = None
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Yield input, target and output of held-out pairs, float64 [n, frames] each, of images [n,
    channels, height, width] in [-1, 1].
    """
    to_floats = to_unit if data.kind == "image_pair" else to_waves
    repair, player = recipe.repairer(), next(iter(recipe.players.values()))
    device = next(player.module.parameters()).device
    for pairs in data.chunks(data.validation, GRID, limit):
        given, target = to_floats(pairs.to(device)).unbind(1)
        given, target, output = (x.double().cpu() for x in (given, target, repair(given)))
        yield given.numpy(), target.numpy(), output.numpy()


def repair(G: Player, inputs: torch.Tensor) -> torch.Tensor:
    """Return what the averaged generator makes of signals [n, frames], one channel each, or of
    images [n, channels, height, width]: the same shape.
    """
    with G.evaluating_ema() as generator:
        inputs = inputs.to(next(generator.parameters()))
        return generator(inputs) if inputs.ndim == 4 else generator(inputs[:, None])[:, 0]


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
