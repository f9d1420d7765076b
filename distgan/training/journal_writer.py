"""Bring the numbers of a run from the device to the journal.

All ranks hold a writer; rank 0 writes.
"""

import contextlib
import itertools
import math
import time
from collections.abc import Iterator
from typing import Any

import torch

from distgan.core.clock import Clock
from distgan.distributed.ranks import Ranks
from distgan.monitor.journal import thinned
from distgan.runs.folder import RunFolder

UNSHOWN = {"unshown": True}  # in rows that machine.journal_every leaves out of the journal


class JournalWriter:
    """Collect the logs of steps on the device, and write means over ranks every so often."""

    def __init__(self, ranks: Ranks, folder: RunFolder):
        self.history: list[dict[str, Any]] = []  # rank 0: the rows that the monitor evaluates
        self._ranks, self._folder = ranks, folder
        # Still on the device: (time, seconds, numbers, is it a row of the journal).
        self._rows: list[tuple[Clock, float, dict[str, torch.Tensor], bool]] = []
        self._step, self._rows_of_step = -1, 0  # of the journal's last row
        self._began = self._flushed = time.perf_counter()
        # Since the last speed: seconds held up by checkpoints, and of this rank's own work; steps.
        self._saving = self._worked = 0.0
        self._steps = 0

    @contextlib.contextmanager
    def working(self) -> Iterator[None]:
        """Measure a step: this rank's own work is the time it does not wait for other ranks."""
        began = time.perf_counter() - self._ranks.wait_seconds
        yield
        self._worked += time.perf_counter() - self._ranks.wait_seconds - began

    def add(self, now: Clock, log: dict[str, torch.Tensor], show: bool = True) -> None:
        """Add the numbers of a step. The monitor gets them all, the journal those to `show`."""
        self._rows.append((now, time.perf_counter() - self._began, log, show))
        self._steps += 1

    def flush(self) -> dict[str, float] | None:
        """Fetch waiting numbers from the device, average them over ranks, write them.

        Return the losses to show in the progress bar; None if nothing was waiting. Collective.
        """
        if not self._rows:
            return None
        rows: list[dict[str, Any]] = []
        # A recipe may begin to log more, as when its GAN loss starts.
        for names, group in itertools.groupby(self._rows, lambda row: list(row[2])):
            logged = list(group)
            table = self._ranks.all_reduce_mean(
                torch.stack(
                    [torch.stack([log[name].double() for name in names]) for _, _, log, _ in logged]
                )
            ).tolist()
            rows += [
                {**head(at), "seconds": round(seconds, 3), **dict(zip(names, values, strict=True))}
                | ({} if show else UNSHOWN)
                for (at, seconds, _, show), values in zip(logged, table, strict=True)
            ]
        losses = {name: value for name, value in rows[-1].items() if name.endswith("/loss")}
        if shown := [row for row, (*_, show) in zip(rows, self._rows, strict=True) if show]:
            shown[-1] |= self._timings()
            self._flushed = time.perf_counter()
            self._saving, self._worked, self._steps = 0.0, 0.0, 0
        self._rows = []
        self.write(rows)
        return losses

    def _timings(self) -> dict[str, Any]:
        """Return the speed and the seconds per step since the last ones. Collective."""
        elapsed = max(time.perf_counter() - self._flushed, 1e-9)
        samples = self._steps * self._rows[-1][0].per_step
        timings: dict[str, Any] = {"samples_per_second": round(samples / elapsed, 2)}
        if self._saving:
            timings["time/save_s"] = round(self._saving, 3)
        # How long DeepSpeed waits for other ranks is unknown.
        if self._ranks.world_size > 1 and self._steps and self._ranks.engine_choice.engine == "ddp":
            own = self._ranks.all_gather_objects(self._worked / self._steps)
            timings |= {
                "time/compute_s": round(sum(own) / len(own), 6),
                "time/compute_slowest_s": round(max(own), 6),
                "time/slowest_rank": own.index(max(own)),
            }
        return timings

    def add_save_time(self, seconds: float) -> None:
        """Count the time for which a checkpoint held up training; the next row has it."""
        self._saving += seconds

    def exclude_time(self, seconds: float) -> None:
        """Leave time that is not training out of the speed."""
        self._flushed += seconds

    def write(self, rows: list[dict[str, Any]]) -> None:
        """Rank 0: append rows to what the monitor evaluates and, unless unshown, to the journal.

        JSON has no NaN: a number that is not finite is written as null and named in `nonfinite`.
        """
        if not self._ranks.is_main:
            return
        for row in rows:
            bad = [
                name
                for name, value in row.items()
                if isinstance(value, float) and not math.isfinite(value)
            ]
            if bad:
                row |= {name: None for name in bad} | {"nonfinite": bad}
        shown = [row for row in rows if "unshown" not in row]
        self._folder.journal(shown)
        self._count(shown)
        self.set_history(self.history + rows)

    def continue_from(self, journal: list[dict[str, Any]], unshown: list[dict[str, Any]]) -> None:
        """Rank 0: go on after these rows of the journal, and those that no journal holds."""
        self._step, self._rows_of_step = -1, 0
        self._count(journal)
        self.set_history(sorted(unshown + journal, key=lambda row: row["step"]))

    def _count(self, rows: list[dict[str, Any]]) -> None:
        for row in rows:
            again = row["step"] == self._step
            self._step, self._rows_of_step = row["step"], self._rows_of_step * again + 1

    def at_checkpoint(self, step: int) -> dict[str, Any]:
        """Rank 0: return what a checkpoint of this step, the last one, holds of the journal: how
        many rows it has of the step, and the rows of the history that it does not have.
        """
        count = self._rows_of_step if step == self._step else 0
        return {"rows_of_step": count} | ({"rows": self.unshown} if self.unshown else {})

    @property
    def unshown(self) -> list[dict[str, Any]]:
        """Return the rows of the history that no journal holds; checkpoints keep them."""
        return [row for row in self.history if "unshown" in row]

    def set_history(self, rows: list[dict[str, Any]]) -> None:
        """Keep what the monitor evaluates of these rows, and what the verdict looks at.

        A run that was continued keeps the same as one that never stopped.
        """
        self.history = thinned(rows)


def head(now: Clock) -> dict[str, Any]:
    """Return the keys with which a row of the journal begins."""
    return {"step": now.step, "samples": now.samples, "epoch": round(now.epoch, 6)}
