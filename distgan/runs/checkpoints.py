"""Checkpoints: written whole or not at all, verified when read; a damaged one is passed over.

checkpoints/00001200/networks.safetensors   weights, buffers and averages of every player:
                                            `G.net.*`, `G.ema.*`, `D.net.*`
                     training.pt            optimizers and counters; loads with weights_only=True
                     checkpoint.json        step, samples, identity of the run, monitor state, sizes
                                            and SHA-256 of the others; written last
"""

import contextlib
import hashlib
import json
import os
import pickle
import zlib
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from distgan import __version__
from distgan.config.identity import differences
from distgan.core import console
from distgan.core.errors import DiskError, RunError
from distgan.core.files import make_folder, opened_folder, opener, remove, rename, sha256_of, sync
from distgan.core.reading import read_json
from distgan.runs.records import checked

FORMAT = 1
Held = tuple[
    dict[str, torch.Tensor], dict[str, Any]
]  # what a player's tensors() and state() return
_FILES = ("networks.safetensors", "training.pt")
ARCHIVE = "archive"  # in a run folder, beside checkpoints/
_BEFORE = ".tmp-before-"  # + step: a checkpoint while another is saved under its name


def held(players: dict[str, Any]) -> dict[str, Held]:
    """Return what `save` writes of the players.

    Collective: with DeepSpeed each rank has a part of an optimizer's state.
    """
    return {name: (player.tensors(), player.state()) for name, player in players.items()}


def sums(players: dict[str, Any]) -> dict[str, int]:
    """Return a checksum of each tensor and each player's number of updates, which must be the same
    on all ranks.
    """
    return {
        f"{name}.{key}": zlib.crc32(
            value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy()
        )
        for name, player in players.items()
        for key, value in player.tensors().items()
    } | {f"{name}.updates": int(player.updates) for name, player in players.items()}


def digest(players: dict[str, Any]) -> str:
    """Return the SHA-256 of all weights, buffers and averages."""
    sha256 = hashlib.sha256()
    for player in players.values():
        for value in player.tensors().values():
            sha256.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
    return sha256.hexdigest()


def save(folder: Path, step: int, players: dict[str, Held], state: dict[str, Any]) -> Path:
    """Write checkpoint `step` of the players' (tensors, state); DiskError if it cannot be written.

    A kill at any moment leaves either all of it or nothing under its name.
    """
    final, temporary = folder / f"{step:08d}", folder / f".tmp-{step:08d}"
    try:
        remove(temporary)
        _write(folder, final, temporary, step, players, state)
    except (
        OSError,
        RuntimeError,
        SafetensorError,
    ) as error:  # torch and safetensors raise others on a full disk
        with contextlib.suppress(OSError):
            remove(temporary)  # to free the disk
        if isinstance(error, RunError):
            raise
        raise DiskError(
            f"cannot write checkpoint {final}: {error}; the one before it is kept. Free disk space"
            " or give access, and run the same line again"
        ) from error
    return final


def archive(run: Path, step: int, players: dict[str, Held], position: dict[str, Any]) -> Path:
    """Write networks and averages of the players into the archive of a run folder; DiskError.

    Enough to sample, to evaluate, and to start another run from: grow and fine_tune begin with new
    optimizers. Those would be half of the file and more.
    """
    kept = ("updates", "skips")
    networks = {
        name: (tensors, {"optimizer": {}, **{key: state[key] for key in kept}})
        for name, (tensors, state) in players.items()
    }
    path = save(run / ARCHIVE, step, networks, {**position, "optimizers": False})
    prune(path.parent, keep=step + 1, also=set())  # only what a killed save left behind
    return path


def archived(run: Path, step: int) -> bool:
    """Return True if the archive of a run folder has this step."""
    return any(int(path.name) == step for path in present(run / ARCHIVE))


