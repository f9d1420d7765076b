"""Read run files and `key.path=value` words into checked settings. Imports no torch."""

import json
import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import pydantic
import yaml

from distgan.config.introspection import defaults, describe
from distgan.config.sections import Section
from distgan.config.settings import Run
from distgan.core.errors import ConfigError, did_you_mean
from distgan.core.reading import read_bytes

YAML_BYTES = 1 << 20  # at most, of a run file: the parser needs seconds for so many
Checked = TypeVar("Checked", bound=Section)


class _Loader(yaml.SafeLoader):
    """YAML for settings, stricter than YAML 1.1.

    1e-4 is a number (YAML 1.1 wants 1.0e-4); 2026-01-31 and 12:00:00 are words (there the latter is
    43200). A duplicate key is an error, and so is an alias: a few of them unfold into gigabytes.
    """

    yaml_implicit_resolvers = {
        first: [
            rule
            for rule in rules
            if rule[0]
            not in (
                "tag:yaml.org,2002:timestamp",
                "tag:yaml.org,2002:int",
                "tag:yaml.org,2002:float",
            )
        ]
        for first, rules in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def compose_node(self, parent, index):
        if self.check_event(yaml.AliasEvent):
            raise yaml.constructor.ConstructorError(
                None,
                None,
                "aliases (*name) are not read; write the value out",
                self.peek_event().start_mark,
            )
        return super().compose_node(parent, index)

    def construct_mapping(self, node, deep=False):
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        twice = {str(key) for key in keys if keys.count(key) > 1}
        if twice:
            raise yaml.constructor.ConstructorError(
                None,
                None,
                f"key {', '.join(sorted(twice))} stands twice in one mapping",
                node.start_mark,
            )
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:int",
    re.compile(r"[-+]?(0b[01_]+|0x[0-9a-fA-F_]+|0[0-7_]*|[1-9][0-9_]*)$"),
    list("-+0123456789"),
)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(
        r"([-+]?([0-9][0-9_]*\.[0-9_]*([eE][-+]?[0-9]+)?|\.[0-9][0-9_]*([eE][-+]?[0-9]+)?|[0-9]+[eE][-+]?[0-9]+)|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN))$"
    ),
    list("-+0123456789."),
)


