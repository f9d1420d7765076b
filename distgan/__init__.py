"""Train GANs on images and audio: one run, any cluster.

Packages, each after those that it imports:

core         files, the console, random numbers, the clock; no torch
monitor      judge the numbers of a run
config       a run as settings
runs         a run folder on disk
distributed  ranks, launch lines, engine choices
shards       build, check and adopt data sets (the folder beside this one)
data         from shards to batches
nn           layers, losses, augmentations as networks use them
metrics      distances between sets and between signals
engine       a network in training: DDP, DeepSpeed, updates that are skipped
evaluation   scores of a recipe, on all ranks
outputs      files for people: pictures, sound, tables
recipes      the systems: networks, losses, one step
report       the page of a run
self_check   that a step does not depend on how its work is shared
training     the loop
commands     verbs that need no launcher
launchers    Slurm, sweeps, local processes (the folder beside this one)
library      the same from Python: `distgan.train`, `distgan.load`, `distgan.TrainedRun`
"""

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.2.0"

if TYPE_CHECKING:
    from distgan.data.epochs import Loader as Loader
    from distgan.library import TrainedRun as TrainedRun
    from distgan.library import load as load
    from distgan.library import train as train

# Loaded when they are used: the command line, and what needs no torch, starts without it.
_LIBRARY = {
    "Loader": "distgan.data.epochs",
    "TrainedRun": "distgan.library",
    "load": "distgan.library",
}


def __getattr__(name: str) -> Any:
    if name == "train":  # the module is callable: distgan/train.py is a program, too
        return importlib.import_module("distgan.train")
    if name not in _LIBRARY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_LIBRARY[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_LIBRARY, "train"])
