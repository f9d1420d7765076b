"""The capacity study: what is counted, measured, recommended, shown; and the command that trains
it.
"""

import csv
import io
import json
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from distgan import cli, train
from distgan.config import batch_layout, loading
from distgan.core.errors import ConfigError, DataError
from distgan.distributed.ranks import Ranks
from distgan.launchers.capacity import command as capacity
from distgan.launchers.capacity import plot as widths_plot
from distgan.launchers.capacity import table
from distgan.launchers.capacity.measurement import Row, measure
from distgan.launchers.capacity.recommendation import recommend
from distgan.launchers.capacity.table import text
from distgan.recipes._base import build_recipe
from distgan.recipes._catalog import resolve_recipe


# ---- parameters, by hand
def test_parameters_at_64():
    """Every layer of both networks.

    Kernels of 4 x 4 throughout, 1 x 1 in the attention at 16 x 16 (128 channels: 128 // 8 = 16 for
    query and key).
    """
    attention = 128 * 16 + 128 * 16 + 128 * 128 + 1  # query, key, value, gamma; no biases
    g = (
        128 * 512 * 16
        + 2 * 512  # noise of 128 -> 4x4, batch norm
        + 512 * 256 * 16
        + 2 * 256  # -> 8x8
        + 256 * 128 * 16
        + 2 * 128
        + attention  # -> 16x16
        + 128 * 64 * 16
        + 2 * 64  # -> 32x32
        + 64 * 1 * 16
        + 1
    )  # -> 64x64, with a bias
    d = (
        1 * 64 * 16
        + 64  # 64x64 -> 32x32, biases throughout
        + 64 * 128 * 16
        + 128
        + attention  # -> 16x16
        + 128 * 256 * 16
        + 256  # -> 8x8
        + 256 * 512 * 16
        + 512  # -> 4x4
        + 512 * 1 * 16
        + 1
    )  # -> one number
    assert (g, d) == (3_824_514, 2_783_170)
    assert counted(64) == (g, d)
    # The documents' 2.4 M for G: less than its kernels alone.
    assert 16 * (128 * 512 + 512 * 256 + 256 * 128 + 128 * 64 + 64 * 1) == 3_802_112 > 2.4e6


def test_parameters_at_96():
    """Half as wide again: 768, 384, 192, 96 channels; attention of 192, with 192 // 8 = 24 for
    query and key.
    """
    attention = 192 * 24 + 192 * 24 + 192 * 192 + 1
    g = (
        128 * 768 * 16
        + 2 * 768
        + 768 * 384 * 16
        + 2 * 384
        + 384 * 192 * 16
        + 2 * 192
        + attention
        + 192 * 96 * 16
        + 2 * 96
        + 96 * 1 * 16
        + 1
    )
    d = (
        1 * 96 * 16
        + 96
        + 96 * 192 * 16
        + 192
        + attention
        + 192 * 384 * 16
        + 384
        + 384 * 768 * 16
        + 768
        + 768 * 1 * 16
        + 1
    )
    assert (g, d) == (7_816_514, 6_254_498)
    assert counted(96) == (g, d)


def counted(width: int) -> tuple[int, int]:
    module, tree = resolve_recipe("capacity")
    settings = loading.validate(
        module.Settings, tree, ["data=nowhere", f"ngf={width}", f"ndf={width}"]
    )
    ranks = Ranks(settings.machine, settings.precision)
    recipe = build_recipe(
        module,
        settings,
        ranks,
        batch_layout.fit(settings.batch, 1, 1, settings.group, settings.group_of),
        (1, 64, 64),
    )
    return tuple(
        sum(p.numel() for p in player.module.parameters()) for player in recipe.players.values()
    )


def test_the_preset_is_the_study_of_the_documents():
    settings = train.plan(["capacity", "data=nowhere"])[1]
    asked = {
        "recipe": "sagan",
        "experiment": "capacity",
        "batch": 32,
        "g_lr": 1e-4,
        "d_lr": 1e-4,
        "weight_decay": 1e-5,
        "ema": 0.9999,
        "epochs": 3000,
        "d_steps": 1,
        "g_steps": 2,
        "clip": 1.0,
    }
    assert {key: getattr(settings, key) for key in asked} == asked
    assert settings.machine.checkpoint_every == 200
    assert settings.watch.healthy == {
        "d/real_prob": (0.75, 0.85),
        "d/fake_prob": (0.35, 0.5),
        "d/loss": (0.3, 0.8),
        "g/loss": (0.5, 1.5),
    }
    assert (
        settings.watch.real_prob_high == 0.85 and settings.watch.d_loss_floor == 0.163
    )  # what the preset leaves out stays sagan's


