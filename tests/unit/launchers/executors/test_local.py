"""The executor of this machine: its places, and what it believes of a ledger."""

import json
import os
import subprocess
import sys

import pytest
from sweep_options import options_of

from distgan.core.errors import ConfigError
from distgan.launchers.executors import interface, local, processes
from distgan.launchers.slurm.ledger import Ledger


def places(**options):
    executor, resources = interface.chosen(options_of(["sagan"], here=True, **options))
    return executor.places, resources.gpus


def test_a_place_for_each_gpu_or_so_many_without(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert places() == ((("cpu0",),), 0)
    assert places(parallel=2) == ((("cpu0",), ("cpu1",)), 0)
    assert places(gpus="0,3") == ((("0",), ("3",)), 1)
    assert places(gpus="0,1,2,3", set=["gpus=2"]) == ((("0", "1"), ("2", "3")), 2)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,5")
    assert places() == ((("2",), ("5",)), 1)
    for wrong in ("0,0", "", "a b", "0,../x"):
        with pytest.raises(ConfigError, match="--gpus"):
            places(gpus=wrong)
    with pytest.raises(ConfigError, match="--gpus 2,5: with --here, at least 3 different GPUs"):
        places(set=["gpus=3"])
    with pytest.raises(ConfigError, match="--gpus or --parallel"):
        places(gpus="0", parallel=2)
    with pytest.raises(ConfigError, match="--parallel belongs to --here"):
        interface.chosen(options_of(["sagan"], parallel=2))


def test_no_process_is_believed_by_its_number(tmp_path):
    """Neither this one, whose command is no scheduler's, nor records that are none."""
    ledger, run = Ledger(tmp_path), str(tmp_path / "p" / "r")
    submission = ledger.begin([[run]], executor="local")
    (ledger.home / submission.id).mkdir(mode=0o755)
    this = processes.this_process()
    assert processes.is_alive(this)
    records = [this.as_dict(), this.as_dict() | {"machine": "x"}, {"pid": 1}, 7, None, [], "x"]
    records += [{"pid": -1, "start": 5, "machine": processes.machine()}]
    records += [{"pid": True, "start": this.start, "machine": this.machine}]
    for record in records:
        ledger.submitted(submission, f"local:{submission.id}", True, process=record)
        (row,) = local.queue(ledger.home, *ledger.read()).values()
        assert row.state == "LOST" and not row.active, record
    assert processes.session(this, "no command has this text") == []
    word = f'machine.folder="{json.dumps("/runs/josé")[1:-1]}"'
    child = subprocess.Popen(
        [sys.executable, "-c", "input()", word], stdin=subprocess.PIPE, start_new_session=True
    )
    with child:
        while not (left := processes.session(processes.find(child.pid), "/runs/josé")):
            assert child.poll() is None
        child.stdin.close()
    assert [one.pid for one in left] == [child.pid]
    other = processes.ProcessId(os.getpid(), this.start + 1, this.machine)
    assert not processes.is_alive(other) and not processes.send(other, 0)  # type: ignore[arg-type]
