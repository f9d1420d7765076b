"""The command line of a verb, declared as data: one grammar, one form of help, one form of error.

`--name VALUE`, `--name=VALUE` and `name=VALUE` mean the same, and `-` and `_` in names. Names are
not abbreviated. What follows `--` is taken as it is. A verb with settings (`key=value` of a run)
takes words that name none of its options as settings.
"""

import re
import shlex
import shutil
import textwrap
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from distgan.core import console
from distgan.core.errors import ConfigError, did_you_mean

_WORD = re.compile(r"(--?)?([A-Za-z_][A-Za-z0-9_-]*)(?:(=)(.*))?", re.DOTALL)
_SWITCH = {"yes": True, "true": True, "no": False, "false": False}
MANY = 1 << 30  # words without a limit


@dataclass(frozen=True)
class Option:
    """One option; without a `metavar` a switch. `read` raises ValueError for a value that is not
    `allowed`. `count`: values it takes, then a list; `repeat`: it may be given again, then a list;
    `also`: another name.
    """

    name: str
    help: str
    metavar: str = ""
    default: Any = None
    allowed: str = ""
    read: Callable[[str], Any] = str
    dest: str = ""
    short: str = ""
    also: str = ""
    count: int = 1
    repeat: bool = False
    required: bool = False
    group: str = "options"

    @property
    def key(self) -> str:
        return self.dest or self.name.replace("-", "_")

    @property
    def is_switch(self) -> bool:
        return not self.metavar

    def describe(self) -> str:
        """Return its help with the default."""
        shown = self.default if isinstance(self.default, str | int | float | Path) else None
        if isinstance(self.default, tuple | list):
            shown = ",".join(f"{value}" for value in self.default)
        return self.help + ("" if self.is_switch or shown is None else f" (default: {shown})")


def switch(name: str, help: str, **more: Any) -> Option:
    return Option(name, help, default=False, **more)


def whole(name: str, help: str, low: int, high: int | None = None, **more: Any) -> Option:
    """A whole number in [low, high]."""

    def read(word: str) -> int:
        if not (re.fullmatch(r"-?[0-9]{1,19}", word) and low <= int(word) <= (high or int(word))):
            raise ValueError
        return int(word)

    allowed = f"{low:,} or more" if high is None else f"{low:,} to {high:,}"
    return Option(name, help, **dict[str, Any](metavar="N", allowed=allowed, read=read) | more)


def number(name: str, help: str, low: float, high: float, **more: Any) -> Option:
    """A number in [low, high]."""

    def read(word: str) -> float:
        if not low <= float(word) <= high:
            raise ValueError
        return float(word)

    allowed = f"{low:g} to {high:g}"
    return Option(name, help, **dict[str, Any](metavar="X", allowed=allowed, read=read) | more)


def one_of(
    name: str, help: str, *words: str, kind: Callable[[str], Any] = str, **more: Any
) -> Option:
    """One of the words, as `kind` reads it."""

    def read(word: str) -> Any:
        if word not in words:
            raise ValueError
        return kind(word)

    allowed = ", ".join(words)
    return Option(
        name, help, **dict[str, Any](metavar="|".join(words), allowed=allowed, read=read) | more
    )


def several(name: str, help: str, *words: str, **more: Any) -> Option:
    """Some of the words, separated by commas; in the order of `words`, each once."""

    def read(text: str) -> tuple[str, ...]:
        chosen = text.split(",")
        if not set(chosen) <= set(words):
            raise ValueError
        return tuple(word for word in words if word in chosen)

    allowed = f"{', '.join(words)}, separated by commas"
    return Option(name, help, **dict[str, Any](metavar="LIST", allowed=allowed, read=read) | more)


