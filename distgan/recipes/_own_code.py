"""Import the code of a recipe that is not distgan's, from the sources that its digest covers.

Its modules, and nothing else that lies beside them, hide modules of the same names: a file
`random.py` or `data/` next to the recipe breaks no other import. What is imported later, within a
function, comes from the same sources, also where the files have changed or are gone. Where the
program has imported modules of the same names itself, `sys.modules` keeps the program's.
"""

import builtins
import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import pydantic
from pydantic_core import PydanticSerializationError

from distgan.config.introspection import type_name
from distgan.config.settings import Run
from distgan.core.errors import ConfigError, DistganError, innermost_line
from distgan.runs.recipe_code import RecipeCode
from distgan.shards.format.sample_spec import UNITS

_LOADING = threading.RLock()  # one thread imports at a time
_in_a_program = False  # of someone else, whose `sys.modules` a recipe's modules must not stay in
Loaded = tuple[type[Run], Any, RecipeCode, str]  # (Settings, Recipe, its code, its docstring)


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.SourceLoader):  # type: ignore[misc]
    """Find and load the modules of one recipe from memory."""

    def __init__(self, code: RecipeCode):
        self.code, self.modules = code, code.modules
        self.loaded: Loaded | None = None
        self.sources = {str(code.root / name): data for name, data in code.files.items()}
        names = [*self.modules, *(name.rpartition(".")[0] for name in self.modules)]
        # Folders without an __init__.py are packages as well.
        self.folders = {
            name.rsplit(".", i)[0] for name in names for i in range(name.count(".") + 1) if name
        }
        self.depth, self.lock, self.unloaded = 0, threading.RLock(), False
        # Names that are the program's in `sys.modules`, but while the recipe imports: where it has
        # modules of these names, and wherever distgan is a library.
        self.shared: set[str] = set()
        self.aside: dict[str, ModuleType] = {}

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        name = self.modules.get(fullname)
        if (name is None and fullname not in self.folders) or (self.shared and not self.depth):
            return None
        folder = [str(self.code.root.joinpath(*fullname.split(".")))]
        if name is None:
            spec = importlib.machinery.ModuleSpec(fullname, None, is_package=True)
            spec.submodule_search_locations = folder
            return spec
        return importlib.util.spec_from_file_location(
            fullname,
            self.get_filename(fullname),
            loader=self,
            submodule_search_locations=folder if name.endswith("__init__.py") else None,
        )

    def exec_module(self, module: ModuleType) -> None:
        if self.shared:
            vars(module)["__builtins__"] = {**vars(builtins), "__import__": self.import_within}
        super().exec_module(module)

    def import_within(
        self, name: str, space: Any = None, local: Any = None, names: Any = (), level: int = 0
    ) -> ModuleType:
        """Import what the recipe's code asks for, from its own sources if they have it."""
        if not level and name.partition(".")[0] not in self.folders | self.modules.keys():
            return __import__(name, space, local, names, level)
        with self.in_use():
            return __import__(name, space, local, names, level)

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Have the recipe's modules in `sys.modules`, then the program's of these names again."""
        with self.lock:
            self._exchange(+1)
            try:
                yield
            finally:
                self._exchange(-1)

    def _exchange(self, step: int) -> None:
        outermost = self.depth == (0 if step > 0 else 1)
        self.depth += step
        if outermost:
            if self.unloaded:  # its functions may still import
                sys.meta_path.insert(0, self) if step > 0 else sys.meta_path.remove(self)
            others = {name: sys.modules.pop(name) for name in self.shared if name in sys.modules}
            sys.modules.update(self.aside)
            self.aside = others

    def get_filename(self, fullname: str) -> str:
        return str(self.code.root / self.modules[fullname])

    def may_replace(self, name: str) -> bool:
        """Return whether the module of this name that is in use is the program's own, such as the
        one the recipe's class was taken from, and none that other packages may need.
        """
        other = sys.modules[name]
        file = getattr(other, "__file__", None)
        if name in self.modules and file == self.get_filename(name):
            return True
        places = [file] if file else [*getattr(other, "__path__", ())]
        installed = {"site-packages", "dist-packages"}
        return bool(places) and not any(installed & {*Path(place).parts} for place in places)

    def get_data(self, path: str) -> bytes:
        if path not in self.sources:
            raise OSError(f"no source {path}")
        return self.sources[path]


def load(code: RecipeCode) -> Loaded:
    """Import a recipe, in place of one that was loaded before.

    ConfigError names the file and the line of what is wrong.
    """
    with _LOADING:
        return _load(code)


def _load(code: RecipeCode) -> Loaded:
    for finder in _finders():
        if finder.code == code and finder.loaded:
            return finder.loaded
        if finder.depth and not finder.loaded:
            raise ConfigError(
                f"{finder.code.path}: its import trains a run; put that under"
                ' `if __name__ == "__main__":`'
            )
    unload()
    finder = _Finder(code)
    names = finder.folders | finder.modules.keys()
    finder.shared = names if _in_a_program else set()
    for name in names & sys.modules.keys():
        if not finder.may_replace(name):
            raise ConfigError(
                f"{code.path} imports the module {name} beside it, but another module of this name"
                f" is in use: {getattr(sys.modules[name], '__file__', None) or name}. Rename yours"
            )
        finder.shared = names
    sys.meta_path.insert(0, finder)
    with finder.in_use():
        finder.loaded = _imported(code)
    return finder.loaded


def _imported(code: RecipeCode) -> Loaded:
    try:
        module = importlib.import_module(code.module)
        recipe = getattr(module, code.attribute, None)
        settings = getattr(recipe, "Settings", getattr(module, "Settings", None))
        about = str(getattr(recipe, "__doc__", "") or module.__doc__).strip() or code.name
        if recipe is None:
            raise ConfigError(f"{code.path} has no class {code.attribute}{_other(code, module)}")
        return _checked(code, settings), _with_step(code, recipe), code, about
    except DistganError:
        raise
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt | MemoryError):
            raise
        text = str(error)
        if isinstance(error, pydantic.PydanticUserError):
            text = text.splitlines()[0]
        said = f"{type(error).__name__}: {text}{_hint(code, error)}"
        raise ConfigError(f"{blame(code, error)}: {said}") from error


def _hint(code: RecipeCode, error: BaseException) -> str:
    """Return what to write where a module that lies beside the recipe, or a name, is not found."""
    if isinstance(error, pydantic.PydanticUserError) and "non-annotated" in str(error):
        return "; a setting has a type, as in `epochs: float = 30`"
    if type(error) is NameError and code.name == code.attribute:  # of a script or a notebook
        return "; it may be defined by a statement that is not kept (docs/library.md)"
    if not isinstance(error, ModuleNotFoundError) or not error.name:
        return ""
    file, package = code.path.with_name(f"{error.name}.py"), code.module.rpartition(".")[0]
    if not file.is_file():
        return ""
    if package:
        return f"; {file.name} is in the package {package}: `from . import {error.name}`"
    return f"; {file.name} is found by an import statement"


def _other(code: RecipeCode, module: ModuleType) -> str:
    """Return how to name a recipe of another name in the file; else how to write one."""
    names = [
        name
        for name, value in vars(module).items()
        if isinstance(value, type) and value.__module__ == module.__name__
        if callable(getattr(value, "step", None))
    ]
    return f"; give {code.path.name}:{names[0]}" if names else f"; {HINT}"


def _finders() -> list[_Finder]:
    return [each for each in sys.meta_path if isinstance(each, _Finder)]


@contextmanager
def in_a_program() -> Iterator[None]:
    """Keep the modules of recipes that are loaded here out of `sys.modules`."""
    global _in_a_program
    before, _in_a_program = _in_a_program, True
    try:
        yield
    finally:
        _in_a_program = before


def unload() -> None:
    """Forget the modules of a recipe that was loaded before."""
    for finder in _finders():
        sys.meta_path.remove(finder)
        finder.unloaded = True
        for name in finder.folders | finder.modules.keys() if not finder.shared else ():
            sys.modules.pop(name, None)


def modules() -> list[ModuleType]:
    """Return all modules that are imported, also a recipe's that are not in `sys.modules`."""
    aside = [module for finder in _finders() for module in finder.aside.values()]
    return [*aside, *sys.modules.values()]


