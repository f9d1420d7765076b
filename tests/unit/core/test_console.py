"""What is printed for people: commands that a shell takes word for word; foreign text that moves
no cursor, hides nothing and turns no line round. A place that cannot be written ends nothing.
"""

import os
import pty
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from distgan import cli
from distgan.core import console
from distgan.core.errors import RunError

PROGRAM = """
import logging, sys
from distgan import cli
from distgan.core import console

def command(argv):
    if "training" in argv:
        console.ignore_closed_pipes()
    console.say("a line, \u00d7 2")
    console.table(("name", "value"), [("a", "1")])
    logging.warning("another package's line")
    with console.bar("counting", 2, "steps") as bar:
        bar.advance(2)
    print("no flush")
    print("for people", file=sys.stderr)
    return 0

sys.exit(cli.guarded(command, sys.argv[1:]))
"""


def ran(redirection: str, *words: str, **env: str) -> tuple[int, str]:
    done = subprocess.run(
        ["bash", "-c", f'"$@" {redirection}; echo "code $?"', "-", sys.executable, "-c", PROGRAM]
        + list(words),
        capture_output=True,
        text=True,
        env={**os.environ, **env},
    )
    return int(done.stdout.split("code ")[1]), done.stdout + done.stderr


def test_a_full_disk_a_closed_descriptor_and_an_encoding_end_nothing():
    code, output = ran("> /dev/full", "training")
    assert code == 0 and output.count("warning: cannot print: No space left on device") == 1
    assert "warning: 5 lines could not be printed" in output and "for people" in output
    assert ran("> /dev/full 2>&1", "training")[0] == ran(">&- 2>&-", "training")[0] == 0
    code, output = ran("", PYTHONIOENCODING="ascii")
    assert code == 0 and "a line, \\xd7 2" in output


def test_a_reader_that_has_gone_ends_a_verb_and_no_training():
    into = ["bash", "-c", '("$@"; echo "code $?" >&2) | true', "-", sys.executable, "-c", PROGRAM]
    for words, code in ((["training"], 0), ([], 1)):
        done = subprocess.run([*into, *words], capture_output=True, text=True)
        assert f"code {code}" in done.stderr and "Traceback" not in done.stderr, done.stderr
    closed = subprocess.run(
        ["bash", "-c", '"$0" -m distgan --help | true', sys.executable],
        capture_output=True,
        text=True,
    )
    assert closed.stderr == ""


def test_a_verb_whose_output_is_lost_says_so():
    code, output = ran("> /dev/full")
    assert code == 1 and "lines could not be printed: No space left" in output


def test_a_terminal_that_is_gone_ends_nothing():
    ours, theirs = pty.openpty()
    command = [sys.executable, "-c", "import sys; sys.stdin.readline()\n" + PROGRAM, "training"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=theirs, stderr=theirs)
    os.close(theirs)
    os.close(ours)
    process.communicate(b"go on\n", timeout=60)
    assert process.returncode == 0


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
    console.table((text,), [(text + "\n",)])
    with console.bar(text, 1) as bar:
        bar.advance()
    assert cli.guarded(lambda argv: (_ for _ in ()).throw(RunError(text)), []) == 2
    out, err = capsys.readouterr()
    shown = HOSTILE[text]
    assert out.splitlines()[0] == shown and err == f"error: {shown}\n"
    assert shown + r"\n" in out and out.count(shown) == 4
    assert all(char.isprintable() or char == "\n" for char in out + err)


def test_a_table_is_as_wide_as_each_line_needs(capsys):
    rows = [("a", "1", "x" * 200), ("bcd", "20", "y")]
    console.table(("name", "size", "why"), rows, left=("why",))
    lines = ["name  size  why", "a        1  " + "x" * 200, "bcd     20  y"]
    assert capsys.readouterr().out.splitlines() == lines


def test_ordinary_text_stays():
    text = "naïve – 名前 … é\u00a0a\tb\nc 🙂"
    assert console.printable(text) is not None and console.printable(text) == text


def test_a_time_that_is_none_has_no_digits():
    assert console.clock(float("inf")) == console.clock(float("nan")) == "?"


def test_too_little_memory_is_one_message(capsys):
    assert cli.guarded(lambda argv: bytearray(1 << 62) and 0, []) == 2
    assert capsys.readouterr().err.startswith("error: out of memory")
