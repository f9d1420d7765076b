"""Options of the verbs that look at trained runs.

`--n 8189`, `--n=8189` and `n=8189` mean the same. Imports no torch.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from distgan.core.errors import ConfigError

_OPTION = re.compile(r"(--)?([A-Za-z_][A-Za-z0-9_-]*)(?:(=)(.*))?", re.DOTALL)


@dataclass(frozen=True)
class Option:
    """What an option is without a word of the user, what it may be in words, and how a word is
    read: ValueError where it may not be that.
    """

    default: Any
    allowed: str
    read: Callable[[str], Any] = str


def whole(default: int | None, low: int, high: int) -> Option:
    """A whole number in [low, high]."""

    def read(word: str) -> int:
        if not (
            word.isascii() and word.isdecimal() and len(word) < 20 and low <= int(word) <= high
        ):
            raise ValueError
        return int(word)

    return Option(default, f"{low:,} to {high:,}", read)


def one_of(default: str | None, *words: str) -> Option:
    def read(word: str) -> str:
        if word not in words:
            raise ValueError
        return word

    return Option(default, ", ".join(words), read)


def several(default: tuple[str, ...], *words: str) -> Option:
    """Some of the words, separated by commas; in the order of `words`, each once."""

    def read(word: str) -> tuple[str, ...]:
        asked = word.split(",")
        if not set(asked) <= set(words):
            raise ValueError
        return tuple(one for one in words if one in asked)

    return Option(default, f"{', '.join(words)}, separated by commas", read)


def processes() -> Option:
    """Of a verb that several processes share; see `distgan.launchers.local.run.spread`."""
    return whole(None, 1, 4096)


def peek(argv: list[str]) -> tuple[list[str], dict[str, str]]:
    """(words that are no options, options) as far as they can be told without knowing which there
    are: enough to see what a line is about.
    """
    places, values, words = [], {}, iter(argv)
    for word in words:
        found = _OPTION.fullmatch(word)
        if found and (found[1] or found[3]):
            values[found[2].replace("-", "_")] = found[4] if found[3] else next(words, "")
        else:
            places.append(word)
    return places, values


def parse(
    verb: str,
    argv: list[str],
    options: dict[str, Option],
    places: tuple[int, int],
    also: dict[str, str] | None = None,
) -> tuple[list[str], dict[str, Any]]:
    """(words that are no options, at least places[0] and at most places[1]; the value of every
    option). One ConfigError lists every fault.

    `also`: other names of options. A word like `runs/sagan/ngf=8-1a2b` is no option: it begins with
    no name.
    """
    values, places_found, faults, given = (
        {name: option.default for name, option in options.items()},
        [],
        [],
        set(),
    )
    words = iter(argv)
    for word in words:
        found = _OPTION.fullmatch(word)
        if not found or not (found[1] or found[3]):
            if word.startswith("-"):
                faults.append(f"  {word[:60]!r} is no option; there are {', '.join(options)}")
            else:
                places_found.append(word)
            continue
        name, value = found[2].replace("-", "_"), found[4] if found[3] else next(words, None)
        name = (also or {}).get(name, name)
        if name not in options:
            faults.append(f"  {word[:60]!r} is none of {', '.join(options)}")
        elif value is None:
            faults.append(f"  {name}: no value; allowed: {options[name].allowed}")
        elif name in given:
            faults.append(f"  {name}: given twice")
        else:
            given.add(name)
            try:
                values[name] = options[name].read(value)
            except ValueError:
                faults.append(f"  {name}: found {value[:60]!r}, allowed: {options[name].allowed}")
    if not places[0] <= len(places_found) <= places[1]:
        asked = str(places[0]) if places[0] == places[1] else f"{places[0]} to {places[1]}"
        faults.append(
            f"  found {len(places_found)} words that are no options"
            f" ({' '.join(places_found)[:60]}), expected {asked}"
        )
    if faults:
        raise ConfigError(
            "\n".join([f"distgan {verb} (`distgan {verb} --help` shows how):", *faults])
        )
    return places_found, values
