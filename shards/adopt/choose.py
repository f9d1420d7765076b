"""Choose the fields of tars of others that are read, and the samples that have them.

What nobody reads stays out of the index: members of other fields, files that are no samples, and
with --skip-broken samples that are incomplete or damaged.
"""

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from distgan.core import console
from distgan.core.errors import ConfigError, DataError
from distgan.shards.adopt.infer import Combination, Role, role_of
from distgan.shards.adopt.labels import Place
from distgan.shards.codecs.image_files import FIELDS as IMAGE_FIELDS
from distgan.shards.format.index import index_path, load_json, split_member, write_index

MAX_EXAMPLES = 5


@dataclass
class Choice:
    """The fields that are indexed, `jpg|png` where it is one of them, and those of `role`."""

    role: Role
    fields: list[str]
    needed: list[str]  # a sample has all of them; one with none of them is no sample
    notes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.names = {one: whole for whole in self.fields for one in whole.split("|")}

    @property
    def is_strict(self) -> bool:
        """True where every member is read: nothing says which are needed."""
        return self.role.kind == "unknown"

    def is_whole(self, one: Combination) -> bool:
        """Return whether --skip-broken leaves the samples of a combination in."""
        return set(self.fields) <= one.fields.keys() and not one.broken(self.needed)


def combinations_of(tars: dict[str, list[Path]]) -> list[Combination]:
    """Return the combinations of fields of these tars, from their indexes; `tars` by part."""
    merged: dict[str, Combination] = {}
    result = []
    for part, paths in tars.items():
        for path in paths:
            for fields, count, keys in load_json(index_path(path))["scan"]["samples"]:
                is_broken = len(keys) > 1 or any(one[0] == "broken" for one in fields.values())
                known = None if is_broken else merged.get(f"{part} {fields}")
                one = Combination(part, fields, count + (known.count if known else 0), keys)
                if is_broken:
                    result.append(one)
                else:
                    merged[f"{part} {fields}"] = one
    return [*merged.values(), *result]


def choose(
    combinations: Sequence[Combination],
    asked: Sequence[str] | None,
    labels: Sequence[Place] | None,
    image: str | None,
    pair: tuple[str, str] | None,
    vector: str | None,
) -> tuple[Choice, list[Combination]]:
    """Return the choice, and the combinations of its samples under the names of its fields.

    `asked`: --fields. ConfigError for a field that does not exist.
    """
    named = [one for one in (image, *(pair or ()), vector, *(asked or ())) if one]
    names = _alternatives(combinations, named)
    renamed = [
        Combination(
            one.part,
            {names.get(name, name): header for name, header in one.fields.items()},
            one.count,
            one.keys,
        )
        for one in combinations
    ]
    every = Counter[str]()
    for one in renamed:
        every.update(dict.fromkeys(one.fields, one.count))
    fields = sorted(every)
    for name in asked or ():
        if name not in fields:
            raise ConfigError(f"--fields: no field {name!r}; there are: {', '.join(fields)}")
    role = role_of(list(asked) if asked else fields, renamed, image, pair, vector)
    if role.kind == "unknown" and not asked:
        first = next((sorted(one.fields) for one in renamed), [])
        return Choice(role, first, first), renamed
    wanted = dict.fromkeys([*role.fields, *(name for name, _ in labels or ()), *(asked or ())])
    needed = [name for name in wanted if name in every]
    samples = [one for one in renamed if any(name in one.fields for name in needed)]
    kept = needed if asked else _in_all(samples, needed)
    choice = Choice(role, sorted({*needed, *kept}), needed)
    choice.notes += _ignored(renamed, samples, choice.fields)
    return choice, samples


def _alternatives(combinations: Sequence[Combination], named: Sequence[str]) -> dict[str, str]:
    """Return {"png": "jpg|png", …} of image fields of which a sample has one, of several kinds."""
    groups: dict[str, set[str]] = {}
    for one in combinations:
        for name in one.fields:
            before, _, extension = name.rpartition(".")
            if extension in IMAGE_FIELDS and extension != "npy" and name not in named:
                groups.setdefault(before, set()).add(name)
    names: dict[str, str] = {}
    for group in groups.values():
        alone = all(len(group & one.fields.keys()) < 2 for one in combinations)
        if len(group) > 1 and alone:
            names |= dict.fromkeys(group, "|".join(sorted(group)))
    return names


def _in_all(samples: Iterable[Combination], needed: Sequence[str]) -> set[str]:
    """Return the fields that all complete samples have."""
    complete = [set(one.fields) for one in samples if set(needed) <= one.fields.keys()]
    return set.intersection(*complete) if complete else set()


