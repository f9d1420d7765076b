"""The source of a recipe that is no part of distgan: its files, their digest, one file that holds
them all. Executes none of it. Imports no torch.

The files are the recipe's own and the modules beside it that it imports, found by their import
statements, also those within functions. The digest is that of the syntax: a comment, a docstring or
a blank line changes nothing.
"""

import ast
import errno
import hashlib
import io
import json
import os
import sys
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from distgan.core import console
from distgan.core.errors import ConfigError
from distgan.core.files import make_folder, only_owner_writes, user_name, write_atomic
from distgan.core.reading import open_regular, parse_json, read_bytes

MAX_BYTES = 16 << 20  # of all files together
MANIFEST = "recipe.json"
COPIES = "recipe"  # the folder of a run that holds copies of its recipe's code
_TIME = (1980, 1, 1, 0, 0, 0)  # of every file in a copy: equal code gives equal bytes


@dataclass(frozen=True)
class RecipeCode:
    """The code of one recipe. `name`: the recipe's name in runs; `module` and `attribute`: where
    its class is; `files`: path below `root` -> source.
    """

    name: str
    module: str
    attribute: str
    root: Path
    files: dict[str, bytes]

    @property
    def path(self) -> Path:
        """The file in which the recipe's class is."""
        return self.root / self.modules[self.module]

    @property
    def modules(self) -> dict[str, str]:
        """The name of each module -> its file."""
        return {_module_of(name): name for name in self.files}

    @property
    def paths(self) -> frozenset[str]:
        """The files as Python names them in tracebacks."""
        return frozenset(str(self.root / name) for name in self.files)

    @property
    def digest(self) -> str:
        """16 hex digits of the syntax of all files, and of which class in them is the recipe;
        ConfigError where one is not valid Python.
        """
        sha256 = hashlib.sha256(f"{self.module}:{self.attribute}\n".encode())
        for name, data in sorted(self.files.items()):
            tree = parse(self.root / name, data)
            try:
                syntax = hashlib.sha256(_canonical(tree).encode())
            except RecursionError:
                raise ConfigError(f"{self.root / name}: nested too deeply") from None
            sha256.update(f"{name}\0{syntax.hexdigest()}\n".encode())
        return sha256.hexdigest()[:16]

    def changed_from(self, other: "RecipeCode") -> list[str]:
        """Return the functions and classes that differ, as `my_gan.py: Recipe.step`."""
        parts = [_parts(code) for code in (self, other)]
        return sorted(
            key
            for key in parts[0].keys() | parts[1].keys()
            if parts[0].get(key) != parts[1].get(key)
        )

    def pack(self) -> bytes:
        """Return all of it as the bytes of a ZIP file."""
        about = {"name": self.name, "module": self.module, "attribute": self.attribute}
        with io.BytesIO() as buffer:
            with zipfile.ZipFile(buffer, "w") as file:
                file.writestr(zipfile.ZipInfo(MANIFEST, _TIME), json.dumps(about))
                for name, data in sorted(self.files.items()):
                    file.writestr(zipfile.ZipInfo(name, _TIME), data)
            return buffer.getvalue()

    def copy_to(self, folder: Path) -> Path:
        """Write a copy into `folder`, unless it has one with this content; return its path."""
        data = self.pack()
        name = f"{self.name}-{hashlib.sha256(data).hexdigest()[:12]}-{os.getuid()}.zip"
        path = folder.resolve() / name
        if not path.is_file() or _copy_fault(path) or path.read_bytes() != data:
            make_folder(folder)
            with only_owner_writes():
                write_atomic(path, data)
        return path


