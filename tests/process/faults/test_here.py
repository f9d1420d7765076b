"""Sweeps on a machine without Slurm: the same ledger, states and verbs, with processes as jobs."""

import csv
import itertools
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from processes import TINY, environment
from slurm_cluster import PROGRAMS, distgan, starts, states

from distgan.launchers.executors import processes

pytestmark = pytest.mark.gate


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder to work in, without Slurm's commands; what was started from it is ended with the
    test.
    """
    monkeypatch.chdir(tmp_path)
    for name, value in environment(PATH=str(tmp_path / "bin")).items():
        monkeypatch.setenv(name, value)
    yield tmp_path
    for scheduler in schedulers():
        processes.send(scheduler, signal.SIGKILL)
    for job in jobs().values():
        for left in processes.session(processes.parse(job["process"]), str(tmp_path)):
            processes.send(left, signal.SIGKILL)


def names(*targets) -> list[str]:
    return [one["state"] for one in states(*targets)]


def until(condition, seconds=100):
    ends = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < ends, (states(), logs())
        time.sleep(0.2)


def logs() -> str:
    return "\n".join(f"{path}:\n{path.read_text()}" for path in Path("runs/_slurm").glob("*/*log*"))


def schedulers() -> list[processes.ProcessId]:
    lines = Path("runs/_slurm/ledger.jsonl").read_text().splitlines()
    return [found for line in lines if (found := processes.parse(json.loads(line).get("process")))]


def jobs() -> dict[str, dict]:
    paths = sorted(Path("runs/_slurm").glob("*/job-*.json"))
    return {str(path): json.loads(path.read_text()) for path in paths}


def under_way() -> int:
    return sum(processes.is_alive(processes.parse(job["process"])) for job in jobs().values())


def at_a_time() -> int:
    """The most jobs that ran at one time, by their records."""
    moments = [(job["began"], 1) for job in jobs().values()]
    moments += [(job["ended"], -1) for job in jobs().values()]
    return max(itertools.accumulate(change for _, change in sorted(moments)))


def test_a_sweep_survives_its_terminal_and_its_scheduler(particles, place):
    """Two at a time; the terminal is closed, the scheduler killed, and the same line continues."""
    words = ["sweep", "sagan", f"data={particles}", "epochs=2", "seed=range(4)", *TINY]
    words += ["--here", "--parallel", "2", "--name", "s", "--set"]
    words += [f'program=["{PROGRAMS}", "slow"]']
    assert "2 of 4 would start at once" in distgan(*words, "--dry-run")
    terminal = subprocess.Popen(
        [sys.executable, "-m", "distgan", *words, "--watch"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL),  # nohup has it ignored
    )
    until(lambda: len([*Path("runs").glob("sagan/*/journal.jsonl")]) == 2)
    os.killpg(terminal.pid, signal.SIGHUP)
    terminal.wait(20)
    (scheduler,) = schedulers()
    assert processes.is_alive(scheduler) and under_way() == 2
    os.kill(scheduler.pid, signal.SIGKILL)
    until(lambda: not processes.is_alive(scheduler))
    assert under_way() == 2 and names("s") == ["running", "running", "lost", "lost"]
    again = distgan(*words)
    assert "to submit: 2" in again and "submitted   job local:" in again
    assert "to submit: 0" in distgan(*words)
    while set(found := names("s")) != {"done"}:
        assert set(found) <= {"running", "queued", "done"}, (found, logs())
        time.sleep(0.5)
    until(lambda: under_way() == 0)
    assert at_a_time() == 2
    assert [one["attempts"] for one in states("s")] == [1] * 4
    assert "wrote" in distgan("sweep", "s", "--report")
    table = list(csv.DictReader(Path("runs/_sweeps/s/report.csv").read_text().splitlines()))
    assert sorted(row["seed"] for row in table if row["member"].isdecimal()) == list("0123")
    costs = [json.loads(text) for text in distgan("cost", "s", "--json").splitlines()]
    assert all(
        cost["turns"] == 1 and cost["useful"] > 0 and cost["unit"] == "core" for cost in costs
    )
    assert "it has trained to its end" in distgan("why", "s:3")
    assert "finished" in distgan("logs", "s:3")


def test_cancelled_killed_and_restarted(particles, place, monkeypatch):
    """By a program that waits: cancel, retry, a job that is killed, another boot, a strange pid."""
    words = ["sweep", "sagan", f"data={particles}", "seed=range(3)", "--here", "--parallel", "2"]
    words += ["--name", "w", "--set", f'program=["{PROGRAMS}", "dry"]']
    monkeypatch.setenv("DRY_SECONDS", "300")
    distgan(*words)
    monkeypatch.delenv("DRY_SECONDS")
    until(lambda: names("w") == ["running", "running", "queued"])
    assert "--parallel" in distgan("why", "w:2")
    assert "cancelled (job local:" in distgan("cancel", "w:2", "w:1")
    until(lambda: names("w") == ["running", "cancelled", "cancelled"])
    assert "to submit: 0" in distgan(*words, code=2)
    # A job that is killed: what it left is ended with it, and it is started again.
    first = next(job for job in jobs().values() if job["place"] == ["cpu0"])
    for left in processes.session(processes.parse(first["process"]), str(place)):
        os.kill(left.pid, signal.SIGKILL)
    until(
        lambda: [*Path("runs/sagan").glob("*/starts.txt")] and starts(states("w:0")[0]["run"]) == 2
    )
    assert names("w:0") == ["running"]
    # The machine is started anew: no process of before is believed, whoever has its number now.
    (scheduler,) = schedulers()
    stranger = subprocess.Popen(
        [sys.executable, "-c", "import time; time.sleep(300)"], start_new_session=True
    )
    os.kill(scheduler.pid, signal.SIGKILL)
    (path,) = Path("runs/_slurm").glob("*/job-0.json")
    record = json.loads(path.read_text())
    whole = processes.parse(record["process"])
    for wrong in ({"pid": stranger.pid}, {"machine": "another"}, {"start": whole.start + 1}):
        path.write_text(json.dumps(record | {"process": record["process"] | wrong}))
        assert names("w:0") == ["lost"], wrong
        distgan("cancel", "w:0", code=None)
        assert stranger.poll() is None and processes.is_alive(whole), wrong
    stranger.kill()
    stranger.wait()
    path.write_text(json.dumps(record))
    assert "cancelled" in distgan("cancel", "w:0")
    until(lambda: not processes.is_alive(whole))
    assert names("w") == ["cancelled"] * 3
    # Again, by its own verb.
    assert "submitted again as job local:" in distgan("retry", "w:1")
    until(lambda: names("w:1") == ["done"])
