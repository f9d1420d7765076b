"""Folders of files that a user has: what is in them, by name and by content."""

import hashlib
import os
import re
from collections import Counter
from pathlib import Path
from typing import NoReturn

from distgan.core import console
from distgan.core.errors import DataError

KEY_LENGTH = 80  # of a sample's key: a USTAR name has at most 100 bytes


def find_files(folder: Path, extensions: tuple[str, ...]) -> tuple[list[str], dict[str, int]]:
    """Files with these extensions, in any case, at any depth: sorted, relative to `folder` with
    '/'; and how many others there are by extension. Hidden files do not count.

    Links to folders are followed, as data sets on clusters are often made of them, but no folder is
    entered twice. DataError for a folder that cannot be read, and for broken links, pipes and
    devices with these extensions: a set must not become smaller, nor a program wait, unnoticed.
    """

    def refuse(error: OSError) -> NoReturn:
        raise DataError(f"{shown(error.filename)} cannot be read: {error.strerror}") from error

    files: list[str] = []
    others: Counter[str] = Counter()
    entered: set[str] = set()
    for place, folders, names in os.walk(
        folder, followlinks=True, onerror=refuse if folder.is_dir() else None
    ):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        if (real := os.path.realpath(place)) in entered:
            folders.clear()
            continue
        entered.add(real)
        for name in names:
            extension = os.path.splitext(name)[1].lower()
            if extension in extensions and not name.startswith("."):
                file = Path(place, name)
                if not file.is_file():
                    raise DataError(
                        f"{shown(str(file))} is a broken link, a pipe or a device; take it out of"
                        " the folder"
                    )
                files.append(file.relative_to(folder).as_posix())
            elif not name.startswith("."):
                others[extension or "without extension"] += 1
    return sorted(files, key=os.fsencode), dict(others)


class Contents:
    """What is in files, by their sha256.

    A moved or copied folder is the same, one with a changed file is not.
    """

    def __init__(self, folder: Path, files: list[str], what: str = "files"):
        self.digests: dict[str, bytes] = {}
        self._what = what
        with console.bar("hashing", len(files), what) as bar:
            for file in files:
                try:
                    with open(folder / file, "rb") as opened:
                        self.digests[file] = hashlib.file_digest(opened, "sha256").digest()
                except OSError as error:
                    raise DataError(
                        f"{shown(str(folder / file))} cannot be read: {error.strerror}"
                    ) from error
                bar.advance()
        self._first = {digest: file for file, digest in reversed(self.digests.items())}

    def __str__(self) -> str:
        """`12 files with sha256 0123456789abcdef`, as it stands in the options of a data set."""
        total = hashlib.sha256(
            b"".join(os.fsencode(file) + b"\0" + digest for file, digest in self.digests.items())
        )
        return f"{len(self.digests)} {self._what} with sha256 {total.hexdigest()[:16]}"

    def first(self, file: str) -> str:
        """The first file that holds the same bytes: the file itself, or what it is a copy of."""
        return self._first[self.digests[file]]


def keys_of(files: list[str]) -> list[str]:
    """`cats/Tom 1.png` -> `cats_Tom_1`.

    Where two files would have one key, or it is too long, with a hash of the name at its end.
    """
    plain = [re.sub(r"[^A-Za-z0-9-]+", "_", os.path.splitext(file)[0]).strip("_") for file in files]
    count = Counter(key.casefold() for key in plain)
    return [
        (
            key
            if key and len(key) <= KEY_LENGTH and count[key.casefold()] == 1
            else f"{key[: KEY_LENGTH - 13]}-{hashlib.sha256(os.fsencode(file)).hexdigest()[:12]}"
        )
        for key, file in zip(plain, files, strict=True)
    ]


def shown(file: str) -> str:
    """A file name that can be printed and stored: bytes that are not UTF-8 are shown as \\xNN."""
    return os.fsencode(file).decode("utf-8", "backslashreplace")