def from_copy(path: Path) -> RecipeCode:
    """Read a copy; ConfigError unless it is sound and nobody else can have written it."""
    try:
        why = _copy_fault(path)
    except OSError as error:
        raise ConfigError(f"{path} is no copy of a recipe's code: {error}") from error
    if why:
        raise ConfigError(
            f"{path} holds the code of a recipe, and {why}: it is not run. If you trust it, make a"
            " copy of your own of the whole run folder (cp -r) and name that"
        )
    try:
        with zipfile.ZipFile(io.BytesIO(read_bytes(path, MAX_BYTES))) as file:
            entries = {info.filename: info for info in file.infolist()}
            if sum(info.file_size for info in entries.values()) > MAX_BYTES:
                raise ValueError(f"it unfolds into more than {MAX_BYTES >> 20} MB")
            read = {name: file.read(info) for name, info in entries.items()}
        about = parse_json(read.pop(MANIFEST))
        name, module, attribute = (_text(about[key]) for key in ("name", "module", "attribute"))
        code = RecipeCode(name, module, attribute, path, read)
        if code.module not in code.modules:
            raise ValueError(f"it has no module {code.module}")
    except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile, RuntimeError) as error:
        raise ConfigError(f"{path} is no copy of a recipe's code: {error}") from error
    return code


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError("its recipe.json is damaged")
    return value


def _copy_fault(path: Path) -> str | None:
    """Return why a copy may be another user's work."""
    with open_regular(path) as file:
        about = os.fstat(file.fileno())
    if about.st_uid not in (0, os.getuid()):
        return f"belongs to {user_name(about.st_uid)}"
    return "may be written by other users" if about.st_mode & 0o022 else None


def strangers_work(about: os.stat_result) -> str | None:
    """Return why another user may have written a file of code."""
    if about.st_uid not in (0, os.getuid()):
        return f"belongs to {user_name(about.st_uid)}"
    return "may be written by everybody" if about.st_mode & 0o002 else None


def _require_owned(path: Path, about: os.stat_result, named_in: Path) -> None:
    """Raise ConfigError if a stranger may have written a file that a run file leads to: reading
    settings must not run another user's code.
    """
    if why := strangers_work(about):
        raise ConfigError(
            f"{named_in} names a recipe, which is code, and {path} {why}. If you trust it, name the"
            f" recipe on the command line, as in {console.command('train', 'my_gan.py')} …"
        )


def _read(path: Path, named_in: Path | None) -> bytes:
    """Return a source file; OSError if it has more than MAX_BYTES."""
    with open_regular(path, links=True) as file:
        about = os.fstat(file.fileno())
        if named_in:
            _require_owned(path, about, named_in)
        if about.st_size > MAX_BYTES or len(data := file.read(MAX_BYTES + 1)) > MAX_BYTES:
            raise OSError(errno.EFBIG, f"it has more than {MAX_BYTES >> 20} MB", str(path))
    return data


# ---- collecting the files
def collect(
    path: Path,
    attribute: str,
    name: str,
    module: str | None = None,
    named_in: Path | None = None,
    source: bytes | None = None,
) -> RecipeCode:
    """Collect the code of the recipe in the file `path`.

    `source`: its content, where that is not what the file holds.
    `named_in`: the run file that names it; then no file may be another user's.
    `module`: its full name; by default that of a script, or of a module where the file lies in a
    package.
    """
    if named_in:
        _require_owned(named_in, os.stat(named_in), named_in)
    path = path.resolve()
    if "." in path.stem:
        better = path.with_stem(path.stem.replace(".", "_")).name
        raise ConfigError(f"{path}: Python imports no file of this name; rename it to {better}")
    if module is None:
        parts, folder = [path.stem], path.parent
        while (folder / "__init__.py").is_file() and "." not in folder.name:
            parts, folder = [folder.name, *parts], folder.parent
        module = ".".join(parts).removesuffix(".__init__")
    depth = module.count(".") + (path.name == "__init__.py")
    root = path.parents[depth]
    own = module.partition(".")[0] if _is_installed(root) else None
    files: dict[str, bytes] = {}
    main = path.relative_to(root).as_posix()
    waiting = [*_packages(root, module), main]
    while waiting:
        relative = waiting.pop()
        if relative in files:
            continue
        try:
            given = source if relative == main else None
            files[relative] = _read(root / relative, named_in) if given is None else given
        except OSError as error:
            raise ConfigError(
                f"cannot read the recipe {root / relative}: {error.strerror}"
            ) from error
        if sum(map(len, files.values())) > MAX_BYTES:
            raise ConfigError(f"{path} imports more than {MAX_BYTES >> 20} MB of modules beside it")
        for imported in _imports(parse(root / relative, files[relative]), relative):
            if own in (None, imported.partition(".")[0]):
                waiting += _files_of(root, imported)
    return RecipeCode(name, module, attribute, root, dict(sorted(files.items())))


