"""Requests to save or to stop, on which all ranks act at the same step.

    SIGTERM, SIGUSR1, SIGUSR2, SIGINT   save and leave; a second SIGINT leaves at once
    SIGHUP                              the same, unless it was ignored from the start (nohup)
    the end of the launcher             the same
    the end of the job's time           machine.time_limit_s, or Slurm's SLURM_JOB_END_TIME: save
                                        and leave before it
    RUN/STOP                            save and leave; the file is removed, so that the same line
                                        continues the run
    RUN/SAVE                            save and go on; the file is removed

A signal handler only sets a flag, since it may interrupt anything. At each step all ranks reduce
their flags, and act together.
"""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from types import FrameType

from distgan.core import console
from distgan.core.interrupts import STOP_SIGNALS, is_orphaned
from distgan.distributed.job_end import JobEnd
from distgan.distributed.ranks import Ranks
from distgan.runs.folder import SAVE, STOP, RunFolder

POLL_S = 1.0  # the least time between two looks for the files
# A run leaves so long before the end of its time, plus twice its longest step and save.
MARGIN_S = 10.0


class StopRequests:
    """The requests to this process, and their reduction over all ranks."""

    def __init__(
        self,
        ranks: Ranks,
        folder: RunFolder,
        time_limit_s: float | None,
        environment: Mapping[str, str] = os.environ,
    ):
        self.cause: str | None = None  # why the run stops, as far as this process knows
        self._ranks, self._folder = ranks, folder
        self._signal: str | None = None
        self._end = JobEnd(time_limit_s, environment) if ranks.is_main else None
        self._step = self._save = 0.0  # seconds, the longest so far
        self._stepped = self._polled = time.monotonic()

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Handle the stop signals within this context; restore the earlier handlers after it.

        Not in a rank that fails: its launcher sends SIGTERM, before the reason would be printed.
        In a thread the signals are those of the program, which has the main one.
        """
        main = threading.current_thread() is threading.main_thread()
        numbers = STOP_SIGNALS if main else ()
        before = {number: signal.signal(number, self._handle) for number in numbers}
        restored = True
        try:
            yield
        except Exception:
            restored = self._ranks.world_size == 1
            raise
        finally:
            for number, handler in before.items() if restored else ():
                signal.signal(number, handler)
            if self._end:
                self._end.close()

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self._signal and number == signal.SIGINT:
            raise KeyboardInterrupt
        if not self._signal:
            self._signal = signal.Signals(number).name
            console.say_from_handler(
                f"asked to stop by {self._signal}: saving after this step, or after the evaluation"
                " that runs now; Ctrl-C again leaves at once"
            )

    def begin(self) -> Callable[[], tuple[bool, bool]]:
        """Start a reduction over all ranks; the returned function waits for it and returns
        (stop, save), the same on all ranks.
        """
        orphaned = is_orphaned()
        reduced = self._ranks.any_async(
            self._signal is not None, orphaned, self._folder.must_stop, *self._poll()
        )

        def result() -> tuple[bool, bool]:
            by_signal, by_orphan, by_disk, by_time, by_file, save = reduced()
            causes = {
                f"signal {self._signal}": self._signal is not None,
                "a signal to another rank": by_signal,
                "the launcher of this process is gone": orphaned,
                "the launcher of another rank is gone": by_orphan,
                "a file that cannot be written": by_disk,
                "the end of the job's time": by_time,
                f"the file {STOP}": by_file,
            }
            stop = by_signal or by_orphan or by_disk or by_time or by_file
            if stop:
                self.cause = next(cause for cause, holds in causes.items() if holds)
            return stop, save

        return result

    def _poll(self) -> tuple[bool, bool, bool]:
        """Return (is it time to leave, is there STOP, is there SAVE); all False but on rank 0."""
        now = time.monotonic()
        self._step, self._stepped = max(self._step, now - self._stepped), now
        margin = MARGIN_S + 2 * (self._step + self._save)
        late = self._end is not None and self._end.seconds_left() <= margin
        if now - self._polled < POLL_S:
            return late, False, False
        self._polled = now
        return late, self._folder.has_request(STOP), self._folder.has_request(SAVE)

    def saved(self, seconds: float) -> None:
        """Note that a checkpoint was written, which answers a request to save."""
        self._save, self._stepped = max(self._save, seconds), time.monotonic()
        self._folder.clear_request(SAVE)

    def checked(self) -> None:
        """Note that a validation or an evaluation has ended, whose time is not a step's."""
        self._stepped = time.monotonic()

    def leaving(self) -> None:
        """Note that the run has saved and leaves."""
        self._folder.clear_request(STOP)
