"""`distgan cancel`."""

from distgan.launchers.commands import control
from distgan.launchers.runs.selection import select
from distgan.launchers.slurm.ledger import Ledger


def test_what_another_user_has_submitted_can_be_given_up(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))  # no Slurm: nothing to end
    ledger, run = Ledger(tmp_path), tmp_path / "e" / "a"
    (run / "attempts").mkdir(parents=True)
    ledger.submitted(ledger.begin([[str(run)]], user="ada"), "7", False)
    assert [one.state.name for one in select(tmp_path, ["a"])] == ["uncertain"]
    control.cancel(["a", "--runs", str(tmp_path)])
    assert [one.state.name for one in select(tmp_path, ["a"])] == ["cancelled"]
