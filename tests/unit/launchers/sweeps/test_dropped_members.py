"""A sweep whose file was edited: members keep their numbers, and what was dropped is named."""

import json
from dataclasses import replace
from types import SimpleNamespace

import pytest
from fake_slurm import FakeSlurm

from distgan.launchers.executors.cluster import SlurmExecutor
from distgan.launchers.runs.selection import select
from distgan.launchers.slurm.ledger import Ledger
from distgan.launchers.slurm.profiles import Resources
from distgan.launchers.sweeps.members import Sweep
from distgan.launchers.sweeps.reconcile import _drop, numbering, write


def sweep_of(home, *names):
    """A sweep of these runs; of a plan `reconcile` needs no more here."""
    members = [
        SimpleNamespace(
            spec=SimpleNamespace(folder=str(home / "e" / name)),
            values={},
            run=SimpleNamespace(epochs=1),
        )
        for name in names
    ]
    definition = SimpleNamespace(recipe="sagan", words=[], chain=None)
    return Sweep("s", definition, members, Resources(), home, SlurmExecutor())


@pytest.fixture
def home(tmp_path):
    home = (tmp_path / "runs").resolve()
    ledger = Ledger(home)
    for name in "abcd":
        (home / "e" / name).mkdir(parents=True)
    entry = ledger.begin([[str(home / "e" / name)] for name in "abc"], sweep="s")
    ledger.submitted(entry, "7", True)
    assert entry.name == f"s-{entry.id}"  # as squeue shows it
    write(sweep_of(home, "a", "b", "c"))
    return home


def test_a_member_keeps_its_number_when_others_go_and_come(home, tmp_path, monkeypatch):
    FakeSlurm(tmp_path, monkeypatch).answers("squeue")
    edited = sweep_of(home, "c", "d", "a")
    assert numbering(edited) == ([2, 3, 0], {str(home / "e/b"): 1})
    write(edited)
    assert [run.folder.name for run in select(home, ["s:2", "s:3"])] == ["c", "d"]
    assert numbering(sweep_of(home, "b", "d")) == (
        [1, 3],
        {str(home / "e/c"): 2, str(home / "e/a"): 0},
    )
    members = json.loads((home / "_sweeps/s/members.json").read_text())
    assert members["numbers"] == [2, 3, 0]


@pytest.mark.parametrize(
    ("prune", "dry_run", "said"),
    [
        (False, True, "--prune cancels it"),
        (True, True, "1 would be cancelled"),
        (True, False, "job 7_1 was cancelled"),
    ],
)
def test_what_was_dropped_is_named_and_cancelled_if_asked(
    prune, dry_run, said, home, tmp_path, monkeypatch, capsys
):
    slurm = FakeSlurm(tmp_path, monkeypatch)
    slurm.answers("squeue", "7_1|RUNNING|None|x|n1|1:00|N/A|me\n")
    slurm.answers("scancel")
    _drop(sweep_of(home, "a", "d"), Ledger(home), prune, dry_run)
    out = capsys.readouterr().out
    assert "2 runs are no longer members of s:" in out and said in out
    assert "s:1 b is running" in out and "s:2 c is unknown" in out
    cancelled = prune and not dry_run
    assert slurm.calls("scancel") == ([["scancel", "7_1"]] if cancelled else [])
    assert bool(Ledger(home).read()[1]) == cancelled


def test_what_another_sweep_has_is_not_cancelled(home, tmp_path, monkeypatch, capsys):
    slurm = FakeSlurm(tmp_path, monkeypatch)
    slurm.answers("squeue", "7_1|RUNNING|None|x|n1|1:00|N/A|me\n")
    slurm.answers("scancel")
    write(replace(sweep_of(home, "b"), name="other"))
    _drop(sweep_of(home, "a"), Ledger(home), True, False)
    assert "job 7_1 goes on: sweep other has this run, too" in capsys.readouterr().out
    assert slurm.calls("scancel") == [] and not Ledger(home).read()[1]
