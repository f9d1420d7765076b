"""A trained run as `generate` and `evaluate` take it.

Its checkpoint, its settings on this machine, its networks.
"""

from pathlib import Path
from types import ModuleType
from typing import Any

from distgan.config import batch_layout, loading
from distgan.config.identity import with_neutral
from distgan.config.settings import Run
from distgan.core.arguments import Option, one_of, whole
from distgan.core.errors import ConfigError
from distgan.recipes._catalog import resolve_recipe
from distgan.runs import history

OPTIONS = (
    Option("data", "the data set of the run, where it has moved", "FOLDER"),
    one_of("device", "where to compute", "auto", "cpu", "cuda", default="auto"),
    whole("processes", "processes on this machine (default: 1)", 1, 4096),
)


def locate(text: str) -> Path:
    """The checkpoint folder that RUN, RUN@best, RUN@last, RUN@STEP or its own path names. Of a run
    alone its best, or the last one where no checkpoint has the best score, as the results after
    training. ConfigError.
    """
    from distgan.runs.locate import find_checkpoint

    try:
        return find_checkpoint(text)
    except ConfigError:
        if not (Path(text).expanduser() / "checkpoints").is_dir():
            raise
        return find_checkpoint(f"{text}@last")


def settings(folder: Path, device: str) -> tuple[ModuleType, Run]:
    """The recipe's module and the settings of the run in `folder`, for this machine."""
    module, tree = resolve_recipe(str(folder / "config.yaml"))
    recorded = with_neutral(module.Settings, tree)
    run = loading.validate(
        module.Settings, {**recorded, "grow": None, "machine": {"device": device}}
    )
    # Samples are computed in the type of the weights: reduced precision is for training.
    return module, run.model_copy(
        update={"precision": run.precision if run.precision in ("float64", "tf32") else "float32"}
    )


def load(module: ModuleType, run: Run, ranks: Any, checkpoint: Path) -> Any:
    """The recipe with the networks of a checkpoint, for samples and not for training.

    As if the global batch were one process's.
    """
    from distgan.recipes._base import build_recipe
    from distgan.runs import checkpoints

    recipe = build_recipe(
        module,
        run,
        ranks,
        batch_layout.fit(run.batch, 1, 1, run.group, run.group_of),
        shape(run, checkpoint.parents[1]),
    )
    checkpoints.load(checkpoint, recipe.players)
    return recipe


def shape(run: Run, folder: Path) -> tuple[int, ...]:
    """Of a sample, as the run recorded it; runs before that was recorded need their data set."""
    from distgan.data.dataset import Data

    attempts = history.read_history(folder).attempts
    recorded = next(
        (
            attempt["data"]["shape"]
            for attempt in attempts.values()
            if "shape" in attempt.get("data", {})
        ),
        None,
    )
    return tuple(recorded) if recorded else Data(run.data).shape
