"""Settings as plain rows and trees: defaults, help texts, flat keys. Imports no torch."""

import json
from typing import Any

import pydantic_core
from pydantic import BaseModel
from pydantic.fields import FieldInfo


def flatten(tree: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """Return the leaves of nested settings: `{"a": {"b": 1}}` -> `[("a.b", 1)]`."""
    rows: list[tuple[str, Any]] = []
    for name, value in tree.items():
        nested = isinstance(value, dict)
        rows += flatten(value, f"{prefix}{name}.") if nested else [(prefix + name, value)]
    return rows


def overlay(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """Return `above` laid over `below`, mapping by mapping."""
    merged = dict(below)
    for key, value in above.items():
        both = isinstance(value, dict) and isinstance(below.get(key), dict)
        merged[key] = overlay(below[key], value) if both else value
    return merged


def section_of(field: FieldInfo) -> type[BaseModel] | None:
    """Return the model of a nested section, None for a plain setting."""
    kind = field.annotation
    return kind if isinstance(kind, type) and issubclass(kind, BaseModel) else None


def defaults(model: type[BaseModel]) -> dict[str, Any]:
    """Return default values as plain data, nested like the settings; required keys are absent."""
    return {
        name: pydantic_core.to_jsonable_python(field.get_default(call_default_factory=True))
        for name, field in model.model_fields.items()
        if not field.is_required()
    }


def describe(
    model: type[BaseModel], prefix: str = "", section: dict[str, Any] | None = None
) -> list[tuple[str, str, str]]:
    """Return (key, default, meaning) of every setting, in the order of definition.

    `section`: the defaults that a recipe gives this section, where they differ from its own.
    """
    rows = []
    values = defaults(model) | (section or {})
    for name, field in model.model_fields.items():
        nested = section_of(field)
        if nested:
            rows += describe(nested, f"{prefix}{name}.", values.get(name))
            continue
        if field.is_required():
            value = "(required)"
        else:
            value = "{…}" if isinstance(values[name], dict) else json.dumps(values[name])
        rows.append((prefix + name, value, field.description or ""))
    return rows
