"""What lies beside a tar shard and says what is in it.

    train-000000.tar    USTAR, members `key.field`, fixed time and owner: equal input gives equal bytes; tar and stock webdataset read it
    train-000000.json   the index: {"filesize", "hash_lfs": sha256 of the tar, "files": {member: {"offset", "size", "crc32"}}}, the layout
                        of deepghs/hfutils plus crc32 (and "blocks", see describe_member). Written last, so it is the commit mark: a tar without it is unfinished
    manifest.json       every shard of the split with its samples, bytes and sha256, the fields, and one fingerprint of the whole
    SHA256SUMS          for `sha256sum -c SHA256SUMS`
    ../dataset.json     what all splits were made from (written by shards.build)
"""

import hashlib
import json
import os
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from tarfile import BLOCKSIZE, ReadError, TarInfo
from tarfile import open as open_tar
from typing import Any

from distgan.errors import DataError

MANIFEST = "manifest.json"
DATASET = "dataset.json"
VERSION = 1
BLOCK = 16 << 10  # bytes of a wav member under one checksum of their own: a crop of a second reads little more than it needs

# As webdataset 1.0.2: the field begins at the first dot of the base name.
_MEMBER = re.compile(r"((?:.*/)?[^./][^/.]*)\.([^/]+)", re.DOTALL)
_META = re.compile(r"__[^/]*__(/|$)")
_CHUNK = 1 << 20


