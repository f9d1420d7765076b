"""A writer killed at any moment, with all its processes or without them, and run again.

The bytes of a run that nobody disturbed.
"""

import json
import os
import random
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from processes import environment
from shard_sets import ROOT, SMALL, contents, shard

from distgan.core.errors import DataError
from distgan.shards.format.reader import ShardSet

WORDS = ("--n", "100", "--size", "16", "--per-shard", "10")
# Samples that take their time, so that most moments are between two samples and not after the end.
SLOW = """import sys, time; import distgan.shards.sources.particles as p; fast = p.Source.make
def make(self, i): time.sleep(0.005); return fast(self, i)
p.Source.make = make
from distgan.shards.build.command import main
if __name__ == "__main__": main(sys.argv[1:])
"""


@pytest.fixture(scope="module")
def reference(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("reference") / "p"
    shard("particles", folder, *WORDS, "--workers", 1)
    return folder


def start(script: Path, out: Path, workers: int) -> subprocess.Popen:
    """The writer as the leader of a process group of its own.

    Returns as soon as it begins to write.
    """
    script.write_text(SLOW)
    process = subprocess.Popen(
        [sys.executable, script, "particles", out, *WORDS, "--workers", str(workers)],
        cwd=ROOT,
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    wait_until(lambda: out.exists() or process.poll() is not None, "it begins")
    return process


def wait_until(true, what: str, limit_s: float = 60) -> None:
    deadline = time.monotonic() + limit_s
    while not true():
        assert time.monotonic() < deadline, f"waited {limit_s:g} s until {what}"
        time.sleep(0.002)


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def kill_at_random_moments(reference: Path, folder: Path, workers: int, times: int) -> None:
    began = time.monotonic()
    process = start(folder / "slow.py", folder / "undisturbed", workers)
    begun = time.monotonic()
    assert (
        process.wait() == 0
        and began < begun
        and contents(folder / "undisturbed") == contents(reference)
    )
    duration, dice, unfinished = time.monotonic() - begun, random.Random(workers), 0
    for k in range(times):
        out = folder / f"p{k}"
        process = start(folder / "slow.py", out, workers)
        time.sleep((k + dice.random()) / times * duration)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        unfinished += contents(out) != contents(reference)
        shard("particles", out, *WORDS, "--workers", workers if k == 0 else 1)
        assert contents(out) == contents(reference), f"kill {k} of {times}"
    assert unfinished >= times // 2, "the kills came after the end"


@pytest.mark.parametrize("workers", [1, 3])
def test_two_kills_of_the_whole_group(reference, tmp_path, workers):
    kill_at_random_moments(reference, tmp_path, workers, 2)


@pytest.mark.nightly
@pytest.mark.parametrize("workers", [1, 3])
def test_twenty_kills_of_the_whole_group(reference, tmp_path, workers):
    kill_at_random_moments(reference, tmp_path, workers, 20)


def test_workers_end_with_a_parent_that_is_killed_alone(reference, tmp_path):
    out = tmp_path / "p"
    process = start(tmp_path / "slow.py", out, 2)
    wait_until(lambda: len(list(out.glob("train/*.json"))) > 1, "two shards are written")
    started = children(process.pid)
    assert process.poll() is None and len(started) >= 2, "killed while its workers work"
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not json.loads((out / "dataset.json").read_text())["complete"]
    with pytest.raises(
        DataError,
        match=f"train holds no manifest.json: .* run the `distgan shard` command of {out} again",
    ):
        ShardSet(out / "train")
    wait_until(lambda: not any(map(is_running, started)), "workers end with the writer")
    shard("particles", out, *WORDS, "--workers", 1)
    assert contents(out) == contents(reference)


def test_a_worker_that_is_killed_stops_the_writer_with_advice_and_keeps_what_is_whole(
    reference, tmp_path
):
    script, out = tmp_path / "suicide.py", tmp_path / "p"
    script.write_text(
        SLOW.replace(
            "time.sleep(0.005)", "i == 50 and __import__('os').kill(__import__('os').getpid(), 9)"
        ).replace(
            "main(sys.argv[1:])",
            "sys.exit(__import__('distgan.cli', fromlist=['x']).guarded(main, sys.argv[1:]))",
        )
    )
    done = subprocess.run(
        [sys.executable, script, "particles", out, *WORDS, "--workers", "2"],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
    )
    assert (
        done.returncode == 2
        and "error: a worker process was killed (out of memory?)" in done.stderr
        and "Traceback" not in done.stderr
    )
    assert not list(out.rglob("*.tmp*")), "nothing begun stays"
    shard("particles", out, *WORDS, "--workers", 1)
    assert contents(out) == contents(reference)


def test_four_tasks_at_once_and_finish_give_the_bytes_of_one_run(tmp_path, capsys):
    out = tmp_path / "p"
    line = [
        sys.executable,
        "-m",
        "distgan",
        "shard",
        "particles",
        out,
        *map(str, SMALL),
    ]
    with ThreadPoolExecutor(5) as pool:  # one of them twice
        done = list(
            pool.map(
                lambda k: subprocess.run(
                    [*line, "--workers", str(1 + k % 2), "--task", f"{k}/4"],
                    env=environment(),
                    cwd=ROOT,
                    capture_output=True,
                    text=True,
                ),
                (0, 1, 2, 3, 1),
            )
        )
    assert [task.returncode for task in done] == [0] * 5, [task.stderr for task in done]
    assert (
        f"task 3/4 is done, 1 of 7 shards; after all tasks: distgan shard particles {out}"
        in done[3].stdout
    )
    assert not json.loads((out / "dataset.json").read_text())["complete"] and not list(
        out.rglob("manifest.json")
    )
    with pytest.raises(DataError, match="train holds no manifest.json"):
        ShardSet(out / "train")
    shard("particles", out, *SMALL, "--finish")
    said = capsys.readouterr().out
    assert (
        f"next: distgan check {out}\n" in said
        and f"next: distgan run --processes 2 sagan data={out}" in said
    )
    shard("particles", tmp_path / "one", *SMALL, "--workers", 1)
    assert contents(out) == contents(tmp_path / "one")
