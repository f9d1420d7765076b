"""Run identity across versions of the settings. Imports no torch.

A run's identity is a hash of its settings and of its data's fingerprint. Settings change between
releases in two ways, and neither may orphan a run that was begun before:

* A *new setting* carries `Neutral(value)`: the value with which a run is what it was before the
  setting existed. At that value it is left out of the hash.
* A *changed default* is listed in `changed_defaults` of the settings class, or of a preset, under
  the version of the settings that changed it. The same line then first looks for the run that it
  meant before.

A changed draw, order or decoding is a new setting (its version number, neutral at the old one)
whose default changes.
"""

from collections.abc import Iterator
from typing import Any

import pydantic_core
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from distgan.config.introspection import flatten, overlay, section_of
from distgan.monitor.settings import Neutral


def differences(recorded: Any, identity: dict[str, Any], place: str) -> list[str]:
    """Return `key: … in the {place}, … requested` for each setting in which two identities differ,
    and for the data; KeyError, TypeError, ValueError or AttributeError if `recorded` is none.
    """
    there, here = (
        {**dict(flatten(each["settings"])), "data": each["data"]} for each in (recorded, identity)
    )
    return [
        f"{key}: {there.get(key, 'no such setting')} in the {place},"
        f" {here.get(key, 'no such setting')} requested"
        for key in sorted(here.keys() | there.keys())
        if here.get(key) != there.get(key)
    ]


def _neutral(field: FieldInfo) -> tuple[bool, Any]:
    """Return (the setting was added after a release, its neutral value as plain data)."""
    for mark in field.metadata:
        if isinstance(mark, Neutral):
            return True, pydantic_core.to_jsonable_python(mark.value)
    return False, None


def without_neutral(model: type[BaseModel], tree: dict[str, Any]) -> dict[str, Any]:
    """Return `tree`, a JSON dump of `model`, without settings at their neutral value."""
    kept = {}
    for name, value in tree.items():
        field = model.model_fields[name]
        if (True, value) != _neutral(field):
            section = section_of(field)
            kept[name] = without_neutral(section, value) if section else value
    return kept


def with_neutral(model: type[BaseModel], recorded: dict[str, Any]) -> dict[str, Any]:
    """Return settings that an earlier version recorded, with later ones at their neutral value."""
    filled = dict(recorded)
    for name, field in model.model_fields.items():
        added, value = _neutral(field)
        section = section_of(field)
        if name not in filled:
            if added:
                filled[name] = value
        elif section and isinstance(filled[name], dict):
            filled[name] = with_neutral(section, filled[name])
    return filled


def earlier(
    model: type[BaseModel], given: dict[str, Any], preset: dict[int, dict[str, Any]]
) -> Iterator[Any]:
    """Yield what `given`, the settings of a line, meant before each changed default, oldest first.

    `preset`: the changed values of the preset that the line names, which are among those given.
    A version in which these settings were not allowed is left out.
    """
    changes: dict[int, dict[str, Any]] = {}
    for cls in reversed(model.__mro__):
        for version, keys in vars(cls).get("changed_defaults", {}).items():
            changes[version] = changes.get(version, {}) | keys
    for version in sorted(changes.keys() | preset.keys()):
        below, above = (_before(model, each, version) for each in (changes, preset))
        try:
            yield model.model_validate(overlay(overlay(below, given), above))
        except ValidationError:
            continue


def _before(
    model: type[BaseModel], changes: dict[int, dict[str, Any]], version: int
) -> dict[str, Any]:
    """Return the values before `version` of all that has changed since, as a tree."""
    tree: dict[str, Any] = {}
    for since in sorted(changes, reverse=True):
        for key, value in changes[since].items() if since >= version else ():
            *parents, leaf = key.split(".")
            if key.partition(".")[0] not in model.model_fields:
                continue
            nested: dict[str, Any] = {leaf: value}
            for parent in reversed(parents):
                nested = {parent: nested}
            tree = overlay(tree, nested)
    return tree