def parse_yaml(text: bytes | str) -> Any:
    """Parse YAML; ValueError, also for an alias and where it is nested too deeply."""
    try:
        return yaml.load(text, _Loader)  # _Loader is a SafeLoader
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from error
    except RecursionError:
        raise ValueError("nested too deeply") from None


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML mapping; a ConfigError names the file and the line."""
    try:
        tree = parse_yaml(read_bytes(path, YAML_BYTES, links=True)) or {}
    except OSError as error:
        raise ConfigError(f"cannot read the run file {path}: {error.strerror}") from error
    except ValueError as error:
        raise ConfigError(f"{path} is not valid YAML: {error}") from error
    if not isinstance(tree, dict):
        raise ConfigError(f"{path} must hold `key: value` lines, found {type(tree).__name__}")
    return tree


class Preset(dict[str, Any]):
    """The settings of a preset; `changed`: by version, those that it had before."""

    def __init__(self, tree: dict[str, Any]):
        super().__init__(tree)
        self.changed: dict[int, dict[str, Any]] = self.pop("changed_defaults", {})


def override(tree: dict[str, Any], assignments: list[str]) -> dict[str, Any]:
    """Return `tree` with `a.b=value` applied in order; later ones win, values are YAML.

    One ConfigError lists every fault.
    """
    tree, wrong = _assign(tree, assignments)
    if wrong:
        raise ConfigError("\n".join([f"{_count(len(wrong))} on the command line:", *wrong]))
    return tree


def _joined(words: list[str], known: list[str]) -> tuple[list[str], list[str]]:
    """Return (words with `key value` and `key = value` of known keys as key=value, a line for each
    of those).
    """
    queue, out, wrong = list(words), [], []
    while queue:
        parts = [queue.pop(0)]
        if parts[0].removesuffix("=") in known:
            if "=" not in parts[0] and queue and queue[0].startswith("="):
                parts.append(queue.pop(0))
            if parts[-1] in (parts[0], "=") and queue and "=" not in queue[0]:
                parts.append(queue.pop(0))
        out.append("".join(parts))
        if len(parts) > 1:
            value = "".join(parts[1:]).removeprefix("=")
            out[-1] = f"{parts[0].removesuffix('=')}={value}"
            wrong.append(f"  {' '.join(parts)}: write {shlex.quote(out[-1])}, without a space")
    return out, wrong


def _assign(
    tree: dict[str, Any], assignments: list[str], known: list[str] | None = None
) -> tuple[dict[str, Any], list[str]]:
    """Return (a new tree, a line for each assignment that is wrong). `known`: all keys."""
    tree = json.loads(json.dumps(tree, default=str))
    assignments, wrong = _joined(assignments, known or [])
    for text in assignments:
        key, equals, value = text.partition("=")
        if not equals or not re.fullmatch(r"\w[\w.]*", key):
            wrong.append(
                f"  {_quoted(text)} is not of the form key=value, as in batch=32 or"
                " evaluate.samples=500"
            )
            continue
        *parents, leaf = key.split(".")
        node = tree
        for parent in parents:
            if not isinstance(node.get(parent), dict):
                node[parent] = {}
            node = node[parent]
        try:
            node[leaf] = parse_yaml(value)
        except ValueError:
            wrong.append(f"  {key}: found {_quoted(value)}, which is not valid YAML; quote it")
    return tree, wrong


def validate(
    model: type[Checked],
    tree: dict[str, Any],
    assignments: list[str] | None = None,
    what: str | None = None,
) -> Checked:
    """Check `tree` with `assignments` applied against `model`, a recipe's settings or a section.

    One ConfigError lists every fault; `what` names the settings in it.
    """
    words = {text.partition("=")[0] for text in assignments or []}
    changed = {
        version: {key: value for key, value in keys.items() if key not in words}
        for version, keys in getattr(tree, "changed", {}).items()
    }
    known = [key for key, *_ in describe(model)]
    tree, lines = _assign(tree, assignments or [], known)
    try:
        settings = model.model_validate(tree)
    except pydantic.ValidationError as error:
        faults = error.errors()
        # A list whose items are wrong is also "too short" to pydantic: the items say enough.
        lines += [
            f"  {_fault(fault, known)}"
            for fault in faults
            if not any(other["loc"] and other["loc"][:-1] == fault["loc"] for other in faults)
        ]
    if lines:
        name = what or defaults(model).get("recipe") or tree.get("recipe") or "the run"
        raise ConfigError("\n".join([f"{_count(len(lines))} in the settings of {name}:", *lines]))
    if isinstance(settings, Run):
        settings.with_given(tree, changed)
    return settings


def _count(n: int) -> str:
    return "1 error" if n == 1 else f"{n} errors"


def _quoted(value: Any) -> str:
    """Return a value as the user wrote it, at most a line long."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 100 else f"{text[:60]}… ({len(text)} characters)"


def _fault(fault: Mapping[str, Any], known: list[str]) -> str:
    """Return one pydantic error as `key: found X, allowed Y`."""
    key = ".".join(str(part) for part in fault["loc"])
    if fault["type"] == "extra_forbidden":
        leaf = key.rpartition(".")[2]
        same = [known_key for known_key in known if known_key.rpartition(".")[2] == leaf]
        near = did_you_mean(same[0] if same else key, known)
        hint = near or "; `--help` after the recipe lists every key"
        return f"{_quoted(key)[1:-1]}: unknown key{hint}"
    if fault["type"] == "missing" and isinstance(fault["loc"][-1], int):
        return f"{key.rpartition('.')[0]}: found {_quoted(fault['input'])}, which is too short"
    if fault["type"] == "missing":
        return f"{key}: missing; give it as {key}=…"
    message = (
        fault["msg"]
        .removeprefix("Value error, ")
        .replace("valid tuple", "list")
        .replace("Tuple", "list")
    )
    if not key:  # of a validator of the whole
        return message
    if fault["type"] in ("model_type", "model_attributes_type"):
        message = f"a section, whose keys are given as {key}.name=value"
    return f"{key}: found {_quoted(fault['input'])}; {message[:1].lower() + message[1:]}"
