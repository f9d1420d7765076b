"""Files that are written whole, by any number of writers, with nobody else's hand in them."""

import contextlib
import csv
import io
import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from players import STATE, players

from distgan.commands import report
from distgan.core import files
from distgan.core.errors import DataError, DiskError, RunError
from distgan.core.files import write_atomic
from distgan.evaluation.sets import statistics_cache
from distgan.launchers.capacity import command as capacity
from distgan.launchers.slurm.ledger import Ledger
from distgan.launchers.sweeps import comparison
from distgan.outputs import image_grid, signal_plots
from distgan.recipes.sagan import Settings
from distgan.runs import checkpoints
from distgan.runs.folder import RunFolder
from distgan.shards.audit import plots
from distgan.shards.format import manifest, writer


def test_two_processes_of_one_number_do_not_share_a_temporary_name(tmp_path):
    """Containers on one machine count their processes alike."""
    assert files.temporary_name(tmp_path / "a") != files.temporary_name(tmp_path / "a")


def test_a_link_under_the_temporary_name_is_not_followed(tmp_path, monkeypatch):
    (tmp_path / "precious").write_text("precious")
    (tmp_path / "planted").symlink_to(tmp_path / "precious")
    for module in (files, writer):
        monkeypatch.setattr(module, "temporary_name", lambda path: tmp_path / "planted")
    with pytest.raises(DiskError, match="File exists"):
        write_atomic(tmp_path / "a.json", b"{}")
    with pytest.raises(DataError, match="File exists"):
        writer.write_shard(tmp_path / "a.tar", [{"__key__": "a", "txt": b"1"}])
    assert (tmp_path / "precious").read_text() == "precious" and not (tmp_path / "a.tar").exists()
    (tmp_path / "planted").unlink()
    (tmp_path / "planted").symlink_to(tmp_path / "nowhere")  # a broken link is none either
    with pytest.raises(DiskError, match="File exists"):
        write_atomic(tmp_path / "a.json", b"{}")
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize("name", [".a.json.tmp", ".a.json", ".a.json.PID", "a.json.tmp"])
def test_names_that_can_be_predicted_are_not_used(tmp_path, name):
    name = name.replace("PID", str(os.getpid()))
    (tmp_path / "precious").write_text("precious")
    (tmp_path / name).symlink_to(tmp_path / "precious")
    write_atomic(tmp_path / "a.json", "{}")
    assert (tmp_path / "precious").read_text() == "precious"
    assert (tmp_path / "a.json").read_text() == "{}" and (tmp_path / name).is_symlink()


PROGRAM = """
import json, sys
from pathlib import Path
from distgan.core.files import write_atomic
text = json.dumps({"who": sys.argv[2], "filler": "x" * 20_000})
for _ in range(600):
    write_atomic(Path(sys.argv[1]), text)
"""


@pytest.mark.gate
def test_two_processes_write_one_file_and_no_read_is_torn(tmp_path):
    path, seen = tmp_path / "status.json", set()
    write_atomic(path, json.dumps({"who": "test"}))
    writers = [
        subprocess.Popen([sys.executable, "-c", PROGRAM, path, who], stderr=subprocess.PIPE)
        for who in "ab"
    ]
    while any(process.poll() is None for process in writers):
        seen.add(json.loads(path.read_text())["who"])  # ValueError where it is torn
    assert [process.communicate()[1] for process in writers] == [b"", b""], "none failed"
    assert seen >= {"a", "b"} and [process.returncode for process in writers] == [0, 0]
    assert [path.name for path in tmp_path.iterdir()] == ["status.json"]


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "a.json"
    path.write_text("old")

    def half(file):
        file.write(b"ne")
        raise OSError(28, "No space left on device")

    with pytest.raises(DiskError, match=r"cannot write .*a.json: No space left on device; run the"):
        write_atomic(path, half)
    with pytest.raises(KeyboardInterrupt):
        write_atomic(path, lambda file: (_ for _ in ()).throw(KeyboardInterrupt))
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


@pytest.fixture
def planted(tmp_path, monkeypatch) -> Path:
    """A link `planted` to the folder `theirs`, in which is a file; of another user, it seems."""
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "a").write_text("precious")
    (tmp_path / "planted").symlink_to(tmp_path / "theirs")
    usual = os.fstat

    def foreign(handle):
        found = usual(handle)
        link = stat.S_ISLNK(found.st_mode)
        return os.stat_result((*found[:4], 12345, *found[5:])) if link else found

    monkeypatch.setattr(os, "fstat", foreign)
    return tmp_path / "planted"


FOLLOWERS = {
    "write": lambda path: write_atomic(path / "a", "x", contextlib.nullcontext),
    "append": lambda path: open(path / "a", "ab", opener=files.opener).close(),
    "touch": lambda path: files.touch(path / "b"),
    "folder": lambda path: files.make_folder(path / "b" / "c"),
    "remove": lambda path: files.remove(path / "a"),
    "rename": lambda path: files.rename(path / "a", "b"),
}


