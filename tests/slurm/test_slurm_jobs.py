"""Single jobs on a real Slurm: time limits, failures, nodes, and what status and why print."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import psutil
import pytest
from processes import BIN, ROOT, TINY, journal, largest_difference, line, run
from slurm_cluster import (
    CLUSTER,
    PROGRAMS,
    QUIET,
    all_done,
    distgan,
    dry,
    starts,
    states,
    steps,
    turns,
    until,
)


def test_at_its_time_limit_a_run_saves_and_goes_on(particles, place):
    # Slurm may signal up to a minute before it was asked to.
    distgan(
        "submit",
        "sagan",
        f"data={particles}",
        "epochs=200",
        *QUIET,
        "--profile",
        "dev",
        "--time",
        "3m",
        "--set",
        f'program=["{PROGRAMS}", "slow"]',
    )
    (one,) = states()
    until(lambda: states()[0]["state"] == "requeued", 240)
    (turn,) = turns(one["run"])
    assert turn["kind"] == "time" and turn["then"] == "requeue" and 0 < turn["last_step"] < 900
    assert "time limit" in distgan("status", code=3)
    assert any(
        cause in distgan("why", Path(one["run"]).name)
        for cause in ("the end of the job's time", "signal SIGUSR2")
    )  # whichever comes first
    # What is left takes no time any more.
    (place / "runs/_slurm" / turn["submission"] / "submission.json").write_text(
        (place / "runs/_slurm" / turn["submission"] / "submission.json")
        .read_text()
        .replace('"slow"', '"plain"')
        .replace(str(PROGRAMS), str(ROOT / "distgan/train.py"))
        .replace(', "plain"]', "]")
    )
    until(lambda: states()[0]["state"] == "done", 150)
    first, second = turns(one["run"])
    assert (
        second["step"] == first["last_step"]
        and second["job"] == first["job"] == one["job"]
        and len(journal(Path(one["run"]))) == 900
    )


def test_what_is_cancelled_stays_cancelled(particles, place):
    distgan(
        "sweep",
        "sagan",
        f"data={particles}",
        "epochs=60",
        *QUIET,
        "seed=0,1,2",
        "--name",
        "c",
        "--profile",
        "dev",
        "--max-parallel",
        "1",
        "--set",
        f'program=["{PROGRAMS}", "slow"]',
    )
    until(lambda: steps(states("c")[0]["run"]) > 3)
    assert "cancelled" in distgan("cancel", "c:2")  # it waits
    assert "cancelled" in distgan("cancel", "c:0")  # it runs
    until(lambda: [one["state"] for one in states("c")] == ["cancelled", "running", "cancelled"])
    subprocess.run(["scancel", states("c")[1]["job"]], check=True)  # not by us
    until(lambda: [one["state"] for one in states("c")] == ["cancelled"] * 3)
    time.sleep(12)
    assert [one["state"] for one in states("c")] == ["cancelled"] * 3
    assert [len(turns(one["run"])) for one in states("c")][::2] == [1, 0]
    assert "cancelled: it was cancelled" in distgan(
        "why", "c:2"
    ) and "distgan retry c:2" in distgan("why", "c:2")
    again = distgan(
        "sweep",
        "sagan",
        f"data={particles}",
        "epochs=60",
        *QUIET,
        "seed=0,1,2",
        "--name",
        "c",
        "--profile",
        "dev",
        code=2,
    )
    assert "to submit: 0" in again and "leave (--retry cancelled" in again


@pytest.mark.smoke
def test_the_last_element_is_requeued_and_no_finished_sibling_runs_again(particles, place):
    """Its raw number is that of the array: requeued by it, all elements would begin anew."""
    distgan("sweep", "sagan", f"data={particles}", "seed=0,1,2", "--name", "r", *dry())
    all_done("r")
    folders = [one["run"] for one in states("r")]
    from distgan.launchers.slurm import client

    (Path(folders[2]) / "DONE").unlink()
    client.requeue(states("r")[2]["job"])
    until(lambda: states("r")[2]["state"] in ("requeued", "queued"))
    all_done("r")
    assert [starts(folder) for folder in folders] == [1, 1, 2]


def test_a_node_that_dies_is_left_and_the_run_goes_on_elsewhere(particles, place):
    distgan(
        "submit",
        "sagan",
        f"data={particles}",
        "epochs=12",
        *QUIET[:-5],
        "machine.checkpoint_every=1",
        *TINY,
        "--profile",
        "dev",
        "--cpus",
        "2",
        "--set",
        f'program=["{PROGRAMS}", "slow"]',
    )
    one = until(lambda: [one for one in states() if one["nodes"]])[0]
    until(lambda: len(list(Path(one["run"]).glob("checkpoints/[0-9]*"))) >= 2)
    for process in psutil.process_iter():  # all that lives on the node
        with contextlib.suppress(psutil.Error, OSError):
            if (
                process.environ().get("SLURMD_NODENAME") == one["nodes"]
                or process.name() == "slurmstepd"
                and one["job"] in " ".join(process.cmdline())
                or process.name() == "slurmd"
                and one["nodes"] in process.cmdline()
            ):
                process.kill()
    try:
        until(lambda: turns(one["run"])[-1].get("nodes") != one["nodes"], 120)
        until(lambda: states()[0]["state"] == "done", 120)
        first, second = turns(one["run"])
        assert (
            first["nodes"] != second["nodes"]
            and second["step"] > 0
            and first["last_step"] == second["step"]
        )
        assert first["trained_s"] >= first["kept_s"] > 0
        assert len(journal(Path(one["run"]))) == 54
    finally:
        subprocess.run([*CLUSTER, "up"], capture_output=True, timeout=100)
        subprocess.run(
            ["scontrol", "update", f"NodeName={one['nodes']}", "State=RESUME"], capture_output=True
        )


# ---- several nodes, ports
def test_one_run_file_here_on_one_node_and_on_two(particles, place):
    """Two jobs of two nodes each run on the same nodes at once, whose names no resolver knows."""
    (place / "run.yaml").write_text(
        f"recipe: sagan\ndata: {particles}\nepochs: 5\nprecision: float64\nngf: 4\nndf: 4\nlatent:"
        " 8\nbatch: 12\nevaluate: {samples: 24}\n"
    )
    run(line("distgan"), "run.yaml", f"machine.folder={place / 'here'}", cwd=place)
    distgan("submit", "run.yaml", "machine.runs=one", "--profile", "dev")
    distgan(
        "submit",
        "run.yaml",
        "machine.runs=two",
        "--profile",
        "dev",
        "--nodes",
        "2",
        "--set",
        "nodelist=n[1-2]",
    )
    distgan(
        "submit",
        "run.yaml",
        "machine.runs=three",
        "--profile",
        "dev",
        "--nodes",
        "2",
        "--set",
        "nodelist=n[1-2]",
    )
    until(
        lambda: all(
            states("--runs", home)[0]["state"] == "done" for home in ("one", "two", "three")
        ),
        180,
    )
    for home in ("one", "two", "three"):
        folder = Path(states("--runs", home)[0]["run"])
        assert largest_difference(place / "here", folder, 20) < 1e-9
        (turn,) = turns(folder)
        if home != "one":
            assert (
                "2 ranks" in distgan("logs", "--runs", home, folder.name)
                and turn["port"]
                and (folder / "attempts/000/rank1.log").exists()
            )
            assert (
                "--machine_rank 0" in " ".join(turn["command"])
                and (folder / "attempts/000/launcher-node1.log").exists()
            )
    both = [turns(states("--runs", home)[0]["run"])[0] for home in ("two", "three")]
    assert both[0]["nodes"] == both[1]["nodes"]
    assert distgan("debug", "run.yaml", "--steps", "3") and (place / "runs/_debug").exists()
    debugged = next((place / "runs/_debug").iterdir())
    assert largest_difference(place / "here", debugged, 3) < 1e-9


# ---- failures
def test_why_names_the_cause(particles, place):
    words = [
        "sagan",
        f"data={particles}",
        "epochs=20",
        "max_skips=4",
        "machine.flush_steps=2",
        *QUIET,
    ]
    distgan(
        "sweep",
        *words,
        "seed=1,2,3",
        "--name",
        "ill",
        "--profile",
        "dev",
        "--set",
        f'program=["{PROGRAMS}", "ill"]',
    )
    until(lambda: [one["state"] for one in states("ill")] == ["failed"] * 3)
    for number, cause, evidence in (
        (0, "an exception", "ZeroDivisionError"),
        (1, "out of memory", "memory"),
        (2, "bad numbers", "bad numbers: "),
    ):
        said = distgan("why", f"ill:{number}")
        assert f"cause     {cause}" in said and f"ill:{number}" in said
        assert any("evidence" in text and evidence in text for text in said.splitlines()), said
    from distgan.launchers.slurm import client

    assert [client.queue()[one["job"]].state for one in states("ill")] == ["FAILED"] * 3
    assert [len(turns(one["run"])) for one in states("ill")] == [
        1,
        1,
        1,
    ]  # a user's error is not tried again
    assert "distgan why ill:0" in distgan("status", "ill", code=2)
    again = distgan("sweep", *words, "seed=1,2,3", "--name", "ill", "--profile", "dev", code=2)
    assert "to submit: 0" in again and "leave (--retry failed" in again
    # Mended, it goes on.
    distgan("retry", "ill:0", "--set", f'program=["{ROOT / "distgan/train.py"}"]')
    until(lambda: states("ill")[0]["state"] == "done")


def test_slurm_itself_kills_what_takes_too_much_memory(particles, place):
    hungry = place / "hungry.py"
    hungry.write_text(
        "import time\nheld = bytearray(900 << 20)\nfor i in range(0, len(held), 4096): held[i] ="
        " 1\ntime.sleep(60)\n"
    )
    distgan(
        "submit",
        "sagan",
        f"data={particles}",
        "epochs=1",
        *QUIET,
        "--profile",
        "dev",
        "--set",
        "mem_gb=0.3",
        "--set",
        f'program=["{hungry}"]',
        "--set",
        "crashes=0",
    )
    until(lambda: states()[0]["state"] == "failed", 90)
    said = distgan("why", Path(states()[0]["run"]).name)
    assert "out of memory" in said and "mem_gb" in said


def test_a_missing_output_folder_is_a_launch_failure(particles, place):
    distgan("submit", "sagan", f"data={particles}", *dry(), "--set", "sbatch={begin: now+4}")
    (one,) = states()
    (submission,) = (path for path in (place / "runs/_slurm").iterdir() if path.is_dir())
    submission.rename(place / "away")
    until(lambda: states()[0]["state"] == "failed")
    assert "launch failure" in distgan("why", Path(one["run"]).name)
    (place / "away").rename(submission)
    distgan("retry", Path(one["run"]).name, "--set", "sbatch={}")
    until(lambda: states()[0]["state"] == "done")


@pytest.mark.smoke
def test_a_sweep_of_one_is_a_plain_job(particles, place):
    distgan("sweep", "sagan", f"data={particles}", "seed=range(5, 6)", "--name", "one", *dry())
    (found,) = states("one")
    assert "_" not in found["job"]
    all_done("one")


def test_the_login_process_dies_right_after_sbatch(particles, place):
    """Nothing is submitted twice, and the jobs run though submitit has not moved its files."""
    (place / "bin").mkdir()
    real = subprocess.run(
        ["which", "sbatch"], capture_output=True, text=True, check=True
    ).stdout.strip()
    (place / "bin/sbatch").write_text(
        f'#!/bin/bash\n{real} "$@" > {place}/said\n[[ " $* " == *--test-only* ]] || kill -9 $PPID\n'
    )
    (place / "bin/sbatch").chmod(0o755)
    line_ = [
        str(BIN / "distgan"),
        "sweep",
        "sagan",
        f"data={particles}",
        "seed=0,1,2",
        "--name",
        "k",
        *dry(3),
    ]
    killed = subprocess.run(
        line_,
        env={**os.environ, "PATH": f"{place / 'bin'}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
    )
    assert killed.returncode == -signal.SIGKILL
    again = subprocess.run(line_, capture_output=True, text=True)
    assert again.returncode == 0 and "to submit: 0" in again.stdout, again.stdout + again.stderr
    all_done("k")
    assert [starts(one["run"]) for one in states("k")] == [1, 1, 1]
    assert len({one["job"].partition("_")[0] for one in states("k")}) == 1
    # Killed before sbatch: the line is in the ledger, no job has its name, and after some minutes
    # it counts as never submitted.
    ledger = place / "runs/_slurm/ledger.jsonl"
    ledger.write_text(
        ledger.read_text()
        + json.dumps(
            {
                "time": time.time() - 400,
                "id": "0" * 8,
                "state": "submitting",
                "name": "distgan-00000000",
                "members": [[str(place / "runs/x/y")]],
            }
        )
        + "\n"
    )
    subprocess.run(line_, capture_output=True)
    assert '"void"' in ledger.read_text().splitlines()[-1]


def test_stop_save_and_follow(particles, place):
    distgan(
        "submit",
        "sagan",
        f"data={particles}",
        "epochs=60",
        *QUIET,
        "--profile",
        "dev",
        "--set",
        f'program=["{PROGRAMS}", "slow"]',
    )
    (one,) = states()
    name = Path(one["run"]).name
    until(lambda: steps(one["run"]) > 3)
    assert "asked for a checkpoint" in distgan("save", name)
    until(lambda: list(Path(one["run"]).glob("checkpoints/[0-9]*")))
    assert "asked to save and leave" in distgan("stop", name)
    assert "---- stopped" in distgan("logs", "-f", name)
    assert states()[0]["state"] == "stopped" and "distgan retry" in distgan("why", name)
    assert "#SBATCH --partition=main" in distgan(
        "show", name, "--sbatch"
    ) and "slurm_programs.py slow sagan" in distgan("show", name, "--cmd")
    distgan("retry", name, "--set", f'program=["{ROOT / "distgan/train.py"}"]')
    until(lambda: states()[0]["state"] == "done")
    assert "distgan/train.py sagan" in distgan("show", name, "--cmd") and "epochs: 60" in distgan(
        "show", name, "--config"
    )


def test_without_accounting_the_runs_own_records_tell(particles, place, monkeypatch):
    """A path on which there is no sacct."""
    (place / "bin").mkdir()
    for name in (
        "squeue",
        "scontrol",
        "sbatch",
        "scancel",
        "srun",
        "sinfo",
        "sh",
        "bash",
        "git",
        "env",
        "test",
        "cp",
    ):
        (place / "bin" / name).symlink_to(shutil.which(name))
    distgan("sweep", "sagan", f"data={particles}", "seed=0,1", "--name", "n", *dry())
    monkeypatch.setenv("PATH", str(place / "bin"))
    all_done("n")
    said = distgan("cost", "n")
    assert (
        "the jobs' own records" in said
        and "sacct" not in said.partition("source:")[2].partition(".")[0]
    )
    assert "attempt 000: job" in distgan("why", "n:0")
    said = distgan("doctor", "--slurm", "--profile", "dev")
    assert "accounting (sacct)" in said and "would start" in said and "a node sees" in said
    (
        Path(states("n")[1]["run"]) / "DONE"
    ).unlink()  # as if it had been killed, and Slurm had forgotten it
    words = ["sweep", "sagan", f"data={particles}", "seed=0,1", "--name", "n", *dry()]
    again = distgan(*words, code=2)  # nothing shows how it ended: a person is asked
    assert "to submit: 0" in again and "leave (--retry unknown)" in again
    assert "to submit: 1" in distgan(*words, "--retry", "unknown")
    all_done("n")
