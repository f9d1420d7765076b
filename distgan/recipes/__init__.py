"""A recipe is one file here.

Its name is the file's name. Nothing is registered. A YAML file here is a preset: a recipe with
other values.
"""

import difflib
import importlib
import pkgutil
from pathlib import Path
from types import ModuleType
from typing import Any

from distgan.config import loading
from distgan.config.batch_layout import BatchLayout
from distgan.config.settings import Run
from distgan.core import rng
from distgan.core.errors import ConfigError

FOLDER = Path(__file__).parent


def _modules() -> list[str]:
    """Files that are recipes; those that begin with _ are shared by recipes."""
    return [m.name for m in pkgutil.iter_modules(__path__) if not m.name.startswith("_")]


def names() -> list[str]:
    return sorted(_modules() + [p.stem for p in FOLDER.glob("*.yaml")])


def resolve(what: str) -> tuple[ModuleType, dict[str, Any]]:
    """A recipe's name, a preset's name or the path of a run file -> (the recipe's module, the
    settings written there).
    """
    tree: dict[str, Any] = {"recipe": what}
    if what.endswith((".yaml", ".yml")):
        tree = loading.read_yaml(Path(what))
    elif what in (path.stem for path in FOLDER.glob("*.yaml")):
        tree = loading.read_yaml(FOLDER / f"{what}.yaml")
    name = str(tree.get("recipe", ""))
    if not name:
        raise ConfigError(
            f"{what or repr(what)} names no recipe; there are: {', '.join(names())}; as in `recipe:"
            f" {names()[0]}`"
        )
    modules = _modules()
    if name not in modules:
        close = difflib.get_close_matches(name, names(), 1)
        raise ConfigError(
            f"no recipe {name[:60]!r}"
            + (f" (did you mean {close[0]}?)" if close else "")
            + f"; there are: {', '.join(names())}; or give a run file that ends in .yaml and names"
            f" one: `recipe: {modules[0]}`"
        )
    return importlib.import_module(f"{__name__}.{name}"), tree


def build(
    module: ModuleType, run: Run, ranks: Any, layout: BatchLayout, shape: tuple[int, ...]
) -> Any:
    """The recipe with its networks, which start alike on all ranks, devices and world sizes.

    Torch's generator is left as it was.
    """
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(rng.key(run.seed, "init"))
        return module.Recipe(run, ranks, layout, shape)