def _ignored(
    every: Sequence[Combination], samples: Sequence[Combination], fields: Sequence[str]
) -> list[str]:
    """Return notes on the members that are not read."""
    notes = []
    lone = [one for one in every if one not in samples]
    if lone:
        files = [f"{one.keys[0]}.{name}" for one in lone for name in one.fields][:MAX_EXAMPLES]
        notes.append(
            f"{sum(one.count for one in lone)} files or groups of files are no samples, such as"
            f" {', '.join(files)}; left out of the index"
        )
    unread = Counter[str]()
    for one in samples:
        unread.update({name: one.count for name in one.fields if name not in fields})
    total = sum(one.count for one in samples)
    if unread:
        counts = ", ".join(f"{name} ({count} of {total})" for name, count in unread.most_common(8))
        notes.append(f"fields that are not read, left out of the index: {counts}")
    return notes


def select(tars: Sequence[Path], choice: Choice, skip_broken: bool) -> list[dict[str, str]]:
    """Rewrite the indexes to hold the chosen members of the chosen samples; return what was left
    out, as dataset.json lists it. DataError for samples that are incomplete, unless they are left
    out.
    """
    left_out: list[dict[str, str]] = []
    for tar in tars:
        index = load_json(index_path(tar))
        members = index["files"] | index["others"]
        members = dict(sorted(members.items(), key=lambda item: item[1]["offset"]))
        reasons = {} if choice.is_strict else _incomplete(members, choice)
        broken = _broken(index["scan"]["samples"], choice) if skip_broken else {}
        for key, reason in (reasons | broken).items():
            left_out.append({"name": f"{tar.name}: {key}", "reason": reason})
        if not skip_broken and reasons:
            continue  # all of them are named below
        out = reasons.keys() | broken.keys()
        files = {
            member: entry
            for member, entry in members.items()
            if choice.is_strict or _is_chosen(member, choice, out)
        }
        others = {name: entry for name, entry in members.items() if name not in files}
        if list(files) != list(index["files"]) or others != index["others"]:
            more = {"others": others, "scan": index["scan"]}
            write_index(tar, files, index["hash_lfs"], **more)
    if left_out and not skip_broken:
        lines = [f"  {one['name']}: {one['reason']}" for one in left_out[:MAX_EXAMPLES]]
        more_lines = [f"  … and {len(left_out) - MAX_EXAMPLES} more"][
            : len(left_out) > MAX_EXAMPLES
        ]
        raise DataError(
            "\n".join(
                [
                    f"{len(left_out)} samples do not have the fields {', '.join(choice.needed)}:",
                    *lines,
                    *more_lines,
                    "leave them out with --skip-broken, or name the fields to read with --fields,"
                    " --image or --label",
                ]
            )
        )
    return left_out


def _is_chosen(member: str, choice: Choice, out: set[str]) -> bool:
    key, name = split_member(member) or ("", "")
    return name in choice.names and key not in out and bool(key)


def _incomplete(members: dict[str, Any], choice: Choice) -> dict[str, str]:
    """Return {key: reason} of samples that lack a field, and of what is no sample."""
    groups: dict[str, list[str]] = {}
    for member in members:
        key, name = split_member(member) or ("", "")
        if name in choice.names:
            groups.setdefault(key, []).append(choice.names[name])
    reasons = {}
    for key, names in groups.items():
        if lost := [name for name in choice.fields if name not in names]:
            if any(name in choice.needed for name in names):
                reasons[key] = f"no {' and no '.join(lost)}"
    return reasons


def _broken(samples: list[list[Any]], choice: Choice) -> dict[str, str]:
    """Return {key: reason} of samples of which a member that is read cannot be decoded."""
    return {
        key: f"{name}: {header[1]}"
        for fields, _, keys in samples
        for name, header in fields.items()
        if header[0] == "broken" and choice.names.get(name) in choice.needed
        for key in keys
    }


def link_tars(root: Path, out: Path) -> None:
    """Make links in `out` to the tars of `root` and of its folders, so that the indexes go there.

    ConfigError where something else is in the way.
    """
    for tar in sorted([*root.glob("*.tar"), *root.glob("*/*.tar")]):
        link = out / tar.relative_to(root)
        target = tar.resolve()
        link.parent.mkdir(parents=True, exist_ok=True)
        if link.is_symlink() and os.readlink(link) == str(target):
            continue
        if link.is_symlink() or link.exists():
            raise ConfigError(f"--out {out}: {link} is there, and is no link to {target}")
        link.symlink_to(target)
    console.say(f"{out} has links to the tars of {root}; the indexes go there")
