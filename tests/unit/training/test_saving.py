"""The archive and the record of the best: whole, kept, of one line of history, and announced."""

import hashlib
import json
import os
import re
import shutil
import types

import pytest
import torch
from players import STATE, players

import distgan
from distgan.config import batch_layout
from distgan.config.sections import Machine
from distgan.core.clock import Clock
from distgan.core.errors import ConfigError, DiskError
from distgan.data.own_dataset import open_data
from distgan.distributed.ranks import Ranks
from distgan.recipes import sagan
from distgan.recipes._base import build_recipe
from distgan.report.score_tables import archive_table
from distgan.runs import checkpoints
from distgan.runs.history import read_history
from distgan.runs.locate import find_checkpoint
from distgan.training import attempt, saving
from distgan.training.loop import Loop

CLOCK = Clock(per_step=4, train=4)  # a step is an epoch
HERE = {"samples": 0, "seed": 0, "data": "d"}
DONE = {"best": None, "best_scheduled": None, "healthy": None, "warned": []}


class Folder:
    """A run folder that writes, and remembers what could not be written."""

    def __init__(self, path, stops=True):
        self.path, self.failed, self._stops = path, [], stops

    def sync(self):
        pass

    def write_or_warn(self, write):
        try:
            write()
        except DiskError as error:
            if self._stops:
                raise
            self.failed.append(str(error))

    def write_optional(self, what, write):
        try:
            write()
        except OSError as error:
            self.failed.append(f"{what}: {error}")


def write(folder, step, seed=0, best=None, every=2):
    best = best and {"step": best, "score": 1.0, "metric": "fid", "epoch": best, "samples": 4}
    state = DONE | {"best": best, "best_scheduled": best}
    machine = Machine(keep=1, keep_every=every)
    held = checkpoints.held(players(seed))
    saving.write(folder, machine, CLOCK.at(step), held, HERE, state)


def steps(folder, name):
    return [int(path.name) for path in checkpoints.present(folder / name)]


def test_an_archive_is_kept_and_no_run_resumes_from_it(tmp_path):
    for step in range(1, 7):
        write(Folder(tmp_path), step)
    assert steps(tmp_path, "archive") == [2, 4, 6] and steps(tmp_path, "checkpoints") == [6]
    (archived,) = checkpoints.present(tmp_path / "archive")[-1:]
    whole = tmp_path / "checkpoints" / "00000006"
    assert (archived / "networks.safetensors").read_bytes() == (
        whole / "networks.safetensors"
    ).read_bytes()
    assert torch.load(archived / "training.pt", weights_only=True)["G"]["optimizer"] == {}
    found = players(1)
    checkpoints.load(archived, found)
    assert torch.equal(found["G"].ema.weight, players(0)["G"].ema.weight)
    os.rename(archived, tmp_path / "checkpoints" / "00000007")  # as a user might try
    assert checkpoints.verify(tmp_path / "checkpoints" / "00000007")["step"] == 6
    assert checkpoints.newest(tmp_path / "checkpoints")[0] == whole
    os.rename(tmp_path / "checkpoints" / "00000007", archived)
    checkpoints._delete(whole)
    os.rename(archived, whole)
    with pytest.raises(checkpoints.RunError, match="none of the 1"):
        checkpoints.newest(tmp_path / "checkpoints")


def test_a_killed_save_of_the_archive_leaves_nothing_under_its_name(tmp_path, monkeypatch):
    def killed(*_, **__):
        raise SystemExit

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints.os, "replace", killed)
        with pytest.raises(SystemExit):
            write(Folder(tmp_path), 2)
    assert steps(tmp_path, "archive") == [] == steps(tmp_path, "checkpoints")
    write(Folder(tmp_path), 4)  # of a run that went on elsewhere
    assert [path.name for path in (tmp_path / "archive").iterdir()] == ["00000004"]


def test_on_a_full_disk_the_checkpoint_to_resume_from_comes_before_the_archive(
    tmp_path, monkeypatch
):
    def full(*_):
        raise DiskError("no room")

    monkeypatch.setattr(checkpoints, "archive", full)
    with pytest.raises(DiskError):
        write(Folder(tmp_path), 2)
    assert steps(tmp_path, "checkpoints") == [2]
    folder = Folder(tmp_path, stops=False)  # machine.on_full_disk=warn
    write(folder, 2)
    assert folder.failed == ["no room"] and steps(tmp_path, "checkpoints") == [2]


