"""Parse a sweep file, or words `key=a,b`, into the settings of each member: pure functions.

recipe: sagan                                    a recipe, a preset, one's own file, a run file
settings: {data: data/particles}                 of all members
grid: {ngf: [64, 96], seed: range(3)}            every combination
cases: [{g_lr: 1e-4, d_lr: 4e-4}, {g_lr: 2e-4}]  each of these, times the grid; a case or the grid
                                                 may name another `recipe` by its name
random: {members: 20, seed: 0, g_lr: "loguniform(1e-5, 1e-3)", bn_group: "choice(4, 8)"}
                                                 drawn, times the grid
search: {trials: 40, space: {g_lr: "loguniform(1e-5, 1e-3)"}}
                                                 proposed by Optuna, in place of all of these
chain: ngf                                       members that differ in ngf alone start from the
                                                 best checkpoint of the next narrower one
slurm: {profile: gpu, max_parallel: 8, pack: 2}  resources of the jobs
"""

import itertools
import json
import math
import random
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from distgan.config import loading
from distgan.core.errors import ConfigError
from distgan.recipes._catalog import find_code, is_run_file, recipe_names
from distgan.runs import data_code

KEYS = ("recipe", "settings", "grid", "cases", "random", "search", "chain", "slurm")
MAX_MEMBERS = 100_000
_CALL = re.compile(r"(range|uniform|loguniform|choice)\((.*)\)", re.DOTALL)


@dataclass(frozen=True)
class SweepDefinition:
    """A sweep as read. `values`: the settings of each member; `words`: those of all."""

    recipe: str
    words: list[str]
    values: list[dict[str, Any]]
    chain: str | None = None
    slurm: dict[str, Any] = field(default_factory=dict)
    search: dict[str, Any] | None = None


def read(words: list[str]) -> SweepDefinition:
    """Read a sweep file, a recipe or a run file, with `key=value` and `key=a,b` laid over.

    One ConfigError lists all faults.
    """
    if not words or "=" in words[0]:
        raise ConfigError(
            "the first word names a sweep file (.yaml with a key `recipe` and `grid`, `cases`,"
            " `random` or `search`), a recipe or a run file"
        )
    tree = _tree(words[0])
    faults: list[str] = [
        f"  {key}: unknown key; there are {', '.join(KEYS)}" for key in tree if key not in KEYS
    ]
    faults += [
        f"  {key}: found {_text(tree[key])}, allowed is a mapping"
        for key in ("settings", "grid", "random", "slurm", "search")
        if not isinstance(tree.get(key) or {}, dict)
    ]
    if not isinstance(tree.get("recipe"), str):
        faults.append(
            f"  recipe: found {_text(tree.get('recipe'))}, needed is a recipe, a preset or a run"
            " file"
        )
    if not isinstance(tree.get("cases") or [], list) or not all(
        isinstance(case, dict) and case for case in tree.get("cases") or []
    ):
        faults.append(
            f"  cases: found {_text(tree.get('cases'))}, allowed is a list of mappings, as in"
            " [{seed: 1}, {seed: 2}]"
        )
    if faults:
        raise ConfigError("\n".join([f"{len(faults)} faults in the sweep {words[0]}:", *faults]))
    grid, fixed = (
        {key: parse_values(key, value) for key, value in (tree.get("grid") or {}).items()},
        [f"{key}={_word(value)}" for key, value in (tree.get("settings") or {}).items()],
    )
    for word in words[1:]:
        key, equals, value = word.partition("=")
        if equals and (swept := parse_swept_value(value)) is not None:
            grid[key] = parse_values(key, swept)
        else:
            fixed.append(word)
            grid.pop(key, None)
    chain = tree.get("chain")
    if chain is not None and (
        not isinstance(chain, str)
        or chain not in {*grid, *(key for case in tree.get("cases") or [] for key in case)}
    ):
        raise ConfigError(
            f"chain: found {_text(chain)}, allowed is one of the keys that the sweep varies:"
            f" {', '.join(grid)}"
        )
    values = _members(grid, tree)
    _require_names(values)
    if any("recipe" in member for member in values):
        values = [{"recipe": tree["recipe"], **member} for member in values]
    return SweepDefinition(
        tree["recipe"], fixed, values, chain, tree.get("slurm") or {}, _search(tree)
    )


