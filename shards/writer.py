"""Write one shard: a plain USTAR tar and its index, the same bytes for the same samples."""

import hashlib
import os
import re
import zlib
from collections.abc import Iterable
from pathlib import Path
from tarfile import BLOCKSIZE, RECORDSIZE, USTAR_FORMAT, TarInfo
from typing import BinaryIO

from distgan.errors import DataError
from shards.index import publish, write_index

# No dot in the last part of a key: webdataset would take what follows it for the field.
KEY = re.compile(r"(?!__)(?:(?!\.)[^/\0]+/)*[^./\0]+")
FIELD = re.compile(r"[a-z0-9_]+(?:\.[a-z0-9_]+)*")


def write_shard(shard: Path, samples: Iterable[dict[str, str | bytes]]) -> int:
    """Write samples {"__key__": str, field: bytes, ...} as one committed shard; return their number.

    All samples have the same fields. Until the end the tar has another name, so a killed writer leaves nothing that looks finished.
    DataError for a malformed or repeated key or field, or if there is no sample.
    """
    temporary = shard.with_name(f"{shard.name}.tmp{os.getpid()}")
    keys: set[str] = set()
    fields: list[str] = []
    with open(temporary, "wb", buffering=1 << 20) as file:
        tar = _Tar(file)
        for sample in samples:
            key, found = str(sample["__key__"]), sorted(field for field in sample if field != "__key__")
            fields = fields or found
            if not KEY.fullmatch(key) or key in keys:
                raise DataError(f"{shard}: key {key!r} is {'repeated' if key in keys else 'malformed'}")
            if found != fields or not all(FIELD.fullmatch(field) for field in fields):
                raise DataError(f"{shard}: sample {key} has the fields {found}, expected {fields}, in lower case")
            keys.add(key)
            for field in fields:
                tar.add(f"{key}.{field}", sample[field])
        if not fields:
            raise DataError(f"{shard}: no samples to write")
        tar.end()
        file.flush()
        os.fsync(file.fileno())
    publish(temporary, shard)
    write_index(shard, tar.files, tar.sha256.hexdigest())
    return len(keys)


class _Tar:
    """A tar as it is written, with the index entries and the hash of what was written so far.

    tarfile.open would do, but hides the bytes: hashing them here saves reading the shard again. USTAR because Python's default format
    adds a header of 1 KiB to each member, 26 % of a set of small images.
    """

    def __init__(self, file: BinaryIO):
        self.file, self.position = file, 0
        self.sha256 = hashlib.sha256()
        self.files: dict[str, dict[str, int]] = {}

    def add(self, name: str, data: bytes) -> None:
        header = TarInfo(name)
        header.size, header.mode = len(data), 0o444
        try:
            block = header.tobuf(USTAR_FORMAT, encoding="utf-8")
        except (ValueError, UnicodeError) as error:
            raise DataError(f"{name!r} cannot be the name of a tar member: {error}") from error
        self._put(block)
        self.files[name] = {"offset": self.position, "size": len(data), "crc32": zlib.crc32(data)}
        self._put(data)
        self._put(bytes(-len(data) % BLOCKSIZE))

    def end(self) -> None:
        """Two empty blocks end a tar, and its size is a whole number of records (POSIX.1-1988 ustar)."""
        self._put(bytes(2 * BLOCKSIZE + -(self.position + 2 * BLOCKSIZE) % RECORDSIZE))

    def _put(self, data: bytes) -> None:
        self.file.write(data)
        self.sha256.update(data)
        self.position += len(data)
