"""Write the checkpoints of a run: those to resume from, the archive of every n-th epoch, and the
record of the best; say how much disk a run takes. Rank 0 writes.

RUN/checkpoints/STEP   the newest ones, the best, and the one to roll back to
RUN/checkpoints/best   a link to the best, for people: nothing of distgan follows it
RUN/archive/STEP       networks and averages, kept; of checkpoint `RUN@epoch=N`
RUN/best.json          the best score, for people and other programs: nothing of distgan reads it
"""

import contextlib
import dataclasses
import json
import math
import os
import secrets
import shutil
from pathlib import Path
from typing import Any

import torch

from distgan.config.sections import Machine
from distgan.config.settings import Run
from distgan.core.clock import Clock
from distgan.core.errors import DiskError
from distgan.core.files import opened_folder, remove, write_atomic
from distgan.data.dataset import Data
from distgan.recipes._base import GRID, WritesResults
from distgan.runs import checkpoints
from distgan.runs.folder import RunFolder

BEST = "best"
# Bytes at most: of a checkpoint beside its tensors, and of the description of one tensor; of a step
# in the journal; of a file of scores with its events; of a plot; of a sound frame. Recipes show up
# to 4 pairs of signals, and have sounds of 8 among their results.
_DESCRIPTION, _TENSOR, _ROW, _SCORES, _PLOT, _FRAME = 1 << 17, 1 << 10, 1 << 10, 1 << 14, 1 << 20, 2
_SHOWN, _SOUNDS = 4, 8


def is_due(machine: Machine, now: Clock) -> bool:
    """Return True where the settings ask for a checkpoint, to resume from or of the archive."""
    return now.due(machine.checkpoint_every) or _is_archived(machine, now)


def _is_archived(machine: Machine, now: Clock) -> bool:
    """Return True at the first step at or after a multiple of machine.keep_every epochs."""
    return machine.keep_every is not None and now.due(machine.keep_every)


def write(
    folder: RunFolder,
    machine: Machine,
    now: Clock,
    players: dict[str, checkpoints.Held],
    here: dict[str, Any],
    state: dict[str, Any],
) -> None:
    """Write the checkpoint of this step, and delete those that are no longer kept; DiskError.

    here: the position in the data, and whose run it is. state: what an archive does not hold. The
    journal is on the disk first; the archive comes before the checkpoint, so that a run which
    resumes from this step has archived it.
    """
    home = folder.path / "checkpoints"
    here = here | {"epoch": now.epoch}
    folder.sync()
    # One that is there holds these networks: archives after a step that a run goes back to are
    # deleted. Written again it would have another digest, and runs grown from it another identity.
    fault: DiskError | None = None
    if _is_archived(machine, now) and not checkpoints.archived(folder.path, now.step):
        try:
            folder.write_or_warn(lambda: checkpoints.archive(folder.path, now.step, players, here))
        except DiskError as error:
            fault = error  # first what a run resumes from
    checkpoints.save(home, now.step, players, here | state)
    best = [score["step"] for score in (state["best"], state["best_scheduled"]) if score]
    checkpoints.prune(home, machine.keep, {*best, state["healthy"]})
    record_best(folder, state["best"])
    if fault:
        raise fault


def record_best(folder: RunFolder, best: dict[str, Any] | None) -> None:
    """Write best.json and the link checkpoints/best, or remove them; only warn if that fails."""
    name = f"{best['step']:08d}" if best else ""
    there = bool(best) and (folder.path / "checkpoints" / name).is_dir()
    path, link = folder.path / "best.json", folder.path / "checkpoints" / BEST

    def write() -> None:
        if best is None:
            remove(path)
        else:
            names = ("metric", "score", "floor", "epoch", "step")
            record = {key: best[key] for key in names if key in best}
            record["checkpoint"] = f"checkpoints/{name}" if there else None
            write_atomic(path, json.dumps(record, indent=1) + "\n")
        if there:
            _link(link, name)
        elif os.path.islink(link):
            remove(link)

    folder.write_optional("the record of the best score", write)


def _link(link: Path, target: str) -> None:
    """Make a relative link, or replace the one that is there; OSError where that is no link."""
    with contextlib.suppress(OSError):
        if os.readlink(link) == target:
            return
    temporary = f".tmp-{link.name}-{secrets.token_hex(4)}"
    with opened_folder(link.parent) as folder:
        os.symlink(target, temporary, dir_fd=folder)
        try:
            os.replace(temporary, link.name, src_dir_fd=folder, dst_dir_fd=folder)
        except OSError:
            os.unlink(temporary, dir_fd=folder)
            raise


