"""The source of a recipe that is given as a class: of an importable module its file; of a script or
a notebook the class with the statements that it needs, as a module of its own.

A script or a notebook does more than define the class, and must not do it again where the run is
continued, scored or compared. Kept are, besides the class, the imports, functions, classes and
assignments at the top level whose names it uses, directly or through each other. Nothing is
executed. Imports no torch.
"""

import ast
import inspect
import symtable
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from distgan.core.errors import ConfigError
from distgan.runs import recipe_code
from distgan.runs.recipe_code import RecipeCode

_SAVE = "save the class to a file, my_gan.py, and give its path: distgan.train('my_gan.py', …)"


def of_class(recipe: type) -> RecipeCode:
    """Return the code of a recipe's class; ConfigError where its source cannot be had."""
    name = recipe.__qualname__
    if not callable(getattr(recipe, "step", None)):
        raise ConfigError(
            f"{name} has no method step(batches, now): it is no recipe; `distgan new` writes one"
        )
    if "<locals>" in name or "." in name:
        raise ConfigError(
            f"the recipe {name} is defined within a function or a class; define it at the top level"
        )
    module = sys.modules.get(recipe.__module__)
    file = getattr(module, "__file__", None)
    if recipe.__module__ != "__main__":
        file = _file_of(recipe) or file
        if not file or not file.endswith(".py"):
            raise ConfigError(f"the recipe {name} has no source file; {_SAVE}")
        return _of_module(recipe, Path(file))
    own = {name} if hasattr(recipe, "Settings") else {name, "Settings"}
    if file:
        path = Path(file).resolve()
        source = _needed(path, path.read_bytes(), own)
        return recipe_code.collect(path, name, name, path.stem, source=source)
    path = Path.cwd() / f"{name}.py"
    return recipe_code.collect(path, name, name, name, source=_of_cells(path, name, own))


def _file_of(recipe: type) -> str | None:
    """Return the file that defined a class; its module may have been replaced since."""
    for value in vars(recipe).values():
        code = getattr(inspect.unwrap(getattr(value, "__func__", value)), "__code__", None)
        if code and code.co_qualname.partition(".")[0] == recipe.__name__:
            if Path(code.co_filename).is_file():
                return str(code.co_filename)
    return None


def is_interactive(recipe: Any) -> bool:
    """Return whether a recipe is a class that was typed into a notebook or a prompt."""
    main = sys.modules.get("__main__")
    typed = isinstance(recipe, type) and recipe.__module__ == "__main__"
    return typed and getattr(main, "__file__", None) is None


def _of_module(recipe: type, file: Path) -> RecipeCode:
    """Return the code that the command line finds under the path of the class."""
    module, attribute = recipe.__module__, recipe.__qualname__
    if "." in module:
        own = ".".join((module, attribute))
        return recipe_code.collect(file, attribute, own, module)
    own = module if attribute == "Recipe" else f"{module}.{attribute}"
    return recipe_code.collect(file, attribute, own)


def _of_cells(path: Path, name: str, own: set[str]) -> bytes:
    """Return the module of a class in a notebook, from the cells in the order they were run in."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    if shell is None:
        raise ConfigError(f"the source of {name} is not known: it was typed at a prompt; {_SAVE}")
    cells = []
    for cell in shell.user_ns.get("In", []):
        text = shell.input_transformer_manager.transform_cell(cell)
        try:
            cells.append((text, ast.parse(text).body))
        except (SyntaxError, ValueError):  # a cell that failed
            continue
    statements = [(node, text) for text, body in cells for node in body]
    last = {name: i for i, (node, _) in enumerate(statements) for name in _binds(node)}
    # Of a cell that was run again, or changed, the last run counts.
    kept = [
        (node, text)
        for i, (node, text) in enumerate(statements)
        if any(last[name] == i for name in _binds(node))
    ]
    needed = _closure([node for node, _ in kept], own)
    _require(name, needed, path)
    parts = [_segment(text, node) for node, text in kept if node in needed]
    return "\n\n".join(parts).encode() + b"\n"


def _needed(path: Path, data: bytes, own: set[str]) -> bytes:
    """Return a script without the statements that its recipe does not need, its lines in place."""
    body = recipe_code.parse(path, data).body
    needed = _closure(body, own)
    _require(next(iter(own - {"Settings"})), needed, path)
    kept = {line for node in needed for line in range(_first_line(node), _last_line(node) + 1)}
    lines = data.decode("utf-8-sig").splitlines(keepends=True)
    text = "".join(line if i in kept else "\n" for i, line in enumerate(lines, 1))
    return text.encode()


def _require(name: str, needed: list[ast.stmt], path: Path) -> None:
    if not any(isinstance(node, ast.ClassDef) and node.name == name for node in needed):
        raise ConfigError(f"{path}: found no `class {name}:` at the top level; {_SAVE}")


def _closure(body: list[ast.stmt], names: set[str]) -> list[ast.stmt]:
    """Return the statements that bind these names, and those that such statements use."""
    binding: dict[str, list[ast.stmt]] = {}
    for node in body:
        for name in _binds(node):
            binding.setdefault(name, []).append(node)
    needed, waiting, seen = set(), [*names], set(names)
    while waiting:
        for node in binding.get(waiting.pop(), []):
            needed.add(node)
            used = _globals(symtable.symtable(ast.unparse(node), "statement", "exec")) - seen
            seen |= used
            waiting += used
    future = [n for n in body if isinstance(n, ast.ImportFrom) and n.module == "__future__"]
    return [node for node in body if node in needed or node in future]


def _globals(table: symtable.SymbolTable) -> set[str]:
    """Return the names that a statement takes from the top level; parameters and others of its own
    scopes may have the same names.
    """
    outside = symtable.Symbol.is_global
    if table.get_type() == "module":
        outside = symtable.Symbol.is_referenced
    names = {symbol.get_name() for symbol in table.get_symbols() if outside(symbol)}
    return names.union(*map(_globals, table.get_children()))


def _binds(node: ast.stmt) -> Iterator[str]:
    """Yield the names that a statement at the top level defines."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        yield node.name
    elif isinstance(node, ast.Import):
        yield from (alias.asname or alias.name.partition(".")[0] for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        yield from (alias.asname or alias.name for alias in node.names)
    elif isinstance(node, ast.Assign | ast.AnnAssign | ast.AugAssign):
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        yield from (n.id for each in targets for n in ast.walk(each) if isinstance(n, ast.Name))
    elif isinstance(node, ast.Try) or (isinstance(node, ast.If) and not _is_main_guard(node)):
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.stmt):
                yield from _binds(child)
            elif isinstance(child, ast.ExceptHandler):
                for inner in child.body:
                    yield from _binds(inner)


def _is_main_guard(node: ast.If) -> bool:
    return any(isinstance(n, ast.Name) and n.id == "__name__" for n in ast.walk(node.test))


def _first_line(node: Any) -> int:
    return min([node.lineno, *(each.lineno for each in getattr(node, "decorator_list", []))])


def _last_line(node: ast.stmt) -> int:
    return node.end_lineno or node.lineno


def _segment(text: str, node: ast.stmt) -> str:
    lines = text.splitlines()[_first_line(node) - 1 : _last_line(node)]
    return "\n".join(lines)
