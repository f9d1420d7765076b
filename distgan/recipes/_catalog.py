"""Find a recipe by its name, its file, its import path, the name of a preset or a run file. Imports
no torch.

A recipe of distgan is a file beside this one that defines what `_base.Recipe` asks for. One of your
own is a file anywhere (`my_gan.py`), an import path (`my_pkg.gans:MyGAN`), or a name that an
installed package declares in the entry-point group `distgan.recipes`.
"""

import importlib
import importlib.metadata
import importlib.util
import os
import pkgutil
import re
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from distgan.config import loading
from distgan.config.settings import Run
from distgan.core import console
from distgan.core.errors import ConfigError, did_you_mean
from distgan.distributed.environment import require_address_space
from distgan.recipes import _own_code
from distgan.runs import data_code, recipe_code
from distgan.runs.recipe_code import COPIES, RecipeCode
from distgan.runs.resolve import recorded_code

FOLDER = Path(__file__).parent
GROUP = "distgan.recipes"  # of entry points


@dataclass(frozen=True)
class RecipeModule:
    """A recipe of one's own, with the attributes that a module of distgan's recipes has."""

    Settings: type[Run]
    Recipe: Any
    code: RecipeCode
    __doc__: str

    def __post_init__(self) -> None:
        if self.code.root.suffix != ".zip":  # of a run
            _checked(self.code.name, f"{self.code.path}:{self.code.attribute}")


Module = ModuleType | RecipeModule


def _modules() -> list[str]:
    """Return the names of files that are recipes; those that begin with _ are shared by them."""
    return [m.name for m in pkgutil.iter_modules([str(FOLDER)]) if not m.name.startswith("_")]


def _presets() -> list[str]:
    return [path.stem for path in FOLDER.glob("*.yaml")]


def recipe_names() -> list[str]:
    """Return the names of recipes and presets, sorted, those of installed packages last."""
    built_in = sorted(_modules() + _presets())
    return built_in + sorted(entry_points().keys() - set(built_in))


def entry_points() -> dict[str, str]:
    """Return the recipes that installed packages declare: name -> import path."""
    return {point.name: point.value for point in importlib.metadata.entry_points(group=GROUP)}


def resolve_recipe(what: str) -> tuple[Module, dict[str, Any]]:
    """Return (the recipe's module, the settings written) for the name of a recipe or a preset, the
    file or import path of a recipe, or the path of a run file.

    Raises ConfigError for anything else.
    """
    require_address_space()  # a recipe imports torch
    tree: dict[str, Any] = {"recipe": what}
    beside: Path | None = None
    if is_run_file(what):
        beside = Path(what)
        tree = loading.read_yaml(beside)
        if isinstance(data := tree.get("data"), str):
            tree["data"] = data_code.checked(data, beside)
    elif what in _presets():
        tree = loading.Preset(loading.read_yaml(FOLDER / f"{what}.yaml"))
    name = str(tree.get("recipe", ""))
    if not name:
        raise ConfigError(
            f"{what or repr(what)} names no recipe; there are: {', '.join(recipe_names())}; as in"
            f" `recipe: {recipe_names()[0]}`"
        )
    if name in _modules():
        return importlib.import_module(f"{__package__}.{name}"), tree
    code = find_code(name, beside)
    module = RecipeModule(*_own_code.load(code))
    return module, {**tree, "recipe": code.name}


def is_run_file(what: str) -> bool:
    """Return True for the path of a YAML file."""
    return what.endswith((".yaml", ".yml"))


