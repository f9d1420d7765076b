"""The names that a recipe of your own may import: `from distgan import api`.

docs/your-own-gan.md describes them. Everything else in distgan may move between releases; these
names stay, or the changelog says what took their place.
"""

from pydantic import Field

from distgan.config.batch_layout import BatchLayout
from distgan.config.sections import BestBy, Betas, Evaluate, Fraction, Positive, Restarts
from distgan.config.settings import Run
from distgan.core.clock import Clock, cosine_restarts, step_decay
from distgan.core.errors import ConfigError
from distgan.core.rng import normal, normal_each, numpy_generator, uniform
from distgan.data.dataset import Data
from distgan.data.diffaugment import images as diffaugment
from distgan.data.labels import Labels
from distgan.data.loader import MicroBatch
from distgan.data.transforms import flip, to_bytes, to_unit, to_waves
from distgan.distributed.ranks import Ranks
from distgan.engine.player import Log, Player, merge_logs
from distgan.monitor.settings import Watch
from distgan.nn.losses import (
    d_adversarial,
    d_hinge,
    d_lsgan,
    d_relativistic,
    d_vanilla,
    d_wasserstein,
    g_adversarial,
    g_hinge,
    g_lsgan,
    g_relativistic,
    g_vanilla,
    g_wasserstein,
    gradient_penalty,
    zero_centred_penalty,
)
from distgan.nn.normalization import GroupBatchNorm2d, spectral_norm
from distgan.outputs.image_grid import save_grid
from distgan.outputs.signal_plots import overlay, scatter
from distgan.recipes._base import (
    DrawsByClass,
    DrawsSamples,
    Recipe,
    Repairs,
    Shows,
    Validates,
    WritesResults,
    diversity,
    repair,
    step_log,
)
from distgan.recipes._noise import overfitting_ratio
from distgan.recipes._noise import sample as sample_from_noise

__all__ = [
    "BatchLayout",
    "BestBy",
    "Betas",
    "Clock",
    "ConfigError",
    "Data",
    "DrawsByClass",
    "DrawsSamples",
    "Evaluate",
    "Field",
    "Fraction",
    "GroupBatchNorm2d",
    "Labels",
    "Log",
    "MicroBatch",
    "Player",
    "Positive",
    "Ranks",
    "Recipe",
    "Repairs",
    "Restarts",
    "Run",
    "Shows",
    "Validates",
    "Watch",
    "WritesResults",
    "cosine_restarts",
    "d_adversarial",
    "d_hinge",
    "d_lsgan",
    "d_relativistic",
    "d_vanilla",
    "d_wasserstein",
    "diffaugment",
    "diversity",
    "flip",
    "g_adversarial",
    "g_hinge",
    "g_lsgan",
    "g_relativistic",
    "g_vanilla",
    "g_wasserstein",
    "gradient_penalty",
    "merge_logs",
    "normal",
    "normal_each",
    "numpy_generator",
    "overfitting_ratio",
    "overlay",
    "repair",
    "sample_from_noise",
    "save_grid",
    "scatter",
    "spectral_norm",
    "step_decay",
    "step_log",
    "to_bytes",
    "to_unit",
    "to_waves",
    "uniform",
    "zero_centred_penalty",
]
