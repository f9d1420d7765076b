"""The code of a job is run only where nobody else can have changed it."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from distgan.core.errors import RunError
from distgan.launchers.slurm import snapshot


@pytest.fixture
def small(tmp_path, monkeypatch) -> Path:
    """A package of two files, in place of this one; returns the folder of copies."""
    (tmp_path / "package" / "launchers").mkdir(parents=True)
    (tmp_path / "package" / "train.py").write_text("train = 1\n")
    (tmp_path / "package" / "launchers" / "job.py").write_text("job = 1\n")
    monkeypatch.setattr(snapshot, "PACKAGE", tmp_path / "package")
    return tmp_path / "_code"


def test_one_copy_serves_until_the_code_changes(small, capsys):
    first = snapshot.take(small)
    assert snapshot.take(small) == first and not capsys.readouterr().out
    (snapshot.PACKAGE / "train.py").write_text("train = 2\n")
    assert snapshot.take(small) != first and not capsys.readouterr().out


def edited(copy: Path) -> None:
    (copy / "distgan" / "launchers" / "job.py").write_text("evil = 1\n")


def added(copy: Path) -> None:
    (copy / "torch.py").write_text("evil = 1\n")


def module_added(copy: Path) -> None:
    (copy / "distgan" / "yaml.py").write_text("evil = 1\n")


def linked(copy: Path) -> None:
    copy.rename(copy.with_name("elsewhere"))
    copy.symlink_to("elsewhere")


def file_linked(copy: Path) -> None:
    path = copy / "distgan" / "train.py"
    (copy.parent.parent / "train.py").write_bytes(path.read_bytes())
    path.unlink()
    path.symlink_to(copy.parent.parent / "train.py")


def opened(copy: Path) -> None:
    (copy / "distgan" / "train.py").chmod(0o664)


def folder_opened(copy: Path) -> None:
    (copy / "distgan").chmod(0o775)


CHANGES = {
    edited: "does not hold what its name says",
    added: "has a file torch.py",
    module_added: "does not hold what its name says",
    linked: "is a link, or no file",
    file_linked: "is a link, or no file",
    opened: "may be written by other users",
    folder_opened: "may be written by other users",
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_copy_that_was_changed_is_not_run(small, change, capfd):
    """Not at submission, where another is made, and not where a job starts that has it."""
    first = snapshot.take(small)
    line = snapshot.check(first)
    assert subprocess.run(["sh", "-c", line]).returncode == 0
    change(first)
    assert subprocess.run(["sh", "-c", f"{line}; echo STARTED"]).returncode == 1
    out, error = capfd.readouterr()
    assert CHANGES[change] in error and "STARTED" not in out
    second = snapshot.take(small)
    said = capfd.readouterr().out
    assert said.startswith("note: a copy of the code is not used: ") and CHANGES[change] in said
    assert second != first and snapshot.fault(str(second)) is None
    assert (second / "distgan" / "launchers" / "job.py").read_text() == "job = 1\n"
    assert snapshot.take(small) == second and not capfd.readouterr().out


def test_a_copy_of_another_user_is_not_run(small, monkeypatch, capsys):
    first, usual = snapshot.take(small), os.lstat

    def lstat(path):
        about = usual(path)
        foreign = Path(path).is_relative_to(first)
        return os.stat_result((*about[:4], 12345, *about[5:])) if foreign else about

    monkeypatch.setattr(os, "lstat", lstat)
    assert snapshot.take(small) != first
    assert f"{first} belongs to another user" in capsys.readouterr().out


def test_a_pickle_that_others_may_write_starts_nothing(small, tmp_path, capfd):
    code, folder = snapshot.take(small), tmp_path / "abc"
    folder.mkdir(mode=0o755)
    (folder / "job.pkl").write_bytes(b"")
    line = snapshot.check(code, folder)
    assert subprocess.run(["sh", "-c", line]).returncode == 0
    (folder / "7_submitted.pkl").write_bytes(b"")
    (folder / "7_submitted.pkl").chmod(0o666)
    assert subprocess.run(["sh", "-c", line]).returncode == 1
    assert "7_submitted.pkl may be written by other users" in capfd.readouterr().err


def test_a_copy_has_no_more_rights_than_the_umask_leaves(small):
    for umask, mode in ((0o002, 0o644), (0o022, 0o644), (0o077, 0o600)):
        (snapshot.PACKAGE / "train.py").write_text(f"umask = {umask}\n")
        before = os.umask(umask)
        try:
            copy = snapshot.take(small)
        finally:
            os.umask(before)
        assert small.stat().st_mode & 0o777 == 0o775, "the folder of copies is the group's"
        for path in copy.rglob("*"):
            wanted = mode | (mode & 0o444) >> 2 if path.is_dir() else mode
            assert path.stat().st_mode & 0o777 == wanted, path


def test_a_file_system_without_modes_is_refused(small, monkeypatch):
    monkeypatch.setattr(snapshot, "fault", lambda *_: "it may be written by other users")
    with pytest.raises(RunError, match="no job can run the copy of the code: it may be written"):
        snapshot.take(small)


def test_the_code_of_a_job_is_a_copy(tmp_path):
    first, again = snapshot.take(tmp_path / "_code"), snapshot.take(tmp_path / "_code")
    assert (
        first == again
        and (first / "distgan/train.py").exists()
        and (first / "distgan/launchers/slurm/job.py").exists()
        and not (first / "tests").exists()
    )
    assert len(json.loads((first / "git.json").read_text())["commit"]) == 40 and not list(
        (tmp_path / "_code").glob(".tmp*")
    )
    (tmp_path / "run").mkdir()
    (tmp_path / f"run/.code.{os.getpid()}").symlink_to("left by a killed process of this number")
    snapshot.link(tmp_path / "run", first)
    assert (tmp_path / "run/code/distgan").is_dir() and not os.readlink(
        tmp_path / "run/code"
    ).startswith("/")
