"""Statistics of real images in files, beside a data set of shards or, of a folder that is only
read, in the cache: computed once, by all ranks of one job, and read by every later one.

    DATA/statistics/features-<12 hex>.safetensors    rows of features [n, d] and of projections [n,
                                                     256], float32, in the order of the images
    DATA/statistics/moments-<12 hex>.safetensors     means and covariances of the images and of two
                                                     halves of them, float64

The 12 digits are the hash of the key: everything that the arrays depend on, such as the images'
fingerprint, the extractor's weights, the preprocessing and the arithmetic. The key is stored in the
file, with the SHA-256 of each array. A damaged file is computed anew; one with another key is never
used.
"""

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from distgan.core import console
from distgan.core.errors import RunError
from distgan.core.files import lock, make_folder, write_atomic
from distgan.core.reading import open_regular, parse_json

FORMAT = 1


def cache_path(folder: Path, kind: str, key: dict[str, Any]) -> Path:
    """Return the path of the statistics with this key; `kind`: features or moments."""
    return folder / f"{kind}-{hashlib.sha256(_text(key).encode()).hexdigest()[:12]}.safetensors"


def write(path: Path, key: dict[str, Any], arrays: dict[str, torch.Tensor]) -> bool:
    """Store the arrays and say where; return False, with a note, if the folder cannot be written.

    Under a lock of the folder: of two evaluations at once, the second finds the file of the first.
    Without the file, as beside a read-only data set, the next job computes them again.
    """
    header = {
        "distgan": _text(
            {
                "format": FORMAT,
                "about": key,
                "sha256": {name: _digest(array) for name, array in sorted(arrays.items())},
            }
        )
    }
    try:
        make_folder(path.parent)
        with _locked(path.parent):
            if _is_intact(path, key):
                return True
            content = save({name: a.contiguous() for name, a in arrays.items()}, metadata=header)
            write_atomic(path, content, contextlib.nullcontext)
    except OSError as error:
        console.say(
            f"note: statistics of the real images are not stored: {path.parent} cannot be written"
            f" ({error.strerror}); --statistics DIR names another folder"
        )
        return False
    console.say(f"statistics of the real images are kept in {path} ({len(content) / 1e6:.3g} MB)")
    return True


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    handle = os.open(folder, os.O_RDONLY)
    try:
        lock(handle)
        yield
    finally:
        os.close(handle)


def _is_intact(path: Path, key: dict[str, Any]) -> bool:
    try:
        return path.is_file() and _open(path)[0] == key
    except RunError:
        return False


def read(path: Path, key: dict[str, Any]) -> dict[str, torch.Tensor] | None:
    """Return the verified arrays; None if there is no file or, with a note, if it is damaged.

    RunError, naming every difference, if the file has another key.
    """
    if not path.is_file():
        return None
    try:
        stored, arrays = _open(path)
    except RunError as error:
        console.say(f"note: {error}; computed again")
        return None
    require_same(path, stored, key)
    return arrays


def require_same(path: Path, stored: dict[str, Any], key: dict[str, Any]) -> None:
    """RunError, naming every difference, unless both keys are equal."""
    differences = [
        f"  {name}: made with {stored.get(name, 'none')}, needed is {key.get(name, 'none')}"
        for name in sorted(stored.keys() | key.keys())
        if stored.get(name) != key.get(name)
    ]
    if differences:
        raise RunError(
            "\n".join(
                [
                    f"the statistics in {path} cannot be compared with these images:",
                    *differences,
                    (
                        "A distance between the two would measure these differences. Leave the file"
                        " out, or choose the settings it was made with"
                    ),
                ]
            )
        )


def open_user_file(path: Path) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """Return (key, arrays) of a file that a user names.

    RunError if it is damaged or does not contain a key.
    """
    return _open(path)


def _open(path: Path) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    try:
        open_regular(path, links=True).close()
        with safe_open(path, "pt") as file:
            header = parse_json((file.metadata() or {}).get("distgan", "null"))
            arrays = {name: file.get_tensor(name) for name in file.keys()}
        if header is None or header["format"] != FORMAT:
            raise RunError(
                f"{path} does not say that distgan made it, or is of another format than {FORMAT}"
            )
        if header["sha256"] != {name: _digest(array) for name, array in arrays.items()}:
            raise RunError(f"{path} is damaged: its arrays do not have the SHA-256 in its header")
        return header["about"], arrays
    except (OSError, SafetensorError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise RunError(f"{path} is damaged: {error}") from error


def _digest(array: torch.Tensor) -> str:
    return hashlib.sha256(array.contiguous().numpy().data).hexdigest()


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True)