def parse(path: Path, data: bytes) -> ast.Module:
    """Parse a source file; ConfigError names the line."""
    try:
        return ast.parse(data, str(path))
    except SyntaxError as error:
        raise ConfigError(f"{path}:{error.lineno}: {error.msg}") from error
    except (ValueError, RecursionError, MemoryError) as error:
        raise ConfigError(f"{path}: not Python source: {error}") from error


def _is_installed(root: Path) -> bool:
    """Return True for a folder of installed packages: what lies beside one is no part of it."""
    return root.name in ("site-packages", "dist-packages")


def _packages(root: Path, module: str) -> list[str]:
    """Return the `__init__.py` of the packages that a module lies in."""
    parents = [module.rsplit(".", i)[0] for i in range(1, module.count(".") + 1)]
    return [file for parent in parents for file in _files_of(root, parent)]


def _files_of(root: Path, module: str) -> Iterator[str]:
    """Yield the files of a module below `root` and of the packages that it lies in, if any."""
    names = module.split(".")
    if names[0] in sys.stdlib_module_names or names[0] == "distgan":
        return
    for i in range(len(names)):
        for file in (PurePosixPath(*names[: i + 1], "__init__.py"), PurePosixPath(*names[: i + 1])):
            file = file if file.name == "__init__.py" else file.with_name(f"{file.name}.py")
            if (root / file).is_file():
                yield str(file)
                break


def _imports(tree: ast.Module, relative: str) -> Iterator[str]:
    """Yield the names of all modules that a file may import, and of what it takes from them."""
    package = PurePosixPath(relative).parent.parts
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            base = ".".join([*above, *([node.module] if node.module else [])])
            if base:
                yield base
                yield from (f"{base}.{alias.name}" for alias in node.names if alias.name != "*")
            elif node.level:
                yield from (alias.name for alias in node.names)


def _module_of(name: str) -> str:
    parts = PurePosixPath(name).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


# ---- comparing
_DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def _body(node: Any) -> list[ast.stmt]:
    """Return the statements of a module, class or function, without its docstring."""
    return node.body[ast.get_docstring(node, clean=False) is not None :]


def _canonical(node: Any) -> str:
    """Return the syntax as text: without places, docstrings and what this version of Python adds
    empty.
    """
    if isinstance(node, list):
        return f"[{','.join(map(_canonical, node))}]"
    if isinstance(node, ast.Constant):
        return f"{type(node.value).__name__}:{node.value!r}"
    if not isinstance(node, ast.AST):
        return repr(node)
    fields = dict(ast.iter_fields(node))
    if isinstance(node, _DOCUMENTED):
        fields["body"] = _body(node)
    text = ",".join(
        f"{name}={_canonical(value)}" for name, value in fields.items() if value not in (None, [])
    )
    return f"{type(node).__name__}({text})"


def _parts(code: RecipeCode) -> dict[str, str]:
    """Return the syntax of each function, class and of the rest of each file."""
    found: dict[str, str] = {}
    for name, data in code.files.items():
        rest = []
        for node in _body(parse(code.root / name, data)):
            if isinstance(node, ast.ClassDef):
                own = [child for child in _body(node) if not isinstance(child, _DOCUMENTED)]
                head = [*node.bases, *node.keywords, *node.decorator_list, *own]
                found[f"{name}: {node.name}"] = _canonical(head)
                for child in node.body:
                    if isinstance(child, _DOCUMENTED):
                        key = f"{name}: {node.name}.{child.name}"  # a property has several
                        found[key] = found.get(key, "") + _canonical(child)
            elif isinstance(node, ast.FunctionDef):
                found[f"{name}: {node.name}"] = _canonical(node)
            else:
                rest.append(node)
        found[name] = _canonical(rest)
    return found
