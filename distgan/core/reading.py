"""Read files that others may have written: regular files alone, within bounds.

A pipe would never answer, a link to a device would never end, and a few bytes of JSON can be nested
deeper than Python can follow.
"""

import errno
import io
import json
import os
import stat
from pathlib import Path
from typing import Any

RECORD_BYTES = 16 << 20  # at most, of a file that describes one thing
LINES_BYTES = 1 << 30  # at most, of a journal or a ledger
DEPTH = 64  # of lists and objects within each other


def open_regular(path: Path, links: bool = False) -> io.BufferedReader:
    """Open a regular file for reading; OSError if it is none or, without `links`, a link."""
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | (0 if links else os.O_NOFOLLOW)
    try:
        file = open(path, "rb", opener=lambda name, _: os.open(name, flags))
    except OSError as error:
        if error.errno == errno.ELOOP and os.path.islink(path):
            error.strerror = "it is a link"
        raise
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise OSError(errno.EINVAL, "it is not a regular file", str(path))
    return file


def read_bytes(path: Path, most: int = RECORD_BYTES, links: bool = False) -> bytes:
    """Return a regular file's bytes; OSError if it has more than `most`."""
    with open_regular(path, links) as file:
        # A sparse file costs nothing: refuse it before it fills the memory.
        if os.fstat(file.fileno()).st_size > most or len(data := file.read(most + 1)) > most:
            raise OSError(errno.EFBIG, f"it has more than {most:,} bytes", str(path))
    return data


def read_tail(path: Path, size: int) -> bytes:
    """Return the last `size` bytes of a regular file."""
    with open_regular(path) as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - size))
        return file.read(size)


def read_lines(path: Path) -> list[bytes]:
    """Return the lines of a journal or a ledger; OSError."""
    return read_bytes(path, LINES_BYTES).split(b"\n")


def read_json(path: Path, most: int = RECORD_BYTES, links: bool = False) -> Any:
    """Read a JSON file; OSError, or ValueError if it is not JSON."""
    return parse_json(read_bytes(path, most, links))


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"{key[:60]!r} occurs twice")
        found[key] = value
    return found


def parse_json(text: bytes | str, unique: bool = False) -> Any:
    """Parse JSON; ValueError, also where it is nested more than DEPTH deep, and with `unique` where
    an object has a key twice.
    """
    try:
        value = json.loads(text, object_pairs_hook=_unique if unique else None)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    level = [value]
    for _ in range(DEPTH):
        containers = [node for node in level if isinstance(node, dict | list)]
        if not containers:
            return value
        level = [
            item
            for node in containers
            for item in (node.values() if isinstance(node, dict) else node)
        ]
    raise ValueError("nested too deeply")
