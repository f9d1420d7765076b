"""The index beside a tar shard: which member is at which byte, with its checksum.

train-000000.tar    USTAR, members `key.field`, fixed time and owner: equal input gives equal bytes;
                    tar and stock webdataset read it
train-000000.json   the index: {"filesize", "hash_lfs": sha256 of the tar, "files": {member:
                    {"offset", "size", "crc32"}}}, the layout of deepghs/hfutils plus crc32 (and
                    "blocks", see describe_member). Written last, so it is the commit mark: a tar
                    without it is unfinished
"""

import hashlib
import json
import re
from collections import Counter
from collections.abc import Callable
from contextlib import nullcontext
from operator import itemgetter
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from distgan.core.errors import DataError
from distgan.core.files import crc32, sha256_of, write_atomic
from distgan.core.reading import LINES_BYTES, read_json
from distgan.shards.format.tar_members import CONTROL, iter_members

# bytes of a wav member with a checksum of their own: a crop of a second reads little more than it
# needs
BLOCK = 16 << 10

# As webdataset 1.0.2: the field begins at the first dot of the base name.
_MEMBER = re.compile(r"((?:.*/)?[^./][^/.]*)\.([^/]+)", re.DOTALL)
_META = re.compile(r"__[^/]*__(/|$)")


def index_path(shard: Path) -> Path:
    """Return the path of a shard's index: `train-000000.tar` -> `train-000000.json`."""
    return shard.with_suffix(".json")


def describe_member(offset: int, name: str, data: bytes) -> dict[str, Any]:
    """Return the index entry of a member whose data begin at byte `offset` of the tar.

    {"offset", "size", "crc32"}; for a field that ends in `wav`, which is read in parts, and more
    than one block of data also "blocks": the crc32 of each block of 16 KiB, the last one shorter,
    so that a part is verified without reading the whole.
    """
    entry: dict[str, Any] = {"offset": offset, "size": len(data), "crc32": crc32(data)}
    if len(data) > BLOCK and name.lower().endswith("wav"):
        view = memoryview(data)
        entry["blocks"] = [
            crc32(view[start : start + BLOCK]) for start in range(0, len(data), BLOCK)
        ]
    return entry


def write_index(shard: Path, files: dict[str, dict[str, Any]], sha256: str, **more: Any) -> None:
    """Write the index, which commits the shard: after this call it counts as written.

    `more`: what `distgan index` keeps beside it.
    """
    index = {"filesize": shard.stat().st_size, "hash_lfs": sha256, "files": files, **more}
    write_atomic(index_path(shard), json.dumps(index), nullcontext)


def load_json(path: Path) -> dict[str, Any]:
    """Read one JSON object from a file; DataError if the file is missing or is not one."""
    try:
        value = read_json(path, LINES_BYTES, links=True)
    except FileNotFoundError as error:
        raise DataError(f"{path} is missing") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise DataError(f"{path} is damaged: not JSON ({error})") from error
    if not isinstance(value, dict):
        raise DataError(f"{path} is damaged: expected a JSON object, found {type(value).__name__}")
    return value


def load_index(shard: Path) -> dict[str, Any]:
    """Read the index of a shard; DataError if it is missing, damaged or points outside it."""
    path = index_path(shard)
    index = load_json(path)
    try:
        index = {
            "filesize": int(index["filesize"]),
            "hash_lfs": str(index["hash_lfs"]),
            "files": index["files"],
        }
        table = member_table(index)
        outside = (
            (table < 0).any(1)
            | (table[:, 0] + table[:, 1] > index["filesize"])
            | (table[:, 2] >= 2**32)
        )
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise DataError(f"{path} is not a shard index: {type(error).__name__} {error}") from error
    if outside.any():
        row = int(outside.argmax())
        member, (offset, size, _) = list(index["files"])[row], table[row].tolist()
        raise DataError(
            f"{path} is damaged: {member} at bytes {offset}..{offset + size} of a shard of"
            f" {index['filesize']} bytes"
        )
    return index


def member_table(index: dict[str, Any]) -> np.ndarray:
    """Return int64 [members, 3]: offset, size and crc32 of each, in the order of the index.

    ValueError for values that are not integers below 2**62.
    """
    entries = index["files"].values()
    table = (
        np.array([list(map(itemgetter(name), entries)) for name in ("offset", "size", "crc32")])
        .reshape(3, -1)
        .T
    )
    if (
        table.shape != (len(entries), 3)
        or len(entries)
        and (table.dtype != np.int64 or table.max() >= 2**62)
    ):
        raise ValueError("an offset, size or crc32 is not a whole number below 2**62")
    return table.astype(np.int64, copy=False)


def is_written(shard: Path) -> bool:
    """Return whether the shard was committed and is unchanged; reads the whole shard."""
    try:
        index = load_index(shard)
        return shard.stat().st_size == index["filesize"] and sha256_of(shard) == index["hash_lfs"]
    except (DataError, OSError):
        return False


def split_member(member: str) -> tuple[str, str] | None:
    """Split `dir/key.a.png` into (`dir/key`, `a.png`), as webdataset does.

    None for a member that is not part of a sample: those that webdataset skips, and hidden files,
    such as the `._key.png` of archives made on a Mac.
    """
    match = _MEMBER.fullmatch(member)
    return (match[1], match[2].lower()) if match and not _META.match(member) else None


