"""Decide why a training ended and whether its job is queued again: pure functions of records."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from distgan.launchers.slurm.profiles import Resources

STUCK = 3  # so many jobs in a row that take a run no step further end it
TIME = ("the end of the job's time", "signal SIGUSR2", "signal SIGUSR1")


@dataclass(frozen=True)
class EndOfAttempt:
    """The end of one training in one job.

    `cause`: from attempt.json of rank 0, None if it could not write it. `state`: running, stopped,
    failed or done. `signals`: those that the job itself received. `log_tail`: the ends of the logs.
    """

    done: bool
    state: str | None
    cause: str | None
    code: int
    signals: tuple[str, ...]  # that the job itself received
    log_tail: str = ""  # the end of the logs


@dataclass(frozen=True)
class RestartDecision:
    """`action`: done, stopped (on request), leave (to Slurm), requeue, or fail.

    `kind` names the budget: preempted, time, crash, hang, error, stop, done.
    """

    action: str
    kind: str
    cause: str


def decide(
    end: EndOfAttempt, earlier: Sequence[dict[str, Any]], budget: Resources
) -> RestartDecision:
    """Decide what happens after the end of an attempt.

    `earlier`: the records (job.json) of the run's jobs before this one, oldest first. Preemption
    and node failure cost no budget, and Slurm alone requeues them: a job that was cancelled gets
    the same signals and must stay dead.
    """
    if end.done:
        return RestartDecision("done", "done", "done")
    if end.cause == "the file STOP":
        return RestartDecision("stopped", "stop", end.cause)
    if (
        end.state == "stopped"
        and end.cause in TIME
        or end.state != "failed"
        and "SIGUSR2" in end.signals
    ):
        return _within(
            "time",
            end.cause or "killed at the time limit, before it could save",
            earlier,
            budget.time_outs,
            "time_outs",
        )
    if "SIGTERM" in end.signals or end.cause == "signal SIGTERM":
        return RestartDecision(
            "leave",
            "preempted",
            "SIGTERM: preempted or cancelled"
            + ("" if end.state == "stopped" else ", and killed before it could save"),
        )
    if end.state == "failed":
        if "another process of this run has gone, or does not answer" in (end.cause or ""):
            return _within("crash", end.cause or "", earlier, budget.crashes, "crashes")
        return RestartDecision("fail", "error", end.cause or "failed")
    # A node that Slurm has given up may still be training.
    if "another process is training in" in end.log_tail and end.state is None:
        return _within(
            "crash", "its earlier attempt is still training", earlier, budget.crashes, "crashes"
        )
    if "EADDRINUSE" in end.log_tail or "Address already in use" in end.log_tail:
        return _within("crash", "another program took the port", earlier, budget.crashes, "crashes")
    if end.state is None and not _killed(end.code):
        return RestartDecision(
            "fail",
            "error",
            last_line(end.log_tail) or f"ended with code {end.code} before it began to train",
        )
    kind = "hang" if "Timeout (" in end.log_tail and "stacks" in end.log_tail else "crash"
    cause = end.cause if end.state == "stopped" else None
    cause = cause or f"ended with code {end.code}, without a record"
    return _within(kind, cause, earlier, budget.crashes, "crashes")


def _killed(code: int) -> bool:
    return code < 0 or code > 128


def _within(
    kind: str, cause: str, earlier: Sequence[dict[str, Any]], limit: int, name: str
) -> RestartDecision:
    kinds = {"time"} if name == "time_outs" else {"crash", "hang"}
    used = sum(record.get("kind") in kinds for record in earlier)
    if used >= limit:
        return RestartDecision(
            "fail", kind, f"{cause}; that was the last of {limit} restarts for this reason ({name})"
        )
    return RestartDecision("requeue", kind, cause)


def last_line(text: str) -> str:
    """Return the last line that begins with `error:` or looks like an exception, else the last
    line.
    """
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [
        line
        for line in lines
        if line.startswith("error:") or line.partition(":")[0].endswith(("Error", "Exception"))
    ]
    return (errors or lines or [""])[-1][:300]


def no_progress_reason(earlier: Sequence[dict[str, Any]], step: int) -> str | None:
    """Return why a run is not started again, if its last jobs made no progress; else None.

    `step`: of its newest checkpoint.
    """
    tried = [
        record
        for record in earlier[-STUCK:]
        if record.get("kind") in ("preempted", "time", "crash", "hang", None)
    ]
    if len(tried) == STUCK and all(record.get("step") == step for record in tried):
        return (
            f"no progress: the last {STUCK} jobs all began at step {step} and ended before a"
            " checkpoint was written; checkpoint more often (machine.checkpoint_every=…), or ask"
            " for more time"
        )
    return None
