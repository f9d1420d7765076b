"""Runs for a cluster are planned on a machine that has none."""

import pytest

from distgan.core.errors import LaunchError
from distgan.launchers.commands import submit
from distgan.launchers.executors import interface
from distgan.launchers.runs.selection import select
from distgan.launchers.slurm.ledger import Ledger
from distgan.launchers.sweeps import command as sweep


def test_a_dry_run_needs_no_cluster(particles, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    words = ["sagan", f"data={particles}", "batch=12", "--profile", "gpu"]
    assert sweep.main([*words, "seed=0,1", "--dry-run"]) == 0
    assert submit.main([*words, "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert said.count("not on this machine") == 2 and said.count("nothing was submitted") == 2
    for verb, more in ((sweep, ["seed=0,1"]), (submit, [])):
        with pytest.raises(LaunchError, match="not on this machine: run this on a login node"):
            verb.main([*words, *more])
    assert not [*tmp_path.glob("runs/sagan/*")]


def test_without_slurm_its_jobs_are_unknown_and_none_is_given_up(tmp_path, monkeypatch):
    """A job that waits in a queue nobody here can see is not submitted again."""
    monkeypatch.setenv("PATH", str(tmp_path))
    home = (tmp_path / "runs").resolve()
    ledger = Ledger(home)
    sent = ledger.begin([[str(home / "e" / "a")]])
    ledger.submitted(sent, "7", False)
    monkeypatch.setattr("time.time", lambda: 1e9)
    interrupted = ledger.begin([[str(home / "e" / "b")]])
    monkeypatch.undo()
    monkeypatch.setenv("PATH", str(tmp_path))
    before = ledger.path.read_bytes()
    with ledger.locked():
        rows, last = interface.query(ledger, exclusive=True)
    assert [(key, row.state, row.active) for key, row in rows.items()] == [
        ("7", "NOT_ASKED", False)
    ]
    assert last[str(home / "e" / "b")].submission.id == interrupted.id
    assert ledger.path.read_bytes() == before
    assert [run.state.name for run in select(home, ["a", "b"])] == ["unknown", "uncertain"]
