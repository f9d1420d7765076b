"""The restart policy: whether an attempt that ended is submitted again, and how often."""

import pytest

from distgan.launchers.slurm import profiles
from distgan.launchers.slurm import restart_policy as verdicts
from distgan.launchers.slurm.restart_policy import EndOfAttempt, decide

BUDGET = profiles.Resources(time_outs=2, crashes=1)


@pytest.mark.parametrize(
    ("end", "then", "kind"),
    [
        (EndOfAttempt(True, "done", None, 0, ()), "done", "done"),
        (EndOfAttempt(True, "done", None, 1, ("SIGTERM",)), "done", "done"),
        (EndOfAttempt(False, "stopped", "the file STOP", 75, ()), "stopped", "stop"),
        (EndOfAttempt(False, "stopped", "the end of the job's time", 75, ()), "requeue", "time"),
        (EndOfAttempt(False, "stopped", "signal SIGUSR2", 1, ("SIGUSR2",)), "requeue", "time"),
        (EndOfAttempt(False, "running", None, -9, ("SIGUSR2",)), "requeue", "time"),
        (EndOfAttempt(False, "stopped", "signal SIGTERM", 75, ("SIGTERM",)), "leave", "preempted"),
        (EndOfAttempt(False, "running", None, -9, ("SIGTERM",)), "leave", "preempted"),
        (EndOfAttempt(False, "failed", "ZeroDivisionError: x", 1, ()), "fail", "error"),
        (EndOfAttempt(False, None, None, 2, (), "error: batch: found 7\n"), "fail", "error"),
        (
            EndOfAttempt(False, None, None, 2, (), "error: another process is training in x\n"),
            "requeue",
            "crash",
        ),
        (EndOfAttempt(False, "running", None, -9, ()), "requeue", "crash"),
        (
            EndOfAttempt(False, "running", None, 1, (), "stacks-rank0.txt\nTimeout (0:10:00)!"),
            "requeue",
            "hang",
        ),
        (
            EndOfAttempt(
                False,
                "failed",
                "LaunchError: another process of this run has gone, or does not answer (x)",
                1,
                (),
            ),
            "requeue",
            "crash",
        ),
    ],
)
def test_what_is_done_about_an_end(end, then, kind):
    found = decide(end, [], BUDGET)
    assert (found.action, found.kind) == (then, kind) and found.cause


def test_budgets_are_kept_apart():
    late, crash = (
        EndOfAttempt(False, "stopped", "the end of the job's time", 75, ()),
        EndOfAttempt(False, "running", None, -9, ()),
    )
    many = [{"kind": "preempted"}] * 30
    assert (
        decide(late, [*many, {"kind": "time"}], BUDGET).action
        == decide(crash, [*many, *[{"kind": "time"}] * 2], BUDGET).action
        == "requeue"
    )
    assert (
        decide(late, [{"kind": "time"}] * 2, BUDGET).action
        == decide(crash, [{"kind": "hang"}], BUDGET).action
        == "fail"
    )
    assert "no progress" in verdicts.no_progress_reason([{"kind": "preempted", "step": 5}] * 3, 5)
    assert (
        verdicts.no_progress_reason(
            [{"kind": "preempted", "step": 4}, *[{"kind": "time", "step": 5}] * 2], 5
        )
        is None
    )
    assert verdicts.no_progress_reason([{"kind": "time", "step": 5}] * 2, 5) is None
