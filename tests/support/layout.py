"""Read a source tree once and list what breaks its rules: layers, circles, sizes, names, docs.

Every check returns all offenders, one line each, sorted. tests/unit/test_layout.py holds the rules
of this project and runs the checks on small invented trees as well.
"""

import ast
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

# Beginnings of docstrings that are noun clauses, not statements.
NOUN_CLAUSE = re.compile(r"(What|Of|Whether|That|Those|Where|How many|Which)\b")


@dataclass(frozen=True)
class Import:
    name: str  # as far as it names a module of the tree, else as written
    line: int
    lazy: bool  # within a function or for a type checker only


@dataclass(frozen=True)
class Module:
    name: str
    path: Path
    body: ast.Module
    lines: int

    @property
    def is_package(self) -> bool:
        return self.path.name == "__init__.py"

    @property
    def package(self) -> str:
        return self.name if self.is_package else self.name.rpartition(".")[0]


class Tree:
    """The modules of one package, by dotted name; links to folders are followed."""

    def __init__(self, root: Path, package: str):
        self.root = root
        self.package = package
        self.modules: dict[str, Module] = {}
        self._read(root / package, package)
        self.imports = {name: list(self._imports(m)) for name, m in self.modules.items()}

    def _read(self, folder: Path, name: str) -> None:
        for path in sorted(folder.iterdir()):
            if path.is_dir() and (path / "__init__.py").exists():
                self._read(path, f"{name}.{path.name}")
            elif path.suffix == ".py":
                text = path.read_text()
                module = name if path.stem == "__init__" else f"{name}.{path.stem}"
                self.modules[module] = Module(module, path, ast.parse(text), len(text.splitlines()))

    def _imports(self, module: Module) -> Iterable[Import]:
        for node, lazy in _import_statements(module.body.body, lazy=False):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    yield Import(alias.name, node.lineno, lazy)
            else:
                base = "." * node.level + (node.module or "")
                for alias in node.names:
                    full = f"{base}.{alias.name}"
                    yield Import(full if full in self.modules else base, node.lineno, lazy)

    def layer(self, module: str, layers: Collection[str]) -> str | None:
        """The layer that a module belongs to: its own name or that of its closest package."""
        while module and module not in layers:
            module = module.rpartition(".")[0]
        return module or None


def _import_statements(body: Iterable[ast.stmt], lazy: bool):
    for node in body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield node, lazy
            continue
        inner = lazy or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        inner = inner or (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test))
        statements = [n for n in ast.iter_child_nodes(node) if isinstance(n, ast.stmt)]
        for part in ast.iter_child_nodes(node):  # `except` and `case` hold statements as well
            if isinstance(part, ast.ExceptHandler | ast.match_case):
                statements += part.body
        yield from _import_statements(statements, inner)


# ---- imports
def upward_imports(
    tree: Tree, layers: list[str], lazy_allowed: Collection[tuple[str, str]] = ()
) -> list[str]:
    """Imports that do not go down the ordered list of layers, relative ones, files of no layer.

    A lazy import may go up if (its file, the imported module) is in `lazy_allowed`; entries that no
    file needs any more are listed too.
    """
    level = {name: number for number, name in enumerate(layers)}
    offenders, used = [], set()
    for name, imports in tree.imports.items():
        own = tree.layer(name, level)
        if own is None or (own == tree.package and name != tree.package):
            offenders.append(f"{name} is in no layer")
            continue
        for found in imports:
            if found.name.startswith("."):
                offenders.append(f"{name} has a relative import")
            if found.name not in tree.modules:
                continue
            other = tree.layer(found.name, level)
            if other is None or other == own or level[other] < level[own]:
                continue
            if found.lazy and (name, found.name) in lazy_allowed:
                used.add((name, found.name))
            else:
                how = "lazily imports" if found.lazy else "imports"
                offenders.append(f"{name} {how} {found.name}")
    unused = [f"{a} need not be allowed {b}" for a, b in set(lazy_allowed) - used]
    return sorted({*offenders, *unused})


def circles(tree: Tree, of_packages: bool = False) -> list[str]:
    """Circles of files, or of packages, that import each other at top level."""
    edges: dict[str, set[str]] = {}
    for name, imports in tree.imports.items():
        own = _node(tree, name, of_packages)
        edges.setdefault(own, set())
        for found in imports:
            if found.lazy or found.name not in tree.modules:
                continue
            other = _node(tree, found.name, of_packages)
            if other != own:
                edges[own].add(other)
    reach = {name: _reachable(edges, name) for name in edges}
    rings = {
        tuple(sorted(b for b in reach[a] if a in reach.get(b, ()))) for a in edges if a in reach[a]
    }
    return sorted(" <-> ".join(ring) for ring in rings)


