"""On a real Slurm (slurm/dev-cluster up).

Sweeps, preemption, time limits, failures, several nodes, and what is told about them.
"""

import contextlib
import csv
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import torch
from processes import BIN, ROOT, TINY, final, journal, largest_difference, line, run
from sweep_options import options_of

from distgan import cli
from distgan.core.errors import DistganError

CLUSTER = [sys.executable, str(ROOT / "slurm/dev-cluster")]
FOLDER = Path(
    os.environ.get("DISTGAN_DEV_CLUSTER")
    or Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local/state")
    / "distgan-dev-cluster"
)
PROGRAMS = ROOT / "tests/programs/slurm_programs.py"
QUIET = [
    "evaluate.schedule=[[null,1000]]",
    "validate_every=1000",
    "sample_every=1000",
    "machine.checkpoint_every=1000",
    *TINY,
]


@pytest.fixture(scope="module", autouse=True)
def client():
    """The development cluster, asked from the environment that a user has after `export
    SLURM_CONF=…`.
    """
    before = dict(os.environ)
    if "SLURM_CONF" not in before and (FOLDER / "slurm.conf").exists():
        os.environ["SLURM_CONF"] = str(FOLDER / "slurm.conf")
    try:
        answers = (
            subprocess.run(["scontrol", "ping"], capture_output=True, timeout=20).returncode == 0
        )
    except (OSError, subprocess.TimeoutExpired):
        answers = False
    if not answers:
        os.environ.clear()
        os.environ.update(before)
        pytest.skip("no Slurm answers; start one on this machine with: slurm/dev-cluster up")
    os.environ |= {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    yield
    subprocess.run(["scancel", "--me"], capture_output=True)
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", f"{BIN}:{os.environ['PATH']}")
    yield tmp_path
    subprocess.run(["scancel", "--me"], capture_output=True)


def distgan(*words, code=0) -> str:
    """A verb, in this process; its output."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        module, _, function = cli.VERBS[words[0]][0].partition(":")
        imported = __import__(module, fromlist=["main"])
        try:
            found = getattr(imported, function or "main")([*map(str, words[1:])])
        except DistganError as error:
            print(f"error: {error}")
            found = 2
    assert code is None or found == code, out.getvalue()
    return out.getvalue()


def states(*targets) -> list[dict]:
    return [
        json.loads(text) for text in distgan("status", "--json", *targets, code=None).splitlines()
    ]


def until(condition, seconds=150, every=0.5):
    ends = time.monotonic() + seconds
    while True:
        if found := condition():
            return found
        assert time.monotonic() < ends, subprocess.run(
            ["squeue"], capture_output=True, text=True
        ).stdout + "\n".join(map(str, states()))
        time.sleep(every)


def all_done(name, seconds=200, leave=30):
    until(lambda: [one["state"] for one in states(name)] == ["done"] * len(states(name)), seconds)
    until(
        lambda: (
            not subprocess.run(
                ["squeue", "--noheader", "--me"], capture_output=True, text=True
            ).stdout.strip()
        ),
        leave,
    )  # and their jobs have left


def starts(folder) -> int:
    path = Path(folder) / "starts.txt"
    return len(path.read_text().splitlines()) if path.exists() else 0


def turns(folder) -> list[dict]:
    return [
        json.loads(path.read_text()) for path in sorted(Path(folder).glob("attempts/*/job.json"))
    ]


def steps(folder) -> int:
    path = Path(folder) / "journal.jsonl"
    return len(path.read_text().splitlines()) if path.exists() else 0


def preempt(node) -> str:
    """Another job takes the node for a second."""
    found = subprocess.run(
        [
            "sbatch",
            "--parsable",
            "--partition=urgent",
            f"--nodelist={node}",
            "--exclusive",
            "--output=/dev/null",
            "--wrap=sleep 1",
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    return found.stdout.strip()


def dry(seconds=1.0):
    return [
        "--profile",
        "dev",
        "--set",
        f'program=["{PROGRAMS}", "dry"]',
        "--set",
        f"setup=[export DRY_SECONDS={seconds}]",
    ]


def equal(a, b):
    mine, theirs = final(Path(a)), final(Path(b))
    return mine.keys() == theirs.keys() and all(
        torch.equal(mine[name], theirs[name]) for name in mine
    )


# ---- a sweep
@pytest.mark.smoke
def test_a_sweep_with_two_preemptions_ends_as_if_nothing_had_happened(particles, place):
    """Four runs, two at a time; two of them are preempted: they go on at the saved step, the others
    are untouched, and the account adds up.
    """
    words, began = (
        ["sagan", f"data={particles}", "epochs=18", *QUIET],
        time.strftime("%Y-%m-%dT%H:%M:%S"),
    )
    said = distgan(
        "sweep",
        *words,
        "seed=range(4)",
        "--name",
        "study",
        "--profile",
        "dev",
        "--cpus",
        "2",
        "--max-parallel",
        "2",
        "--set",
        f'program=["{PROGRAMS}", "slow"]',
    )
    assert "4 runs of sagan" in said and "to submit: 4" in said and "core-hours" in said
    folders = [one["run"] for one in states("study")]
    taken = []
    for number in (0, 3):
        until(lambda number=number: steps(folders[number]) >= 20)
        found = states("study")
        assert sum(one["state"] == "running" for one in found) <= 2
        preempt(found[number]["nodes"])
        until(lambda number=number: states("study")[number]["state"] == "requeued")
        (turn,) = turns(folders[number])
        assert (
            turn["kind"] == "preempted" and turn["signals"] == ["SIGTERM"] and turn["last_step"] > 0
        )
        taken.append(turn["last_step"])
    all_done("study")
    for number, folder in enumerate(folders):
        found = turns(folder)
        assert len(found) == (2 if number in (0, 3) else 1) and found[-1]["kind"] == "done"
        if number in (0, 3):
            assert found[1]["step"] == found[0]["last_step"] == taken[
                number // 3
            ] and "continuing from step" in distgan("logs", f"study:{number}")
    # The same run here, undisturbed.
    run(line("python"), *words, "seed=3", f"machine.folder={place / 'alone'}", cwd=place)
    assert equal(place / "alone", folders[3]) and list(journal(place / "alone")) == list(
        journal(Path(folders[3]))
    )
    # The report compares them.
    assert "wrote" in distgan(
        "sweep", *words, "seed=range(4)", "--name", "study", "--report"
    ) and "wrote" in distgan("sweep", "study", "--report")
    table = list(csv.DictReader((place / "runs/_sweeps/study/report.csv").read_text().splitlines()))
    assert sorted(row["seed"] for row in table) == ["0", "1", "2", "3"] and {
        row["state"] for row in table
    } == {"done"}
    assert [row["best"] for row in table] == sorted(
        (row["best"] for row in table), key=lambda text: float(text.split()[-1])
    )
    assert (place / "runs/_sweeps/study/report.png").stat().st_size > 10_000 and (
        Path(folders[0]) / "report.html"
    ).exists()
    # What it has cost is what Slurm says, and the parts add up to it.
    account = [json.loads(text) for text in distgan("cost", "study", "--json").splitlines()]
    assert sum(one["turns"] for one in account) == 6
    mine = sum(one["elapsed_s"] for one in account)
    assert mine == pytest.approx(
        sum(one[kind] for one in account for kind in ("useful", "lost", "failed", "overhead")),
        abs=0.1,
    )
    found = subprocess.run(
        [
            "sacct",
            "-X",
            "-D",
            "-n",
            "-P",
            "-S",
            began,
            "-j",
            states("study")[0]["job"].partition("_")[0],
            "-o",
            "ElapsedRaw",
        ],
        capture_output=True,
        text=True,
    )
    if found.returncode == 0 and found.stdout.strip():
        assert mine == pytest.approx(sum(map(int, found.stdout.split())), rel=0.02)
    recorded = sum(
        (turn["ended"] - turn["slurm_start"]) for folder in folders for turn in turns(folder)
    )
    print(
        f"cost: {mine:.0f} s on nodes; by the jobs' own records, which are used without sacct,"
        f" {recorded:.0f} s ({recorded / mine - 1:+.1%})"
    )
    # Nothing is missing, so nothing is submitted.
    again = distgan("sweep", *words, "seed=range(4)", "--name", "study", "--profile", "dev")
    assert "to submit: 0" in again and "submitted   job" not in again


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


# ---- what may go wrong around the jobs
def test_more_members_than_an_array_holds_and_a_controller_that_is_restarted(particles, place):
    subprocess.run(
        [*CLUSTER, "up", "--max-array-size", "3"], check=True, capture_output=True, timeout=100
    )
    try:
        said = distgan(
            "sweep", "sagan", f"data={particles}", "seed=range(7)", "--name", "many", *dry(4)
        )
        assert said.count("submitted   job") == 3
        until(lambda: any(starts(one["run"]) for one in states("many")))
        controller = next(
            process for process in psutil.process_iter() if process.name() == "slurmctld"
        )
        # which saves its state; killed, it starts running jobs again, and nodes refuse
        controller.terminate()
        controller.wait(20)
        with pytest.raises(AssertionError, match="error: |controller"):
            distgan("status", "many", code=0)
    finally:
        subprocess.run([*CLUSTER, "up"], check=True, capture_output=True, timeout=100)
    all_done("many", leave=120)  # what ended meanwhile the controller learns late
    assert [starts(one["run"]) for one in states("many")] == [1] * 7


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


def test_runs_beside_each_other_in_one_job(particles, place):
    distgan(
        "sweep",
        "sagan",
        f"data={particles}",
        "seed=range(4)",
        "--name",
        "p",
        "--pack",
        "2",
        *dry(2),
    )
    found = states("p")
    assert len({one["job"] for one in found}) == 2
    all_done("p")
    assert turns(found[0]["run"])[0]["shared_by"] == 2
    assert "also trains" not in distgan("cancel", "p:0")


def test_wider_models_grow_from_narrower_ones(particles, place):
    (place / "sweep.yaml").write_text(
        f"recipe: sagan\nsettings: {{data: {particles}, epochs: 1, latent: 8, batch: 12, ndf: 4,"
        " evaluate: {samples: 24}}\ngrid: {ngf: [6, 4]}\nchain: ngf\nslurm: {profile:"
        " dev}\n"
    )
    said = distgan("sweep", "sweep.yaml")
    assert said.count("submitted   job") == 2 and "afterok" in said
    all_done("sweep")
    wide = states("sweep")[0]["run"]
    assert any(
        json.loads(text)["event"] == "grown"
        for text in (Path(wide) / "events.jsonl").read_text().splitlines()
    )


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


def test_a_search_asks_for_trials_and_stops_hopeless_ones(particles, place):
    (place / "s.yaml").write_text(
        f"recipe: sagan\nsettings: {{data: {particles}, epochs: 1, ngf: 4, ndf: 4, latent: 8,"
        " batch: 12, evaluate: {samples: 24}}\nsearch: {trials: 3, parallel: 2, startup: 2,"
        " seed: 1, space: {g_lr: 'loguniform(1e-5, 1e-2)'}}\nslurm: {profile: dev}\n"
    )
    assert "2 trials" in distgan("sweep", "s.yaml")
    assert "to submit: 0" in distgan("sweep", "s.yaml")  # both are under way
    all_done("s")
    said = distgan("sweep", "s.yaml")
    assert "1 trials" in said and "2 complete" in said and "best so far" in said
    all_done("s")
    assert "3 complete" in distgan("sweep", "s.yaml") and len(states("s")) == 3


def test_hopeless_trials_are_stopped(particles, place, monkeypatch):
    """At as many samples seen as others: invented scores, a real study."""
    from distgan.launchers.sweeps import members, search

    asked = members.plan_sweep(
        options_of(["sagan", f"data={particles}", "batch=12"], name="h", profile="dev")
    )
    options = search.Search(trials=9, startup=2, space={"g_lr": "loguniform(1e-5, 1e-2)"})
    study = search.study_of(asked, options)
    for best in (10.0, 11.0, 12.0):
        trial = study.ask()
        trial.suggest_float("g_lr", 1e-5, 1e-2, log=True)
        trial.report(best, 100)
        study.tell(trial, best)
    trial = study.ask()
    folder = place / "runs/x/y"
    (folder / "attempts").mkdir(parents=True)
    (folder / "journal.jsonl").write_text(
        json.dumps({"step": 5, "samples": 100, "epoch": 1.0, "eval/frechet_standin": 99.0}) + "\n"
    )
    from distgan.launchers.runs.selection import SelectedRun
    from distgan.launchers.runs.state import RunFiles, RunState

    found = SelectedRun(folder, RunFiles(), RunState("running"), None, None)
    assert search._tell(study, study.get_trials(deepcopy=False)[trial.number], found, True)
    assert (folder / "STOP").exists() and (folder / "NO_RESTART").read_text().startswith(
        "pruned: worse than the median"
    )
    assert study.get_trials(deepcopy=False)[trial.number].state.name == "PRUNED"


def test_the_channel_study_is_one_array_and_one_report(particles, place):
    said = distgan(
        "capacity",
        f"data={particles}",
        "widths=4,6",
        "epochs=1",
        "batch=12",
        "latent=8",
        "evaluate.samples=24",
        "--submit",
        "--n",
        "24",
        "--profile",
        "dev",
    )
    assert "2 widths" in said
    until(lambda: [one["state"] for one in states()] == ["done"] * 3, 120)
    (report,) = place.glob("runs/*/capacity.md")
    assert (
        "| 4 " in report.read_text()
        and "| 6 " in report.read_text()
        and "ecommend" in report.read_text()
    )
    assert len(list(place.glob("runs/*/*/eval/asked/*.json"))) == 2


def test_a_job_runs_the_copy_of_the_code_and_not_the_checkout(particles, tmp_path, place):
    """Submitted from a checkout whose code is changed before the job starts.

    A longer run is the same run, continued.
    """
    checkout = place / "checkout"
    subprocess.run(["git", "clone", "-q", str(ROOT), str(checkout)], check=True)
    verb = [
        sys.executable,
        "-m",
        "distgan",
        "submit",
        "sagan",
        f"data={particles}",
        *QUIET,
        "--profile",
        "dev",
    ]
    environment = {**os.environ, "PYTHONPATH": str(checkout)}
    said = subprocess.run(
        [*verb, "epochs=1", "--set", "sbatch={begin: now+6}"],
        cwd=checkout,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert said.returncode == 0, said.stderr
    (checkout / "distgan/train.py").write_text("raise SystemExit('the checkout was run')")
    os.chdir(checkout)
    until(lambda: states()[0]["state"] == "done", 90)
    (turn,) = turns(states()[0]["run"])
    assert "/_code/" in turn["command"][1]
    subprocess.run(["git", "checkout", "-q", "."], cwd=checkout, check=True)
    again = subprocess.run(
        [*verb, "epochs=2"], cwd=checkout, env=environment, capture_output=True, text=True
    )
    assert "submitted   job" in again.stdout, again.stdout + again.stderr
    until(lambda: len(turns(states()[0]["run"])) == 2 and states()[0]["state"] == "done", 90)
    assert len(journal(Path(states()[0]["run"]))) == 9


def test_a_job_of_an_installed_copy_runs_what_was_submitted(particles, place):
    """The package is upgraded before the job starts; files of the user have our modules' names."""
    from distgan.launchers.slurm import snapshot

    site = snapshot.take(place / "site")
    for name in ("launchers", "shards", "config", "train"):
        (place / f"{name}.py").write_text("raise SystemExit('a file of the user was imported')")
    said = subprocess.run(
        [sys.executable, "-m", "distgan", "submit", "sagan", f"data={particles}", "epochs=1"]
        + [*QUIET, "--profile", "dev", "--set", "sbatch={begin: now+6}"],
        env={**os.environ, "PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
    )
    assert said.returncode == 0, said.stderr
    (site / "distgan/train.py").write_text("raise SystemExit('the upgraded copy was run')")
    until(lambda: states()[0]["state"] == "done", 90)
    (turn,) = turns(states()[0]["run"])
    assert turn["command"][1].startswith(str(place / "runs/_code/"))


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
    assert "to submit: 1" in distgan(
        "sweep", "sagan", f"data={particles}", "seed=0,1", "--name", "n", *dry()
    )
    all_done("n")
