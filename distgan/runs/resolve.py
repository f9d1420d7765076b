"""Find the run that a line means, and the folder it has. Imports no torch.

A run that was begun under earlier defaults is continued with them: the same line stays the same run
when a later version of distgan changes a default (see config/identity.py).
"""

import json
from pathlib import Path
from typing import Any, NamedTuple

from distgan.config.image_network import LITE0, require_lite0
from distgan.config.introspection import flatten
from distgan.config.loading import read_yaml
from distgan.config.settings import Run
from distgan.core.errors import ConfigError, RunError
from distgan.runs.recipe_code import COPIES, RecipeCode, from_copy
from distgan.runs.records import read


class Resolved(NamedTuple):
    """`version`: the number of the one that a line means. `start`: the digest of the checkpoint
    that it starts from. `note`: what differs from the present defaults, for people.
    """

    version: int
    start: str | None
    note: str | None = None


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


def resolve(run: Run, fingerprint: str, start: str | None = None) -> Resolved:
    """Return which of `versions(run)` this line means.

    The oldest version that has a folder wins, else the present one. ConfigError where that is
    scored through EfficientNet-Lite0, which is not installed. The digest is the one recorded when
    the run began, since its source may have trained on or be gone; None where it has not begun or
    starts from nothing. `start`: the digest where the caller knows it.
    """
    *earlier, present = versions(run)
    for index, version in enumerate(earlier):
        begun, digest = _begun(version, fingerprint, start)
        if begun and _is_of(version, present, fingerprint, digest):
            values = earlier_values(version, run)
            note = f"this run was begun with earlier defaults and keeps them: {values}"
            return Resolved(index, digest, note)
    _, digest = _begun(present, fingerprint, start)
    if present.network == LITE0:
        require_lite0("evaluate.extractor=lite0 is EfficientNet-Lite0")
    return Resolved(len(earlier), digest)


def _begun(version: Run, fingerprint: str, start: str | None) -> tuple[bool, str | None]:
    """Return (has this version of the run a folder?, the digest of its start).

    A folder that was named for it is one: of a job that was queued before a default changed.
    """
    digest = start or _recorded_start(version, fingerprint)
    identity = version.identity(fingerprint, digest)
    folder = folder_of(version, identity)
    recorded = recorded_identity(folder)
    named = bool(version.machine.folder) and folder.name.endswith(f"-{identity['id']}")
    begun = recorded == identity or (recorded is None and named)
    return begun and not (version.starts_from and digest is None), digest


def _is_of(version: Run, present: Run, fingerprint: str, start: str | None) -> bool:
    """Return whether the run that has begun is of `version` and not of `present`.

    A changed default of `epochs`, which is no part of the identity, is recognised by what the
    folder records: a run that was to end at the earlier default ends there.
    """
    identity = version.identity(fingerprint, start)
    if identity != present.identity(fingerprint, start):
        return True
    try:
        recorded = read_yaml(folder_of(version, identity) / "config.yaml")
    except ValueError:
        return False
    return recorded.get("epochs") == version.epochs


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
    """Return the digest of the run that this one starts from, when it began; None where it has not
    begun.
    """
    if run.starts_from is None:
        return None
    setting, named = run.starts_from
    home = folder_of(run, run.identity(fingerprint))
    for folder in [home] if run.machine.folder else sorted(home.parent.glob("*")):
        try:
            identity = recorded_identity(folder)
            source = read_yaml(folder / "config.yaml")[setting]
            start = identity["settings"][setting]
        except (OSError, ValueError, KeyError, TypeError):
            continue
        if source == named and identity == run.identity(fingerprint, start):
            return start
    return None


def recorded_identity(folder: Path) -> Any:
    """Return the identity that a run folder records, None where it records none.

    Without the digest of a recipe's code, which may change in the course of a run.
    """
    try:
        recorded = read(folder / "identity.json")
    except (OSError, ValueError):
        return None
    if isinstance(recorded, dict):
        recorded.pop("code", None)
    return recorded


def recorded_code(folder: Path) -> dict[str, str] | None:
    """Return {"digest": …, "copy": file name in RUN/recipe} of the code that a run of one's own
    recipe trained with last; None where the folder records none.
    """
    try:
        code = read(folder / "identity.json")["code"]
        digest, copy = str(code["digest"]), str(code["copy"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return {"digest": digest, "copy": copy} if Path(copy).name == copy else None


def has_copy(folder: Path) -> bool:
    """Return whether the copy of the code that a run records is there, and sound."""
    code = recorded_code(folder)
    try:
        return bool(code and from_copy(folder / COPIES / code["copy"]))
    except ConfigError:
        return False


def _has_begun(folder: Path, recipe: str) -> bool:
    """Return whether a run of this recipe has recorded its identity in the folder."""
    try:
        return bool(recorded_identity(folder)["settings"]["recipe"] == recipe)
    except (TypeError, KeyError):
        return False


def require_code(run: Run, code: RecipeCode | None, folder: Path) -> dict[str, Any] | None:
    """Return what changed in the recipe's code since the run in `folder` trained with it; None if
    nothing did. RunError unless `code=accept` was given.
    """
    recorded = recorded_code(folder)
    if recorded is None and _has_begun(folder, run.recipe):  # damaged
        recorded = {"digest": "unknown", "copy": ""}
    if code is None or recorded is None or recorded["digest"] == code.digest:
        return None
    change: dict[str, Any] = {"before": recorded["digest"], "after": code.digest}
    copy = folder / COPIES / recorded["copy"]
    try:
        change["parts"] = code.changed_from(from_copy(copy))
    except ConfigError:  # gone, or another user's
        change["parts"] = []
    if run.code == "accept":
        return change
    changed = ", ".join(change["parts"][:6]) or code.path.name
    raise RunError(
        f"the code of {code.name} has changed since the run in {folder} was trained with it"
        f" (digest {change['before']}, now {change['after']}): {changed}. Nothing was changed."
        "\nTo continue the run with the new code, add code=accept. To train the new code from the"
        " start, add experiment=NAME or another seed. The code that the run was trained with is in"
        f" {copy}"
    )
