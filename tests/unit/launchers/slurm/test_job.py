"""The body of a job, in this process: one member trained by a small program, Slurm faked."""

import json
import os
import signal
import sys
import time

import pytest
from fake_slurm import FakeSlurm, submission_folder

from distgan.core.errors import LaunchError
from distgan.launchers.slurm import client
from distgan.launchers.slurm import job as jobs
from distgan.launchers.slurm.job import Job, JobAttempt

# A training: what it does is its first word, its folder the last one.
PROGRAM = """
import json, os, pathlib, signal, sys, time
what, folder = sys.argv[1], pathlib.Path(json.loads(sys.argv[-1].removeprefix("machine.folder=")))
attempt = folder / "attempts" / os.environ["DISTGAN_ATTEMPT"]
def record(state, cause):
    about = {"ended": "now", "cause": cause, "peak_memory_mb": 7}
    (attempt / "attempt.json").write_text(json.dumps(about))
    (folder / "status.json").write_text(json.dumps({"state": state}))
names = ("DISTGAN_LOGS", "SLURM_JOB_END_TIME", "SLURM_JOB_ID", "CUDA_VISIBLE_DEVICES",
         "DISTGAN_JOB")
seen = {name: os.environ.get(name) for name in (*names, "OMP_NUM_THREADS")}
seen["record"] = sorted(json.loads((attempt / "job.json").read_text()))
(folder / "seen").write_text(json.dumps(seen))
if what == "done":
    (folder / "DONE").write_text("{}"); record("done", None)
elif what == "time":
    record("stopped", "the end of the job's time"); sys.exit(75)
elif what == "full disk":  # job.json cannot be written again
    record("stopped", "the end of the job's time")
    (attempt / "job.json").unlink(); (attempt / "job.json").mkdir(); sys.exit(75)
elif what == "stop":
    record("stopped", "the file STOP"); sys.exit(75)
elif what == "failed":
    record("failed", "bad numbers"); sys.exit(2)
elif what == "killed":
    record("running", None)
    (attempt / "attempt.json").write_text(json.dumps({"ended": None}))
    os.kill(os.getpid(), 9)
elif what == "wait":
    signal.signal(signal.SIGTERM, lambda *_: (record("stopped", "signal SIGTERM"), os._exit(75)))
    (folder / "ready").touch(); time.sleep(60)
elif what == "import":
    print("Traceback"); print("ModuleNotFoundError: No module named 'x'"); sys.exit(1)
"""
SHOWN = (
    "JobId=7 NumCPUs=4 SubmitTime=2026-01-01T00:00:00 StartTime=2026-01-01T00:01:00 EndTime={}\n"
)


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    fake = FakeSlurm(tmp_path, monkeypatch)
    fake.answers("scontrol", SHOWN.format("2030-01-01T00:00:00"))
    monkeypatch.setattr(jobs.time, "sleep", lambda s, usual=time.sleep: usual(min(s, 0.05)))
    usual = {name: signal.getsignal(getattr(signal, name)) for name in jobs.SIGNALS}
    yield fake
    for name, handler in usual.items():
        signal.signal(getattr(signal, name), handler)


@pytest.fixture
def job(slurm, tmp_path):
    """A function: one stay of a job whose training does `what`; its result, or exit code."""
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)

    def attempt(what: str, home="home", environment=None, **resources):
        folder = tmp_path / home / "_slurm" / "abc"
        if not folder.exists():
            resources = {"program": [str(program)], "time_outs": 1, "crashes": 1, **resources}
            submission_folder(tmp_path / home, [what], resources)
        env = {"PATH": os.environ["PATH"], "SLURM_JOB_ID": "7", **(environment or {})}
        asked, key = len(slurm.calls("scontrol")), client.job_key(env)
        try:
            return JobAttempt(folder, env).take()
        except SystemExit as end:
            return end.code
        finally:  # about no other job
            words = {tuple(call[1:-1]): call[-1] for call in slurm.calls("scontrol")[asked:]}
            assert set(words.values()) <= {key}, words
            assert set(words) <= {("--oneliner", "show", "job"), ("requeue",)}

    return attempt


def record(tmp_path, home="home", attempt="000"):
    return json.loads((tmp_path / home / "run0/attempts" / attempt / "job.json").read_text())


def requeued(slurm) -> list[list[str]]:
    return [call for call in slurm.calls("scontrol") if "show" not in call]