# ---- measuring
@pytest.fixture
def folder(tmp_path):
    """A run of 300 images that was killed and continued, and evaluated three times."""
    home = tmp_path / "run"
    for name, about in (
        (
            "000",
            {
                "device": "cpu",
                "processes": 1,
                "data": {"train": 300},
                "parameters": {"G": 30, "D": 12},
                "peak_memory_mb": 900.0,
            },
        ),
        (
            "001",
            {
                "device": "cpu",
                "processes": 1,
                "data": {"train": 300},
                "parameters": {"G": 30, "D": 12},
            },
        ),
    ):  # killed: not known what it held
        (home / "attempts" / name).mkdir(parents=True)
        (home / "attempts" / name / "attempt.json").write_text(json.dumps(about))
    rows = [{"step": 0, "epoch": 0.0, "eval/frechet_standin": 300.0}]
    for step in range(1, 61):
        began = 30 if step > 30 else 0  # the second attempt counts its seconds anew
        speed = (
            {"samples_per_second": 1.0 if step == 10 else 50.0 if step < 30 else 60.0}
            if step % 10 == 0
            else {}
        )
        numbers = {"d/loss": 0.6, "g/loss": 0.8, "d/real_prob": 0.6, "d/fake_prob": 0.4}
        rows.append(
            {"step": step, "epoch": step / 10, "seconds": 0.6 * (step - began), **numbers, **speed}
        )
        if step in (20, 60):
            rows.append(
                {
                    "step": step,
                    "epoch": step / 10,
                    "eval/frechet_standin": 2.0 if step == 20 else 3.0,
                }
            )
    (home / "journal.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (home / "eval").mkdir()
    (home / "eval" / "00000060.json").write_text(
        json.dumps({"metric": "frechet_standin", "score": 3.0, "samples": 100, "reals": 300})
    )
    best = {"step": 20, "epoch": 2.0, "score": 2.0, "metric": "frechet_standin"}
    (home / "status.json").write_text(json.dumps({"state": "done", "epoch": 6.0, "best": best}))
    (home / "checkpoints" / "00000060").mkdir(parents=True)
    (home / "checkpoints" / "00000060" / "networks.safetensors").write_bytes(b"x" * 2_500_000)
    (home / "DONE").write_text("{}")
    return home


def test_a_run_is_measured(folder):
    """Time: 300 images at the median of 1, 50, 60, 60, 60, 60 a second.

    The slow first interval and the restart do not count.
    """
    row = measure(64, folder)
    assert (
        row.state == "done"
        and row.parameters == (30, 12)
        and row.memory_mb == 900.0
        and row.device == "cpu"
        and row.epochs == 6.0
    )
    assert row.epoch_s == 300 / 60.0 and row.checkpoint_mb == 2.5
    assert (
        row.score == 2.0 and row.best_epoch == 2.0 and row.measure == ("frechet_standin", 100, 300)
    )
    assert row.scores == ((0.0, 300.0), (2.0, 2.0), (6.0, 3.0)) and row.warnings == ()


def test_a_run_that_is_not_there_or_damaged_is_a_row_as_well(folder):
    assert measure(64, folder.parent / "none") == Row(64, "not begun")
    (folder / "status.json").write_text("[")
    assert measure(64, folder).state.startswith("cannot be read: ")


# ---- recommending
def rows(**scores: float) -> list[Row]:
    """`rows(w64=1.0)`: finished runs that scored so."""
    return [
        Row(
            width := int(name[1:]),
            "done",
            50,
            (100 * width, 50 * width),
            10.0 * width,
            "cpu",
            1,
            width / 10,
            width / 2,
            score,
            20.0,
            ("fid", 500, 300),
            ((0.0, 300.0), (20.0, score), (50.0, score * 1.1)),
        )
        for name, score in scores.items()
    ]


def test_the_narrowest_of_the_best_is_recommended():
    width, why = recommend(rows(w64=100.0, w80=65.0, w96=60.0, w128=63.0))
    assert width == 80
    assert why[:3] == [
        "96 has the best fid, 60",
        (
            "80: 65 (+8%) is within 10% of it, with 83% of its parameters, 83% of its time per"
            " epoch, 83% of its memory"
        ),
        "64: 100 (+67%) is worse by more than 10%",
    ]
    assert why[3] == "wider is no better: 128: 63 (+5%)"


def test_the_widest_is_recommended_where_it_alone_is_good():
    width, why = recommend(rows(w64=100.0, w96=80.0, w128=60.0))
    assert (
        width == 128
        and "nothing wider was compared" in why
        and "96: 80 (+33%) is worse by more than 10%" in why
    )


def test_an_overfitting_width_is_passed_over_where_another_is_as_good():
    found = rows(w64=61.0, w96=60.0)
    found[0] = replace(found[0], warnings=("d_overfitting",), overfit=0.9)
    assert (
        recommend(found)[0] == 96
        and "64: 61 (+2%) is as good, but its D overfits" in recommend(found)[1]
    )
    found[1] = replace(found[1], warnings=("d_overfitting", "score_flat"))
    width, why = recommend(found)
    assert width == 64 and any("its D overfits (valid/overfit 0.9)" in one for one in why)


def test_a_collapsed_width_is_not_recommended_whatever_its_score():
    found = rows(w64=30.0, w80=62.0, w96=60.0)
    alike = "samples are alike (diversity 0.079)"
    found[0] = replace(found[0], unsound=(alike,), verdict=f"failed: {alike}", diversity=0.079)
    width, why = recommend(found)
    assert width == 80 and f"64 is left out: {alike}" in why
    assert "its diversity and coverage were not measured: look at its samples" in why
    shown = text(found)
    assert f"* 64: failed: {alike}" in shown and "| 0.079 " in shown
    found = [replace(row, unsound=(alike,)) for row in found]
    assert recommend(found)[0] is None


def test_the_road_maps_stand_beside_what_was_measured_by_then():
    found = rows(w64=61.0, w80=60.0)
    scores = ((0.0, 180.0), (190.0, 95.0), (200.03, 90.0), (400.0, 70.0))
    found[0] = replace(found[0], epochs=600, scores=scores, real_prob=((499.0, 0.8), (501.0, 0.9)))
    lines = [line.split("|")[1:-1] for line in text(found).split("Road maps")[1].splitlines()[2:]]
    cells = {tuple(cell.strip() for cell in line[:3]): line[3].strip() for line in lines}
    assert cells["200", "sagan", "FID 80–100"] == "90"
    assert cells["500", "capacity", "D(x) 0.7–0.9"] == "0.8"
    assert cells["500", "sagan", "FID 60–80"] == "70"
    assert cells["1500", "sagan", "FID below 50"] == cells["3000", "capacity", "FID 60–65"] == "–"
    other = replace(found[0], measure=("frechet_standin", 500, 300))
    assert "| 90 frechet_standin " in text([other])


def test_what_takes_too_much_memory_is_left_out():
    width, why = recommend(rows(w64=100.0, w96=60.0, w128=40.0), limit_gb=1.0)
    assert width == 96 and "128 is left out: it takes 1.28 GB, allowed are 1" in why


def test_only_scores_measured_alike_are_compared():
    found = rows(w64=61.0, w80=60.0, w96=1.0)
    found[2] = replace(found[2], measure=("fid", 100, 300))
    width, why = recommend(found)
    assert (
        width == 64
        and "96 is left out: its score is fid of 100 samples against 300 images,"
        " that of the others fid of 500 samples against 300 images"
        in why
    )


def test_unfinished_widths_are_left_out_and_one_is_no_choice():
    found = rows(w64=61.0, w80=60.0)
    found[1] = replace(found[1], state="stopped")
    width, why = recommend([*found, Row(96, "not begun")])
    assert width is None
    assert why == [
        "80 is left out: stopped, epoch 50",
        "96 is left out: not begun, epoch 0",
        "at least two finished widths whose scores were measured alike are needed to compare",
    ]


def test_nothing_is_recommended_before_anything_has_learnt():
    width, why = recommend(rows(w64=290.0, w80=280.0))
    assert width is None and why[-1].startswith(
        "the best score, 280 at 80, is 93% of the untrained networks' 300"
    )


def test_doubts_are_told():
    found = rows(w64=61.0, w96=60.0)
    found[0] = replace(found[0], best_epoch=50.0, warnings=("real_prob_low",))
    found[1] = replace(found[1], epochs=80)
    _, why = recommend(found)
    assert "its run ended with warnings: real_prob_low; distgan report has their advice" in why
    assert (
        "its best score is that of its last evaluations (epoch 50): more epochs may change this"
        in why
    )
    assert "the widths were trained to different epochs: 64: 50, 96: 80" in why


# ---- showing
def test_estimates_stand_beside_measurements():
    found = [*rows(w64=61.0, w80=60.0), Row(96, "not begun")]
    lines = text(found).splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:5]]
    assert cells[0] == [
        "64",
        "6,400 (2.4 M)",
        "3,200 (2.7 M)",
        "9,600 (5.1 M)",
        "0.64 GB (5–6 GB)",
        "32 MB (20 MB)",
        "– (300 MB)",
        "6.4 s (150 s)",
        "– (125)",
        "–",
        "–",
        "61 @ 20 (FID 70–80)",
        "done, epoch 50",
    ]
    assert cells[1][3:8] == ["12,000 (7.2 M)", "0.80 GB", "40 MB", "–", "8 s"]
    assert cells[1][8:12] == ["–", "–", "–", "60 @ 20"]
    assert cells[2] == [
        "96",
        "– (5.4 M)",
        "– (6.1 M)",
        "– (11.5 M)",
        "– (7–9 GB)",
        "– (45 MB)",
        "– (675 MB)",
        "– (210 s)",
        "– (175)",
        "–",
        "–",
        "– (FID 60–70)",
        "not begun",
    ]
    assert len({len(line) for line in lines[:5]}) == 1
    assert (
        "3,802,112 weights, not 2.4 M" in text(found)
        and "no FID" not in text(found)
        and "Recommended: ngf = ndf = 64" in text(found)
    )
    assert "The score is no FID" in text(
        [replace(row, measure=("frechet_standin", 500, 300)) for row in found[:2]]
    )


