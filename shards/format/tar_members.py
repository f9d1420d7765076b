"""Read the members of a tar from any program, front to back; refuse unsafe and damaged ones.

Formats: USTAR, V7, GNU (long names) and PAX (path, size). Python's tarfile reads them too, but
trusts the headers: it allocates what an extended header declares, loops on a negative size, and
takes any damaged header for the end of the archive.

    offset  bytes  content (POSIX.1-1988, "ustar")
    0       100    name, up to the first NUL
    124     12     size: octal digits; GNU writes large ones in base 256, marked by the top bit
    148     8      checksum: sum of the header's bytes, these 8 taken as spaces
    156     1      kind
    257     8      b"ustar" NUL "00", or another value in older archives
    345     155    prefix of the name, without the slash between, in USTAR and PAX archives
"""

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path
from tarfile import BLOCKSIZE
from typing import Any, BinaryIO

from distgan.core.errors import DataError
from distgan.core.reading import open_regular

FILE, FOLDER = (b"0", b"\0", b"7"), b"5"
_LONG_NAME, _LONG_LINK, _PAX_ALL = b"L", b"K", b"g"
_NAMELESS = (_LONG_LINK, _PAX_ALL)  # extended headers that name no member
_EXTENSIONS = (_LONG_NAME, _LONG_LINK, _PAX_ALL, b"x", b"X")
_KINDS = {
    b"1": "a link",
    b"2": "a link",
    b"3": "a device",
    b"4": "a device",
    b"6": "a device, pipe or socket",
    b"S": "a sparse file",
    b"M": "a part of a file in several archives",
    b"V": "the label of an archive",
    b"D": "the list of a folder",
}
_LARGEST = 0x7FFFF000  # bytes that Linux reads with one call
_LARGEST_EXTENSION = 1 << 20  # bytes; a name has at most a few thousand
_COMPRESSED = (b"\x1f\x8b", b"BZ", b"\xfd7", b"\x28\xb5", b"PK")  # gzip, bzip2, xz, zstd, zip
_ZEROS = bytes(BLOCKSIZE)
_CHUNK = 1 << 20
# Control characters, line separators, and those that turn the direction of a line
ODD = r"\0-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069"
CONTROL = re.compile(f"[{ODD}]")


def iter_members(shard: Path, sha256: Any = None) -> Iterator[tuple[str, int, bytes]]:
    """Yield (name, offset of the data, data) of each file in a tar; folders are skipped.

    `sha256` is updated with every byte of the archive. DataError with the member's name for links,
    devices, sparse files, names that leave the folder or are not plain UTF-8, and sizes that are
    negative or reach beyond the end of the file (before anything of that size is read); and for an
    archive that is compressed, truncated (also exactly between two members), damaged in a header,
    or followed by other bytes.
    """
    try:
        with open_regular(shard, links=True) as file:
            yield from _Archive(shard, file, sha256 or hashlib.sha256()).members()
    except OSError as error:
        raise DataError(f"{shard} cannot be read: {error.strerror}") from error


