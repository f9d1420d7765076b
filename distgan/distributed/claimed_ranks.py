"""Simulate one rank of several for the code of a recipe, in a single process. The inspection of a
recipe finds out with it whether a step depends on the rank.
"""

import contextlib
import os
import sys
from collections.abc import Callable, Collection, Iterator
from functools import partial
from types import FrameType
from typing import Any

import torch.distributed as dist

from distgan.distributed.ranks import Ranks, SingleProcess

_CLAIMED = ("rank", "world_size", "is_main")
_VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
COLLECTIVES = (
    "all_gather",
    "all_gather_into_tensor",
    "all_gather_object",
    "all_reduce",
    "barrier",
    "broadcast",
    "broadcast_object_list",
    "gather",
    "reduce",
    "reduce_scatter",
    "scatter",
)


class ClaimedRanks(SingleProcess):
    """`claim` is (rank, processes) as read in a line of `files`; `reads` has those lines.

    Everything else, this program and torch, sees one process. `accumulation` and `precision` are
    those of its engines.
    """

    def __init__(self, ranks: Ranks, files: Collection[str], accumulation: int, precision: str):
        self.files, self.claim = frozenset(files), (0, 1)
        self.reads: dict[tuple[str, int], str] = {}  # (file, line): what was read there
        super().__init__(ranks)
        machine = self.machine.model_copy(update={"accumulation": accumulation})
        self._compute(machine, precision)

    def __getattribute__(self, name: str) -> Any:
        value = super().__getattribute__(name)
        if name == "machine" and sys._getframe(1).f_code.co_filename in self.files:
            # Claimed ranks are micro-batches to the engines alone.
            return value.model_copy(update={"accumulation": 1}) if self.claim[1] > 1 else value
        if name not in _CLAIMED or not self.noted(sys._getframe(1), f"ranks.{name}"):
            return value
        rank, count = self.claim
        return {"rank": rank, "world_size": count, "is_main": rank == 0}[name]

    def noted(self, frame: FrameType | None, what: str) -> bool:
        """Note what is read in this frame; return whether it is one of the recipe's files."""
        if frame is None or frame.f_code.co_filename not in self.files:
            return False
        self.reads.setdefault((frame.f_code.co_filename, frame.f_lineno), what)
        return True

    def claim_to_be(self, rank: int, count: int) -> None:
        """Be rank `rank` of `count` to the recipe, in the environment as well."""
        self.claim = (rank, count)
        values = (rank, count, rank, count)
        os.environ.update({k: str(v) for k, v in zip(_VARIABLES, values, strict=True)})

    @contextlib.contextmanager
    def claiming(self, *spaces: dict[str, Any]) -> Iterator[None]:
        """Answer the recipe's calls of torch.distributed too, within the block.

        `spaces`: the globals of its files, which may have imported functions by name. Its
        collectives do nothing: other ranks may be waiting for this one.
        """
        instead = {
            getattr(dist, name): partial(self._answer, name, getattr(dist, name))
            for name in ("get_rank", "get_world_size", "is_initialized", *COLLECTIVES)
        }
        environment = {name: os.environ.get(name) for name in _VARIABLES}
        found = [
            (space, name, value)
            for space in (vars(dist), *spaces)
            for name, value in list(space.items())
            if callable(value) and str(getattr(value, "__module__", "")).startswith("torch.dist")
            if value in instead
        ]
        try:
            for space, name, value in found:
                space[name] = instead[value]
            yield
        finally:
            for space, name, value in found:
                space[name] = value
            for name, text in environment.items():
                os.environ.pop(name, None)
                if text is not None:
                    os.environ[name] = text

    def _answer(self, name: str, usual: Callable[..., Any], *args: Any, **options: Any) -> Any:
        if not self.noted(sys._getframe(1), f"torch.distributed.{name}"):
            return usual(*args, **options)
        rank, count = self.claim
        answers = {"get_rank": rank, "get_world_size": count, "is_initialized": count > 1}
        if name in answers:
            return answers[name]
        if len(args) > 1 and isinstance(args[0], list):
            args[0][:] = [args[1]] * len(args[0])
        return None