def test_the_same_as_numbers():
    found = list(
        csv.DictReader(io.StringIO(table.table_csv([*rows(w64=61.0), Row(48, "not begun")])))
    )
    assert (
        found[0]["parameters_g"] == "6400"
        and found[0]["documents_parameters_m"] == "5.1"
        and found[0]["documents_epoch_s"] == "150.0"
    )
    assert (
        found[1]["score"] == ""
        and found[1]["documents_parameters_m"] == ""
        and found[1]["state"] == "not begun"
    )


@pytest.mark.gate
def test_the_plot_is_a_picture_of_any_rows(tmp_path):
    for name, found in (
        ("some", [*rows(w64=61.0, w96=60.0), Row(128, "not begun"), Row(48, "not begun")]),
        ("none", [Row(64, "not begun")]),
    ):
        widths_plot.draw(found, 64, tmp_path / f"{name}.png")
        with Image.open(tmp_path / f"{name}.png") as image:
            assert image.size[0] > 1000 and len(np.unique(np.asarray(image.convert("L")))) > 5


# ---- the command
@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["widths=64,a"], "widths: found '64,a', allowed: numbers from 1 to 1024"),
        (["widths="], "widths: found ''"),
        (
            ["widths=64,64,80"],
            (
                "widths: found '64,64,80', allowed: numbers from 1 to 1024 with commas between,"
                " each once"
            ),
        ),
        (["widths=0"], "widths: found '0'"),
        (["widths=2000"], "widths: found '2000'"),
        (["processes=0"], "processes: found '0', allowed: 1 to 4,096"),
        (["memory_gb=lots"], "memory-gb: found 'lots'"),
        (["ngf=64"], "ngf=64: no setting of a study; use widths"),
        (["machine.folder=x"], "use machine.runs or experiment"),
        (["grow=x"], "use distgan train capacity ngf=96"),
        (["epoch=3"], "epoch: unknown key (did you mean epochs"),
        (["widths"], '"widths" is not of the form key=value'),
    ],
    ids=str,
)
def test_a_bad_word_is_told_before_any_work(particles, tmp_path, monkeypatch, words, says):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError) as error:
        capacity.plan_study([f"data={particles}", *words])
    assert says in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_all_faults_are_told_at_once_and_missing_data_too(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError) as error:
        capacity.plan_study(["widths=a", "ngf=3", "epochs=-1"])
    assert all(
        part in str(error.value)
        for part in ("widths: found 'a'", "ngf=3: no setting", "epochs: found -1", "data: missing")
    )
    with pytest.raises(DataError, match="no shards in nowhere"):
        capacity.plan_study(["data=nowhere"])