class Arguments(SimpleNamespace):
    """The value of every option by its key, `words` (what is no option), and `given`: the raw
    values of the options on the line, by name."""

    words: list[str]
    given: dict[str, list[str]]

    def line(self, *without: str, dashes: str = "--") -> list[str]:
        """Return the words and options as a command line, but for the options `without`.

        With `dashes=""` as `name=value`: launchers take `--name` for themselves.
        """
        options: list[str] = []
        for name, values in self.given.items():
            bare = f"--{name}" if dashes else f"{name}=yes"
            if name not in without:
                options += [f"{dashes}{name}={value}" for value in values] or [bare]
        return [*self.words, *options]


@dataclass(frozen=True)
class Command:
    """A verb: what it does, its words, its options.

    words       metavar and help of what is no option, `least` to `most` of them
    settings    for verbs that take settings: raises ConfigError, with all faults, for the words
    check       the faults of options that contradict each other
    epilog      examples and notes below the help, or a function of the words that returns them
    about       the help about what the words name, "" where they name nothing: it comes first, and
                the options after it
    """

    verb: str
    summary: str
    options: tuple[Option, ...] = ()
    words: tuple[str, str] = ("", "")
    least: int = 0
    most: int = 0
    settings: Callable[[list[str]], object] | None = None
    check: Callable[[Arguments], Iterable[str]] = lambda arguments: ()
    epilog: str | Callable[[list[str]], str] = ""
    about: Callable[[list[str]], str] = lambda words: ""

    def peek(self, argv: list[str]) -> tuple[list[str], dict[str, list[str]]]:
        """Return words and raw values of a line as far as they can be told, whatever its faults."""
        return self._split(argv)[:2]

    def parse(self, argv: list[str]) -> Arguments:
        """Return what a command line says. One ConfigError lists every fault; `--help` prints the
        help and ends the program.
        """
        words, given, faults = self._split(argv)
        if "help" in given:
            console.say(self.help(words))
            raise SystemExit(0)
        arguments = Arguments(words=words, given=given)
        for option in self.options:
            setattr(arguments, option.key, [] if option.repeat else option.default)
            if option.name in given:
                try:
                    setattr(arguments, option.key, _value(option, given[option.name]))
                except ConfigError as error:
                    faults.append(str(error))
                except ValueError:
                    raw = " ".join(given[option.name])
                    faults.append(
                        f"--{option.name}: found {raw[:60]!r}, allowed: {_allowed(option)}"
                    )
            elif option.required:
                faults.append(f"--{option.name}: missing; {option.help}")
        faults += self.check(arguments)
        if not self.least <= len(words) <= self.most:
            faults.append(self._count(words))
        elif faults and self.settings:
            try:
                self.settings(words)
            except ConfigError as error:
                first, *rest = str(error).splitlines()
                faults += [line.strip() for line in rest] or [first]
        if faults:
            raise self.error(*faults)
        return arguments

    def error(self, *faults: str) -> ConfigError:
        """Return the error that lists these faults of a command line."""
        count = "1 error" if len(faults) == 1 else f"{len(faults)} errors"
        lines = [
            f"distgan {self.verb}: {count} on the command line:",
            *(f"  {fault}" for fault in faults),
        ]
        if any("no such option" in fault for fault in faults):
            names = ", ".join(f"--{option.name}" for option in (*self.options, HELP))
            settings = "; settings are written key=value" if self.settings else ""
            lines.append(f"options: {names}{settings}")
        return ConfigError("\n".join([*lines, f"`distgan {self.verb} --help` explains them"]))

    def _split(self, argv: list[str]) -> tuple[list[str], dict[str, list[str]], list[str]]:
        """(words, raw values of options by name, faults)"""
        words: list[str] = []
        given: dict[str, list[str]] = {}
        faults: list[str] = []
        queue = list(argv)
        by_name = {option.name.replace("-", "_"): option for option in self.options}
        by_name |= {option.also: option for option in self.options if option.also}
        by_name["help"] = HELP
        by_short = {option.short: option for option in by_name.values() if option.short}
        while queue:
            word = queue.pop(0)
            if word == "--":
                return [*words, *queue], given, faults
            match = _WORD.fullmatch(word)
            dashes, name, equals, value = match.groups() if match else (word[:1], word, None, None)
            option = (by_short if dashes == "-" else by_name).get(name.replace("-", "_"))
            if word == "-" or not (equals or (dashes or "").startswith("-")):
                words.append(word)
            elif not dashes and self.settings and (option is None or option.is_switch):
                words.append(word)
            elif option is None:
                shown = word.partition("=")[0][:60]
                near = did_you_mean(name, [option.name for option in self.options], "--")
                if self.settings and not near and words and (value or _is_value(value, queue)):
                    words.append(f"{name}={value or queue.pop(0)}")
                    near = f"; a setting has no dashes: {shlex.quote(words[-1])}"
                faults.append(f"{shown}: no such option{near}")
            else:
                faults += _take(option, value, queue, given)
        return words, given, faults

    def _count(self, words: list[str]) -> str:
        metavar, help = self.words
        if len(words) < self.least:
            return f"{metavar}: missing; {help}"
        return f"{' '.join(words[self.most :])[:60]}: one too many, allowed: {metavar or 'options'}"

    def help(self, words: list[str]) -> str:
        """Return usage, summary, words, options with defaults, and the epilog; where the words
        name something that has a help of its own, that in place of what is general.
        """
        metavar, about = self.words
        usage = [f"usage: distgan {self.verb}", "[OPTIONS]", metavar]
        named = self.about(words)
        parts = [" ".join(part for part in usage if part), named or self.summary]
        rows = {"arguments": [(metavar, about)]} if metavar and not named else {}
        for group, options in groupby([*self.options, HELP], lambda option: option.group):
            rows.setdefault(group, []).extend((_usage(one), one.describe()) for one in options)
        parts += [f"{group}:\n" + "\n".join(map(_row, lines)) for group, lines in rows.items()]
        if named:
            parts.append(f"`distgan {self.verb} --help` has examples")
        else:
            parts.append(self.epilog(words) if callable(self.epilog) else self.epilog)
        return "\n\n".join(part.strip("\n") for part in parts if part)


