"""Notice what asks a run to save and leave: signals, and the end of its launcher."""

import contextlib
import ctypes
import os
import signal
import threading
from collections.abc import Iterator

# SIGHUP is a dropped connection; where it is ignored from the start (nohup) it means nothing.
STOP_SIGNALS = (
    signal.SIGTERM,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGINT,
    *([] if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN else [signal.SIGHUP]),
)
# Variables of launchers that outlive the ranks they start, as their direct parent: torchrun and
# accelerate with several processes, accelerate with one, deepspeed. Not of Slurm or MPI, which end
# what they started themselves, nor of a shell, which may leave its background jobs to themselves.
_LAUNCHERS = ("TORCHELASTIC_RUN_ID", "ACCELERATE_DYNAMO_MODE", "CROSS_RANK")
_launched = any(name in os.environ for name in _LAUNCHERS)
_launcher = os.getppid()
if _launched and _launcher == 1:  # the launcher of a container, or it has gone before we looked
    with contextlib.suppress(OSError), open("/proc/1/cmdline", "rb") as file:
        words = file.read()
        _launcher = 1 if any(n in words for n in (b"torch", b"accelerate", b"deepspeed")) else -1


def is_orphaned() -> bool:
    """Return True if a launcher started this process, and has gone since this file was imported.

    Asked at every step, not announced by PR_SET_PDEATHSIG: that comes when the *thread* ends that
    started a process, and looks like any other SIGTERM.
    """
    return _launched and os.getppid() != _launcher


@contextlib.contextmanager
def ending_with_launcher(every_s: float = 1.0) -> Iterator[None]:
    """End this process with code 75 as soon as it is orphaned in the block: one that joins the
    others waits in C code for a launcher's store, and has nothing to save.
    """
    over = threading.Event()

    def look() -> None:
        while not over.wait(every_s):
            if is_orphaned():
                with contextlib.suppress(OSError):
                    os.write(2, b"error: the launcher ended while its processes were starting\n")
                os._exit(75)

    if _launched:
        threading.Thread(target=look, daemon=True).start()
    try:
        yield
    finally:
        over.set()


def end_with_parent() -> None:
    """Have the kernel send SIGTERM to this process when the thread that started it ends.

    For Popen's `preexec_fn`; the program that is then executed keeps it. Linux only.
    """
    PR_SET_PDEATHSIG = 1
    if hasattr(prctl := ctypes.CDLL(None), "prctl"):
        prctl.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def ignore_stop_signals(worker: int) -> None:
    """Ignore the signals that ask a run to stop; a worker initializer.

    A signal to the whole process group is for the ranks, which still need what their workers
    decode. Workers end with their rank.
    """
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
