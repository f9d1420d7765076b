"""What is known of the real images, kept beside their shards: computed once, by all ranks of one
job, and used by every later one.

    DATA/statistics/features-<12 hex>.safetensors    rows of features [n, d] and of projections [n,
                                                     256], float32, in the order of the images
    DATA/statistics/moments-<12 hex>.safetensors     means and covariances of the images and of two
                                                     halves of them, float64

The 12 digits are the hash of what the arrays depend on, which also stands in the file, with the
arrays' own SHA-256: the images' fingerprint, the extractor's weights, the preprocessing, which
images, the arithmetic. A file is written whole, by one rank. One that is damaged is made again; one
of other settings is never used.
"""

import contextlib
import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from distgan.core import console
from distgan.core.errors import RunError
from distgan.core.files import write_atomic

FORMAT = 1


def path_of(folder: Path, kind: str, about: dict[str, Any]) -> Path:
    """`kind`: features or moments."""
    return folder / f"{kind}-{hashlib.sha256(_text(about).encode()).hexdigest()[:12]}.safetensors"


def write(path: Path, about: dict[str, Any], arrays: dict[str, torch.Tensor]) -> bool:
    """Keep the arrays; False, with a word, where the place cannot be written, as beside a read-only
    data set: it costs the next job its time, no more.
    """
    header = {
        "distgan": _text(
            {
                "format": FORMAT,
                "about": about,
                "sha256": {name: _digest(array) for name, array in sorted(arrays.items())},
            }
        )
    }
    try:
        path.parent.mkdir(exist_ok=True)
        content = save({name: a.contiguous() for name, a in arrays.items()}, metadata=header)
        write_atomic(path, content, contextlib.nullcontext)
    except OSError as error:
        console.say(
            f"note: statistics of the real images are not kept: {path.parent} cannot be written"
            f" ({error.strerror})"
        )
        return False
    return True


def read(path: Path, about: dict[str, Any]) -> dict[str, torch.Tensor] | None:
    """The arrays, verified; None where there are none, or, with a word, where they are damaged.
    RunError, naming every difference, for those of other settings.
    """
    if not path.is_file():
        return None
    try:
        found, arrays = _opened(path)
    except RunError as error:
        console.say(f"note: {error}; made again")
        return None
    require(path, found, about)
    return arrays


def require(path: Path, found: dict[str, Any], asked: dict[str, Any]) -> None:
    """RunError unless statistics were made as is asked for now."""
    differ = [
        f"  {key}: made with {found.get(key, 'none')}, asked for {asked.get(key, 'none')}"
        for key in sorted(found.keys() | asked.keys())
        if found.get(key) != asked.get(key)
    ]
    if differ:
        raise RunError(
            "\n".join(
                [
                    f"the statistics in {path} cannot be compared with what is asked for:",
                    *differ,
                    (
                        "A distance between the two would measure these differences. Leave the file"
                        " out, or ask for what it was made with"
                    ),
                ]
            )
        )


def given(path: Path) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """(what they were made with, the arrays) of a file that a user names.

    RunError for one that is damaged, or does not say what it was made with.
    """
    if path.suffix == ".npz":
        raise RunError(
            f"{path}: such files hold a mean and a covariance, but not of how many images, by which"
            " weights and preprocessing; nothing says that they can be compared. Give the images:"
            " real=FOLDER"
        )
    return _opened(path)


def _opened(path: Path) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    try:
        with safe_open(path, "pt") as file:
            header = json.loads((file.metadata() or {}).get("distgan", "null"))
            arrays = {name: file.get_tensor(name) for name in file.keys()}
        if header is None or header["format"] != FORMAT:
            raise RunError(
                f"{path} does not say that distgan made it, or is of another format than {FORMAT}"
            )
        if header["sha256"] != {name: _digest(array) for name, array in arrays.items()}:
            raise RunError(f"{path} is damaged: its numbers are not those that were written")
        return header["about"], arrays
    except (OSError, SafetensorError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise RunError(f"{path} is damaged: {error}") from error


def _digest(array: torch.Tensor) -> str:
    return hashlib.sha256(array.contiguous().numpy().data).hexdigest()


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True)
