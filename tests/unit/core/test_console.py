"""What is printed for people: commands that a shell takes word for word; foreign text that moves
no cursor, hides nothing and turns no line round.
"""

import re
import shlex
from pathlib import Path

import pytest

from distgan import cli
from distgan.core import console
from distgan.core.errors import RunError


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


HOSTILE = {
    "\x1b]0;title\x07": r"\x1b]0;title\x07",
    "\x9b2J": r"\x9b2J",
    "a\u202eb\u2066c": r"a\u202eb\u2066c",
    "a\u200bb\u00adc\ufeff": r"a\u200bb\xadc\ufeff",
    "\udcff": r"\udcff",
    "a\rb\x00": r"a\rb\x00",
    "\U000e0041": r"\U000e0041",
}


@pytest.mark.parametrize("text", HOSTILE)
def test_what_is_invisible_is_shown(text, capsys):
    console.say(text)
    console.table(("a",), [(text + "\n",)])
    with console.bar(text, 1) as bar:
        bar.advance()
    assert cli.guarded(lambda argv: (_ for _ in ()).throw(RunError(text)), []) == 2
    out, err = capsys.readouterr()
    shown = HOSTILE[text]
    assert out.splitlines()[0] == shown and err == f"error: {shown}\n"
    assert shown + r"\n" in out and out.count(shown) == 3
    assert all(char.isprintable() or char == "\n" for char in out + err)


def test_ordinary_text_stays():
    text = "naïve – 名前 … é\u00a0a\tb\nc 🙂"
    assert console.printable(text) is not None and console.printable(text) == text


def test_a_time_that_is_none_has_no_digits():
    assert console.clock(float("inf")) == console.clock(float("nan")) == "?"


def test_too_little_memory_is_one_message(capsys):
    assert cli.guarded(lambda argv: bytearray(1 << 62) and 0, []) == 2
    assert capsys.readouterr().err.startswith("error: out of memory")
