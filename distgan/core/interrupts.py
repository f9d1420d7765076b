"""The signals that ask a run to save and leave, and how worker processes treat them."""

import signal

STOP_SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGINT)


def ignore_stop_signals(worker: int) -> None:
    """Ignore the signals that ask a run to stop; a worker initializer.

    A signal to the whole process group is for the ranks, which still need what their workers
    decode. Workers end with their rank.
    """
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
