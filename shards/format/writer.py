"""Write one shard: a plain USTAR tar and its index, the same bytes for the same samples.

A shard is a sequence of chunks: some neighbouring samples, encoded as in the tar with headers and
padding, and their index entries. Any process can encode a chunk; one process concatenates them,
hashes and commits.
"""

import contextlib
import hashlib
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from tarfile import BLOCKSIZE, RECORDSIZE, USTAR_FORMAT, TarInfo
from typing import Any, BinaryIO

from distgan.core.errors import DataError
from distgan.core.files import create, disk_errors, lock, opener, publish, remove, temporary_name
from distgan.shards.format.index import describe_member, write_index
from distgan.shards.format.tar_members import ODD

# samples: enough that small ones are not all overhead, few enough that long recordings do not fill
# the memory
CHUNK_SAMPLES = 16

# No dot in the last part of a key: webdataset would take the rest for the field.
# Nothing that readers refuse: control characters, and bytes that are not UTF-8.
KEY = re.compile(rf"(?!__)(?:(?!\.)[^/{ODD}\ud800-\udfff]+/)*[^./{ODD}\ud800-\udfff]+")
FIELD = re.compile(r"[a-z0-9_]+(?:\.[a-z0-9_]+)*")


@dataclass(frozen=True)
class Chunk:
    """Neighbouring samples, encoded as in a tar.

    Offsets in `files` count from the start of `data`.
    """

    keys: list[str]
    fields: list[str]
    data: bytes
    files: dict[str, dict[str, Any]]


def encode_chunk(samples: list[dict[str, Any]]) -> Chunk:
    """Encode samples {"__key__": str, field: bytes, ...} with the same fields.

    DataError for a malformed or repeated key or field.
    """
    keys: list[str] = []
    fields = sorted(samples[0].keys() - {"__key__"})
    well_formed = all(map(FIELD.fullmatch, fields))
    parts: list[bytes] = []
    files: dict[str, dict[str, Any]] = {}
    position = 0
    for sample in samples:
        key = str(sample["__key__"])
        if not KEY.fullmatch(key) or key in keys:
            raise DataError(f"key {key!r} is {'repeated' if key in keys else 'malformed'}")
        if sample.keys() != samples[0].keys() or not well_formed:
            raise DataError(
                f"sample {key} has the fields {sorted(sample.keys() - {'__key__'})}, expected"
                f" {fields}, in lower case"
            )
        keys.append(key)
        for field in fields:
            name, data = f"{key}.{field}", sample[field]
            parts += header(name, len(data)), data, bytes(-len(data) % BLOCKSIZE)
            files[name] = describe_member(position + BLOCKSIZE, name, data)
            position += BLOCKSIZE + len(data) + len(parts[-1])
    return Chunk(keys, fields, b"".join(parts), files)


def write_shard(shard: Path, samples: Iterable[dict[str, Any]]) -> int:
    """Write samples {"__key__": str, field: bytes, ...} as one committed shard; return their
    number. Errors as `write_chunks`.
    """
    remaining = iter(samples)
    batches = iter(lambda: list(islice(remaining, CHUNK_SAMPLES)), [])
    return write_chunks(shard, map(encode_chunk, batches))


def write_chunks(shard: Path, chunks: Iterable[Chunk]) -> int:
    """Write one committed shard; return its number of samples.

    Until the end the tar has another name, so a killed writer leaves nothing that looks finished.
    DataError for a repeated key, samples with different fields, no samples, and errors of the file
    system.
    """
    keys: set[str] = set()
    fields: list[str] = []
    tar = _Tar(shard)
    try:
        for chunk in chunks:
            fields = fields or chunk.fields
            if repeated := keys.intersection(chunk.keys):
                raise DataError(f"{shard}: key {min(repeated)!r} is repeated")
            if chunk.fields != fields or not fields:
                raise DataError(
                    f"{shard}: sample {chunk.keys[0]} has the fields {chunk.fields}, expected"
                    f" {fields}"
                )
            keys.update(chunk.keys)
            tar.add(chunk)
        if not keys:
            raise DataError(f"{shard}: no samples to write")
        tar.commit()
    finally:
        tar.close()
    return len(keys)


