"""The ledger of submissions in a folder of runs."""

import json
import os

import pytest
from fake_slurm import queue_entry

from distgan.core.errors import LaunchError
from distgan.launchers.executors import interface as executors
from distgan.launchers.runs.state import RunFiles, run_state
from distgan.launchers.slurm import client
from distgan.launchers.slurm.ledger import Ledger


def test_the_ledger_knows_what_was_submitted(tmp_path):
    ledger = Ledger(tmp_path)
    one = ledger.begin([["a"], ["b", "c"]], sweep="s")
    a, b, c = map(os.path.realpath, "abc")  # the same folder by another name is the same run
    assert ledger.last_submissions()[b].key is None
    ledger.submitted(one, "12", True)
    assert [ledger.last_submissions()[run].key for run in (a, b, c)] == [
        "12_0",
        "12_1",
        "12_1",
    ] and ledger.last_submissions()[a].submission.details == {"sweep": "s", "user": client.user()}
    with open(ledger.path, "a") as file:
        file.write('{"torn')
    two = ledger.begin([["a"]])
    ledger.submitted(two, "13", False)
    assert ledger.last_submissions()[a].key == "13" and ledger.last_submissions()[b].key == "12_1"
    ledger.append({"state": "cancelled", "id": two.id, "runs": [a]})
    assert ledger.last_submissions()[a].cancelled and not ledger.last_submissions()[b].cancelled


def test_an_interrupted_submission_is_found_or_forgotten(tmp_path):
    ledger = Ledger(tmp_path)
    one, two = ledger.begin([["a"], ["b"]]), ledger.begin([["c"]])
    assert [open_.id for open_ in ledger.resolve_pending({})] == [one.id, two.id]
    assert [
        open_.id
        for open_ in ledger.resolve_pending(
            {"9_1": client.QueueEntry("9_1", "PENDING", "", one.name, "", "", "")}
        )
    ] == [two.id]
    assert ledger.last_submissions()[os.path.realpath("b")].key == "9_1"
    old = ledger.path.read_text().replace(f'"time": {two.time:.3f}'[:18], '"time": 1000000')
    ledger.path.write_text(old)
    assert [open_.id for open_ in ledger.resolve_pending({})] == [
        two.id
    ]  # somebody may be submitting it at this moment
    assert ledger.resolve_pending({}, exclusive=True) == [] and "c" not in ledger.last_submissions()
    ledger.submitted(two, "11", False)  # it was, and only slow
    assert ledger.last_submissions()[os.path.realpath("c")].key == "11"


def test_a_submission_of_which_one_run_was_tried_is_over(tmp_path):
    """And no other: records of another submission, and folders without records, say nothing."""
    ledger = Ledger(tmp_path)
    runs = [tmp_path / name for name in "abc"]
    one, two = ledger.begin([[str(runs[0])], [str(runs[1])]]), ledger.begin([[str(runs[2])]])
    for run, name in ((runs[1], one.id), (runs[2], "another")):
        (run / "attempts/000").mkdir(parents=True)
        (run / "attempts/000/job.json").write_text(
            json.dumps({"submission": name, "job": "1", "started": 1})
        )
    assert [open_.id for open_ in ledger.resolve_pending({})] == [one.id, two.id]
    assert [open_.id for open_ in ledger.resolve_pending({}, exclusive=True)] == [two.id]
    assert [bool(each.void) for each in ledger.read()[0]] == [True, False]


def test_what_slurm_has_cancelled_is_remembered(tmp_path):
    ledger = Ledger(tmp_path)
    one = ledger.begin([["a"], ["b"]])
    ledger.submitted(one, "12", True)
    ledger.resolve_pending({"12_1": queue_entry("CANCELLED", "12_1")})
    ledger.resolve_pending({"12_1": queue_entry("CANCELLED", "12_1")})
    assert ledger.path.read_text().count('"cancelled"') == 1
    places = ledger.last_submissions()
    assert (
        not places[os.path.realpath("a")].cancelled
        and run_state(RunFiles(), places[os.path.realpath("b")], None).name == "cancelled"
    )


def test_two_do_not_submit_at_once(tmp_path):
    with Ledger(tmp_path).locked():
        with pytest.raises(LaunchError, match="another distgan is submitting"):
            with Ledger(tmp_path).locked():
                pass


def test_jobs_of_others_who_submitted_here_are_asked_for(tmp_path, monkeypatch):
    (tmp_path / "squeue").write_text(
        f'#!/bin/sh\necho "$@" > {tmp_path}/words\necho'
        " '9_0|RUNNING|None|distgan-x|n1|1:00||ada'\n"
    )
    (tmp_path / "squeue").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    run, ledger = tmp_path / "p" / "r", Ledger(tmp_path)
    ledger.submitted(ledger.begin([[str(run)]], user="ada"), "9", True)
    interrupted = ledger.begin(
        [[str(tmp_path / "p" / "s")]], user="ada, --all"
    )  # no name of a user: taken for one's own
    rows, places = executors.query(ledger)
    assert (
        f"--users={','.join(sorted(['ada', client.user()]))} " in (tmp_path / "words").read_text()
    )
    assert (
        run_state(RunFiles(), places[str(run)], rows["9_0"]).name == "running"
        and interrupted.user == client.user()
    )


@pytest.mark.parametrize("state", [("FAILED", "BadConstraints"), ("FAILED", "None")])
def test_the_record_of_a_refused_job_is_no_job(state, tmp_path):
    """Slurm 22.05 keeps a FAILED record of a job that sbatch refused; it never had a node."""
    ledger = Ledger(tmp_path)
    run = tmp_path / "e" / "a"
    one = ledger.begin([[str(run)]])
    row = client.QueueEntry("105", *state, one.name, "", "", "")
    assert row.refused and ledger.resolve_pending({"105": row}) == []
    assert ledger.last_submissions() == {}
    assert "sbatch refused the job" in (ledger.refusal(run) or "")
