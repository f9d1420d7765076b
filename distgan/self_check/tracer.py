"""Follow a recipe's own lines, and tell which of them changed what."""

import contextlib
import random
import sys
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from types import FrameType
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.utils.spectral_norm import SpectralNorm

from distgan.self_check.findings import Place

_MADE = nn.Module.__init__.__code__
_NORMED = SpectralNorm.apply.__code__
Probe = Callable[[], Any]
OFTEN = 100


class Tracer:
    """Compare what the probes see between two lines of `files`.

    `changed(probe's name, line, before, after)` gets the line that changed it. `made` has the line
    that made each module.
    """

    def __init__(
        self,
        files: Collection[str],
        changed: Callable[[str, Place | None, Any, Any], None],
        **probes: Probe,
    ):
        self._files, self._changed, self.probes = files, changed, probes
        self._seen: dict[str, Any] = {}
        self._stack: list[Place] = []
        self._times: Counter[Place] = Counter()
        self.made: dict[int, tuple[Any, Place]] = {}  # by id; holding the module keeps its id
        self.returned: Place | None = None  # the last line that returned

    @property
    def place(self) -> Place | None:
        """The line of the recipe that is being executed."""
        return self._stack[-1] if self._stack else None

    @contextlib.contextmanager
    def tracing(self) -> Iterator[None]:
        """Follow this thread's lines in the block."""
        before = sys.gettrace()
        self._stack = []
        self.skip()
        sys.settrace(self._call)
        try:
            yield
            self.flush()
        finally:
            sys.settrace(before)

    def flush(self) -> None:
        """Lay what has changed since the last look to the line that is being executed."""
        for name, now in self._look():
            if now != (before := self._seen.get(name)):
                self._seen[name] = now
                self._changed(name, self.place, before, now)

    def _glance(self) -> None:
        """Look after a line, but seldom after one that has been executed often: loops take long."""
        self._times[self._stack[-1]] += 1
        times = self._times[self._stack[-1]]
        if times < OFTEN or times % OFTEN == 0:
            self.flush()

    def skip(self) -> None:
        """Take what has changed for nobody's."""
        self._seen = dict(self._look())

    def _look(self) -> list[tuple[str, Any]]:
        with torch._C.DisableTorchFunction():
            return [(name, probe()) for name, probe in self.probes.items()]

    def made_at(self, module: nn.Module) -> Place | None:
        held = self.made.get(id(module))
        return held[1] if held else None

    def _call(self, frame: FrameType, event: str, arg: Any) -> Any:
        code = frame.f_code
        if code.co_filename in self._files:
            self.flush()
            self._stack.append((code.co_filename, frame.f_lineno))
            return self._line
        if code is _MADE and self.place:
            module = frame.f_locals["self"]
            self.made[id(module)] = (module, self.place)
        elif code is _NORMED and self.place:
            module = frame.f_locals["module"]
            self.made[id(module)] = (module, self.place)
        return None

    def _line(self, frame: FrameType, event: str, arg: Any) -> Any:
        if event == "line":
            self._glance()
            self._stack[-1] = (frame.f_code.co_filename, frame.f_lineno)
        elif event == "return":
            self._glance()
            self.returned = self._stack.pop()
        return self._line


GENERATORS = {
    "Python's global random generator": random.getstate,
    "NumPy's global random generator": lambda: _numpy_state(),
    "torch's global random generator": lambda: _torch_states(),
}


def _numpy_state() -> tuple[Any, ...]:
    name, key, *rest = np.random.get_state(legacy=True)
    return name, key.tobytes(), *rest  # type: ignore[union-attr]


def _torch_states() -> tuple[bytes, ...]:
    states = [torch.default_generator.get_state()]
    if torch.cuda.is_initialized():
        states += [generator.get_state() for generator in torch.cuda.default_generators]
    return tuple(state.numpy().tobytes() for state in states)


@contextlib.contextmanager
def generators_kept() -> Iterator[None]:
    """Leave Python's, NumPy's and torch's global generators as they were."""
    python, number = random.getstate(), np.random.get_state()
    cuda = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else []
    with torch.random.fork_rng(devices=list(cuda)):
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(number)
