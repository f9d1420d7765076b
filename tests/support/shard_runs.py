"""Run `distgan shard` and compare what it wrote.

One small set, 120 images in 6 + 1 shards, is what several tests must end with.
"""

import hashlib
from pathlib import Path

from distgan.shards.build.command import main

ROOT = Path(__file__).parents[2]
SMALL = ("--n", 120, "--size", 32, "--per-shard", 18)


def shard(*words) -> int:
    return main([str(word) for word in words])


def contents(folder: Path) -> dict[str, str]:
    """Relative path -> sha256 of every file."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
    }
