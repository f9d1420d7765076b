"""Samples/s of writing 20,000 PNGs as shards, ours against other writers; and what opening the
index of a million samples costs.

All read the same bytes from one file. Ours checks keys, hashes, indexes and waits for the disk
(fsync) before a shard counts; no other does.
"""

import contextlib
import io
import itertools
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

from bench import peers
from bench.peers import PER_SHARD
from distgan.core import console
from distgan.shards.build.plan import build
from distgan.shards.format.index import index_path
from distgan.shards.format.manifest import DATASET, fingerprint
from distgan.shards.sources._base import SourceReport

OURS, TWO, STOCK = "distgan, 1 worker", "distgan, 2 workers", "webdataset ShardWriter"
ROUNDS, SCALING = 5, 3


class Packed:
    """A source: samples that lie one behind the other in a file."""

    def __init__(self, path: Path, sizes: list[int]):
        self.path, self.options, self.origin = path, {}, {}
        self.keys = [f"s{i:06d}" for i in range(len(sizes))]
        self.sample = peers.IMAGE | {"field": "png"}
        self._ends = [0]
        for size in sizes:
            self._ends.append(self._ends[-1] + size)
        self._file = None

    def check(self, workers: int) -> SourceReport:
        return SourceReport()

    def group(self, i: int) -> str:
        return self.keys[i]

    def data(self, i: int) -> bytes:
        self._file = self._file or open(self.path, "rb")
        return os.pread(self._file.fileno(), self._ends[i + 1] - self._ends[i], self._ends[i])

    def make(self, i: int) -> dict:
        return {"__key__": self.keys[i], "png": self.data(i)}

    def close(self) -> None:
        """Before it is sent to other processes."""
        if self._file:
            self._file.close()
        self._file = None


class Drawn:
    """A source whose samples are work to make, about 2 ms each."""

    def __init__(self, n: int):
        self.options, self.origin, self.keys = {}, {}, [f"s{i:06d}" for i in range(n)]
        self.sample = peers.IMAGE | {"field": "png"}

    def check(self, workers: int) -> SourceReport:
        return SourceReport()

    def group(self, i: int) -> str:
        return self.keys[i]

    def make(self, i: int) -> dict:
        return {"__key__": self.keys[i], "png": peers.image(i)}


def shards(source: Packed | Drawn, out: Path, workers: int) -> int:
    """As `distgan shard` does it, validation split and manifests included."""
    options = {
        "validation": 0.1,
        "per-shard": PER_SHARD,
        "drop-unreadable": False,
        "drop-low-quality": False,
    }
    with contextlib.redirect_stdout(io.StringIO()):
        build("images", source, out, options, workers)
    return len(source.keys)


def tars(
    folder: Path,
    fields: tuple[str, ...],
    samples: Iterable[tuple[bytes, ...]],
    per_shard: int = PER_SHARD,
) -> None:
    import webdataset as wds

    folder.mkdir(parents=True)
    with wds.ShardWriter(f"{folder}/%06d.tar", maxcount=per_shard, verbose=0) as writer:
        for sample in peers.samples_of(fields, samples):
            writer.write(sample)


def mds(
    folder: Path,
    fields: tuple[str, ...],
    samples: Iterable[tuple[bytes, ...]],
    per_shard: int = PER_SHARD,
) -> None:
    """Shards of about that many samples: MDSWriter counts bytes."""
    import streaming

    samples = iter(samples)
    first = next(samples)
    size = per_shard * (sum(len(data) + 4 for data in first) + 4) + 500
    with streaming.MDSWriter(
        out=str(folder), columns=dict.fromkeys(fields, "bytes"), size_limit=size
    ) as writer:
        for parts in itertools.chain([first], samples):
            writer.write(dict(zip(fields, parts, strict=True)))


def chunks(
    folder: Path,
    fields: tuple[str, ...],
    samples: Iterable[tuple[bytes, ...]],
    per_shard: int = PER_SHARD,
) -> None:
    from litdata.streaming.writer import BinaryWriter

    writer = BinaryWriter(str(folder), chunk_size=per_shard)
    for i, parts in enumerate(samples):
        writer[i] = dict(zip(fields, parts, strict=True))
    writer.done()
    writer.merge()


def plain(folder: Path, fields: tuple[str, ...], samples: Iterable[tuple[bytes, ...]]) -> None:
    folder.mkdir(parents=True)
    for sample in peers.samples_of(fields, samples):
        for field in fields:
            (folder / f"{sample['__key__']}.{field}").write_bytes(sample[field])


SHARDS = {"webdataset": tars, "mosaicml": mds, "litdata": chunks}
NAMES = {
    tars: STOCK,
    mds: "mosaicml-streaming MDSWriter",
    chunks: "litdata BinaryWriter",
    plain: "a file for each image",
}


