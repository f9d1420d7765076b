"""Who may ask a run to save or to stop, and how all ranks come to act upon it at the same step.

    SIGTERM, SIGUSR1, SIGUSR2, SIGINT   save and leave; a second SIGINT leaves at once
    the end of the job's time           machine.time_limit_s, or Slurm's SLURM_JOB_END_TIME: save
    and leave before it
    RUN/STOP                            save and leave; the file is removed, so that the same line
                                        goes on
    RUN/SAVE                            save and go on; the file is removed

A handler only sets a flag: it may interrupt anything. At each step all ranks reduce what they were
asked, and act, or do not, together.
"""

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from distgan.core import console
from distgan.core.interrupts import STOP_SIGNALS
from distgan.distributed.ranks import Ranks
from distgan.runs.folder import SAVE, STOP

LOOK_S = 1.0  # at the most this often does rank 0 look for files
# that shall be left when a run leaves before the end of its time, beside twice its longest step and
# twice its longest save
AHEAD_S = 10.0


class Requests:
    """What this process was asked. `folder` is the run folder on rank 0, None on all others."""

    def __init__(
        self,
        ranks: Ranks,
        folder: Path | None,
        time_limit_s: float | None,
        environment: Mapping[str, str] = os.environ,
    ):
        self.cause: str | None = None  # why the run stops, as far as this process knows
        self._ranks, self._folder = ranks, folder
        self._signal: str | None = None
        self._end = _end(time_limit_s, environment) if folder else None
        self._step = self._save = 0.0  # seconds, the longest so far
        self._stepped = self._looked = time.monotonic()

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Signals ask from here on, as they did before afterwards."""
        before = {number: signal.signal(number, self._asked) for number in STOP_SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _asked(self, number: int, frame) -> None:
        if self._signal and number == signal.SIGINT:
            raise KeyboardInterrupt
        if not self._signal:
            self._signal = signal.Signals(number).name
            console.say(
                f"asked to stop by {self._signal}: saving at the end of this step, or of the"
                " evaluation that runs; Ctrl-C again leaves at once"
            )

    def begin(self) -> Callable[[], tuple[bool, bool]]:
        """Begin to ask all ranks; the function that is returned gives (stop, save), the same on all
        of them.
        """
        own = self._look()
        asked = self._ranks.any_async(self._signal is not None, *own)

        def answer() -> tuple[bool, bool]:
            by_signal, by_time, by_file, save = asked()
            if by_signal or by_time or by_file:
                self.cause = (
                    f"signal {self._signal}"
                    if self._signal
                    else (
                        "a signal to another rank"
                        if by_signal
                        else "the end of the job's time"
                        if by_time
                        else f"the file {STOP}"
                    )
                )
            return by_signal or by_time or by_file, save

        return answer

    def _look(self) -> tuple[bool, bool, bool]:
        """Rank 0: (is it time, is there STOP, is there SAVE)."""
        if self._folder is None:
            return False, False, False
        now = time.monotonic()
        self._step, self._stepped = max(self._step, now - self._stepped), now
        late = self._end is not None and time.time() >= self._end - AHEAD_S - 2 * (
            self._step + self._save
        )
        if now - self._looked < LOOK_S:
            return late, False, False
        self._looked = now
        return late, (self._folder / STOP).exists(), (self._folder / SAVE).exists()

    def saved(self, seconds: float) -> None:
        """A checkpoint was written: what was asked for is done."""
        self._save, self._stepped = max(self._save, seconds), time.monotonic()
        if self._folder:
            (self._folder / SAVE).unlink(missing_ok=True)

    def checked(self) -> None:
        """A validation or an evaluation has ended: its time is no step's."""
        self._stepped = time.monotonic()

    def leaving(self) -> None:
        """The run has saved and leaves."""
        if self._folder:
            (self._folder / STOP).unlink(missing_ok=True)


def _end(time_limit_s: float | None, environment: Mapping[str, str]) -> float | None:
    """When the job's time ends, in seconds since 1970; None where nobody said."""
    ends = [time.time() + time_limit_s] if time_limit_s else []
    text = environment.get("SLURM_JOB_END_TIME", "")
    if text.isascii() and text.isdecimal():
        ends.append(float(text))
    return min(ends, default=None)
