"""The run folder: its journal has every step once, and DONE is gone while a longer run trains."""

import errno
import json
import os
import resource
from itertools import pairwise
from pathlib import Path

import pytest

from distgan import cli, train
from distgan.core import watchdog
from distgan.distributed.ranks import Ranks
from distgan.recipes import sagan
from distgan.runs import checkpoints
from distgan.runs.folder import NoRunFolder, RunFolder


@pytest.fixture
def opened(tmp_path):
    """A function: the run folder `run`, with these settings of `machine`."""
    folders = []

    def folder(**machine) -> RunFolder:
        settings = sagan.Settings(data="d", machine={"folder": str(tmp_path / "run"), **machine})
        folders.append(RunFolder(settings, "0" * 16, {"data": "d"}))
        return folders[-1]

    yield folder
    for one in folders:
        one.close()


@pytest.fixture
def largest_file():
    """A function: no file may grow beyond that many bytes, as on a disk that is nearly full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def steps(folder: RunFolder) -> list[int]:
    return [
        json.loads(row)["step"] for row in (folder.path / "journal.jsonl").read_text().splitlines()
    ]


@pytest.mark.parametrize("told", ["stop", "warn"])
def test_rows_are_written_all_or_none_and_once(told, opened, largest_file, capsys):
    folder = opened(on_full_disk=told)
    rows = [{"step": k, "d/loss": 0.5} for k in range(1, 9)]
    folder.journal(rows[:2])
    size = (folder.path / "journal.jsonl").stat().st_size
    largest_file(size + 10)  # a part of the next row fits
    for row in rows[2:5]:
        folder.journal([row])
    told_once = capsys.readouterr().out
    assert told_once.count("warning: cannot write") == 1 and folder.must_stop == (told == "stop")
    assert ("Going on without it" if told == "warn" else "saving, if that is") in told_once
    assert steps(folder) == [1, 2]
    largest_file(1 << 20)
    folder.journal(rows[5:])
    assert steps(folder) == list(range(1, 9))


def test_a_finished_run_that_is_made_longer_is_not_done(opened):
    folder = opened()
    folder.finish(step=9, epoch=1.0, early=False)
    assert folder.done(9) == "at step 9" and folder.done(10) is None
    folder.reopen()
    assert not (folder.path / "DONE").exists() and folder.done(9) is None


@pytest.mark.gate
def test_done_is_gone_while_a_longer_run_trains(particles, tmp_path, monkeypatch):
    words = ["sagan", f"data={particles}", f"machine.folder={tmp_path / 'run'}", "ngf=2", "ndf=2"]
    words += [
        "latent=4",
        "batch=18",
        "evaluate.samples=8",
        "sample_every=1000",
        "validate_every=1000",
    ]
    assert train.main([*words, "epochs=1"]) == 0
    assert (tmp_path / "run" / "DONE").exists()
    usual, seen = sagan.Recipe.step, []
    prune, after = checkpoints.prune, []

    def step(self, batches, now):
        seen.append((tmp_path / "run" / "DONE").exists())
        after.append("step")
        return usual(self, batches, now)

    monkeypatch.setattr(sagan.Recipe, "step", step)
    monkeypatch.setattr(checkpoints, "prune", lambda *to: (after.append("save"), prune(*to)))
    monkeypatch.setattr(watchdog, "beat", lambda: after.append("beat"))
    words.append("machine.checkpoint_every=0.34")
    assert cli.guarded(train.main, [*words, "epochs=2"]) == 0
    # A save that takes long is progress: the next step has all of machine.stall_s again.
    saved = [name for before, name in pairwise(after) if before == "save"]
    assert saved == ["beat"] * 3
    assert seen == [False] * 3 and (tmp_path / "run" / "DONE").exists()


def test_other_ranks_have_a_folder_that_does_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    none = NoRunFolder()
    none.journal([{"step": 1}]), none.event("best", step=1), none.status(step=1)
    none.begin({}), none.end("done", None), none.write_or_warn(lambda: (tmp_path / "x").touch())
    none.reopen(), none.finish(1, 1.0, False), none.clear_request("SAVE"), none.close()
    assert none.has_request("STOP") is False and not list(tmp_path.iterdir())


@pytest.mark.parametrize(("name", "call"), [("000", "mkdir"), ("DONE", "unlink")])
def test_an_input_output_error_is_one_message(name, call, opened, monkeypatch, capsys):
    """At the start of a run, of the folder of its attempt and of DONE."""
    folder = opened()
    folder.journal([{"step": 1}])
    (folder.path / "DONE").touch()
    usual = getattr(Path, call)

    def fail(path, *args, **more):
        if path.name == name:
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))
        return usual(path, *args, **more)

    monkeypatch.setattr(Path, call, fail)

    def start(words):
        Ranks().on_rank_zero(folder.reopen if call == "unlink" else lambda: folder.begin({}))
        return 0

    assert cli.guarded(start, []) == 2
    printed = capsys.readouterr().err
    assert printed.startswith("error: cannot ") and name in printed and "Traceback" not in printed


def test_a_request_that_cannot_be_removed_is_told_once_and_ignored(opened, monkeypatch, capsys):
    folder = opened()
    (folder.path / "SAVE").touch()

    def fail(path, missing_ok=False):
        raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))

    assert folder.has_request("SAVE")
    with monkeypatch.context() as patched:
        patched.setattr(Path, "unlink", fail)
        for _ in range(3):
            folder.clear_request("SAVE")
    assert not folder.has_request("SAVE")  # or it would save every second
    assert capsys.readouterr().out.count("warning: ") == 1
    folder.clear_request("SAVE")
    (folder.path / "SAVE").touch()
    assert folder.has_request("SAVE")


def test_what_a_run_can_do_without_ends_nothing(opened, monkeypatch, capsys):
    """Under either setting of machine.on_full_disk; it is tried again each time."""
    folder = opened(on_full_disk="stop")
    (folder.path / "status.json").mkdir()  # cannot be replaced by a file
    for _ in range(3):
        folder.status(state="running")
    assert capsys.readouterr().out.count("The run goes on without its status") == 1
    (folder.path / "status.json").rmdir()
    folder.status(state="running")
    assert json.loads((folder.path / "status.json").read_text())["state"] == "running"
    assert not folder.must_stop


def test_rows_of_a_checkpoints_step_that_were_written_after_it_are_cut(opened):
    """As those of a rollback that was killed before it was saved."""
    folder = opened()
    folder.journal([{"step": step, "epoch": 1.0} for step in (1, 2, 2, 2, 3)])
    assert folder.rewind(2, rows=2) == 1
    assert steps(folder) == [1, 2, 2]
