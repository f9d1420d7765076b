"""Sweeps on a real Slurm: arrays, preemption, chains, searches, the channel study."""

import csv
import json
import subprocess
import time
from pathlib import Path

import psutil
import pytest
from processes import journal, line, run
from slurm_cluster import (
    CLUSTER,
    PROGRAMS,
    QUIET,
    all_done,
    distgan,
    dry,
    equal,
    preempt,
    starts,
    states,
    steps,
    turns,
    until,
)
from sweep_options import options_of


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


def test_a_sweep_begun_without_slurm_goes_on_here(particles, place):
    """Two members as processes of this machine, then two more seeds as jobs, and back."""
    words = ["sweep", "sagan", f"data={particles}", "epochs=2", *QUIET, "--name", "both"]
    distgan(*words, "seed=range(2)", "--here", "--parallel", "2")
    until(lambda: [one["state"] for one in states("both")] == ["done"] * 2)
    said = distgan(*words, "seed=range(4)", "--profile", "dev")
    assert "to submit: 2" in said and "submitted   job local" not in said
    all_done("both")
    found = states("both")
    assert [one["attempts"] for one in found] == [1] * 4
    assert [one["job"].startswith("local:") for one in found] == [True, True, False, False]
    assert distgan("sweep", "both", "--report").count("wrote") >= 3
    costs = [json.loads(text) for text in distgan("cost", "both", "--json").splitlines()]
    assert all(cost["turns"] == 1 and cost["useful"] > 0 for cost in costs)
    distgan(*words, "seed=range(5)", "--here")
    until(lambda: [one["state"] for one in states("both")] == ["done"] * 5)
    assert [one["attempts"] for one in states("both")] == [1] * 5