def _write(
    folder: Path,
    final: Path,
    temporary: Path,
    step: int,
    players: dict[str, Held],
    state: dict[str, Any],
) -> None:
    make_folder(folder)
    with opened_folder(folder) as opened:
        os.mkdir(temporary.name, dir_fd=opened)
    tensors = {
        f"{name}.{key}": value.detach().cpu().contiguous()
        for name, (tensors, _) in players.items()
        for key, value in tensors.items()
    }
    if broken := _not_finite(tensors):
        raise RunError(
            f"not saved: {', '.join(broken[:3])} holds values that are not finite; the last good"
            f" checkpoint is kept in {folder}"
        )
    save_file(tensors, temporary / _FILES[0])
    torch.save({name: rest for name, (_, rest) in players.items()}, temporary / _FILES[1])
    with open(temporary / _FILES[0], "rb", opener=opener) as file:  # safetensors makes it 0600
        os.fchmod(file.fileno(), (temporary / _FILES[1]).stat().st_mode & 0o666)
    files = {
        name: {"bytes": (temporary / name).stat().st_size, "sha256": sha256_of(temporary / name)}
        for name in _FILES
    }
    about = {"format": FORMAT, "distgan": __version__, "step": step, **state, "files": files}
    about["digest"] = _digest(about)
    (temporary / "checkpoint.json").write_text(json.dumps(about, indent=1))
    for path in (*temporary.iterdir(), temporary):
        sync(path)
    before = folder / f"{_BEFORE}{final.name}"
    remove(before)
    # Saved again after a rollback, or not made by distgan: kept until the new one has its name.
    if os.path.lexists(final):
        rename(final, before.name)
    with opened_folder(folder) as opened:
        os.replace(temporary.name, final.name, src_dir_fd=opened, dst_dir_fd=opened)
    sync(folder)
    remove(before)


def recover(folder: Path) -> None:
    """Restore the name of a checkpoint that was being saved again when the process was killed.

    For the run itself only: another process may be saving.
    """
    for path in folder.glob(f"{_BEFORE}*"):
        if not (final := folder / path.name.removeprefix(_BEFORE)).exists():
            rename(path, final.name)


class _Damaged(RunError):
    """A checkpoint that differs from what was written: the one before it is used. A checkpoint of
    another format is not damaged, and not passed over.
    """


def newest(folder: Path) -> tuple[Path, dict[str, Any]] | None:
    """Return the newest intact checkpoint and its state; None if there are no checkpoints.

    Warn of damaged ones and pass them over; RunError if none is intact.
    """
    paths = present(folder)
    for path in reversed(paths):
        try:
            about = verify(path)
            if about["step"] != int(path.name):
                raise _Damaged(
                    f"checkpoint {path} is one of step {about['step']} under another name"
                )
            if not about.get("optimizers", True):
                raise _Damaged(f"checkpoint {path} is of an archive, without optimizers")
            return path, about
        except _Damaged as error:
            console.say(f"warning: {error}; falling back to the checkpoint before it")
    if paths:
        raise RunError(
            f"none of the {len(paths)} checkpoints in {folder} is intact; move the folder away to"
            " start the training again"
        )
    return None


def verify(path: Path) -> dict[str, Any]:
    """Return checkpoint.json; RunError if the checkpoint is not intact, or of another format."""
    try:
        about = read_json(path / "checkpoint.json")
        if about["digest"] != _digest(
            about
        ):  # the same in every format: a flipped bit in `format` is damage
            raise _Damaged(f"checkpoint {path} is damaged: checkpoint.json is not what was written")
        if about["format"] != FORMAT:
            raise RunError(
                f"checkpoint {path} has format {about['format']} (distgan {about['distgan']}), this"
                f" is distgan {__version__}, format {FORMAT}; continue with distgan"
                f" {about['distgan']}, or move the folder {path.parent} away to start again"
            )
        for name in _FILES:
            size, sha256 = (about["files"][name][key] for key in ("bytes", "sha256"))
            if (path / name).lstat().st_size != size or sha256_of(path / name, False) != sha256:
                raise _Damaged(f"checkpoint {path} is damaged: {name} is not what was written")
        return checked("checkpoint.json", about)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _Damaged(f"checkpoint {path} is damaged: {error}") from error


def require_run(path: Path, about: dict[str, Any], identity: dict[str, Any]) -> None:
    """Raise RunError if the checkpoint was written by another run than that of `identity`.

    Checkpoints of version 0.1 do not record their run.
    """
    if "identity" not in about:
        return
    try:
        lines = differences(about["identity"], identity, "checkpoint")
        whose = about["identity"]["id"]
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise _Damaged(
            f"checkpoint {path} or the identity.json of its run is damaged: {error!r}"
        ) from error
    if lines:
        raise RunError(
            f"checkpoint {path} belongs to another run, {whose} ({_few(lines)}); move it away, or"
            " start a new run from it with grow=CHECKPOINT"
        )


