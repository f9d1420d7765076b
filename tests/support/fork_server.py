"""Processes that need not import torch again: each is forked from one that has, and imports all of
distgan itself.

A start of torch, accelerate and a launcher costs 4 to 8 s of CPU in every process, most of what a
test with real processes takes. `Nursery` is a process that has imported the packages of others, has
one thread and has done nothing else. For a command of tests/support/processes.py it forks the
process which that command would start: with its arguments, its environment, its folder and its
output, in a session of its own. torchrun and `accelerate launch` are the real ones; the workers
that they start are forked as well, before they do anything. Nothing of distgan is imported ahead,
as some of it looks at the environment while it is imported.

DISTGAN_COLD_TESTS=1 starts every process from nothing. Tests that ask for it (`cold`) always do,
and those that use `processes.start`: the documented lines, every way of starting in float64, the
start of a run that is to be killed or stopped, what DeepSpeed prints. What only they can see,
because all forked processes share it: the order of sets, which Python draws anew for each process,
and what other packages do to the environment as they are imported.
"""

import atexit
import contextlib
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from pathlib import Path
from typing import IO

BIN = Path(sys.executable).parent
WAYS = {sys.executable, *(str(BIN / name) for name in ("torchrun", "accelerate", "distgan"))}


# ---- on the tests' side
class Nursery:
    """The process that the others are forked from. It ends with the one that made it."""

    def __init__(self, environment: dict[str, str], *packages: str):
        self._here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with there:
            self._process = subprocess.Popen(
                [sys.executable, __file__, str(there.fileno()), *packages],
                env=environment,
                pass_fds=[there.fileno()],
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        atexit.register(self.close)

    def close(self) -> None:
        self._here.close()
        self._process.wait()

    def run(
        self, command: list[str], cwd: Path, environment: dict[str, str], timeout: float
    ) -> tuple[int, str]:
        """(Exit code, output with that of stderr).

        As with subprocess, all that hold the output must have ended.
        """
        mine, theirs = socket.socketpair()
        read, write = os.pipe()
        with mine, open(read, "rb") as output:
            with (
                theirs,
                written({"command": command, "cwd": str(cwd), "environment": environment}) as order,
            ):
                socket.send_fds(self._here, [b"run"], [order.fileno(), theirs.fileno(), write])
                os.close(write)
            mine.settimeout(timeout)
            pid, ends, parts = int(mine.recv(16)), time.monotonic() + timeout, []
            while select.select([output], [], [], max(ends - time.monotonic(), 0))[0]:
                if not (part := os.read(output.fileno(), 1 << 16)):
                    return int(mine.recv(16)), b"".join(parts).decode()
                parts.append(part)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)
            raise subprocess.TimeoutExpired(command, timeout, b"".join(parts).decode())


def written(what: object) -> IO[bytes]:
    """A file without a name that holds `what`."""
    file = tempfile.TemporaryFile()
    file.write(json.dumps(what).encode())
    file.seek(0)
    return file


def can(command: list[str]) -> bool:
    """Whether such a command is forked.

    One that tests/support/processes.py makes, of text alone.
    """
    return (
        command[0] in WAYS
        and all(isinstance(word, str) for word in command)
        and not os.environ.get("DISTGAN_COLD_TESTS")
    )


# ---- in the nursery
def serve(door: socket.socket) -> dict:
    """Fork a process for each order.

    Returns in that process, with the order. Waits for those that have ended, so that their CPU time
    is counted.
    """
    while True:
        _, fds, _, _ = socket.recv_fds(door, 16, 3)
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, 0 if not fds else os.WNOHANG)[0]:
                pass
        if not fds:
            os._exit(0)
        if os.fork() == 0:
            door.close()
            return _attended(*fds)
        for fd in fds:
            os.close(fd)


