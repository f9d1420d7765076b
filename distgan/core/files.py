"""Files on disk: written whole or not at all, appended line by line, locked, and their
checksums.
"""

import contextlib
import csv
import errno
import fcntl
import hashlib
import io
import os
import secrets
import socket
import weakref
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO, Any, BinaryIO

from distgan.core.errors import DiskError, DistganError

# The same function five times as fast, by carry-less multiplication; every sample that is read
# passes through it.
try:
    from isal.isal_zlib import crc32 as crc32
except ImportError:  # no wheel for this platform
    from zlib import crc32 as crc32

RETRY = "run the same line again when it can be written"


@contextlib.contextmanager
def disk_errors(
    path: Path, remedy: str = RETRY, error: type[DistganError] = DiskError
) -> Iterator[None]:
    """Turn an OSError (disk full, read-only, lost mount) into one `error` that names `path`."""
    try:
        yield
    except OSError as cause:
        raise error(f"cannot write {path}: {cause.strerror or cause}; {remedy}") from cause


def write_atomic(
    path: Path,
    data: bytes | str | Callable[[BinaryIO], object],
    errors: Callable[[Path], contextlib.AbstractContextManager] = disk_errors,
) -> None:
    """Replace the file `path` whole: it is the old one or the new one at any time, also after a
    kill or a power cut, and with any number of writers at once.

    `data`: bytes, text (written as UTF-8), or a function that writes into a binary file. `errors`
    translates OSError: by default DiskError.
    """
    with errors(path):
        file = create(temporary_name(path))
        try:
            with file:
                if callable(data):
                    data(file)
                else:
                    file.write(data.encode() if isinstance(data, str) else data)
                publish(file, path)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(file.name)
            raise


def temporary_name(path: Path) -> Path:
    """Return a name for `path` while it is written, unique to this process and call.

    Host and process number keep machines and containers apart that share the folder; the random
    part cannot be predicted, so nobody can plant a link there.
    """
    return path.with_name(
        f"{path.name}.tmp-{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
    )


def create(path: Path) -> BinaryIO:
    """Create a file that must not exist and open it for writing; links are not followed."""
    flags = os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_WRONLY | os.O_CLOEXEC
    return open(path, "wb", opener=lambda name, _: os.open(name, flags, 0o666))


def publish(file: BinaryIO, path: Path) -> None:
    """Give a complete temporary file its final name; on return content and name are on the disk."""
    file.flush()
    os.fsync(file.fileno())
    os.replace(file.name, path)
    sync(path.parent)


def sync(path: Path) -> None:
    """Flush a file, or the names in a folder, to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def append(path: Path, lines: str, durable: bool = False) -> None:
    """Append whole lines, all of them or none; DiskError. `durable`: on return they are on the
    disk. After a last line that a crash tore, they begin on a line of their own.
    """
    with disk_errors(path), open(path, "ab+", buffering=0) as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(size - 1, 0))
        text = (b"\n" if size and file.read(1) != b"\n" else b"") + lines.encode()
        try:
            if file.write(text) < len(text):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError:
            file.truncate(size)
            raise
        if durable:
            os.fsync(file.fileno())


def lock(
    file: int | IO, busy: DistganError | None = None, *, shared: bool = False, forks: bool = True
) -> str | None:
    """Lock an open file or folder until it is closed; return the reason where its file system has
    no locks.

    Raise `busy` where another process holds it, or wait where `busy` is None. `forks=False` closes
    the file in forked children, which would hold the lock for as long as they live.
    """
    flags = (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (fcntl.LOCK_NB if busy else 0)
    try:
        fcntl.flock(file, flags)
    except BlockingIOError as error:
        raise busy or error from None
    except OSError as error:  # Lustre without -o flock, some network mounts
        return error.strerror
    if not forks and not isinstance(file, int):
        held = weakref.ref(file)
        os.register_at_fork(after_in_child=lambda: (file := held()) and file.close())
    return None


def csv_text(columns: Iterable[str], rows: Iterable[Iterable[Any]]) -> str:
    """Return a table as CSV with a heading line; lines end in a line feed alone."""
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows([columns, *rows])
    return out.getvalue()


def sha256_of(path: Path) -> str:
    """Return the 64 hex digits that `sha256sum` prints."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
