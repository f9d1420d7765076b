"""Read tars of others once: verify every byte, index every member, and read the headers of images,
sounds and arrays.

The index of a tar keeps, beside what readers need,

    others  the members that nobody reads: of other fields, and of samples that were left out
    scan    {"version", "mtime_ns": of the tar, "decoded", "samples": [[{field: header}, how many
            samples have these, their keys: all if one is broken, else the first], …]}

so a tar of the same size and time is not read again, whatever fields are chosen.
"""

import functools
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from distgan.core.errors import DataError
from distgan.core.worker_pool import map_with_progress
from distgan.shards.codecs import array, image_files
from distgan.shards.codecs.audio import WAVE_FIELDS, read_flac, read_layout
from distgan.shards.format.index import index_path, load_json, read_tar, split_member, write_index

VERSION = [1, image_files.DECODING]
BROKEN, OTHER, IMAGE, ARRAY, SOUND = "broken", "other", "image", "array", "sound"
WORTH_BYTES = 256 << 20  # processes take longer to start than to read less
MOST_KEYS = 100_000  # of broken samples of one tar
Header = list[Any]


def scan_all(tars: Sequence[Path], decode: bool, again: bool, workers: int) -> int:
    """Scan the tars that were not, or are not as they were; return how many were read.

    `decode`: decode every image and FLAC too. `again`: read all. DataError names a damaged tar.
    """
    todo = [tar for tar in tars if again or not is_known(tar, decode)]
    if sum(tar.stat().st_size for tar in todo if tar.is_file()) < WORTH_BYTES:
        workers = 1
    one = functools.partial(scan, decode=decode)
    for _ in map_with_progress("indexing", one, todo, workers, "tars"):
        pass
    return len(todo)


def is_known(tar: Path, decode: bool) -> bool:
    """Return whether the index of a tar has its scan, and the tar the same size and time."""
    try:
        index, status = load_json(index_path(tar)), tar.stat()
        kept = index["scan"]
        return (
            kept["version"] == VERSION
            and index["filesize"] == status.st_size
            and kept["mtime_ns"] == status.st_mtime_ns
            and (kept["decoded"] or not decode)
        )
    except (DataError, OSError, KeyError, TypeError):
        return False


def scan(tar: Path, decode: bool) -> None:
    """Read one tar and write its index, with all members."""
    samples: dict[str, list[Any]] = {}
    key = ""
    fields: dict[str, Header] = {}

    def close() -> None:
        """Count the sample whose members have been read."""
        if fields:
            entry = samples.setdefault(json.dumps(fields, sort_keys=True), [fields, 0, []])
            entry[1] += 1
            is_broken = any(header[0] == BROKEN for header in fields.values())
            if not entry[2] or is_broken and len(entry[2]) < MOST_KEYS:
                entry[2].append(key)

    def visit(name: str, data: bytes) -> None:
        nonlocal key, fields
        parts = split_member(name)
        assert parts is not None
        if parts[0] != key:
            close()
            key, fields = parts[0], {}
        fields[parts[1]] = describe(parts[1], data, decode)

    mtime_ns = tar.stat().st_mtime_ns if tar.is_file() else 0
    files, sha256 = read_tar(tar, visit)
    close()
    kept = {"version": VERSION, "mtime_ns": mtime_ns, "decoded": decode}
    kept["samples"] = list(samples.values())
    write_index(tar, files, sha256, others={}, scan=kept)


def describe(field: str, data: bytes, decode: bool) -> Header:
    """Return what the header of a member says, by the kind that its field names."""
    kind = field.rpartition(".")[2]
    try:
        if kind == "npy":
            shape, dtype = array.header(data)
            problem = ""
            if dtype == np.float32 and len(shape) == 1:
                try:
                    array.vector(data, shape[0])
                except ValueError as error:
                    problem = str(error)
            return [ARRAY, str(dtype), list(shape), problem]
        if kind in image_files.FIELDS:
            header = image_files.quick_header(data) or image_files.header(io.BytesIO(data))
            if decode:
                image_files.picture(io.BytesIO(data))
            return [IMAGE, header.width, header.height, 1 if header.is_gray else 3, header.space]
        if kind in WAVE_FIELDS:
            return [SOUND, *_sound(field, kind, data, decode)]
    except Exception as error:  # decoders raise anything on damaged files
        return [BROKEN, str(error) or type(error).__name__]
    return [OTHER]


def _sound(field: str, kind: str, data: bytes, decode: bool) -> tuple[int, int, str]:
    """Return (frames, rate in Hz, "int16" or "float32") of one mono sound."""
    if kind == "wav":
        layout = read_layout(lambda start, stop: data[start:stop], len(data))
        channels, frames, rate = layout.channels, layout.frames, layout.rate
        dtype = layout.dtype.name
    else:
        info = soundfile.info(io.BytesIO(data))
        if (info.format, info.subtype) != ("FLAC", "PCM_16"):
            raise ValueError(
                f"{field} is {info.format} {info.subtype}; allowed is FLAC with 16 bits"
            )
        channels, frames, rate, dtype = info.channels, info.frames, info.samplerate, "int16"
        if decode:
            read_flac(data)
    if channels != 1 or not frames:
        raise ValueError(
            f"{field} has {channels} channels and {frames} frames; allowed is one channel"
        )
    return frames, rate, dtype
