"""Find the run that a line means, and the folder it has. Imports no torch.

A run that was begun under earlier defaults is continued with them: the same line stays the same run
when a later version of distgan changes a default (see config/identity.py).
"""

import json
from pathlib import Path
from typing import Any

from distgan.config.introspection import flatten
from distgan.config.loading import read_yaml
from distgan.config.settings import Run
from distgan.runs.records import read


def folder_of(run: Run, identity: dict[str, Any]) -> Path:
    """Return the folder of a run: the one that records its identity, else the one it will get.

    The readable part of the name may differ between versions; the identity does not.
    """
    if run.machine.folder:
        return Path(run.machine.folder).expanduser()
    parent = Path(run.machine.runs).expanduser() / (run.experiment or run.recipe)
    usual = parent / f"{run.delta()}-{identity['id']}"
    if not usual.exists():
        for path in sorted(parent.glob(f"*-{identity['id']}")):
            if recorded_identity(path) == identity:
                return path
    return usual


def resolve(run: Run, fingerprint: str, start: str | None = None) -> tuple[int, str | None]:
    """Return (the index in `versions(run)` of the run that this line means, its `grow` digest).

    The oldest version that has a folder wins, else the present one. The digest is the one recorded
    when the run began, since its source may have trained on or be gone; None where it has not
    begun or starts from nothing. `start`: the digest where the caller knows it.
    """
    *earlier, present = versions(run)
    for index, version in enumerate(earlier):
        digest = start or _recorded_start(version, fingerprint)
        identity = version.identity(fingerprint, digest)
        begun = recorded_identity(folder_of(version, identity)) == identity
        if begun and not (version.grow and digest is None):
            return index, digest
    return len(earlier), start or _recorded_start(present, fingerprint)


def versions(run: Run) -> list[Run]:
    """Return what the line of `run` meant before each changed default, oldest first, then `run`."""
    return [*run.earlier_versions(), run]


def earlier_values(version: Run, run: Run) -> str:
    """Return the settings that `version` has and `run` has not, as `key=value, …`."""
    present = dict(flatten(run.model_dump(mode="json")))
    recorded = flatten(version.model_dump(mode="json"))
    return ", ".join(
        f"{key}={'[…]' if key.startswith('watch.moves.') else json.dumps(value)}"
        for key, value in recorded
        if present.get(key) != value
    )


def _recorded_start(run: Run, fingerprint: str) -> str | None:
    """Return the digest that `grow` had when this run began, None where it has not begun."""
    if not run.grow:
        return None
    home = folder_of(run, run.identity(fingerprint))
    for folder in [home] if run.machine.folder else sorted(home.parent.glob("*")):
        try:
            identity = read(folder / "identity.json")
            source = read_yaml(folder / "config.yaml")["grow"]
            start = identity["settings"]["grow"]
        except (OSError, ValueError, KeyError, TypeError):
            continue
        if source == run.grow and identity == run.identity(fingerprint, start):
            return start
    return None


def recorded_identity(folder: Path) -> Any:
    """Return the identity that a run folder records, None where it records none."""
    try:
        return read(folder / "identity.json")
    except (OSError, ValueError):
        return None
