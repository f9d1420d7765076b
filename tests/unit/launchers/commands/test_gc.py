"""`distgan gc` deletes below the folder of runs alone, and through no link."""

import json
from pathlib import Path

import pytest

from distgan.core import files
from distgan.launchers.commands import gc


@pytest.fixture
def home(tmp_path, monkeypatch) -> Path:
    """A folder of runs, beside one that belongs to somebody else's work."""
    monkeypatch.setenv("PATH", str(tmp_path / "no slurm"))
    for name in ("precious/work", "runs/_debug/old", "runs/_code/old", "runs/sagan"):
        (tmp_path / name).mkdir(parents=True)
    finished(tmp_path / "precious" / "run")
    return tmp_path / "runs"


def finished(run: Path) -> None:
    for step in (1, 2, 3):
        (run / "checkpoints" / f"{step:08d}").mkdir(parents=True)
    (run / "DONE").write_text("{}")


def collect(home: Path) -> None:
    assert gc.main(["--runs", str(home), "--older", "0", "--checkpoints", "--yes"]) == 0


def tree(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def test_what_no_run_needs_is_removed(home):
    collect(home)
    assert tree(home) == {"_debug", "_code", "sagan"}


@pytest.mark.parametrize("name", ["_debug", "_code"])
def test_a_folder_that_is_a_link_is_left_alone(home, capsys, name):
    files.remove(home / name)
    (home / name).symlink_to(home.parent / "precious")
    before = tree(home.parent / "precious")
    collect(home)
    assert tree(home.parent / "precious") == before
    assert f"left alone: {home / name / 'work'}" in capsys.readouterr().out


@pytest.mark.parametrize("place", ["sagan/planted", "sagan/real", "planted", "outside"])
def test_checkpoints_elsewhere_are_left_alone(home, capsys, place):
    """The run, its checkpoints or its experiment are a link, or a sweep names a run elsewhere."""
    precious = home.parent / "precious"
    members = [str(home / place)]
    if place == "sagan/real":
        (home / place).mkdir()
        (home / place / "DONE").write_text("{}")
        (home / place / "checkpoints").symlink_to(precious / "run" / "checkpoints")
    elif place == "outside":
        members = [str(precious / "run")]
    elif place == "planted":
        (home / place).symlink_to(precious)
        members = [str(home / place / "run")]
    else:
        (home / place).symlink_to(precious / "run")
    (home / "_sweeps" / "s").mkdir(parents=True)
    (home / "_sweeps" / "s" / "members.json").write_text(json.dumps({"runs": members}))
    before = tree(precious)
    collect(home)
    assert tree(precious) == before and "left alone: " in capsys.readouterr().out


def test_a_folder_replaced_by_a_link_between_check_and_deletion(home, monkeypatch):
    """What was checked is held open: a link that comes later leads nowhere."""
    usual = gc._size

    def replaced(path):
        if path.name == "old" and path.parent.name == "_debug":
            (home / "_debug").rename(home / "away")
            (home / "_debug").symlink_to(home.parent / "precious")
            (home.parent / "precious" / "old").mkdir()
        return usual(path)

    monkeypatch.setattr(gc, "_size", replaced)
    collect(home)
    assert (home.parent / "precious" / "old").is_dir()
