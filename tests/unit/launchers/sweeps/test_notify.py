"""A command at the end of a sweep."""

import sys

import pytest

from distgan.core.errors import ConfigError
from distgan.launchers.sweeps import command, notify


def test_a_command_is_a_list_of_arguments(tmp_path, capsys):
    program = "import os, sys; open(sys.argv[1], 'a').write(sys.stdin.read() + sys.argv[2])"
    words = [sys.executable, "-c", program, str(tmp_path / "said"), "$(touch x); `id`"]
    notify.notify(words, "widths", "3 done, 1 failed")
    said = (tmp_path / "said").read_text()
    assert said == "sweep widths has ended: 3 done, 1 failed\n$(touch x); `id`"
    notify.notify(["/no/such/program"], "widths", "")
    notify.notify([sys.executable, "-c", "import sys; sys.exit('no mail')"], "widths", "")
    warned = capsys.readouterr().err
    assert warned.count("warning: --notify") == 2 and "no mail" in warned


def test_how_it_is_given():
    assert notify.read_command("mail -s 'it ended' me") == ["mail", "-s", "it ended", "me"]
    assert notify.read_command('["a", "b c"]') == ["a", "b c"]
    for wrong in ("", "[]", "[1]", "'open"):
        with pytest.raises(ValueError):
            notify.read_command(wrong)
    with pytest.raises(ConfigError, match="--notify needs --watch"):
        command.COMMAND.parse(["sagan", "data=d", "seed=1,2", "--notify", "mail me"])