HELP = switch("help", "print this", short="h")


def _is_value(value: str | None, queue: list[str]) -> bool:
    """Return True if the next word may be the value of an option that was given none."""
    return value is None and bool(queue) and "=" not in queue[0] and not queue[0].startswith("-")


def _take(
    option: Option, value: str | None, queue: list[str], given: dict[str, list[str]]
) -> list[str]:
    """Move the values of an option from `value` or the front of `queue` to `given`; the faults."""
    values = [] if value is None else [value]
    while value is None and not option.is_switch and len(values) < option.count:
        if not queue or queue[0].startswith("--"):
            return [f"--{option.name}: no value, allowed: {_allowed(option)}"]
        values.append(queue.pop(0))
    if option.name in given and not option.repeat and option.name != "help":
        return [f"--{option.name}: given twice"]
    given.setdefault(option.name, []).extend([",".join(values)] if values else [])
    return []


def _value(option: Option, raw: list[str]) -> Any:
    """Return the value of an option; ValueError."""
    if option.is_switch:
        if not set(raw) <= set(_SWITCH):
            raise ValueError
        return _SWITCH[raw[0]] if raw else True
    values = [option.read(word) for word in (raw[0].split(",") if option.count > 1 else raw)]
    if option.count > 1 and len(values) != option.count:
        raise ValueError
    return values if option.repeat or option.count > 1 else values[0]


def _allowed(option: Option) -> str:
    return "yes, no" if option.is_switch else option.allowed or option.metavar


def _usage(option: Option) -> str:
    short = f"-{option.short}, " if option.short else ""
    return f"{short}--{option.name} {option.metavar}".rstrip()


def _row(row: tuple[str, str]) -> str:
    width = min(shutil.get_terminal_size((100, 24)).columns, 100)
    lines = textwrap.wrap(row[1], max(width - 26, 30)) or [""]
    head = f"  {row[0]}"
    lines = [head.ljust(26) + lines[0], *lines[1:]] if len(head) < 25 else [head, *lines]
    return "\n".join([lines[0].rstrip(), *(" " * 26 + line for line in lines[1:])])
