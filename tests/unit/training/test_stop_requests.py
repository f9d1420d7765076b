"""The end of a job, and the watch over a process that hangs."""

import signal
import time

import pytest

from distgan.core import watchdog
from distgan.distributed.ranks import Ranks
from distgan.runs.folder import NoRunFolder, RunFolder
from distgan.training import stop_requests
from distgan.training.stop_requests import StopRequests


def test_slurms_end_of_the_job_is_the_end():
    folder = NoRunFolder()

    def late(limit, **environment):
        return StopRequests(Ranks(), folder, limit, environment).begin()()[0]

    soon, far = (str(int(time.time() + seconds)) for seconds in (5, 10_000))
    assert (
        late(None, SLURM_JOB_END_TIME=soon)
        and not late(None, SLURM_JOB_END_TIME=far)
        and late(5, SLURM_JOB_END_TIME=far)
    )
    assert (
        not late(None)
        and not late(None, SLURM_JOB_END_TIME="NONE")
        and not late(None, SLURM_JOB_END_TIME="")
    )
    slow = StopRequests(Ranks(), folder, None, {"SLURM_JOB_END_TIME": str(int(time.time() + 60))})
    assert not slow.begin()()[0]
    slow.saved(40.0)  # two of these are more than what is left
    assert slow.begin()()[0] and slow.cause == "the end of the job's time"


def test_handlers_are_restored(tmp_path):
    folder = RunFolder.__new__(RunFolder)
    folder.path, folder._failing = tmp_path, set()
    before = {number: signal.getsignal(number) for number in stop_requests.STOP_SIGNALS}
    requests = StopRequests(Ranks(), folder, None, {})
    with requests.listening():
        now = [signal.getsignal(number) for number in before]
    assert all(handler is not before[number] for number, handler in zip(before, now, strict=True))
    assert {number: signal.getsignal(number) for number in before} == before


@pytest.mark.parametrize("seconds", [0, 3600])
def test_requests_in_files_are_looked_for_now_and_then(seconds, tmp_path, monkeypatch):
    """Not at every step: the folder may be on a file system that all nodes share."""
    monkeypatch.setattr(stop_requests, "POLL_S", seconds)
    folder = RunFolder.__new__(RunFolder)
    folder.path, folder._failing = tmp_path, set()
    (tmp_path / "STOP").touch()
    requests = StopRequests(Ranks(), folder, None, {})
    assert requests.begin()() == (not seconds, False)


def test_a_beat_keeps_the_watch_quiet(tmp_path, monkeypatch):
    monkeypatch.setattr(watchdog, "EVERY_S", 0.0)
    path = tmp_path / "stacks.txt"
    with watchdog.watching(path, 1.0):
        for _ in range(8):
            time.sleep(0.2)
            watchdog.beat()
        with watchdog.waiting():
            time.sleep(1.5)
    assert not path.exists()  # nothing was written, so nothing is left
    with watchdog.watching(path, None):
        watchdog.beat()
