"""Options of `distgan generate` for image recipes: of which classes, and from which noise."""

import dataclasses
import inspect
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from distgan.commands import trained_run
from distgan.config.settings import Run
from distgan.core.arguments import Arguments, Option, number
from distgan.core.errors import ConfigError
from distgan.recipes._catalog import Module

COLUMNS = 8  # of the picture between two classes, as of every grid
OPTIONS = (
    Option(
        "class",
        "of conditional networks: draw images of this class, or in turn of these, separated by"
        " commas (default: as in training)",
        "NAMES",
    ),
    Option(
        "interpolate",
        "of conditional networks: rows of 8 images of the same noise, from one class to another in"
        " equal steps between their vectors; grid.png has 8 rows",
        "A,B",
    ),
    number(
        "truncation",
        "draw from noise that is cut at ± this, as 1.5: images that are more typical, and more"
        " alike (default: not cut)",
        0.01,
        10,
    ),
)


@dataclasses.dataclass(frozen=True)
class Request:
    """Images to draw: of classes in turn, by names and numbers, or `between` two of them; from
    noise cut at ± `truncation`.
    """

    names: tuple[str, ...] = ()
    classes: tuple[int, ...] = ()
    between: bool = False
    truncation: float | None = None

    @property
    def about(self) -> dict[str, Any]:
        """The entries for the record of the folder, beside those of the checkpoint."""
        key = "between" if self.between else "classes"
        about: dict[str, Any] = {key: list(self.names)} if self.names else {}
        return about | ({} if self.truncation is None else {"truncation": self.truncation})

    @property
    def words(self) -> list[str]:
        """The same as words in the name of a folder."""
        words = []
        for name, place in zip(self.names, self.classes, strict=True):
            plain = re.sub(r"[^A-Za-z0-9._-]+", "_", name)
            words.append(plain if plain == name else f"{place}{plain}")  # others may look alike
        words = ["-to-".join(words)] if self.between else words
        return words + ([] if self.truncation is None else [f"truncation{self.truncation:g}"])

    def drawing(self, recipe: Any) -> Any:
        """Return how the recipe draws these images; ConfigError where it cannot."""
        from distgan.outputs.image_results import Drawing

        drawing = Drawing.of(recipe)
        sample, classes_of = drawing.sample, drawing.classes_of
        if self.truncation is not None:
            sample = partial(sample, truncation=self.truncation)
        if self.between:
            sample = partial(_rows, sample)
        if self.classes:
            if drawing.labels is None:
                raise ConfigError(
                    f"class={','.join(self.names)}: {recipe.run.recipe} has no method `classes_of`."
                    " Give it `def classes_of(self, numbers, purpose='noise/sample'): return"
                    " self.labels.draw(self.run.seed, purpose, numbers, 'training')`, self.labels"
                    " being the constructor's, and let `sample` take `classes=None` (docs/your-own"
                    "-gan.md, Labels); code=accept continues the run with it"
                )
            classes_of = partial(self._classes_of, len(drawing.labels))
        return dataclasses.replace(drawing, sample=sample, classes_of=classes_of)

    def _classes_of(self, total: int, numbers: Any, purpose: str) -> Any:
        """Return the classes of the images `numbers`, int64 [n]; of those between two classes the
        weights of all, float64 [n, total].
        """
        import numpy as np

        if not self.between:
            return np.array(self.classes)[numbers % len(self.classes)]
        share = (numbers % COLUMNS) / (COLUMNS - 1)
        weights = np.zeros((len(numbers), total))
        weights[:, self.classes[0]], weights[:, self.classes[1]] = 1 - share, share
        return weights


def _rows(sample: Callable[..., Any], numbers: Any, *given: Any) -> Any:
    """Draw the images of a row from one noise."""
    return sample(numbers // COLUMNS, *given)


def requested(arguments: Arguments, module: Module, run: Run, folder: Path) -> Request:
    """Return what the options ask of the run in `folder`; ConfigError, before processes start."""
    between = arguments.interpolate is not None
    option = "interpolate" if between else "class"
    text, truncation = getattr(arguments, option), arguments.truncation
    names = tuple(name.strip() for name in (text or "").split(",") if name.strip())
    if between and vars(arguments)["class"] is not None:
        raise ConfigError("interpolate: it names its two classes; leave --class out")
    if between and len(set(names)) != 2:
        raise ConfigError(f"interpolate={text!r}: name two classes: --interpolate rose,lotus")
    if text is not None and not names:
        raise ConfigError(f"class={text!r}: name a class, or several: --class rose,lotus")
    if names:
        _require_classes(f"{option}={text}", between, module, run)
    if truncation is not None:
        _require_cut_noise(module, run)
    labels = trained_run.labels_of(run, folder) if names else None
    numbers = tuple(labels.number(name) for name in names) if labels else ()
    return Request(names, numbers, between, truncation)


def _require_classes(asked: str, between: bool, module: Module, run: Run) -> None:
    from distgan.recipes._noise import DrawsFromNoise

    if run.label_column is None:
        remedy = (
            "train it with conditional=true"
            if "conditional" in type(run).model_fields
            else "docs/your-own-gan.md, Labels, says how a recipe asks for them"
        )
        raise ConfigError(
            f"{asked}: the networks of this {run.recipe} run are given no classes; {remedy}"
        )
    if between and not issubclass(module.Recipe, DrawsFromNoise):
        raise ConfigError(
            f"{asked}: the networks of {run.recipe} are given one class, not a mixture of two;"
            " those of sagan, r3gan and wgan_flowers take both"
        )


def _require_cut_noise(module: Module, run: Run) -> None:
    sample = getattr(module.Recipe, "sample", None)
    if sample is None or "truncation" not in inspect.signature(sample).parameters:
        raise ConfigError(
            f"truncation: {run.recipe} draws from no noise that can be cut"
            + ("; docs/your-own-gan.md says how `sample` can" if sample else "")
        )
