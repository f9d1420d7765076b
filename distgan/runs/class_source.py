"""The source of a recipe that is given as a class: of an importable module its file; of a script or
a notebook the class with the statements that it needs, as a module of its own.

A script or a notebook does more than define the class, and must not do it again where the run is
continued, scored or compared. Kept are, besides the class, the statements at the top level that
bind or change names that it uses, directly or through each other. Nothing is executed. Imports no
torch.
"""

import ast
import builtins
import inspect
import io
import symtable
import sys
import tokenize
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import CodeType
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
        path, module_name = _main(Path(file).resolve(), module, name)
        source = _needed(path, Path(file).read_bytes(), own)
        return recipe_code.collect(path, name, name, module_name, source=source)
    path = Path.cwd() / f"{name}.py"
    return recipe_code.collect(path, name, name, name, source=_of_cells(path, name, own))


def _file_of(recipe: type) -> str | None:
    """Return the file that defined a class; its module may have been replaced since."""
    for value in vars(recipe).values():
        code = getattr(inspect.unwrap(getattr(value, "__func__", value)), "__code__", None)
        if isinstance(code, CodeType) and code.co_qualname.partition(".")[0] == recipe.__name__:
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


def _main(path: Path, main: Any, name: str) -> tuple[Path, str]:
    """Return the file of the running script and its name as a module, which is not `__main__`."""
    spec = getattr(main, "__spec__", None)
    module = path.stem
    if spec and spec.origin and Path(spec.origin).resolve() == path and "." in spec.name:
        module = str(spec.name)  # of `python -m`
    return (path.with_name(f"{name}.py"), name) if module == "__main__" else (path, module)


@dataclass(frozen=True, eq=False)
class _Statement:
    """A statement at the top level: its lines without neighbours, the names that it binds, those
    whose objects it changes (`a.b = …`), those that it reads, and those it reads when it is run.
    """

    node: ast.stmt
    index: int
    lines: list[bytes]
    binds: set[str]
    changes: set[str]
    reads: set[str]
    now: set[str]

    @property
    def own(self) -> set[str]:
        return self.binds | self.changes

    @property
    def replaces(self) -> bool:
        """True where what was bound to its names before does not matter."""
        node = self.node
        if isinstance(node, ast.Assign | ast.AnnAssign):
            return bool(self.binds) and not self.changes and not self.binds & self.now
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            return not self.binds & self.now
        return isinstance(node, ast.Import | ast.ImportFrom) and not self.is_star

    @property
    def is_star(self) -> bool:
        return isinstance(self.node, ast.ImportFrom) and self.node.names[0].name == "*"

    @property
    def is_future(self) -> bool:
        return isinstance(self.node, ast.ImportFrom) and self.node.module == "__future__"

    @property
    def target(self) -> str:
        """The part of an object that it assigns to, as `a.b`; else nothing."""
        one = isinstance(self.node, ast.Assign) and len(self.node.targets) == 1 and not self.binds
        return ast.unparse(self.node.targets[0]) if one else ""  # type: ignore[attr-defined]

    @property
    def is_repeatable(self) -> bool:
        """True where it does the same when it is run again."""
        if isinstance(self.node, ast.Assign):
            return bool(self.target) and self.target not in ast.unparse(self.node.value)
        return self.is_star or isinstance(self.node, ast.Try | ast.If) and not self.own & self.now


def _statements(text: str, body: list[ast.stmt], start: int = 0) -> list[_Statement]:
    """Return the statements of a text; ast counts its columns in bytes of UTF-8."""
    lines = text.replace("\r\n", "\n").replace("\r", "\n").encode().split(b"\n")
    found = []
    for i, node in enumerate(body, start):
        part = lines[_first_line(node) - 1 : node.end_lineno]
        part[-1] = part[-1][: node.end_col_offset]
        if not getattr(node, "decorator_list", []):
            part[0] = part[0][node.col_offset :]
        found.append(_Statement(node, i, part, *_names(node)))
    return found