def commit(path: Path, data: bytes) -> None:
    """Write `data` so that `path` is either as before or complete, also after a kill or a power cut."""
    temporary = path.with_name(f"{path.name}.tmp{os.getpid()}")
    with open(temporary, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    publish(temporary, path)


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


def index_path(shard: Path) -> Path:
    """`train-000000.tar` -> `train-000000.json`."""
    return shard.with_suffix(".json")


def describe_member(offset: int, name: str, data: bytes) -> dict[str, Any]:
    """The index entry of a member whose data begin at byte `offset` of the tar.

    {"offset", "size", "crc32"}; for a field that ends in `wav`, the one that is read in parts, and more than one block of data also
    "blocks": the crc32 of each block of 16 KiB, the last one shorter, so that a part is checked without reading the whole.
    """
    entry: dict[str, Any] = {"offset": offset, "size": len(data), "crc32": zlib.crc32(data)}
    if len(data) > BLOCK and name.lower().endswith("wav"):
        view = memoryview(data)
        entry["blocks"] = [zlib.crc32(view[start:start + BLOCK]) for start in range(0, len(data), BLOCK)]
    return entry


def write_index(shard: Path, files: dict[str, dict[str, Any]], sha256: str) -> None:
    """Commit the shard: after this call it counts as written."""
    commit(index_path(shard), json.dumps({"filesize": shard.stat().st_size, "hash_lfs": sha256, "files": files}).encode())


def load_json(path: Path) -> dict[str, Any]:
    """One JSON object from a file; DataError if the file is missing or is not one."""
    try:
        value = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise DataError(f"{path} is missing") from error
    except ValueError as error:
        raise DataError(f"{path} is damaged: not JSON ({error})") from error
    if not isinstance(value, dict):
        raise DataError(f"{path} is damaged: expected a JSON object, found {type(value).__name__}")
    return value


def load_index(shard: Path) -> dict[str, Any]:
    """The index of a shard; DataError if it is missing, damaged, or points outside the shard it describes."""
    path = index_path(shard)
    index = load_json(path)
    try:
        filesize, sha256, files = int(index["filesize"]), str(index["hash_lfs"]), index["files"]
        for member, entry in files.items():
            offset, size, crc32 = entry["offset"], entry["size"], entry["crc32"]
            if not (0 <= offset <= offset + size <= filesize and 0 <= crc32 < 2**32):
                raise DataError(f"{path} is damaged: {member} at bytes {offset}..{offset + size} of a shard of {filesize} bytes")
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(f"{path} is not a shard index: {type(error).__name__} {error}") from error
    return {"filesize": filesize, "hash_lfs": sha256, "files": files}


def is_written(shard: Path) -> bool:
    """Whether the shard was committed and still has the bytes that were committed (reads the whole shard)."""
    try:
        index = load_index(shard)
        return shard.stat().st_size == index["filesize"] and sha256_of(shard) == index["hash_lfs"]
    except (DataError, FileNotFoundError):
        return False


def split_member(member: str) -> tuple[str, str] | None:
    """`dir/key.a.png` -> (`dir/key`, `a.png`) as webdataset does, or None for a member that is not part of a sample.

    Skipped are what webdataset skips, and hidden files, such as the `._key.png` of archives made on a Mac.
    """
    found = _MEMBER.fullmatch(member)
    return (found[1], found[2].lower()) if found and not _META.match(member) else None


def samples_of(shard: Path, index: dict[str, Any],
               fields: list[str] | None = None) -> tuple[list[str], list[str], list[list[tuple[int, int, int]]]]:
    """Keys, fields, and for each sample one (offset, size, crc32) per field.

    Neighbouring members with the same key are one sample; all samples must have exactly `fields` (by default those of the first).
    """
    keys: list[str] = []
    samples: list[dict[str, tuple[int, int, int]]] = []
    for member, entry in index["files"].items():
        parts = split_member(member)
        if parts is None:
            raise DataError(f"{index_path(shard)}: {member!r} is not a name of the form key.field")
        key, field = parts
        if not keys or key != keys[-1]:
            keys.append(key)
            samples.append({})
        samples[-1][field] = (entry["offset"], entry["size"], entry["crc32"])
    if not keys:
        raise DataError(f"{shard}: holds no samples")
    if len(set(keys)) != len(keys):
        repeated = next(key for place, key in enumerate(keys) if key in keys[:place])
        raise DataError(f"{shard}: the members of sample {repeated} are not neighbours, or its key occurs twice")
    fields = fields or sorted(samples[0])
    for key, sample in zip(keys, samples, strict=True):
        if sorted(sample) != fields:
            raise DataError(f"{shard}: sample {key} has the fields {sorted(sample)}, expected {fields}")
    return keys, fields, [[sample[field] for field in fields] for sample in samples]


def write_manifest(folder: Path, name: str, samples: int | None = None) -> dict[str, Any]:
    """Collect the committed shards `name-*.tar` of `folder` into manifest.json and SHA256SUMS, and return the manifest.

    DataError if a shard has no valid index, a key occurs in two shards, or the samples are not the expected number.
    """
    shards: list[dict[str, Any]] = []
    seen: set[str] = set()
    fields: list[str] | None = None
    for shard in sorted(folder.glob(f"{name}-*.tar")):
        index = load_index(shard)
        if shard.stat().st_size != index["filesize"]:
            raise DataError(f"{shard} has {shard.stat().st_size} bytes, its index says {index['filesize']}")
        keys, fields, _ = samples_of(shard, index, fields)
        if repeated := seen.intersection(keys):
            raise DataError(f"{shard}: key {min(repeated)} occurs in an earlier shard too")
        seen.update(keys)
        shards.append({"file": shard.name, "samples": len(keys), "bytes": index["filesize"], "sha256": index["hash_lfs"]})
    if samples not in (None, len(seen)):
        raise DataError(f"{folder}: {len(seen)} samples are written, expected {samples}")
    manifest = {"version": VERSION, "name": name, "fields": fields, "samples": len(seen), "shards": shards,
                "fingerprint": fingerprint([shard["sha256"] for shard in shards])}
    commit(folder / "SHA256SUMS", "".join(f"{shard['sha256']}  {shard['file']}\n" for shard in shards).encode())
    commit(folder / MANIFEST, json.dumps(manifest, indent=1).encode())
    return manifest


def load_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of one split; DataError if it is missing, damaged, or names a file outside its folder."""
    path = folder / MANIFEST
    manifest = load_json(path)
    try:
        version, hashes = manifest["version"], [shard["sha256"] for shard in manifest["shards"]]
        names, total = [shard["file"] for shard in manifest["shards"]], sum(shard["samples"] for shard in manifest["shards"])
        if version != VERSION:
            raise DataError(f"{path} has version {version}; this program reads version {VERSION}")
        if manifest["fingerprint"] != fingerprint(hashes) or manifest["samples"] != total or not manifest["fields"]:
            raise DataError(f"{path} is damaged: its fingerprint or number of samples does not fit its shards")
        for name in names:
            if name != os.path.basename(name) or not name.endswith(".tar"):
                raise DataError(f"{path} names {name!r}; a shard is a .tar file of the same folder")
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{path} is not a manifest: {type(error).__name__} {error}") from error
    return manifest


def fingerprint(hashes: list[str]) -> str:
    """16 hex digits that stand for the content of all shards in their order."""
    return hashlib.sha256("".join(hashes).encode()).hexdigest()[:16]


def index_tar(shard: str | Path) -> dict[str, Any]:
    """Index a tar made by anyone (webdataset's ShardWriter, `tar cf`), after checking that it is whole; return the index.

    DataError, naming the member, for a tar that is truncated (also exactly between two members, which tar itself accepts), has bytes
    after its end, a member that occurs twice, or one that is a link, a device, or leaves the folder; and if its index is of another tar.
    """
    shard = Path(shard)
    if not shard.is_file():
        raise DataError(f"{shard} is missing")
    sha256 = sha256_of(shard)
    if index_path(shard).exists():
        index = load_index(shard)
        if index["hash_lfs"] != sha256:
            raise DataError(f"{index_path(shard)} is the index of another tar (sha256 {index['hash_lfs'][:12]}, not {sha256[:12]}); "
                            "restore the tar, or delete the index to accept the tar as it is")
    files: dict[str, dict[str, Any]] = {}
    with open(shard, "rb") as file:
        for member in _members(shard):
            _refuse_unsafe(shard, member)
            if not member.isreg() or split_member(member.name) is None:
                continue
            if member.name in files:
                raise DataError(f"{shard}: member {member.name} occurs twice")
            file.seek(member.offset_data)
            data = file.read(member.size)
            if len(data) != member.size:
                raise DataError(f"{shard} is truncated inside {member.name}: {len(data)} of {member.size} bytes")
            files[member.name] = describe_member(member.offset_data, member.name, data)
    samples_of(shard, {"files": files})
    write_index(shard, files, sha256)
    return load_index(shard)


def _members(shard: Path) -> Iterator[TarInfo]:
    """All members, then a check that the archive ends where they end: tarfile takes any damaged header for the end."""
    try:
        with open_tar(shard, "r:") as tar:
            yield from tar
            end = tar.offset
    except ReadError as error:
        raise DataError(f"{shard} is not an uncompressed tar, or is damaged: {error}") from error
    with open(shard, "rb") as file:
        file.seek(end)
        if file.read(BLOCKSIZE) != bytes(BLOCKSIZE):
            raise DataError(f"{shard} is truncated or damaged at byte {end}: expected a member or the end-of-archive block")
        while chunk := file.read(_CHUNK):
            if chunk.strip(b"\0"):
                raise DataError(f"{shard} is damaged: data after the end-of-archive block at byte {end}")


def _refuse_unsafe(shard: Path, member: TarInfo) -> None:
    name = member.name
    if member.issym() or member.islnk():
        raise DataError(f"{shard}: member {name} is a link; only files and folders are allowed")
    if not (member.isreg() or member.isdir()) or member.sparse is not None:
        raise DataError(f"{shard}: member {name} is a device, pipe or sparse file; only files and folders are allowed")
    if name.startswith("/") or ".." in name.split("/"):
        raise DataError(f"{shard}: member {name} leaves the folder; absolute names and '..' are not allowed")
