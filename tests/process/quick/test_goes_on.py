"""A run goes on after its end and ends with its story; its journal is on the disk first."""

import json

from broken_trainers import FROM_STEP_6
from processes import TINY, broken, events, line, run

from distgan.runs.history import read_history


def test_the_journal_is_on_the_disk_before_the_checkpoint_that_counts_on_it(particles, tmp_path):
    """A power cut takes what was not synced.

    Told by a program that prints every file as it is synced.
    """
    program = broken(
        tmp_path,
        """
        import os
        usual = os.fsync
        def fsync(number):
            usual(number)
            print("synced", os.path.basename(os.readlink(f"/proc/self/fd/{number}")))
        os.fsync = fsync
    """,
    )
    output = run(
        line("python", program=program),
        "sagan",
        f"data={particles}",
        f"machine.folder={tmp_path / 'run'}",
        "epochs=1",
        *TINY,
        cwd=tmp_path,
    )
    synced = [text.split()[1] for text in output.splitlines() if text.startswith("synced ")]
    assert {"journal.jsonl", "networks.safetensors", ".tmp-00000005"} <= set(synced)
    assert any(name.startswith("identity.json.tmp-") for name in synced)
    assert synced.index("journal.jsonl") < synced.index("networks.safetensors")


def test_running_a_finished_run_says_so(particles, tmp_path):
    ask = ["sagan", f"data={particles}", "epochs=1", *TINY]
    first = run(line("python"), *ask, cwd=tmp_path)
    (folder,) = (tmp_path / "runs" / "sagan").iterdir()
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}
    output = run(line("python"), *ask, cwd=tmp_path)
    assert "is finished" in output and "distgan report" in output
    changed = [path.name for path, at in before.items() if path.stat().st_mtime_ns != at]
    assert not changed
    # A longer run is the same run, continued.
    longer = run(line("python"), *ask[: -len(TINY) - 1], "epochs=2", *TINY, cwd=tmp_path)
    assert "continuing from step" in longer
    # The terminal, status.json and the report have one sentence, that of two epochs at once: the
    # evaluation at the end of the first is not on the schedule.
    assert "\nverdict: too early to judge: 1 evaluation after the start" in first
    sentence = read_history(folder).verdict.sentence
    assert sentence.startswith("too early to judge: 1 evaluation after the start")
    assert f"\nverdict: {sentence}\n" in longer
    assert json.loads((folder / "status.json").read_text())["verdict"] == sentence


def test_then_the_run_ends_with_its_story(particles, tmp_path):
    program = broken(tmp_path, FROM_STEP_6.format("True"))
    output = run(
        line("python", program=program),
        "sagan",
        f"data={particles}",
        f"machine.folder={tmp_path / 'run'}",
        "epochs=6",
        "rollback_every=1",
        "max_skips=3",
        "machine.checkpoint_every=0.5",
        "machine.flush_steps=2",
        "watch.max_rollbacks=2",
        *TINY,
        cwd=tmp_path,
        code=2,
    )
    assert len(events(tmp_path / "run", "rollback")) == 2
    assert (
        "error: bad numbers: 6 of the last 6 updates of D had a loss or gradient that is not"
        " finite, up to step 20; the run went back 2 times, down to g_lr=5e-5, d_lr=5e-5; the"
        " checkpoint of step 5 is good, and kept." in output
    )
    assert "Traceback" not in output
    assert len(list((tmp_path / "run/attempts/000/bad").iterdir())) <= 8