def samples_of(
    shard: Path, index: dict[str, Any], fields: list[str] | None = None
) -> tuple[list[str], list[str], np.ndarray]:
    """Return keys, fields, and int64 [samples, fields, 3]: offset, size, crc32 of each member.

    Neighbouring members with the same key are one sample; all samples must have exactly `fields`
    (by default those of the first), else DataError. A field `jpg|png` is one of these in each
    sample.
    """
    keys: list[str] = []
    columns: dict[str, int] = {}
    named = {one: field for field in fields or () for one in field.split("|")}
    rows, member_columns = [], []
    for member in index["files"]:
        parts = split_member(member)
        if parts is None:
            raise DataError(f"{index_path(shard)}: {member!r} is not a name of the form key.field")
        key, field = parts
        if not keys or key != keys[-1]:
            keys.append(key)
        rows.append(len(keys) - 1)
        member_columns.append(columns.setdefault(named.get(field, field), len(columns)))
    if not keys:
        raise DataError(
            f"{shard}: holds no samples: no member has a name of the form key.field, such as"
            " 000123.png"
        )
    if control := CONTROL.search("".join(keys)):
        key = next(key for key in keys if control[0] in key)
        raise DataError(
            f"{index_path(shard)}: the key {key!r} has a control character, or one that turns the"
            " direction of text; pack the files again with plain names"
        )
    try:
        "".join(keys).encode()
    except UnicodeEncodeError as error:  # half of a \\u escape: a damaged index
        raise DataError(
            f"{index_path(shard)} is damaged: the key"
            f" {error.object[error.start : error.start + 20]!r}… is not Unicode"
        ) from error
    if len(set(keys)) != len(keys):
        repeated = next(key for key, count in Counter(keys).items() if count > 1)
        raise DataError(
            f"{shard}: the members of sample {repeated} are not neighbours, or its key occurs"
            " twice; pack the tar in the order of names: tar --sort=name -cf"
        )
    names = list(columns)
    fields = fields or sorted(
        names[column] for row, column in zip(rows, member_columns, strict=True) if row == 0
    )
    numbers = np.full((len(keys), len(columns)), -1, dtype=np.int64)
    numbers[rows, member_columns] = np.arange(len(rows))
    if sorted(columns) != fields or len(rows) != numbers.size or (numbers < 0).any():
        _raise_irregular(shard, keys, fields, rows, [names[column] for column in member_columns])
    return keys, fields, member_table(index)[numbers[:, [columns[field] for field in fields]]]


def _raise_irregular(
    shard: Path, keys: list[str], fields: list[str], rows: list[int], member_fields: list[str]
) -> NoReturn:
    """Raise a DataError that names the first sample whose fields are not exactly `fields`."""
    samples: list[list[str]] = [[] for _ in keys]
    for row, field in zip(rows, member_fields, strict=True):
        samples[row].append(field)
    key, sample = next(
        (key, sorted(sample))
        for key, sample in zip(keys, samples, strict=True)
        if sorted(sample) != fields
    )
    raise DataError(
        f"{shard}: sample {key} has the fields {sample}, expected {fields}; all samples of a set"
        " have the same fields, each once"
    )


def index_tar(shard: str | Path) -> dict[str, Any]:
    """Verify and index a tar from any program (webdataset's ShardWriter, `tar cf`).

    Return the index. The tar is only read. DataError as `read_tar`, and for samples that differ in
    their fields.
    """
    shard = Path(shard)
    files, sha256 = read_tar(shard)
    samples_of(shard, {"files": files})
    if not index_path(shard).exists() or load_index(shard)["files"] != files:
        write_index(shard, files, sha256)
    return load_index(shard)


def read_tar(
    shard: Path, visit: Callable[[str, bytes], None] = lambda name, data: None
) -> tuple[dict[str, dict[str, Any]], str]:
    """Read a tar from any program once; return the entries of its members, and its sha256.

    `visit` is called with each member that has a name of the form key.field. DataError, naming the
    member, for everything that tar_members refuses, for a member that occurs twice, and if the
    existing index is that of another tar.
    """
    if not shard.is_file():
        raise DataError(f"{shard} is {'not a file' if shard.exists() else 'missing'}")
    try:
        before = load_index(shard) if index_path(shard).exists() else None
    except DataError as error:
        raise DataError(
            f"{error}; move {index_path(shard).name} away, or delete it, to have the tar indexed"
        ) from error
    sha256 = hashlib.sha256()
    files: dict[str, dict[str, Any]] = {}
    for name, offset, data in iter_members(shard, sha256):
        if split_member(name) is None:
            continue
        if name in files:
            raise DataError(f"{shard}: member {name} occurs twice")
        files[name] = describe_member(offset, name, data)
        visit(name, data)
    if before and before["hash_lfs"] != sha256.hexdigest():
        raise DataError(
            f"{index_path(shard)} is the index of another tar (sha256 {before['hash_lfs'][:12]},"
            f" not {sha256.hexdigest()[:12]}); restore the tar, or delete the index to accept the"
            " tar as it is"
        )
    return files, sha256.hexdigest()
