"""Which runs a verb is about."""

import pytest

from distgan.core.errors import LaunchError
from distgan.launchers.runs.selection import select
from distgan.launchers.slurm.ledger import Ledger


def test_slurm_without_a_cluster_is_told_and_asked_only_where_something_was_submitted(
    tmp_path, monkeypatch
):
    (tmp_path / "squeue").write_text(
        "#!/bin/sh\necho 'squeue: fatal: Could not establish a configuration source' >&2\nexit 1\n"
    )
    (tmp_path / "squeue").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    (tmp_path / "e" / "a" / "attempts").mkdir(parents=True)
    assert [one.state.name for one in select(tmp_path, ["a"])] == ["new"]
    Ledger(tmp_path).begin([["b"]])
    with pytest.raises(LaunchError, match="set SLURM_CONF"):
        select(tmp_path, ["a"])
