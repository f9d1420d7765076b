"""A disk that fills up or becomes read-only at a save, in this process, by errors put in.

tests/process/faults/test_small_disk.py has real file systems and two processes.
"""

import errno
import json
import os

import pytest
from processes import TINY, final, journal

from distgan import cli, train
from distgan.runs import checkpoints

TROUBLES = {"full": errno.ENOSPC, "read-only": errno.EROFS}


@pytest.fixture
def ran(particles, tmp_path, monkeypatch, capsys):
    """A function: train 14 steps, of which a save in `steps` fails; (exit code, output)."""
    usual = checkpoints.save_file

    def run(folder: str, trouble: int, *words: str, steps=(9,)) -> tuple[int, str]:
        def save_file(tensors, path, *args, **kwargs):
            if any(f"{step:08d}" in str(path) for step in steps):
                with open(path, "wb") as file:
                    file.write(b"half")  # what there was room for
                raise OSError(trouble, os.strerror(trouble), str(path))
            return usual(tensors, path, *args, **kwargs)

        monkeypatch.setattr(checkpoints, "save_file", save_file)
        code = cli.guarded(
            train.main,
            ["sagan", f"data={particles}", f"machine.folder={tmp_path / folder}", "epochs=3"]
            + ["machine.checkpoint_every=1", "machine.keep=100", "evaluate.schedule=[[null, 99]]"]
            + [*TINY, *words],
        )
        printed = capsys.readouterr()
        return code, printed.out + printed.err

    return run


def steps_of(folder) -> list[int]:
    return [int(path.name) for path in checkpoints.present(folder / "checkpoints")]


@pytest.mark.parametrize("trouble", ["full", pytest.param("read-only", marks=pytest.mark.gate)])
def test_it_stops_with_one_message_and_goes_on_later(trouble, ran, tmp_path):
    code, output = ran("run", TROUBLES[trouble])
    assert code == 2 and output.count("error: cannot write") == 1 and "Traceback" not in output
    assert os.strerror(TROUBLES[trouble]) in output
    assert steps_of(tmp_path / "run") == [5]
    assert checkpoints.newest(tmp_path / "run" / "checkpoints")[1]["step"] == 5
    code, output = ran("run", 0, steps=())
    assert code == 0 and "continuing from step 5" in output
    assert list(journal(tmp_path / "run")) == list(range(1, 15))


@pytest.mark.gate
def test_it_goes_on_with_a_warning_and_ends_as_if_there_had_been_room(ran, tmp_path):
    code, output = ran("run", errno.ENOSPC, "machine.on_full_disk=warn")
    assert code == 0 and "Going on without it, because of machine.on_full_disk=warn" in output
    assert 9 not in steps_of(tmp_path / "run") and steps_of(tmp_path / "run")[-1] == 14
    assert list(journal(tmp_path / "run")) == list(range(1, 15))
    assert ran("whole", 0, steps=())[0] == 0
    left, whole = final(tmp_path / "run"), final(tmp_path / "whole")
    assert all(left[name].equal(value) for name, value in whole.items())
    json.loads((tmp_path / "run" / "DONE").read_text())


@pytest.mark.gate
def test_the_last_checkpoint_must_be_written(ran, tmp_path):
    code, output = ran("run", errno.ENOSPC, "machine.on_full_disk=warn", steps=(9, 14))
    assert code == 2 and "warning: cannot write" in output
    assert output.count("error: cannot write") == 1 and not (tmp_path / "run" / "DONE").exists()