def test_going_back_leaves_the_archive_of_the_history_that_stays(tmp_path, monkeypatch):
    """A rollback, or a resume from an earlier checkpoint: what is trained again is archived
    again, and what is not keeps its digest, which is in the identity of runs that start from it.
    """
    for step in (2, 4, 6):
        write(Folder(tmp_path), step)
    before = checkpoints.verify(tmp_path / "archive/00000004")["digest"]
    loop = object.__new__(Loop)
    loop.folder = types.SimpleNamespace(path=tmp_path, rewind=lambda *_: 0)
    loop.writer = types.SimpleNamespace(continue_from=lambda *_: None)
    (tmp_path / "journal.jsonl").touch()
    loop._rewind(STATE | {"step": 4})
    assert steps(tmp_path, "archive") == [2, 4]
    write(Folder(tmp_path), 4)  # as a rollback does, with settings that it changed
    assert checkpoints.verify(tmp_path / "archive/00000004")["digest"] == before
    write(Folder(tmp_path), 6, seed=1)
    again = players(0)
    checkpoints.load(find_checkpoint(f"{tmp_path}@epoch=6"), again)
    assert torch.equal(again["G"].module.weight, players(1)["G"].module.weight)


def test_the_record_of_the_best_follows_it_and_a_planted_link_does_not_matter(tmp_path):
    folder, outside = Folder(tmp_path / "run"), tmp_path / "outside"
    outside.mkdir()
    link = folder.path / "checkpoints" / "best"
    write(folder, 1, best=1)
    assert os.readlink(link) == "00000001"
    record = json.loads((folder.path / "best.json").read_text())
    assert record == {
        "metric": "fid",
        "score": 1.0,
        "epoch": 1,
        "step": 1,
        "checkpoint": "checkpoints/00000001",
    }
    link.unlink()
    link.symlink_to(outside)
    (folder.path / "best.json").unlink()
    (folder.path / "best.json").symlink_to(outside / "theirs")
    assert steps(folder.path, "checkpoints") == [1]
    with pytest.raises(ConfigError, match="a link, which may lead anywhere"):
        checkpoints.save(outside, 9, checkpoints.held(players()), STATE)
        link.unlink()
        link.symlink_to(outside / "00000009")
        find_checkpoint(str(link))
    write(folder, 2, best=2)
    assert os.readlink(link) == "00000002" and not (folder.path / "best.json").is_symlink()
    assert [path.name for path in outside.iterdir()] == ["00000009"]
    write(folder, 3)  # a run that went back to before its first score
    assert not os.path.lexists(link) and not (folder.path / "best.json").exists()
    link.mkdir()
    write(folder, 4, best=4)
    assert "the record of the best score" in folder.failed[0]
    assert list((folder.path / "checkpoints").glob(".tmp-*")) == []
    write(folder, 5, best=3)  # its checkpoint could not be written when it was due
    assert json.loads((folder.path / "best.json").read_text())["checkpoint"] is None


def test_an_epoch_names_the_first_checkpoint_at_or_after_it(tmp_path):
    """Steps of 40 in epochs of 100: epochs 1, 2 and 3 are reached by steps 3, 5 and 8."""
    clock = Clock(per_step=40, train=100)
    machine = Machine(keep=1, keep_every=1)
    due = [step for step in range(11) if saving._is_archived(machine, clock.at(step))]
    assert due == [3, 5, 8, 10]
    held = checkpoints.held(players())
    for step in range(1, 11):
        saving.write(Folder(tmp_path), machine, clock.at(step), held, HERE, DONE)
    for epoch, step in (("1", 3), ("2", 5), ("3.0", 8), ("1.2", 3), ("4", 10)):
        assert find_checkpoint(f"{tmp_path}@epoch={epoch}").name == f"{step:08d}", epoch
    assert find_checkpoint(f"{tmp_path}@5").parent.name == "archive"
    assert find_checkpoint(f"{tmp_path}@last").parent.name == "checkpoints"
    for wrong in ("1.5", "5", "0", "", "x", "nan", "inf", "-1"):
        with pytest.raises(ConfigError) as error:
            find_checkpoint(f"{tmp_path}@epoch={wrong}")
        assert "the run keeps epochs 1, 2, 3, 4 in its archive and steps 10" in str(error.value), (
            wrong
        )
    with pytest.raises(ConfigError, match="best, last, epoch=N and a step"):
        find_checkpoint(f"{tmp_path}@newest")
    shutil.copytree(tmp_path / "archive", tmp_path / "bare/archive")
    with pytest.raises(ConfigError, match="keeps epochs 1, 2, 3, 4 in its archive; name one"):
        find_checkpoint(f"{tmp_path / 'bare'}@last")
    path = tmp_path / "archive/00000005/networks.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ConfigError, match="00000005 is damaged"):
        find_checkpoint(f"{tmp_path}@epoch=2")


