"""What work on data sets costs as they grow: tasks of an array, `distgan index`, near-duplicates.

CPU seconds of one process and no workers, so ratios hold on a busy machine too. Starting eight
processes is not in the figure of the tasks: half a second each.
"""

import contextlib
import functools
import io
import shutil
import tarfile
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from bench import peers
from distgan.core.files import sha256_of
from distgan.shards.adopt import command as adopt_command
from distgan.shards.audit.images import nearest
from distgan.shards.build import command as build_command

TASKS = 8


def cpu(work: Callable[[], object]) -> float:
    """Return the CPU seconds of this process; what it prints is thrown away."""
    quiet = io.StringIO()
    with contextlib.redirect_stdout(quiet), contextlib.redirect_stderr(quiet):
        begin = time.process_time()
        work()
        return time.process_time() - begin


def photograph(i: int, size: int) -> bytes:
    rng = np.random.default_rng(i)
    small = rng.integers(0, 256, (size // 8, size // 8, 3), np.uint8)
    image = np.asarray(Image.fromarray(small).resize((size, size), Image.Resampling.BICUBIC))
    noisy = np.clip(image + rng.normal(0, 8, image.shape), 0, 255).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(noisy).save(file, "JPEG", quality=92)
    return file.getvalue()


def tasks(root: Path, n: int) -> float:
    """Return the CPU of TASKS tasks and --finish, relative to one run."""
    (root / "photos").mkdir(parents=True)
    for i in range(n):
        (root / "photos" / f"{i:06d}.jpg").write_bytes(photograph(i, 256))
    options = ["--from", str(root / "photos"), "--per-shard", str(max(1, n // 32)), "--workers=1"]

    def run(out: str, *more: str) -> float:
        return cpu(lambda: build_command.main(["images", str(root / out), *options, *more]))

    run("warm")
    whole = run("whole")
    divided = [run("tasks", "--task", f"{k}/{TASKS}") for k in range(TASKS)]
    divided.append(run("tasks", "--finish"))
    print(f"| {TASKS} tasks of `shard images`, {n} JPEGs of 256x256 | {sum(divided) / whole:.2f} |")
    return sum(divided) / whole


def index(root: Path, size: int, n: int) -> tuple[float, float]:
    """Return the CPU of `distgan index` relative to sha256, and of a second one after one more of
    17 tars relative to the first.
    """
    kinds = [photograph(i, size) for i in range(16)]
    (root / "tars").mkdir(parents=True)

    def tar(k: int) -> None:
        with tarfile.open(root / "tars" / f"{k:03d}.tar", "w") as archive:
            for i in range(n // 16):
                data = kinds[i % 16] + f"{k} {i}".encode()  # after its end: ignored
                info = tarfile.TarInfo(f"{k:03d}{i:06d}.jpg")
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))

    for k in range(16):
        tar(k)
    run = [str(root / "tars"), "--workers=1"]
    files = sorted((root / "tars").glob("*.tar"))
    hashing = min(cpu(lambda: [sha256_of(path) for path in files]) for _ in range(2))
    first = cpu(lambda: adopt_command.main(run))
    tar(16)
    second = cpu(lambda: adopt_command.main(run))
    kilobytes = len(kinds[0]) / 1e3
    print(f"| `index`, JPEGs of {kilobytes:.0f} kB, relative to sha256 | {first / hashing:.2f} |")
    print(f"| … again after one more of 17 tars, relative to the first | {second / first:.2f} |")
    return first / hashing, second / first


def near_duplicates(counts: tuple[int, ...]) -> float:
    """Return the largest factor by which a doubling grows."""
    rng = np.random.default_rng(0)
    seconds = []
    for n in counts:
        hashes = rng.integers(0, 2**64, n, dtype=np.uint64)
        splits = np.zeros(n, np.int8)
        find = functools.partial(nearest, hashes, splits)
        seconds.append(min(cpu(find) for _ in range(3)))
        print(f"| near-duplicates of {n} images, CPU seconds | {seconds[-1]:.2f} |")
    return max(b / a for a, b in zip(seconds, seconds[1:], strict=False))


def main(quick: bool = False, only: str = "") -> None:
    root = Path(tempfile.mkdtemp(prefix="distgan-bench-"))
    try:
        print("\n| | |\n|---|---|")
        share = tasks(root, 64 if quick else 1500)
        ratio, again = index(root / "large", 512, 64 if quick else 1600)
        index(root / "small", 128, 64 if quick else 6400)
        growth = near_duplicates((5000, 10_000) if quick else (10_000, 20_000, 40_000))
    finally:
        shutil.rmtree(root)
    print()
    peers.asked("tasks, relative to one run", share, 1.15, "times")
    peers.asked("index, relative to sha256", ratio, 1.3, "times")
    peers.asked("index again, one more of 17 tars", again, 0.2, "times")
    peers.asked("near-duplicates, a doubling", growth, 2.3, "times")
