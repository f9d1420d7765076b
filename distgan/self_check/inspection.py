"""Inspect a recipe that this program does not know: does it take the same steps however a batch is
shared, and which of its lines is at fault where not?

In one process and without a collective: two steps of the whole batch, watched; the same steps with
micro-batches that claim to be of two ranks, by networks that are loaded between the steps. Where
these differ, what was other is left out, one after the other.
Everything is made for it and dropped after it.
"""

import contextlib
import random
from collections.abc import Collection, Iterator
from typing import Any

import numpy as np
import torch

from distgan.config.settings import Run
from distgan.core.errors import DistganError
from distgan.data.dataset import Data
from distgan.distributed.claimed_ranks import COLLECTIVES
from distgan.distributed.ranks import Ranks
from distgan.self_check import contract
from distgan.self_check.comparison import Difference, Trace, differences, forget
from distgan.self_check.findings import (
    Finding,
    Place,
    Refused,
    assigned,
    error,
    lines_with,
    of_the_check,
    raised,
)
from distgan.self_check.localisation import Recorder, first_difference
from distgan.self_check.observer import Observer
from distgan.self_check.rehearsal import Rehearsal, Subject
from distgan.self_check.tracer import generators_kept

BATCHES = (4, 8, 16, 32)  # the first that two ranks can share is played
# In other types than float64 a loss near 0 differs by rounding alone, relative to its size.
AMPLIFIED = 10
_MEAN = (
    "A loss is a mean over the micro-batch, as .mean() is, and no sample's output depends on the"
    " others': nn.GroupNorm, api.GroupBatchNorm2d"
)
_ALIKE = (
    "All ranks take the same step: leave the rank out; what differs among samples comes from"
    " micro.noise, micro.uniform, micro.positions"
)
_KEEP = (
    "Update it once a step, from what is equal on all ranks; running statistics are those of"
    " api.GroupBatchNorm2d; or leave it out"
)


def inspect(
    module: Any, files: Collection[str], run: Run, ranks: Ranks, data: Data
) -> list[Finding]:
    """Return what is found, errors first, in the order of lines.

    `module` has `Recipe`; lines are those of `files`, absolute paths. Global random generators and
    the run are left as they were. Raises what the recipe raises as a DistganError.
    """
    subject = Subject(module, frozenset(files), _smaller(run), ranks, data)
    with generators_kept(), _arithmetic_kept():
        found = _Inspection(subject).find()
    return sorted(
        dict.fromkeys(found), key=lambda f: (f.level != "error", f.file or "", f.line or 0)
    )


@contextlib.contextmanager
def _arithmetic_kept() -> Iterator[None]:
    """Leave what is allowed to CUDA's kernels as the run has set it."""
    backends: tuple[Any, ...] = (torch.backends.cudnn, torch.backends.cuda.matmul)
    before = [backend.allow_tf32 for backend in backends]
    try:
        yield
    finally:
        for backend, allowed in zip(backends, before, strict=True):
            backend.allow_tf32 = allowed


def _smaller(run: Run) -> Run:
    """Return the run with a smaller batch: the check is of its code, and takes less time."""
    for batch in BATCHES:
        small = run.model_copy(update={"batch": batch})
        if batch < run.batch and batch % (2 * small.group) == 0:
            return small
    return run


def _parts(run: Run) -> int | None:
    """Return the least number of micro-batches that hold whole groups; None where none do."""
    for parts in range(2, run.batch + 1):
        if run.batch % parts == 0 and run.batch // parts % run.group == 0:
            return parts
    return None


