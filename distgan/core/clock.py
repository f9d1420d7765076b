"""The one clock of a run: samples seen. Every schedule is a pure function of it, so nothing needs
to be stepped, saved or corrected on resume.
"""

import dataclasses
import math


@dataclasses.dataclass(frozen=True)
class Clock:
    """Count the samples that a run has seen after `step` steps.

    It does not depend on the number of ranks, which may change between two steps.
    """

    per_step: int  # real samples that one step takes from the stream: global batch x D steps
    train: int  # samples in the training split, that is, in one epoch
    step: int = 0

    @property
    def samples(self) -> int:
        return self.step * self.per_step

    @property
    def epoch(self) -> float:
        return self.samples / self.train

    def at(self, step: int) -> "Clock":
        return dataclasses.replace(self, step=step)

    def steps(self, epochs: float) -> int:
        """Return the least number of steps, at least one, that see `epochs` epochs."""
        samples = math.ceil(
            round(epochs * self.train, 6)
        )  # rounded first: 0.1 * 30 is a little more than 3
        return max(-(-samples // self.per_step), 1)

    def overshoot(self, epochs: float) -> str | None:
        """Return a note for the user if whole steps exceed `epochs` by more than a tenth."""
        last = self.at(self.steps(epochs))
        if last.epoch <= 1.1 * epochs:
            return None
        return (
            f"a step takes {self.per_step} samples, an epoch has {self.train}: epochs={epochs:g} is"
            f" rounded up to {last.step} step{'s' if last.step > 1 else ''}, {last.epoch:.3g}"
            " epochs"
        )

    def due(self, every: float, start: float | None = 0, end: float | None = None) -> bool:
        """Return whether this step reached a multiple of `every` epochs in (`start`, `end`]."""
        low = max(self.samples - self.per_step, round((start or 0) * self.train))
        high = self.samples if end is None else min(self.samples, round(end * self.train))
        period = max(round(every * self.train), 1)
        return low < high and high // period > low // period

    def due_in(self, schedule: tuple[tuple[float | None, float], ...]) -> bool:
        """Return whether a schedule is due: `((200, 10), (800, 20), (None, 50))` is every 10 epochs
        up to epoch 200, every 20 up to 800, every 50 after.
        """
        starts = (0.0, *(until for until, _ in schedule[:-1]))
        return any(
            self.due(every, start, until)
            for start, (until, every) in zip(starts, schedule, strict=True)
        )


def step_decay(epoch: float, every: float | None, factor: float) -> float:
    """Return the learning-rate factor that falls by `factor` every `every` epochs, as torch's
    StepLR does; 1.0 without `every`.
    """
    return factor ** int(epoch // every) if every else 1.0


def cosine_restarts(epoch: float, first: float, factor: int = 1, least: float = 0.0) -> float:
    """Return the learning-rate factor of cosine annealing with warm restarts, which falls from 1 to
    `least` along half a cosine of `first` epochs, then again along one `factor` times as long, and
    so on (Loshchilov & Hutter 2017, eq. 5): torch's CosineAnnealingWarmRestarts with T_0 = `first`,
    T_mult = `factor` and eta_min = `least` times the rate.
    """
    since, period = epoch, first
    if factor == 1:
        since = epoch % first
    while since >= period:
        since, period = since - period, period * factor
    return least + (1 - least) * (1 + math.cos(math.pi * since / period)) / 2