def _require_names(values: list[dict[str, Any]]) -> None:
    """Raise ConfigError where members vary `recipe` by anything but names of recipes."""
    names = recipe_names()
    for member in values:
        if "recipe" in member and member["recipe"] not in names:
            raise ConfigError(
                f"recipe: {_text(member['recipe'])} is no recipe's name; members may vary it"
                f" among {', '.join(names)}"
            )


def _search(tree: dict[str, Any]) -> dict[str, Any] | None:
    search = tree.get("search")
    if not search:
        return None
    if tree.get("grid") or tree.get("random") or tree.get("cases") or tree.get("chain"):
        raise ConfigError(
            "search: cannot be combined with others; leave out grid, cases, random and chain"
        )
    return search


def _tree(what: str) -> dict[str, Any]:
    path = Path(what)
    if path.suffix not in (".yaml", ".yml"):
        return {"recipe": what}
    tree = loading.read_yaml(path)
    if {"grid", "cases", "random", "search", "settings"}.isdisjoint(tree):  # a run file
        return {"recipe": what}
    data_code.require_own(tree, path)
    recipe = tree.get("recipe")
    if isinstance(recipe, str) and (path.parent / recipe.partition(":")[0]).is_file():
        tree["recipe"] = str(path.parent / recipe)
    if isinstance(recipe, str) and recipe not in recipe_names() and not is_run_file(recipe):
        find_code(tree["recipe"], path)  # refuses another user's code, and runs none
    return tree


def parse_swept_value(text: str) -> Any:
    """Parse the values of a word `a,b` or `range(3)`.

    Return None for a single value: commas in brackets or quotes belong to it.
    """
    if _CALL.fullmatch(text) and not text.startswith(("uniform", "loguniform")):
        return text
    parts, depth, quote, start = [], 0, "", 0
    for position, sign in enumerate(text):
        if quote:
            quote = "" if sign == quote else quote
        elif sign in "\"'":
            quote = sign
        elif sign in "[{(":
            depth += 1
        elif sign in "]})":
            depth -= 1
        elif sign == "," and depth == 0:
            parts.append(text[start:position])
            start = position + 1
    if not parts:
        return None
    return [loading.override({}, [f"value={part}"])["value"] for part in [*parts, text[start:]]]


def parse_values(key: str, value: Any) -> list[Any]:
    """Parse the values of a key in a grid: a list, `range(3)`, `range(2, 10, 2)` or `choice(a, b)`.

    Raise ConfigError for anything else.
    """
    values = value
    if isinstance(value, str) and (call := _CALL.fullmatch(value.strip())):
        arguments = [part.strip() for part in call[2].split(",")]
        if call[1] == "range":
            if (
                not 1 <= len(arguments) <= 3
                or not all(re.fullmatch(r"-?\d{1,9}", part) for part in arguments)
                or len(arguments) == 3
                and int(arguments[2]) == 0
            ):
                raise ConfigError(
                    f"{key}: found {value!r}, allowed is range(STOP), range(START, STOP) or"
                    " range(START, STOP, STEP)"
                )
            steps = range(*map(int, arguments))
            if len(steps) > MAX_MEMBERS:
                raise ConfigError(
                    f"{key}: {value!r} has {len(steps):,} values, allowed are {MAX_MEMBERS:,}"
                )
            values = list(steps)
        elif call[1] == "choice":
            values = [loading.override({}, [f"value={part}"])["value"] for part in arguments]
        else:
            raise ConfigError(
                f"{key}: found {value!r}; drawn values belong under `random`, with `members: N`"
            )
    if not isinstance(values, list) or not values:
        raise ConfigError(
            f"{key}: found {_text(value)}, allowed is a list of values, as in [64, 96], or range(3)"
        )
    texts = [json.dumps(member, sort_keys=True, default=str) for member in values]
    if len(set(texts)) < len(texts):
        raise ConfigError(
            f"{key}: {', '.join(sorted({text for text in texts if texts.count(text) > 1})[:3])}"
            " is listed twice; each value is one run"
        )
    return values