def _attended(order: int, answer: int, output: int) -> dict:
    """One process waits for the other and tells how it ended; returns in the other."""
    if pid := os.fork():
        os.close(output)
        os.write(answer, b"%d" % pid)
        _, status = os.waitpid(pid, 0)
        with contextlib.suppress(BrokenPipeError):
            os.write(answer, b"%d" % os.waitstatus_to_exitcode(status))
        os._exit(0)
    os.setsid()
    os.close(answer)
    with open(order, "rb") as file:
        found = json.loads(file.read())
    for fd in (1, 2):
        os.dup2(output, fd)
    os.close(output)
    os.chdir(found["cwd"])
    return found


# ---- in a process of a test
def become(command: list[str], environment: dict[str, str]) -> int:
    """Run a command's program as Python would; the exit code."""
    os.environ.clear()
    os.environ.update(environment)
    import numpy

    numpy.random.seed()
    program, *words = command
    try:
        if program == sys.executable:
            _python(words)
        else:
            _script(program, words)
    except SystemExit as end:
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def _python(words: list[str]) -> None:
    if words[0] == "-u":
        words = words[1:]
        sys.stdout.reconfigure(write_through=True)
    if words[0] == "-m":
        sys.path[0] = os.getcwd()
        if words[1] == "torch.distributed.run":
            workers(_count(words))
        sys.argv = words[1:]
        runpy.run_module(words[1], run_name="__main__", alter_sys=True)
    else:
        sys.path[0] = str(Path(words[0]).resolve().parent)
        sys.argv = words
        runpy.run_path(words[0], run_name="__main__")


def _script(program: str, words: list[str]) -> None:
    sys.path[0] = str(BIN)
    sys.argv = [program, *words]
    if not program.endswith("distgan"):
        workers(_count(words))
    runpy.run_path(program, run_name="__main__")


def _count(words: list[str]) -> int:
    """How many processes a launcher is asked for."""
    return next(
        (
            int(n)
            for word, n in zip(words, words[1:], strict=False)
            if word in ("--nproc-per-node", "--num_processes")
        ),
        1,
    )


class Worker:
    """A forked process that looks like subprocess.Popen, as far as torch's launcher looks."""

    def __init__(self):
        read, self._write = os.pipe()
        self.args, self.returncode, self.pid = None, None, os.fork()
        if self.pid == 0:
            os.close(self._write)
            for other in READY:
                os.close(other._write)
            with open(read, "rb") as orders:
                order = json.loads(orders.read() or "null")
            if order is None:  # the launcher has ended and did not need this one
                os._exit(0)
            os.setsid()
            leave(become(**order))
        os.close(read)

    def begin(self, command: list[str], environment: dict[str, str]) -> "Worker":
        self.args = command
        with open(self._write, "wb") as orders:
            orders.write(
                json.dumps({"command": list(command), "environment": environment}).encode()
            )
        return self

    def poll(self) -> int | None:
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        ends = None if timeout is None else time.monotonic() + timeout
        while self.poll() is None:
            if ends is not None and time.monotonic() > ends:
                raise subprocess.TimeoutExpired(self.args, timeout)
            time.sleep(0.01)
        return self.returncode


READY: list[Worker] = []


def workers(count: int) -> None:
    """Fork this many, while there is one thread, for the launcher to find where it starts
    processes. It starts further ones itself.
    """
    from torch.distributed.elastic.multiprocessing.subprocess_handler.subprocess_handler import (
        SubprocessHandler,
    )

    for _ in range(count):
        READY.append(Worker())

    def popen(self, args, env, usual=SubprocessHandler._popen):
        if READY and args[0] == sys.executable and not (self._stdout or self._stderr):
            return READY.pop(0).begin(args, env)
        return usual(self, args, env)

    SubprocessHandler._popen = popen


def leave(code: int) -> None:
    """End as an interpreter ends: threads, then what was registered, then output."""
    threading._shutdown()
    atexit._run_exitfuncs()
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)


def main(door: str, *packages: str) -> None:
    import importlib

    for package in packages:
        importlib.import_module(package)
    assert len(os.listdir("/proc/self/task")) == 1 and not [
        name for name in sys.modules if name.partition(".")[0] in ("distgan", "shards")
    ]
    order = serve(socket.socket(fileno=int(door)))
    leave(become(order["command"], order["environment"]))


if __name__ == "__main__":
    main(*sys.argv[1:])
