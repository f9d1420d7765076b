"""Settings changed in flight, and ways back.

Decided once, for all ranks, and the same after a restart.
"""

import json
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from processes import ends_differ_by, final, journal, line, run

from distgan.monitor.moves import format_setting

# D's loss cannot be above this threshold: trouble as soon as a window is full.
TROUBLE = (
    "ngf=2",
    "ndf=2",
    "latent=8",
    "batch=6",
    "epochs=6",
    "precision=float64",
    "validate_every=1",
    "watch.window=5",
    "watch.d_loss_strong=9",
    "watch.settle_epochs=1",
    "watch.moves.d_loss_low=[{setting: g_steps, add: 1, limit: 3},"
    " {setting: d_lr, factor: 0.5, limit: 5e-5},"
    " {setting: diffaugment, to: [color, translation, cutout]}]",
    "evaluate.samples=8",
    "evaluate.schedule=[[null, 1000]]",
    "sample_every=1000",
    "machine.checkpoint_every=1",
    "machine.keep=20",
)


def events(folder: Path, name: str) -> list[dict]:
    return [
        event
        for event in map(json.loads, (folder / "events.jsonl").read_text().splitlines())
        if event["event"] == name
    ]


def train(
    particles: Path,
    folder: Path,
    on_trouble: str,
    *more: str,
    launcher: str = "python",
    processes: int = 1,
) -> Path:
    run(
        line(launcher, processes),
        "sagan",
        f"data={particles}",
        f"machine.folder={folder}",
        f"watch.on_trouble={on_trouble}",
        *TROUBLE,
        *more,
        cwd=folder.parent,
    )
    return folder


@pytest.fixture(scope="module")
def adapted(particles, tmp_path_factory) -> Path:
    return train(particles, tmp_path_factory.mktemp("adapted") / "run", "adapt")


def test_moves_of_the_guide_are_made_and_written_down(adapted):
    made = events(adapted, "adapt")
    assert len(made) >= 2 and all(event["rule"] == "d_loss_low" for event in made)
    for event in made:
        for name, value in event["changes"].items():
            assert f"→{format_setting(value)}" in event["moves"]
            row = next(
                row
                for row in map(json.loads, (adapted / "journal.jsonl").read_text().splitlines())
                if f"adapt/{name}" in row and row["step"] == event["step"]
            )
            assert row[f"adapt/{name}"] == value
    assert made[0]["changes"]["diffaugment"] == ["color", "translation", "cutout"]
    rates = [row["d/lr"] for row in journal(adapted).values()]
    assert rates[0] == pytest.approx(2e-4) and rates[-1] < 1.5e-4
    assert (
        yaml.safe_load((adapted / "config.yaml").read_text())["d_lr"] == 2e-4
    )  # what was asked stays what was asked


def test_two_moves_lie_settle_epochs_apart(adapted):
    epochs = [event["epoch"] for event in events(adapted, "adapt")]
    assert all(b - a >= 1 for a, b in zip(epochs, epochs[1:], strict=False))


def test_a_restart_goes_on_with_the_changed_settings(particles, adapted, tmp_path):
    again = tmp_path / "run"
    shutil.copytree(adapted, again)
    (again / "DONE").unlink()
    for path in sorted((again / "checkpoints").glob("0*"))[4:]:
        shutil.rmtree(path)
    train(particles, again, "adapt")
    mine, theirs = final(again), final(adapted)
    assert all(torch.equal(mine[name], theirs[name]) for name in theirs)
    assert [row["d/lr"] for row in journal(again).values()] == [
        row["d/lr"] for row in journal(adapted).values()
    ]


def test_two_processes_decide_alike(particles, adapted, tmp_path):
    folder = train(particles, tmp_path / "run", "adapt", launcher="torchrun", processes=2)
    assert ends_differ_by(adapted, folder) < 1e-9
    assert [event["changes"] for event in events(folder, "adapt")] == [
        event["changes"] for event in events(adapted, "adapt")
    ]


@pytest.mark.parametrize(("launcher", "processes"), [("python", 1), ("torchrun", 2)])
def test_back_to_the_last_healthy_checkpoint_with_lower_rates(
    particles, tmp_path, launcher, processes
):
    folder = train(
        particles,
        tmp_path / "run",
        "rollback",
        "watch.max_rollbacks=2",
        launcher=launcher,
        processes=processes,
    )
    back = events(folder, "rollback")
    assert len(back) == 2
    rows = journal(folder)  # fails where a step stands twice
    assert sorted(rows) == list(range(1, max(rows) + 1))
    start = 2e-4
    for event in back:
        assert event["to_step"] < event["from_step"]
        assert event["changes"] == {
            "d_lr": pytest.approx(start / 2),
            "g_lr": pytest.approx(start / 2),
        }
        start /= 2
    assert rows[max(rows)]["d/lr"] == rows[max(rows)]["g/lr"] == pytest.approx(5e-5)
    assert (folder / "DONE").exists()


@pytest.mark.parametrize("how", ["rollback", "rollback_adapt"])
def test_a_run_that_went_back_and_was_restarted_ends_alike(particles, tmp_path, how):
    whole = train(particles, tmp_path / "whole", how, "watch.max_rollbacks=1")
    short = train(particles, tmp_path / "short", how, "watch.max_rollbacks=1", "epochs=3")
    train(particles, short, how, "watch.max_rollbacks=1")
    mine, theirs = final(short), final(whole)
    assert all(torch.equal(mine[name], theirs[name]) for name in theirs)


def test_back_to_the_last_healthy_checkpoint_with_the_moves_of_the_rule(particles, tmp_path):
    """Two processes; the journal has the changes, and D sees what DiffAugment makes."""
    back = ("rollback_adapt", "watch.max_rollbacks=2")
    folder = train(particles, tmp_path / "run", *back, launcher="torchrun", processes=2)
    first, second = events(folder, "rollback")
    assert first["to_step"] < first["from_step"] and first["changes"] == {
        "g_steps": 2,
        "d_lr": pytest.approx(1e-4),
        "diffaugment": ["color", "translation", "cutout"],
    }
    assert second["changes"] == {"g_steps": 3, "d_lr": pytest.approx(5e-5)}
    rows = journal(folder)  # fails where a step stands twice
    assert rows[max(rows)]["d/lr"] == pytest.approx(5e-5)
    assert rows[max(rows)]["g/lr"] == pytest.approx(2e-4)
    alone = train(particles, tmp_path / "alone", *back)
    assert ends_differ_by(alone, folder) < 1e-9


def test_stopped_by_trouble(particles, tmp_path):
    folder = train(particles, tmp_path / "run", "stop")
    done = json.loads((folder / "DONE").read_text())
    assert done["early"] and done["epoch"] < 4
    assert "d_loss_low" in events(folder, "done")[0]["early"]
