"""Verbs as users start them: under launchers, and where something is short."""

import re
import subprocess
import sys

import pytest
from processes import BIN, ROOT, TINY, broken, environment, line, run
from processes import journal as journalled

from distgan import cli, train


def test_a_verb_under_torchrun(particles, tmp_path):
    """What two ranks print of a verb, once, and of a refusal."""
    start = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "2",
        "-m",
        "distgan",
    ]
    printed = run(
        start,
        "train",
        "sagan",
        f"data={particles}",
        f"machine.folder={tmp_path / 'run'}",
        "epochs=1",
        "machine.device=cpu",
        *TINY,
        cwd=ROOT,
    )
    assert (
        printed.count("finished; next: distgan report") == 1
        and (tmp_path / "run" / "DONE").is_file()
    )
    refused = run(start, "generate", str(tmp_path / "nothing"), cwd=ROOT, code=1)
    assert refused.count("error: ") == 1 and "Traceback" not in refused.split("error: ")[0]


def distgan(*words: str, code: int = 0) -> tuple[str, str]:
    done = subprocess.run(
        [str(BIN / "distgan"), *words],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == code, done.stderr
    return done.stdout, done.stderr


@pytest.fixture
def dry(particles, tmp_path, monkeypatch, capsys):
    """`dry("ngf=4")` -> what a dry run prints; it must leave no file."""
    monkeypatch.chdir(tmp_path)

    def check(*words: str) -> str:
        capsys.readouterr()
        assert cli.guarded(train.main, ["sagan", f"data={particles}", *words, "--dry-run"]) == 0
        assert list(tmp_path.iterdir()) == []
        return capsys.readouterr().out

    return check


def test_two_processes_start(particles, tmp_path):
    output = run(
        [str(BIN / "distgan"), "run", "--processes", "2"],
        "sagan",
        f"data={particles}",
        "--dry-run",
        *TINY,
        cwd=tmp_path,
    )
    assert output.count("batch 12 = 2 ranks x 1 micro-batches x 6 per rank, in groups of 12") == 1


def test_a_dry_run_prints_what_differs_and_all_of_it_where_asked(dry):
    short, long = dry("hflip=0", *TINY), dry("hflip=0", *TINY, "--all")
    assert len(short.splitlines()) < 25 and "hflip=0.0" in short and "vflip" not in short
    assert "--dry-run --all" in short and "vflip: 0.5" in long and len(long) > 3 * len(short)


def test_the_identity_of_a_dry_run_is_that_of_the_run(dry, particles, tmp_path):
    name = re.search(
        r"\((\S+)\)", dry("epochs=1", *TINY, "evaluate.samples=2").split("run identity")[1]
    )[1]
    run(
        line("python"),
        "sagan",
        f"data={particles}",
        "epochs=1",
        *TINY,
        "evaluate.samples=2",
        cwd=tmp_path,
    )
    assert [path.name for path in (tmp_path / "runs" / "sagan").iterdir()] == [name]


# In the third step one rank may have no more memory than it has, and asks for a gigabyte.
STARVED = """
    import os, resource, torch
    from distgan.recipes import sagan
    usual = sagan.Recipe.step
    def step(self, batches, now):
        if now.step == 2 and os.environ.get("RANK", "{rank}") == "{rank}":
            used = int(open("/proc/self/statm").read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
            resource.setrlimit(resource.RLIMIT_AS, (used + 2**24, resource.RLIM_INFINITY))
            torch.empty(2**30, dtype=torch.uint8)
        return usual(self, batches, now)
    sagan.Recipe.step = step
"""


@pytest.mark.parametrize(
    ("command", "rank", "code"),
    [(line("python"), 0, 2), (line("torchrun", 2), 1, 1)],
    ids=["one", "rank 1 of 2"],
)
def test_a_run_says_what_to_change(command, rank, code, particles, tmp_path):
    program = broken(tmp_path, STARVED.format(rank=rank))
    command = [str(program) if word.endswith("train.py") else word for word in command]
    output = run(
        command,
        "sagan",
        f"data={particles}",
        f"machine.folder={tmp_path / 'run'}",
        "epochs=4",
        "bn_group=4",
        *TINY,
        cwd=tmp_path,
        code=code,
    )
    assert (
        output.count(f"out of memory on rank {rank} with ") == 1
        and "can't allocate memory: you tried to allocate 1073741824 bytes" in output
    )
    assert (
        "machine.accumulation=3 (4 per rank)"
        if rank == 0
        else "machine.accumulation=3 (2 per rank)"
    ) in output
    assert f"--find-batch --processes={rank + 1}" in output
    assert f"[rank{rank}]: Traceback" not in output and (rank or "Traceback" not in output)


def test_a_slow_rank_is_named(particles, tmp_path):
    """It burns 50 ms more in each step. Both take as long for a step: the other waits for it."""
    program = broken(
        tmp_path,
        """
        import os, time
        from distgan.recipes import sagan
        usual = sagan.Recipe._d_loss
        def slow(self, micro):
            end = time.monotonic() + (0.05 if os.environ["RANK"] == "1" else 0)
            while time.monotonic() < end:
                pass
            return usual(self, micro)
        sagan.Recipe._d_loss = slow
    """,
    )
    run(
        line("torchrun", 2, program),
        "sagan",
        f"data={particles}",
        f"machine.folder={tmp_path / 'run'}",
        "epochs=3",
        "machine.flush_steps=7",
        *TINY,
        cwd=tmp_path,
    )
    told = [row for row in journalled(tmp_path / "run").values() if "time/slowest_rank" in row]
    assert [row["step"] for row in told] == [7, 14] and [
        row["time/slowest_rank"] for row in told
    ] == [1, 1]
    assert all(
        row["time/compute_slowest_s"] - row["time/compute_s"] > 0.012 for row in told
    )  # of two ranks, the mean lies half the difference below
