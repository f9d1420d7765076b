"""When the time of this job ends, by this machine's monotonic clock.

A clock that is set forward or back moves no end: the scheduler's time of day is turned into seconds
that are left whenever it is read.
"""

import contextlib
import math
import shutil
import subprocess
import time
from collections.abc import Mapping

ASK_S = 300.0  # between two questions to Slurm: `scontrol update TimeLimit=…` moves the end
GIVE_UP_S = 60.0  # on an answer


class JobEnd:
    """The earlier of a limit in seconds and of Slurm's end of this job.

    Slurm is asked by a process that nothing waits for.
    """

    def __init__(self, limit_s: float | None, environment: Mapping[str, str]):
        now = time.monotonic()
        self._limit = now + limit_s if limit_s else math.inf
        self._slurm = _on_monotonic_clock(environment.get("SLURM_JOB_END_TIME", ""))
        self._environment = environment
        # Under the launcher, which leaves nothing else of Slurm to what it starts, the second.
        self._job = environment.get("SLURM_JOB_ID") or environment.get("DISTGAN_JOB")
        self._asking: subprocess.Popen[str] | None = None
        # Slurm 22.05 does not leave the end in a variable.
        self._asked = now if self._slurm is not None else -math.inf

    def seconds_left(self) -> float:
        """Return how long this job may still run; infinity without a limit."""
        if self._job:
            self._ask()
        end = min(self._limit, math.inf if self._slurm is None else self._slurm)
        return end - time.monotonic()

    def close(self) -> None:
        """End a question that is still open."""
        if self._asking:
            self._asking.kill()
            self._asking.communicate()

    def _ask(self) -> None:
        """Take an answer, or ask anew where one is due."""
        now = time.monotonic()
        if self._asking is None:
            if now - self._asked > ASK_S and (squeue := shutil.which("squeue")):
                self._asked = now
                line = [squeue, "--noheader", f"--jobs={self._job}", "--format=%e"]
                with contextlib.suppress(OSError):
                    self._asking = subprocess.Popen(
                        line,
                        env={**_unfiltered(self._environment), "SLURM_TIME_FORMAT": "%s"},
                        stdin=subprocess.DEVNULL,
                        stdout=subprocess.PIPE,
                        stderr=subprocess.DEVNULL,
                        text=True,
                    )
        elif self._asking.poll() is not None:
            answer, _ = self._asking.communicate()
            self._asking = None
            self._slurm = _on_monotonic_clock(answer) or self._slurm
        elif now - self._asked > GIVE_UP_S:
            self._asking.kill()


def _unfiltered(environment: Mapping[str, str]) -> dict[str, str]:
    """Leave out the settings of squeue with which users hide jobs from themselves."""
    return {name: text for name, text in environment.items() if not name.startswith("SQUEUE_")}


def _on_monotonic_clock(text: str) -> float | None:
    """Convert seconds since 1970, as text; None for anything else, such as NONE or Unknown."""
    text = text.strip()
    if not (text.isascii() and text.isdecimal()):
        return None
    return time.monotonic() + int(text) - time.time()