def words(folder, data, **more):
    machine = {"folder": str(folder), "keep": 1, "keep_every": 1, "checkpoint_every": 1}
    machine |= more.pop("machine", {})
    evaluate = {"schedule": [[None, 2]], "samples": 4}
    settings = {"batch": 27, "validate_every": 1, "sample_every": 2, "epochs": 6, **more}
    return sagan.Settings(
        data=str(data), ndf=4, evaluate=evaluate, machine=machine, **{"ngf": 4, **settings}
    )


def digests(folder):
    return {
        path.parent.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.glob("archive/*/checkpoint.json"))
    }


@pytest.mark.gate
def test_six_archive_points_are_compared_grown_from_and_within_the_announced_disk(
    particles, tmp_path, capsys
):
    folder = tmp_path / "run"
    assert attempt.train(sagan, words(folder, particles), {}).exit_code == 0
    said = capsys.readouterr().out
    amount, archives = re.search(
        r"disk: up to ([\d.]+) MB in the run folder: .* (\d+) archive", said
    ).groups()
    size = sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file())
    assert archives == "6" and size < 1e6 * float(amount) < 4 * size
    assert steps(folder, "archive") == [2, 4, 6, 8, 10, 12] and 12 in steps(folder, "checkpoints")
    record = json.loads((folder / "best.json").read_text())
    best = json.loads((folder / "status.json").read_text())["best"]
    assert record["score"] == best["score"] and record["floor"] == best["floor"]
    assert (folder / record["checkpoint"]).resolve() == (folder / "checkpoints/best").resolve()

    page = distgan.TrainedRun(folder).report().read_text()
    rows = archive_table(read_history(folder))["rows"]
    assert [row[0] for row in rows] == ["1", "2", "3", "4", "5", "6"]
    assert [row[3] == "frechet_standin, in training" for row in rows] == [False, True] * 3
    assert all(float(row[6]) >= 0 for row in rows) and "<h2>Archive" in page

    first = digests(folder)
    longer = words(folder, particles, epochs=8, machine={"keep_every": 4})
    attempt.train(sagan, longer, {})  # a checkpoint after another is 8, and 7 is none
    assert digests(folder).items() >= first.items()
    assert steps(folder, "archive") == [2, 4, 6, 8, 10, 12, 16]
    assert isinstance(distgan.load(f"{folder}@epoch=3"), torch.nn.Module)

    grown = words(tmp_path / "grown", particles, ngf=8, epochs=1, grow=f"{folder}@epoch=3")
    attempt.train(sagan, grown, {})
    (event,) = (e for e in read_history(tmp_path / "grown").events if e["event"] == "grown")
    assert event["source"] == str(folder / "archive/00000006")
    identity = json.loads((tmp_path / "grown/identity.json").read_text())
    assert identity["settings"]["grow"] == checkpoints.verify(folder / "archive/00000006")["digest"]
    capsys.readouterr()


def test_too_little_room_is_a_warning_before_the_run_starts(tmp_path, monkeypatch):
    disk = saving.Disk(checkpoint=10**6, checkpoints=4, archive=10**6, archives=6, rest=10**6)
    assert disk.total == 11 * 10**6 and "6 archive checkpoints of 1 MB" in str(disk)
    free = types.SimpleNamespace(free=10**7)
    monkeypatch.setattr(saving.shutil, "disk_usage", lambda path: free)
    assert "only 10 MB are free" in disk.shortage(tmp_path / "none/yet")
    (tmp_path / "there").write_bytes(bytes(10**6))
    assert disk.shortage(tmp_path) is None


def test_the_disk_is_of_the_networks_and_of_the_settings(particles):
    run = words("unused", particles, machine={"keep": 3, "keep_every": None})
    data = open_data(run.data)
    layout = batch_layout.fit(run.batch, 1, 1, run.group, run.group_of)
    recipe = build_recipe(sagan, run, Ranks(Machine(device="cpu")), layout, data.shape)
    clock = Clock(27, 54)
    disk = saving.Disk.of(run, recipe, data, clock.at(100))
    assert (disk.archives, disk.checkpoints) == (0, 6)  # 3, the best, one to go back to, one new
    tensors = sum(
        one.numel() * one.element_size()
        for player in recipe.players.values()
        for one in player.tensors().values()
    )
    assert tensors < disk.archive < disk.checkpoint
