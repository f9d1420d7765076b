"""The trainer, which stands still for two seconds at one place of one rank, so that a kill from
outside hits it there: the program of tests/programs/chaos.py.

Where, and which file then appears, is said by the variable CHAOS: kind|place|how often it passes
before|rank|file. Without it nothing is changed.
"""

import functools
import os
import shutil
import sys
import time
from pathlib import Path

import torch

from distgan.data.dataset import Data
from distgan.evaluation.image_evaluator import Evaluator
from distgan.recipes import sagan
from distgan.runs import checkpoints

PAUSE_S = 2
PLACES = {
    "save": (
        "before anything is written",
        "networks half written",
        "training state half written",
        "before checkpoint.json",
        "before the sync",
        "before the rename",
        "after the rename",
        "before old ones are deleted",
        "old one half deleted",
    ),
    "validation": ("as it begins", "computed, not written"),
    "evaluation": ("as it begins", "among the samples", "computed, not written"),
    "reading": ("in a decoding process",),
}


class Pause:
    """Once in a start, at the `nth` save, validation, evaluation or batch or, where that does not
    come by the place, a later one.
    """

    def __init__(self, kind: str, place: str, nth: str, marker: str):
        self.kind, self.place, self.nth, self.marker = kind, place, int(nth), Path(marker)
        self.seen, self.armed = 0, False

    def here(self, place: str) -> None:
        if self.armed and place == self.place and not self.marker.exists():
            self.marker.write_text(str(os.getpid()))
            time.sleep(PAUSE_S)

    def counted(self, holder, name: str, begins: str) -> None:
        """`holder.name` is what is counted."""
        usual = getattr(holder, name)

        @functools.wraps(usual)
        def wrapped(*args, **more):
            self.seen += 1
            self.armed = self.seen >= self.nth
            self.here(begins)
            found = usual(*args, **more)
            self.here("computed, not written")
            self.armed = self.armed and self.kind == "save"  # old checkpoints are deleted after it
            return found

        setattr(holder, name, wrapped)

    def around(self, holder, name: str, before: str = "", after: str = "") -> None:
        usual = getattr(holder, name)

        @functools.wraps(usual)
        def wrapped(*args, **more):
            self.here(before)
            found = usual(*args, **more)
            self.here(after)
            return found

        setattr(holder, name, wrapped)

    def half(self, holder, name: str, place: str) -> None:
        """`holder.name(what, path)` writes a file, of which the first half is there."""
        usual = getattr(holder, name)

        @functools.wraps(usual)
        def wrapped(what, path, *args, **more):
            usual(what, path, *args, **more)
            if self.armed and place == self.place:
                whole = Path(path).read_bytes()
                Path(path).write_bytes(whole[: len(whole) // 2])
                self.here(place)
                Path(path).write_bytes(whole)

        setattr(holder, name, wrapped)

    def half_deleted(self, place: str) -> None:
        usual = shutil.rmtree

        @functools.wraps(usual)
        def wrapped(path, *args, **more):
            within = f"/proc/self/fd/{more['dir_fd']}" if "dir_fd" in more else "."
            files = sorted(Path(within, path).glob("*"))
            if self.armed and place == self.place and files:
                files[0].unlink()
                self.here(place)
            return usual(path, *args, **more)

        shutil.rmtree = wrapped

    def install(self) -> None:
        if self.kind == "save":
            self.half(checkpoints, "save_file", "networks half written")
            self.half(torch, "save", "training state half written")
            self.half_deleted("old one half deleted")
            self.around(checkpoints, "_digest", "before checkpoint.json")
            self.around(checkpoints, "sync", "before the sync")
            self.around(os, "replace", "before the rename", "after the rename")
            self.around(checkpoints, "prune", "before old ones are deleted")
            self.counted(checkpoints, "save", "before anything is written")
        elif self.kind == "validation":
            self.counted(sagan.Recipe, "validate", "as it begins")
        elif self.kind == "evaluation":
            self.around(sagan.Recipe, "sample", "among the samples")
            self.counted(Evaluator, "__call__", "as it begins")
        elif self.kind == "reading":
            usual = Data.decode

            def decode(data, *args, **more):
                if torch.utils.data.get_worker_info():  # each decoding process counts for itself
                    self.seen += 1
                    self.armed = self.seen >= self.nth
                    self.here("in a decoding process")
                return usual(data, *args, **more)

            Data.decode = decode


if __name__ == "__main__":
    from distgan.cli import guarded
    from distgan.distributed.ranks import exit_process
    from distgan.train import main

    kind, place, nth, rank, marker = os.environ.get("CHAOS", "||0|0|").split("|")
    if os.environ.get("RANK", "0") == rank:
        Pause(kind, place, nth, marker).install()
    exit_process(guarded(main, sys.argv[1:]))
