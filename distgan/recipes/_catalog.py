"""Find a recipe by its name, the name of a preset or a run file. Imports no torch.

To add one, put a file beside this one that defines what `_base.Recipe` asks for.
"""

import importlib
import pkgutil
from pathlib import Path
from types import ModuleType
from typing import Any

from distgan.config import loading
from distgan.core.errors import ConfigError, did_you_mean

FOLDER = Path(__file__).parent


def _modules() -> list[str]:
    """Return the names of files that are recipes; those that begin with _ are shared by them."""
    return [m.name for m in pkgutil.iter_modules([str(FOLDER)]) if not m.name.startswith("_")]


def recipe_names() -> list[str]:
    """Return the names of recipes and presets, sorted."""
    return sorted(_modules() + [p.stem for p in FOLDER.glob("*.yaml")])


def resolve_recipe(what: str) -> tuple[ModuleType, dict[str, Any]]:
    """Return (the recipe's module, the settings written) for the name of a recipe or a preset, or
    the path of a run file. Raises ConfigError for anything else.
    """
    tree: dict[str, Any] = {"recipe": what}
    if what.endswith((".yaml", ".yml")):
        tree = loading.read_yaml(Path(what))
    elif what in (path.stem for path in FOLDER.glob("*.yaml")):
        tree = loading.read_yaml(FOLDER / f"{what}.yaml")
    name = str(tree.get("recipe", ""))
    if not name:
        raise ConfigError(
            f"{what or repr(what)} names no recipe; there are: {', '.join(recipe_names())}; as in"
            f" `recipe: {recipe_names()[0]}`"
        )
    modules = _modules()
    if name not in modules:
        near = did_you_mean(name, recipe_names())
        raise ConfigError(
            f"no recipe {name[:60]!r}{near}; there are: {', '.join(recipe_names())}; or give a run"
            f" file that ends in .yaml and names one: `recipe: {modules[0]}`"
        )
    return importlib.import_module(f"{__package__}.{name}"), tree
