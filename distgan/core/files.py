"""Files on disk: written whole or not at all, appended line by line, locked, deleted, and their
checksums.

In a folder that others may write, a link is theirs to plant. What is written goes through no link
of another user: `opened_folder` checks every folder on the way, and holds the one it found.
"""

import contextlib
import csv
import errno
import fcntl
import hashlib
import io
import os
import pwd
import secrets
import shutil
import socket
import stat
import weakref
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO, Any, BinaryIO

from distgan.core.errors import DiskError, DistganError
from distgan.core.reading import open_regular

# The same function five times as fast, by carry-less multiplication; every sample that is read
# passes through it.
try:
    from isal.isal_zlib import crc32 as crc32
except ImportError:  # no wheel for this platform
    from zlib import crc32 as crc32

DISK_FAULTS = (errno.EIO, errno.ENOSPC, errno.EROFS, errno.EDQUOT, errno.EFBIG, errno.ESTALE)
RETRY = "run the same line again when it can be written"
_LINKS = 40  # on the way to one folder, as in Linux


@contextlib.contextmanager
def disk_errors(
    path: Path, remedy: str = RETRY, error: type[DistganError] = DiskError
) -> Iterator[None]:
    """Turn an OSError (disk full, read-only, lost mount) into one `error` that names `path`."""
    try:
        yield
    except OSError as cause:
        raise error(f"cannot write {path}: {cause.strerror or cause}; {remedy}") from cause


@contextlib.contextmanager
def disk_faults() -> Iterator[None]:
    """Turn an OSError that only a disk can cause into a DiskError; leave others, which may be a
    fault of the program.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in DISK_FAULTS:
            raise
        where = error.filename or "a file"
        raise DiskError(f"cannot read or write {where}: {error.strerror}; {RETRY}") from error


def write_atomic(
    path: Path,
    data: bytes | str | Callable[[BinaryIO], object],
    errors: Callable[[Path], contextlib.AbstractContextManager] = disk_errors,
    *,
    replace: bool = True,
) -> None:
    """Replace the file `path` whole: it is the old one or the new one at any time, also after a
    kill or a power cut, and with any number of writers at once.

    `data`: bytes, text (written as UTF-8), or a function that writes into a binary file. `errors`
    translates OSError: by default DiskError. With `replace=False` a file that is there stays, and
    of several writers the first wins.
    """
    with errors(path):
        file = create(temporary_name(path))
        try:
            with file:
                if callable(data):
                    data(file)
                else:
                    file.write(data.encode() if isinstance(data, str) else data)
                publish(file, path, replace)
        except BaseException:
            with contextlib.suppress(OSError):
                remove(Path(file.name))
            raise


def temporary_name(path: Path) -> Path:
    """Return a name for `path` while it is written, unique to this process and call.

    Host and process number keep machines and containers apart that share the folder; the random
    part cannot be predicted, so nobody can plant a link there.
    """
    return path.with_name(
        f"{path.name}.tmp-{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
    )


@contextlib.contextmanager
def opened_folder(path: Path, below: Path | None = None) -> Iterator[int]:
    """Open a folder for functions with `dir_fd`, through no link that another user made; with
    `below`, through no link at all below that folder. OSError.

    The descriptor stays that of the folder that was checked, whatever is renamed meanwhile.
    """
    parts = [*reversed(path.relative_to(below).parts if below else path.parts)]
    if below and ".." in parts:
        raise ValueError(f"{path} is not below {below}")
    with contextlib.ExitStack() as opened:

        def step(name: str | Path, flags: int, folder: int | None = None) -> int:
            handle = os.open(name, os.O_PATH | os.O_CLOEXEC | flags, dir_fd=folder)
            opened.callback(os.close, handle)
            return handle

        here, links = step(below or ".", os.O_DIRECTORY), 0
        while parts:
            name = parts.pop()
            found = step(name, os.O_NOFOLLOW, here)
            about = os.fstat(found)
            if not stat.S_ISLNK(about.st_mode):
                here = found
                continue
            target, links = os.readlink("", dir_fd=found), links + 1
            if below or about.st_uid not in (0, os.getuid()) or links > _LINKS:
                raise OSError(
                    errno.ELOOP,
                    f"{name} is a link of user {user_name(about.st_uid)} to {target}, and is not"
                    " followed; name what it points to, or make a link of your own",
                )
            parts += reversed(Path(target).parts)
        yield step(".", os.O_DIRECTORY, here)


def user_name(uid: int) -> str:
    """Return the name of a user, or the number of one without a name."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def opener(path: str, flags: int) -> int:
    """Open a regular file, for the `opener` of open(): through no link of another user, and never
    where `path` itself is a link or a pipe.
    """
    with opened_folder(Path(path).parent) as folder:
        flags |= os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        try:
            file = os.open(os.path.basename(path), flags, 0o666, dir_fd=folder)
        except OSError as error:
            if error.errno == errno.ELOOP:
                raise OSError(errno.ELOOP, "it is a link; delete it") from None
            raise
    if not stat.S_ISREG(os.fstat(file).st_mode):
        os.close(file)
        raise OSError(errno.EINVAL, "it is no regular file")
    return file


