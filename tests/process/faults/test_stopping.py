"""What asks a run to save or to stop, and what ends a process that hangs or has lost another.

Real processes, killed and signalled.
"""

import contextlib
import fcntl
import json
import os
import pty
import re
import shlex
import signal
import subprocess
import termios
import threading
import time

import psutil
import pytest
import torch
from processes import BIN, TINY, TRAIN, broken, environment, final, journal, line, run, start

EPOCHS = 12
ASK = [
    f"epochs={EPOCHS}",
    "machine.checkpoint_every=100",
    "machine.flush_steps=3",
    "evaluate.schedule=[[null,100]]",
    *TINY,
]


@pytest.fixture(scope="module")
def undisturbed(particles, tmp_path_factory):
    where = tmp_path_factory.mktemp("undisturbed")
    run(
        line("python"),
        "sagan",
        f"data={particles}",
        f"machine.folder={where / 'run'}",
        *ASK,
        cwd=where,
    )
    return where / "run"


def ask(particles, where, *more):
    return ["sagan", f"data={particles}", f"machine.folder={where / 'run'}", *ASK, *more]


def wait_for(process, folder, steps=6):
    path = folder / "journal.jsonl"
    while not path.exists() or len(path.read_text().splitlines()) < steps:
        assert process.poll() is None, process.communicate()[0][-2000:]
        time.sleep(0.05)


def events(folder, name):
    return [
        event
        for event in map(json.loads, (folder / "events.jsonl").read_text().splitlines())
        if event["event"] == name
    ]


def drain(terminal):
    """Read what is printed to a terminal until it is closed."""
    with contextlib.suppress(OSError):
        while os.read(terminal, 4096):
            pass


def attempt(folder, number=0):
    return json.loads((folder / f"attempts/{number:03d}/attempt.json").read_text())


def equal(a, b):
    mine, theirs = final(a), final(b)
    return mine.keys() == theirs.keys() and all(
        torch.equal(mine[name], theirs[name]) for name in mine
    )


# ---- asked to stop
@pytest.mark.parametrize("name", ["SIGTERM", "SIGUSR1", "SIGUSR2", "SIGINT", "SIGHUP"])
def test_a_signal_saves_and_leaves_with_75(name, particles, tmp_path, undisturbed):
    heard = ["env", f"--default-signal={name}"]  # also where the tests themselves ignore it
    process = start([*heard, *line("python")], *ask(particles, tmp_path), cwd=tmp_path)
    wait_for(process, tmp_path / "run")
    process.send_signal(getattr(signal, name))
    if name != "SIGINT":
        process.send_signal(getattr(signal, name))  # once more: handlers are idempotent
    output, _ = process.communicate(timeout=60)
    assert (
        process.returncode == 75
        and "run the same line again to continue the run" in output
        and "Traceback" not in output
    )
    assert (
        attempt(tmp_path / "run")["cause"] == f"signal {name}"
        and not (tmp_path / "run/DONE").exists()
    )
    assert json.loads((tmp_path / "run/status.json").read_text())["state"] == "stopped"
    run(line("python"), *ask(particles, tmp_path), cwd=tmp_path)
    assert equal(tmp_path / "run", undisturbed)


def test_ctrl_c_of_distgan_run_saves_and_leaves_with_75(particles, tmp_path, undisturbed):
    words = [str(BIN / "distgan"), "run", "--processes", "2", *ask(particles, tmp_path)]
    process = start(["env", "--default-signal=INT", *words], cwd=tmp_path)
    wait_for(process, tmp_path / "run")
    process.send_signal(signal.SIGINT)  # of a terminal: its ranks are sessions of their own
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 75 and "Traceback" not in output and "elastic" not in output
    assert output.splitlines()[-1].startswith("saved and stopped; run the same line again")
    process = start(words, cwd=tmp_path)
    wait_for(process, tmp_path / "run", 30)
    rank = next(
        child
        for child in psutil.Process(process.pid).children()
        if child.environ().get("RANK") == "1"
    )
    rank.kill()
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 137 and "Traceback" not in output
    assert "error: rank 1 was ended by SIGKILL" in output
    run(words, cwd=tmp_path)
    assert final(tmp_path / "run").keys() == final(undisturbed).keys()


def test_a_signal_to_the_whole_group_leaves_the_decoding_processes_alone(
    particles, tmp_path, undisturbed
):
    """As a scheduler sends it. What they decode is needed until the step is done."""
    more = ("machine.resident_mb=0", "machine.workers=2")
    process = start(["setsid", *line("python")], *ask(particles, tmp_path, *more), cwd=tmp_path)
    wait_for(process, tmp_path / "run")
    for number in (signal.SIGUSR1, signal.SIGTERM):
        os.killpg(process.pid, number)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 75 and "Traceback" not in output
    run(line("python"), *ask(particles, tmp_path, *more), cwd=tmp_path)
    assert equal(tmp_path / "run", undisturbed)


