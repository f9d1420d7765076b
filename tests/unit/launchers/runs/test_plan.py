"""The folder of a run that is to be submitted."""

import os

import pytest

from distgan.core.errors import ConfigError, RunError
from distgan.launchers.runs.plan import plan_run
from distgan.launchers.slurm import profiles


def test_a_submitted_run_has_the_folder_of_its_identity(particles, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    planned = plan_run(["sagan", f"data={particles}", "ngf=4", "batch=12"], profiles.Resources())
    assert planned.folder.parent == tmp_path / "runs/sagan" and planned.folder.name.startswith(
        "batch12,ngf4-"
    )
    with pytest.raises(ConfigError, match=r"machine\.folder"):
        plan_run(["sagan", f"data={particles}", "machine.folder=x"], profiles.Resources())
    planned.folder.parent.mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    planned.folder.symlink_to(tmp_path / "elsewhere")
    words = ["sagan", f"data={particles}", "ngf=4", "batch=12"]
    assert plan_run(words, profiles.Resources()).folder == tmp_path / "elsewhere"
    monkeypatch.setattr(os, "getuid", lambda: 12345)
    monkeypatch.setattr(os, "fstat", lambda handle, usual=os.fstat: _of_user(4, usual(handle)))
    with pytest.raises(RunError, match="is a link of user .* to"):
        plan_run(words, profiles.Resources())


def _of_user(uid: int, about: os.stat_result) -> os.stat_result:
    return os.stat_result((*about[:4], uid, *about[5:]))
