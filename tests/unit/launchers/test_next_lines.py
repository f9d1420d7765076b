"""The next command that a verb prints, of runs with names that a shell would execute."""

import shlex
from pathlib import Path

import pytest

from distgan.launchers.commands import status, why
from distgan.launchers.runs.selection import inspect
from distgan.launchers.sweeps import comparison

NAME = "a;touch PWNED RUN $(x)"


@pytest.fixture
def failed(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("PATH", str(tmp_path / "no slurm"))
    folder = tmp_path / "runs" / "sagan" / NAME
    (folder / "attempts").mkdir(parents=True)
    (folder / "status.json").write_text('{"state": "failed", "cause": "No space left on device"}')
    return folder


def commands(out: str) -> list[list[str]]:
    """The words of what follows `next`, as a shell takes them."""
    lines = [line.partition("next")[2].lstrip(": ") for line in out.splitlines() if "next" in line]
    return [shlex.split(line[line.index("distgan") :]) for line in lines]


def test_why(failed, capsys):
    assert why.main([str(failed), "--runs", str(failed.parents[1])]) == 0
    assert commands(capsys.readouterr().out) == [["distgan", "retry", NAME]]


def test_status(failed, capsys):
    status.show([inspect(failed, None, {})], failed.parents[1])
    assert commands(capsys.readouterr().out) == [["distgan", "why", NAME]]


def test_a_sweeps_table_runs_nothing_in_a_spreadsheet():
    rows = [["0", "=cmd|x", "-0.5", "–"], ["1", "@x", "1e-3", "-y"]]
    text = comparison._csv(["", "name", "score", "note"], rows)
    assert text.splitlines()[1:] == ["0,'=cmd|x,-0.5,", "1,'@x,1e-3,'-y"]
