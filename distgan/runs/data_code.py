"""Find the map-style Dataset that a setting names by code: `data=my_data.py:photos`, or an import
path. What identifies it is the `fingerprint` that it states; its code is no part of a run's
identity. Imports no torch.
"""

import importlib
import importlib.util
import os
import sys
import zlib
from pathlib import Path
from types import ModuleType
from typing import Any

from distgan.config.data_name import NAME
from distgan.core.errors import ConfigError, innermost_line
from distgan.runs.recipe_code import strangers_work

_OTHERS = " (named in "  # after a name that a stranger's run file gives


def checked(text: str, named_in: Path) -> str:
    """Return what a run file names as its data; where another user may have written the file, so
    that `load` refuses to run it. A command line may name other data.
    """
    if NAME.fullmatch(text) and strangers_work(os.stat(named_in)):
        return f"{text}{_OTHERS}{named_in})"
    return text


def require_own(tree: Any, named_in: Path) -> None:
    """Raise ConfigError for a sweep file that names a Dataset and that another user may have
    written.
    """
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, dict | list):
            waiting += node.values() if isinstance(node, dict) else node
        elif isinstance(node, str):
            refuse(checked(node, named_in))


def refuse(text: str) -> None:
    """Raise ConfigError for a name of `checked` that must not be run."""
    name, others, file = text.partition(_OTHERS)
    if others:
        raise ConfigError(
            f"data: {file[:-1]} names {name}, which is code, and may have been written by another"
            f" user. If you trust it, name it yourself: data={name}, or --data {name}"
        )


def load(text: str) -> Any:
    """Return the object that `FILE.py:NAME` or `pkg.module:NAME` names, made where NAME is a class
    or a function; ConfigError names the line of a fault.
    """
    found = NAME.fullmatch(text)
    assert found
    file, name = found.groups()
    path = _file(file)
    try:
        alone = path and ("." not in file or file.endswith(".py"))
        module = _run(path) if path and alone else _imported(file, path)
        made = getattr(module, name)
        if callable(made) and not hasattr(type(made), "__getitem__"):
            made = made()
    except (Exception, SystemExit) as error:
        line = innermost_line(error, {str(path)})
        where = ":".join(map(str, line)) if line else text
        raise ConfigError(f"data: {where}: {type(error).__name__}: {error}") from error
    return made


def _file(name: str) -> Path | None:
    """Return the file to run; None for an installed module.

    It and the packages that hold it must be the user's own.
    """
    path, packages = Path(name).expanduser(), []
    if not name.endswith(".py"):
        path = Path(os.getcwd(), *name.split(".")).with_suffix(".py")
        if not path.is_file():
            return None
        folders = list(path.parents)[: name.count(".")]
        packages = [file for folder in folders if (file := folder / "__init__.py").is_file()]
    for file in (path, *packages):
        try:
            why = strangers_work(os.stat(file))
        except OSError as error:
            raise ConfigError(f"data: cannot read {file}: {error.strerror}") from None
        if why:
            raise ConfigError(
                f"data: {file} {why}: it is not run. If you trust it, make a copy of it"
            )
    return path.resolve()


def _imported(name: str, path: Path | None) -> ModuleType:
    """Import a module by its full name, that of a package in the working directory first."""
    if path is None:
        return importlib.import_module(name)
    here = os.getcwd()
    _append(path.parent)
    sys.path.insert(0, here)
    try:
        module = importlib.import_module(name)
    finally:
        sys.path.remove(here)
    if Path(str(module.__file__)).resolve() != path:
        raise ImportError(f"another package {name.partition('.')[0]} is in use: {module.__file__}")
    return module


def _append(folder: Path) -> None:
    """Let modules in this folder be imported, after all others."""
    if str(folder) not in sys.path:
        sys.path.append(str(folder))


def _run(path: Path) -> ModuleType:
    """Import a file, once in this process; modules beside it are found."""
    name = f"distgan_data_{zlib.crc32(str(path).encode()):08x}_{path.stem}"
    if name in sys.modules:
        return sys.modules[name]
    _append(path.parent)
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec and spec.loader
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module