class _Inspection:
    def __init__(self, subject: Subject, exact: bool = True):
        self._given, self._exact = subject, exact and subject.run.precision != "float64"
        if self._exact:
            subject = subject._replace(run=subject.run.model_copy(update={"precision": "float64"}))
        self._subject = subject
        self._parts = _parts(subject.run)
        ungrouped = type(subject.run).group is Run.group
        self._observer = Observer(subject.files, subject.module.Recipe, ungrouped)
        self._reads: dict[Place, str] = {}
        self._kept: set[str] = set()

    def find(self) -> list[Finding]:
        whole = self._played(1, 1, self._observer)
        if isinstance(whole, Finding) and self._exact:
            # Some recipes know one type of numbers: then rounding is in the way.
            return _Inspection(self._given, exact=False).find()
        found = list(self._observer.findings.values())
        if isinstance(whole, Finding):
            return [*found, whole]
        found += self._initial_weights()
        if any(finding.level == "error" for finding in found):
            return found + self._buffers()
        if self._parts is None and (buffers := self._buffers()):
            return found + buffers
        # A batch that cannot be shared is played whole, as rank 1 of 2.
        parts, ranks = self._parts or 1, self._parts or 2
        other = self._played(parts, ranks, resumed=True)
        if isinstance(other, Finding):
            return [*found, other]
        if rows := self._apart(other, whole):
            return found + self._causes(whole, rows, parts, ranks)
        return found + self._collectives()

    def _causes(
        self, whole: Trace, rows: list[Difference], parts: int, ranks: int
    ) -> list[Finding]:
        """Leave out one thing after the other in which the steps were others than the whole's."""
        explained = [(1, 1, self._unrepeatable), (parts, ranks, self._ranked)]
        if parts > 1:
            explained.insert(1, (parts, 1, self._shared))
        for micro_batches, claimed, explain in explained:
            trace = self._played(micro_batches, claimed)
            if isinstance(trace, Finding):
                return [trace]
            if apart := self._apart(trace, whole):
                return explain(apart)
        return self._lost(rows)

    def _played(
        self, parts: int, claimed: int, observer: Observer | None = None, resumed: bool = False
    ) -> Trace | Finding:
        """Return what the steps gave, or why there is nothing to compare."""
        subject, seed = self._subject, 10 * parts + claimed
        random.seed(seed)
        np.random.seed(seed)
        torch.manual_seed(seed)
        play = Rehearsal(subject, parts, claimed=claimed, observer=observer, resumed=resumed)
        try:
            return play.play()
        except Refused as refused:
            return refused.finding
        except (DistganError, torch.OutOfMemoryError):
            raise
        except Exception as fault:
            if of_the_check(fault):
                raise
            where = contract.place_of_function(subject.module.Recipe)
            how = f"with {parts} micro-batches of {subject.run.batch // parts}: "
            return raised(fault, subject.files, where, how if parts > 1 else "")
        finally:
            if observer:
                observer.forget()
            forget(subject.run)
            self._reads |= play.ranks.reads
            self._kept |= play.kept

    def _apart(self, mine: Trace, one: Trace) -> list[Difference]:
        rows = differences(mine, one, self._subject.run.precision)
        precise = self._subject.run.precision == "float64"
        return [row for row in rows if not row.apart <= row.allowed * (1 if precise else AMPLIFIED)]

    # ---- findings
    def _initial_weights(self) -> list[Finding]:
        """Weights that are drawn from generators which nothing seeds differ among processes."""
        places = [place for place in self._observer.drawn_in_build if place]
        if not places:
            return []
        first, second = (self._weights(seed) for seed in (1, 2))
        if all(torch.equal(a, b) for a, b in zip(first, second, strict=True)):
            return []
        cause = "draws initial weights from Python's or NumPy's global random generator"
        remedy = "Draw from torch's, which has the run's seed here, or api.numpy_generator"
        return [error(place, cause, remedy) for place in dict.fromkeys(places)]

    def _weights(self, seed: int) -> list[torch.Tensor]:
        random.seed(seed)
        np.random.seed(seed)
        recipe = Rehearsal(self._subject).built()
        return [value for player in recipe.players.values() for value in player.tensors().values()]

    def _buffers(self, owners: Collection[str] | None = None) -> list[Finding]:
        """Buffers that the recipe writes: of these players, or in a loss function."""
        return [
            error(
                place,
                f"updates the buffer {name} of {owner} from the samples that one process has",
                _KEEP,
            )
            for (owner, name), (place, in_loss) in self._observer.buffers.items()
            if (in_loss if owners is None else owner in owners)
        ]

    def _unrepeatable(self, rows: list[Difference]) -> list[Finding]:
        """Steps that differ when they are taken again."""
        player, row = self._first(rows)
        place = self._located(1) or self._observer.losses.get(player)
        cause = f"the same step, taken again, gives other numbers: {_named(row)}"
        remedy = (
            "Give each draw an address: micro.noise, micro.uniform, api.numpy_generator(seed,"
            " purpose, index); a clock or a generator without a seed has none"
        )
        return [error(place, cause, remedy)]

    def _shared(self, rows: list[Difference]) -> list[Finding]:
        """Steps that depend on the number of micro-batches."""
        owners = {row.what.rpartition(" ")[2] for row in rows if row.what.startswith("buffers of")}
        if found := self._buffers(owners):
            return found
        player, row = self._first(rows)
        parts, batch = self._parts or 1, self._subject.run.batch
        cause = (
            f"the step depends on how the batch is shared: with {parts} micro-batches of"
            f" {batch // parts} in place of one of {batch}, {_named(row)}"
        )
        place = self._located(parts) or self._observer.losses.get(player)
        return [error(place, cause, _MEAN)]

    def _located(self, parts: int) -> Place | None:
        """Return the line from which on values differ; takes one step of each kind."""
        subject, batch = self._subject, self._subject.run.batch
        if subject.run.precision != "float64":
            return None
        recorders = []
        for count in (1, parts):
            recorders.append(Recorder(subject.files, batch // count))
            Rehearsal(subject, count, observer=recorders[-1]).play(1)
        return first_difference(*recorders)

    def _ranked(self, rows: list[Difference]) -> list[Finding]:
        """Steps that depend on the rank, or on numbers of one rank."""
        _, row = self._first(rows)
        variables = lines_with(self._subject.files, "RANK", "WORLD_SIZE", "LOCAL_RANK")
        places = self._reads | {place: "the rank in the environment" for place in variables}
        shares = lines_with(self._subject.files, "layout.ranks", "self.layout.ranks")
        places |= {place: "layout.ranks" for place in shares}
        asks = {p: what for p, what in places.items() if not what.endswith("is_initialized")}
        places = asks or places
        if places:
            return [
                error(place, f"reads {what}, and the step depends on it: {_named(row)}", _ALIKE)
                for place, what in places.items()
            ]
        buffers = self._buffers({owner for owner, _ in self._observer.buffers})
        local = [
            error(
                place, f"a number of one rank alone decides about the step: {_named(row)}", _ALIKE
            )
            for place in self._observer.host_reads
        ]
        where = contract.place_of_function(self._subject.module.Recipe.step)
        return (
            buffers
            or local
            or [error(where, f"the step depends on the rank: {_named(row)}", _ALIKE)]
        )

    def _collectives(self) -> list[Finding]:
        """Calls of torch.distributed, which did nothing here."""
        remedy = "Player.update averages gradients; for other numbers use ranks.all_reduce_mean"
        return [
            error(place, f"calls {what} itself", remedy)
            for place, what in self._reads.items()
            if what.rpartition(".")[2] in COLLECTIVES
        ]

    def _lost(self, rows: list[Difference]) -> list[Finding]:
        """Name state that steps depend on, and no checkpoint holds."""
        _, row = self._first(rows)
        places = {name: assigned(self._subject.files, name) for name in sorted(self._kept)}
        step = contract.place_of_function(self._subject.module.Recipe.step)
        named: dict[Place | None, str] = {
            place: f"the value of {name}" for name, found in places.items() for place in found
        }
        return [
            error(
                place,
                f"{what} is kept between steps, and no checkpoint holds it: after a restart"
                f" {_named(row)}",
                "Compute it from now.step or now.epoch, or keep it in a buffer of a player's"
                " network",
            )
            for place, what in (named or {step: "a value"}).items()
        ]

    def _first(self, rows: list[Difference]) -> tuple[str, Difference]:
        """Return the first player in the order of updates that differs, and in what."""
        step = min(row.step for row in rows)
        for player in self._observer.losses:
            for row in rows:
                if row.step == step and player in (
                    row.what.partition("/")[0],
                    row.what.rpartition(" ")[2],
                ):
                    return player, row
        return "", rows[0]


def _named(row: Difference) -> str:
    player, _, number = row.what.partition("/")
    what = f"{number.replace('_', ' ')} of {player}" if number else row.what
    return f"{what} differs by {row.apart:.0e} (tolerance {row.allowed:.0e})"
