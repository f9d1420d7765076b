"""Options of `distgan generate` for image recipes: of which classes, and from which noise."""

import dataclasses
import inspect
import re
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

from distgan.commands import trained_run
from distgan.config.settings import Run
from distgan.core.arguments import Arguments, Option, number
from distgan.core.errors import ConfigError

OPTIONS = (
    Option(
        "class",
        "of conditional networks: draw images of this class, or in turn of these, separated by"
        " commas (default: as in training)",
        "NAMES",
    ),
    number(
        "truncation",
        "draw from noise that is cut at ± this, as 0.7: images that are more typical, and more"
        " alike (default: not cut)",
        0.01,
        10,
    ),
)


@dataclasses.dataclass(frozen=True)
class Request:
    """Images to draw: names and numbers of classes, in turn; noise cut at ± `truncation`."""

    names: tuple[str, ...] = ()
    classes: tuple[int, ...] = ()
    truncation: float | None = None

    @property
    def about(self) -> dict[str, Any]:
        """The entries for the record of the folder, beside those of the checkpoint."""
        about: dict[str, Any] = {"classes": list(self.names)} if self.names else {}
        return about | ({} if self.truncation is None else {"truncation": self.truncation})

    @property
    def words(self) -> list[str]:
        """The same as words in the name of a folder."""
        words = [re.sub(r"[^A-Za-z0-9._-]+", "_", name) for name in self.names]
        return words + ([] if self.truncation is None else [f"truncation{self.truncation:g}"])

    def drawing(self, recipe: Any) -> Any:
        """Return how the recipe draws these images; ConfigError where it cannot."""
        from distgan.outputs.image_results import Drawing

        drawing = Drawing.of(recipe)
        if self.truncation is not None:
            cut = partial(drawing.sample, truncation=self.truncation)
            drawing = dataclasses.replace(drawing, sample=cut)
        if self.classes:
            if drawing.labels is None:
                raise ConfigError(
                    f"class={','.join(self.names)}: {recipe.run.recipe} has no method `classes_of`"
                )
            drawing = dataclasses.replace(drawing, classes_of=self._in_turn)
        return drawing

    def _in_turn(self, numbers: Any, purpose: str) -> Any:
        """Return int64 [n], the classes of the images `numbers`."""
        import numpy as np

        return np.array(self.classes)[numbers % len(self.classes)]


def requested(arguments: Arguments, module: ModuleType, run: Run, folder: Path) -> Request:
    """Return what the options ask of the run in `folder`; ConfigError, before processes start."""
    text, truncation = vars(arguments)["class"], arguments.truncation
    names = tuple(name.strip() for name in (text or "").split(",") if name.strip())
    if text is not None and not names:
        raise ConfigError(f"class={text!r}: name a class, or several: --class rose,lotus")
    if names and run.label_column is None:
        remedy = (
            "train it with conditional=true"
            if "conditional" in type(run).model_fields
            else "docs/your-own-gan.md, Labels, says how a recipe asks for them"
        )
        raise ConfigError(
            f"class={text}: the networks of this {run.recipe} run are given no classes; {remedy}"
        )
    if truncation is not None:
        sample = getattr(module.Recipe, "sample", None)
        if sample is None or "truncation" not in inspect.signature(sample).parameters:
            raise ConfigError(
                f"truncation: {run.recipe} draws from no noise that can be cut"
                + ("; docs/your-own-gan.md says how `sample` can" if sample else "")
            )
    labels = trained_run.labels_of(run, folder) if names else None
    return Request(
        names, tuple(labels.number(name) for name in names) if labels else (), truncation
    )
