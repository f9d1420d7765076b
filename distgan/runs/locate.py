"""Find the checkpoint that a user names: `RUN`, `RUN@best`, `RUN@last`, `RUN@STEP`, its folder."""

from pathlib import Path

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
        return _verified(text, path)
    if which == "last":
        try:
            newest = checkpoints.newest(path / "checkpoints")
        except RunError as error:
            raise ConfigError(f"found {text!r}; {error}") from error
        if newest:
            return newest[0]
    kept = checkpoints.present(path / "checkpoints")
    if not kept:
        raise ConfigError(
            f"found {text!r}, but {path} is no run folder with checkpoints; allowed are RUN,"
            " RUN@best, RUN@last, RUN@STEP, as in runs/capacity/default-1a2b3c4d@best, and a"
            " checkpoint folder"
        )
    return _verified(text, _numbered(text, path, which, kept))


def find_start(setting: str, text: str) -> Path:
    """Return the checkpoint that the setting `grow` or `fine_tune` names; its faults begin with the
    setting's name.
    """
    try:
        return find_checkpoint(text)
    except ConfigError as error:
        raise ConfigError(f"{setting}: {error}") from error


def _numbered(text: str, run: Path, which: str, kept: list[Path]) -> Path:
    """Return the checkpoint of the best score, or of the step `which`."""
    step = which
    steps = f"the run keeps steps {', '.join(str(int(path.name)) for path in kept)}"
    if which == "best":
        try:
            step = str(records.read(run / "status.json")["best"]["step"])
        except (OSError, ValueError, KeyError, TypeError):
            raise ConfigError(
                f"found {text!r}, but {run} has no best score yet; {steps}, as in {run}@last"
            ) from None
    if not (step.isascii() and step.isdecimal()):
        raise ConfigError(f"found {text!r}; allowed after the @ are best, last and a step; {steps}")
    path = run / "checkpoints" / f"{int(step):08d}"
    if path not in kept:
        raise ConfigError(
            f"found {text!r}, but there is no checkpoint of step {int(step)}; {steps}"
        )
    return path


def _verified(text: str, path: Path) -> Path:
    try:
        checkpoints.verify(path)
    except RunError as error:
        raise ConfigError(f"found {text!r}; {error}") from error
    return path


def start_digest(run: Run) -> str | None:
    """Return the digest of the checkpoint that the run starts from; None without one."""
    return checkpoints.verify(find_start(*run.starts_from))["digest"] if run.starts_from else None