def _node(tree: Tree, name: str, of_packages: bool) -> str:
    """Return a module, or its package; a file beside the packages stands for itself."""
    package = tree.modules[name].package
    return package if of_packages and "." in package else name


def _reachable(edges: Mapping[str, Collection[str]], start: str) -> set[str]:
    seen, todo = set(), list(edges.get(start, ()))
    while todo:
        name = todo.pop()
        if name not in seen:
            seen.add(name)
            todo += edges.get(name, ())
    return seen


def importers(tree: Tree, library: str, allowed: Collection[str]) -> list[str]:
    """Modules that import a library, or use it as an attribute, and are not in `allowed`."""
    offenders = []
    for name, module in tree.modules.items():
        if any(name == a or name.startswith(f"{a}.") for a in allowed):
            continue
        names = [found.name for found in tree.imports[name]]
        if any(n == library or n.startswith(f"{library}.") for n in names):
            offenders.append(f"{name} imports {library}")
        elif "." in library and any(
            isinstance(node, ast.Attribute) and ast.unparse(node) == library
            for node in ast.walk(module.body)
        ):
            offenders.append(f"{name} uses {library}")
    return sorted(offenders)


def reaches(tree: Tree, packages: Collection[str], library: str) -> list[str]:
    """Modules of `packages` whose import loads a library: by themselves or by what they import."""
    direct = {
        name
        for name, imports in tree.imports.items()
        if any(not f.lazy and f.name.split(".")[0] == library for f in imports)
    }
    edges = {}
    for name, imports in tree.imports.items():
        loaded = {f.name for f in imports if not f.lazy and f.name in tree.modules}
        parents = {p for n in (name, *loaded) for p in _parents(n)} & tree.modules.keys()
        edges[name] = loaded | parents - {name}
    offenders = []
    for name in tree.modules:
        if any(name == p or name.startswith(f"{p}.") for p in packages):
            through = sorted(({name} | _reachable(edges, name)) & direct)
            if name in through:
                offenders.append(f"{name} imports {library}")
            elif through:
                offenders.append(f"{name} imports {library} through {', '.join(through)}")
    return sorted(offenders)


def _parents(name: str) -> Iterable[str]:
    while "." in name:
        name = name.rpartition(".")[0]
        yield name


# ---- sizes
def full_folders(folders: Iterable[Path], most: int) -> list[str]:
    """Folders of more than `most` Python files, of all that lie within `folders`."""
    counts: dict[Path, int] = {}
    for top in folders:
        for path in top.rglob("*.py"):
            counts[path.parent] = counts.get(path.parent, 0) + 1
    return sorted(f"{folder.name} has {n} files" for folder, n in counts.items() if n > most)


def long_files(tree: Tree, most: int) -> list[str]:
    return sorted(f"{m.name} has {m.lines} lines" for m in tree.modules.values() if m.lines > most)


def long_functions(tree: Tree, most: int, names: re.Pattern = re.compile("")) -> list[str]:
    """Functions of more than `most` lines; `names` says of which, by the start of the name."""
    return sorted(
        f"{m.name}.{node.name} has {node.end_lineno - node.lineno + 1} lines"
        for m in tree.modules.values()
        for node in ast.walk(m.body)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and names.match(node.name)
        and node.end_lineno - node.lineno + 1 > most
    )


# ---- names and docs
def hiding_names(folder: Path, taken: Collection[str]) -> list[str]:
    """Modules and packages of a folder with the name of one that is installed."""
    names = {path.stem for path in folder.iterdir() if path.suffix == ".py" or path.is_dir()}
    return sorted(f"{folder.name}/{name} hides {name}" for name in names & set(taken))


def init_files(tree: Tree, exempt: Collection[str] = ()) -> list[str]:
    """Package files that hold more than a docstring, or whose docstring leaves a file out."""
    offenders = []
    for name, module in tree.modules.items():
        if not module.is_package or name in exempt:
            continue
        doc = ast.get_docstring(module.body) or ""
        if len(module.body.body) > bool(doc):
            offenders.append(f"{name} holds more than a docstring")
        files = {n.rpartition(".")[2] for n in tree.modules if n.rpartition(".")[0] == name}
        missing = sorted(f for f in files if not re.search(rf"(?<!\w){re.escape(f)}(?!\w)", doc))
        if missing:
            offenders.append(f"{name} does not name {', '.join(missing)}")
    return sorted(offenders)


def noun_clauses(tree: Tree) -> list[str]:
    """Docstrings that begin with What, Of, Whether, That and the like."""
    kinds = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
    return sorted(
        f"{m.name}{'.' + node.name if not isinstance(node, ast.Module) else ''}: {doc.split()[0]} …"
        for m in tree.modules.values()
        for node in ast.walk(m.body)
        if isinstance(node, kinds) and NOUN_CLAUSE.match(doc := ast.get_docstring(node) or "")
    )
