"""The end of a job: by the monotonic clock, and asked of Slurm again."""

import time

from fake_slurm import FakeSlurm

from distgan.distributed import job_end
from distgan.distributed.job_end import JobEnd


def in_s(seconds: float) -> str:
    return str(int(time.time() + seconds))


def test_a_clock_that_is_set_moves_no_end(monkeypatch):
    ends = JobEnd(3600, {"SLURM_JOB_END_TIME": in_s(1000)}), JobEnd(3600, {})
    for now in (time.time() + 7200, time.time() - 7200):
        monkeypatch.setattr(job_end.time, "time", lambda now=now: now)
        assert 990 < ends[0].seconds_left() <= 1001 and 3590 < ends[1].seconds_left() <= 3600
        monkeypatch.undo()


def left_when(end: JobEnd, holds) -> float:
    ends = time.monotonic() + 30
    while not holds(left := end.seconds_left()) and time.monotonic() < ends:
        time.sleep(0.02)
    return left


def test_slurm_is_asked_again_and_nothing_waits_for_it(tmp_path, monkeypatch):
    slurm = FakeSlurm(tmp_path, monkeypatch)
    slurm.answers("squeue", in_s(5000) + "\n")
    monkeypatch.setenv("SQUEUE_USERS", "nobody")
    known = {"SLURM_JOB_ID": "7", "SLURM_JOB_END_TIME": in_s(1000), "SQUEUE_USERS": "nobody"}
    end = JobEnd(None, known)
    assert end.seconds_left() < 1001 and not slurm.calls("squeue")  # it may not have changed yet
    monkeypatch.setattr(job_end, "ASK_S", 0.05)
    assert 4900 < left_when(end, lambda left: left > 1001) <= 5001
    slurm.answers("squeue", "Unknown\n")
    time.sleep(0.1)
    end.seconds_left()
    assert end.seconds_left() > 4900
    end.close()
    assert slurm.calls("squeue")[0][1:] == ["--noheader", "--jobs=7", "--format=%e"]


def test_slurm_is_asked_at_once_where_the_end_is_unknown(tmp_path, monkeypatch):
    FakeSlurm(tmp_path, monkeypatch).answers("squeue", in_s(5000) + "\n")
    end = JobEnd(None, {"SLURM_JOB_ID": "7"})
    assert left_when(end, lambda left: left < 5001) > 4900
    end.close()


def test_a_question_that_is_not_answered_is_given_up(tmp_path, monkeypatch):
    FakeSlurm(tmp_path, monkeypatch)
    (tmp_path / "slurm" / "squeue").write_text("#!/bin/sh\nexec sleep 600\n")
    monkeypatch.setattr(job_end, "GIVE_UP_S", 0.0)
    end = JobEnd(100, {"SLURM_JOB_ID": "7"})
    end.seconds_left()
    asked = end._asking
    assert left_when(end, lambda _: asked.poll() is not None) <= 100 and asked.poll() is not None
    end.close()
