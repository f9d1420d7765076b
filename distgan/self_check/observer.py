"""Observe a recipe while it is played, and collect findings with the lines that they are of."""

import contextlib
import inspect
import sys
from collections.abc import Callable, Collection, Iterator
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.optim.optimizer import register_optimizer_step_pre_hook

from distgan.data import transforms
from distgan.data.dataset import Data
from distgan.engine.player import Player
from distgan.nn.normalization import GroupBatchNorm2d
from distgan.self_check import contract
from distgan.self_check.findings import Finding, Place, Refused, caller, error, note, source
from distgan.self_check.tracer import GENERATORS, Tracer
from distgan.self_check.watch import (
    Held,
    HostReads,
    Writes,
    called_wrapped,
    fault_of,
    tensors_of,
)

LONGEST = 65_536  # frames of a signal that is repaired
_ADDRESSED = (
    "Draw it from an address: micro.noise(...) or micro.uniform(...) for a batch, api.normal for"
    " one draw"
)


class Unobserved:
    """Enclose the parts of a play, and do nothing."""

    returned: Place | None = None  # the line of the recipe that returned last

    def building(self, build: Callable[[], Any]) -> Any:
        """Make the recipe."""
        return build()

    def step(self, recipe: Any) -> contextlib.AbstractContextManager[None]:
        """Enclose a step."""
        return contextlib.nullcontext()

    def update(self, name: str) -> contextlib.AbstractContextManager[None]:
        """Enclose an update of a player."""
        return contextlib.nullcontext()

    def loss(self, name: str) -> contextlib.AbstractContextManager[None]:
        """Enclose a loss function within an update."""
        return contextlib.nullcontext()

    def draw(self, recipe: Any, data: Data) -> None:
        """Draw samples, after the last step."""