def find_code(name: str, beside: Path | None = None) -> RecipeCode:
    """Return the code of a recipe that is not distgan's, without executing it; ConfigError.

    `beside`: the run file that names it. Paths are relative to that, and the folder of a run knows
    the code that it trained with.
    """
    if beside and (copy := _copy_of_run(name, beside.parent)):
        return recipe_code.from_copy(copy)
    declared = {point.value for point in importlib.metadata.entry_points(group=GROUP, name=name)}
    if len(declared) > 1:
        raise ConfigError(
            f"several installed packages declare a recipe {name}; give one of their import paths:"
            f" {', '.join(sorted(declared))}"
        )
    target = next(iter(declared), name)
    file, _, attribute = target.partition(":")
    if file.endswith((".py", ".zip")):
        path = Path(file).expanduser()
        if beside and not path.is_absolute() and (beside.parent / path).is_file():
            path = beside.parent / path
        if not path.is_file():
            new = console.command("new", path.with_suffix(".py"))
            raise ConfigError(f"no file {path}; `{new}` writes one")
        if path.suffix == ".zip":
            return recipe_code.from_copy(path)
        stem = path.resolve().parent.name if path.name == "__init__.py" else path.stem
        own = f"{stem}.{attribute}" if attribute else stem
        own = _checked(own, path)
        return recipe_code.collect(path, attribute or "Recipe", own, named_in=beside)
    if found := _find_module(file, ":" in target or "." in file):
        own = name if target != name else ".".join(filter(None, (file, attribute)))
        own = _checked(own, found)
        return recipe_code.collect(found, attribute or "Recipe", own, file, named_in=beside)
    if os.path.exists(name) and not os.path.isfile(f"{name}.py"):
        line = console.command("train", "sagan", f"data={name}")
        raise ConfigError(f"{name} is no recipe. Name a recipe first, then data: {line}")
    files = [f"{name}.py"] if os.path.isfile(f"{name}.py") else []
    near = did_you_mean(name, files or recipe_names())
    raise ConfigError(
        f"no recipe {name[:60]!r}{near}; there are: {', '.join(recipe_names())}. One of your own is"
        " given by its file, as in my_gan.py (`distgan new my_gan.py` writes one), by its import"
        f" path, as in my_pkg.gans:MyGAN, or in a run file by `recipe: {_modules()[0]}`"
    )


def _checked(name: str, path: Path | str) -> str:
    """Return the name of a recipe; ConfigError unless it can be the name of a folder of runs."""
    if name in (*_modules(), *_presets()):
        raise ConfigError(f"{path} has the name of distgan's own recipe {name}; rename it")
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}", name):
        raise ConfigError(
            f"{path} gives the recipe the name {name!r}; allowed are at most 100 letters, digits, _"
            " - and . that do not begin with - or ."
        )
    return name


def _find_module(name: str, required: bool) -> Path | None:
    """Return the source file of a module, without importing it; None where there is none.

    The working directory is searched first, as by `python -m`.
    """
    if not required or not re.fullmatch(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*", name):
        return None
    top, *rest = name.split(".")
    here = Path(os.getcwd())
    spec = None
    if not (here / top).is_dir() and not (here / f"{top}.py").is_file():
        try:
            spec = importlib.util.find_spec(top)
        except (ImportError, ValueError):
            return None
        if spec is None or spec.origin in (None, "built-in", "frozen"):
            return None
        origin = Path(str(spec.origin))
        here = origin.parents[1] if spec.submodule_search_locations else origin.parent
    for file in (here.joinpath(top, *rest, "__init__.py"), here.joinpath(top, *rest)):
        file = file if file.name == "__init__.py" else file.with_name(f"{file.name}.py")
        if file.is_file():
            return file
    return None


def _copy_of_run(name: str, folder: Path) -> Path | None:
    """Return the copy of the code that the run in `folder` trained with last, if it has one and is
    of the recipe `name`.
    """
    code = recorded_code(folder)
    if code is None or code["copy"].rsplit("-", 2)[0] != name:
        return None
    path = folder / COPIES / code["copy"]
    if not path.is_file():
        raise ConfigError(
            f"the code that the run in {folder} trained with is gone: {path}. Restore it, or go on"
            f" with a file of the recipe {name}: distgan train FILE.py machine.folder={folder} …"
        )
    return path
