"""Play a recipe's first steps in one process, which may claim to be one of several ranks."""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from functools import partial
from types import ModuleType
from typing import Any, NamedTuple

import torch

from distgan.config.batch_layout import BatchLayout
from distgan.config.settings import Run
from distgan.data.dataset import Data
from distgan.distributed.claimed_ranks import ClaimedRanks
from distgan.distributed.ranks import Ranks
from distgan.engine.player import Log
from distgan.recipes import _own_code
from distgan.recipes._base import build_recipe
from distgan.self_check import contract
from distgan.self_check.comparison import Trace, first_steps, state_of
from distgan.self_check.observer import Unobserved

STEPS = 2


class Subject(NamedTuple):
    """A recipe and what it is to be trained on."""

    module: ModuleType | Any
    files: frozenset[str]
    run: Run
    ranks: Ranks
    data: Data


class Rehearsal:
    """`parts` micro-batches make the batch. `claimed`: each is that of a rank of its own, as read
    in the recipe's files. `resumed`: each step is taken by networks made anew, from what a
    checkpoint holds of the step before; `kept` names what it does not hold.
    """

    def __init__(
        self,
        subject: Subject,
        parts: int = 1,
        *,
        claimed: int = 1,
        resumed: bool = False,
        observer: Unobserved | None = None,
    ):
        self._subject, self._observer = subject, observer or Unobserved()
        run, files = subject.run, subject.files
        self.ranks = ClaimedRanks(subject.ranks, files, parts, run.precision)
        self._parts, self._count, self._resumed = parts, claimed, resumed
        self.kept: set[str] = set()
        self._globals: list[tuple[dict[str, Any], dict[str, Any]]] = []
        self._layout = BatchLayout(run.batch, 1, parts, run.batch // parts, run.group)
        self._numbers: dict[str, torch.Tensor] = {}

    def play(self, steps: int = STEPS) -> Trace:
        """Take the steps. Raises what the recipe raises, and Refused for what it must not do."""
        subject = self._subject
        logs: list[dict[str, float]] = []
        with self._claiming():
            recipe = self._watched(self.build())
            zero, numbers = torch.zeros(()), ("loss", "grad_norm", "skipped")
            self._numbers = {f"{name}/{k}": zero for name in recipe.players for k in numbers}
            states = [state_of(recipe.players)]
            for batches, now in first_steps(
                subject.run, self.ranks, subject.data, self._layout, steps
            ):
                if self._resumed and logs:
                    recipe = self._again(recipe)
                self.ranks.claim_to_be(self._count - 1, self._count)
                with self._observer.step(recipe):
                    log = recipe.step(batches, now)
                contract.check_step(log, subject.module.Recipe)
                logs.append({name: float(value) for name, value in self._numbers.items()})
                states.append(state_of(recipe.players))
            self._observer.draw(recipe, subject.data)
        return Trace(logs, states)

    def built(self) -> Any:
        """Return the recipe with its networks, and take no step."""
        with self._claiming():
            return self.build()

    def build(self) -> Any:
        """Return the recipe with its networks. Within `_claiming`."""
        subject, run = self._subject, self._subject.run
        self.ranks.claim_to_be(self._count - 1, self._count)
        shown = self._layout
        if self._parts > 1 and self._count > 1:
            shown = dataclasses.replace(shown, ranks=self._count, accumulation=1)
        data = subject.data
        made = partial(
            build_recipe, subject.module, run, self.ranks, shown, data.shape, data.labels
        )
        recipe = self._observer.building(made)
        contract.check_players(recipe, subject.module.Recipe)
        return recipe

    def _watched(self, recipe: Any) -> Any:
        for name, player in recipe.players.items():
            player.update = partial(self._update, name, player.update)
        return recipe

    def _again(self, recipe: Any) -> Any:
        """Return the recipe made anew, with what a checkpoint holds of it."""
        fresh = self.build()
        for name, player in fresh.players.items():
            before = recipe.players[name]
            player.load(before.tensors(), before.state())
            for one, other in zip(before.module.modules(), player.module.modules(), strict=True):
                self.kept |= _unequal(vars(one), vars(other))
                self.kept |= _unequal(one._buffers, other._buffers)
        self.kept |= _unequal(vars(recipe), vars(fresh)) | self._forget_globals()
        return self._watched(fresh)

    @contextlib.contextmanager
    def _claiming(self) -> Iterator[None]:
        modules = [m for m in _own_code.modules() if hasattr(m, "__file__")]
        spaces = [vars(m) for m in modules if m.__file__ in self._subject.files]
        self._globals = [(space, dict(space)) for space in spaces]
        try:
            with self.ranks.claiming(*spaces):
                yield
        finally:
            self._forget_globals()

    def _forget_globals(self) -> set[str]:
        """Set plain globals of the recipe's files back, as a new process has them; name them."""
        found = set()
        for space, before in self._globals:
            for name in _unequal(before, space):
                space[name] = before[name]
                found.add(name)
        return found

    def _update(
        self,
        name: str,
        usual: Callable[..., Log],
        loss_of: Callable[[Any], tuple[torch.Tensor, Log]],
        batch: list[Any],
        epoch: float,
    ) -> Log:
        """Call `Player.update`; return the numbers that the claimed rank would see."""
        entries: list[Log] = []
        observer = self._observer

        def watched(micro: Any) -> tuple[torch.Tensor, Log]:
            if self._count > 1 and self._parts > 1:
                self.ranks.claim_to_be(len(entries) % self._count, self._count)
            with observer.loss(name):
                result = loss_of(micro)
            contract.check_loss(result, observer.returned)
            entries.append({"loss": result[0].detach(), **result[1]})
            return result

        with observer.update(name):
            log = usual(watched, batch, epoch)
        self._numbers |= {f"{name}/{k}": log[k] for k in ("loss", "grad_norm", "skipped")}
        if self._count > 1:
            self.ranks.claim_to_be(self._count - 1, self._count)
            log = log | {key: value.detach() for key, value in entries[-1].items()}
        return log


def _unequal(one: dict[str, Any], other: dict[str, Any]) -> set[str]:
    """Return the names of plain values and tensors that differ."""
    found = set()
    for name, value in one.items():
        there = other.get(name)
        if isinstance(value, torch.Tensor):
            if not isinstance(there, torch.Tensor) or not torch.equal(value, there):
                found.add(name)
        elif isinstance(value, int | float | str | list | tuple | dict | None):
            with contextlib.suppress(Exception):  # what cannot be compared is left out
                if value != there:
                    found.add(name)
    return found