@pytest.fixture
def played(particles, tmp_path, monkeypatch):
    """`played({64: "print(1)"}, "--task", "0/2")` -> (exit code, widths begun): a Python program in
    place of each training.
    """
    monkeypatch.chdir(tmp_path)
    begun = []

    def play(programs: dict[int, str], *words: str) -> tuple[int, list[int]]:
        def command(processes: int, arguments: list[str]) -> list[str]:
            assert arguments[0] == "capacity" and arguments[-2].removeprefix("ngf=") == arguments[
                -1
            ].removeprefix("ndf=")
            begun.append(int(arguments[-1].removeprefix("ndf=")))
            return [sys.executable, "-c", programs.get(begun[-1], "")]

        monkeypatch.setattr(capacity.launch_line, "command", command)
        return cli.guarded(capacity.main, [f"data={particles}", "widths=8,4,6", *words]), begun

    return play


def test_widths_are_trained_one_after_the_other(played, tmp_path):
    assert played({}) == (0, [4, 6, 8])
    assert sorted(path.name for path in (tmp_path / "runs" / "capacity").iterdir()) == [
        "capacity.csv",
        "capacity.md",
        "capacity.png",
    ]


def test_a_width_that_fails_is_told_and_the_others_go_on(played, capfd):
    assert played({6: "raise SystemExit(2)"}) == (1, [4, 6, 8])
    out = capfd.readouterr().out
    assert (
        "width 6 failed (exit code 2), see above; going on with 8" in out
        and "failed: 6; the same line again tries them again" in out
    )


