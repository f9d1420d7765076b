"""Killed at any moment, the same command goes on, and the end is the end of a run that was never
killed, bit for bit.
"""

import random
import shutil
import time
from pathlib import Path

import chaos
import psutil
import pytest
import torch
from compare import ADA
from processes import TINY, final, journal, line, run, start

EPOCHS = 24
ASK = [f"epochs={EPOCHS}", "machine.checkpoint_every=1", "machine.flush_steps=3", *TINY]


def train_undisturbed(where: Path, *ask: str) -> tuple[Path, float]:
    """Train whole in one go; return the run folder and how long it took."""
    where.mkdir(exist_ok=True)
    began = time.monotonic()
    run(line("torchrun", 2), "sagan", f"machine.folder={where / 'run'}", *ask, cwd=where)
    return where / "run", time.monotonic() - began


@pytest.fixture(scope="module")
def undisturbed(particles, tmp_path_factory):
    where = tmp_path_factory.mktemp("undisturbed")
    return train_undisturbed(where, f"data={particles}", *ASK)


def kill(process) -> None:
    """SIGKILL the launcher and every process below it."""
    below = psutil.Process(process.pid).children(recursive=True)
    for one in [psutil.Process(process.pid), *below]:
        try:
            one.kill()
        except psutil.NoSuchProcess:
            pass
    process.communicate()
    psutil.wait_procs(below, timeout=20)


def kill_and_finish(times: int, ask: list[str], where: Path, undisturbed, seed: int) -> None:
    folder, seconds = undisturbed
    arguments = ["sagan", f"machine.folder={where / 'run'}", *ask]
    rng = random.Random(seed)
    killed = 0
    while killed < times:
        process = start(line("torchrun", 2), *arguments, cwd=where)
        # From the moment workers start to a little before the run could be over.
        time.sleep(
            rng.uniform(2.0, max(seconds - 1.0, 3.0)) if killed % 3 else rng.uniform(2.0, 6.0)
        )
        if process.poll() is not None:
            process.communicate()
            shutil.rmtree(where / "run")  # it finished first: start again
            continue
        kill(process)
        killed += 1
    output = run(line("torchrun", 2), *arguments, cwd=where)
    assert (where / "run" / "DONE").exists()
    mine, theirs = final(where / "run"), final(folder)
    assert mine.keys() == theirs.keys()
    different = [name for name in mine if not torch.equal(mine[name], theirs[name])]
    assert not different, f"{different[:5]} after {output[-500:]}"
    # The journal has every step once, with the numbers of the undisturbed run.
    mine, theirs = journal(where / "run"), journal(folder)
    assert list(mine) == list(theirs)
    assert all(
        mine[step][name] == theirs[step][name]
        for step in theirs
        for name in ("d/loss", "g/loss", "d/grad_norm")
    )


def test_two_kills_change_nothing(particles, tmp_path, undisturbed):
    kill_and_finish(2, [f"data={particles}", *ASK], tmp_path, undisturbed, seed=1)


@pytest.mark.nightly
def test_kills_change_nothing_in_a_conditional_run_with_adaptive_augmentation(shapes, tmp_path):
    ask = [f"data={shapes}", "conditional=true", "label=shape", *ADA, *ASK]
    whole = train_undisturbed(tmp_path / "whole", *ask)
    assert any(row.get("d/ada", 0) > 0 for row in journal(whole[0]).values())
    kill_and_finish(3, ask, tmp_path, whole, seed=3)


@pytest.mark.nightly
def test_a_little_chaos(tmp_path):
    """Nine of the hundred kills of `make chaos`, three with each number of processes."""
    folder = str(tmp_path / "chaos")
    words = ["--kills", "9", "--processes", "1,2,3", "--seed", "2", "--folder", folder]
    assert chaos.main(words) == 0


def test_three_processes_go_on_to_the_bit(particles, tmp_path):
    """Of three numbers the order in which they are added matters.

    DDP lays gradients out anew after its first backward pass, and so changes it.
    """
    ask = ["sagan", f"data={particles}", "machine.checkpoint_every=1", *TINY]
    for folder, epochs in (("whole", 4), ("legs", 2), ("legs", 4)):
        run(
            line("torchrun", 3),
            *ask,
            f"epochs={epochs}",
            f"machine.folder={tmp_path / folder}",
            cwd=tmp_path,
        )
    mine, theirs = final(tmp_path / "legs"), final(tmp_path / "whole")
    assert all(torch.equal(mine[name], theirs[name]) for name in theirs)


def test_another_number_of_processes_goes_on(particles, tmp_path):
    """Two processes, then three, then one, against one process all the way."""
    from processes import ROUNDING

    whole, legs = tmp_path / "whole", tmp_path / "legs"
    ask = ["sagan", f"data={particles}", "precision=float64", "machine.checkpoint_every=1", *TINY]
    run(line("python"), *ask, "epochs=6", f"machine.folder={whole}", cwd=tmp_path)
    for epochs, command in (
        (2, line("torchrun", 2)),
        (4, line("torchrun", 3)),
        (6, line("python")),
    ):
        output = run(command, *ask, f"epochs={epochs}", f"machine.folder={legs}", cwd=tmp_path)
        assert epochs == 2 or "continuing from step" in output
    mine, theirs = journal(legs), journal(whole)
    assert (
        max(abs(mine[s][n] / theirs[s][n] - 1) for s in theirs for n in ("d/loss", "g/loss"))
        < ROUNDING
    )
    a, b = final(legs), final(whole)
    assert max(float((a[name] - b[name]).abs().max()) for name in a) < ROUNDING


def test_asked_to_stop_it_saves_and_goes_on(particles, tmp_path, undisturbed):
    """SIGTERM: all ranks agree, save at the step where they are and leave with 75 (the launcher
    turns that into 1).
    """
    folder, _ = undisturbed
    ask = ["sagan", f"data={particles}", f"machine.folder={tmp_path / 'run'}", *ASK]
    process = start(line("torchrun", 2), *ask, cwd=tmp_path)
    while (
        not (tmp_path / "run" / "journal.jsonl").exists()
        or len((tmp_path / "run" / "journal.jsonl").read_text().splitlines()) < 20
    ):
        assert process.poll() is None
        time.sleep(0.05)
    process.terminate()
    output, _ = process.communicate(timeout=60)
    assert process.returncode != 0
    assert "run the same line again to continue the run" in output
    assert not (tmp_path / "run" / "DONE").exists()
    run(line("torchrun", 2), *ask, cwd=tmp_path)
    a, b = final(tmp_path / "run"), final(folder)
    assert all(torch.equal(a[name], b[name]) for name in b)


@pytest.mark.parametrize("limit_kb", [2, 60])
def test_a_disk_that_is_full_is_one_message_and_the_run_goes_on_later(
    limit_kb, particles, tmp_path
):
    """No file may grow beyond the limit.

    The first sample grid meets it, or the first checkpoint.
    """
    ask = ["sagan", f"data={particles}", f"machine.folder={tmp_path / 'run'}", "epochs=2", *TINY]
    limited = ["bash", "-c", f"trap '' XFSZ; ulimit -f {limit_kb}; exec \"$@\"", "bash"]
    output = run([*limited, *line("torchrun", 2)], *ask, cwd=tmp_path, code=1)
    assert (
        output.count("error: cannot write") == 1
        and "File too large" in output
        and "[rank" not in output
    )
    run(line("torchrun", 2), *ask, cwd=tmp_path)
    assert len(journal(tmp_path / "run")) == 9
