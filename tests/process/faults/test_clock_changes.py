"""A clock that is set while a run trains changes neither its steps nor its end."""

import json
import shutil
import subprocess
import time
from datetime import datetime

import pytest
from processes import TINY, broken, events, final, journal, line, run

ASK = ["epochs=4", "machine.time_limit_s=3600", "machine.flush_steps=3", *TINY]
# Ahead of step 5 the clock of this process jumps.
JUMP = """
    import os
    from distgan.recipes import sagan
    usual = sagan.Recipe.step
    def step(self, batches, now):
        if now.step == 5:
            with open(os.environ["FAKETIME_TIMESTAMP_FILE"], "w") as file:
                file.write(os.environ["JUMP"])
        return usual(self, batches, now)
    sagan.Recipe.step = step
"""


@pytest.fixture(scope="module")
def faketime():
    """The library; the environment's variables of its package."""
    listed = (
        shutil.which("dpkg")
        and subprocess.run(
            ["dpkg", "-L", "libfaketime"], capture_output=True, text=True
        ).stdout.split()
    )
    found = [path for path in listed or [] if path.endswith("libfaketime.so.1")]
    if not found:
        pytest.skip("libfaketime is not here: apt-get install faketime")
    return found[0]


@pytest.mark.parametrize("jump", ["+2h", "-2h"])
def test_two_hours_change_nothing(jump, faketime, particles, tmp_path):
    ask = ["sagan", f"data={particles}", *ASK]
    run(line("python"), *ask, f"machine.folder={tmp_path / 'whole'}", cwd=tmp_path)
    (tmp_path / "clock").write_text("+0")
    fake = {
        "LD_PRELOAD": faketime,
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_TIMESTAMP_FILE": str(tmp_path / "clock"),
        "JUMP": jump,
    }
    program, ours = broken(tmp_path, JUMP), [*ask, f"machine.folder={tmp_path / 'run'}"]
    run(line("python", program=program), *ours, cwd=tmp_path, **fake)
    assert (tmp_path / "run/DONE").exists()
    assert list(journal(tmp_path / "run")) == list(journal(tmp_path / "whole"))
    mine, theirs = final(tmp_path / "run"), final(tmp_path / "whole")
    assert all(mine[name].equal(value) for name, value in theirs.items())
    record = json.loads((tmp_path / "run/attempts/000/attempt.json").read_text())
    started, ended = (datetime.fromisoformat(record[key]) for key in ("started", "ended"))
    assert 0 <= (ended - started).total_seconds() < 3600
    # It did jump; and the next attempt, whose clock is right, counts no time below zero.
    ended = (tmp_path / "run/status.json").read_text()
    assert time.strftime("%Y-%m-%dT%H:", time.gmtime()) not in ended
    run(line("python"), *ours, "epochs=5", cwd=tmp_path)
    assert events(tmp_path / "run", "training_again")[0]["seconds"] >= 0
