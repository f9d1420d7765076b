"""Processes by what identifies them: number, start time, machine, user and words of the command.

A record of a process may be old, when the number belongs to another process, or written by another
user. None is taken for what the record names, let alone signalled, before all five agree.
"""

import contextlib
import json
import os
import signal
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

_PROC = "/proc"


@dataclass(frozen=True)
class ProcessId:
    """A process of this machine. `start`: in clock ticks after boot; `machine`: see `machine`."""

    pid: int
    start: int
    machine: str

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class _Stat:
    state: str
    session: int
    start: int
    uid: int


def machine() -> str:
    """Return what no other machine, boot or container has: boot id and namespace of processes."""
    with open(f"{_PROC}/sys/kernel/random/boot_id") as file:
        boot = file.read().strip()
    return f"{boot}-{os.stat(f'{_PROC}/self/ns/pid').st_ino}"


def parse(record: Any) -> ProcessId | None:
    """Return the process that a record names; None if it is no such record."""
    if not isinstance(record, dict):
        return None
    pid, start, where = (record.get(key) for key in ("pid", "start", "machine"))
    if not all(type(number) is int and 1 < number < 2**62 for number in (pid, start)):
        return None
    return ProcessId(pid, start, where) if isinstance(where, str) else None  # type: ignore[arg-type]


def find(pid: int) -> ProcessId | None:
    """Return the process that has this number now."""
    found = _stat(pid)
    return ProcessId(pid, found.start, machine()) if found else None


def this_process() -> ProcessId:
    process = find(os.getpid())
    assert process is not None
    return process


def is_alive(process: ProcessId | None, *words: str) -> bool:
    """Return whether this user's process still runs, on this machine, by a command with `words`."""
    if process is None or process.machine != machine():
        return False
    return _is(process, words)


def _is(process: ProcessId, words: tuple[str, ...]) -> bool:
    found = _stat(process.pid)
    return (
        found is not None
        and found.start == process.start
        and found.uid == os.getuid()
        and found.state not in "ZX"
        and set(words) <= set(_command(process.pid))
    )


def session(process: ProcessId | None, *about: str) -> list[ProcessId]:
    """Return this user's processes in the session that `process` led, also after its own end, whose
    command contains one of the texts `about`, as it is or as JSON has it.

    While any is left the kernel gives the number to no other process; a later process of this
    number means that none is.
    """
    if process is None or process.machine != machine():
        return []
    leader = _stat(process.pid)
    if leader and leader.start != process.start:
        return []
    texts = {*about, *(json.dumps(text)[1:-1] for text in about)}
    members = []
    for name in os.listdir(_PROC):
        found = _stat(int(name)) if name.isdecimal() else None
        if (
            found
            and found.session == process.pid
            and found.uid == os.getuid()
            and found.start >= process.start
            and found.state not in "ZX"
            and any(text in word for word in _command(int(name)) for text in texts)
        ):
            members.append(ProcessId(int(name), found.start, process.machine))
    return members


def send(process: ProcessId, number: signal.Signals, *words: str) -> bool:
    """Signal a process after checking that it is the one; return whether it was."""
    with _handle(process.pid) as handle:
        # With the handle held, its number cannot pass to another process between check and signal.
        if handle is None or process.machine != machine() or not _is(process, words):
            return False
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(handle, number)
    return True


@contextlib.contextmanager
def _handle(pid: int) -> Iterator[int | None]:
    try:
        handle = os.pidfd_open(pid)
    except OSError:
        yield None
        return
    try:
        yield handle
    finally:
        os.close(handle)


def _stat(pid: int) -> _Stat | None:
    try:
        with open(f"{_PROC}/{pid}/stat", "rb") as file:
            # The command, in brackets, may itself contain brackets and spaces.
            fields = file.read().rpartition(b")")[2].split()
            uid = os.fstat(file.fileno()).st_uid
    except (OSError, ValueError):
        return None
    return _Stat(fields[0].decode(), int(fields[3]), int(fields[19]), uid)


def _command(pid: int) -> list[str]:
    try:
        with open(f"{_PROC}/{pid}/cmdline", "rb") as file:
            return [os.fsdecode(word) for word in file.read().split(b"\0")]
    except OSError:
        return []