def header(name: str, size: int) -> bytes:
    """Return the USTAR header of a read-only file of `size` bytes without owner or time.

    DataError if the name or the size does not fit. TarInfo.tobuf, used for long names, makes the
    same 512 bytes in 13 µs rather than 0.6: more than everything else a small sample costs.
    """
    try:
        encoded, digits = name.encode("utf-8", "surrogateescape"), b"%011o\0" % size
        if len(encoded) > 100 or len(digits) > 12:
            return _stock_header(name, size)
    except (ValueError, UnicodeError) as error:
        raise DataError(f"{name!r} cannot be the name of a tar member: {error}") from error
    return b"%b%b%b%b%06o\0%b" % (
        encoded.ljust(100, b"\0"),
        _MODE_OWNER,
        digits,
        _TIME,
        _CHECKSUM + sum(encoded) + sum(digits),
        _REST,
    )


def _stock_header(name: str, size: int) -> bytes:
    member = TarInfo(name)
    member.size, member.mode = size, 0o444
    return member.tobuf(USTAR_FORMAT, encoding="utf-8")


# Name 0:100, mode and owner 100:124, size 124:136, time 136:148, checksum 148:156 (six digits, NUL,
# space), the rest.
_EMPTY = _stock_header("", 0)
_MODE_OWNER, _TIME, _REST = _EMPTY[100:124], _EMPTY[136:148], _EMPTY[155:]
# the checksum counts itself as spaces
_CHECKSUM = sum(_EMPTY[:124]) + sum(_EMPTY[136:148]) + sum(b" " * 8) + sum(_EMPTY[156:])


def remove_left_over(shard: Path) -> None:
    """Delete the temporary files that killed writers left of a shard.

    A file that another process is writing at this moment is locked, and stays.
    """
    for temporary in shard.parent.glob(f"{shard.name}.tmp*"):
        # gone, locked, or on a file system without locks: harmless
        with contextlib.suppress(OSError, DataError), open(temporary, "r+b", opener=opener) as file:
            if not lock(file, DataError(f"{temporary} is being written")):
                remove(temporary)


def _open_locked(path: Path) -> BinaryIO:
    """Open a new file that `remove_left_over` of another process does not delete."""
    while True:
        file = create(path)
        if lock(file):
            return file
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.stat(path), os.fstat(file.fileno())):
                return file
        file.close()  # removed between open and lock


# turns an OSError, such as a full disk or a read-only folder, into a DataError with a remedy
file_system = partial(
    disk_errors,
    remedy=(
        "finished shards are kept. Free some space or make the folder writable, then run the same"
        " command again"
    ),
    error=DataError,
)


class _Tar:
    """A tar while it is written, with its index entries and the hash of its bytes so far.

    Nothing is read back.
    """

    def __init__(self, shard: Path):
        self.shard, self.temporary = shard, temporary_name(shard)
        self.sha256, self.position = hashlib.sha256(), 0
        self.files: dict[str, dict[str, Any]] = {}
        with file_system(shard):
            self.file = _open_locked(self.temporary)

    def add(self, chunk: Chunk) -> None:
        for name, entry in chunk.files.items():
            self.files[name] = entry | {"offset": self.position + entry["offset"]}
        self._put(chunk.data)

    def commit(self) -> None:
        """End the tar, sync it, give it its final name, and write the index, which commits it."""
        # Two empty blocks, and the size is a whole number of records (POSIX.1-1988 ustar).
        self._put(bytes(2 * BLOCKSIZE + -(self.position + 2 * BLOCKSIZE) % RECORDSIZE))
        with file_system(self.shard):
            publish(self.file, self.shard)
            write_index(self.shard, self.files, self.sha256.hexdigest())

    def close(self) -> None:
        """Close the file; delete it if it was not committed."""
        with contextlib.suppress(OSError):
            self.file.close()
        remove(self.temporary)

    def _put(self, data: bytes) -> None:
        with file_system(self.shard):
            self.file.write(data)
        self.sha256.update(data)
        self.position += len(data)