@pytest.mark.gate
@pytest.mark.parametrize(
    ("task", "mine"), [("0/3", [4]), ("2/3", [8]), ("0/2", [4, 8]), ("4/5", [])]
)
def test_a_task_trains_its_widths_alone(played, task, mine):
    assert played({}, "--task", task) == (0, mine)


def test_tasks_are_those_of_the_array(played, monkeypatch):
    assert played({}, "--task", "3/3") == (2, [])
    for name, value in (("MIN", "1"), ("COUNT", "3"), ("ID", "2")):
        monkeypatch.setenv(f"SLURM_ARRAY_TASK_{name}", value)
    assert played({}, "--task", "slurm") == (0, [6])


def test_the_report_trains_nothing_and_writes_over_nothing(played, tmp_path, capfd, folder):
    """The table of another study lies there, as where the words are not those that it was trained
    with.
    """
    shutil.copytree(folder, tmp_path / "runs" / "capacity" / "ngf48-1a2b3c4d")
    (tmp_path / "runs" / "capacity" / "capacity.md").write_text("measured")
    assert played({}, "--report") == (2, [])
    error = capfd.readouterr().err
    assert (
        "none of the widths 4, 6, 8 has begun" in error
        and "ngf48-1a2b3c4d" in error
        and (tmp_path / "runs" / "capacity" / "capacity.md").read_text() == "measured"
    )


ASKED = (
    "import os, signal, time\nsignal.signal(signal.SIGTERM, lambda *_:"
    " os._exit(75))\nos.kill(os.getppid(), signal.{})\ntime.sleep(30)"
)


@pytest.mark.parametrize("number", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_a_study_that_is_asked_to_stop_asks_its_run_and_begins_no_other(
    played, number, capfd, monkeypatch
):
    before = signal.getsignal(signal.SIGINT)
    hangup = signal.signal(signal.SIGHUP, signal.SIG_DFL)  # nohup has it ignored, which is kept
    heard = {*capacity.STOP_SIGNALS, signal.SIGHUP}
    monkeypatch.setattr(capacity, "STOP_SIGNALS", tuple(heard))
    try:
        assert played({4: ASKED.format(number)}) == (75, [4])
    finally:
        signal.signal(signal.SIGHUP, hangup)
    assert "asked to stop; the same line again goes on" in capfd.readouterr().out
    assert signal.getsignal(signal.SIGINT) is before


def test_asked_twice_it_leaves_at_once(played):
    """The run is sent what a second Ctrl-C sends."""
    assert played(
        {
            4: (
                "import os, signal, time\nsignal.signal(signal.SIGTERM, lambda *_:"
                " os.kill(os.getppid(), signal.SIGINT))\nos.kill(os.getppid(),"
                " signal.SIGINT)\ntime.sleep(30)"
            )
        }
    ) == (75, [4])


STUDY = """
import sys
from distgan.launchers.capacity.command import _Child
child = "import sys, time; print(1, flush=True); time.sleep(60)"
with _Child() as one:
    one.run([sys.executable, "-c", child])
"""


def test_a_training_is_asked_to_save_when_the_study_is_killed():
    """SIGKILL, which the study cannot pass on: the pipe ends when its child does."""
    study = subprocess.Popen([sys.executable, "-c", STUDY], stdout=subprocess.PIPE)
    assert study.stdout.readline() == b"1\n"
    study.kill()
    study.wait()
    began = time.monotonic()
    assert study.stdout.read() == b"" and time.monotonic() - began < 30
    study.stdout.close()
