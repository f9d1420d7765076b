"""Tars byte by byte, for what Python's tarfile would not write."""

import tarfile
from pathlib import Path


def block(
    name: bytes,
    size: bytes | int = 0,
    kind: bytes = b"0",
    prefix: bytes = b"",
    magic: bytes = b"ustar\00000",
) -> bytes:
    """A header with a right checksum; `size` is a number, or the 12 bytes of the field."""
    size = b"%011o\0" % size if isinstance(size, int) else size
    head = (
        name.ljust(100, b"\0")
        + b"0000644\0"
        + b"0000000\0" * 2
        + size
        + b"00000000000\0"
        + b" " * 8
        + kind
    )
    head = (head.ljust(257, b"\0") + magic).ljust(345, b"\0") + prefix
    head = head.ljust(512, b"\0")
    return head[:148] + b"%06o\0 " % sum(head) + head[156:]


def base256(number: int) -> bytes:
    """A size as GNU tar writes what does not fit into octal digits."""
    return (number % 2**95 + 2**95).to_bytes(12, "big")


def padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 512)


def pax(**records: str | bytes) -> bytes:
    """An extended header; `pax(size="5")`, `pax(**{"GNU.sparse.size": "5"})`."""
    data = b""
    for word, value in records.items():
        record = (
            b" "
            + word.encode()
            + b"="
            + (value if isinstance(value, bytes) else value.encode())
            + b"\n"
        )
        length = len(record) + len(str(len(record) + 2))
        data += b"%d" % length + record
    return block(b"././@PaxHeader", len(data), b"x") + padded(data)


def long_name(name: bytes) -> bytes:
    """A name of more than 100 bytes, or any other, as GNU tar writes it."""
    return block(b"././@LongLink", len(name) + 1, b"L") + padded(name + b"\0")


def write(path: Path, *blocks: bytes) -> Path:
    """A tar of these blocks after a member a.bin, and an end."""
    path.write_bytes(
        block(b"a.bin", 3) + padded(b"abc") + b"".join(blocks) + bytes(2 * tarfile.BLOCKSIZE)
    )
    return path
