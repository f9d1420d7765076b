"""What is printed for people to copy is what a shell takes word for word."""

import re
import shlex
from pathlib import Path

import pytest

from distgan.core import console


@pytest.mark.parametrize("name", ["a;touch PWNED", "$(touch PWNED)", "a b", "a'b", "-n", "`x`", ""])
def test_a_command_comes_back_word_for_word(name):
    assert shlex.split(console.command("why", name, 2)) == ["distgan", "why", name, "2"]


def test_every_command_that_is_printed_is_quoted():
    """A value in a command line goes through `console.command`."""
    unquoted = re.compile(r"distgan [a-z]+( --?[a-z-]+| SOURCE)* \{(?!recipe_names|n\})")
    faults = [
        f"{path}:{number}: {line.strip()}"
        for folder in ("distgan", "launchers", "shards")
        for path in sorted((Path(__file__).parents[3] / folder).rglob("*.py"))
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if unquoted.search(line)
    ]
    assert not faults