def test_a_run_that_is_done(job, slurm, tmp_path):
    assert job("done") == "done"
    about = record(tmp_path)
    assert (about["then"], about["kind"], about["code"], about["submission"]) == (
        "done",
        "done",
        0,
        "abc",
    )
    assert (about["job"], about["cpus"], about["peak_memory_mb"], about["restart"]) == (
        "7",
        4,
        7,
        0,
    )
    assert about["slurm_start"] - about["queued"] == 60
    assert about["command"][0] == sys.executable and about["command"][2] == "done"
    seen = json.loads((tmp_path / "home/run0/seen").read_text())
    begun = set(seen.pop("record"))  # as other nodes, and a start after a dead node, need it
    assert begun >= {"command", "job", "restart", "submission", "step"} and "then" not in begun
    assert seen == {
        "DISTGAN_LOGS": str(tmp_path / "home/run0/attempts/000"),
        "SLURM_JOB_END_TIME": str(int(time.mktime(time.strptime("2030-01-01", "%Y-%m-%d")))),
        "SLURM_JOB_ID": None,
        "DISTGAN_JOB": "7",
        "CUDA_VISIBLE_DEVICES": "",
        "OMP_NUM_THREADS": "2",
    }
    assert requeued(slurm) == []
    assert job("done") == "done" and len(list((tmp_path / "home/run0/attempts").iterdir())) == 1


def test_at_its_time_limit_it_is_requeued_by_its_own_key_as_often_as_allowed(job, slurm, tmp_path):
    array = {"SLURM_ARRAY_JOB_ID": "12", "SLURM_ARRAY_TASK_ID": "0", "SLURM_JOB_ID": "15"}
    slurm.answers("scontrol", SHOWN.format("Unknown"))
    ends = {"SLURM_JOB_END_TIME": "1900000000"}  # of a newer Slurm, where scontrol does not know
    assert job("time", environment=array | ends) == 75
    assert (
        json.loads((tmp_path / "home/run0/seen").read_text())["SLURM_JOB_END_TIME"] == "1900000000"
    )
    assert requeued(slurm) == [["scontrol", "requeue", "12_0"]]
    assert ["scontrol", "--oneliner", "show", "job", "12_0"] in slurm.calls("scontrol")
    assert (record(tmp_path)["then"], record(tmp_path)["kind"]) == ("requeue", "time")
    assert job("time", environment={**array, "SLURM_RESTART_COUNT": "1"}) == 1
    assert len(requeued(slurm)) == 1
    last = record(tmp_path, attempt="001")
    assert (last["then"], last["restart"], last["raw"]) == ("fail", 1, "15")
    assert "time_outs" in (tmp_path / "home/run0/NO_RESTART").read_text()
    assert job("time", environment=array) == 1  # says so at once, and tries no more
    assert len(list((tmp_path / "home/run0/attempts").iterdir())) == 2


@pytest.mark.parametrize(
    ("what", "result", "then"),
    [
        ("stop", "stopped", "stopped"),
        ("failed", 1, "fail"),
        ("import", 1, "fail"),
        ("killed", 75, "requeue"),
    ],
)
def test_what_an_end_leads_to(what, result, then, job, slurm, tmp_path):
    assert job(what) == result
    assert record(tmp_path)["then"] == then
    assert [call[1:] for call in requeued(slurm)] == ([["requeue", "7"]] if result == 75 else [])
    assert (tmp_path / "home/run0/NO_RESTART").exists() == (then == "fail")
    if what == "import":
        assert record(tmp_path)["cause"] == "ModuleNotFoundError: No module named 'x'"


def test_a_preemption_is_left_to_slurm(job, slurm, tmp_path):
    """SIGTERM is passed on to the training.

    The job is not requeued, or a cancelled one would be.
    """
    import threading

    def preempt():
        while not (tmp_path / "home/run0/ready").exists():
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=preempt)
    folder = submission_folder(
        tmp_path / "home",
        ["wait"],
        {"program": [str(tmp_path / "program.py")]},
        signals_all=False,
    )
    assert folder.exists()
    thread.start()
    assert job("wait") == 75
    thread.join()
    assert requeued(slurm) == []
    about = record(tmp_path)
    assert (about["then"], about["kind"], about["signals"]) == ("leave", "preempted", ["SIGTERM"])