@pytest.mark.parametrize("what", FOLLOWERS)
def test_a_link_of_another_user_is_not_followed(planted, what):
    with pytest.raises(OSError, match="planted is a link of user 12345 to .*theirs, and is not"):
        FOLLOWERS[what](planted)
    with pytest.raises(OSError, match="planted is a link of user 12345"):
        FOLLOWERS[what](planted / ".." / "planted")
    assert [path.name for path in (planted.parent / "theirs").iterdir()] == ["a"]
    assert (planted / "a").read_text() == "precious"


@pytest.mark.parametrize("what", FOLLOWERS)
def test_a_link_of_ones_own_is_followed(tmp_path, what):
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "a").write_text("a")
    (tmp_path / "here").symlink_to("there")
    FOLLOWERS[what](tmp_path / "here")


def test_a_file_that_is_a_link_or_a_pipe_is_not_written(tmp_path):
    (tmp_path / "a").write_text("precious")
    (tmp_path / "link").symlink_to(tmp_path / "a")
    with pytest.raises(DiskError, match="it is a link"):
        files.append(tmp_path / "link", "x\n")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(DiskError, match="no regular file"):
        files.append(tmp_path / "pipe", "x\n")
    assert (tmp_path / "a").read_text() == "precious"


def test_nothing_is_removed_through_a_link(tmp_path):
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "link").symlink_to(tmp_path / "a")
    with pytest.raises(OSError, match="is not followed"):
        files.remove(tmp_path / "runs" / "link" / "b", below=tmp_path / "runs")
    for outside in (tmp_path / "a", tmp_path / "runs" / ".." / "a"):
        with pytest.raises(ValueError):
            files.remove(outside, below=tmp_path / "runs")
    files.remove(tmp_path / "runs" / "link", below=tmp_path / "runs")
    files.remove(tmp_path / "runs" / "nothing", below=tmp_path / "runs")
    assert (tmp_path / "a" / "b").is_dir() and not any((tmp_path / "runs").iterdir())


def test_modes_follow_the_umask(tmp_path):
    before = os.umask(0o027)
    try:
        write_atomic(tmp_path / "a", b"")
    finally:
        os.umask(before)
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o640


@pytest.fixture
def disk(tmp_path, monkeypatch):
    """What reaches the disk, in order: `sync NAME`, `rename NAME`. At the end each file must have
    the size that it had when it was synced.
    """
    calls: list[str] = []
    sizes: dict[int, int] = {}
    usual_sync, usual_replace, usual_open = os.fsync, os.replace, os.open

    def sync(handle):
        path, about = Path(os.readlink(f"/proc/self/fd/{handle}")), os.fstat(handle)
        calls.append(f"sync {path.name.partition('.tmp-')[0] or 'temporary'}")
        if path.is_file():
            sizes[about.st_ino] = about.st_size
        usual_sync(handle)

    def replace(source, target, **more):
        calls.append(f"rename {Path(target).name}")
        usual_replace(source, target, **more)

    def opened(path, flags, *args, **more):
        if flags & os.O_CREAT:
            assert flags & os.O_NOFOLLOW and flags & (os.O_EXCL | os.O_APPEND)
        return usual_open(path, flags, *args, **more)

    monkeypatch.setattr(os, "fsync", sync)
    monkeypatch.setattr(os, "replace", replace)
    monkeypatch.setattr(os, "open", opened)
    yield calls
    found = {path.stat().st_ino: path.stat().st_size for path in tmp_path.rglob("*")}
    assert {inode: found[inode] for inode in sizes if inode in found} == sizes, "not flushed"


def _whole(name: str, folder: str = "at") -> list[str]:
    return [f"sync {name}", f"rename {name}", f"sync {folder}"]


def _checkpoint(at: Path) -> None:
    checkpoints.save(at, 3, checkpoints.held(players()), STATE)


def _journal(at: Path) -> None:
    folder = RunFolder(Settings(data="d", machine={"folder": str(at)}), "0" * 16, {})
    folder.journal([{"step": 1}])
    folder.sync()
    folder.close()


