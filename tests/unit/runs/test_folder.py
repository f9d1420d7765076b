"""The run folder: its journal has every step once, and DONE is gone while a longer run trains."""

import json
import resource
from itertools import pairwise

import pytest

from distgan import cli, train
from distgan.core import watchdog
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
