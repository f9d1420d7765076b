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
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from distgan.data.epochs import Loader as Loader

__version__ = "0.2.0"
_NAMES = {"Loader": "distgan.data.epochs"}  # imported when they are used: they need torch


def __getattr__(name: str) -> Any:
    if name not in _NAMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_NAMES[name]), name)
