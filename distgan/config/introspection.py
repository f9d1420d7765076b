"""Settings as plain rows and trees: defaults, help texts, flat keys. Imports no torch."""

import json
import types
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import pydantic_core
from pydantic import BaseModel
from pydantic.fields import FieldInfo


def flatten(tree: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """Return the leaves of nested settings: `{"a": {"b": 1}}` -> `[("a.b", 1)]`."""
    rows: list[tuple[str, Any]] = []
    for name, value in tree.items():
        if not isinstance(name, str):
            raise TypeError(f"{prefix}{name!r} is no name of a setting")
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


def changed(settings: BaseModel) -> dict[str, Any]:
    """Return {key: value} of the settings that differ from their defaults, but for the recipe."""
    usual = dict(flatten(defaults(type(settings))))
    values = flatten(settings.model_dump(mode="json"))
    return {key: value for key, value in values if usual.get(key) != value and key != "recipe"}


def describe(
    model: type[BaseModel], prefix: str = "", section: dict[str, Any] | None = None
) -> list[tuple[str, str, str, str]]:
    """Return (key, type, default, meaning) of every setting, in the order of definition.

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
        rows.append((prefix + name, type_name(field.annotation), value, field.description or ""))
    return rows


def type_name(kind: Any) -> str:
    """Return a type as people write it: `int | null`, `list of float`, `ddp | deepspeed`."""
    origin, parts = get_origin(kind), [part for part in get_args(kind) if part is not Ellipsis]
    if origin is Annotated:
        return type_name(parts[0])
    if origin is Literal:
        return " | ".join(map(str, parts))
    names = " | ".join(dict.fromkeys(" | ".join(map(type_name, parts)).split(" | ")))
    if origin in (Union, types.UnionType):
        return names
    if isinstance(origin, type):
        return "mapping" if issubclass(origin, dict) else f"list of {names}"
    return "null" if kind is type(None) else getattr(kind, "__name__", str(kind))
