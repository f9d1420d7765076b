"""Mutants: one syntax node of a source file changed each, as a slip of the hand would.

Kinds: comparisons, arithmetic, and/or, a `not` dropped, min/max and all/any exchanged, constants
and defaults, bounds of slices, branches and arguments exchanged, statements, raises, early returns
and durability calls dropped, loop exits exchanged. Not changed: annotations, messages, docstrings.
"""

import ast
import copy
import dataclasses
from collections.abc import Iterator
from typing import Any

COMPARE = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
}
ARITHMETIC = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.FloorDiv,
    ast.Pow: ast.Mult,
}
EXCHANGED = {"min": "max", "max": "min", "all": "any", "any": "all", "floor": "ceil"}
DURABILITY = {"fsync", "replace", "rename", "unlink", "flush", "link", "flock", "sync_folder"}
MESSAGES = {"say", "warn", "print", "command", "Field", "ArgumentError", "debug", "info"}
NO_ARGUMENTS_EXCHANGED = {"isinstance", "getattr", "hasattr", "setattr", "issubclass"}


@dataclasses.dataclass(frozen=True)
class Mutant:
    """`old` at bytes [start, end) of the file becomes `new`; `function`: where, "" outside any."""

    kind: str
    start: int
    end: int
    line: int
    old: str
    new: str
    function: str


def mutants(source: str) -> list[Mutant]:
    """List the mutants of a file, in the order of the file; each parses."""
    tree = ast.parse(source)
    parents = {child: node for node in ast.walk(tree) for child in ast.iter_child_nodes(node)}
    skipped = _skipped(tree)
    offsets = _offsets(source)
    data = source.encode()
    made: dict[tuple[int, int, str], Mutant] = {}
    for node in ast.walk(tree):
        if node in skipped or not hasattr(node, "lineno"):
            continue
        for kind, at, new in _changes(node, parents):
            start = offsets[at.lineno - 1] + at.col_offset
            end = offsets[at.end_lineno - 1] + at.end_col_offset
            old = data[start:end].decode()
            text = new if isinstance(new, str) else ast.unparse(new)
            if isinstance(new, ast.BinOp | ast.BoolOp | ast.Compare | ast.UnaryOp | ast.IfExp):
                text = f"({text})"
            mutant = Mutant(kind, start, end, at.lineno, old, text, _function(node, parents))
            if text != old and _parses(apply(source, mutant)):
                made.setdefault((start, end, text), mutant)
    return sorted(made.values(), key=lambda mutant: (mutant.start, mutant.end, mutant.new))


def apply(source: str, mutant: Mutant) -> str:
    data = source.encode()
    return (data[: mutant.start] + mutant.new.encode() + data[mutant.end :]).decode()


def probed(source: str, probes: dict[int, Mutant]) -> str:
    """Return the file with `hit(number)` before the statement of each mutant in a function."""
    tree = ast.parse(source)
    offsets = _offsets(source)
    for number, mutant in probes.items():
        block, place = _statement(tree, mutant, offsets)
        if block is not None:
            block.insert(place, ast.parse(f"__import__('mutation_probe').hit({number})").body[0])
    return ast.unparse(ast.fix_missing_locations(tree))


def _statement(
    tree: ast.AST, mutant: Mutant, offsets: list[int]
) -> tuple[list[ast.stmt] | None, int]:
    """Find the innermost block of statements within a function, and the place in it."""
    best: tuple[list[ast.stmt] | None, int] = (None, 0)

    def visit(node: ast.AST, in_function: bool) -> None:
        nonlocal best
        in_function |= isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        for name in ("body", "orelse", "finalbody"):
            block = getattr(node, name, None)
            if not isinstance(block, list):
                continue
            for place, child in enumerate(block):
                if _own(child):
                    continue
                start = offsets[child.lineno - 1] + child.col_offset
                end = offsets[child.end_lineno - 1] + child.end_col_offset
                if in_function and start <= mutant.start and mutant.end <= end:
                    best = (block, place)
        for child in ast.iter_child_nodes(node):
            if not _own(child):
                visit(child, in_function)

    visit(tree, False)
    return best


def _own(node: ast.AST) -> bool:
    """Say whether it is a probe that was put in."""
    return isinstance(node, ast.Expr) and "mutation_probe" in ast.dump(node)