def blame(code: RecipeCode, error: BaseException) -> str:
    """Return `FILE:LINE` of the innermost line of the recipe that an error came through."""
    return ":".join(map(str, innermost_line(error, code.paths) or (code.path,)))


HINT = "`distgan new` writes a file that has all a recipe needs"


def _checked(code: RecipeCode, settings: Any) -> type[Run]:
    """Return the settings' class; ConfigError unless it is one for a recipe of one's own."""
    if not (isinstance(settings, type) and issubclass(settings, Run)):
        found = "no class Settings" if settings is None else f"Settings = {settings!r}"
        raise ConfigError(
            f"{code.path} has {found}; needed is `class Settings(api.Run):` with the settings of"
            f" {code.name}; {HINT}"
        )
    if settings.model_fields["recipe"].annotation is not str:
        raise ConfigError(
            f"{code.path}: Settings has a field `recipe`; delete it, or write `recipe: str` where"
            f" it is inherited: a recipe of your own is named after its file, here {code.name}"
        )
    for name, field in settings.model_fields.items():
        if why := _name_taken(name, field.annotation):
            raise ConfigError(f"{code.path}: Settings has a field `{name}`, {why}")
    if settings.kind not in UNITS:
        raise ConfigError(
            f"{code.path}: Settings.kind is {settings.kind!r}; allowed are"
            f" {', '.join(map(repr, UNITS))}"
        )
    _require_recordable(code, settings)
    return settings