@dataclasses.dataclass(frozen=True)
class Disk:
    """Bound the bytes of a run folder, without logs and the batches of skipped updates."""

    checkpoint: int
    checkpoints: int  # at one time, one that is being written among them
    archive: int  # each
    archives: int
    rest: int  # journal, samples, scores, results

    @classmethod
    def of(cls, run: Run, recipe: Any, data: Data, last: Clock) -> "Disk":
        """Return that of a run which goes to the step `last`; of the sizes of its networks."""
        networks = moments = count = 0
        for player in recipe.players.values():
            tensors = player.tensors().values()
            networks += sum(one.numel() * one.element_size() for one in tensors)
            count += len(tensors)
            # Adam keeps two numbers for each weight, RMSprop one.
            one_moment = isinstance(player.engine.optimizer, torch.optim.RMSprop)
            weights = sum(p.numel() * p.element_size() for p in player.module.parameters())
            moments += (1 if one_moment else 2) * weights
        beside = _DESCRIPTION + _TENSOR * count
        has_best = run.scored is not None or run.judge is not None
        return cls(
            networks + moments + 3 * beside,
            # The newest, the best, the one to roll back to, and the one that is being written.
            min(run.machine.keep + 2 + has_best, last.step + 2),
            networks + beside,
            int(last.epoch // run.machine.keep_every) if run.machine.keep_every else 0,
            _rest(run, recipe, data, last),
        )

    @property
    def total(self) -> int:
        return self.checkpoint * self.checkpoints + self.archive * self.archives + self.rest

    def __str__(self) -> str:
        parts = [f"{self.checkpoints} checkpoints of {_size(self.checkpoint)}"]
        if self.archives:
            plural = "s" if self.archives > 1 else ""
            parts.append(f"{self.archives} archive checkpoint{plural} of {_size(self.archive)}")
        parts.append(f"journal, samples and results {_size(self.rest)}")
        return f"up to {_size(self.total)} in the run folder: {', '.join(parts)}"

    def shortage(self, folder: Path) -> str | None:
        """Return a warning if there is less room for a run folder than it may take."""
        place = folder
        while not place.exists() and place != place.parent:
            place = place.parent
        try:
            free = shutil.disk_usage(place).free
            there = sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file())
        except OSError:
            return None
        if free + there >= self.total:
            return None
        return (
            f"only {_size(free)} are free for {folder}: free some, or set machine.keep,"
            " machine.keep_every or machine.folder"
        )


def _rest(run: Run, recipe: Any, data: Data, last: Clock) -> int:
    """Return the bytes of journal, events, samples, scores and results, at most."""
    sample = math.prod(data.shape)
    files = image = _PLOT
    if data.kind in ("image", "image_pair"):
        image = sample + sample // 2 + 1024  # lines of a grid, and the header of a PNG
        files = GRID * image
    elif data.kind == "pair":
        files = _PLOT + 3 * _SHOWN * sample * _FRAME
    checks = last.epoch * (1 / run.sample_every) + 3, last.epoch * (1 / run.validate_every) + 3
    steps = last.step // run.machine.journal_every
    total = steps * _ROW + (int(checks[0]) + 1) * files + int(checks[1]) * _SCORES
    if run.scored:
        evaluations = sum(
            max(min(until or last.epoch, last.epoch) - start, 0) / every
            for start, (until, every) in zip(
                (0.0, *(until or 0.0 for until, _ in run.scored.schedule)),
                run.scored.schedule,
                strict=False,
            )
        )
        total += int(evaluations + 3) * _SCORES
    if isinstance(recipe, WritesResults):
        every = len(data.train) + len(data.validation)
        count = getattr(run, "results", None)
        images = (count if type(count) is int else every) * (image + 256)
        sounds = 8 * _PLOT + 3 * _SOUNDS * sample * _FRAME + every * 1024
        total += images if data.kind == "image" else sounds
    return total


def _size(count: float) -> str:
    return f"{count / 1e9:.3g} GB" if count >= 1e9 else f"{count / 1e6:.3g} MB"
