"""Find the checkpoint that a user names: `RUN`, `RUN@best`, `RUN@last`, `RUN@epoch=N`, `RUN@STEP`,
its folder.
"""

import math
from pathlib import Path
from typing import Any

from distgan.config.settings import Run
from distgan.core.errors import ConfigError, RunError
from distgan.runs import checkpoints, records


def find_checkpoint(text: str) -> Path:
    """Return the folder of the checkpoint that `text` names, verified; `RUN` alone is its best.

    Raises ConfigError where there is none, or where its files are damaged.
    """
    path, which = Path(text).expanduser(), "best"
    if not path.is_dir() and "@" in text:
        head, _, which = text.rpartition("@")
        path = Path(head).expanduser()
    elif (path / "checkpoint.json").is_file():
        if path.is_symlink():  # RUN/checkpoints/best, which anybody may have made
            raise ConfigError(
                f"found {text!r}, a link, which may lead anywhere; name the checkpoint by"
                f" {path.parents[1]}@best, or by its own folder"
            )
        return _verified(text, path)
    if which == "last":
        try:
            newest = checkpoints.newest(path / "checkpoints")
        except RunError as error:
            raise ConfigError(f"found {text!r}; {error}") from error
        if newest:
            return newest[0]
        if archive := checkpoints.present(path / checkpoints.ARCHIVE):
            raise ConfigError(
                f"found {text!r}, but {path} has no checkpoint to continue from, and keeps"
                f" {_listed([], archive)}; name one of these: {path}@epoch=N"
            )
    kept = checkpoints.present(path / "checkpoints")
    archive = checkpoints.present(path / checkpoints.ARCHIVE)
    if not kept + archive:
        raise ConfigError(
            f"found {text!r}, but {path} is no run folder with checkpoints; allowed are RUN,"
            " RUN@best, RUN@last, RUN@epoch=N, RUN@STEP, as in"
            " runs/capacity/default-1a2b3c4d@best, and a checkpoint folder"
        )
    return _verified(text, _chosen(text, path, which, kept, archive))


def find_start(setting: str, text: str) -> Path:
    """Return the checkpoint that the setting `grow` or `fine_tune` names; its faults begin with the
    setting's name.
    """
    try:
        return find_checkpoint(text)
    except ConfigError as error:
        raise ConfigError(f"{setting}: {error}") from error


def _chosen(text: str, run: Path, which: str, kept: list[Path], archive: list[Path]) -> Path:
    """Return the checkpoint of the best score, of an epoch, or of a step.

    The archive comes first: a checkpoint of the same step holds the same networks, but it will be
    deleted, and has another digest.
    """
    there = f"the run keeps {_listed(kept, archive)}"
    key, is_epoch, epoch = which.partition("=")
    if key == "epoch" and is_epoch:
        if path := _of_epoch(epoch, [*archive, *kept]):
            return path
        raise ConfigError(f"found {text!r}, but there is no checkpoint of epoch {epoch}; {there}")
    step = which
    if which == "best":
        archive = []
        try:
            step = str(records.read(run / "status.json")["best"]["step"])
        except (OSError, ValueError, KeyError, TypeError):
            raise ConfigError(
                f"found {text!r}, but {run} has no best score yet; {there}, as in {run}@last"
            ) from None
    if not (step.isascii() and step.isdecimal()):
        raise ConfigError(
            f"found {text!r}; allowed after the @ are best, last, epoch=N and a step; {there}"
        )
    for path in [*archive, *kept]:
        if int(path.name) == int(step):
            return path
    raise ConfigError(f"found {text!r}, but there is no checkpoint of step {int(step)}; {there}")


def _listed(kept: list[Path], archive: list[Path]) -> str:
    """Return the checkpoints there are, as a user may name them."""
    epochs = [f"{math.floor(about['epoch'])}" for path in archive if (about := _about(path))]
    listed = [f"epochs {', '.join(epochs)} in its archive"] if epochs else []
    if kept:
        listed.append(f"steps {', '.join(str(int(path.name)) for path in kept)}")
    return " and ".join(listed) or "none that is intact"


def _of_epoch(text: str, paths: list[Path]) -> Path | None:
    """Return the first of the checkpoints that were saved at the first step at or after an epoch;
    None without one.
    """
    try:
        epoch = float(text)
    except ValueError:
        return None
    for path in paths:
        if (about := _about(path)) and about["step"]:
            behind = about["epoch"] - epoch  # by less than a step; epochs are rounded to samples
            if -1e-9 <= behind < about["epoch"] / about["step"] - 1e-9:
                return path
    return None


def _about(path: Path) -> dict[str, Any] | None:
    """Return checkpoint.json with the epoch; None where it is damaged."""
    about = records.read_if_good(path / "checkpoint.json")
    epoch = about.get("epoch")
    return about if isinstance(epoch, int | float) and math.isfinite(epoch) else None


def _verified(text: str, path: Path) -> Path:
    try:
        checkpoints.verify(path)
    except RunError as error:
        raise ConfigError(f"found {text!r}; {error}") from error
    return path


def start_digest(run: Run) -> str | None:
    """Return the digest of the checkpoint that the run starts from; None without one."""
    return checkpoints.verify(find_start(*run.starts_from))["digest"] if run.starts_from else None