def _names(node: ast.stmt) -> tuple[set[str], set[str], set[str], set[str]]:
    """Return the names that a statement binds, changes, reads, and reads when it is run."""
    try:
        table = symtable.symtable(ast.unparse(node), "statement", "exec")
    except (SyntaxError, RecursionError):  # no part of a module, as `await`, or nested too deeply
        return set(), set(), set(), set()
    binds = {s.get_name() for s in table.get_symbols() if s.is_assigned() or s.is_imported()}
    stored: set[str] = set()
    for each in _walk(node):
        if isinstance(each, ast.alias) and each.name == "*":
            binds.add(ast.unparse(node))  # no name, but nothing else has it
        elif isinstance(each, ast.NamedExpr):
            binds.add(each.target.id)
        elif isinstance(each, ast.Attribute | ast.Subscript) and isinstance(each.ctx, ast.Store):
            root: ast.expr = each
            while isinstance(root, ast.Attribute | ast.Subscript):
                root = root.value
            stored |= {root.id} if isinstance(root, ast.Name) else set()
    reads, now = _globals(table), _globals(table, now=True)
    bare = isinstance(node, ast.AnnAssign) and not node.value
    if bare or isinstance(node, ast.Delete) or (isinstance(node, ast.If) and _is_main_guard(node)):
        binds, stored = set(), set()
    if isinstance(node, ast.AugAssign):
        now |= binds
    return binds, stored - binds, reads, now


def _walk(node: ast.AST) -> Iterator[ast.AST]:
    """Yield the nodes of a statement that are in its own scope."""
    yield node
    if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Lambda):
        for child in ast.iter_child_nodes(node):
            yield from _walk(child)


def _globals(table: symtable.SymbolTable, now: bool = False) -> set[str]:
    """Return the names that a statement takes from the top level; parameters and others of its own
    scopes may have the same names. `now`: without those that only bodies of functions read.
    """
    outside = symtable.Symbol.is_global
    if table.get_type() == "module":
        outside = symtable.Symbol.is_referenced
    names = {symbol.get_name() for symbol in table.get_symbols() if outside(symbol)}
    inner = [
        child
        for child in table.get_children()
        if not now
        or child.get_type() != "function"
        or child.get_name() in ("listcomp", "setcomp", "dictcomp", "genexpr")
    ]
    return names.union(*(_globals(child, now) for child in inner))


def _closure(statements: list[_Statement], names: set[str]) -> list[_Statement]:
    """Return the statements that bind or change these names, and those that such statements use."""
    binding: dict[str, list[_Statement]] = {}
    for each in statements:
        for name in each.own:
            binding.setdefault(name, []).append(each)
    needed, waiting, seen = set(), [*names], set(names)
    while waiting:
        for each in binding.get(waiting.pop(), []):
            needed.add(each)
            used = each.reads - seen
            seen |= used
            waiting += used
    unknown = seen - binding.keys() - vars(builtins).keys()
    return [
        each
        for each in statements
        if each in needed or each.is_future or (each.is_star and unknown)
    ]


def _require(name: str, needed: list[_Statement], path: Path, why: str = "") -> None:
    nodes = [each.node for each in needed]
    if not any(isinstance(node, ast.ClassDef) and node.name == name for node in nodes):
        raise ConfigError(f"{path}: found no `class {name}:` at the top level{why}; {_SAVE}")


# ---- of a script
def _needed(path: Path, data: bytes, own: set[str]) -> bytes:
    """Return a script without the statements that its recipe does not need, its lines in place."""
    body = recipe_code.parse(path, data).body
    text = data.decode(tokenize.detect_encoding(io.BytesIO(data).readline)[0])
    needed = _closure(_statements(text, body), own)
    _require(next(iter(own - {"Settings"})), needed, path)
    lines = [b""] * max((each.node.end_lineno or 0 for each in needed), default=0)
    for each in needed:
        for i, line in enumerate(each.lines, _first_line(each.node) - 1):
            lines[i] += b"; " + line if lines[i] else line
    return b"\n".join(lines) + b"\n"