def test_under_nohup_neither_sighup_nor_the_end_of_the_shell_ends_it(
    particles, tmp_path, undisturbed
):
    shell = ["setsid", "sh", "-c", 'nohup "$@" > out.txt 2>&1 & echo $!', "-"]
    words = [*shell, *line("python"), *ask(particles, tmp_path)]
    done = subprocess.run(
        words, cwd=tmp_path, env=environment(), capture_output=True, text=True, check=True
    )
    process = psutil.Process(int(done.stdout))
    while not (tmp_path / "run/journal.jsonl").exists():
        time.sleep(0.05)
    process.send_signal(signal.SIGHUP)
    psutil.wait_procs([process], timeout=120)
    assert equal(tmp_path / "run", undisturbed), (tmp_path / "out.txt").read_text()


@pytest.mark.parametrize("processes", [1, 2])
def test_a_dropped_connection_saves_and_leaves(processes, particles, tmp_path, undisturbed):
    """The terminal is closed, whose shell and foreground processes get SIGHUP."""
    folder, way = tmp_path / "run", "python" if processes == 1 else "torchrun"
    command = shlex.join([*line(way, processes), *ask(particles, tmp_path)])
    ours, theirs = pty.openpty()
    shell = subprocess.Popen(
        ["env", "--default-signal=HUP", "bash", "-c", f"{command}; true"],
        cwd=tmp_path,
        env=environment(),
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        preexec_fn=lambda: (os.setsid(), fcntl.ioctl(0, termios.TIOCSCTTY, 0)),
    )
    os.close(theirs)
    threading.Thread(target=drain, args=(ours,), daemon=True).start()
    wait_for(shell, folder)
    below = psutil.Process(shell.pid).children(recursive=True)
    os.close(ours)
    shell.wait(60)
    assert not psutil.wait_procs(below, timeout=60)[1]
    assert attempt(folder)["cause"] == "signal SIGHUP"
    assert json.loads((folder / "status.json").read_text())["state"] == "stopped"
    assert events(folder, "checkpoint")[-1]["step"] == max(journal(folder))
    run(line("python"), *ask(particles, tmp_path), cwd=tmp_path)
    assert len(journal(folder)) == len(journal(undisturbed))


@pytest.mark.parametrize("way", ["torchrun", "accelerate", "accelerate with one process"])
def test_ranks_whose_launcher_is_killed_save_and_leave(way, particles, tmp_path):
    folder = tmp_path / "run"
    command = line(way.partition(" ")[0], 2)
    if way == "accelerate with one process":
        command = [word for word in line("accelerate", 1) if word != "--multi_gpu"]
    with open(tmp_path / "out.txt", "w") as output:
        process = subprocess.Popen(
            [*command, *ask(particles, tmp_path)],
            cwd=tmp_path,
            env=environment(),
            stdout=output,
            stderr=output,
        )
    wait_for(process, folder)
    ranks = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    process.wait()
    assert not psutil.wait_procs(ranks, timeout=60)[1]
    assert re.fullmatch(
        "the launcher of (this process|another rank) is gone", attempt(folder)["cause"]
    )
    assert events(folder, "checkpoint")[-1]["step"] == max(journal(folder)) < 54


def test_the_file_stop_is_taken_away_and_save_goes_on(particles, tmp_path, undisturbed):
    process = start(line("python"), *ask(particles, tmp_path), cwd=tmp_path)
    folder = tmp_path / "run"
    wait_for(process, folder)
    (folder / "SAVE").touch()
    while (folder / "SAVE").exists():
        assert process.poll() is None
        time.sleep(0.05)
    saved = events(folder, "checkpoint")
    (folder / "STOP").touch()
    output, _ = process.communicate(timeout=60)
    if process.returncode == 75:  # else it had ended before it looked
        assert (
            attempt(folder)["cause"] == "the file STOP"
            and not (folder / "STOP").exists()
            and len(events(folder, "checkpoint")) == len(saved) + 1
        )
    assert len(saved) == 1 and saved[0]["step"] > 0
    (folder / "STOP").unlink(missing_ok=True)
    run(line("python"), *ask(particles, tmp_path), cwd=tmp_path)
    assert equal(folder, undisturbed)


def test_it_leaves_before_its_time_ends(particles, tmp_path, undisturbed):
    """With two processes, of which one knows the time."""
    folder = tmp_path / "run"
    words = ask(particles, tmp_path)
    output = run(line("torchrun", 2), *words, "machine.time_limit_s=11", cwd=tmp_path, code=1)
    assert "saved and stopped" in output and attempt(folder)["cause"] == "the end of the job's time"
    assert events(folder, "checkpoint")[-1]["step"] >= 1
    run(line("python"), *words, cwd=tmp_path)
    assert len(journal(folder)) == len(journal(undisturbed))


