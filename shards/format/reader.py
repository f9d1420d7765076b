"""Read shards as an array: sample i is one `pread`, verified by its CRC, in any order."""

import operator
import os
import resource
from array import array
from bisect import bisect_right
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from distgan.core import console
from distgan.core.errors import ConfigError, DataError
from distgan.core.files import crc32, sha256_of
from distgan.shards.format.index import BLOCK, index_path, load_index, load_json, samples_of
from distgan.shards.format.manifest import DATASET, MANIFEST, fingerprint, load_manifest, parts_of

# usually 256 of the 1,024 descriptors of a process
_OPEN_SHARDS = max(64, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 4)


class ShardSet:
    """Map-style view of one split: `shard_set[i]` is {"__key__": str, field: bytes, ...}.

    `folder` holds manifest.json; `shards` selects tar files of it, in the order of the manifest.
    `verify="size"` finds missing and truncated shards when the set is opened, and damaged samples
    when they are read; `verify="sha256"` also reads every shard once at the start. DataError for
    all of these. Every read returns exactly the bytes that were written, or raises DataError with
    the shard, the member and its bytes, also if a file changes later.

    May be pickled, forked and spawned: each process opens its own files. A sample takes 20 bytes of
    memory per field, 8 more and its key.

        bounds: the number of the first sample of each shard, and the number of all samples
    """

    def __init__(
        self,
        folder: str | Path,
        verify: Literal["size", "sha256"] = "size",
        shards: list[str] | None = None,
    ):
        if verify not in ("size", "sha256"):
            raise ConfigError(f"verify={verify!r}; allowed are: size, sha256")
        self.folder = Path(folder)
        _require_manifest(self.folder)
        self.manifest: dict[str, Any] = load_manifest(self.folder)
        self.fields: list[str] = list(self.manifest["fields"])
        self.shards: list[dict[str, Any]] = self._select(shards)
        self.fingerprint: str = fingerprint([shard["sha256"] for shard in self.shards])
        self._check_shards(verify)
        self._read_indexes()
        self._columns = {field: column for column, field in enumerate(self.fields)}
        self._prefetch = _fits_in_half_the_memory(sum(shard["bytes"] for shard in self.shards))
        self._process = 0
        self._descriptors: dict[int, _Descriptor] = {}
        self._prefetched: set[int] = set()

    def _select(self, shards: list[str] | None) -> list[dict[str, Any]]:
        if shards is None:
            return self.manifest["shards"]
        unknown = set(shards) - {shard["file"] for shard in self.manifest["shards"]}
        if unknown or not shards:
            raise DataError(
                f"{self.folder / MANIFEST} does not list"
                f" {min(unknown, default='any shard to take')}; index the folder again: distgan"
                f" index {self.folder}"
            )
        return [shard for shard in self.manifest["shards"] if shard["file"] in shards]

    def _check_shards(self, verify: str) -> None:
        for shard in self.shards:
            path = self.folder / shard["file"]
            if not path.exists():
                raise DataError(
                    f"{path} is missing; {MANIFEST} lists {len(self.manifest['shards'])} shards"
                )
            if not path.is_file():
                raise DataError(f"{path} is not a file")
            if (size := path.stat().st_size) != shard["bytes"]:
                change = "truncated" if size < shard["bytes"] else "longer than it was written"
                raise DataError(f"{path} is {change}: {size} bytes, expected {shard['bytes']}")
        if verify == "sha256":
            with console.bar(f"verifying {self.folder}", len(self.shards), "shards") as bar:
                for shard in self.shards:
                    if (sha256 := sha256_of(self.folder / shard["file"])) != shard["sha256"]:
                        raise DataError(
                            f"{self.folder / shard['file']} is damaged: sha256 {sha256[:12]},"
                            f" expected {shard['sha256'][:12]}"
                        )
                    bar.advance()

    def _read_indexes(self) -> None:
        """Read all indexes into flat arrays and one bytes object.

        Unlike lists these are shared by forked workers without copying, and a million samples stay
        small. Slot i * fields + column is a member: its offset, size and crc32; _blocks has the
        crc32 of its blocks if the index has them.
        """
        self._offsets, self._sizes, self._crcs = array("q"), array("q"), array("I")
        keys_so_far = bytearray()
        self._key_ends, self.bounds = array("q", [0]), [0]
        self._blocks: dict[int, array] = {}
        for shard in self.shards:
            path = self.folder / shard["file"]
            index = load_index(path)
            if index["hash_lfs"] != shard["sha256"] or index["filesize"] != shard["bytes"]:
                raise DataError(
                    f"{index_path(path)} is stale or of another shard: it describes sha256"
                    f" {index['hash_lfs'][:12]} of {index['filesize']} bytes, {MANIFEST} has"
                    f" {shard['sha256'][:12]} of {shard['bytes']}"
                )
            keys, _, table = samples_of(path, index, self.fields)
            if len(keys) != shard["samples"]:
                raise DataError(
                    f"{index_path(path)} lists {len(keys)} samples, {MANIFEST} has"
                    f" {shard['samples']}"
                )
            self._add_blocks(path, index, table)
            self._offsets.frombytes(table[..., 0].tobytes())
            self._sizes.frombytes(table[..., 1].tobytes())
            self._crcs.frombytes(table[..., 2].astype(np.uint32).tobytes())
            names = [key.encode() for key in keys]
            keys_so_far += b"".join(names)
            self._key_ends.frombytes(
                (self._key_ends[-1] + np.cumsum([len(name) for name in names])).tobytes()
            )
            self.bounds.append(self.bounds[-1] + len(keys))
        self._keys = bytes(keys_so_far)

    def _add_blocks(self, path: Path, index: dict[str, Any], table: np.ndarray) -> None:
        columns = [column for column, field in enumerate(self.fields) if field.endswith("wav")]
        blocks = (
            {
                entry["offset"]: entry["blocks"]
                for entry in index["files"].values()
                if "blocks" in entry
            }
            if columns
            else {}
        )
        for column in columns:
            for row, (offset, size) in enumerate(table[:, column, :2].tolist()):
                if offset not in blocks:
                    continue
                slot = (self.bounds[-1] + row) * len(self.fields) + column
                try:
                    self._blocks[slot] = array("I", blocks[offset])
                except (TypeError, OverflowError):
                    self._blocks[slot] = array("I")
                if len(self._blocks[slot]) != -(-size // BLOCK):
                    raise DataError(
                        f"{index_path(path)} is damaged: the blocks of the member at byte {offset}"
                        f" are not one crc32 for every {BLOCK} of its {size} bytes"
                    )

    def __len__(self) -> int:
        return self.bounds[-1]

    def key(self, i: int) -> str:
        """Return the key of sample i, unique in the split."""
        i = self._index(i)
        return self._keys[self._key_ends[i] : self._key_ends[i + 1]].decode()

    def undecodable(self, i: int, error: Exception) -> DataError:
        """Return the error for a sample that is as it was written and does not decode."""
        shard = self.folder / self.shards[bisect_right(self.bounds, self._index(i)) - 1]["file"]
        is_whole = (self.folder / DATASET).is_file()
        root = self.folder if is_whole else self.folder.parent
        return DataError(
            f"{shard}: sample {self.key(i)} does not decode: {error}. To see all of them:"
            f" {console.command('check', root)}; of tars of others, to leave them out:"
            f" {console.command('index', root, '--skip-broken')}"
        )

    def __getitem__(self, i: int) -> dict[str, Any]:
        return {"__key__": self.key(i), **self.fields_of(i, self.fields)}

    def fields_of(self, i: int, fields: Sequence[str]) -> dict[str, bytes]:
        """Return {field: bytes} of these fields of sample i, each verified, with one read.

        Members between them are read, but not verified.
        """
        if len(fields) == 1:  # as in training on images: without the lists, half the time
            slot = self._slot(i, fields[0])
            size = self._sizes[slot]
            data = self._read(slot, self._offsets[slot], size)
            if crc32(data) != self._crcs[slot] or len(data) != size:
                raise self._damaged(slot, 0, size, len(data))
            return {fields[0]: data}
        slots = [self._slot(i, field) for field in fields]
        start = min(self._offsets[slot] for slot in slots)
        stop = max(self._offsets[slot] + self._sizes[slot] for slot in slots)
        block = self._read(slots[0], start, stop - start)
        sample: dict[str, bytes] = {}
        for field, slot in zip(fields, slots, strict=True):
            size, begin = self._sizes[slot], self._offsets[slot] - start
            sample[field] = data = block[begin : begin + size]
            if crc32(data) != self._crcs[slot] or len(data) != size:
                raise self._damaged(slot, 0, size, len(data))
        return sample

    def size(self, i: int, field: str) -> int:
        """Return the number of bytes of one member."""
        return self._sizes[self._slot(i, field)]

    def read_range(self, i: int, field: str, start: int, stop: int) -> bytes:
        """Return bytes [start, stop) of one member, verified.

        By its blocks of 16 KiB if the index has them, else by reading all of it.
        """
        slot = self._slot(i, field)
        size = self._sizes[slot]
        if not 0 <= start <= stop <= size:
            raise ValueError(f"bytes {start}..{stop} of {self.key(i)}.{field}, which has {size}")
        blocks = self._blocks.get(slot)
        if blocks is None:
            return self.fields_of(i, (field,))[field][start:stop]
        if start == stop:
            return b""
        first = start // BLOCK
        begin, end = first * BLOCK, min(-(-stop // BLOCK) * BLOCK, size)
        data = self._read(slot, self._offsets[slot] + begin, end - begin)
        view = memoryview(data)
        for number, at in enumerate(range(begin, end, BLOCK), first):
            block, stop_at = view[at - begin : at - begin + BLOCK], min(at + BLOCK, end)
            if crc32(block) != blocks[number] or len(block) != stop_at - at:
                raise self._damaged(slot, at, stop_at, len(block))
        return data[start - begin : stop - begin]

    def _slot(self, i: int, field: str) -> int:
        try:
            return self._index(i) * len(self.fields) + self._columns[field]
        except KeyError:
            raise DataError(
                f"{self.folder}: no field {field!r}; there are: {', '.join(self.fields)}"
            ) from None

    def _index(self, i: int) -> int:
        i = operator.index(i)
        if not 0 <= i < self.bounds[-1]:
            raise IndexError(f"sample {i} of {len(self)} in {self.folder}")
        return i

    def _read(self, slot: int, start: int, size: int) -> bytes:
        """Read `size` bytes from byte `start` of the member's shard; fewer if the file ends."""
        try:
            opened = self._descriptor(bisect_right(self.bounds, slot // len(self.fields)) - 1)
            data = os.pread(opened.number, size, start)
            while len(data) < size and (
                more := os.pread(opened.number, size - len(data), start + len(data))
            ):
                # network file systems, and calls of more than 2 GiB, return less than requested
                data += more
        except OSError as error:
            raise self._error(
                slot, 0, self._sizes[slot], "cannot be read", f"({error.strerror})"
            ) from error
        return data

    def _damaged(self, slot: int, start: int, stop: int, available: int) -> DataError:
        if available < stop - start:
            return self._error(
                slot,
                start,
                stop,
                "was truncated after it was opened",
                f"of these only {available} are left",
            )
        return self._error(slot, start, stop, "is damaged", "is not what was written (crc32)")

    def _error(self, slot: int, start: int, stop: int, what: str, why: str) -> DataError:
        """Return the error for bytes [start, stop) of a member, as bytes of its shard."""
        i, column = divmod(slot, len(self.fields))
        path = self.folder / self.shards[bisect_right(self.bounds, i) - 1]["file"]
        offset = self._offsets[slot]
        return DataError(
            f"{path} {what}: {self.key(i)}.{self.fields[column]} at bytes"
            f" {offset + start}..{offset + stop} {why}"
        )

    def _descriptor(self, shard: int) -> "_Descriptor":
        if self._process != os.getpid():
            self._descriptors, self._prefetched, self._process = {}, set(), os.getpid()
        opened = self._descriptors.get(shard)
        if opened is None:
            if len(self._descriptors) >= _OPEN_SHARDS:
                self._descriptors.pop(next(iter(self._descriptors)), None)
            prefetch = self._prefetch and shard not in self._prefetched
            opened = self._descriptors[shard] = _Descriptor(
                self.folder / self.shards[shard]["file"], prefetch
            )
            self._prefetched.add(shard)
        return opened

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_descriptors": {}, "_prefetched": set()}


class _Descriptor:
    """An open file, closed with its last user, so eviction cannot close it under a reader."""

    def __init__(self, path: Path, prefetch: bool):
        # O_NONBLOCK: a file that was replaced by a pipe fails instead of waiting
        self.number = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        if prefetch and hasattr(os, "posix_fadvise"):
            # Let the kernel read the whole shard ahead, in order: cold random reads become twice as
            # fast.
            os.posix_fadvise(self.number, 0, 0, os.POSIX_FADV_WILLNEED)

    def __del__(self, close=os.close):
        if hasattr(self, "number"):
            close(self.number)


def open_parts(root: str | Path, verify: Literal["size", "sha256"] = "size") -> dict[str, ShardSet]:
    """Open a data set made by `distgan shard` or `distgan index`: {"train": …, "validation": …}."""
    root = Path(root)
    return {
        part: ShardSet(folder, verify, shards)
        for part, (folder, shards) in parts_of(load_json(root / DATASET), root).items()
    }


def _fits_in_half_the_memory(size: int) -> bool:
    return size < os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2


def _require_manifest(folder: Path) -> None:
    """Raise a DataError with the command to run if `folder` has no manifest."""
    if (folder / MANIFEST).is_file():
        return
    splits = sorted(path.parent.name for path in folder.glob(f"*/{MANIFEST}"))
    if splits:
        raise DataError(
            f"{folder} has no {MANIFEST}; did you mean"
            f" {' or '.join(str(folder / split) for split in splits)}?"
        )
    if next(folder.glob("*.tar"), None) and not (folder.parent / DATASET).is_file():
        raise DataError(
            f"{folder} holds tars without an index; index them with:"
            f" {console.command('index', folder.parent)}"
        )
    dataset = folder.parent / DATASET
    source = load_json(dataset).get("source") if dataset.is_file() else "particles"
    what = (
        f"{folder} holds no {MANIFEST}: its shards are unfinished or were never made"
        if folder.is_dir()
        else f"no folder {folder}"
    )
    if dataset.is_file() and source != "index" and folder.is_dir():
        raise DataError(
            f"{what}; run the `distgan shard` command of {folder.parent} again, which writes the"
            " missing shards; after all tasks of a job array, with --finish"
        )
    verb = ["index"] if source == "index" else ["shard", source]
    command = console.command(*verb, folder.parent)
    raise DataError(f"{what}; make it with: {command}   (`distgan shard --help` lists all sources)")