def _members(grid: dict[str, list[Any]], tree: dict[str, Any]) -> list[dict[str, Any]]:
    sides = [tree.get("cases") or [{}], _drawn(tree.get("random") or {})]
    count = math.prod([*map(len, grid.values()), *map(len, sides)])
    if count > MAX_MEMBERS:
        raise ConfigError(f"the sweep has {count:,} members, allowed are {MAX_MEMBERS:,}")
    return [
        {**case, **drawn, **dict(zip(grid, values, strict=True))}
        for case, drawn in itertools.product(*sides)
        for values in itertools.product(*grid.values())
    ]


def _drawn(random_: dict[str, Any]) -> list[dict[str, Any]]:
    """Draw the random values of all members.

    The value of a key is drawn from (seed, member, key): more members keep the first ones.
    """
    if not random_:
        return [{}]
    count, seed = random_.get("members"), random_.get("seed", 0)
    if (
        not isinstance(count, int)
        or isinstance(count, bool)
        or not 0 < count <= MAX_MEMBERS
        or not isinstance(seed, int)
    ):
        raise ConfigError(
            f"random: found members={_text(count)}, seed={_text(seed)}; allowed is a number of"
            f" members from 1 to {MAX_MEMBERS:,} and a whole number as seed"
        )
    draws = {
        key: parse_distribution(key, value)
        for key, value in random_.items()
        if key not in ("members", "seed")
    }
    return [
        {key: draw(random.Random(f"{seed}/{i}/{key}")) for key, (draw, _) in draws.items()}
        for i in range(count)
    ]


def parse_distribution(key: str, value: Any) -> tuple[Any, tuple[str, list[Any]]]:
    """Parse `uniform(a, b)`, `loguniform(a, b)`, `choice(…)` or a list.

    Return (a function that draws with a generator, (kind, its bounds or values)).
    """
    if isinstance(value, list) and value:
        return lambda generator: generator.choice(value), ("choice", value)
    call = _CALL.fullmatch(value.strip()) if isinstance(value, str) else None
    if call and call[1] in ("choice", "range"):
        values = parse_values(key, value)
        return lambda generator: generator.choice(values), ("choice", values)
    try:
        if call is None:
            raise ValueError
        low, high = map(float, call[2].split(","))
        if not low < high or not math.isfinite(high - low) or call[1] == "loguniform" and low <= 0:
            raise ValueError
    except ValueError:
        raise ConfigError(
            f"{key}: found {_text(value)}, allowed is uniform(LOW, HIGH), loguniform(LOW, HIGH)"
            " with LOW above 0, choice(a, b, …) or a list"
        ) from None
    if call[1] == "uniform":
        return lambda generator: _rounded(generator.uniform(low, high)), ("uniform", [low, high])
    return lambda generator: _rounded(math.exp(generator.uniform(math.log(low), math.log(high)))), (
        "loguniform",
        [low, high],
    )


def _rounded(value: float) -> float:
    return float(f"{value:.4g}")


def member_words(parsed: SweepDefinition, values: dict[str, Any]) -> list[str]:
    """Return the line of a member, as words after `distgan train`."""
    own = {key: value for key, value in values.items() if key != "recipe"}
    return [values.get("recipe", parsed.recipe), *parsed.words, *to_words(own)]


def to_words(values: dict[str, Any]) -> list[str]:
    """Return settings as words of a command line."""
    return [f"{key}={_word(value)}" for key, value in values.items()]


def _word(value: Any) -> str:
    return json.dumps(value, default=str)


def _text(value: Any) -> str:
    text = json.dumps(value, default=str, ensure_ascii=False)
    return text if len(text) <= 80 else text[:60] + "…"


def chains(values: list[dict[str, Any]], key: str) -> list[list[int]]:
    """Group members that differ in `key` alone, by rising values: [[0, 3, 6], …].

    Each member of a group starts from the one before it.
    """
    groups: dict[str, list[int]] = {}
    for number, settings in enumerate(values):
        groups.setdefault(
            json.dumps(
                {name: value for name, value in settings.items() if name != key},
                sort_keys=True,
                default=str,
            ),
            [],
        ).append(number)
    for group in groups.values():
        if not all(
            isinstance(values[number][key], int | float)
            and not isinstance(values[number][key], bool)
            for number in group
        ):
            raise ConfigError(
                f"chain: {key} must be a number in every member, so that the members have an order"
            )
        group.sort(key=lambda number: values[number][key])
    return list(groups.values())