WRITERS = {
    "text": (lambda at: write_atomic(at / "a", "{}"), _whole("a")),
    "much": (lambda at: write_atomic(at / "a", b"x" * 20_001), _whole("a")),
    "statistics": (
        lambda at: statistics_cache.write(at / "a", {}, {"a": torch.zeros(2)}),
        _whole("a"),
    ),
    "grid": (
        lambda at: image_grid.save_grid(at / "a", torch.zeros(1, 1, 4, 4, dtype=torch.uint8)),
        _whole("a"),
    ),
    "signals": (lambda at: signal_plots.save(at / "a.png", Figure()), _whole("a.png")),
    "audit": (lambda at: plots.save(Figure(), at / "a.png"), _whole("a.png")),
    "report": (lambda at: report.write_page(at, "<html>"), _whole("report.html")),
    "shard": (
        lambda at: writer.write_shard(at / "a.tar", [{"__key__": "a", "txt": b"1"}]),
        _whole("a.tar") + _whole("a.json"),
    ),
    "ledger": (lambda at: Ledger(at).append({"state": "void"}), ["sync ledger.jsonl"]),
    "checkpoint": (
        _checkpoint,
        [
            "sync checkpoint.json",
            "sync networks.safetensors",
            "sync training.pt",
            "sync temporary",
            "rename 00000003",
            "sync at",
        ],
    ),
    "journal": (
        _journal,
        [*_whole("overrides.yaml"), *_whole("identity.json"), "sync journal.jsonl"],
    ),
}


@pytest.mark.parametrize("what", WRITERS)
def test_every_writer_syncs_content_before_the_name_and_the_name_before_it_returns(
    tmp_path, disk, what
):
    write, calls = WRITERS[what]
    (tmp_path / "at").mkdir()
    write(tmp_path / "at")
    if what == "checkpoint":  # its files in any order, then their folder, then its name
        disk[:3] = sorted(disk[:3])
    assert disk == calls


def test_a_manifest_is_written_so(tmp_path, disk):
    writer.write_shard(tmp_path / "a-000000.tar", [{"__key__": "a", "txt": b"1"}])
    disk.clear()
    manifest.write_manifest(tmp_path, "a")
    assert [call.split()[0] for call in disk] == ["sync", "rename", "sync"] * 2


def test_a_sweeps_picture_and_a_studys_files_are_written_so(tmp_path, monkeypatch):
    """They need runs to draw, so what they hand over is held instead."""
    assert comparison.write_atomic is files.write_atomic
    written = []
    monkeypatch.setattr(
        capacity, "write_atomic", lambda path, data, errors: written.append(path.name)
    )
    study = capacity.Study([], 1, None, {64: tmp_path / "runs" / "a"})
    monkeypatch.setattr(capacity.table, "text", lambda *_: "")
    monkeypatch.setattr(capacity.table, "table_csv", lambda *_: "")
    capacity._write(study, [])
    assert written == ["capacity.md", "capacity.csv", "capacity.png"]


def test_lines_are_appended_whole_and_after_a_torn_one_apart(tmp_path):
    path = tmp_path / "journal.jsonl"
    files.append(path, "1\n")
    files.append(path, "2\n3\n", durable=True)
    with open(path, "a") as file:
        file.write("torn")
    files.append(path, "4\n")
    assert path.read_text() == "1\n2\n3\ntorn\n4\n"


def test_a_lock_is_shared_or_alone_and_says_who_is_busy(tmp_path):
    busy = RunError("busy")
    with open(tmp_path / "a", "w") as one, open(tmp_path / "a") as two:
        assert files.lock(one, busy, shared=True) is None
        assert files.lock(two, busy, shared=True) is None
        with pytest.raises(RunError, match="busy"):
            files.lock(one, busy)
    with open(tmp_path / "a") as three:
        assert files.lock(three, busy) is None


def test_csv_has_one_heading_and_plain_line_feeds():
    assert files.csv_text(("a", "b"), [(1, "x,y"), (np.float32(2), None)]) == 'a,b\n1,"x,y"\n2.0,\n'


@pytest.mark.parametrize("text", ["=cmd|x", "+a", "-a", "@a", "\ta", "-1e5x"])
def test_a_text_that_a_spreadsheet_would_run_is_none(text):
    (_, (cell,)) = csv.reader(io.StringIO(files.csv_text(("a",), [(text,)]), newline=""))
    assert cell == f"'{text}"
    again = files.csv_text(("a",), [(cell,)])
    assert again == files.csv_text(("a",), [(text,)])
    assert "\r" not in files.csv_text(("a",), [(f"a\r{text}",)])


@pytest.mark.parametrize("number", [-1, -0.5, "-0.5", "+1e-3", "-inf", "nan", "0"])
def test_numbers_stay_numbers(number):
    assert files.csv_text(("a",), [(number,)]) == f"a\n{number}\n"


@pytest.mark.parametrize("key", ["a\udcff", "a\ud800", "a\nb", "a\x1fb/c", "a\x7f", ""])
def test_a_key_that_readers_refuse_is_not_written(tmp_path, key):
    with pytest.raises(DataError, match="malformed|cannot be the name"):
        writer.write_shard(tmp_path / "a.tar", [{"__key__": key, "txt": b"1"}])
    assert not list(tmp_path.iterdir())