def write(
    root: Path, source: Packed, rounds: int, there: set[str], only: str
) -> tuple[peers.Rounds, peers.Rounds]:
    n, out = len(source.keys), root / "out"

    def emptied() -> Path:
        shutil.rmtree(out, ignore_errors=True)
        return out

    def ours(workers: int) -> int:
        source.close()
        return shards(source, emptied(), workers)

    def other(writer: Callable) -> int:
        writer(emptied(), ("png",), ((source.data(i),) for i in range(n)))
        return n

    def gnu_tar() -> int:
        emptied().mkdir()
        for start in range(0, n, PER_SHARD):
            names = [f"{key}.png" for key in source.keys[start : start + PER_SHARD]]
            subprocess.run(
                [
                    "tar",
                    "--create",
                    "--file",
                    f"{out}/{start:06d}.tar",
                    "--directory",
                    str(root / "files"),
                    "--files-from",
                    "-",
                ],
                input="\n".join(names).encode(),
                check=True,
            )
        return n

    ways: dict[str, Callable[[], int]] = {OURS: lambda: ours(1), TWO: lambda: ours(2)}
    for writer in [*(SHARDS[name] for name in SHARDS if name in there), plain]:
        ways[NAMES[writer]] = lambda writer=writer: other(writer)
    if shutil.which("tar"):
        plain(root / "files", ("png",), ((source.data(i),) for i in range(n)))
        ways["GNU tar, from files"] = gnu_tar
    measured = peers.Rounds("writing images", ways, rounds, only)
    measured.table("writing", STOCK)

    drawn = Drawn(min(n, 4000))
    scaling = peers.Rounds(
        "making and writing images",
        {OURS: lambda: shards(drawn, emptied(), 1), TWO: lambda: shards(drawn, emptied(), 2)},
        min(rounds, SCALING),
        only,
    )
    scaling.table("making images, 2 ms each, and writing them", OURS)
    shutil.rmtree(out, ignore_errors=True)
    return measured, scaling


def pretend(folder: Path, n: int) -> None:
    """The indexes of `n` samples, and tars of holes that have the right size.

    Opening reads no more than that.
    """
    folder.mkdir(parents=True)
    shards, room = [], 512 + 7168
    with console.bar("making indexes", n // PER_SHARD, "shards") as bar:
        for number in range(n // PER_SHARD):
            tar, first = folder / f"train-{number:06d}.tar", number * PER_SHARD
            files = {
                f"image-{i:08d}.png": {
                    "offset": (i - first) * room + 512,
                    "size": 6900,
                    "crc32": i * 2654435761 % 2**32,
                }
                for i in range(first, first + PER_SHARD)
            }
            size, sha256 = PER_SHARD * room + 10240, f"{number:064x}"
            with open(tar, "wb") as file:
                file.truncate(size)
            index_path(tar).write_text(
                json.dumps({"filesize": size, "hash_lfs": sha256, "files": files})
            )
            shards.append({"file": tar.name, "samples": PER_SHARD, "bytes": size, "sha256": sha256})
            bar.advance()
    manifest = {
        "version": 1,
        "name": "train",
        "fields": ["png"],
        "samples": n,
        "shards": shards,
        "fingerprint": fingerprint([shard["sha256"] for shard in shards]),
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))
    (folder.parent / DATASET).write_text("{}")


OPENING = """
import sys, time
from distgan.shards.format.reader import ShardSet
n = len(ShardSet(sys.argv[1]))
status = open("/proc/self/status")  # in kB; ru_maxrss counts the parent too
peak = next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))
print(n, time.process_time(), peak / 1000)
"""


def opening(folder: Path) -> tuple[int, float, float]:
    """(samples, CPU seconds, peak MB) of a fresh process that opens the shards in `folder`, the
    start of Python included.
    """
    out = subprocess.run(
        [sys.executable, "-c", OPENING, str(folder)],
        check=True,
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[1],
    )
    n, cpu, peak = out.stdout.split()
    return int(n), float(cpu), float(peak)


def main(quick: bool = False, only: str = "") -> None:
    there = peers.installed()
    with peers.scratch() as root:
        pngs = peers.made(peers.image, 128 if quick else 20_000, "images")
        (root / "pngs").write_bytes(b"".join(pngs))
        source = Packed(root / "pngs", [len(png) for png in pngs])
        measured, scaling = write(root, source, 1 if quick else ROUNDS, there, only)
        source.close()
        pretend(root / "million" / "train", 2000 if quick else 1_000_000)
        n, cpu, peak = opening(root / "million" / "train")
    print()
    peers.asked(
        "ours, 1 worker", measured.speed(OURS, STOCK), 1.3, "x ShardWriter's samples/s", least=True
    )
    peers.asked(
        "ours, 2 workers, samples that are work to make",
        scaling.speed(TWO, OURS),
        1.5,
        "x the samples/s of 1 worker",
        least=True,
    )
    peers.asked(f"opening an index of {n:,} samples", cpu, 6, "s of CPU")
    peers.asked(f"opening an index of {n:,} samples", peak, 300, "MB at the peak")