def _name_taken(name: str, annotation: Any) -> str | None:
    """Return why a setting of one's own cannot have this name."""
    if name in Run.model_fields:
        free = ("recipe", "precision")  # the first is checked above; fewer precisions are fine
        kind = Run.model_fields[name].annotation
        if name not in free and annotation not in ((float, int) if kind is float else (kind,)):
            return (
                f"which is a setting of every run, of the type {type_name(kind)}: for another"
                f" default write `{name}: {type_name(kind)} = …`; for a setting of your own choose"
                " another name"
            )
    elif name in Run.__class_vars__:
        return f"which is no setting; write `{name} = …` without a type"
    elif isinstance(vars(Run).get(name), property):
        return f"which is a property of api.Run; write `@property` and `def {name}(self):`"
    elif name in vars(Run):
        return "which is a method of api.Run; rename yours"
    return None


def _require_recordable(code: RecipeCode, settings: Any) -> None:
    """Raise ConfigError unless a run's identity can be made of the settings."""
    try:
        settings.model_rebuild()  # a type that is not defined
        defaults = settings.model_construct()
        defaults.model_dump(mode="json")
        values = [defaults.model_dump()]
    except (pydantic.PydanticUserError, PydanticSerializationError, NameError) as error:
        raise ConfigError(f"{code.path}: Settings: {str(error).splitlines()[0]}") from error
    for value in values:
        if isinstance(value, set | frozenset):
            raise ConfigError(
                f"{code.path}: Settings has the set {value!r}, which has no fixed order across"
                " processes; use a tuple"
            )
        if isinstance(value, dict | list | tuple):
            values += value.values() if isinstance(value, dict) else value


def _with_step(code: RecipeCode, recipe: Any) -> Any:
    """Return the recipe's class; ConfigError unless it is one."""
    if not callable(recipe):
        raise ConfigError(f"{code.path}: {code.attribute} is no class; {HINT}")
    if not callable(getattr(recipe, "step", None)):
        raise ConfigError(f"{code.path}: {code.attribute} has no method step(batches, now); {HINT}")
    return recipe