class Observer(Unobserved):
    """Tell of one play what lines do that a step must not do."""

    def __init__(self, files: Collection[str], kind: Any, ungrouped: bool = False):
        """`ungrouped`: the settings say nothing of samples that share statistics."""
        self._files, self._kind, self._ungrouped = files, kind, ungrouped
        self.findings: dict[tuple[Place | None, str], Finding] = {}
        # The lines that write to a buffer, by buffer: (line, whether in a loss function).
        self.buffers: dict[tuple[str, str], tuple[Place, bool]] = {}
        self.drawn_in_build: list[Place | None] = []
        self._drawn: list[Finding] = []  # by a method that draws samples
        self.losses: dict[str, Place | None] = {}  # where each player's loss function returns
        self.host_reads: list[Place] = []
        self._phase = "build"
        self._updating: str | None = None
        self._in_loss = False
        self._held: list[Held] = []
        self._players: dict[str, Player] = {}
        self._calls: dict[str, list[Place | None]] = {}
        self._tracer = Tracer(files, self._changed, **GENERATORS)

    @property
    def returned(self) -> Place | None:  # type: ignore[override]
        return self._tracer.returned

    def _add(self, finding: Finding, kind: str) -> None:
        place = (finding.file, finding.line) if finding.file and finding.line else None
        self.findings.setdefault((place, kind), finding)

    # ---- phases of a play
    def building(self, build: Callable[[], Any]) -> Any:
        """Make the recipe, and note which line makes which layer."""
        with self._tracer.tracing():
            return build()

    @contextlib.contextmanager
    def _hooked(self, recipe: Any) -> Iterator[None]:
        self._players = recipe.players
        networks = {name: player.module for name, player in recipe.players.items()}
        known = {module for net in networks.values() for module in net.modules()}
        networks |= {
            f"self.{name}": value
            for name, value in getattr(recipe, "__dict__", {}).items()
            if isinstance(value, nn.Module) and value not in known
        }
        self._held = tensors_of(networks)
        hooks = [
            player.module.register_forward_pre_hook(partial(self._called, name))
            for name, player in recipe.players.items()
        ]
        for net in networks.values():
            for path, module in net.named_modules():
                if fault := fault_of(module):
                    before = partial(self._enter_layer, path, *fault)
                    hooks.append(module.register_forward_pre_hook(before, prepend=True))
                    hooks.append(module.register_forward_hook(self._leave_layer))
                elif self._ungrouped and isinstance(module, GroupBatchNorm2d):
                    self._alone(module)
        hooks.append(register_optimizer_step_pre_hook(self._stepped))
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    @contextlib.contextmanager
    def step(self, recipe: Any) -> Iterator[None]:
        """Observe a step."""
        self._phase, self._calls = "step", {}
        with (
            self._hooked(recipe),
            HostReads(self._files, self._read),
            Writes(self._files, self._held, self._written),
        ):
            probes = {"tensors": self._tensors, "gradients": self._gradients}
            self._tracer.probes = {**GENERATORS, **probes}
            with self._tracer.tracing():
                yield

    def draw(self, recipe: Any, data: Data) -> None:
        """Observe `sample` and `repairer`, where the recipe has them."""
        self._phase, self._tracer.probes = "sample", dict(GENERATORS)
        if hasattr(recipe, "sample"):
            two = np.arange(2)
            self._callable(recipe)
            with self._tracer.tracing():
                images = recipe.sample(two)
                contract.check_samples(images, two, data, self._kind)
                alone = recipe.sample(two[1:])
            cause = "sample([0, 1]) and sample([1]) return different samples for number 1"
            remedy = "Sample i depends on the seed and i: api.sample_from_noise, api.normal_each"
            self._require_equal(images[1:], alone, self._kind.sample, cause, remedy)
        if hasattr(recipe, "repairer"):
            weight = next(next(iter(recipe.players.values())).module.parameters())
            pairs = data.decode(data.train, [0]).to(weight.device)
            given = transforms.to_waves(pairs)[:, 0, :LONGEST]
            with self._tracer.tracing():
                output = recipe.repairer()(given)
                contract.check_repaired(output, given, self._kind)
                again = recipe.repairer()(given)
            cause, remedy = (
                "repairer() returns different outputs for the same input",
                "Use api.repair",
            )
            self._require_equal(output, again, self._kind.repairer, cause, remedy)

    def _callable(self, recipe: Any) -> None:
        """Refuse a `sample` that cannot be called; note one of labels without `classes_of`."""
        place = self._kind.sample.__code__.co_filename, self._kind.sample.__code__.co_firstlineno
        form = "sample(self, numbers, purpose='noise/sample')"
        if recipe.run.label_column is not None:
            form = "sample(self, numbers, purpose='noise/sample', classes=None)"
        try:
            inspect.signature(recipe.sample).bind(np.arange(2))
        except TypeError as reason:
            cause = f"sample cannot be called with an array of numbers alone: {reason}"
            raise Refused(error(place, cause, f"Write `def {form}`")) from None
        if recipe.run.label_column is not None and not hasattr(recipe, "classes_of"):
            cause = "is given labels and has no method `classes_of`"
            remedy = (
                "Allowed; with it `generate --class` and rows of the grid show a class each:"
                " docs/your-own-gan.md, Labels"
            )
            self._add(note(place, cause, remedy), "classes")

    def forget(self) -> None:
        """Let go of the networks; findings stay."""
        self._tracer.made.clear()
        self._held, self._players = [], {}

    def _require_equal(
        self, one: torch.Tensor, other: torch.Tensor, method: Any, cause: str, remedy: str
    ) -> None:
        """Find the lines that draw, if it shows: the weights of a copy are drawn, then loaded."""
        if not torch.allclose(one.float(), other.float(), rtol=1e-2, atol=1e-2):
            default = error(contract.place_of_function(method), cause, remedy)
            for finding in self._drawn or [default]:
                self._add(finding, "sample")
        self._drawn = []

    @contextlib.contextmanager
    def update(self, name: str) -> Iterator[None]:
        """Observe an update of a player: what it changes itself is right."""
        self._tracer.flush()
        self._updating, before = name, self._gradients_of_others(name)
        try:
            yield
        finally:
            self._updating = None
            self._tracer.skip()
        after = self._gradients_of_others(name)
        for other in before:
            if before[other] != after[other]:
                places = self._calls.get(other) or [self.returned]
                for place in dict.fromkeys(places):
                    self._forgotten(place, other, name)

    @contextlib.contextmanager
    def loss(self, name: str) -> Iterator[None]:
        """Observe a loss function within an update."""
        self._tracer.skip()
        self._in_loss = True
        try:
            yield
            self._tracer.flush()
            self.losses.setdefault(name, self.returned)
        finally:
            self._in_loss = False

    # ---- probes
    def _tensors(self) -> list[tuple[int, int]]:
        found = [one.table.get(one.key) for one in self._held]
        return [(id(t), t.data_ptr()) if t is not None else (0, 0) for t in found]

    def _gradients(self) -> list[tuple[int, int] | None]:
        return [_gradient(one.table.get(one.key)) for one in self._held if one.kind == "weight"]

    def _gradients_of_others(self, name: str) -> dict[str, list[tuple[int, int] | None]]:
        return {
            other: [_gradient(weight) for weight in player.module.parameters()]
            for other, player in self._players.items()
            if other != name
        }

    def _changed(self, probe: str, place: Place | None, before: Any, after: Any) -> None:
        if probe in GENERATORS:
            self._drew(probe, place)
        elif probe == "tensors":
            for one, old, new in zip(self._held, before, after, strict=True):
                if old != new and place:
                    self._written(place, one)
        elif any(new not in (old, None) for old, new in zip(before, after, strict=True)):
            cause = "makes gradients by hand"
            remedy = "Return the loss to Player.update, which takes the one backward pass"
            self._add(error(place, cause, remedy), "gradients")

    def _drew(self, generator: str, place: Place | None) -> None:
        if self._phase == "build":
            if not generator.startswith("torch"):
                self.drawn_in_build.append(place)
            return
        remedy = _ADDRESSED
        cause = f"draws from {generator}, which differs among processes and after a restart"
        if place and "dropout" in source(place).lower():
            cause = f"dropout draws its mask from {generator}"
            remedy = "Give the network factors of micro.dropout(seed, purpose, size, rate, dtype)"
        if self._phase == "sample":
            self._drawn.append(error(place, cause, remedy))
        else:
            self._add(error(place, cause, remedy), generator)

    # ---- what the modes and hooks tell
    def _read(self, place: Place, what: str) -> None:
        if place not in self.host_reads:
            self.host_reads.append(place)
        cause = f"{what} waits for the device in each step"
        remedy = "Allowed; a scalar tensor returned beside the loss costs nothing"
        self._add(note(place, cause, remedy), "host")

    def _stepped(self, optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        """An optimizer is about to step."""
        if place := caller(self._files, sys._getframe(1), outside="engine"):
            weights = {id(w) for group in optimizer.param_groups for w in group["params"]}
            held = (one for one in self._held if id(one.table.get(one.key)) in weights)
            owner = next((one.owner for one in held), "another network")
            self._refuse_change(place, owner, f"steps an optimizer of {owner} by hand")

    def _written(self, place: Place, one: Held) -> None:
        if one.kind == "buffer":
            self.buffers.setdefault((one.owner, one.name), (place, self._in_loss))
            return
        self._refuse_change(place, one.owner, f"changes {one} outside Player.update")

    def _refuse_change(self, place: Place, owner: str, cause: str) -> None:
        remedy = (
            "Leave it to Player.update(loss_function, batch, now.epoch); api.Player has clip,"
            " clamp, ema and schedule"
        )
        self._add(error(place, cause, remedy), f"written {owner}")

    def _called(self, name: str, module: nn.Module, args: Any) -> None:
        """A player's network is called."""
        if name == self._updating or not torch.is_grad_enabled():
            return
        place = self._tracer.place
        if called_wrapped(sys._getframe(1)):
            self._forgotten(place, name, self._updating)
        elif any(weight.requires_grad for weight in module.parameters()):
            self._calls.setdefault(name, []).append(place)

    def _forgotten(self, place: Place | None, name: str, updating: str | None) -> None:
        where = f"inside the update of {updating}" if updating else "outside its update"
        remedy = (
            f"Call {name}.generate(...) where {name} is only drawn from; where gradients pass"
            f" through it, `with {name}.frozen() as net`"
        )
        self._add(error(place, f"calls {name} with gradients {where}", remedy), f"calls {name}")

    def _alone(self, module: GroupBatchNorm2d) -> None:
        if module.group == 1:
            cause = (
                "GroupBatchNorm2d with groups of 1, the default, is instance norm while it trains,"
                " and draws samples with running statistics"
            )
            remedy = (
                "Allowed; for batch norm give Settings a property `group`, the samples that share"
                " statistics (docs/your-own-gan.md, Layers); instance norm alone is"
                " nn.InstanceNorm2d(channels, affine=True)"
            )
            self._add(note(self._tracer.made_at(module), cause, remedy), "group")

    def _enter_layer(
        self, path: str, cause: str, remedy: str, module: nn.Module, args: Any
    ) -> None:
        self._tracer.flush()
        if module.training:
            place = self._tracer.made_at(module)
            if place is None:
                cause, place = f"{cause} (the layer {path})", self._tracer.place
            self._add(error(place, cause, remedy), "layer")

    def _leave_layer(self, module: nn.Module, args: Any, output: Any) -> None:
        self._tracer.skip()


def _gradient(weight: torch.Tensor | None) -> tuple[int, int] | None:
    found = None if weight is None else weight.grad
    return None if found is None else (id(found), found._version)
