"""Files that are written whole or not at all, and their checksums."""

import hashlib
import os
import secrets
import socket
from pathlib import Path

# the same function five times as fast, by carry-less multiplication; every sample that is read
# passes through it
try:
    from isal.isal_zlib import crc32 as crc32
except ImportError:  # no wheel for this platform
    from zlib import crc32 as crc32


def commit(path: Path, data: bytes) -> None:
    """Write `data` so that `path` is either as before or complete, also after a kill or a power
    cut.
    """
    temporary = temporary_of(path)
    with open(temporary, "xb") as file:
        try:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
            publish(temporary, path)
        except OSError:  # a full disk
            temporary.unlink(missing_ok=True)
            raise


def temporary_of(path: Path) -> Path:
    """The name of a file while it is written: of this process alone, also where several machines,
    or containers with equal process numbers, share the folder. Nobody can foresee it and put a link
    there; still, open it with "x", which follows none.
    """
    return path.with_name(
        f"{path.name}.tmp-{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
    )


def publish(temporary: Path, path: Path) -> None:
    """Give a complete, synced file its final name; on return the name is on disk too."""
    os.replace(temporary, path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def sha256_of(path: Path) -> str:
    """The 64 hex digits that `sha256sum` prints."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