def _is_main_guard(node: ast.If) -> bool:
    return any(isinstance(n, ast.Name) and n.id == "__name__" for n in ast.walk(node.test))


def _first_line(node: Any) -> int:
    return min([node.lineno, *(each.lineno for each in getattr(node, "decorator_list", []))])


# ---- of a notebook
_MAGICS = ("time", "capture", "prun")  # those that run their cell as it is


def _of_cells(path: Path, name: str, own: set[str]) -> bytes:
    """Return the module of a class in a notebook, from the cells in the order they were run in."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    if shell is None:
        raise ConfigError(f"the source of {name} is not known: it was typed at a prompt; {_SAVE}")
    statements: list[_Statement] = []
    why = ""
    for cell in shell.user_ns.get("In", []):
        try:
            text = shell.input_transformer_manager.transform_cell(cell)
            while (magic := _magic(text)) and magic[0] in _MAGICS:
                text = shell.input_transformer_manager.transform_cell(magic[1])
            if magic and f"class {name}" in magic[1]:
                why = f" of a cell; one begins with %%{magic[0]}"
            body = ast.parse(text).body
        except (SyntaxError, ValueError):  # a cell that failed
            continue
        statements += _statements(text, body, len(statements))
    places = _in_effect(statements)
    needed = _closure(list(places), own)
    _require(name, needed, path, why)
    parts = [b"\n".join(each.lines) for each in _ordered(needed, places)]
    return b"\n\n".join(parts) + b"\n"


def _magic(text: str) -> tuple[str, str] | None:
    """Return the name and the cell of a cell magic, from what IPython makes of it."""
    body = ast.parse(text).body
    if len(body) == 1 and isinstance(body[0], ast.Expr) and isinstance(body[0].value, ast.Call):
        call = body[0].value
        if isinstance(call.func, ast.Attribute) and call.func.attr == "run_cell_magic":
            name, _, cell = map(ast.literal_eval, call.args)
            return name, cell
    return None


def _in_effect(statements: list[_Statement]) -> dict[_Statement, int]:
    """Return the statements whose effect lasts, and the places they take. Of what was run again, or
    changed, the last run counts, in the place of the first.
    """
    first: dict[str, int] = {}
    last: dict[str, int] = {}
    for each in statements:
        for name in each.binds:
            first.setdefault(name, each.index)
            if each.replaces:
                last[name] = each.index
    places: dict[_Statement, int] = {}
    latest: dict[str, dict[str, str]] = {}  # name -> part of its object -> statement
    for each in statements:
        text, target = ast.dump(each.node), each.target
        if all(last.get(name, -1) > each.index for name in each.own):
            continue
        known = [latest.get(name, {}) for name in each.own]
        within = any(
            part.startswith(target) and part != target for parts in known for part in parts
        )
        if each.is_repeatable and not within and all(p.get(target) == text for p in known):
            continue
        for name in each.own:
            kept = latest.get(name, {}) if target and not within else {}
            latest[name] = {**kept, target: text}
        fixed = min(first[name] for name in each.binds) if each.replaces else each.index
        places[each] = -1 if each.is_future else fixed
    return places


def _ordered(needed: Iterable[_Statement], places: dict[_Statement, int]) -> list[_Statement]:
    """Return statements in the order of their places, each behind what it reads when it is run."""
    queue = sorted(needed, key=lambda each: (places[each], each.index))
    ordered: dict[_Statement, None] = {}
    begun: set[_Statement] = set()

    def place(each: _Statement) -> None:
        if each in begun:
            return
        begun.add(each)
        seen, waiting = {*each.now}, [*each.now]
        while waiting:
            name = waiting.pop()
            for other in queue:
                if name not in other.own or other is each:
                    continue
                earlier = other.index < each.index
                if earlier or (other.replaces and name in each.now):
                    place(other)
                if earlier:
                    waiting += other.reads - seen
                    seen |= other.reads
        ordered[each] = None

    for each in queue:
        place(each)
    return list(ordered)
