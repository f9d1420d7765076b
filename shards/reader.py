"""Read shards as an array: sample i is one `pread`, checked against its CRC, so any order of access costs the same."""

import operator
import os
import zlib
from bisect import bisect_right
from pathlib import Path
from typing import Any, Literal

import numpy as np

from distgan import console
from distgan.errors import ConfigError, DataError
from shards.index import DATASET, MANIFEST, index_path, load_index, load_json, load_manifest, samples_of, sha256_of

_OPEN_SHARDS = 256  # well below the usual limit of 1,024 descriptors of a process


class ShardSet:
    """Map-style view of one split: `shard_set[i]` is {"__key__": str, field: bytes, ...}, i in 0..len-1.

    `folder` holds manifest.json. `verify="size"` finds missing and truncated shards when the set is opened, and damaged samples when they
    are read; `verify="sha256"` reads every shard once at the start. DataError for all of these.

    May be pickled, forked and spawned: each process opens its own files. A sample takes about 20 bytes of memory per field and its key.
    """

    def __init__(self, folder: str | Path, verify: Literal["size", "sha256"] = "size"):
        if verify not in ("size", "sha256"):
            raise ConfigError(f"verify={verify!r}; allowed are: size, sha256")
        self.folder = Path(folder)
        _require_manifest(self.folder)
        self.manifest: dict[str, Any] = load_manifest(self.folder)
        self.fields: list[str] = list(self.manifest["fields"])
        self.fingerprint: str = self.manifest["fingerprint"]
        self._check_shards(verify)
        self._read_indexes()
        self._prefetch = _fits_in_half_the_memory(sum(shard["bytes"] for shard in self.manifest["shards"]))
        self._descriptors: dict[tuple[int, int], _Descriptor] = {}

    def _check_shards(self, verify: str) -> None:
        shards = self.manifest["shards"]
        for shard in shards:
            path = self.folder / shard["file"]
            if not path.is_file():
                raise DataError(f"{path} is missing; {MANIFEST} lists {len(shards)} shards")
            if (size := path.stat().st_size) != shard["bytes"]:
                change = "truncated" if size < shard["bytes"] else "longer than it was written"
                raise DataError(f"{path} is {change}: {size} bytes, expected {shard['bytes']}")
        if verify == "sha256":
            with console.bar(f"verifying {self.folder}", len(shards), "shards") as bar:
                for shard in shards:
                    if (sha256 := sha256_of(self.folder / shard["file"])) != shard["sha256"]:
                        raise DataError(f"{self.folder / shard['file']} is damaged: sha256 {sha256[:12]}, expected {shard['sha256'][:12]}")
                    bar.advance()

    def _read_indexes(self) -> None:
        """Arrays and one bytes object, not lists: forked workers share them without copying, and a million samples stay small."""
        keys: list[bytes] = []
        tables: list[np.ndarray] = []
        for shard in self.manifest["shards"]:
            path = self.folder / shard["file"]
            index = load_index(path)
            if index["hash_lfs"] != shard["sha256"] or index["filesize"] != shard["bytes"]:
                raise DataError(f"{index_path(path)} is stale or of another shard: it describes sha256 {index['hash_lfs'][:12]} "
                                f"of {index['filesize']} bytes, {MANIFEST} has {shard['sha256'][:12]} of {shard['bytes']}")
            shard_keys, _, rows = samples_of(path, index, self.fields)
            if len(rows) != shard["samples"]:
                raise DataError(f"{index_path(path)} lists {len(rows)} samples, {MANIFEST} has {shard['samples']}")
            keys += [key.encode() for key in shard_keys]
            tables.append(np.array(rows, dtype=np.int64))
        table = np.concatenate(tables)
        self._offsets, self._sizes, self._crcs = table[..., 0].copy(), table[..., 1].copy(), table[..., 2].astype(np.uint32)
        self._first = np.cumsum([0] + [shard["samples"] for shard in self.manifest["shards"]]).tolist()
        self._keys, self._key_ends = b"".join(keys), np.cumsum([0] + [len(key) for key in keys])

    def __len__(self) -> int:
        return len(self._offsets)

    def key(self, i: int) -> str:
        """The name of sample i, unique in the split."""
        i = self._checked(i)
        return self._keys[self._key_ends[i]:self._key_ends[i + 1]].decode()

    def __getitem__(self, i: int) -> dict[str, Any]:
        i = self._checked(i)
        shard = bisect_right(self._first, i) - 1
        offsets, sizes, crcs = self._offsets[i].tolist(), self._sizes[i].tolist(), self._crcs[i].tolist()
        start = min(offsets)
        stop = max(offset + size for offset, size in zip(offsets, sizes, strict=True))
        # The members of a sample are neighbours, so one read takes them all.
        block = os.pread(self._descriptor(shard).number, stop - start, start)
        sample: dict[str, Any] = {"__key__": self.key(i)}
        for field, offset, size, crc32 in zip(self.fields, offsets, sizes, crcs, strict=True):
            data = block[offset - start:offset - start + size]
            if len(data) != size or zlib.crc32(data) != crc32:
                raise DataError(f"{self.folder / self.manifest['shards'][shard]['file']} is damaged: {sample['__key__']}.{field} "
                                f"at bytes {offset}..{offset + size} is not what was written (crc32)")
            sample[field] = data
        return sample

    def _checked(self, i: int) -> int:
        i = operator.index(i)
        if not 0 <= i < len(self):
            raise IndexError(f"sample {i} of {len(self)} in {self.folder}")
        return i

    def _descriptor(self, shard: int) -> "_Descriptor":
        place = (os.getpid(), shard)
        opened = self._descriptors.get(place)
        if opened is None:
            if len(self._descriptors) >= _OPEN_SHARDS:
                self._descriptors.pop(next(iter(self._descriptors)), None)
            path = self.folder / self.manifest["shards"][shard]["file"]
            opened = self._descriptors[place] = _Descriptor(path, self._prefetch)
        return opened

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_descriptors": {}}


class _Descriptor:
    """An open file that is closed with its last user, so that closing the oldest cannot close one that a thread is reading."""

    def __init__(self, path: Path, prefetch: bool):
        try:
            self.number = os.open(path, os.O_RDONLY)
        except OSError as error:
            raise DataError(f"{path} cannot be opened: {error.strerror}") from error
        if prefetch and hasattr(os, "posix_fadvise"):
            # Let the kernel read the whole shard ahead, in order: cold random reads become twice as fast.
            os.posix_fadvise(self.number, 0, 0, os.POSIX_FADV_WILLNEED)

    def __del__(self, close=os.close):
        if hasattr(self, "number"):
            close(self.number)


def _fits_in_half_the_memory(size: int) -> bool:
    return size < os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2


def _require_manifest(folder: Path) -> None:
    """DataError that says what to type instead."""
    if (folder / MANIFEST).is_file():
        return
    splits = sorted(path.parent.name for path in folder.glob(f"*/{MANIFEST}"))
    if splits:
        raise DataError(f"{folder} has no {MANIFEST}; did you mean {' or '.join(str(folder / split) for split in splits)}?")
    dataset = folder.parent / DATASET
    source = load_json(dataset).get("source") if dataset.is_file() else "particles"
    what = f"{folder} holds no {MANIFEST}: its shards are unfinished or were never made" if folder.is_dir() else f"no folder {folder}"
    raise DataError(f"{what}; make it with: distgan shard {source} {folder.parent}   (`distgan shard --help` lists all sources)")