class _Archive:
    def __init__(self, shard: Path, file: BinaryIO, sha256: Any):
        self.shard, self.file, self.sha256 = shard, file, sha256
        self.size, self.position = file.seek(0, 2), 0
        file.seek(0)
        if file.read(2) in _COMPRESSED:
            raise DataError(
                f"{shard} is not an uncompressed tar; a compressed one has no random access:"
                " uncompress it first"
            )
        file.seek(0)

    def members(self) -> Iterator[tuple[str, int, bytes]]:
        extended: dict[str, str] = {}  # from the extended headers before a member
        described = False  # by a header that may name it; of two, programs disagree which counts
        while (header := self._take(BLOCKSIZE)) != _ZEROS:
            at = self.position - BLOCKSIZE
            self._check_header(header, at)
            kind = header[156:157]
            if kind in _EXTENSIONS:
                name = f"(extended header) {_plain_name(header)!r}"
                if described and kind not in _NAMELESS:
                    raise DataError(
                        f"{self.shard} is damaged at byte {at}: a second extended header before one"
                        " member"
                    )
                described |= kind not in _NAMELESS
                extended |= self._extension(
                    kind,
                    self._data(
                        name, self._size(_number(header[124:136]), name, at), at, _LARGEST_EXTENSION
                    ),
                    at,
                )
                continue
            name = self._name(extended.get("path") or _plain_name(header), at)
            size = self._size(
                _decimal(extended["size"]) if "size" in extended else _number(header[124:136]),
                name,
                at,
            )
            if kind in FILE and not name.endswith("/"):
                self._refuse_unsafe(name)
                yield name, self.position, self._data(name, size, at, _LARGEST)
            elif kind == FOLDER or kind in FILE:  # V7 marks a folder by the slash alone
                self._refuse_unsafe(name)
                if size:
                    raise DataError(
                        f"{self.shard}: member {name} is a folder of {size} bytes; a folder has no"
                        " data"
                    )
            else:
                raise DataError(
                    f"{self.shard}: member {name} is"
                    f" {_KINDS.get(kind, f'of unknown kind {kind!r}')}; only files and folders are"
                    " allowed"
                )
            extended, described = {}, False
        if described:
            raise DataError(
                f"{self.shard} is damaged at byte {self.position}: an extended header without its"
                " member"
            )
        while chunk := self._read(_CHUNK):
            if chunk.strip(b"\0"):
                raise DataError(
                    f"{self.shard} is damaged: data after the end-of-archive block at byte"
                    f" {self.position - len(chunk)}"
                )

    def _read(self, size: int) -> bytes:
        data = self.file.read(size)
        self.sha256.update(data)
        self.position += len(data)
        return data

    def _take(self, size: int) -> bytes:
        at, data = self.position, self._read(size)
        if len(data) != size:
            raise DataError(
                f"{self.shard} is truncated or damaged at byte {at}: expected a member or the"
                " end-of-archive block"
            )
        return data

    def _data(self, name: str, size: int, at: int, most: int) -> bytes:
        """Read the data of the member whose header is at byte `at`, and the padding after them.

        DataError, before anything is read, if the file has fewer bytes.
        """
        left = self.size - self.position
        if size > left:
            raise DataError(
                f"{self.shard} is truncated or damaged inside {name}: its header at byte {at}"
                f" declares {size} bytes, {left} are left in the file"
            )
        if size > most:
            raise DataError(
                f"{self.shard}: member {name} at byte {at} has {size} bytes; at most {most} are"
                " read"
            )
        data = self._take(size)
        self._take(-size % BLOCKSIZE)
        return data

    def _check_header(self, header: bytes, at: int) -> None:
        rest = header[:148] + b" " * 8 + header[156:]
        stated = _number(header[148:156])
        # Some old programs summed signed bytes.
        if (
            stated is None
            or stated != sum(rest)
            and stated != sum(rest) - 256 * sum(byte > 127 for byte in rest)
        ):
            what = (
                "is not an uncompressed tar, or is damaged"
                if at == 0
                else "is truncated or damaged"
            )
            raise DataError(
                f"{self.shard} {what} at byte {at}: expected a member or the end-of-archive block,"
                " its checksum does not fit"
            )

    def _size(self, size: int | None, name: str, at: int) -> int:
        if size is None or size < 0:
            raise DataError(
                f"{self.shard}: member {name} at byte {at} declares"
                f" {'no size' if size is None else f'a size of {size} bytes'}"
            )
        return size

    def _name(self, name: str | bytes, at: int) -> str:
        try:
            text = name if isinstance(name, str) else name.decode()
        except UnicodeDecodeError as error:
            raise DataError(
                f"{self.shard}: the name {name!r} of the member at byte {at} is not UTF-8; "
                "pack the files again with plain names"
            ) from error
        if not text or CONTROL.search(text):
            raise DataError(
                f"{self.shard}: the name {text!r} of the member at byte {at} is empty or has a line"
                " break, NUL or other control character; pack the files again with plain names"
            )
        return text

    def _refuse_unsafe(self, name: str) -> None:
        if name.startswith("/") or ".." in name.split("/"):
            raise DataError(
                f"{self.shard}: member {name} leaves the folder; absolute names and '..' are not"
                " allowed"
            )

    def _extension(self, kind: bytes, data: bytes, at: int) -> dict[str, str]:
        """Return {"path", "size"} of the next member, as far as an extended header has them."""
        if kind == _LONG_LINK:
            return {}
        if kind == _LONG_NAME:
            name, end, _ = data.partition(b"\0")
            if not end:  # some programs read on beyond a size that is too small
                raise DataError(f"{self.shard} is damaged at byte {at}: a long name without an end")
            return {"path": self._name(name, at)}
        records = self._records(data, at)
        if sparse := next((word for word in records if word.startswith("GNU.sparse")), None):
            raise DataError(
                f"{self.shard}: member {records.get('GNU.sparse.name', '')} at byte {at} is a"
                f" sparse file ({sparse}); only files and folders are allowed"
            )
        entry: dict[str, str] = {
            word: records[word] for word in ("path", "size") if word in records
        }
        if kind == _PAX_ALL and entry:
            raise DataError(
                f"{self.shard} is damaged at byte {at}: a header for all members gives them one"
                f" {' and '.join(entry)}"
            )
        if "path" in entry:
            self._name(entry["path"], at)
        return entry

    def _records(self, data: bytes, at: int) -> dict[str, str]:
        """Parse PAX records, each `LENGTH KEYWORD=VALUE` and a line feed.

        LENGTH is the length of the whole record in decimal.
        """
        records: dict[str, str] = {}
        start = 0
        while start < len(data) and data[start]:
            digits = data[start : start + 8].partition(b" ")[0]
            end = start + int(digits) if digits.isdigit() else 0
            keyword, equals, value = data[start + len(digits) + 1 : end - 1].partition(b"=")
            if not equals or end > len(data) or data[end - 1 : end] != b"\n":
                raise DataError(
                    f"{self.shard} is damaged at byte {at}: an extended header that cannot be read"
                )
            if keyword in (b"path", b"size") or keyword.startswith(b"GNU.sparse"):
                records[keyword.decode()] = self._name(value, at)
            start = end
        return records


def _plain_name(header: bytes) -> bytes:
    name, prefix = header[:100].partition(b"\0")[0], header[345:500].partition(b"\0")[0]
    return prefix + b"/" + name if prefix and header[257:263] == b"ustar\0" else name


def _number(field: bytes) -> int | None:
    """Parse a number in a header; None if it is not one."""
    if field[0] & 0x80:  # base 256, two's complement if the next bit is set
        value = int.from_bytes(field, "big") - (1 << 8 * len(field) - 1)
        return value if not field[0] & 0x40 else value - (1 << 8 * len(field) - 1)
    digits = field.partition(b"\0")[0].strip(b" ")
    return int(digits or b"0", 8) if re.fullmatch(rb"[0-7]*", digits) else None


def _decimal(text: str) -> int | None:
    return int(text) if re.fullmatch(r"-?[0-9]{1,30}", text) else None