def create(path: Path) -> BinaryIO:
    """Create a file that must not exist and open it for writing; links are not followed."""
    return open(path, "xb", opener=opener)


def touch(path: Path) -> None:
    """Create an empty file unless it exists; OSError."""
    open(path, "ab", opener=opener).close()


def publish(file: BinaryIO, path: Path, replace: bool = True) -> None:
    """Give a complete temporary file its final name; on return content and name are on the disk.

    With `replace=False` a file that has the name already keeps it.
    """
    file.flush()
    os.fsync(file.fileno())
    with opened_folder(path.parent) as folder:
        before = os.path.basename(file.name)
        decided = False
        if not replace:
            with contextlib.suppress(OSError):  # a file system without hard links
                with contextlib.suppress(FileExistsError):
                    os.link(before, path.name, src_dir_fd=folder, dst_dir_fd=folder)
                decided = True
        if decided:
            os.unlink(before, dir_fd=folder)
        else:
            os.replace(before, path.name, src_dir_fd=folder, dst_dir_fd=folder)
        sync(path.parent)


def make_folder(path: Path) -> None:
    """Make a folder and those above it unless they exist; OSError."""
    try:
        with opened_folder(path):
            return
    except FileNotFoundError:
        if path == path.parent:
            raise
    make_folder(path.parent)
    with opened_folder(path.parent) as folder:
        with contextlib.suppress(FileExistsError):
            os.mkdir(path.name, dir_fd=folder)
    with opened_folder(path):
        return


def remove(path: Path, below: Path | None = None) -> None:
    """Delete a file, a link, or a folder with all in it; OSError. Links as in `opened_folder`:
    nothing outside the folder that `path` names is deleted, also if it is replaced meanwhile.
    """
    with contextlib.suppress(FileNotFoundError), opened_folder(path.parent, below) as folder:
        about = os.stat(path.name, dir_fd=folder, follow_symlinks=False)
        if stat.S_ISDIR(about.st_mode):
            shutil.rmtree(path.name, dir_fd=folder)
        else:
            os.unlink(path.name, dir_fd=folder)


@contextlib.contextmanager
def only_owner_writes() -> Iterator[None]:
    """Create files and folders that neither group nor others may write, whatever the umask."""
    usual = os.umask(0o022)
    try:
        os.umask(usual | 0o022)
        yield
    finally:
        os.umask(usual)


def rename(path: Path, name: str) -> None:
    """Rename a file or folder within its folder; OSError."""
    with opened_folder(path.parent) as folder:
        os.rename(path.name, name, src_dir_fd=folder, dst_dir_fd=folder)


def sync(path: Path) -> None:
    """Flush a file, or the names in a folder, to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def append(path: Path, lines: str, durable: bool = False) -> None:
    """Append whole lines, all of them or none; DiskError. `durable`: on return they are on the
    disk, and of any number of writers each keeps its lines. After a last line that a crash tore,
    they begin on a line of their own.
    """
    with disk_errors(path), open(path, "ab+", buffering=0, opener=opener) as file:
        if durable:
            lock(file)
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
    """Return a table as CSV with a heading line; lines end in a line feed alone.

    A text that a spreadsheet would take for a formula begins with an apostrophe.
    """
    out = io.StringIO()
    cells = ([_plain(cell) for cell in row] for row in [columns, *rows])
    csv.writer(out, lineterminator="\n").writerows(cells)
    return out.getvalue()


def _plain(cell: Any) -> Any:
    if not isinstance(cell, str):
        return cell
    cell = cell.replace("\r", " ")  # which csv does not quote
    if not cell.startswith(("=", "+", "-", "@", "\t")):
        return cell
    try:
        float(cell)
    except ValueError:
        return f"'{cell}"
    return cell


def sha256_of(path: Path, links: bool = True) -> str:
    """Return the 64 hex digits that `sha256sum` prints; OSError if it is not a regular file."""
    with open_regular(path, links) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def cache_folder() -> Path:
    """Return the folder of what may be deleted at any time: `$DISTGAN_CACHE`, by default
    `~/.cache/distgan`.
    """
    if cache := os.environ.get("DISTGAN_CACHE"):
        return Path(cache)
    return Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")) / "distgan"
