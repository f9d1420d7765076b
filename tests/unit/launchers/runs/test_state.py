"""The state of a run, from its files, its submission and the queue."""

import pytest
from fake_slurm import queue_entry

from distgan.launchers.runs.state import RunFiles, read_run_files, run_state
from distgan.launchers.slurm import job_records as records
from distgan.launchers.slurm.ledger import LastSubmission, Submission
from distgan.launchers.slurm.restart_policy import TIME

SENT = LastSubmission(Submission("x", "distgan-x", 0.0, [["a"], ["b"]], job="7", array=True), 1)

TIMED_OUT = {"state": "stopped", "cause": TIME[0]}
FRESH = {"state": "running", "heartbeat": "2999-01-01T00:00:00+00:00"}


@pytest.mark.parametrize(
    ("found", "place", "queued", "name"),
    [
        (RunFiles(), None, None, "new"),
        (RunFiles(done=True), SENT, queue_entry("RUNNING"), "done"),
        (RunFiles(), SENT, queue_entry("PENDING", reason="Resources"), "queued"),
        (
            RunFiles(job={"job": "7_1", "kind": "preempted"}),
            SENT,
            queue_entry("PENDING"),
            "requeued",
        ),
        (RunFiles(refused="why"), SENT, queue_entry("PENDING"), "queued"),
        (RunFiles(), SENT, queue_entry("PENDING", reason="DependencyNeverSatisfied"), "failed"),
        (RunFiles(), SENT, queue_entry("A_STATE_OF_A_NEWER_SLURM"), "queued"),
        (RunFiles(shorter=True, status={"state": "done"}), SENT, queue_entry("COMPLETED"), "new"),
        (
            RunFiles(status={"state": "failed"}),
            LastSubmission(Submission("x", "distgan-x", 0.0, [["a"]]), 0),
            None,
            "uncertain",
        ),
        (RunFiles(refused="why"), SENT, None, "failed"),
        (RunFiles(), SENT, queue_entry("RUNNING"), "running"),
        (RunFiles(status=FRESH), SENT, queue_entry("COMPLETING"), "stopping"),
        (RunFiles(), SENT, queue_entry("CANCELLED"), "cancelled"),
        (RunFiles(), LastSubmission(SENT.submission, 1, cancelled=True), None, "cancelled"),
        (RunFiles(), SENT, queue_entry("NODE_FAIL"), "failed"),
        (RunFiles(status={"state": "stopped"}), SENT, queue_entry("COMPLETED"), "stopped"),
        (RunFiles(status={"state": "failed", "cause": "x"}), SENT, queue_entry("FAILED"), "failed"),
        (RunFiles(), SENT, None, "unknown"),
        (RunFiles(status=FRESH), None, None, "running"),
        (
            RunFiles(status={"state": "running", "heartbeat": "2020-01-01T00:00:00+00:00"}),
            SENT,
            None,
            "unknown",
        ),
        (
            RunFiles(status={"state": "running", "heartbeat": "2020-01-01T00:00:00+00:00"}),
            None,
            None,
            "lost",
        ),
        (RunFiles(), SENT, queue_entry("NOT_ASKED"), "unknown"),
        (RunFiles(done=True), SENT, queue_entry("NOT_ASKED"), "done"),
        (RunFiles(status=FRESH), SENT, queue_entry("NOT_ASKED"), "running"),
        (RunFiles(status=TIMED_OUT), SENT, queue_entry("NOT_ASKED"), "unknown"),
        (RunFiles(status={"state": "failed"}), SENT, queue_entry("NOT_ASKED"), "failed"),
        (RunFiles(shorter=True), SENT, queue_entry("NOT_ASKED"), "unknown"),
        (RunFiles(shorter=True, job={"submission": "x"}), SENT, queue_entry("NOT_ASKED"), "new"),
        (RunFiles(status=FRESH), SENT, queue_entry("SILENT"), "running"),
        (RunFiles(status=FRESH), SENT, queue_entry("LOST"), "lost"),
        (RunFiles(), SENT, queue_entry("SILENT"), "lost"),
        (RunFiles(), SENT, queue_entry("PENDING", reason="JobHeldUser"), "held"),
        (RunFiles(), SENT, queue_entry("PENDING", reason="launch failed requeued held"), "held"),
        (RunFiles(), SENT, queue_entry("PENDING", reason="job_requeued_in_held_state"), "held"),
        (
            RunFiles(refused="batch must be at least 4"),
            LastSubmission(SENT.submission, 1, cancelled=True),
            None,
            "failed",
        ),
        (
            RunFiles(),
            LastSubmission(Submission("x", "distgan-x", 0.0, [["a"]]), 0),
            None,
            "uncertain",
        ),
    ],
)
def test_states(found, place, queued, name):
    assert run_state(found, place, queued).name == name


def test_what_a_person_has_stopped_is_only_offered():
    assert not run_state(
        RunFiles(status={"state": "stopped", "cause": "the file STOP"}), SENT, None
    ).missing
    assert not run_state(
        RunFiles(status={"state": "stopped", "cause": "signal SIGTERM"}), SENT, None
    ).missing
    assert run_state(
        RunFiles(status={"state": "stopped", "cause": "the end of the job's time"}), SENT, None
    ).missing


def test_a_longer_run_is_not_done(tmp_path):
    (tmp_path / "DONE").write_text('{"step": 5, "epoch": 1.0, "early": false}')
    assert (
        read_run_files(tmp_path).done
        and read_run_files(tmp_path, 5).done
        and read_run_files(tmp_path, 6).shorter
        and not read_run_files(tmp_path, 6).done
    )
    (tmp_path / "DONE").write_text('{"step": 5, "epoch": 1.0, "early": true}')
    assert read_run_files(tmp_path, 6).done


def test_damaged_records_are_passed_over(tmp_path):
    (tmp_path / "attempts/000").mkdir(parents=True)
    (tmp_path / "attempts/000/job.json").write_bytes(b"\xff{")
    (tmp_path / "status.json").write_text("[1]")
    faults = read_run_files(tmp_path).faults
    assert [fault.partition(" is damaged: ")[0] for fault in faults] == [
        "attempts/000/job.json",
        "status.json",
    ]
    assert read_run_files(tmp_path) == RunFiles(attempts=1, faults=faults)
    assert records.records(tmp_path) == []


def test_jobs_of_another_user_are_not_submitted_again():
    theirs = LastSubmission(
        Submission("x", "distgan-x", 0.0, [["a"]], {"user": "somebody-else"}, job="7"), 0
    )
    found = run_state(RunFiles(), theirs, None)
    assert found.name == "uncertain" and not found.missing and "somebody-else" in found.why
