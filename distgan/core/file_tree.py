"""List the files of a user's folder, hash their contents, derive keys from their names."""

import hashlib
import os
import re
from collections import Counter
from pathlib import Path
from typing import NoReturn

from distgan.core import console
from distgan.core.errors import DataError
from distgan.core.files import sha256_of

KEY_LENGTH = 80  # of a sample's key: a USTAR name has at most 100 bytes


def find_files(folder: Path, extensions: tuple[str, ...]) -> tuple[list[str], dict[str, int]]:
    """Return the files with these extensions (any case, any depth) and counts of all others.

    Names are relative to `folder`, with '/', sorted; the counts are by extension. Hidden files are
    skipped. Links to folders are followed, because data sets on clusters often consist of them, but
    no folder is entered twice. DataError for a folder that cannot be read, and for broken links,
    pipes and devices with these extensions: otherwise a set could shrink, or a program hang,
    unnoticed.
    """

    def refuse(error: OSError) -> NoReturn:
        raise DataError(f"{shown(error.filename)} cannot be read: {error.strerror}") from error

    files: list[str] = []
    others: Counter[str] = Counter()
    entered: set[str] = set()
    for parent, folders, names in os.walk(
        folder, followlinks=True, onerror=refuse if folder.is_dir() else None
    ):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        if (real := os.path.realpath(parent)) in entered:
            folders.clear()
            continue
        entered.add(real)
        for name in names:
            extension = os.path.splitext(name)[1].lower()
            if extension in extensions and not name.startswith("."):
                file = Path(parent, name)
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
    """The sha256 of every file of a folder.

    A moved or copied folder has the same contents, one with a changed file does not.
    """

    def __init__(self, folder: Path, files: list[str], what: str = "files"):
        self.digests: dict[str, bytes] = {}
        self._what = what
        with console.bar("hashing", len(files), what) as bar:
            for file in files:
                try:
                    self.digests[file] = bytes.fromhex(sha256_of(folder / file))
                except OSError as error:
                    raise DataError(
                        f"{shown(str(folder / file))} cannot be read: {error.strerror}"
                    ) from error
                bar.advance()
        self._first = {digest: file for file, digest in reversed(self.digests.items())}

    def __str__(self) -> str:
        """Return `12 files with sha256 0123456789abcdef`, as in the options of a data set."""
        total = hashlib.sha256(
            b"".join(os.fsencode(file) + b"\0" + digest for file, digest in self.digests.items())
        )
        return f"{len(self.digests)} {self._what} with sha256 {total.hexdigest()[:16]}"

    def first(self, file: str) -> str:
        """Return the first file with the same bytes: `file` itself, or the one it is a copy of."""
        return self._first[self.digests[file]]


def keys_of(files: list[str]) -> list[str]:
    """Return a unique key for each file: `cats/Tom 1.png` -> `cats_Tom_1`.

    A key that is too long, or that two files would share, ends in a hash of the name.
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
    """Return a file name that can be printed and stored; bytes that are not UTF-8 become \\xNN."""
    return os.fsencode(file).decode("utf-8", "backslashreplace")