# ---- hanging, gone
HANGS = """
    import os, time
    from distgan.recipes import sagan
    usual = sagan.Recipe.step
    def step(self, batches, now):
        if now.step == 4 and os.environ.get("RANK", "0") == "{rank}":
            time.sleep(600)
        return usual(self, batches, now)
    sagan.Recipe.step = step
"""


@pytest.mark.parametrize("processes", [1, 2])
def test_a_process_that_hangs_says_where_and_all_leave(processes, particles, tmp_path):
    program = broken(tmp_path, HANGS.format(rank=processes - 1))
    began = time.monotonic()
    output = run(
        line("torchrun", processes, program),
        *ask(particles, tmp_path, "machine.stall_s=6"),
        cwd=tmp_path,
        code=1,
    )
    assert time.monotonic() - began < 90
    stacks = (tmp_path / f"run/attempts/000/stacks-rank{processes - 1}.txt").read_text()
    assert "Timeout (0:00:06)!" in stacks and re.search(r"in step\b", stacks)
    assert not (tmp_path / "run/DONE").exists() and output


def workers_of(process):
    """The ranks below a launcher, in the order of their numbers."""
    found = []
    for child in psutil.Process(process.pid).children(recursive=True):
        try:
            if str(TRAIN) in " ".join(child.cmdline()) and "RANK" in child.environ():
                found.append((int(child.environ()["RANK"]), child))
        except psutil.Error:
            continue
    return [child for _, child in sorted(found, key=lambda pair: pair[0])]


@pytest.mark.parametrize("killed", [0, 1])
def test_when_a_rank_is_killed_the_other_says_so_and_leaves(killed, particles, tmp_path):
    process = start(line("torchrun", 2), *ask(particles, tmp_path, "epochs=200"), cwd=tmp_path)
    wait_for(process, tmp_path / "run")
    workers_of(process)[killed].kill()
    output, _ = process.communicate(timeout=60)
    assert process.returncode != 0
    assert killed == 0 or "another process of this run has gone, or does not answer" in output, (
        output[:3000]
    )


def test_torchrun_starts_the_ranks_again_and_the_run_goes_on(particles, tmp_path, undisturbed):
    command = line("torchrun", 2)
    command[1:1] = ["--max-restarts", "3"]
    words = [
        word for word in ask(particles, tmp_path) if not word.startswith("machine.checkpoint_every")
    ]
    process = start(command, *words, "machine.checkpoint_every=1", cwd=tmp_path)
    wait_for(process, tmp_path / "run", 12)
    workers_of(process)[1].kill()
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0, output[-3000:]
    assert re.search(r"resumed: \d+ steps lost, \d+ s downtime", output)
    (again,) = events(tmp_path / "run", "training_again")
    assert again["steps_lost"] <= 12 and again["seconds"] < 60
    assert len(journal(tmp_path / "run")) == len(journal(undisturbed))


def test_a_validation_may_take_three_times_the_groups_time_out(particles, tmp_path):
    program = broken(
        tmp_path,
        """
        import time
        from distgan.recipes import sagan
        usual = sagan.Recipe.validate
        def validate(self, data):
            time.sleep(12)
            return usual(self, data)
        sagan.Recipe.validate = validate
    """,
    )
    run(
        line("torchrun", 2, program),
        *ask(particles, tmp_path, "epochs=1", "validate_every=100", "machine.timeout_s=4"),
        cwd=tmp_path,
    )
    assert (tmp_path / "run/DONE").exists()


def test_ranks_that_hold_other_weights_are_found_before_they_are_saved(particles, tmp_path):
    program = broken(
        tmp_path,
        """
        import os
        from distgan.recipes import sagan
        usual = sagan.Recipe.step
        def step(self, batches, now):
            log = usual(self, batches, now)
            if now.step == 3 and os.environ["RANK"] == "1":
                tensors = self.G.ema.state_dict()
                first = "project.weight" if "project.weight" in tensors else next(iter(tensors))
                tensors[first].add_(1e-6)
            return log
        sagan.Recipe.step = step
    """,
    )
    output = run(
        line("torchrun", 2, program),
        *ask(particles, tmp_path, "epochs=2", "machine.checkpoint_every=1"),
        cwd=tmp_path,
        code=1,
    )
    assert re.search(
        r"error: after step \d+ rank 1 holds other values than rank 0 in G\.ema\.\S+; nothing was"
        r" saved",
        output,
    )
    assert not list((tmp_path / "run/checkpoints").iterdir())