def _changes(
    node: ast.AST, parents: dict[ast.AST, ast.AST]
) -> Iterator[tuple[str, Any, ast.AST | str]]:
    parent = parents.get(node)
    match node:
        case ast.Compare():
            for place, operator in enumerate(node.ops):
                changed = copy.copy(node)
                changed.ops = [*node.ops]
                changed.ops[place] = COMPARE[type(operator)]()
                yield "comparison", node, changed
        case ast.BinOp() if type(node.op) in ARITHMETIC and not _of_text(node):
            yield "arithmetic", node, _with(node, op=ARITHMETIC[type(node.op)]())
        case ast.UnaryOp(op=ast.Not()):
            yield "not dropped", node, node.operand
        case ast.UnaryOp(op=ast.USub(), operand=operand) if not isinstance(operand, ast.Constant):
            yield "arithmetic", node, operand
        case ast.BoolOp():
            other = ast.Or() if isinstance(node.op, ast.And) else ast.And()
            yield "and/or", node, _with(node, op=other)
        case ast.Constant(value=bool() as value):
            yield "constant", node, repr(not value)
        case ast.Constant(value=int() as value):
            yield "constant", node, repr(value + 1)
        case ast.Constant(value=float() as value):
            yield "constant", node, repr(value * 2 if value else 1.0)
        case ast.IfExp():
            yield "branches", node, _with(node, body=node.orelse, orelse=node.body)
        case ast.Slice():
            for bound in ("lower", "upper"):
                if (value := getattr(node, bound)) is not None and not isinstance(
                    value, ast.Constant
                ):
                    more = ast.BinOp(value, ast.Add(), ast.Constant(1))
                    yield "slice", node, _with(node, **{bound: more})
        case ast.Call():
            yield from _of_call(node)
        case ast.Break():
            yield "loop exit", node, "continue"
        case ast.Continue():
            yield "loop exit", node, "pass"
        case ast.Raise() if isinstance(parent, ast.If | ast.For | ast.While):
            yield "raise dropped", node, "pass"
        case ast.Return(value=value) if value is not None and isinstance(parent, ast.If):
            yield "early return dropped", node, "pass"
        case ast.AugAssign():
            yield "statement dropped", node, "pass"
        case ast.Expr(value=ast.Call() as call) if _name(call.func) not in MESSAGES:
            durable = _name(call.func) in DURABILITY
            yield "durability" if durable else "statement dropped", node, "pass"
        case _:
            return


def _of_call(node: ast.Call) -> Iterator[tuple[str, Any, ast.AST | str]]:
    name = _name(node.func)
    if name in EXCHANGED:
        function = copy.copy(node.func)
        setattr(function, "id" if isinstance(function, ast.Name) else "attr", EXCHANGED[name])
        yield "min/max, all/any", node, _with(node, func=function)
    elif len(node.args) >= 2 and name not in NO_ARGUMENTS_EXCHANGED:
        first, second = node.args[:2]
        if not any(isinstance(value, ast.Starred | ast.Constant) for value in (first, second)):
            yield "arguments", node, _with(node, args=[second, first, *node.args[2:]])


def _with(node: Any, **changes: Any) -> Any:
    changed = copy.copy(node)
    for key, value in changes.items():
        setattr(changed, key, value)
    return changed


def _of_text(node: ast.BinOp) -> bool:
    """Say whether an operator joins strings, lists or paths: its opposite fails at once."""
    for side in (node.left, node.right):
        if isinstance(side, ast.JoinedStr | ast.List | ast.Tuple):
            return True
        if isinstance(side, ast.Constant) and isinstance(side.value, str):
            return True
    return isinstance(node.op, ast.Div) and any(
        word in ast.unparse(node).lower() for word in ("folder", "path", "parent", "home", "root")
    )


def _name(function: ast.AST) -> str:
    return getattr(function, "attr", getattr(function, "id", ""))


def _skipped(tree: ast.AST) -> set[ast.AST]:
    """Collect what is not changed: annotations, messages, and what an error says."""
    skipped: set[ast.AST] = set()
    for node in ast.walk(tree):
        parts: list[ast.AST | None] = []
        match node:
            case ast.JoinedStr():
                parts = [*ast.iter_child_nodes(node)]
            case ast.Raise():
                parts = [*ast.iter_child_nodes(node)]
            case ast.arg() | ast.AnnAssign():
                parts = [node.annotation]
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                parts = [node.returns, *node.decorator_list]
            case ast.Call() if _name(node.func) in MESSAGES:
                parts = [node]
        for part in parts:
            skipped.update(ast.walk(part) if part is not None else ())
    return skipped


def _function(node: ast.AST, parents: dict[ast.AST, ast.AST]) -> str:
    names = []
    function = False
    while (node := parents.get(node)) is not None:  # type: ignore[assignment]
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.append(node.name)
            function |= not isinstance(node, ast.ClassDef)
    return ".".join(reversed(names)) if function else ""


def _offsets(source: str) -> list[int]:
    """Byte offsets of the lines, for columns that count bytes."""
    offsets = [0]
    for line in source.encode().split(b"\n"):
        offsets.append(offsets[-1] + len(line) + 1)
    return offsets


def _parses(source: str) -> bool:
    try:
        ast.parse(source)
    except SyntaxError:
        return False
    return True
