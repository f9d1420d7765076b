"""Findings of the inspection of a recipe, with lines of its own files."""

import ast
import contextlib
import dataclasses
import os
import traceback
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any, Literal

import torch

import distgan
from distgan.core import console
from distgan.core.errors import ConfigError, DistganError, innermost_line
from distgan.recipes import _own_code

Place = tuple[str, int]  # file, line
_TORCH = str(Path(torch.__file__).parent) + os.sep
_OPTIMIZERS = f"{_TORCH}optim{os.sep}"
_DISTGAN = str(Path(distgan.__file__).parent) + os.sep
_CHECK = str(Path(__file__).parent) + os.sep
# Functions of the engine that only pass a call on to a recipe's network.
_PASSING = {"__call__", "forward", "_cast", "uncompiled", "generate", "forward_local"}
_PASSED_BY = tuple(f"{_DISTGAN}engine{os.sep}{name}.py" for name in ("player", "ddp"))


@dataclasses.dataclass(frozen=True)
class Finding:
    """A fault, or (`note`) a thing that is allowed and costs; the line is in the recipe's files."""

    level: Literal["error", "note"]
    cause: str
    file: str | None
    line: int | None
    remedy: str
    origin: BaseException | None = dataclasses.field(default=None, compare=False, repr=False)

    def __str__(self) -> str:
        where = f"{Path(self.file).name}:{self.line}: " if self.file and self.line else ""
        return f"{where}{self.cause}. {self.remedy}".rstrip()


def error(place: Place | None, cause: str, remedy: str) -> Finding:
    file, line = place or (None, None)
    return Finding("error", cause, file, line, remedy)


def note(place: Place | None, cause: str, remedy: str) -> Finding:
    file, line = place or (None, None)
    return Finding("note", cause, file, line, remedy)


class Refused(Exception):
    """Ends a step whose recipe cannot go on; holds the finding."""

    def __init__(self, finding: Finding):
        super().__init__(str(finding))
        self.finding = finding


def require(findings: Iterable[Finding]) -> None:
    """Print the notes; raise ConfigError with all errors, each with its line, if there are any."""
    findings = list(findings)
    errors = [finding for finding in findings if finding.level == "error"]
    for finding in findings:
        if finding.level == "note":
            console.say(f"note: {finding}")
    if errors:
        origin = next((finding.origin for finding in errors if finding.origin), None)
        raise ConfigError("\n".join(map(str, errors))) from origin


@contextlib.contextmanager
def explained(files: Collection[str]) -> Iterator[None]:
    """Raise ConfigError with the recipe's line in place of what its code raises."""
    try:
        yield
    except (DistganError, torch.OutOfMemoryError):
        raise
    except Refused as refused:
        require([refused.finding])
    except Exception as fault:
        if innermost_line(fault, files) is None:
            raise
        require([raised(fault, files)])


def raised(
    fault: Exception, files: Collection[str], where: Place | None = None, how: str = ""
) -> Finding:
    """Return the finding for what the recipe's code raised; `where` if none of its lines did."""
    text = str(fault).strip().splitlines()
    cause = f"{how}{type(fault).__name__}: {text[0]}" if text else f"{how}{type(fault).__name__}"
    found = error(innermost_line(fault, files) or where, cause.rstrip("."), "")
    return dataclasses.replace(found, origin=fault)


def of_the_check(fault: BaseException) -> bool:
    """Return whether an exception comes from this package: a fault of its own."""
    names = [frame.f_code.co_filename for frame, _ in traceback.walk_tb(fault.__traceback__)]
    # Calls of torch pass through the modes that watch them.
    names = [n for n in names if not n.startswith(_TORCH) and n != f"{_CHECK}watch.py"]
    return bool(names) and names[-1].startswith(_CHECK)


def caller(
    files: Collection[str], frame: FrameType | None, *, outside: Literal["torch", "engine"]
) -> Place | None:
    """Return the line of the recipe that is responsible for what `frame` does; None if another
    is.

    `torch`: it calls torch itself. `engine`: nothing of this program is between, other than what
    passes a call on to a network.
    """
    while frame is not None:
        name = frame.f_code.co_filename
        if name in files:
            return name, frame.f_lineno
        ours = name.startswith(_DISTGAN) and not name.startswith(_CHECK)
        passed = name in _PASSED_BY and frame.f_code.co_name in _PASSING
        if ours and not (outside == "engine" and passed):
            return None
        if outside == "torch" and not name.startswith((_TORCH, _CHECK)):
            return None
        if outside == "torch" and name.startswith(_OPTIMIZERS):
            return None
        frame = frame.f_back
    return None


def lines_with(files: Collection[str], *words: str) -> list[Place]:
    """Return the lines of the files that hold one of these: constants, or names as `a.b`."""
    found = []
    for file in sorted(files):
        with contextlib.suppress(OSError, SyntaxError):
            for node in ast.walk(ast.parse(_text(file))):
                if (
                    isinstance(node, ast.Constant | ast.Attribute)
                    and (node.value if isinstance(node, ast.Constant) else ast.unparse(node))
                    in words
                ):
                    found.append((file, node.lineno))
    return found


def assigned(files: Collection[str], name: str) -> list[Place]:
    """Return the lines that assign to `self.name`, or a global, outside a constructor."""
    found = []
    for file in sorted(files):
        with contextlib.suppress(OSError, SyntaxError):
            for function in ast.walk(ast.parse(_text(file))):
                if isinstance(function, ast.FunctionDef) and function.name != "__init__":
                    found += [(file, line) for line in _stores(function, name)]
    return found


def _stores(function: ast.FunctionDef, name: str) -> list[int]:
    nodes = list(ast.walk(function))
    known = any(isinstance(node, ast.Global) and name in node.names for node in nodes)
    return [
        node.lineno
        for node in nodes
        if isinstance(node, ast.Attribute | ast.Name)
        and isinstance(node.ctx, ast.Store)
        and (node.attr == name if isinstance(node, ast.Attribute) else known and node.id == name)
    ]


def source(place: Place) -> str:
    """Return the text of a line."""
    with contextlib.suppress(OSError, IndexError):
        return _text(place[0]).splitlines()[place[1] - 1]
    return ""


def _text(file: str) -> str:
    """Return the source that was imported; the file may have changed since, or be gone."""
    for module in _own_code.modules():
        if getattr(module, "__file__", None) == file:
            loader: Any = module.__loader__
            return loader.get_source(module.__name__) or ""
    return Path(file).read_text(encoding="utf-8")
