"""A process notices the end of the launcher that started it, and of nothing else."""

import os
import subprocess
import sys
import time

import psutil
import pytest

LOOK = """
import os, sys, time
def gone():
    while os.getppid() == int(sys.argv[2]):
        time.sleep(0.02)
    return True
late = sys.argv[3] == "late" and gone()
from distgan.core.interrupts import is_orphaned
before = is_orphaned()
open(sys.argv[1] + ".ready", "w").close()
late or gone()
with open(sys.argv[1] + ".tmp", "w") as file:
    print(before, is_orphaned(), os.getppid(), file=file)
os.rename(file.name, sys.argv[1])
"""


def looked(where, imported: str, **env: str) -> list[str]:
    """What a process saw whose parent, a shell, ends once it has `imported`."""
    path, python = where / "seen", sys.executable
    script = f'"{python}" -c "$LOOK" {path} $$ {imported} & '
    wait = "" if imported == "late" else f"while [ ! -e {path}.ready ]; do sleep 0.05; done"
    subprocess.run(["sh", "-c", script + wait], env={**os.environ, "LOOK": LOOK, **env}, check=True)
    ends = time.monotonic() + 60
    while not path.exists() and time.monotonic() < ends:
        time.sleep(0.05)
    return path.read_text().split()


@pytest.mark.parametrize("name", ["TORCHELASTIC_RUN_ID", "ACCELERATE_DYNAMO_MODE", "CROSS_RANK"])
def test_the_end_of_a_launcher_is_noticed(name, tmp_path):
    assert looked(tmp_path, "early", **{name: "x"})[:2] == ["False", "True"]


def test_a_shell_may_leave_what_it_started(tmp_path):
    assert looked(tmp_path, "early")[:2] == ["False", "False"]


def test_a_launcher_that_is_gone_before_its_rank_can_look(tmp_path):
    before, after, parent = looked(tmp_path, "late", TORCHELASTIC_RUN_ID="x")
    if parent != "1":
        pytest.skip("orphans have another parent than process 1 here, whose name says nothing")
    assert before == after == "True"


JOIN = """
import os, sys, threading, time
from torch.distributed import TCPStore
from distgan.core.interrupts import ending_with_launcher
with ending_with_launcher(every_s=0.05):
    open(sys.argv[1], "w").write(str(os.getpid()))
    TCPStore("127.0.0.1", int(sys.argv[2]), is_master=False)  # waits for minutes
"""


@pytest.mark.gate
@pytest.mark.parametrize("launched", [True, False])
def test_a_rank_that_still_joins_the_others_ends_with_its_launcher(launched, tmp_path):
    path = tmp_path / "pid"
    script = f'"{sys.executable}" -c "$JOIN" {path} 9 & while [ ! -s {path} ]; do sleep 0.05; done'
    env = {**os.environ, "JOIN": JOIN} | ({"TORCHELASTIC_RUN_ID": "x"} if launched else {})
    subprocess.run(["sh", "-c", script], env=env, check=True, stderr=subprocess.DEVNULL)
    rank = psutil.Process(int(path.read_text()))
    gone = psutil.wait_procs([rank], timeout=20 if launched else 2)[0]
    if not gone:
        rank.kill()
    assert bool(gone) == launched