def test_requeue_is_asked_for_until_slurm_answers(job, slurm, monkeypatch):
    asked, waits = [], []

    def sleep(seconds, usual=time.sleep):
        if seconds >= 1:  # subprocess waits shorter
            waits.append(seconds)
        usual(0)

    monkeypatch.setattr(jobs.time, "sleep", sleep)

    def requeue(key):
        asked.append(key)
        if len(asked) < 3:
            raise LaunchError("Unable to contact slurm controller")

    monkeypatch.setattr(jobs.client, "requeue", requeue)
    assert job("time") == 75 and asked == ["7", "7", "7"] and waits == [1, 2]
    monkeypatch.setattr(
        jobs.client, "requeue", lambda key: (_ for _ in ()).throw(LaunchError("down"))
    )
    waits.clear()
    assert job("time", home="other") == 1 and waits == [1, 2, 5, 10, 20, 30]


def test_three_turns_without_a_step_are_the_last(job, slurm, tmp_path):
    for _ in range(3):
        assert job("killed", crashes=9) == 75
    assert job("killed") == 1
    assert (
        "no progress: the last 3 jobs all began at step 0"
        in (tmp_path / "home/run0/NO_RESTART").read_text()
    )


@pytest.mark.parametrize(("elements", "own"), [(2, 1), (3, 2)])
def test_an_element_of_an_array_trains_its_own_member(elements, own, slurm, tmp_path):
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    folder = submission_folder(tmp_path / "home", ["done"], {"program": [str(program)]}, elements)
    env = {
        "PATH": os.environ["PATH"],
        "SLURM_JOB_ID": "15",
        "SLURM_ARRAY_JOB_ID": "12",
        "SLURM_ARRAY_TASK_ID": str(own),
    }
    assert JobAttempt(folder, env).take() == "done"
    assert [k for k in range(elements) if (tmp_path / f"home/run{k}/DONE").exists()] == [own]


def test_the_callable_that_is_pickled_holds_the_folder_alone(slurm, tmp_path, monkeypatch):
    (tmp_path / "program.py").write_text(PROGRAM)
    folder = submission_folder(
        tmp_path / "home", ["done"], {"program": [str(tmp_path / "program.py")]}
    )
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    assert vars(Job(str(folder))) == {"folder": str(folder)}
    assert Job(str(folder))() == "done"


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_another_node_waits_for_the_first_ones_record_and_verdict(slurm, tmp_path, monkeypatch):
    (tmp_path / "program.py").write_text(PROGRAM)
    folder = submission_folder(
        tmp_path / "home", ["done"], {"program": [str(tmp_path / "program.py")], "nodes": 2}
    )
    attempt = tmp_path / "home/run0/attempts/000"
    attempt.mkdir(parents=True)
    about = {
        "job": "7",
        "restart": 0,
        "submission": "abc",
        "started": 1.0,
        "command": [],
        "address": "10.0.0.1",
        "port": 20123,
    }
    end = {"then": "requeue", "kind": "time", "cause": "c"}
    (attempt / "job.json").write_text(json.dumps(about | end))
    ran = []
    monkeypatch.setattr(
        JobAttempt, "_run", lambda self, folder, attempt, command: ran.append(command)
    )
    env = {"SLURM_JOB_ID": "7", "SLURM_NODEID": "1", "SLURM_NNODES": "2"}
    with pytest.raises(SystemExit) as left:
        JobAttempt(folder, env).take()
    assert left.value.code == 75 and requeued(slurm) == []  # the first node asks, no other
    words = ran[0]
    assert words[words.index("--main_process_ip") + 1] == "10.0.0.1"
    assert words[words.index("--main_process_port") + 1] == "20123"
    assert words[words.index("--machine_rank") + 1] == "1"
    monkeypatch.setattr(jobs, "WAIT_S", 0.1)
    (attempt / "job.json").write_text(json.dumps(about | end | {"restart": 1}))  # of another turn
    with pytest.raises(SystemExit) as lost:
        JobAttempt(folder, env).take()
    assert lost.value.code == 1


def test_a_record_that_cannot_be_written_keeps_no_job_from_its_queue(job, slurm, capsys):
    assert job("full disk") == jobs.LEAVE
    assert slurm.calls("scontrol")[-1][1:] == ["requeue", "7"]
    assert "warning: cannot write" in capsys.readouterr().out


@pytest.mark.parametrize("jump_s", [7200, -7200])
def test_a_clock_that_is_set_changes_no_duration(jump_s, job, tmp_path, monkeypatch):
    usual, begun = time.time, []

    def jumps():
        begun.append(0)
        return usual() + (jump_s if len(begun) > 1 else 0)

    monkeypatch.setattr(jobs.time, "time", jumps)
    assert job("done") == "done"
    about = record(tmp_path)
    assert 0 <= about["ended"] - about["started"] < 600