def load(path: Path, players: dict[str, Any]) -> None:
    """Load a verified checkpoint into the players of this process, whatever number of ranks and
    engine wrote it.
    """
    try:
        tensors = load_file(path / _FILES[0])
        states = torch.load(path / _FILES[1], map_location="cpu", weights_only=True)
    except (
        OSError,
        RuntimeError,
        ValueError,
        EOFError,
        SafetensorError,
        pickle.UnpicklingError,
    ) as error:
        raise RunError(f"checkpoint {path} cannot be read: {str(error).splitlines()[0]}") from error
    here = {
        f"{name}.{key}": _form(value)
        for name, player in players.items()
        for key, value in player.tensors().items()
    }
    there = {key: _form(value) for key, value in tensors.items()}
    unlike = [
        f"{key}: {there.get(key, 'no such tensor')} in the checkpoint,"
        f" {here.get(key, 'no such tensor')} in this network"
        for key in [*here, *(key for key in there if key not in here)]
        if here.get(key) != there.get(key)
    ]
    if unlike:
        raise RunError(
            f"checkpoint {path} does not fit this network ({_few(unlike)}); its run has other"
            " settings, or is of another recipe"
        )
    if broken := _not_finite(tensors):
        raise RunError(
            f"checkpoint {path} holds weights that are not finite numbers ({_few(broken)}): no run"
            " saves such, so it was changed, or made by another program; use another checkpoint"
        )
    try:
        for name, player in players.items():
            player.load(
                {
                    key[len(name) + 1 :]: value
                    for key, value in tensors.items()
                    if key.startswith(f"{name}.")
                },
                states[name],
            )
    except (LookupError, RuntimeError, ValueError, TypeError, AttributeError) as error:
        text = str(error).splitlines() or [""]
        raise RunError(
            f"checkpoint {path} does not fit this network: {text[0]} ({type(error).__name__})"
        ) from error


def _form(value: torch.Tensor) -> str:
    """Return the shape of a tensor, and its type unless that is a floating one."""
    return f"{list(value.shape)}" + ("" if value.is_floating_point() else f" of {value.dtype}")


def _not_finite(tensors: dict[str, torch.Tensor]) -> list[str]:
    """Return the names of tensors with values that are not finite."""
    return [
        key
        for key, value in tensors.items()
        if value.is_floating_point() and not torch.isfinite(value).all()
    ]


def _few(lines: list[str]) -> str:
    """Return the first lines in one, and how many more there are."""
    more = [f"and {len(lines) - 3} more"] if len(lines) > 3 else []
    return "; ".join(lines[:3] + more)


def present(folder: Path) -> list[Path]:
    """Return the checkpoint folders, oldest first."""
    return (
        sorted(path for path in folder.glob("[0-9]" * 8) if path.is_dir() and not path.is_symlink())
        if folder.is_dir()
        else []
    )


def prune(folder: Path, keep: int, also: set[int | None]) -> None:
    """Delete all checkpoints but the newest `keep` and those of the steps `also`, and what a killed
    save left behind. Of a step that could not be written, the checkpoint before it is kept.
    """
    try:
        paths = present(folder)
        kept = {_newest_until(paths, step) for step in also if step is not None}
        for path in paths[:-keep]:
            if path not in kept:
                _delete(path)
        for path in folder.glob(".tmp-*"):
            remove(path)
    except OSError as error:
        raise DiskError(f"cannot delete old checkpoints in {folder}: {error}") from error


def _newest_until(paths: list[Path], step: int) -> Path | None:
    return max((path for path in paths if int(path.name) <= step), default=None)


def require_written(folder: Path, step: int) -> Path:
    """Return checkpoint `step`. DiskError if it was never written, for want of room: then those
    after the one before it are deleted, and a run that continues from there writes it and comes to
    the same decision.
    """
    path = folder / f"{step:08d}"
    if path.is_dir():
        return path
    before = _newest_until(present(folder), step)
    discard_after(folder, int(before.name) if before else -1)
    start = f"continues from step {int(before.name)}" if before else "starts anew"
    raise DiskError(
        f"the run must roll back to step {step}, but checkpoint {path} could not be written when it"
        f" was due. Free disk space and run the same line again: it {start}, and rolls back there"
    )


def discard_after(folder: Path, step: int) -> None:
    """Delete checkpoints after `step`: they are damaged, or will be trained again."""
    for path in present(folder):
        if int(path.name) > step:
            _delete(path)


def _delete(path: Path) -> None:
    """Rename, then delete: a kill leaves nothing half deleted under its name, and the next `prune`
    deletes the rest.
    """
    away = path.with_name(f".tmp-old-{path.name}")
    remove(away)
    rename(path, away.name)
    remove(away)


def _digest(about: dict[str, Any]) -> str:
    """Return the SHA-256 of checkpoint.json without its own digest."""
    rest = {key: value for key, value in about.items() if key != "digest"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()
