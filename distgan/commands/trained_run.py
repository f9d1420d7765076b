"""A trained run as `generate` and `evaluate` use it: its checkpoint, its settings on this machine,
its networks.
"""

from pathlib import Path
from typing import Any

from distgan.config import batch_layout, loading
from distgan.config.identity import with_neutral
from distgan.config.settings import Run
from distgan.core import console
from distgan.core.arguments import Option, one_of, whole
from distgan.core.errors import ConfigError, RunError
from distgan.recipes._catalog import Module, resolve_recipe
from distgan.runs import history, records
from distgan.runs.resolve import recorded_identity

YOUNG = 0.05  # of an average: the share of the network that training began with
OPTIONS = (
    Option("data", "the data set of the run, where it has moved", "FOLDER"),
    one_of("device", "where to compute", "auto", "cpu", "cuda", default="auto"),
    whole("processes", "processes on this machine (default: 1)", 1, 4096),
)


def locate(text: str) -> Path:
    """Return the checkpoint folder that RUN, RUN@best, RUN@last, RUN@epoch=N, RUN@STEP or its own
    path names.

    RUN alone is its best checkpoint, or the last one if none has the best score, as for the results
    after training. ConfigError.
    """
    from distgan.runs.locate import find_checkpoint

    try:
        return find_checkpoint(text)
    except ConfigError:
        if not (Path(text).expanduser() / "checkpoints").is_dir():
            raise
        return find_checkpoint(f"{text}@last")


def named_run(text: str) -> Path | None:
    """Return the run folder that RUN, RUN@WHICH or a checkpoint names; None if it is no run."""
    path = Path(text).expanduser()
    if not path.exists() and "@" in text:
        path = Path(text.rpartition("@")[0]).expanduser()
    if (path / "checkpoint.json").is_file():
        return path.parents[1]
    return path if (path / "checkpoints").is_dir() else None


def settings(folder: Path, device: str) -> tuple[Module, Run]:
    """Return the recipe's module and the settings of the run in `folder` for this machine."""
    module, tree = resolve_recipe(str(folder / "config.yaml"))
    recorded = with_neutral(module.Settings, tree)
    run = loading.validate(
        module.Settings,
        {**recorded, "recipe": tree["recipe"], "grow": None, "machine": {"device": device}},
    )
    # Samples are computed in the type of the weights: reduced precision is for training.
    return module, run.model_copy(
        update={"precision": run.precision if run.precision in ("float64", "tf32") else "float32"}
    )


def load(module: Module, run: Run, ranks: Any, checkpoint: Path) -> Any:
    """Build the recipe with the networks of a checkpoint, for sampling.

    The layout is that of one process: samples do not depend on the global batch.
    """
    from distgan.recipes._base import build_recipe, require_method
    from distgan.runs import checkpoints

    recipe = build_recipe(
        module,
        run,
        ranks,
        batch_layout.fit(run.batch, 1, 1, run.group, run.group_of),
        *_sample_of(run, checkpoint.parents[1]),
    )
    require_method(recipe, run, "sample" if run.kind in ("image", "vector") else "repairer")
    if identity := recorded_identity(checkpoint.parents[1]):
        checkpoints.require_run(checkpoint, _about(checkpoint), identity)
    checkpoints.load(checkpoint, recipe.players)
    if run.starts_from is None:
        _note_young_averages(recipe)
    return recipe


def _note_young_averages(recipe: Any) -> None:
    """Say which averages, the networks that samples come from, are hardly of trained weights."""
    for name, player in recipe.players.items():
        if (share := player.initial_share()) > YOUNG:
            updates = int(player.updates)
            console.say(
                f"warning: {share:.0%} of the average of {name}'s weights is the untrained network:"
                f" {updates} update{'' if updates == 1 else 's'}, and the half-life of the average"
                f" is {player.half_life:.4g} of them. Train longer, or let the average follow"
                " faster (in a recipe of your own: ema of api.Player; else ema or ema_kimg)"
            )


def _sample_of(run: Run, folder: Path) -> tuple[tuple[int, ...], Any]:
    """Return the shape of a sample and the labels of networks that are given them, from the run's
    attempts, else from its data set.
    """
    from distgan.data.labels import Labels
    from distgan.data.own_dataset import open_data

    for attempt in history.read_history(folder).attempts.values():
        recorded = attempt.get("data", {})
        if "shape" in recorded and (run.label_column is None or "labels" in recorded):
            try:
                labels = Labels.from_record(recorded["labels"]) if "labels" in recorded else None
            except ValueError as error:
                raise RunError(f"{folder}: the record of an attempt is damaged: {error}") from None
            return tuple(recorded["shape"]), labels
    data = open_data(run.data)
    data.require(run)
    return data.shape, data.labels


def columns_of(folder: Path) -> list[str]:
    """Return the names of the columns of the vectors that a run was trained on; none without."""
    for attempt in history.read_history(folder).attempts.values():
        names = (attempt.get("data") or {}).get("columns")
        if isinstance(names, list) and all(isinstance(name, str) for name in names):
            return names
    return []


def labels_of(run: Run, folder: Path) -> Any:
    """Return the classes that a run was trained with, or None without labels."""
    return _sample_of(run, folder)[1]


def shape_of(run: Run, folder: Path) -> tuple[int, ...]:
    """Return the shape of the samples that a run was trained on."""
    return _sample_of(run, folder)[0]


def require_classes(data: Any, run: Run, folder: Path) -> None:
    """ConfigError unless `data` has labels with the classes of a conditional run."""
    data.require(run)
    labels = labels_of(run, folder)
    if labels is not None and labels.names != data.labels.names:
        raise ConfigError(
            f"data: {data.folder} has other classes of {data.labels.column} than the run, which was"
            f" trained on {len(labels)}: {', '.join(labels.names[:12])}"
            + (", …" if len(labels) > 12 else "")
        )


def digest(checkpoint: Path) -> str:
    """Return the digest of a checkpoint, which is stored with it."""
    return _about(checkpoint)["digest"]


def _about(checkpoint: Path) -> dict[str, Any]:
    return records.read(checkpoint / "checkpoint.json")


def describe(checkpoint: Path, recipe: Any) -> dict[str, Any]:
    """Return what names the evaluated generator in a result."""
    return {
        "run": checkpoint.parents[1].name,
        "checkpoint": checkpoint.name,
        "step": int(checkpoint.name),
        "checkpoint_digest": digest(checkpoint),
        "averaged": any(one.ema is not one.module for one in recipe.players.values()),
    }
