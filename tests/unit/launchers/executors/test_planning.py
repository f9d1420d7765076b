"""Runs for a cluster are planned on a machine that has none."""

import pytest

from distgan.core.errors import LaunchError
from distgan.launchers.commands import submit
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
