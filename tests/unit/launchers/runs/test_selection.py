"""Which runs a verb is about, and their states where Slurm has forgotten them."""

import json

import pytest
from fake_slurm import FakeSlurm

from distgan.core.errors import LaunchError, RunError
from distgan.launchers.commands import control
from distgan.launchers.runs.selection import read_submission, select
from distgan.launchers.slurm.ledger import Ledger


def test_slurm_without_a_cluster_is_told_and_asked_only_where_something_was_submitted(
    tmp_path, monkeypatch, capsys
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
        select(tmp_path, ["a"], acting=True)
    assert [one.state.name for one in select(tmp_path, ["a"])] == ["new"]  # files are read
    assert "warning: states are those of the runs' files: squeue" in capsys.readouterr().err


def submitted(home, count=1, array=True, job="103"):
    """Runs home/e/r0, … of one submission, whose folder of submitit's files is returned."""
    ledger, runs = Ledger(home), [home / "e" / f"r{k}" for k in range(count)]
    for run in runs:
        run.mkdir(parents=True, exist_ok=True)
    entry = ledger.begin([[str(run)] for run in runs])
    ledger.submitted(entry, job, array)
    folder = home / "_slurm" / entry.id
    folder.mkdir()
    return folder


def states(home, *words):
    return [(run.state.name, run.state.missing) for run in select(home, words)]


def test_what_scancel_took_out_of_the_queue_stays_cancelled(tmp_path, monkeypatch):
    """sacct prints the elements that never ran as one line."""
    slurm = FakeSlurm(tmp_path, monkeypatch)
    slurm.answers("squeue")
    slurm.answers(
        "sacct",
        "103_0|CANCELLED by 0|60|cpu=1|1|1|0:15|2026-03-01T10:00:00\n"
        "103_[1-3%1]|CANCELLED by 0|0||1|1|0:0|Unknown\n",
    )
    home = (tmp_path / "runs").resolve()
    submitted(home, 4)
    assert states(home) == [("cancelled", False)] * 4


DIED = "*** JOB 103_0 ON n1 CANCELLED AT 2026-03-01T10:00:00"


@pytest.mark.parametrize(
    ("log", "state", "why"),
    [
        (None, "unknown", "neither Slurm nor its files record how it ended"),
        ("", "failed", "it printed nothing"),
        ("slurmstepd: error: execve(): /v/bin/python: No such file", "failed", "execve()"),
        (f"slurmstepd: error: {DIED} ***", "cancelled", ""),
        (f"slurmstepd: error: {DIED} DUE TO PREEMPTION ***", "lost", "preemption"),
        (f"slurmstepd: error: {DIED} DUE TO TIME LIMIT ***", "failed", "time limit"),
    ],
)
def test_without_sacct_the_jobs_own_log_shows_how_it_ended(log, state, why, tmp_path, monkeypatch):
    """What nothing shows is unknown, and is not submitted again without a question."""
    slurm = FakeSlurm(tmp_path, monkeypatch)
    slurm.answers("squeue")
    home = (tmp_path / "runs").resolve()
    folder = submitted(home)
    if log is not None:
        (folder / "103_0_0_log.err").write_text(log)
    (run,) = select(home, [])
    assert run.state.name == state and why in run.state.why
    assert run.state.missing == (state == "lost")


def test_jobs_that_are_preempted_before_they_begin_come_to_an_end(tmp_path, monkeypatch):
    slurm = FakeSlurm(tmp_path, monkeypatch)
    slurm.answers("squeue")
    slurm.answers("sacct", "103_0|PREEMPTED|5||1|1|0:0|2026-03-01T10:00:00\n")
    home = (tmp_path / "runs").resolve()
    for _ in range(2):
        submitted(home)
    assert states(home) == [("lost", True)]
    submitted(home)
    (run,) = select(home, [])
    assert run.state.name == "failed" and "no progress: the last 3 jobs" in run.state.why
    (home / "e/r0/attempts/000").mkdir(parents=True)
    record = {"job": "1", "started": 1, "submission": run.submitted.earlier[0]}
    (home / "e/r0/attempts/000/job.json").write_text(json.dumps(record))
    assert states(home) == [("lost", True)]


def test_a_moved_folder_of_runs_has_the_same_runs(tmp_path, monkeypatch):
    slurm = FakeSlurm(tmp_path, monkeypatch)
    slurm.answers("squeue")
    home = (tmp_path / "runs").resolve()
    folder = submitted(home, 2)
    (home / "e/r0/DONE").write_text("{}")
    words = [[{"folder": str(home / f"e/r{k}"), "words": ["sagan"]}] for k in range(2)]
    record = {"id": folder.name, "elements": words, "resources": {}}
    (folder / "submission.json").write_text(json.dumps(record))
    (home / "_sweeps/s").mkdir(parents=True)
    members = {"runs": [str(home / "e/r1"), str(home / "e/r0")], "numbers": [5, 2]}
    (home / "_sweeps/s/members.json").write_text(json.dumps(members))
    moved = home.rename(tmp_path / "big_runs")
    runs = select(moved, [])
    assert [(run.folder, run.state.name, run.index) for run in runs] == [
        (moved / "e/r1", "unknown", 5),
        (moved / "e/r0", "done", 2),
    ]
    assert [run.folder for run in select(moved, ["s:2"])] == [moved / "e/r0"]
    assert len(select(moved, ["r0"])) == 1
    assert read_submission(moved, runs[0])[1][str(moved / "e/r0")] == ["sagan"]
    with pytest.raises(RunError, match="sweep s has the runs 2 to 5; 0 is no longer one"):
        select(moved, ["s:0"])


def test_a_cancel_that_slurm_refuses_is_not_recorded(tmp_path, monkeypatch, capsys):
    slurm = FakeSlurm(tmp_path, monkeypatch)
    home = (tmp_path / "runs").resolve()
    submitted(home, 2)
    row = "103_{}|RUNNING|None|x|n1|1:00|N/A|games\n"
    slurm.answers("squeue", row.format(0) + row.format(1))
    slurm.answers(
        "scancel",
        error="scancel: error: Kill job error on job id 103_1: Access/permission denied\n",
        code=1,
    )
    assert control.cancel(["e/r0", "e/r1", "--runs", str(home)]) == 2
    said = capsys.readouterr().out
    assert "r0  cancelled (job 103_0)" in said
    assert "r1  was NOT cancelled: Access/permission denied (job 103_1 of user games)" in said
    assert {run for _, run in Ledger(home).read()[1]} == {str(home / "e/r0")}


def test_without_an_answer_of_slurm_states_are_those_of_the_files(tmp_path, monkeypatch, capsys):
    slurm = FakeSlurm(tmp_path, monkeypatch)
    home = (tmp_path / "runs").resolve()
    submitted(home, 3)
    (home / "e/r0/DONE").write_text("{}")
    (home / "e/r1/NO_RESTART").write_text("batch must be at least 4\n")
    slurm.answers("squeue", error="Invalid user", code=1)
    assert states(home) == [("done", False), ("failed", False), ("uncertain", False)]
    assert "warning: states are those of the runs' files: squeue" in capsys.readouterr().err
    with pytest.raises(LaunchError, match="Invalid user"):
        control.cancel(["r2", "--runs", str(home)])
