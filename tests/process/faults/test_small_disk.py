"""A disk that fills up, or becomes read-only, while a run writes to it.

It stops with one message or goes on with a warning, and what was saved stays.
"""

import json
import subprocess

import pytest
from processes import TINY, broken, final, journal, line, run

from distgan.runs import checkpoints

# Ahead of the save of step 9 something happens to the disk; ahead of that of step {back} it is
# undone.
TROUBLE = """
    import errno, os, subprocess
    from distgan.runs import checkpoints
    usual, disk = checkpoints.save, os.environ["DISK"]
    def save(folder, step, players, state):
        if step == 9:
            {spoil}
        if step == {back}:
            {mend}
        return usual(folder, step, players, state)
    checkpoints.save = save
"""
FILLED = (
    """
            with open(disk + "/filler", "wb", 0) as file:
                try:
                    while file.write(bytes(4096)): pass
                except OSError as error:
                    assert error.errno == errno.ENOSPC""",
    "os.unlink(disk + '/filler')",
)
# The folder of checkpoints alone: of a whole file system it is refused while a file is open for
# writing.
READ_ONLY = (
    """
            place = disk + "/run/checkpoints"
            subprocess.run(["mount", "--bind", place, place], check=True)
            subprocess.run(["mount", "-o", "remount,ro,bind", place], check=True)""",
    "subprocess.run(['umount', disk + '/run/checkpoints'], check=True)",
)


@pytest.fixture
def disk(tmp_path):
    """A file system of its own of 8 MB."""
    where = tmp_path / "disk"
    where.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(where)],
        capture_output=True,
        text=True,
    )
    if done.returncode:
        pytest.skip(
            f"a small file system cannot be mounted here ({done.stderr.strip()}); it needs root:"
            " sudo make test"
        )
    yield where
    subprocess.run(["umount", "-R", "-l", str(where)], check=True)


def ask(particles, disk, *more):
    return [
        "sagan",
        f"data={particles}",
        f"machine.folder={disk / 'run'}",
        "epochs=4",
        "machine.checkpoint_every=1",
        "machine.keep=100",
        "machine.flush_steps=2",
        *more,
        *TINY,
    ]


def steps(folder):
    return [int(path.name) for path in checkpoints.present(folder / "checkpoints")]


@pytest.mark.parametrize("trouble", [FILLED, READ_ONLY], ids=["filled", "read-only"])
def test_it_stops_with_one_message_and_the_one_before_is_whole(trouble, particles, disk, tmp_path):
    program = broken(tmp_path, TROUBLE.format(spoil=trouble[0], mend=trouble[1], back=-1))
    output = run(
        line("torchrun", 2, program),
        *ask(particles, disk),
        cwd=tmp_path,
        code=1,
        cold=False,
        DISK=str(disk),
    )
    assert output.count("error: cannot write") == 1 and "[rank" not in output
    assert (
        ("No space left" in output or "os error 28" in output)
        if trouble is FILLED
        else "Read-only file system" in output
    )
    assert steps(disk / "run") == [5]
    assert checkpoints.newest(disk / "run/checkpoints")[1]["step"] == 5
    exec(trouble[1], {"os": __import__("os"), "subprocess": subprocess, "disk": str(disk)})
    output = run(line("torchrun", 2), *ask(particles, disk), cwd=tmp_path)
    assert "continuing from step 5" in output
    assert list(journal(disk / "run")) == list(range(1, 19))


@pytest.mark.parametrize("trouble", [FILLED, READ_ONLY], ids=["filled", "read-only"])
def test_it_goes_on_with_a_warning_and_tries_again(trouble, particles, disk, tmp_path):
    program = broken(tmp_path, TROUBLE.format(spoil=trouble[0], mend=trouble[1], back=14))
    output = run(
        line("torchrun", 2, program),
        *ask(particles, disk, "machine.on_full_disk=warn"),
        cwd=tmp_path,
        cold=False,
        DISK=str(disk),
    )
    assert (
        "warning: cannot write" in output
        and "Going on without it, because of machine.on_full_disk=warn" in output
    )
    assert (disk / "run/DONE").exists()
    assert steps(disk / "run") == [5, 14, 18]
    # No line of the journal is lost, or stands there twice; and the result is that of a run that
    # had room.
    assert list(journal(disk / "run")) == list(range(1, 19))
    assert all(json.loads(text) for text in (disk / "run/events.jsonl").read_text().splitlines())
    run(line("torchrun", 2), *ask(particles, tmp_path), cwd=tmp_path)
    mine, theirs = final(disk / "run"), final(tmp_path / "run")
    assert all(mine[name].equal(value) for name, value in theirs.items())


def test_a_log_on_the_full_disk_ends_nothing(particles, disk, tmp_path):
    """As in a job of Slurm, whose log is in the run folder."""
    fill = FILLED[0] + "\n            os.write(1, bytes(4096))"  # what its last page has room for
    program = broken(tmp_path, TROUBLE.format(spoil=fill, mend=FILLED[1], back=14))
    to_log = ["bash", "-c", 'exec "$@" >> "$DISK/log" 2>&1', "-"]
    run(
        [*to_log, *line("python", program=program)],
        *ask(particles, disk, "machine.on_full_disk=warn"),
        cwd=tmp_path,
        cold=True,
        DISK=str(disk),
    )
    assert (disk / "run/DONE").exists() and steps(disk / "run") == [5, 14, 18]
    record = json.loads((disk / "run/attempts/000/attempt.json").read_text())
    assert record["not_printed"]["reason"] == "No space left on device"


# The 64 kB of shared memory of some containers.
SMALL = [
    "unshare",
    "-m",
    "bash",
    "-c",
    'mount -t tmpfs -o size=64k tmpfs /dev/shm && exec "$@"',
    "-",
]
NOT_ASKED_BEFORE = """
    from distgan.data import loader
    loader.Stream.require_room = lambda self: None
"""


@pytest.mark.parametrize("fault", ["", NOT_ASKED_BEFORE], ids=["before", "while it trains"])
def test_a_small_shared_memory_is_told(fault, particles, disk, tmp_path):
    """`disk`: what is skipped without root."""
    output = run(
        [*SMALL, *line("python", program=broken(tmp_path, fault))],
        *ask(particles, tmp_path, "machine.resident_mb=0", "machine.workers=2"),
        cwd=tmp_path,
        cold=True,
        code=2,
    )
    assert output.count("error: decoding processes hand batches over in /dev/shm") == 1
    assert "machine.workers=0" in output and "--shm-size" in output and "Traceback" not in output
    assert fault or not journal(tmp_path / "run")


def test_the_last_checkpoint_must_be_written(particles, disk, tmp_path):
    program = broken(tmp_path, TROUBLE.format(spoil=FILLED[0], mend="pass", back=-1))
    output = run(
        line("python", program=program),
        *ask(particles, disk, "machine.on_full_disk=warn"),
        cwd=tmp_path,
        code=2,
        cold=False,
        DISK=str(disk),
    )
    assert (
        "warning: cannot write" in output
        and output.count("error: cannot write") == 1
        and not (disk / "run/DONE").exists()
    )
