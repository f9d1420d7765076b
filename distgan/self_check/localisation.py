"""Find the line from which on a step with micro-batches is another one: the first whose values are
not those of the whole batch, cut.
"""

import contextlib
import itertools
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from types import FrameType
from typing import Any

import torch

from distgan.self_check.findings import Place
from distgan.self_check.observer import Unobserved
from distgan.self_check.tracer import Tracer

EXACT = 1e-7  # float64: relative rounding of a value within a step
_Key = tuple[int, Place, str, int]  # number of the update, line, name, how often before


class _Lines(Tracer):
    """Tell of the tensors that each line has assigned or returned."""

    def __init__(self, files: Collection[str], report: Callable[[Place, str, torch.Tensor], None]):
        super().__init__(files, lambda *_: None)
        self._report = report
        self._known: list[dict[str, tuple[int, int]]] = []  # of each frame on the stack

    def _call(self, frame: FrameType, event: str, arg: Any) -> Any:
        found = super()._call(frame, event, arg)
        if found is not None:
            self._known.append(dict(self._locals(frame)))
        return found

    def _line(self, frame: FrameType, event: str, arg: Any) -> Any:
        place, known = self._stack[-1], self._known[-1]
        values = list(frame.f_locals.items())
        for name, seen in self._locals(frame):
            if known.get(name) != seen:
                known[name] = seen
                self._report(place, name, dict(values)[name])
        if event == "return":
            self._known.pop()
            for i, value in enumerate(arg if isinstance(arg, tuple) else (arg,)):
                if isinstance(value, torch.Tensor):
                    self._report(place, f"return {i}", value)
        return super()._line(frame, event, arg)

    def _locals(self, frame: FrameType) -> Iterator[tuple[str, tuple[int, int]]]:
        for name, value in frame.f_locals.items():
            if isinstance(value, torch.Tensor):
                yield name, (id(value), value._version)


class Recorder(Unobserved):
    """Keep what lines compute in the loss functions of a play, for `samples` at a time."""

    def __init__(self, files: Collection[str], samples: int):
        self._samples, self._updates = samples, itertools.count()
        self._update, self._in_loss = 0, False
        self._counts: Counter[tuple[Place, str]] = Counter()
        self._tracer = _Lines(files, self._keep)
        # Of each micro-batch: (mean, size) of each sample, or the values themselves.
        self.values: dict[_Key, list[tuple[bool, torch.Tensor]]] = {}

    @contextlib.contextmanager
    def step(self, recipe: Any) -> Iterator[None]:
        with self._tracer.tracing():
            yield

    @contextlib.contextmanager
    def update(self, name: str) -> Iterator[None]:
        self._update = next(self._updates)
        yield

    @contextlib.contextmanager
    def loss(self, name: str) -> Iterator[None]:
        self._in_loss, self._counts = True, Counter()
        try:
            yield
        finally:
            self._in_loss = False

    @torch.no_grad()
    def _keep(self, place: Place, name: str, value: torch.Tensor) -> None:
        if not self._in_loss or not value.is_floating_point() or not value.numel():
            return
        number = self._counts[place, name]
        self._counts[place, name] += 1
        value = value.detach().double()
        by_sample = value.dim() > 0 and len(value) % self._samples == 0
        if by_sample:
            rows = value.reshape(len(value), -1)
            value = torch.stack([rows.mean(1), rows.norm(dim=1)], 1)
        key = (self._update, place, name, number)
        self.values.setdefault(key, []).append((by_sample, value.cpu()))


def first_difference(whole: Recorder, parts: Recorder) -> Place | None:
    """Return the first line whose values differ; one that only sums over samples comes last."""
    sums: _Key | None = None
    for key, ((by_sample, value),) in whole.values.items():
        if sums and key[0] != sums[0]:
            break  # after the first update that differs, everything does
        others = parts.values.get(key, [])
        if not others or any(sampled != by_sample for sampled, _ in others):
            continue
        tensors = [tensor for _, tensor in others]
        if by_sample:
            together = torch.cat(tensors)
            same = together.shape == value.shape and _near(together.sort(0)[0], value.sort(0)[0])
            added = False
        else:
            if any(tensor.shape != value.shape for tensor in tensors):
                continue
            total = torch.stack(tensors).sum(0)
            same, added = _near(total / len(tensors), value), _near(total, value)
        if not same and not added:
            return key[1]
        if not same:
            sums = sums or key
    return sums and sums[1]


def _near(a: torch.Tensor, b: torch.Tensor) -> bool:
    return bool((a - b).abs().max() <= EXACT * b.abs().max().clamp_min(1e-12))
