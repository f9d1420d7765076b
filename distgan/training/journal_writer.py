"""The numbers of a run on their way from the device to the journal.

All ranks hold one; rank 0 writes.
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
from distgan.monitor.journal import recent
from distgan.runs.folder import RunFolder


class Recorder:
    """`folder` is None on all ranks but the first."""

    def __init__(self, ranks: Ranks, folder: RunFolder | None, every: int):
        """`every`: steps between two journalled rows."""
        self.seen: list[dict[str, Any]] = []  # rank 0: what `watch` looks at
        self._ranks, self._folder, self._every = ranks, folder, every
        self._rows: list[
            tuple[Clock, float, dict[str, torch.Tensor]]
        ] = []  # not yet fetched from the device
        self._began = self._flushed = time.perf_counter()
        self._saving = 0.0  # seconds that checkpoints have held up training since the last flush
        self._worked, self._steps = (
            0.0,
            0,
        )  # seconds of this rank's own work in so many steps since then

    @contextlib.contextmanager
    def working(self) -> Iterator[None]:
        """A step. Of its time, this rank's own is what it did not wait for the others."""
        began = time.perf_counter() - self._ranks.wait_seconds
        yield
        self._worked += time.perf_counter() - self._ranks.wait_seconds - began
        self._steps += 1

    def add(self, now: Clock, log: dict[str, torch.Tensor]) -> None:
        self._rows.append((now, time.perf_counter() - self._began, log))

    def flush(self) -> dict[str, float] | None:
        """Fetch waiting numbers from the device, average them over ranks, write them.

        Returns what a person wants to see. Collective.
        """
        if not self._rows:
            return None
        rows: list[dict[str, Any]] = []
        for names, logged in itertools.groupby(
            self._rows, lambda row: list(row[2])
        ):  # a recipe may begin to log more, as its GAN loss starts
            logged = list(logged)
            table = self._ranks.all_reduce_mean(
                torch.stack(
                    [torch.stack([log[name].double() for name in names]) for _, _, log in logged]
                )
            ).tolist()
            rows += [
                {**head(at), "seconds": round(seconds, 3), **dict(zip(names, values, strict=True))}
                for (at, seconds, _), values in zip(logged, table, strict=True)
            ]
        shown = {name: value for name, value in rows[-1].items() if name.endswith("/loss")}
        elapsed = time.perf_counter() - self._flushed
        rows[-1]["samples_per_second"] = round(
            len(rows) * self._every * self._rows[-1][0].per_step / max(elapsed, 1e-9), 2
        )
        if self._saving:
            rows[-1]["time/save_s"] = round(self._saving, 3)
        if (
            self._ranks.world_size > 1 and self._steps and self._ranks.engine_choice.engine == "ddp"
        ):  # nobody knows what DeepSpeed waits for
            own = self._ranks.all_gather_objects(self._worked / self._steps)
            rows[-1] |= {
                "time/compute_s": round(sum(own) / len(own), 6),
                "time/compute_slowest_s": round(max(own), 6),
                "time/slowest_rank": own.index(max(own)),
            }
        self._rows, self._flushed, self._saving, self._worked, self._steps = (
            [],
            time.perf_counter(),
            0.0,
            0.0,
            0,
        )
        self.write(rows)
        return shown

    def saved(self, seconds: float) -> None:
        """Time for which a checkpoint held up training; it stands in the next row that is written."""
        self._saving += seconds

    def pause(self, seconds: float) -> None:
        """Time that does not count as training."""
        self._flushed += seconds

    def write(self, rows: list[dict[str, Any]]) -> None:
        """Rank 0: to the journal. JSON knows no NaN, so a number that is not finite is written as
        null beside `nonfinite`.
        """
        if not self._folder:
            return
        for row in rows:
            bad = [
                name
                for name, value in row.items()
                if isinstance(value, float) and not math.isfinite(value)
            ]
            row |= {name: None for name in bad} | ({"nonfinite": bad} if bad else {})
        self._folder.journal(rows)
        self.remember(self.seen + rows)

    def remember(self, rows: list[dict[str, Any]]) -> None:
        """What `watch` is to look at.

        A run that was continued sees the same as one that never stopped.
        """
        self.seen = recent(rows)


def head(now: Clock) -> dict[str, Any]:
    """How a row of the journal begins."""
    return {"step": now.step, "samples": now.samples, "epoch": round(now.epoch, 6)}
